"""The layers that `addergraph bench --layers` times, as graphs with weights.

Of f32, a layer is adder2d, batch norm (folded) and relu; of u8, it is adder2d of bytes alone, or
with what makes its i32 sums bytes again: one multiply-add per channel in f32, and a cast that
saturates. Each is compiled into one kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ... import layers, ops
from ...ir import Array, Graph, Init
from ...ir.trace import Tensor, new_parameter, trace
from ...ir.types import TensorType, dtype_named, tensor
from .timing import Layer

HALF, ALL = "half", "all"  # of the taps are above zero
OWN = "own"  # filters of a model
BOUNDED = "own, bounded"  # of one whose activations have upper bounds
SUMS, BYTES = "sums", "bytes"  # what a layer of u8 returns
FEW_SUMS, FEW_BYTES = "few bits, sums", "few bits, bytes"
# By the type of the operands: each kind of layer that is timed, and what the tables call it.
KINDS = {
    "f32": {
        HALF: "filters from N(0,1): half of the taps above zero",
        ALL: "all taps above zero",
        OWN: "filters of a model",
        BOUNDED: "filters of a model, activations bounded",
    },
    "u8": {SUMS: "sums as i32", BYTES: "requantized to u8"},
    "u6": {
        FEW_SUMS: "6 bits, half of the taps above zero, sums as i32",
        FEW_BYTES: "6 bits, half of the taps above zero, requantized to u8",
    },
}
OF_BYTES = {**KINDS["u8"], **KINDS["u6"]}
DRAWN_KINDS = {
    dtype: [kind for kind in kinds if kind not in (OWN, BOUNDED)] for dtype, kinds in KINDS.items()
}
TOP, DEVIATION = 63, 18  # of 6 bits: the largest, and the standard deviation of what is rounded
MIDDLE = 127  # of bytes of all values


def arranged(layer: Layer, kind: str) -> Layer:
    """The layer as its kind is timed: sums of bytes are no bytes, so they cannot chain."""
    return dataclasses.replace(layer, beside=True) if kind in (SUMS, FEW_SUMS) else layer


def layers_graph(layer: Layer, count: int, kind: str) -> Graph:
    """`count` layers in a chain, or side by side on one input with their results added up, in the
    layers' own kernels."""
    if kind in OF_BYTES:
        return _graph_of_bytes(layer, count, kind)
    pairs = [
        (
            layers.Adder(
                layer.outputs, kernel_size=layer.kernel, stride=layer.stride,
                padding=layer.padding, name=f"adder{i}",
            ),
            layers.BatchNorm(name=f"bn{i}"),
        )
        for i in range(layer.filters)
    ]  # fmt: skip

    def activation(x: Tensor) -> Tensor:
        return ops.clip(x, 0.0, 1.0) if kind == BOUNDED else ops.relu(x)

    def net(x: Tensor) -> Tensor:
        x = total = activation(x)
        for i in range(count):
            adder, norm = pairs[i % layer.filters]
            y = activation(norm(adder(total if layer.chains else x)))
            total = y if layer.chains or i == 0 else y + total
        return total

    return trace(net, tensor("f32", ("N", *image(layer))), name="layers")


def _graph_of_bytes(layer: Layer, count: int, kind: str) -> Graph:
    shape = layer.kernel, layer.kernel, layer.inputs, layer.outputs

    def net(x: Tensor) -> Tensor:
        known: dict[str, Tensor] = {}

        def parameter(name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
            if name not in known:
                made = TensorType(dtype_named(dtype), shape)
                known[name] = new_parameter(x, name, made, Init(), trainable=False)
            return known[name]

        total = x
        for i in range(count):
            number = i % layer.filters
            f = parameter(f"adder{number}.f", "u8", shape)
            source = total if layer.chains else x
            y = ops.adder2d(source, f, stride=layer.stride, padding=layer.padding)
            first = layer.chains or i == 0
            if kind in (BYTES, FEW_BYTES):
                channels = (layer.outputs,)
                y = ops.cast(y, "f32") * parameter(f"scale{number}", "f32", channels)
                y = y + parameter(f"shift{number}", "f32", channels)
                y = ops.cast(y if first else y + ops.cast(total, "f32"), "u8")
            else:
                y = y if first else y + total
            total = y
        return total

    return trace(net, tensor("u8", ("N", *image(layer))), name="layers")


def image(layer: Layer) -> tuple[int, int, int]:
    return layer.size, layer.size, layer.inputs


def input_of(layer: Layer, batch: int, kind: str) -> Array:
    """Magnitudes of N(0,1), bytes of all values, or of 6 bits."""
    rng, shape = np.random.default_rng(1), (batch, *image(layer))
    if kind in KINDS["u6"]:
        return _few_bits(np.abs(rng.standard_normal(shape)))
    if kind in KINDS["u8"]:
        return rng.integers(0, 256, shape, np.uint8)
    return np.abs(rng.standard_normal(shape, np.float32))


def _few_bits(drawn: Array) -> Array:
    """Numbers of N(0,1) as a quantized network has them: 0 for those below."""
    return np.clip(np.round(DEVIATION * drawn), 0, TOP).astype(np.uint8)


def weights_of(layer: Layer, kind: str, filters: Sequence[Array] | None = None) -> dict[str, Array]:
    """Numbers that keep a chain's values alive; `filters` of a model, which take turns, or drawn.

    Of f32, filters from N(0,1) or their absolute values; of u8, of all values; of u6, from N(0,1)
    in steps of 1/18, those below zero being zero: half of them, as behind a relu, where clamping to
    the input's range changes nothing. A layer returns m + (the mean distance of m to f) - (the mean
    distance of x to f), and so comes back to m, the middle of the inputs, from both sides.
    """
    rng = np.random.default_rng(0)
    channel = np.ones(layer.outputs, np.float32)
    weights: dict[str, Array] = {}
    middle = MIDDLE if kind in KINDS["u8"] else DEVIATION if kind in KINDS["u6"] else 1
    for i in range(layer.filters):
        f = filters[i % len(filters)] if filters else _drawn_filter(layer, kind, rng)
        weights[f"adder{i}.f"] = f
        distance = np.abs(middle - f.astype(np.float32)).mean((0, 1, 2))
        if kind in (BYTES, FEW_BYTES):
            weights[f"scale{i}"] = channel / np.float32(layer.window)
            weights[f"shift{i}"] = np.float32(middle) + distance
        elif kind not in OF_BYTES:
            weights[f"bn{i}.gamma"], weights[f"bn{i}.beta"] = channel, channel
            weights[f"bn{i}.mean"] = -distance * layer.window
            weights[f"bn{i}.variance"] = np.float32(layer.window) ** 2 * channel
    return weights


def _drawn_filter(layer: Layer, kind: str, rng: np.random.Generator) -> Array:
    shape = layer.kernel, layer.kernel, layer.inputs, layer.outputs
    if kind in KINDS["u8"]:
        return rng.integers(0, 256, shape, np.uint8)
    if kind in KINDS["u6"]:
        return _few_bits(rng.standard_normal(shape))
    f = rng.standard_normal(shape, np.float32)
    return f if kind == HALF else np.abs(f)
