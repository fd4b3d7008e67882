"""Native training of ResNet-20 against the authors' equations in f64, tensor by tensor.

    python -m benchmarks.parity                # from the project's folder; batch 64, five steps

From the same weights and batches: loss, every gradient and every parameter after one step agree to
1e-4 relative in the L2 norm, loss and parameters after the last step to 1e-2. The f64 side
(tests/addergraph/training/reference_resnet.py) takes from the native run what its relus let
through; where the two disagree is counted, at most 1e-5 of all. Ends with status 1 otherwise.

The native step returns its gradients and activations here. Beside it runs the step as users run it,
without these outputs, whose weights should have the same bits.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from addergraph.training.optimizers import SGD
from tests.addergraph.training.parity import SeenStep, batches, deviations, resnet20
from tests.addergraph.training.reference_resnet import Resnet20, Step

RATE = 0.1
ONE_STEP, LAST_STEP, FLIPS = 1e-4, 1e-2, 1e-5


class Comparison:
    """The three runs side by side; `problems` collects what is out of bounds."""

    def __init__(self, batch: int, size: int, threads: int) -> None:
        model = resnet20(size)
        self.expected = Resnet20(model.weights)
        self.native = SeenStep(model, batch, threads)
        self.plain = model.train_step(batch, optimizer=SGD(), threads=threads)
        self.weights = model.weights  # of the plain step
        self.problems: list[str] = []

    def step(self, x: np.ndarray, targets: np.ndarray, limit: float) -> dict[str, list[float]]:
        """One step of all; the deviation of the gradient (if trained) and weights by parameter."""
        seen = self.native(x, targets, RATE)
        self.plain.run([x], [targets], RATE)
        found = self.expected.step(x, targets, RATE, seen.masks)
        gradients = deviations(seen.gradients, found.gradients)
        weights = deviations(self.native.state.views, self.expected.weights)
        self._print(seen.loss, found, gradients, weights)
        self.require("loss", abs(seen.loss - found.loss) / found.loss, limit)
        self.require("relus that disagree", found.flips / found.relus, FLIPS)
        for name, deviation in weights.items():
            self.require(name, deviation, limit)
        return {name: [gradients.get(name, np.nan), weights[name]] for name in weights}

    def _print(
        self, loss: float, found: Step, gradients: dict[str, float], weights: dict[str, float]
    ) -> None:
        same = all(
            np.array_equal(array, self.native.state.views[name])
            for name, array in self.weights.items()
        )
        print(
            f"loss {loss:.6f} native, {found.loss:.6f} in f64; relus that disagree "
            f"{found.flips} of {found.relus:,}; largest deviation of a gradient "
            f"{max(gradients.values()):.1e}, of a parameter {max(weights.values()):.1e}; "
            f"weights of the plain step: {'the same bits' if same else 'other bits'}",
            flush=True,
        )
        if not same:
            self.problems.append("the step without outputs gives other bits")

    def require(self, what: str, found: float, limit: float) -> None:
        if not found <= limit:
            self.problems.append(f"{what}: {found:.1e}, more than {limit:g}")


def print_table(first: dict[str, list[float]], last: dict[str, list[float]], steps: int) -> None:
    heads = ("gradient, step 1", "value, 1 step", f"value, {steps} steps")
    print(f"\n| parameter | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for name, deviation in first.items():
        cells = (f"{d:.1e}" if np.isfinite(d) else "" for d in (*deviation, last[name][1]))
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="rows and columns of the images")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    run = Comparison(options.batch, options.size, options.threads)
    rows = []
    for number, (x, targets) in enumerate(batches(options.steps, options.batch, options.size)):
        rows.append(run.step(x, targets, LAST_STEP if number else ONE_STEP))
    for name, (gradient, _) in rows[0].items():
        if name in run.expected.velocities:
            run.require(f"gradient of {name}", gradient, ONE_STEP)
    print_table(rows[0], rows[-1], options.steps)
    for problem in run.problems:
        print(problem, file=sys.stderr)
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
