"""What the dense and the sparse forward contraction share: reading the call, and the tail.

The tail is all that happens between an accumulator and the store, see `dense.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.ir import Graph

from ...emit.builder import Emitter, Index, Register
from .. import Call, Kernel, Operand
from ..pointwise import emit_body
from .geometry import geometry, image_strides
from .terms import MINIMUM, Sums, term_of


class ForwardContraction(Kernel):
    """A contraction with its fused tail.

    body      the fused node's body, or None
    node_op   the contraction itself
    operands  which operands of the call are its input, filter and bias
    g         sizes and strides
    """

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call)
        self.body = body
        self.node_op = call.op if body is None else body.nodes[0].op
        self.operands = list(range(len(call.inputs)))
        if body is not None:
            position = {v: i for i, v in enumerate(body.inputs)}
            self.operands = [position[v] for v in body.nodes[0].inputs]
        x, f = (call.inputs[i] for i in self.operands[:2])
        term = term_of(self.node_op, x.type.dtype, call.target)
        self.g = geometry(term, self.node_op, x, f, call.outputs[0])

    @property
    def lanes(self) -> int:
        """Output channels in one vector."""
        return self.target.lanes

    @property
    def name_ending(self) -> str:
        return f"{'_fused' if self.body is not None else ''}_{self.target.isa}"

    @property
    def tail_reads(self) -> frozenset[int]:
        """The operands that the tail reads; a residual may be the contraction's own input."""
        if self.body is None:
            return frozenset()
        read = {v for node in self.body.nodes[1:] for v in node.inputs}
        return frozenset(i for i, v in enumerate(self.body.inputs) if v in read)

    @property
    def in_place(self) -> bool:
        """A residual may share the result's buffer: the tail reads an element, then writes it."""
        result = self.call.outputs[0].type
        own = self.operands[:2]
        return any(self.call.inputs[i].type == result for i in self.tail_reads if i not in own)

    @property
    def is_constant(self) -> bool:
        """Whether the filter is packed beforehand: not where it is wanted as it is, too."""
        return self.operands[1] in self.call.constant - self.tail_reads - {self.operands[0]}


@dataclass(frozen=True)
class Place:
    """The corner of a tile: group, channel block, sample, output row and column."""

    group: Index
    block: Index
    n: Index
    h: Index
    w: Index = 0

    def at_column(self, w: Index) -> Place:
        return Place(self.group, self.block, self.n, self.h, w)


class Tail:
    """Everything between an accumulator and the store: the form's correction, bias, fused body."""

    def __init__(
        self,
        kernel: ForwardContraction,
        e: Emitter,
        inputs: Sequence[Any],
        place: Place,
        channel: Index,
    ) -> None:
        self.k, self.e, self.inputs, self.place, self.channel = kernel, e, inputs, place, channel

    def moved(self, place: Place) -> Tail:
        """The same tail at another place."""
        return Tail(self.k, self.e, self.inputs, place, self.channel)

    def channels(self, v: int, count: int, sums: Any) -> dict[int, Register]:
        """Registers that depend on the channel alone: operand number -> [T] or scalar operands.

        Number -1 is sum|f| of the minimum form; `sums` points at the tile's where these are packed.
        """
        e, k, lanes = self.e, self.k, self.k.lanes
        made: dict[int, Register] = {}
        if k.g.term == MINIMUM and sums is not None:
            made[-1] = e.load(e.at(sums, 4 * v * lanes), lanes=lanes)
        base = e.mul(e.add(e.mul(self.place.group, k.g.outputs), self.channel), 4)
        for number, operand in enumerate(k.call.inputs):
            if number not in k.tail_reads and number not in k.operands[2:]:
                continue
            dtype, size = operand.type.dtype, operand.type.dtype.itemsize
            if math.prod(operand.shape) == 1:
                made[number] = e.splat(e.load(self.inputs[number], dtype), lanes)
            elif len(operand.shape) == 1 and operand.shape != k.call.outputs[0].shape:
                at = e.add(e.div(e.mul(base, size), 4), v * lanes * size)
                made[number] = e.load(e.at(self.inputs[number], at), dtype, lanes, count)
        return made

    def result(
        self, acc: Register, channels: dict[int, Register], window: Any = None,
        inputs: Register | None = None,
    ) -> Register:  # fmt: skip
        """The contraction's own result, bias included. Where the term wants sum x, `window` points
        at it, or `inputs` has it of each lane."""
        e, k, term = self.e, self.k, self.k.g.term
        value = term.result(e, acc, k.lanes, Sums(window, channels.get(-1), inputs))
        return term.plus(e, value, channels[k.operands[2]]) if len(k.operands) > 2 else value

    def apply(
        self, value: Register, channels: dict[int, Register], pixel: tuple[int, int], v: int,
        count: int,
    ) -> Register:  # fmt: skip
        """The fused body on one register."""
        e, k = self.e, self.k
        if k.body is None:
            return value
        env = {k.body.nodes[0].outputs[0]: value}
        for number, body_input in enumerate(k.body.inputs):
            if number not in k.tail_reads:
                continue
            if number in channels:
                env[body_input] = channels[number]
                continue
            operand = k.call.inputs[number]
            env[body_input] = self._same_shape(operand, self.inputs[number], pixel, v, count)
        return emit_body(e, k.body, env, k.lanes)[0]

    def _same_shape(
        self, operand: Operand, pointer: Any, pixel: tuple[int, int], v: int, count: int
    ) -> Register:
        """An operand of the result's shape, at the tile's pixel and vector."""
        e, k, place = self.e, self.k, self.place
        size = operand.type.dtype.itemsize
        corner = (place.n, e.add(place.h, pixel[0]), e.add(place.w, pixel[1]))
        at = e.dot(corner, image_strides(operand))
        channel = e.add(e.mul(place.group, k.g.outputs), self.channel)
        at = e.add(at, e.add(e.mul(channel, size), v * k.lanes * size))
        return e.load(e.at(pointer, at), operand.type.dtype, k.lanes, count)
