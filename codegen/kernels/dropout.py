"""dropout: which elements stay is computed from their places, so nothing is stored or fed in.

    Y[e] = scale X[e] where the upper bits of mix(seed + golden (2^32 step + e + 1)) >= least
    Y[e] = 0          elsewhere

One 64-bit number an element (SplitMix64, at random access), in the lanes of its vector; threads
split the elements by `_nest`, and no result depends on how. Buffers may have halos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from addergraph.ir.plan import Layout
from addergraph.ir.types import i32, u8
from addergraph.ops.pointwise.dropout import (
    GOLDEN,
    KEPT_BITS,
    LAST_SHIFT,
    MIX,
    STEP_BITS,
    Dropout,
)

from ..emit.builder import I64, POINTER, Emitter, Register, constant, vector
from . import Kernel, kernel
from ._nest import Access, access, emit_nest


@dataclass(frozen=True)
class _Places(Access):
    """A tensor without memory, each of whose elements is its own place in row-major order."""

    def load(self, e: Emitter, pointer: Any, lanes: int, active: int | None) -> Register:
        place = e.b.ptrtoint(pointer, I64)
        steps = [ir.Constant(I64, lane) for lane in range(lanes)]
        if lanes == 1:
            return place
        return e.b.add(e.splat(place, lanes), ir.Constant(vector(I64, lanes), steps))


@kernel(Dropout)
class DropoutKernel(Kernel):
    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x, _), (y,), op, b = self.call.inputs, self.call.outputs, self.call.op, e.b
        assert isinstance(op, Dropout)
        nowhere = ir.Constant(POINTER, None)
        places = _Places(nowhere, u8, Layout(y.shape).strides)  # a byte an element
        step = b.shl(b.sext(e.load(inputs[1], i32), I64), ir.Constant(I64, STEP_BITS))
        first = b.add(step, ir.Constant(I64, 1))

        def compute(registers: list[Register], lanes: int) -> list[Register]:
            value, place = registers
            wide = vector(I64, lanes)
            z = b.mul(b.add(place, e.splat(first, lanes)), constant(wide, GOLDEN))
            z = b.add(z, constant(wide, op.seed))
            for shift, factor in MIX:
                z = b.mul(b.xor(z, b.lshr(z, constant(wide, shift))), constant(wide, factor))
            z = b.xor(z, b.lshr(z, constant(wide, LAST_SHIFT)))
            kept = b.lshr(z, constant(wide, 64 - KEPT_BITS))
            stays = b.icmp_unsigned(">=", kept, constant(wide, op.least))
            scaled = b.fmul(value, e.number(op.scale, lanes))
            return [b.select(stays, scaled, e.number(0.0, lanes))]

        reads = [access(x, inputs[0], y.shape), places]
        emit_nest(e, y.shape, reads, [access(y, outputs[0], y.shape)], compute)
