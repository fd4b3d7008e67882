"""The mutation score of `verify`, on a few changes; `make score` has them all."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph import zoo
from tests.score import SCORED, changes, network, score, share

pytestmark = [pytest.mark.usefixtures("quick_objects"), pytest.mark.slow]


@pytest.mark.parametrize(("name", "count"), [("small-adder", 6), ("small-adder:int8", 4)])
def test_planted_changes_are_reported(name: str, count: int) -> None:
    verdicts = score(name, count, samples=2)
    assert len(verdicts) == count
    assert share(verdicts) == 1, "\n".join(map(str, verdicts))


def test_changes_are_of_all_kinds_and_change_something() -> None:
    graph, weights = network("small-adder")
    made = list(changes(graph, weights, 8))
    assert [c.graph is graph for c in made] == [True, True, False, False] * 2
    for change in made:
        same = all(np.array_equal(a, weights[name]) for name, a in change.weights.items())
        assert change.graph != graph or not same, change.what


def test_every_network_of_the_zoo_is_scored() -> None:
    assert {name.partition(":")[0] for name in SCORED} == set(zoo.NETWORKS)
    assert any(name.endswith(":int8") for name in SCORED)
