"""The node tests that the package `onnx` carries, each as a network of its own: read, compiled,
run, compared. Nobody here wrote them.

    python -m tests.campaigns.onnx_nodes [NAME ...]

A test is of a supported operator where all its nodes are in the table. Inputs that have to be
numbers of the file (`Operator.constants`: shapes, axes, pads, scales) enter as initializers with
the test's own numbers, which is how exporters write them. INT64 results are i32 here, so their
numbers are compared; all else has to have the type that the test says.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph.errors import AdderGraphError, UnsupportedError
from addergraph.ir import Array
from addergraph.onnx.import_network import graph_from_onnx
from addergraph.onnx.import_table import OPERATORS

PASSED, REFUSED, WRONG = "passed", "refused", "wrong"


@dataclass(frozen=True)
class Outcome:
    """Of one test; `why` is empty where it passed."""

    name: str
    kind: str
    why: str = ""


def cases() -> list[Any]:
    """All tests whose nodes are of operators in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return [case for case in found if _is_supported(case.model)]


def _is_supported(model: Any) -> bool:
    nodes = model.graph.node
    return bool(nodes) and all(n.op_type in OPERATORS and not n.domain for n in nodes)


def outcome(case: Any, folder: Path) -> Outcome:
    """What becomes of a test: all its data sets pass, or it is refused, or it is wrong."""
    for inputs, outputs in case.data_sets:
        try:
            why = _difference(case, list(inputs), list(outputs), folder)
        except UnsupportedError as error:
            return Outcome(case.name, REFUSED, str(error).partition(": ")[2] or str(error))
        except AdderGraphError as error:
            return Outcome(case.name, WRONG, f"{type(error).__name__}: {error}")
        if why:
            return Outcome(case.name, WRONG, why)
    return Outcome(case.name, PASSED)


def _difference(case: Any, inputs: list[Any], outputs: list[Any], folder: Path) -> str:
    """What differs, or nothing."""
    model, given = _with_numbers(case.model, inputs)
    path = folder / "node.onnx"
    path.write_bytes(model.SerializeToString())
    graph, weights = graph_from_onnx(path, layout="NCHW")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = ag.compile(graph, weights=weights)
    made = program(*given)
    found = made if isinstance(made, tuple) else (made,)
    for value, expected in zip(found, outputs, strict=True):
        expected = np.asarray(expected)
        same_type = value.dtype == expected.dtype or {value.dtype, expected.dtype} == {
            np.dtype("i4"),
            np.dtype("i8"),
        }
        if not same_type or value.shape != expected.shape:
            return f"{value.dtype}{value.shape} for {expected.dtype}{expected.shape}"
        if not np.allclose(value, expected, case.rtol, case.atol, equal_nan=True):
            return f"differs by {np.abs(value - expected.astype('f8')).max()}"
    return ""


def _with_numbers(model: Any, inputs: list[Any]) -> tuple[Any, list[Array]]:
    """The model with initializers for inputs that have to be numbers of the file, and the inputs
    that are left. A network without an input gets one, which nothing reads."""
    from onnx import TensorProto, helper, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    fixed = {
        name
        for node in made.graph.node
        for place, name in enumerate(node.input)
        if place in OPERATORS[node.op_type].constants
    }
    left = []
    named = list(zip(made.graph.input, inputs, strict=False))
    for value, array in named:
        if value.name in fixed and isinstance(array, np.ndarray | np.generic):
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        else:
            left.append(array)
    for value in [v for v, _ in named if v.name in {t.name for t in made.graph.initializer}]:
        made.graph.input.remove(value)
    if not made.graph.input:
        made.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]))
        left.append(np.zeros(1, np.float32))
    return made, left


def outcomes(names: list[str] | None = None) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if not names or case.name in names:
                yield outcome(case, Path(folder))


def summary(found: list[Outcome]) -> str:
    """Counts, then the reasons of refusals and how many tests each has."""
    kinds = Counter(one.kind for one in found)
    reasons = Counter(_kind_of_reason(one.why) for one in found if one.kind == REFUSED)
    lines = [
        f"{len(found)} node tests of {len(OPERATORS)} operators: {kinds[PASSED]} passed, "
        f"{kinds[REFUSED]} refused, {kinds[WRONG]} wrong"
    ]
    lines += [f"  {count:4}  {reason}" for reason, count in reasons.most_common()]
    lines += [f"  wrong: {one.name}: {one.why}" for one in found if one.kind == WRONG]
    return "\n".join(lines)


def _kind_of_reason(why: str) -> str:
    """Without names, places and numbers."""
    kind = re.search(r"(?:is of|are of|casts to|result is) ([A-Z]+[0-9A-Z]+)", why)
    if kind:
        return f"elements of {kind[1]}"
    said = re.sub(r"^\w+ '[^']*', node \d+ of \d+: ", lambda m: f"{m[0].split()[0]}: ", why)
    return re.sub(r'"[^"]*"', '"..."', re.sub(r"\[[\d,]*\]", "[...]", said))[:110]


if __name__ == "__main__":
    results = list(outcomes(sys.argv[1:]))
    if sys.argv[1:]:
        print(*results, sep="\n")
    print(summary(results))
    sys.exit(any(one.kind == WRONG for one in results))
