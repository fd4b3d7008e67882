"""The functional DSL: functions of symbolic tensors become graphs.

A `Tensor` is a value of a graph under construction. Operators and `ops.*` functions append nodes;
layers, when called on one, also create named parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import habits
from ..border import accept, number, shown
from ..errors import GraphError, UnknownNameError, nearest
from .graph import Builder, Graph, Init, Parameter, Value
from .op import Op, op_named, registry
from .types import DType, Shape, TensorType, f32
from .walk import renamed

UFUNCS = {  # np.float32(2) * tensor comes as one of these, and is the op
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "matmul": "matmul",
    "greater": "greater",
}  # fmt: skip
REFUSED = (
    "getitem", "setitem", "delitem", "iter", "len", "float", "int", "mod", "rmod", "floordiv",
    "rfloordiv", "divmod", "rdivmod", "ge", "le", "eq", "ne", "rpow", "and", "rand", "or", "ror",
    "xor", "rxor", "lshift", "rlshift", "rshift", "rrshift", "invert", "round", "trunc", "floor",
    "ceil",
)  # fmt: skip
MOST_POWER = 8
RETURN_ONCE = (
    "an answer has one name and one loss. Return it once, with a loss function that adds what it "
    "shall do, or compute each output by a layer of its own"
)


class Tensor:
    """A symbolic tensor: a value and the builder of the graph that it belongs to."""

    def __init__(self, builder: Builder, value: Value) -> None:
        self.builder = builder
        self.value = value

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> Shape:
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def name(self) -> str:
        return self.value.name

    def __repr__(self) -> str:
        return f"Tensor({self.value}: {self.type})"

    def __add__(self, other: Operand) -> Tensor:
        return apply(op_named("add")(), self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return apply(op_named("add")(), other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return apply(op_named("sub")(), self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return apply(op_named("sub")(), other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return apply(op_named("mul")(), self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return apply(op_named("mul")(), other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return apply(op_named("div")(), self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return apply(op_named("div")(), other, self)

    def __neg__(self) -> Tensor:
        return apply(op_named("neg")(), self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return apply(op_named("abs")(), self)

    def __gt__(self, other: Operand) -> Tensor:
        return apply(op_named("greater")(), self, other)

    def __lt__(self, other: Operand) -> Tensor:
        return apply(op_named("greater")(), other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return apply(op_named("matmul")(), self, other)

    def __pow__(self, exponent: float, modulus: object = None) -> Tensor:
        """The product of so many of it, 1 to MOST_POWER; the square root for 0.5."""
        power = accept(float, exponent) if modulus is None else None
        if power == 0.5:
            return apply(op_named("sqrt")(), self)
        if power is None or power not in range(1, MOST_POWER + 1):
            raise GraphError(
                f"x ** {shown(exponent)}: powers of symbolic tensors are 1 to {MOST_POWER} and "
                "0.5; for others use addergraph.ops: ops.exp(n * ops.log(x)) of x above 0"
            )
        made = self
        for _ in range(int(power) - 1):
            made = made * self
        return made

    if not TYPE_CHECKING:  # for which there is no attribute but those above

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            raise UnknownNameError(f'a symbolic tensor has no "{name}"{_hint(name)}')

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *given: Any, **options: Any) -> Tensor:
        name = UFUNCS.get(ufunc.__name__)
        given = tuple(g[()] if isinstance(g, np.ndarray) and not g.ndim else g for g in given)
        if ufunc.__name__ == "less":
            name, given = "greater", given[::-1]
        if name is None or method != "__call__" or options:
            _refuse(ufunc.__name__)
        return apply(op_named(name)(), *given)

    def __array_function__(self, function: Any, *_: object) -> NoReturn:
        _refuse(function.__name__)

    def __bool__(self) -> bool:
        raise GraphError(
            f"{self!r} is symbolic: it has no truth value while the graph is traced; "
            "use ops.select to choose between tensors"
        )


def _hint(name: str, guess: bool = True) -> str:
    """Where what is asked for by a name of NumPy or PyTorch is found, or, by a `guess`, what has a
    name like it."""
    known = [word for word in registry() if word != "fused"]
    ours = f"ops.{name}" if name in known else habits.OPS.get(name)
    like = nearest(name, known) if guess else ""
    found = f": use {ours}" if ours else f"{like}; docs/ops.md lists them"
    return f"; what takes symbolic tensors is in addergraph.ops{found}"


def _refuse(name: str) -> NoReturn:
    raise GraphError(f"numpy's {name} takes no symbolic tensor{_hint(name)}")


def _unsupported(operator: str) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise GraphError(f"symbolic tensors have no __{operator}__{_hint(operator, guess=False)}")

    return refuse


for _operator in REFUSED:
    setattr(Tensor, f"__{_operator}__", _unsupported(_operator))

Operand = Tensor | float | int


def apply(op: Op, *operands: Operand, name: str | None = None) -> Tensor:
    """Appends `op`, which has one result, to the graph of its operands; numbers become scalars."""
    return apply_all(op, *operands, name=name)[0]


def apply_all(op: Op, *operands: Operand, name: str | None = None) -> tuple[Tensor, ...]:
    """As `apply`, for ops with several results."""
    tensors = [t for t in operands if isinstance(t, Tensor)]
    if not tensors:
        raise GraphError(f"{op.name}: no operand is a symbolic tensor; call it inside ag.trace")
    builder = tensors[0].builder
    if any(t.builder is not builder for t in tensors):
        raise GraphError(f"{op.name}: the operands belong to different graphs")
    dtype = tensors[0].dtype
    values = [_value(builder, t, dtype) for t in operands]
    return tuple(Tensor(builder, v) for v in builder.add(op, values, name))


def _value(builder: Builder, operand: Operand, dtype: DType) -> Value:
    if isinstance(operand, Tensor):
        return operand.value
    if not isinstance(operand, int | float | np.number) or isinstance(operand, np.complexfloating):
        raise GraphError(
            f"{type(operand).__name__} is no operand: expected a symbolic tensor or a number; "
            "arrays come in as inputs of the graph or as parameters"
        )
    value = number("a number among the operands", operand, GraphError)
    full = op_named("full")(shape=(), value=value, dtype=dtype)  # type: ignore[call-arg]
    return builder.add(full, [], "const")[0]


def new_parameter(
    x: Tensor,
    name: str,
    type: TensorType,
    init: Init,
    *,
    trainable: bool = True,
    eta: float | None = None,
    frozen: bool = False,
) -> Tensor:
    """A fresh parameter in the graph of `x` (what layers call).

    `frozen`: a trainable one that is not trained, unless the graph's builder says otherwise.
    """
    made = Parameter(name, type, init, trainable, eta)
    said = x.builder.frozen(name)
    made = made.held(frozen if said is None else said)
    return Tensor(x.builder, x.builder.parameter(made))


def trace(
    function: Callable[..., Any],
    *types: TensorType,
    name: str | None = None,
    training: bool = False,
) -> Graph:
    """The graph that `function` builds when called on symbolic tensors of `types`.

    Inputs take the names of the function's arguments. The function returns a tensor, a sequence of
    tensors, or a dict of tensors, whose keys become the names of the outputs. `training` chooses
    the form of layers that have two (batch norm). Raises GraphError when it returns anything else,
    the counts differ, or another value has the name of an output.
    """
    if not types or not all(isinstance(type, TensorType) for type in types):
        raise GraphError("ag.trace needs the type of each argument, as ag.tensor(dtype, shape)")
    if not callable(function) or not isinstance(name, str | None) or accept(bool, training) is None:
        raise GraphError(
            f"ag.trace takes a function, and name= a word or None, training= True or False; found "
            f"{shown(function)}, {shown(name)}, {shown(training)}"
        )
    builder = Builder(name or getattr(function, "__name__", "graph").strip("<>"), training=training)
    names = argument_names(function, len(types))
    symbols = [Tensor(builder, builder.input(n, t)) for n, t in zip(names, types, strict=True)]
    result = function(*symbols)
    called = list(result) if isinstance(result, Mapping) else []
    result = list(result.values()) if isinstance(result, Mapping) else result
    results = list(result) if isinstance(result, Sequence) else [result]
    for r in results:
        if not isinstance(r, Tensor) or r.builder is not builder:
            raise GraphError(
                f'function "{builder.name}" returned {shown(r)}; expected symbolic tensors of its '
                "graph"
            )
    graph = builder.finish([r.value for r in results])
    from .check import check

    graph = with_outputs_called(graph, called) if called else graph
    check(graph)
    return graph


def with_outputs_called(graph: Graph, names: Sequence[object]) -> Graph:
    """The graph whose outputs, which nodes compute, have these names; GraphError where a name is
    another value's, and for what has its name already: an input, or an output for the second time.
    """
    computed, taken = graph.producers(), {v.name for v in graph.values()}
    called: dict[Value, str] = {}
    for value, name in zip(graph.outputs, names, strict=True):
        if not isinstance(name, str):
            raise GraphError(f'"{graph.name}" returned {shown(name)} as the name of an output')
        if value.name != name and name in taken:
            raise GraphError(
                f'"{graph.name}" returned {value} as its output "{name}", which is the name of '
                "another value of it: call one of them otherwise (layers have name=)"
            )
        if value in called:
            raise GraphError(f'"{graph.name}" returned {value} as two outputs: {RETURN_ONCE}')
        if value.name != name and value not in computed:
            raise GraphError(
                f'"{graph.name}" returned {value} as its output "{name}": what is an input or a '
                "parameter has its name already; compute something for this one"
            )
        taken.add(name)
        called[value] = name
    return renamed(graph, called)


def argument_names(function: Callable[..., Any], count: int | None = None) -> list[str]:
    """What `trace` calls the inputs of `function`: `count`, or as many as it names.
    GraphError where it does not take so many, or names none."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [f"x{i}" for i in range(count or 1)]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in parameters if p.kind in kinds]
    positional = [p.name for p in taken]
    needed = [p.name for p in taken if p.default is p.empty]
    unfilled = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    if unfilled:
        raise GraphError(
            f'the traced function takes "{unfilled[0]}" by name only, and tensors are given in '
            "order: leave out the * in front of it, or give it a default"
        )
    rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), None)
    if count is None and (rest is not None or not positional):
        told = "no tensor" if rest is None else f'any number of tensors as "*{rest}"'
        raise GraphError(
            f"the function of a network names its inputs, and this one takes {told}: name each, "
            "as in def net(image, meta)"
        )
    count = max(1, len(needed)) if count is None else count
    if len(needed) > count:
        raise GraphError(
            f"the traced function takes {len(needed)} tensors ({', '.join(needed)}), the types of "
            f"{count} are given"
        )
    if rest is not None:
        numbered = (f"x{i}" for i in range(2 * count))
        return [*positional, *(n for n in numbered if n not in positional)][:count]
    if len(positional) < count:
        raise GraphError(
            f"the traced function takes {len(positional)} tensors, {count} types given"
        )
    return positional[:count]


__all__ = [
    "Operand", "Tensor", "apply", "apply_all", "argument_names", "f32", "new_parameter", "trace",
]  # fmt: skip
