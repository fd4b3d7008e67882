"""Movement: every op here copies numbers, bit for bit, or writes a constant, and computes nothing.

    Y[i] = X[map(i)]      flatten, reshape, transpose, broadcast_to, slice, concat, pad,
                          resize_nearest

Each is one or more strided copies by `_nest`: contiguous runs move in vectors, tails are masked,
threads split the rows. Buffers may have halos; only `emit_zero_halo` writes those. Results do not
share memory with operands.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from addergraph.ir import Halo
from addergraph.ir.plan import Layout
from addergraph.ir.types import DType, f32, i8, u8
from addergraph.ops.movement.broadcast_to import BroadcastTo
from addergraph.ops.movement.concat import Concat
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten, Reshape
from addergraph.ops.movement.resize_nearest import ResizeNearest
from addergraph.ops.movement.slice import Slice
from addergraph.ops.movement.transpose import Transpose

from ..emit.builder import Emitter, Register, constant, element_type, vector
from ..targets.target import Target
from . import Call, Kernel, Operand, kernel
from ._nest import Access, access, emit_nest


def emit_copy(e: Emitter, shape: Sequence[int], source: Access, into: Access) -> None:
    """into[i] = source[i] for every index i of `shape`."""
    emit_nest(e, shape, [source], [into], lambda registers, _: registers)


def emit_fill(e: Emitter, shape: Sequence[int], into: Access, value: float) -> None:
    """into[i] = value for every index i of `shape`."""

    def compute(_: list[Register], lanes: int) -> list[Register]:
        type = vector(element_type(into.dtype), lanes)
        return [constant(type, _stored(value, into.dtype))]

    emit_nest(e, shape, [], [into], compute)


def _stored(value: float, dtype: DType) -> float | int:
    """`value` as a register of `dtype` holds it: f32 rounded, integers in two's complement."""
    if dtype == f32:
        return float(np.float32(value))
    if dtype in (u8, i8):
        return (int(value) + 128) % 256 - 128
    return int(value)


def emit_zero_halo(e: Emitter, operand: Operand, pointer: Any) -> None:
    """Zeros around the tensor at `pointer`, whose element (0, 0, 0, 0) that is."""
    if operand.layout.halo == Halo():
        return
    (n, h, w, c), halo, strides = operand.shape, operand.layout.halo, operand.strides
    row, pixel = strides[1], strides[2]
    width = w + halo.left + halo.right
    for shape, offset in (
        ((n, halo.top, width, c), -halo.top * row - halo.left * pixel),
        ((n, halo.bottom, width, c), h * row - halo.left * pixel),
        ((n, h, halo.left, c), -halo.left * pixel),
        ((n, h, halo.right, c), w * pixel),
    ):
        emit_fill(e, shape, Access(e.at(pointer, offset), operand.type.dtype, strides), 0.0)


def _row_major(operand: Operand, shape: Sequence[int], pointer: Any) -> Access:
    """A dense `operand`, walked by the index of another shape of as many elements."""
    size = operand.type.dtype.itemsize
    strides = tuple(s * size for s in Layout(tuple(shape)).strides)
    return Access(pointer, operand.type.dtype, strides)


@kernel(Flatten, Reshape)
class CopyKernel(Kernel):
    """The elements of the operand in row-major order, as another shape or in another layout."""

    @staticmethod
    def staging(source: Operand, result: Operand, target: Target) -> Call:
        """The call that copies a tensor into a buffer of another layout."""
        return Call(Reshape(result.shape), (source,), (result,), target)

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), (y,), (source,), (into,) = self.call.inputs, self.call.outputs, inputs, outputs
        if x.shape == y.shape:
            emit_copy(e, y.shape, access(x, source, x.shape), access(y, into, y.shape))
        elif x.layout.dense:
            emit_copy(e, y.shape, _row_major(x, y.shape, source), access(y, into, y.shape))
        elif y.layout.dense:
            emit_copy(e, x.shape, access(x, source, x.shape), _row_major(y, x.shape, into))
        else:
            self._copy_elements(e, source, into)

    def _copy_elements(self, e: Emitter, source: Any, into: Any) -> None:
        """Between two halos of different shapes: one element at a time."""
        (x,), (y,) = self.call.inputs, self.call.outputs
        with e.loop(*e.share(x.type.elements)) as i:
            read = e.at(source, e.dot(e.split(i, x.shape), x.strides))
            write = e.at(into, e.dot(e.split(i, y.shape), y.strides))
            e.store(e.load(read, x.type.dtype), write, x.type.dtype)


