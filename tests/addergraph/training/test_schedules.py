"""Schedules: the rate at every time, and descriptions that make no sense."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from addergraph.errors import DataError
from addergraph.training import Constant, Cosine, Polynomial, Step
from addergraph.training.schedules import SCHEDULES, Schedule
from addergraph.training.settings import rate_at


def test_shapes_at_whole_epochs() -> None:
    assert [Constant(0.3, 4)(t) for t in (0, 2, 4)] == [0.3, 0.3, 0.3]
    expected = [0.05 * (1 + math.cos(math.pi * e / 400)) for e in range(400)]
    assert [Cosine(0.1, 400)(e) for e in range(400)] == pytest.approx(expected, rel=1e-12)
    steps = Step(1.0, 160, milestones=(0.5, 0.75), factor=0.1)
    assert [steps(e) for e in (0, 79, 80, 119, 120, 159)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    power = Polynomial(0.1, 10, power=0.9)
    assert [power(e) for e in (0, 5, 10)] == pytest.approx([0.1, 0.1 * 0.5**0.9, 0.0])


@pytest.mark.parametrize("kind", SCHEDULES)
def test_by_epoch_or_by_step(kind: str) -> None:
    by_epoch, by_step = SCHEDULES[kind](0.2, 8), SCHEDULES[kind](0.2, 8, by_step=True)
    for epoch in range(8):
        assert by_epoch(epoch) == by_epoch(epoch + 0.99) == by_step(epoch)
    assert by_step(3.5) <= by_step(3) and by_step(8.0) >= 0.0


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("by_step", [False, True])
def test_warm_up_is_a_line_under_any_shape(kind: str, by_step: bool) -> None:
    plain = SCHEDULES[kind](0.2, 8, by_step=by_step)
    warm = SCHEDULES[kind](0.2, 8, warmup=2.5, by_step=by_step)
    for time in (0.0, 0.25, 1.0, 2.0, 2.4):
        assert warm(time) == pytest.approx(plain(time) * time / 2.5)
    assert [warm(t) for t in (2.5, 3.0, 7.9)] == [plain(t) for t in (2.5, 3.0, 7.9)]


def test_schedules_see_steps_and_functions_see_epochs() -> None:
    assert rate_at(Cosine(0.1, 2, by_step=True), 0, 0.5) == Cosine(0.1, 2, by_step=True)(0.5)
    seen: list[object] = []

    def rate(epoch: int) -> float:
        seen.append(epoch)
        return 0.1

    assert rate_at(rate, 3, 0.5) == 0.1 and seen == [3]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cosine(0.0, 3), "Cosine: base=0.0 must be a number above 0, such as 0.1"),
        (lambda: Cosine(math.nan, 3), "base=nan"),
        (lambda: Constant(-1.0, 3), "Constant: base=-1.0"),
        (lambda: Constant(1.0, 0), "epochs=0"),
        (lambda: Constant(1.0, 3, warmup=-1.0), "warmup=-1.0"),
        (lambda: Step(1.0, 3, milestones=(0.5, 80)), r"milestones=\(0.5, 80.0\) must be fractions"),
        (lambda: Step(1.0, 3, milestones=(0.5, 0.2)), "ascending"),
        (lambda: Step(1.0, 3, factor=-1.0), "factor=-1.0"),
        (lambda: Polynomial(1.0, 3, power=0.0), "power=0.0 must be a number above 0"),
    ],
)
def test_descriptions_refuse_wrong_numbers(make: Callable[[], Schedule], said: str) -> None:
    with pytest.raises(DataError, match=said):
        make()
