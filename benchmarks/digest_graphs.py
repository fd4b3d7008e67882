"""The graphs of `digests.py` that are not of the zoo: what its networks leave out.

Single ops with their attributes and edges, and two networks of grouped, dilated and strided layers
to be quantized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import addergraph as ag
from addergraph import Graph, layers, ops
from addergraph.ir.types import Shape

_RELU = layers.Activation("relu")
LAYERS: dict[str, tuple[layers.Layer, ...]] = {
    "adders": (
        layers.Adder(16, 3, padding=1, groups=2), layers.BatchNorm(), _RELU,
        layers.Adder(16, (3, 1), padding=(2, 0), dilation=2, groups=16), layers.BatchNorm(), _RELU,
        layers.AvgPool(2, stride=1),
        layers.Residual(
            (layers.Adder(24, 3, 2, 1), layers.BatchNorm()),
            (layers.Adder(24, 1, 2), layers.BatchNorm()),
        ), _RELU,
        layers.MaxPool(3, stride=1, padding=1), layers.Adder(40, 3, padding=1, bias=True),
        layers.BatchNorm(), _RELU, layers.GlobalAvgPool(), layers.AdderDense(10),
        layers.BatchNorm(),
    ),
    "convolutions": (
        layers.Conv(16, 3, padding=1, groups=2), layers.BatchNorm(), _RELU,
        layers.Conv(16, 3, padding=2, dilation=2, groups=16, bias=True), _RELU,
        layers.Conv(33, (1, 3), (2, 1)), layers.BatchNorm(), _RELU,
        layers.AvgPool(2), layers.Flatten(), layers.Dense(19), _RELU, layers.Dense(5, bias=False),
    ),
}  # fmt: skip


def traced(function: Callable[..., Any], *types: str) -> Graph:
    """`types` as they are printed: f32[N,4]."""
    made = []
    for text in types:
        dtype, _, sizes = text.rstrip("]").partition("[")
        shape: Shape = tuple("N" if s == "N" else int(s) for s in sizes.split(",") if s)
        made.append(ag.tensor(dtype, shape))
    return ag.trace(function, *made, name="g")


IMAGE, VECTOR = "f32[N,9,7,5]", "f32[N,19]"
Described = tuple[Callable[..., Any], tuple[str, ...]]
F32: dict[str, Described] = {
    # Contractions: filters that are constant, filters that are inputs, tails.
    "adder": (lambda x: layers.Adder(20, 3, padding=1)(x), (IMAGE,)),
    "adder-min": (lambda x: layers.Adder(70, 3, padding=1)(ops.relu(x)), ("f32[N,8,8,32]",)),
    "adder-tail": (
        lambda x, r: ops.relu(layers.BatchNorm()(layers.Adder(5, 3, 1, 1, bias=True)(x)) + r),
        (IMAGE, IMAGE),
    ),
    "adder-stride": (lambda x: layers.Adder(17, (3, 5), 2, (0, 1, 2, 3))(x), (IMAGE,)),
    "adder-point": (lambda x: layers.Adder(33, 1)(ops.relu(x)), (IMAGE,)),
    "adder-groups": (lambda x: layers.Adder(12, 3, padding=1, groups=4)(x), ("f32[N,7,7,8]",)),
    "adder-depthwise": (lambda x: layers.Adder(24, 3, 2, 1, groups=24)(x), ("f32[N,9,9,24]",)),
    "adder-dilated": (lambda x: layers.Adder(16, 3, padding=2, dilation=2)(x), (IMAGE,)),
    "adder-input": (
        lambda x, f: ops.adder2d(x, f, stride=2, padding=1), (IMAGE, "f32[3,3,5,6]"),
    ),
    "adder-dense": (lambda x: layers.AdderDense(35, bias=True)(x), (VECTOR,)),
    "adder-dense-min": (lambda x: layers.AdderDense(8)(ops.relu(x)), (VECTOR,)),
    "adder-dense-input": (lambda x, f: ops.adder_dense(x, f), (VECTOR, "f32[19,6]")),
    "conv": (lambda x: layers.Conv(20, 3, padding=1)(x), (IMAGE,)),
    "conv-tail": (
        lambda x, r: ops.relu(layers.BatchNorm()(layers.Conv(5, 3, 1, 1, bias=True)(x)) + r),
        (IMAGE, IMAGE),
    ),
    "conv-stride": (lambda x: layers.Conv(17, (3, 5), 2, (0, 1, 2, 3))(x), (IMAGE,)),
    "conv-groups": (lambda x: layers.Conv(12, 3, padding=1, groups=4)(x), ("f32[N,7,7,8]",)),
    "conv-depthwise": (lambda x: layers.Conv(24, 3, 2, 1, groups=24)(x), ("f32[N,9,9,24]",)),
    "conv-dilated": (lambda x: layers.Conv(16, 3, padding=2, dilation=2)(x), (IMAGE,)),
    "conv-input": (
        lambda x, f: ops.conv2d(x, f, stride=2, padding=1), (IMAGE, "f32[3,3,5,6]"),
    ),
    "dense": (lambda x: ops.relu(layers.Dense(35)(x)), (VECTOR,)),
    "dense-input": (lambda x, f: ops.dense(x, f), (VECTOR, "f32[19,6]")),
    "matmul": (lambda a, b: a @ b, ("f32[5,19]", "f32[19,33]")),
    # Windows and reductions.
    "max-pool": (lambda x: ops.max_pool2d(x, 2), (IMAGE,)),
    "max-pool-overlap": (lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), (IMAGE,)),
    "avg-pool": (lambda x: ops.avg_pool2d(x, 2), (IMAGE,)),
    "avg-pool-overlap": (lambda x: ops.avg_pool2d(x, (3, 2), stride=1, padding=1), (IMAGE,)),
    "global-avg-pool": (lambda x: ops.global_avg_pool(x), (IMAGE,)),
    "reduce-sum": (lambda x: ops.reduce_sum(x, (1, 2), keepdims=True), (IMAGE,)),
    "reduce-mean": (lambda x: ops.reduce_mean(x, (0, 1, 2)), ("f32[3,9,7,5]",)),
    "reduce-max": (lambda x: ops.reduce_max(x, -1), (IMAGE,)),
    "batch-norm": (lambda x: layers.BatchNorm()(x), (IMAGE,)),
    "batch-statistics": (lambda x: list(ops.batch_norm_statistics(x)), ("f32[3,9,7,5]",)),
    "softmax": (lambda x: ops.softmax(x), (VECTOR,)),
    "cross-entropy": (lambda z, t: ops.softmax_cross_entropy(z, t), (VECTOR, VECTOR)),
    "squared-error": (lambda p, t: ops.mean_squared_error(p, t), (IMAGE, IMAGE)),
    # Elements and movement.
    "binary": (
        lambda x, y: [
            ops.maximum(x + y, x - y), ops.minimum(x * y, 2.0), x / (y + 1.5), x + y * 3.0
        ],
        (IMAGE, "f32[7,1]"),
    ),
    "unary": (
        lambda x: [abs(x), ops.exp(x), ops.log(x), -x, ops.sqrt(x), ops.clip(x, -1.0, 2.0)],
        (IMAGE,),
    ),
    "select": (lambda x, y: ops.select(x > y, x * 2.0, y), (IMAGE, IMAGE)),
    "concat": (lambda x, y: [ops.concat([x, y]), ops.concat([x, y, x], 1)], (IMAGE, IMAGE)),
    "transpose": (
        lambda x: [ops.transpose(x, (0, 2, 1, 3)), ops.transpose(x, (0, 3, 1, 2))], (IMAGE,),
    ),
    "pad": (lambda x: ops.pad(x, (0, 1, 2, 0), (0, 3, 0, 1), 0.5), (IMAGE,)),
    "slice": (lambda x: ops.slice(x, (0, 1, 2, 0), ("N", 8, 7, 3)), (IMAGE,)),
    "reshape": (
        lambda x: [ops.reshape(x, ("N", 7, 45)), ops.flatten(x * 2.0)], (IMAGE,),
    ),
    "broadcast": (lambda x: ops.broadcast_to(x, ("N", 9, 7, 5)), ("f32[N,1,7,1]",)),
    "fake-quantize": (
        lambda x: [
            ops.fake_quantize(x, 0.25, 3, bits=4), ops.fake_quantize(x, 0.125, saturate=False)
        ],
        (IMAGE,),
    ),
    "fake-quantize-filter": (lambda f: ops.fake_quantize_filter(f, bits=4), ("f32[3,3,5,6]",)),
}  # fmt: skip
BYTES = "u8[N,9,7,5]"
NUMBERS = "i32[5]"
OTHERS: dict[str, Described] = {  # without a gradient
    "argmax": (lambda x: [ops.argmax(x), ops.argmax(x, 1)], (IMAGE,)),
    "cast": (
        lambda x: [ops.cast(ops.cast(x, d), "f32") for d in ("i32", "u8", "i8", "bool")], (IMAGE,),
    ),
    "full": (lambda x: x + ops.full(x, 2.0, (7, 5)), (IMAGE,)),
}  # fmt: skip
INTEGERS: dict[str, Described] = {
    "adder": (lambda x, f: ops.adder2d(x, f, padding=1), (BYTES, "u8[3,3,5,6]")),
    "adder-groups": (
        lambda x, f, b: ops.adder2d(x, f, b, stride=2, dilation=2, groups=5),
        (BYTES, "u8[3,2,1,10]", "i32[10]"),
    ),
    "adder-dense": (lambda x, f: ops.adder_dense(x, f), ("u8[N,19]", "u8[19,6]")),
    "sum-pool": (lambda x: ops.sum_pool2d(x, 3, stride=2, padding=1), (BYTES,)),
    "max-pool": (lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), (BYTES,)),
    "lookup": (lambda x, t: ops.lookup(x, t), (BYTES, "u8[5,256]")),
    "argmax": (lambda x, y: [ops.argmax(x), ops.argmax(y)], (BYTES, "i32[N,19]")),
    "add": (lambda x, y: ops.maximum(x + y, x - y), ("i32[N,9,7,5]", NUMBERS)),
    "greater": (lambda x, y: ops.select(x > y, x, y), ("i32[N,19]", "i32[19]")),
    "cast": (lambda x: [ops.cast(x, d) for d in ("u8", "i8", "bool")], ("i32[N,19]",)),
    "movement": (
        lambda x: [
            ops.pad(x, (0, 1, 1, 0), (0, 1, 1, 0), 7.0), ops.concat([x, x]),
            ops.transpose(x, (0, 2, 1, 3)), ops.slice(x, (0, 1, 0, 0), ("N", 9, 7, 2)),
        ],
        (BYTES,),
    ),
    "requantize-shift": (
        lambda x, c, o, s, a, b: ops.requantize_shift(x, c, o, s, a, b, lo=0, hi=255),
        ("i32[N,9,7,5]", *[NUMBERS] * 5),
    ),
}  # fmt: skip
PRODUCTS: dict[str, Described] = {  # of integers: not for machines without a multiplier
    "conv": (lambda x, f: ops.conv2d(x, f, padding=1), (BYTES, "i8[3,3,5,6]")),
    "dense": (lambda x, f: ops.dense(x, f), ("u8[N,19]", "i8[19,6]")),
    "mul": (lambda x, y: x * y, ("i32[N,9,7,5]", NUMBERS)),
    "requantize-multiply": (
        lambda x, c, o, s, m: ops.requantize_multiply(x, c, o, s, m, lo=0, hi=255),
        ("i32[N,9,7,5]", *[NUMBERS] * 4),
    ),
}