class MovementKernel(Kernel):
    """Copies of boxes: each operand's elements to where they stand in the result."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (y,) = self.call.outputs
        operands = zip(self.call.inputs, inputs, strict=True)
        sources = [access(o, p, o.shape) for o, p in operands]
        self.move(e, sources, access(y, outputs[0], y.shape))

    @abstractmethod
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        """Emits the copies."""


@kernel(BroadcastTo)
class BroadcastKernel(MovementKernel):
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        (x,), shape = self.call.inputs, self.call.outputs[0].shape
        emit_copy(e, shape, access(x, sources[0].pointer, shape), into)


@kernel(Transpose)
class TransposeKernel(MovementKernel):
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        (x,), op = sources, self.call.op
        assert isinstance(op, Transpose)
        strides = tuple(x.strides[axis] for axis in op.permutation)
        emit_copy(e, self.call.outputs[0].shape, Access(x.pointer, x.dtype, strides), into)


@kernel(ResizeNearest)
class ResizeKernel(MovementKernel):
    """Walks [N,H,a,W,b,C], which a and b leave in place in the source."""

    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        (source,), op = sources, self.call.op
        assert isinstance(op, ResizeNearest)
        (n, h, w, c), (a, b) = self.call.inputs[0].shape, op.factors
        image, row, pixel, channel = source.strides
        read = Access(source.pointer, source.dtype, (image, row, 0, pixel, 0, channel))
        image, row, pixel, channel = into.strides
        strides = (image, a * row, row, b * pixel, pixel, channel)
        emit_copy(e, (n, h, a, w, b, c), read, Access(into.pointer, into.dtype, strides))


@kernel(Slice)
class SliceKernel(MovementKernel):
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        assert isinstance(self.call.op, Slice)
        source = _from(e, sources[0], self.call.op.start)
        emit_copy(e, self.call.outputs[0].shape, source, into)


@kernel(Pad)
class PadKernel(MovementKernel):
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        op, (x,), (y,) = self.call.op, self.call.inputs, self.call.outputs
        assert isinstance(op, Pad)
        emit_copy(e, x.shape, sources[0], _from(e, into, op.before))
        for axis in range(len(x.shape)):
            # Axes before this one: the operand's own range, since their padding is written already.
            start, shape = [*op.before[:axis], *[0] * (len(x.shape) - axis)], list(y.shape)
            shape[:axis] = x.shape[:axis]
            shape[axis] = op.before[axis]
            emit_fill(e, shape, _from(e, into, start), op.value)
            start[axis], shape[axis] = op.before[axis] + x.shape[axis], op.after[axis]
            emit_fill(e, shape, _from(e, into, start), op.value)


@kernel(Concat)
class ConcatKernel(MovementKernel):
    def move(self, e: Emitter, sources: Sequence[Access], into: Access) -> None:
        op, start = self.call.op, [0] * len(self.call.outputs[0].shape)
        assert isinstance(op, Concat)
        for operand, source in zip(self.call.inputs, sources, strict=True):
            emit_copy(e, operand.shape, source, _from(e, into, start))
            start[op.axis] += operand.shape[op.axis]


def _from(e: Emitter, a: Access, start: Sequence[int]) -> Access:
    """The same tensor from index `start` on."""
    return Access(a.moved(e, start), a.dtype, a.strides)
