"""Train a small adder network on handwritten digits, compile it to C, and check every step.

    python examples/digits.py                # what `make demo` runs
    python examples/digits.py --seeds 5      # also the mean accuracy of five trainings

Everything that it writes goes into --output: the model file, the C library, the C program that runs
over all test images, and what that program read and wrote.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Model, compiler, layers
from addergraph.data import digits
from addergraph.training.schedules import cosine


def network(seed: int) -> Model:
    """conv 16 | adder 32 | pool | adder 64 | pool | adder 64 | dense 10.

    The first layer multiplies: it turns grey values into features that differences can compare.
    Each adder is followed by a batch norm: outputs, minus a distance, are never positive.
    """
    model = Model(input_shape=(8, 8, 1), name="digits", seed=seed)

    def block(layer: layers.Layer, *, pool: bool) -> None:
        model.add(layer)
        model.add(layers.BatchNorm())
        model.add(layers.Activation("relu"))
        if pool:
            model.add(layers.MaxPool(pool_size=2))

    block(layers.Conv(16, kernel_size=3, padding=1), pool=False)
    block(layers.Adder(32, kernel_size=3, padding=1), pool=True)
    block(layers.Adder(64, kernel_size=3, padding=1), pool=True)
    block(layers.Adder(64, kernel_size=3, padding=1), pool=False)
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    model.add(layers.Activation("softmax"))
    return model


def train(data: digits.Digits, seed: int, epochs: int, verbose: int) -> Model:
    model = network(seed)
    model.fit(
        data.x_train,
        data.y_train,
        epochs=epochs,
        batch_size=64,
        learning_rate=cosine(0.1, epochs),
        seed=seed,
        verbose=verbose,
    )
    return model


def run_c_program(program: Any, folder: Path, x: np.ndarray) -> np.ndarray:
    """Exports a C library, builds its example program, and runs that over all images.

    Raises ToolchainError where there is no C compiler, or it fails.
    """
    exported = program.export(folder)
    compiler = shutil.which("cc")
    if compiler is None:
        raise ag.errors.ToolchainError(
            "the C part of the demo needs a C compiler: found no cc on the PATH; install one "
            f"(gcc or clang), then run make -C {exported.example.parent}"
        )
    binary, images, answers = folder / "classify", folder / "images.bin", folder / "answers.bin"
    strict = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    run([compiler, *strict, "-o", binary, exported.example, exported.archive])
    images.write_bytes(x.astype("<f4").tobytes())
    run([binary, images, answers])
    return np.fromfile(answers, "<f4").reshape(len(x), 10)


def run(command: list[Any]) -> None:
    """Shows a command, runs it and shows what it says."""
    print("$", *command)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    print(done.stdout + done.stderr, end="")
    if done.returncode:
        raise ag.errors.ToolchainError(f"{command[0]} ended with status {done.returncode}")


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers.argmax(1) == labels).mean())


def microseconds(call: Callable[[], object], images: int, rounds: int) -> float:
    """Of one image, in the fastest of a few calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / images


def print_graphs(model: Model) -> None:
    graph = model.graph(training=False)
    print(f"\n== the graph as declared ==\n{graph}")
    print(f"\n== the graph after the pipeline ==\n{compiler.optimize(graph)}")


def print_accuracy(found: dict[str, np.ndarray], labels: np.ndarray) -> bool:
    """One line for each way to compute the answers; whether the C program's bits are the same."""
    print("\n== results on the 360 test images ==")
    for name, answers in found.items():
        print(f"accuracy, {name:<20} {accuracy(answers, labels):.4f}")
    if "C program" not in found:
        return False
    same = found["C program"].tobytes() == found["in-process"].tobytes()
    verdict = "bit-identical to" if same else "DIFFERENT from"
    print(f"the C program's answers are {verdict} the in-process ones")
    return same


def print_seeds(data: digits.Digits, first: Model, seeds: int, epochs: int) -> None:
    models = [first, *(train(data, seed, epochs, verbose=0) for seed in range(1, seeds))]
    scores = [m.evaluate(data.x_test, data.y_test)["accuracy"] for m in models]
    shown = " ".join(f"{score:.4f}" for score in scores)
    print(f"accuracy, mean of {seeds} seeds      {np.mean(scores):.4f}  ({shown})")


def print_speed(model: Model, program: Any, x: np.ndarray) -> None:
    slow = microseconds(lambda: model.predict(x, engine="reference"), len(x), rounds=1)
    fast = microseconds(lambda: program(x), len(x), rounds=50)
    print(f"microseconds an image          NumPy reference {slow:,.0f}, native {fast:,.1f}")


def print_census(model: Model) -> None:
    """The instructions of the adder kernels, each with the batch norm and relu behind it."""
    try:
        kernels = compiler.census(model).of_op("adder2d")
    except ag.errors.UnsupportedError as error:  # on other machines than x86-64
        print(f"no instructions counted: {error}")
        return
    print(f"{'instructions by kind':<22}" + "".join(f"{k.nodes[0]:>8}" for k in kernels))
    for kind in sorted({kind for k in kernels for kind in k.counts}):
        print(f"  {kind:<20}" + "".join(f"{k.counts.get(kind, 0):>8}" for k in kernels))
    causes = sorted({cause for k in kernels for cause in k.causes})
    print(f"  (what multiplies data is {', '.join(causes)}: the scale of the batch norm behind it)")


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="how many networks to train")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("build/digits"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = digits.load()

    print("== train ==")
    trained = train(data, 0, options.epochs, verbose=1)
    print_graphs(trained)

    print("\n== save, compile, verify ==")
    file = options.output / "digits.safetensors"
    trained.save(file)
    print(f"wrote {file} ({file.stat().st_size:,} bytes)")
    model = Model.load(file)
    program: Any = ag.compile(model)
    report = ag.verify(model.graph(training=False), program, inputs=[data.x_test])
    print(report)

    found = {
        "NumPy reference": model.predict(data.x_test, engine="reference"),
        "in-process": program(data.x_test),
    }
    problem = None
    try:
        found["C program"] = run_c_program(program, options.output, data.x_test)
    except ag.errors.ToolchainError as error:
        problem = error
    same = print_accuracy(found, data.y_test)
    if options.seeds > 1:
        print_seeds(data, trained, options.seeds, options.epochs)
    print_speed(model, program, data.x_test)
    print_census(model)
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
    return 0 if same and report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
