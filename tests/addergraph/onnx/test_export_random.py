"""Random graphs in ONNX Runtime: integers equal, floats within what rounding explains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import UnsupportedError
from addergraph.verification.reference import Reference, Total
from benchmarks.onnx_zoo import OnnxProgram
from tests.addergraph.onnx.runtime import checked
from tests.campaigns.graphs import drawn
from tests.strategies import Case

REFUSED = ("no form in ONNX", "has no elements", "updates parameters", "open batch N")


def _exported(kind: str, seeds: range) -> Iterator[Case]:
    """The cases of these numbers that belong to inference; others are refused as they should."""
    for seed in seeds:
        case = drawn(kind, seed)
        try:
            checked(ag.to_onnx(case.graph, weights=case.weights))
        except UnsupportedError as error:
            refusal = str(error)
        else:
            yield case
            continue
        assert any(reason in refusal for reason in REFUSED), refusal


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        ("float", range(12)),
        ("integer", range(12)),
        pytest.param("float", range(12, 300), marks=pytest.mark.slow),
        pytest.param("integer", range(12, 300), marks=pytest.mark.slow),
        pytest.param("quantized", range(60), marks=pytest.mark.slow),
    ],
)
def test_random_graphs(kind: str, seeds: range) -> None:
    compared = 0
    for case in _exported(kind, seeds):
        program = OnnxProgram(case.graph, weights=case.weights)
        reference = Reference(
            case.graph, case.inputs, case.weights, np.random.default_rng(case.seed)
        )
        totals = [Total(v.name) for v in case.graph.outputs]
        reference.compare(totals, program.run(case.inputs))
        wrong = [str(total.report()) for total in totals if total.failed]
        assert not wrong, f"{case}{wrong}"
        compared += 1
    assert compared >= len(seeds) // 4
