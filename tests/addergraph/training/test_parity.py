"""Native training of ResNet-20 against the authors' equations in f64, from the same weights.

The relus of the f64 side let through what those of the native run do: near zero, f32 may fall on
the other side, and one such value moves a gradient by more than all rounding together. How many did
is counted. The clipped input gradient needs no such help, being continuous.
`benchmarks/parity.py` does the same at full size.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.addergraph.training.parity import SeenStep, batches, deviations, resnet20
from tests.addergraph.training.reference_resnet import Resnet20

pytestmark = pytest.mark.usefixtures("quick_objects")

BATCH, SIZE, STEPS, RATE = 4, 16, 5, 0.1


class Compared(NamedTuple):
    """Of one step: both losses, the deviations by name, and the relus that disagree."""

    native_loss: float
    loss: float
    gradients: dict[str, float]
    parameters: dict[str, float]
    velocities: dict[str, float]
    flips: int
    relus: int


@pytest.fixture(scope="module")
def steps() -> list[Compared]:
    model = resnet20(SIZE)
    expected, native = Resnet20(model.weights), SeenStep(model, BATCH, threads=1)
    made = []
    for x, targets in batches(STEPS, BATCH, SIZE):
        seen = native(x, targets, RATE)
        step = expected.step(x, targets, RATE, seen.masks)
        assert seen.gradients.keys() == step.gradients.keys() == expected.velocities.keys()
        assert model.weights.keys() == expected.weights.keys()
        made.append(
            Compared(
                seen.loss,
                step.loss,
                deviations(seen.gradients, step.gradients),
                deviations(native.state.views, expected.weights),
                deviations(native.velocities, expected.velocities),
                step.flips,
                step.relus,
            )
        )
    return made


@pytest.mark.slow
def test_one_step_agrees_tensor_by_tensor(steps: list[Compared]) -> None:
    first = steps[0]
    assert first.native_loss == pytest.approx(first.loss, rel=1e-5)
    for found in (first.gradients, first.parameters, first.velocities):
        assert {name: d for name, d in found.items() if not d <= 1e-4} == {}


@pytest.mark.slow
def test_few_relus_disagree(steps: list[Compared]) -> None:
    assert sum(s.flips for s in steps) <= 1e-5 * sum(s.relus for s in steps)


@pytest.mark.slow
def test_five_steps_stay_together(steps: list[Compared]) -> None:
    last = steps[-1]
    assert last.native_loss == pytest.approx(last.loss, rel=1e-2)
    for found in (last.parameters, last.velocities):
        assert {name: d for name, d in found.items() if not d <= 1e-2} == {}
