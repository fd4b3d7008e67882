"""Random graphs, integer programs and quantized networks on every target that an emulator runs.

The number of a graph is its seed: it says the graph, as in `graphs.py`, the machine, whether the
code is strict, and against which page its weights lie. Targets take turns; one without floats or
without a multiplier leaves out what it refuses.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from addergraph.codegen.inspect.limits import floats_of
from addergraph.errors import RangeWarning, UnsupportedError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import run_reference
from tests.campaigns import graphs
from tests.campaigns.machines import Machine, NoRoom, run, usable
from tests.differential import is_mistrusted, multiplies, reference
from tests.minimize import minimize
from tests.strategies import Case

SHARES = {"float": 45, "integer": 50, "quantized": 5}  # of a hundred graphs
TURNS = 1009  # a prime: the machine is no function of the kind or the size


def kind_of(seed: int) -> str:
    """What the campaign makes of the graph of this number."""
    return Random(f"kind of target {seed}").choices(list(SHARES), list(SHARES.values()))[0]


def machine_for(case: Case, seed: int, machines: list[Machine]) -> tuple[Machine, bool] | None:
    """The machine whose turn it is, of those that take the graph, and whether the code is strict;
    None where none does."""
    products, floats = multiplies(case.graph), bool(floats_of(case.graph))
    able = [
        m for m in machines
        if (m.of.floats or not floats) and (m.of.multiplier or not products)
    ]  # fmt: skip
    if not able:
        return None
    machine = able[seed % TURNS % len(able)]
    strict = not products and not floats and machine.of.decoded and seed // TURNS % 2 == 0
    return machine, strict or not machine.of.multiplier


def checked(kind: str, seed: int) -> dict[str, Any]:
    """Counts of what was compared of this graph, under the names of `Total`.

    AssertionError, with the smallest part that fails, where anything differs.
    """
    case = exportable(graphs.drawn(kind, seed))
    turn = None if case is None else machine_for(case, seed, usable())
    if case is None or turn is None:
        return {"graphs": {f"{kind}, not exported": 1}}
    machine, strict = turn
    error = failure(case, machine, strict)
    if error is not None and _is_refusal(error):
        return {"graphs": {f"{kind}, refused": 1}}
    if error is not None:
        small = minimize(case, lambda part: _fails(part, machine, strict))
        wrong = failure(small, machine, strict)
        raise AssertionError(f"{small}{wrong!r}\non {machine.name}, found in {case}") from error
    return {
        "graphs": {kind: 1},
        "cases": {f"{kind} {machine.name}{' strict' * strict}": 1},
        "dull": {kind: int(is_mistrusted(case.graph, reference(case.graph, case)))},
        "ops": Counter(node.op.name for node in case.graph.nodes),
    }


def failure(case: Case, machine: Machine, strict: bool) -> Exception | None:
    """What is wrong with a case on a machine."""
    bound = _bound(case)
    if bound is None:
        return None
    graph, inputs = bound
    try:
        weights = {p.name: case.weights[p.name] for p in graph.parameters}
        expected = [np.asarray(a, order="C") for a in run_reference(graph, inputs, weights)[0]]
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore", RangeWarning)
            run(machine, graph, inputs, weights, expected, Path(folder), strict=strict,
                right=case.seed % 2 == 0)  # fmt: skip
    except Exception as error:  # whatever it is, it is what we look for
        return error
    return None


def _fails(part: Case, machine: Machine, strict: bool) -> bool:
    error = failure(part, machine, strict)
    return error is not None and not _is_refusal(error)


def _is_refusal(error: Exception) -> bool:
    """Of what the compiler made of a graph, which can be told only when it is made."""
    said = ("no float instructions", "is not multiplication-free")
    found = isinstance(error, UnsupportedError) and any(part in str(error) for part in said)
    return found or isinstance(error, NoRoom)


def exportable(case: Case) -> Case | None:
    """The case without updates of parameters, which a library holds read-only."""
    graph = case.graph
    if graph.updates and not graph.outputs:
        return None
    made = Graph(graph.name, graph.inputs, graph.parameters, graph.nodes, graph.outputs)
    return Case(case.seed, made, case.inputs, case.weights)


def _bound(case: Case) -> tuple[Graph, list[Array]] | None:
    """The graph for the batch of its inputs; None for a batch of no sample."""
    graph, inputs = case.graph, [np.asarray(a, order="C") for a in case.inputs]
    opened = [len(a) for v, a in zip(graph.inputs, inputs, strict=True) if v.type.is_open]
    if 0 in opened:
        return None
    return (graph.bind(opened[0]) if opened else graph), inputs
