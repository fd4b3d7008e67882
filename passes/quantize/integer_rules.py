"""How each op of a float network is written in integers; `RULES` has all that quantize knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Node, Op, Parameter
from addergraph.ir.quantization import Quantization, symmetric
from addergraph.ir.types import i8, u8
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.max_pool2d import MaxPool2d
from addergraph.ops.reduction.sum_pool2d import SumPool2d

from .calibrate import Moments
from .integer_network import Bytes, IntegerNetwork, Integers, Part, Sums, scaled

Rule = Callable[[IntegerNetwork, Node], None]
Slides = TypeVar("Slides", bound=Op)


def adder(network: IntegerNetwork, node: Node) -> None:
    """Distances of bytes: sum |x - f| = scale sum |qx - qf| + what clamping the filter took off."""
    x, f = network.bytes(node.inputs[0], node), network.parameter(node, 1).astype("f8")
    scale, zero = x.quantization.scale, x.quantization.zero_point
    low, high = -scale * zero, scale * (x.top - zero)
    axes = tuple(range(f.ndim - 1))
    beyond = np.maximum(low - f, 0).sum(axes) + np.maximum(f - high, 0).sum(axes)
    constant = -beyond
    if len(node.inputs) > 2:
        constant = constant + network.parameter(node, 2)
    integers = x.quantization.quantized(f, 0, x.top).astype(np.uint8)
    name = network.fresh(f"{node.inputs[1].name}.bytes")
    taps = network.constant(name, integers, u8, x.quantization)
    op: Op = AdderDense()
    if isinstance(node.op, Adder2d):
        same = node.op
        op = Adder2d(same.stride, same.padding, same.dilation, same.groups)
    part = _distances(network, x, taps, op, node.name, scale * np.ones(f.shape[-1]), constant)
    network.set(node.outputs[0], Sums((part,)))


def _distances(
    network: IntegerNetwork, x: Bytes, taps: Parameter, op: Op, name: str, factor: Array,
    constant: Array,
) -> Part:  # fmt: skip
    """An adder layer of bytes. Padding of another byte than 0 is written before the layer."""
    x, op = _padded(network, x, op, name)
    filters = network.weights[taps.name]
    value = network.node(op, [x.value, taps], name)
    array = network.run(op, [(x.value, x.array), (taps, filters)])
    wide = filters.astype("i8")
    farthest = np.maximum(wide, x.top - wide).sum(tuple(range(wide.ndim - 1)))
    return Part(value, factor, constant, -farthest.astype("f8"), 0.0 * factor, array)


def product(network: IntegerNetwork, node: Node) -> None:
    """Products of bytes: the filter is symmetric, with one scale for each output channel.

    sum x f = sx sf[t] (sum qx qf - zero_point sum qf): the last is a constant of the filter.
    """
    x, f = network.bytes(node.inputs[0], node), network.parameter(node, 1)
    integers, scale = symmetric(f, network.filter_bits(node.inputs[1]))
    axes = tuple(range(f.ndim - 1))
    name = network.fresh(f"{node.inputs[1].name}.bytes")
    taps = network.constant(name, integers, i8)
    x, op = _padded(network, x, node.op, node.name)
    value = network.node(op, [x.value, taps], node.name)
    array = network.run(op, [(x.value, x.array), (taps, network.weights[name])])
    factor = x.quantization.scale * scale
    constant = -factor * x.quantization.zero_point * integers.sum(axes)
    if len(node.inputs) > 2:
        constant = constant + network.parameter(node, 2)
    least, most = (x.top * side(integers, 0.0).sum(axes) for side in (np.minimum, np.maximum))
    network.set(node.outputs[0], Sums((Part(value, factor, constant, least, most, array),)))


def _padded(network: IntegerNetwork, x: Bytes, op: Slides, name: str) -> tuple[Bytes, Slides]:
    """An operand and a layer without padding, where that is of another byte than 0."""
    zero = x.quantization.zero_point
    if not isinstance(op, Adder2d | Conv2d | SumPool2d) or not any(op.padding) or not zero:
        return x, op
    top, bottom, left, right = op.padding
    pad = Pad((0, top, left, 0), (0, bottom, right, 0), float(zero))
    value = network.node(pad, [x.value], network.fresh(f"{name}.padded"))
    (array,) = pad.reference(x.array)
    plain = replace(op, padding=(0, 0, 0, 0))
    return Bytes(value, x.quantization, x.top, array), plain


def batch_norm(network: IntegerNetwork, node: Node) -> None:
    """Only factors and constants change. Its statistics move as those of its input did."""
    assert isinstance(node.op, BatchNorm)
    x = network.sums(node.inputs[0], node)
    mean, variance, gamma, beta = (network.parameter(node, k).astype("f8") for k in range(1, 5))
    if network.reestimate:
        here, before = Moments(), network.statistics.moments[node.inputs[0].name]
        here.add(x.real)
        mean = mean + (here.mean - before.mean)
        tiny = 1e-3 * variance + node.op.epsilon
        variance = variance * (here.variance + tiny) / (before.variance + tiny)
    scale = gamma / np.sqrt(variance + node.op.epsilon)
    network.set(node.outputs[0], scaled(x, scale, beta - mean * scale))


def relu(network: IntegerNetwork, node: Node) -> None:
    """The least byte of a requantization; bytes with a zero point of 0 are what they are."""
    form = network.form(node.inputs[0], node)
    if isinstance(form, Bytes) and not form.quantization.zero_point:
        network.set(node.outputs[0], form)
        return
    sums = network.sums(node.inputs[0], node)
    network.set(node.outputs[0], network.requantized(sums, node.outputs[0], node.name))


def moved(network: IntegerNetwork, node: Node) -> None:
    """Bytes that are chosen or moved keep what they stand for."""
    x = network.bytes(node.inputs[0], node)
    value = network.node(node.op, [x.value], node.name)
    (array,) = node.op.reference(x.array)
    network.set(node.outputs[0], Bytes(value, x.quantization, x.top, array))


def add(network: IntegerNetwork, node: Node) -> None:
    """Sums add up part by part; a parameter [C] is a constant."""
    one, other = node.inputs
    if isinstance(one, Parameter):
        one, other = other, one
    if isinstance(other, Parameter):
        numbers = network.parameter(node, node.inputs.index(other))
        if numbers.shape not in ((), node.outputs[0].type.shape[-1:]):
            raise UnsupportedError(
                f"{node.label} adds {other}: {other.type}; quantize takes one number a channel"
            )
        form = network.sums(one, node)
        ones = np.ones(int(node.outputs[0].type.shape[-1]))
        network.set(node.outputs[0], scaled(form, ones, numbers.astype("f8") * ones))
        return
    if one.type != other.type:
        raise UnsupportedError(
            f"{node.label} adds {one.type} and {other.type}; quantize takes equal types"
        )
    parts = (*network.sums(one, node).parts, *network.sums(other, node).parts)
    network.set(node.outputs[0], Sums(parts))


def average(network: IntegerNetwork, node: Node) -> None:
    """A mean is a sum: the division is part of the next requantization."""
    x = network.bytes(node.inputs[0], node)
    whole = isinstance(node.op, GlobalAvgPool)
    name, op = network.fresh(f"{node.name}.sums") if whole else node.name, _sums(node.op, x)
    x, op = _padded(network, x, op, name)
    value = network.node(op, [x.value], name)
    (array,) = op.reference(x.array)
    if whole:
        value = network.node(Flatten(), [value], node.name)
        array = array.reshape(len(array), -1)
    ones = np.ones(int(x.value.type.shape[3]))
    scale, zero = x.quantization.scale, x.quantization.zero_point
    part = Part(
        value, scale / op.area * ones, -scale * zero * ones, 0 * ones, op.area * x.top * ones, array
    )
    network.set(node.outputs[0], Sums((part,)))


def _sums(op: Op, x: Bytes) -> SumPool2d:
    """The sums behind a mean."""
    if isinstance(op, AvgPool2d):
        return SumPool2d(op.window, op.stride, op.padding)
    _, height, width, _ = (0, *map(int, x.value.type.shape[1:]))
    return SumPool2d((height, width), (1, 1))


def argmax(network: IntegerNetwork, node: Node) -> None:
    """The largest integer is where the largest number is: all have one scale."""
    form = network.form(node.inputs[0], node)
    name = network.fresh(f"{node.inputs[0].name}.integers")
    x = form if isinstance(form, Bytes) else network.integers(form, node.inputs[0], name)
    value = network.node(node.op, [x.value], node.name)
    (array,) = node.op.reference(x.array)
    network.set(node.outputs[0], Integers(value, Quantization(1.0), array))


RULES: Mapping[type[Op], Rule] = {
    Adder2d: adder,
    AdderDense: adder,
    Add: add,
    AvgPool2d: average,
    Argmax: argmax,
    BatchNorm: batch_norm,
    Conv2d: product,
    Dense: product,
    Flatten: moved,
    GlobalAvgPool: average,
    MaxPool2d: moved,
    Relu: relu,
}
