"""Reductions over axes: sums, means, maxima, squared errors; and argmax.

Sums are taken in f64 and rounded to f32 once, so a result is within 0.5 ulp of the exact one but
for what the f64 sum loses (count * 2^-53 of the sum of magnitudes); those of i32 wrap. How axes
are walked, in which order and by which thread, is `_fold`'s contract.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from addergraph.ir.types import f32, i32, u8
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.mean_squared_error import MeanSquaredError
from addergraph.ops.reduction.reduce import ReduceMax, ReduceMean, ReduceSum

from ...emit.builder import I32, Emitter, Index, Register, constant, vector, wide
from .. import Kernel, Operand, kernel
from .._nest import Access, access, merge_axes
from ..movement import emit_fill
from ._fold import Cut, Finish, Fold, Reduction


def _sum_of(term: Callable[[Emitter, list[Register]], Register]) -> Fold:
    return Fold(wide, 0.0, term, lambda e, a, b: e.b.fadd(a, b))


def _squared_difference(e: Emitter, registers: list[Register]) -> Register:
    """(a - b)^2 in f64."""
    a, b = (e.widen(r) for r in registers)
    d = e.b.fsub(a, b)
    return e.b.fmul(d, d)


def larger(e: Emitter, a: Register, b: Register) -> Register:
    """The larger of a and b, NaN if one is NaN."""
    wins = e.b.or_(e.b.fcmp_ordered(">", a, b), e.b.fcmp_unordered("uno", a, a))
    return e.b.select(wins, a, b)


SUM = _sum_of(lambda e, registers: e.widen(registers[0]))
INTEGER_SUM = Fold(i32, 0, lambda e, registers: registers[0], lambda e, a, b: e.b.add(a, b))
SQUARED_DIFFERENCE = _sum_of(_squared_difference)
MAXIMUM = Fold(f32, float("-inf"), lambda e, registers: registers[0], larger)


def _mean(count: int) -> Finish:
    return lambda e, total: [e.narrow(_divided(e, total, count))]


def _divided(e: Emitter, total: Register, count: int) -> Register:
    return e.b.fdiv(total, constant(total.type, float(count)))


# -- the kernels ---------------------------------------------------------------------------------


def _spread(operand: Operand, pointer: Any, rank: int, gone: Sequence[int]) -> Access:
    """A result, with strides by the axes of the operand: 0 along those that went."""
    steps = list(operand.strides)
    if len(steps) < rank:
        for axis in sorted(gone):
            steps.insert(axis, 0)
    strides = tuple(0 if axis in gone else s for axis, s in enumerate(steps))
    return Access(pointer, operand.type.dtype, strides)


class ReduceKernel(Kernel):
    """One fold of one operand, or of the squared differences of two: a sum unless told otherwise.

    `nothing` is the result of no elements.
    """

    fold: ClassVar[Fold] = SUM
    nothing: ClassVar[float] = math.nan

    @property
    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Those that go, ascending."""

    @property
    def count(self) -> int:
        """Elements of one result."""
        return math.prod(self.call.inputs[0].shape[axis] for axis in self.axes)

    @property
    def finish(self) -> Finish:
        """The mean."""
        return _mean(self.count)

    @property
    def workspace(self) -> int:
        shape = self.call.inputs[0].shape
        if 0 in shape:
            return 0
        return Cut(shape, self.axes).workspace(self.target.lanes, self.fold.dtype)

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (y,), shape = self.call.outputs, self.call.inputs[0].shape
        if 0 in shape:
            emit_fill(e, y.shape, access(y, outputs[0], y.shape), self.nothing)
            return
        reads = [access(o, p, shape) for o, p in zip(self.call.inputs, inputs, strict=True)]
        writes = [_spread(y, outputs[0], len(shape), self.axes)]
        cut = Cut(shape, self.axes)
        Reduction(e, cut, self.fold, reads, writes, self.finish, workspace).emit()


@kernel(ReduceMean)
class MeanKernel(ReduceKernel):
    @property
    def axes(self) -> tuple[int, ...]:
        assert isinstance(self.call.op, (ReduceSum, ReduceMean, ReduceMax))
        return self.call.op.axes


@kernel(ReduceSum)
class SumKernel(MeanKernel):
    nothing = 0.0

    @property
    def fold(self) -> Fold:  # type: ignore[override]
        return SUM if self.call.inputs[0].type.dtype == f32 else INTEGER_SUM

    @property
    def finish(self) -> Finish:
        narrow = self.fold is SUM
        return lambda e, total: [e.narrow(total) if narrow else total]


@kernel(ReduceMax)
class MaxKernel(MeanKernel):
    fold = MAXIMUM

    @property
    def finish(self) -> Finish:
        # A zero is +0.0.
        return lambda e, total: [e.b.fadd(total, constant(total.type, 0.0))]


@kernel(GlobalAvgPool)
class GlobalMeanKernel(ReduceKernel):
    axes = (1, 2)


@kernel(MeanSquaredError)
class SquaredErrorKernel(ReduceKernel):
    fold = SQUARED_DIFFERENCE

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.call.inputs[0].shape)))


@kernel(Argmax)
class ArgmaxKernel(Kernel):
    """The first index of the largest element, or of the first NaN, along an axis."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        op, (x,), (y,) = self.call.op, self.call.inputs, self.call.outputs
        assert isinstance(op, Argmax)
        if 0 in y.shape:
            return
        others = [axis for axis in range(len(x.shape)) if axis != op.axis]
        steps = [[x.strides[axis] for axis in others], list(y.strides)]
        sizes, (read, write) = merge_axes(y.shape, steps)
        lanes = e.lanes if read[-1] == write[-1] == x.type.dtype.itemsize else 1
        full, rest = divmod(sizes[-1], lanes)
        blocks = full + bool(rest)
        with e.loop(*e.share(math.prod(sizes[:-1]) * blocks)) as item:
            *outer, block = e.split(item, (*sizes[:-1], blocks))
            position = (*outer, e.mul(block, lanes))
            source = e.at(inputs[0], e.dot(position, read))
            into = e.at(outputs[0], e.dot(position, write))
            for active, context in e.partial(block, full, rest, lanes):
                if active:
                    with context:
                        index = self._first_largest(e, source, lanes, active)
                        e.store(index, into, y.type.dtype, active)

    def _first_largest(self, e: Emitter, source: Any, lanes: int, active: int) -> Register:
        op, (x,) = self.call.op, self.call.inputs
        assert isinstance(op, Argmax)
        step, dtype, indices = x.strides[op.axis], x.type.dtype, vector(I32, lanes)

        def body(i: Index, best: list[Register]) -> list[Register]:
            most, found = best
            value = e.load(e.at(source, e.mul(i, step)), dtype, lanes, active)
            wins = self._wins(e, value, most)
            here = e.splat(e.b.trunc(e.index(i), I32), lanes)
            return [e.b.select(wins, value, most), e.b.select(wins, here, found)]

        first = [e.load(source, dtype, lanes, active), constant(indices, 0)]
        return e.carry(1, x.shape[op.axis], 1, first, body)[1]

    def _wins(self, e: Emitter, value: Register, most: Register) -> Register:
        """Whether a later element takes the place of the largest one so far."""
        dtype = self.call.inputs[0].type.dtype
        if dtype == u8:
            return e.b.icmp_unsigned(">", value, most)
        if dtype == i32:
            return e.b.icmp_signed(">", value, most)
        # Unordered or greater: `value` is larger or either is NaN; a NaN that leads stays.
        ahead = e.b.fcmp_unordered(">", value, most)
        return e.b.and_(ahead, e.b.fcmp_ordered("ord", most, most))
