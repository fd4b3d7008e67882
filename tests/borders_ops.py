"""The ops with arguments that work, for `borders.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import addergraph as ag
from addergraph import ops
from addergraph.ir.trace import Tensor
from addergraph.ir.types import u8
from tests.odd import Case

_IMAGE, _MATRIX, _VECTOR = ("f32", ("N", 6, 6, 2)), ("f32", (6, 6)), ("f32", (2,))
_WINDOW = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
_FILTER, _SUMS, _OF_SUMS = ("f32", (3, 3, 2, 4)), ("i32", ("N", 6, 6, 2)), ("i32", (2,))
_REQUANTIZED = {"lo": 0, "hi": 255, "dtype": u8, "scale": 0.5, "zero_point": 0}
_PLACES = {name: _OF_SUMS for name in ("center", "offset", "shift")}
OPS: dict[str, tuple[Mapping[str, tuple[str, Any]], Mapping[str, object]]] = {
    # name: (tensors by argument, attributes); ops that are not here take one image
    **{name: ({"x": _IMAGE, "f": _FILTER, "bias": ("f32", (4,))}, _WINDOW)
       for name in ("adder2d", "conv2d")},
    **{name: ({"x": ("f32", ("N", 6)), "f": ("f32", (6, 4)), "bias": ("f32", (4,))}, {})
       for name in ("adder_dense", "dense")},
    "matmul": ({"a": _MATRIX, "b": _MATRIX}, {}),
    "broadcast_to": ({"x": _VECTOR}, {"shape": (3, 2)}),
    "pad": ({"x": _MATRIX}, {"before": (1, 1), "after": (0, 1), "value": 0.0}),
    "reshape": ({"x": _MATRIX}, {"shape": (4, 9)}),
    "resize_nearest": ({"x": _IMAGE}, {"factors": 2}),
    "slice": ({"x": _MATRIX}, {"start": (0, 1), "stop": (2, 3)}),
    "transpose": ({"x": _MATRIX}, {"permutation": (1, 0)}),
    "batch_norm": (
        {"x": _IMAGE, **{n: _VECTOR for n in ("mean", "variance", "gamma", "beta")}},
        {"epsilon": 1e-5},
    ),
    "batch_norm_statistics": ({"x": _MATRIX}, {}),
    **{name: ({"a": _IMAGE, "b": _IMAGE}, {})
       for name in ("add", "sub", "mul", "div", "maximum", "minimum", "greater")},
    "cast": ({"x": _IMAGE}, {"dtype": "u8"}),
    "clip": ({"x": _IMAGE}, {"lo": 0.0, "hi": 1.0}),
    "fake_quantize": ({"x": _IMAGE}, {
        "scale": 0.5, "zero_point": 0, "bits": 8, "saturate": True
    }),
    "fake_quantize_filter": ({"f": _FILTER}, {"bits": 8}),
    "full": ({"like": _IMAGE}, {"value": 1.0, "shape": (2,), "dtype": "f32"}),
    "constant": ({"like": _IMAGE}, {"value": 1.0}),
    "dropout": ({"x": _IMAGE, "step": ("i32", ())}, {"rate": 0.5, "seed": 1}),
    "leaky_relu": ({"x": _IMAGE}, {"slope": 0.1}),
    "lookup": (
        {"x": ("u8", ("N", 6, 6, 2)), "table": ("u8", (2, 256))}, {"scale": 0.5, "zero_point": 0}
    ),
    "requantize_shift": ({"x": _SUMS, **_PLACES, "term": _OF_SUMS}, _REQUANTIZED),
    "requantize_multiply": ({"x": _SUMS, **_PLACES, "multiplier": _OF_SUMS}, _REQUANTIZED),
    "select": ({"condition": ("bool", ("N", 6, 6, 2)), "a": _IMAGE, "b": _IMAGE}, {}),
    "argmax": ({"x": _MATRIX}, {"axis": 1}),
    **{name: ({"x": _IMAGE}, {"window": 2, "stride": 2, "padding": 0})
       for name in ("avg_pool2d", "max_pool2d")},
    "sum_pool2d": ({"x": ("u8", ("N", 6, 6, 2))}, {"window": 2, "stride": 2, "padding": 0}),
    **{name: ({"x": _IMAGE}, {"axes": (1,), "keepdims": True})
       for name in ("reduce_sum", "reduce_mean", "reduce_max")},
    **{name: ({a: _MATRIX for a in names}, {}) for name, names in (
        ("mean_squared_error", ("prediction", "target")),
        ("softmax_cross_entropy", ("logits", "targets")),
    )},
}  # fmt: skip


def op_cases(graph: Callable[[], ag.Graph]) -> Iterator[Case]:
    """`graph` makes any graph, as the body of a fused op."""
    for name in ops.__all__:
        if name == "Fused":
            yield Case("ops.Fused", ops.Fused, {"body": graph()})
            continue
        function = getattr(ops, name)
        tensors, attributes = OPS.get(name, ({"x": _IMAGE}, {}))
        if name == "concat":
            yield Case("ops.concat", _concat, {"tensors": TENSOR, "axis": -1, "name": "n"})
            continue
        if name == "requantize_shift":  # one of its `*terms`
            function = _with_term
        yield Case(f"ops.{name}", _traced(function, tensors), {
            **dict.fromkeys(tensors, TENSOR), **attributes, "name": "n"
        })  # fmt: skip


TENSOR = "a symbolic tensor"


def _traced(function: Callable[..., Any], tensors: Mapping[str, Any]) -> Callable[..., object]:
    """`function` inside `ag.trace`; what is TENSOR becomes a symbolic tensor of its type."""
    names = list(inspect.signature(function).parameters)

    def call(**given: Any) -> object:
        def traced(*symbols: Tensor) -> Any:
            known = dict(zip(tensors, symbols, strict=True))
            filled = {n: known[n] if v is TENSOR else v for n, v in given.items()}
            positional = [filled.pop(n) for n in names if n in tensors]
            return function(*positional, **filled)

        return str(ag.trace(traced, *(ag.tensor(*t) for t in tensors.values())))

    return call


def _with_term(
    x: Any, center: Any, offset: Any, shift: Any, term: Any, **attributes: Any
) -> Tensor:
    return ops.requantize_shift(x, center, offset, shift, term, **attributes)


def _concat(tensors: Any, axis: Any, name: Any) -> object:
    def traced(x: Tensor) -> Tensor:
        return ops.concat([x] * 2 if tensors is TENSOR else tensors, axis, name=name)

    return str(ag.trace(traced, ag.tensor("f32", (2, 3))))
