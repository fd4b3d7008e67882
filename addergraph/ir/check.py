"""Well-formedness of a graph. It costs microseconds a node and runs after every pass.

`check` verifies that

* names are unique and printable, and no parameter has an open batch;
* every operand is defined before its node (SSA order) and every output is defined;
* the type of every value is what its op's shape rule gives;
* each update gives one parameter of this graph a value of its own type, at most once;
* integers that meet in an adder layer, a sum or a concatenation have one scale and zero point;
* `input_nonnegative` is provable from the value ranges, also inside fused bodies;
* a fused body is a well-formed graph of its own (its form and its types are the shape rule's).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from ..border import shown
from ..errors import GraphError, ShapeError
from .graph import Graph, Node, Parameter, Update, Value, require_name, require_word
from .intervals import Interval, value_ranges
from .op import Op
from .quantization import value_quantizations
from .types import TensorType

MAX_RANK = 32
MAX_ELEMENTS = 1 << 40  # of a tensor; of a sample of it while the batch is open
MAX_NAME, MAX_WORD = 1000, 240  # letters: of a value; of a graph, which files are called by


def check(graph: Graph) -> None:
    """GraphError, naming the graph, the node and the rule, unless `graph` is well formed."""
    _check(graph, None)


def check_value(value: Value) -> None:
    """GraphError unless the name can be printed, and name, rank and elements are within limits."""
    require_name(value.name)
    if len(value.name) > MAX_NAME:
        raise GraphError(f"the name {shown(value.name)} has more than {MAX_NAME} letters")
    if value.type.rank > MAX_RANK:
        raise GraphError(
            f"{value} has {value.type.rank} dimensions, at most {MAX_RANK} are allowed"
        )
    if math.prod(d for d in value.type.shape if d != "N") > MAX_ELEMENTS:
        raise GraphError(f"{value}: {value.type} has more than {MAX_ELEMENTS:,} elements")


def result_types(where: str, op: Op, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
    """What the op's shape rule gives for `operands`; GraphError, which begins with `where`, where
    it refuses them.
    """
    try:
        return op.infer(*operands)
    except ShapeError as error:
        raise GraphError(f"{where}: {error}") from None
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        # A shape rule unpacks the operands that it was written for: `(x,) = types`.
        raise GraphError(
            f"{where}: the op does not take operands of types {_types(operands)} ({error})"
        ) from error


def check_node(node: Node) -> None:
    """GraphError unless the node's stated types are what its op's shape rule gives."""
    operands = [v.type for v in node.inputs]
    types = result_types(node.label, node.op, operands)
    stated = [v.type for v in node.outputs]
    if stated != list(types):
        raise GraphError(
            f"{node.label}: stated {_types(stated)}, but the op gives {_types(types)} "
            f"for operands {_types(operands)}"
        )


def bodies(op: Op) -> list[Graph]:
    """The graphs among the attributes of `op`: the body of a fused one."""
    values = (getattr(op, f.name) for f in dataclasses.fields(op))  # type: ignore[arg-type]
    return [v for v in values if isinstance(v, Graph)]


def _check(graph: Graph, inputs: Sequence[Interval] | None) -> None:
    """`inputs` are the ranges of the graph's inputs where they are known (in a body)."""
    where = f'graph "{graph.name}"'
    if len(graph.name) > MAX_WORD:
        raise GraphError(f'{where[:MAX_WORD]}...": a name has at most {MAX_WORD} letters')
    require_word(graph.name)
    try:
        _check_names(graph)
        _check_order(graph)
        _check_batch(graph)
        for node in graph.nodes:
            check_node(node)
        _check_updates(graph)
        _check_ranges(graph, inputs)
        _check_quantizations(graph)
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from error.__cause__


