"""Operand types and attributes for every op in the registry: what the contract tests walk."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from addergraph.ir import Array, Builder, Graph, Op
from addergraph.ir.types import DTYPES, Dim, TensorType, bool_, f32, i8, i32, tensor, u8
from addergraph.ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.adder_dense import (
    AdderDense,
    AdderDenseGradFilter,
    AdderDenseGradInput,
)
from addergraph.ops.contraction.conv2d import Conv2d, Conv2dGradFilter, Conv2dGradInput
from addergraph.ops.contraction.dense import Dense, Matmul
from addergraph.ops.fused import Fused
from addergraph.ops.movement.broadcast_to import BroadcastTo
from addergraph.ops.movement.concat import Concat
from addergraph.ops.movement.lookup import Lookup
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten, Reshape
from addergraph.ops.movement.resize_nearest import ResizeNearest
from addergraph.ops.movement.slice import Slice
from addergraph.ops.movement.transpose import Transpose
from addergraph.ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.clip import Clip
from addergraph.ops.pointwise.dropout import Dropout
from addergraph.ops.pointwise.fake_quantize import FakeQuantize, FakeQuantizeFilter
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.greater import Greater
from addergraph.ops.pointwise.relu import LeakyRelu, Relu, Relu6
from addergraph.ops.pointwise.replica_mean import ReplicaMean
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from addergraph.ops.pointwise.select import Select
from addergraph.ops.pointwise.unary import Abs, Exp, Log, Neg, Sigmoid, Sqrt, Tanh
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.avg_pool2d import AvgPool2d, AvgPool2dGrad
from addergraph.ops.reduction.completed import Completed
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.max_pool2d import MaxPool2d, MaxPool2dGrad
from addergraph.ops.reduction.mean_squared_error import MeanSquaredError
from addergraph.ops.reduction.reduce import ReduceMax, ReduceMean, ReduceSum
from addergraph.ops.reduction.softmax import Softmax
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from addergraph.ops.reduction.sum_pool2d import SumPool2d


@dataclass(frozen=True)
class Sample:
    """One op on operands of some types, and where the data of a gradient test lies."""

    op: Op
    types: tuple[TensorType, ...]
    domain: tuple[float, float] = (-2.0, 2.0)

    def bound(self, batch: int = 3) -> Sample:
        types = tuple(t.bind(batch) for t in self.types)
        return Sample(self.op.bind(batch), types, self.domain)

    @property
    def is_open(self) -> bool:
        return any(t.is_open for t in self.types)

    def data(self, rng: np.random.Generator) -> list[Array]:
        """Operands whose numbers keep a distance from each other and from 0 (kinks), and are
        multiples of 2^-12, so that small steps are exact."""
        return [
            self._spread(rng, t, (0.2, 0.45, 0.65, 0.85, 0.3)[k % 5])
            for k, t in enumerate(self.types)
        ]

    def _spread(self, rng: np.random.Generator, type: TensorType, shift: float) -> Array:
        if type.dtype != f32:
            return rng.integers(0, 2, type.sizes).astype(type.dtype.numpy)
        (lo, hi), count = self.domain, type.elements
        places = lo + (rng.permutation(count) + shift) * (hi - lo) / max(count, 1)
        return (np.round(places * 4096) / 4096).reshape(type.sizes).astype(np.float32)


def f(*shape: Dim) -> TensorType:
    return tensor(f32, shape)


def i(*shape: Dim) -> TensorType:
    return tensor(i32, shape)


def u(*shape: Dim) -> TensorType:
    return tensor(u8, shape)


def s(*shape: Dim) -> TensorType:
    return tensor(i8, shape)


def b(*shape: Dim) -> TensorType:
    return tensor(bool_, shape)


def samples(*cases: tuple[Op, tuple[TensorType, ...]], domain: tuple[float, float] = (-2.0, 2.0)):
    return [Sample(op, types, domain) for op, types in cases]


def pointwise_body() -> Graph:
    builder = Builder("body")
    a0, a1 = builder.input("a0", f("N", 3)), builder.input("a1", f(3))
    (v0,) = builder.add(Mul(), [a0, a1], "v0")
    (v1,) = builder.add(Relu(), [v0], "v1")
    return builder.finish([v0, v1])


def contraction_body() -> Graph:
    builder = Builder("body")
    types = (f("N", 4, 4, 2), f(3, 3, 2, 3), f(3))
    a0, a1, a2 = (builder.input(f"a{k}", t) for k, t in enumerate(types))
    (v0,) = builder.add(Adder2d((1, 1), (1, 1, 1, 1)), [a0, a1], "v0")
    (v1,) = builder.add(Add(), [v0, a2], "v1")
    return builder.finish([v1])


IMAGE, FILTER = f("N", 4, 5, 2), f(2, 3, 2, 3)
SHAPED = ((2, 1), (1, 0, 2, 1), (1, 2))  # stride, padding, dilation; IMAGE and FILTER give GRADIENT
GRADIENT = f("N", 2, 4, 3)
GROUPED_IMAGE, GROUPED_FILTER, GROUPED_GRADIENT = f("N", 3, 3, 4), f(2, 2, 2, 2), f("N", 2, 2, 2)
POOLED = ((3, 2), (1, 2), (1, 2, 0, 1))  # window, stride, padding; IMAGE gives f32[N,5,3,2]

SAMPLES: dict[str, list[Sample]] = {
    "abs": samples((Abs(), (f("N", 3),)), (Abs(), (i("N"),)), (Abs(), (f(),))),
    "add": samples(
        (Add(), (f("N", 3), f(3))), (Add(), (f("N", 1), f(1, 2))), (Add(), (i("N"), i()))
    ),
    "adder2d": samples(
        (Adder2d(), (f("N", 3, 3, 2), f(2, 2, 2, 2))),
        (Adder2d(*SHAPED), (IMAGE, FILTER, f(3))),
        (Adder2d(groups=2), (GROUPED_IMAGE, GROUPED_FILTER)),
        (Adder2d(input_nonnegative=True), (f("N", 1, 2, 1), f(1, 2, 1, 1))),
        (Adder2d(*SHAPED, gradient="sign"), (IMAGE, FILTER, f(3))),
        (Adder2d(groups=2, gradient="sign"), (GROUPED_IMAGE, GROUPED_FILTER)),
        (Adder2d(*SHAPED), (u("N", 4, 5, 9), u(2, 3, 9, 3))),
        (Adder2d(groups=2), (u("N", 3, 3, 4), u(2, 2, 2, 2), i(2))),
    ),
    "adder2d_grad_filter": samples(
        (Adder2dGradFilter(*SHAPED), (GRADIENT, IMAGE, FILTER)),
        (Adder2dGradFilter(groups=2), (GROUPED_GRADIENT, GROUPED_IMAGE, GROUPED_FILTER)),
    ),
    "adder2d_grad_input": samples(
        (Adder2dGradInput(*SHAPED), (GRADIENT, IMAGE, FILTER)),
        (Adder2dGradInput(groups=2), (GROUPED_GRADIENT, GROUPED_IMAGE, GROUPED_FILTER)),
    ),
    "adder_dense": samples(
        (AdderDense(), (f("N", 4), f(4, 2))),
        (AdderDense(input_nonnegative=True), (f("N", 1), f(1, 3), f(3))),
        (AdderDense(gradient="sign"), (f("N", 4), f(4, 2))),
        (AdderDense(), (u("N", 11), u(11, 3))),
        (AdderDense(), (u("N", 2), u(2, 2), i(2))),
    ),
    "adder_dense_grad_filter": samples((AdderDenseGradFilter(), (f("N", 2), f("N", 4), f(4, 2)))),
    "adder_dense_grad_input": samples((AdderDenseGradInput(), (f("N", 2), f("N", 4), f(4, 2)))),
    "argmax": samples(
        (Argmax(1), (f("N", 5),)),
        (Argmax(0), (f(4, 2),)),
        (Argmax(1), (f("N", 3, 2),)),
        (Argmax(1), (i("N", 5),)),
        (Argmax(1), (u("N", 3, 2),)),
    ),
    "avg_pool2d": samples((AvgPool2d((2, 2), (2, 2)), (IMAGE,)), (AvgPool2d(*POOLED), (IMAGE,))),
    "avg_pool2d_grad": samples(
        (AvgPool2dGrad((2, 2), (2, 2), input_size=(4, 5)), (f("N", 2, 2, 2),)),
        (AvgPool2dGrad(*POOLED, input_size=(4, 5)), (f("N", 5, 3, 2),)),
    ),
    "batch_norm": samples(
        (BatchNorm(), (f("N", 3), *[f(3)] * 4)),
        (BatchNorm(0.5), (f("N", 2, 2, 2), *[f(2)] * 4)),
        domain=(0.5, 2.0),
    ),
    "batch_norm_statistics": samples(
        (BatchNormStatistics(), (f("N", 3),)), (BatchNormStatistics(), (f("N", 2, 2, 2),))
    ),
    "broadcast_to": samples(
        (BroadcastTo(("N", 3)), (f(3),)),
        (BroadcastTo((2, 2, 3)), (f(2, 1, 3),)),
        (BroadcastTo((2,)), (b(),)),
    ),
    "cast": [
        Sample(Cast(to), (tensor(by, ("N", 3)),))
        for to, by in itertools.product(DTYPES.values(), DTYPES.values())
    ],
    "clip": samples(
        (Clip(-0.5, 1.0), (f("N", 6),)), (Clip(0.0, float("inf")), (f(4),)), (Clip(1, 1), (f(2),))
    ),
    "completed": samples((Completed(), (f(2, 3),)), (Completed(), (f(5), i(), u(0, 2)))),
    "concat": samples(
        (Concat(1), (f("N", 2), f("N", 1), f("N", 0))),
        (Concat(0), (f(2, 2), f(1, 2))),
        (Concat(2), (i("N", 1, 2), i("N", 1, 1))),
    ),
    "conv2d": samples(
        (Conv2d(), (f("N", 3, 3, 2), f(2, 2, 2, 2))),
        (Conv2d(*SHAPED), (IMAGE, FILTER, f(3))),
        (Conv2d(groups=2), (GROUPED_IMAGE, GROUPED_FILTER)),
        (Conv2d(*SHAPED), (u("N", 4, 5, 9), s(2, 3, 9, 3))),
        (Conv2d(groups=2), (u("N", 3, 3, 4), s(2, 2, 2, 2), i(2))),
    ),
    "conv2d_grad_filter": samples(
        (Conv2dGradFilter(*SHAPED, kernel_size=(2, 3)), (GRADIENT, IMAGE)),
        (Conv2dGradFilter(groups=2, kernel_size=(2, 2)), (GROUPED_GRADIENT, GROUPED_IMAGE)),
    ),
    "conv2d_grad_input": samples(
        (Conv2dGradInput(*SHAPED, input_size=(4, 5)), (GRADIENT, FILTER)),
        (Conv2dGradInput(groups=2, input_size=(3, 3)), (GROUPED_GRADIENT, GROUPED_FILTER)),
    ),
    "dense": samples(
        (Dense(), (f("N", 4), f(4, 2))),
        (Dense(), (f("N", 1), f(1, 3), f(3))),
        (Dense(), (u("N", 5), s(5, 3), i(3))),
    ),
    "div": samples((Div(), (f("N", 3), f(3))), (Div(), (f("N", 1), f(1, 2))), domain=(0.5, 2.0)),
    "dropout": samples(
        (Dropout(0.5), (f("N", 3), i())),
        (Dropout(0.25, 2**59 - 1), (f("N", 2, 2, 3), i())),
        (Dropout(0.0, 7), (f(4), i())),
        (Dropout(0.75, 1), (f(), i())),
    ),
    "exp": samples((Exp(), (f("N", 3),)), (Exp(), (f(),))),
    "fake_quantize": samples(
        (FakeQuantize(0.25), (f("N", 3),)),
        (FakeQuantize(0.3, 2, bits=3), (f("N", 2, 2),)),
        (FakeQuantize(0.3, 1, bits=2, saturate=False), (f(7),)),
    ),
    "fake_quantize_filter": samples(
        (FakeQuantizeFilter(), (f(3, 2),)), (FakeQuantizeFilter(bits=2), (f(2, 2, 2, 3),))
    ),
    "flatten": samples(
        (Flatten(), (f("N", 2, 3),)), (Flatten(), (f("N"),)), (Flatten(), (b(2, 2),))
    ),
    "full": samples(
        (Full(1.5), ()),
        (Full(-2.0, ("N", 3), i32), ()),
        (Full(1.0, (2,), bool_), ()),
        (Full(float("nan"), (2,)), ()),
        (Full(float("-inf"), (1, 2)), ()),
        (Full(-0.0), ()),
    ),
    "fused": samples(
        (Fused(pointwise_body()), (f("N", 3), f(3))),
        (Fused(contraction_body()), (f("N", 4, 4, 2), f(3, 3, 2, 3), f(3))),
    ),
    "global_avg_pool": samples((GlobalAvgPool(), (IMAGE,)), (GlobalAvgPool(), (f("N", 1, 1, 1),))),
    "greater": samples((Greater(), (f("N", 3), f(3))), (Greater(), (i("N"), i()))),
    "leaky_relu": samples(
        (LeakyRelu(), (f("N", 5),)), (LeakyRelu(0.25), (f(3),)), (LeakyRelu(0.0), (f(),))
    ),
    "log": samples((Log(), (f("N", 3),)), domain=(0.25, 4.0)),
    "lookup": samples(
        (Lookup(), (u("N", 2, 3, 2), u(2, 256))),
        (Lookup(0.25, 3), (u("N", 19), u(19, 256))),
        (Lookup(0.5), (u(2, 5, 1), u(1, 256))),
    ),
    "matmul": samples((Matmul(), (f("N", 4), f(4, 2))), (Matmul(), (f(3, 1), f(1, 2)))),
    "max_pool2d": samples(
        (MaxPool2d((2, 2), (2, 2)), (IMAGE,)),
        (MaxPool2d(*POOLED), (IMAGE,)),
        (MaxPool2d(*POOLED), (u("N", 4, 5, 2),)),
    ),
    "max_pool2d_grad": samples(
        (MaxPool2dGrad((2, 2), (2, 2)), (f("N", 2, 2, 2), IMAGE)),
        (MaxPool2dGrad(*POOLED), (f("N", 5, 3, 2), IMAGE)),
    ),
    "maximum": samples((Maximum(), (f("N", 3), f(3))), (Maximum(), (i("N"), i()))),
    "mean_squared_error": samples(
        (MeanSquaredError(), (f("N", 3), f("N", 3))),
        (MeanSquaredError(), (f("N"), f("N"))),
        (MeanSquaredError(), (f("N", 2, 2), f("N", 2, 2))),
    ),
    "minimum": samples((Minimum(), (f("N", 3), f(3))), (Minimum(), (i("N"), i()))),
    "mul": samples(
        (Mul(), (f("N", 3), f(3))), (Mul(), (f("N", 1), f(1, 2))), (Mul(), (i("N"), i()))
    ),
    "neg": samples((Neg(), (f("N", 3),)), (Neg(), (i("N"),))),
    "pad": samples(
        (Pad((0, 1, 2), (0, 0, 1)), (f("N", 2, 1),)),
        (Pad((1,), (2,), -1.5), (f(2),)),
        (Pad((0, 0), (0, 0), 3.0), (f("N", 2),)),
        (Pad((1,), (0,), 7.0), (i(2),)),
    ),
    "reduce_max": samples(
        (ReduceMax((1,)), (f("N", 4),)), (ReduceMax((0, 2), True), (f(2, 3, 2),))
    ),
    "reduce_mean": samples(
        (ReduceMean((1,)), (f("N", 4),)), (ReduceMean((0, 2), True), (f("N", 3, 2),))
    ),
    "reduce_sum": samples(
        (ReduceSum((1,)), (f("N", 4),)),
        (ReduceSum((0, 2), True), (f("N", 3, 2),)),
        (ReduceSum(()), (f("N"),)),
        (ReduceSum((1,), True), (i("N", 4),)),
    ),
    "relu": samples((Relu(), (f("N", 5),)), (Relu(), (f(),))),
    "relu6": samples((Relu6(), (f("N", 7),)), (Relu6(), (f(),)), domain=(-2.0, 8.5)),
    "replica_mean": samples((ReplicaMean(), (f(5),)), (ReplicaMean(), (f(2, 3),))),
    "requantize_multiply": samples(
        (RequantizeMultiply(0, 255), (i("N", 3), *[i(3)] * 4)),
        (RequantizeMultiply(-9, 9, i32), (i("N", 2, 2), i(), i(2), i(), i())),
    ),
    "requantize_shift": samples(
        (RequantizeShift(0, 255), (i("N", 3), *[i(3)] * 4)),
        (RequantizeShift(3, 15, u8, 0.25, 3), (i("N", 2, 2), i(), i(2), i(), i(), i(2), i(2))),
        (RequantizeShift(-(2**31), 2**31 - 1, i32), (i("N", 1), *[i(1)] * 5)),
    ),
    "reshape": samples((Reshape(("N", 6)), (f("N", 2, 3),)), (Reshape((2, 1, 3)), (f(6),))),
    "resize_nearest": samples(
        (ResizeNearest((2, 3)), (f("N", 2, 3, 2),)),
        (ResizeNearest((1, 1)), (f(2, 1, 2, 1),)),
        (ResizeNearest((3, 1)), (u("N", 1, 2, 3),)),
    ),
    "select": samples(
        (Select(), (b("N", 3), f("N", 3), f("N", 3))),
        (Select(), (b("N", 1), f(3), f())),
        (Select(), (b(2), i(2), i())),
    ),
    "sigmoid": samples((Sigmoid(), (f("N", 3),)), (Sigmoid(), (f(),))),
    "slice": samples((Slice((0, 1), ("N", 3)), (f("N", 4),)), (Slice((1, 0), (1, 2)), (f(2, 2),))),
    "softmax": samples((Softmax(), (f("N", 4),)), (Softmax(), (f("N", 2, 3),))),
    "softmax_cross_entropy": samples((SoftmaxCrossEntropy(), (f("N", 4), f("N", 4)))),
    "sqrt": samples((Sqrt(), (f("N", 3),)), domain=(0.25, 4.0)),
    "sub": samples(
        (Sub(), (f("N", 3), f(3))), (Sub(), (f("N", 1), f(1, 2))), (Sub(), (i("N"), i()))
    ),
    "sum_pool2d": samples(
        (SumPool2d((2, 2), (2, 2)), (u("N", 4, 5, 2),)), (SumPool2d(*POOLED), (u("N", 4, 5, 3),))
    ),
    "tanh": samples((Tanh(), (f("N", 3),)), (Tanh(), (f(),))),
    "transpose": samples((Transpose((0, 2, 1)), (f("N", 2, 3),)), (Transpose((1, 0)), (i(2, 3),))),
}

ALL = [sample for group in SAMPLES.values() for sample in group]


def identify(sample: Sample) -> str:
    return f"{sample.op.name}-{'-'.join(map(str, sample.types))}"