def _check_names(graph: Graph) -> None:
    seen: dict[str, Value] = {}
    for value in graph.values():
        check_value(value)
        if value.name in seen:
            raise GraphError(f"two values are named {value}; names must be unique")
        seen[value.name] = value
    for parameter in graph.parameters:
        eta = parameter.eta
        if eta is not None and not (math.isfinite(eta) and eta > 0):
            raise GraphError(f"parameter {parameter}: eta={eta} must be positive and finite")


def _check_order(graph: Graph) -> None:
    defined: set[Value] = {*graph.inputs, *graph.parameters}
    for node in graph.nodes:
        if not node.outputs:
            raise GraphError(f'a node of op "{node.op.name}" has no results')
        _require_defined(node.inputs, defined, graph, node.label)
        defined.update(node.outputs)
    _require_defined(graph.outputs, defined, graph, "return")


def _require_defined(values: Iterable[Value], defined: set[Value], graph: Graph, user: str) -> None:
    for value in values:
        if value in defined:
            continue
        if any(value is v for v in graph.values()):
            raise GraphError(
                f"{user} uses {value} before it is defined; nodes stand in order, without cycle"
            )
        raise GraphError(f"{user} uses {value}, which is not a value of this graph")


def _check_batch(graph: Graph) -> None:
    for parameter in graph.parameters:
        if parameter.type.is_open:
            raise GraphError(f"parameter {parameter}: {parameter.type} may not have the batch N")
    if graph.is_open and not any(v.type.is_open for v in graph.inputs):
        raise GraphError("uses the batch N, but none of its inputs has it as leading dimension")


def _check_updates(graph: Graph) -> None:
    known, updated = set(graph.values()), set[Value]()
    own = set(graph.parameters)
    for update in graph.updates:
        _check_update(update, own, known)
        if update.parameter in updated:
            raise GraphError(f"parameter {update.parameter} is updated twice")
        updated.add(update.parameter)


def _check_update(update: Update, own: set[Parameter], known: set[Value]) -> None:
    parameter, value = update.parameter, update.value
    if parameter not in own:
        raise GraphError(f"update of {parameter}, which is not a parameter of this graph")
    if value not in known:
        raise GraphError(f"update of {parameter} with {value}, which is not a value of this graph")
    if parameter.type != value.type:
        raise GraphError(
            f"update of {parameter}: {parameter.type} with {value}: {value.type}; "
            "the types must be equal"
        )


def _check_ranges(graph: Graph, inputs: Sequence[Interval] | None) -> None:
    claims = [n for n in graph.nodes if getattr(n.op, "input_nonnegative", False)]
    outer = [n for n in graph.nodes if bodies(n.op)]
    if not claims and not outer:
        return
    ranges = value_ranges(graph, inputs)
    for node in claims:
        found = ranges[node.inputs[0].name]
        if not found.nonnegative:
            raise GraphError(
                f"{node.label}: input_nonnegative=true is not provable: {node.inputs[0]} lies in "
                f"[{found.lo}, {found.hi}]; only the ranges pass should set it"
            )
    for node in outer:
        for body in bodies(node.op):
            try:
                _check(body, [ranges[v.name] for v in node.inputs])
            except GraphError as error:
                raise GraphError(f"{node.label}: {error}") from error.__cause__


def _check_quantizations(graph: Graph) -> None:
    try:
        value_quantizations(graph)
    except ShapeError as error:
        raise GraphError(str(error)) from None


def _types(types: Iterable[TensorType]) -> str:
    return "(" + ", ".join(map(str, types)) + ")"


def require_something_to_train(graph: Graph) -> None:
    """GraphError where no parameter is trainable because all of them are frozen."""
    parameters = graph.parameters
    if any(p.frozen for p in parameters) and not any(p.trainable for p in parameters):
        last = next(p.name for p in reversed(parameters) if p.frozen).rpartition(".")[0]
        raise GraphError(
            f'"{graph.name}" has nothing to train: its parameters are all frozen; unfreeze some, '
            f'as model.unfreeze("{last}"), or freeze fewer'
        )
