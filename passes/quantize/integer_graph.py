"""The integer graph that `integers.py` writes: its nodes, its numbers, and their integers on the
calibration samples, op by op."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from addergraph.ir import Array, Builder, Init, Op, Parameter, Value, free_name
from addergraph.ir.quantization import Quantization
from addergraph.ir.types import DType, TensorType, i32, u8
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.requantize import MAX_TERMS, RequantizeMultiply, RequantizeShift
from addergraph.ops.reduction.reduce import ReduceSum

from .calibrate import CHUNK, Engine
from .fixed_point import LIMIT, multiply_operands, shift_operands
from .forms import Bytes, Chunk, Integers, Part, Sums

GUARD_BITS = 6  # below one step of the bytes that a sum of several parts becomes
GUARD_HALF = 1 << (GUARD_BITS - 1)
FINEST = 1 << 18  # of sums in steps smaller than 1
OUTPUT_STEPS = 1 << 12  # the largest output on the calibration data, in steps of its integers
HEADROOM = 8  # how far beyond that outputs of other data may go
KEPT = 1 << 28  # bytes of the sums of a layer
UNIFORM = 1 << 24  # the end of outputs that are sums themselves, unless these go farther

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Step:
    """A requantization of a part, on the samples."""

    part: Part
    op: RequantizeMultiply
    numbers: Sequence[Array]


class IntegerGraph:
    """The integer network under construction.

    weights  its numbers, by name
    taken    names of its values
    """

    def __init__(
        self, name: str, reserved: Iterable[str], terms: int | None, engine: Engine, count: int
    ) -> None:
        """`reserved`: names for others to take; `terms`: powers of two in a factor, None for
        integer multiplications; `count`: chunks of samples."""
        self.terms = terms
        self.builder = Builder(name)
        self.weights: dict[str, Array] = {}
        self.taken: set[str] = set()
        self._reserved = {*reserved}
        self._engine, self._count = engine, count

    # -- nodes and numbers -----------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A name that no value of the float network has, or will have here."""
        name = free_name(hint, self._reserved)
        self._reserved.add(name)
        return name

    def node(self, op: Op, operands: Sequence[Value], name: str) -> Value:
        """Appends a node under `name`."""
        types = op.infer(*(v.type for v in operands))
        (made,) = self.builder.add(op, operands, [Value(name, types[0])])
        self.taken.add(name)
        return made

    def applied(self, op: Op, x: Bytes | Integers, name: str) -> tuple[Value, Chunk]:
        """A node of one operand, and its results on the samples."""
        return self.node(op, [x.value], name), self.computed(op, x)

    def constant(
        self, name: str, array: Array, dtype: DType, quantization: Quantization | None = None
    ) -> Parameter:
        """A parameter of the integer network with its numbers."""
        type = TensorType(dtype, array.shape, quantization)
        self.weights[name] = array.astype(dtype.numpy)
        made = self.builder.parameter(Parameter(name, type, Init(), trainable=False))
        assert isinstance(made, Parameter)
        return made

    # -- the samples -----------------------------------------------------------------------------

    def computed(
        self,
        op: Op,
        *xs: Bytes | Integers | Part,
        taps: tuple[Parameter, Array] | None = None,
    ) -> Chunk:
        """What `op` makes of values and a filter on a chunk of samples. Nothing here names the
        layer, so that like ones share a program; a filter is packed once for each."""
        builder, weights = Builder("op"), {}
        operands = [
            builder.input(f"x{i}", replace(x.value.type, quantization=None))
            for i, x in enumerate(xs)
        ]
        if taps is not None:
            bare = replace(taps[0].type, quantization=None)
            operands.append(builder.parameter(Parameter("f", bare)))
            weights["f"] = taps[1]
        run = self._engine.program(builder.finish(builder.add(op, operands, "y")), weights)
        given = [x.chunk for x in xs]
        return lambda k: run([chunk(k) for chunk in given])[0]

    def each(self, function: Callable[[int], Made]) -> list[Made]:
        """`function` of the number of every chunk."""
        return self._engine.each(function, range(self._count))

    def held(self, chunk: Chunk) -> Chunk:
        """The same integers, computed now: what they are computed from may go."""
        return self.each(chunk).__getitem__

    def kept(self, value: Value, chunk: Chunk) -> Chunk:
        """The same integers of `value`, asked for in pairs, for moments and for bytes: those of as
        many chunks as KEPT bytes hold are kept from the first time to the second."""
        nbytes = value.type.bind(CHUNK).nbytes
        found: dict[int, Array] = {}

        def once(k: int) -> Array:
            if k in found:
                return found.pop(k)
            made = chunk(k)
            if (k + 1) * nbytes <= KEPT:
                found[k] = made
            return made

        return once

    def all(self, chunk: Chunk) -> Array:
        """Those of all samples."""
        return np.concatenate(self.each(chunk))

    # -- means over channels ---------------------------------------------------------------------

    def channel_mean(self, part: Part, name: str) -> tuple[Part, Part]:
        """A part, whose integers q have one factor, made finer, and the mean of its C channels as a
        part of one channel under `name`, of the same scale: their difference is one of integers.

            S = sum_c q[c],  h = round(2^(g-p) (S - C M)),  m = (n h + 2^(k-1)) >> k,  x = q << g

        with 2^p <= C < 2^(p+1), and n / 2^k close to 2^p / C: a sum of up to MAX_TERMS powers of
        two, as it is one product a pixel, or an integer. Where C = 2^p, m is h. M is an integer
        close to S / C on the first samples, so that an error of n scales what is left after the
        mean: but for that, m is within 1 of 2^g (S / C - M). x is as fine as leaves room for a
        factor behind it. No step leaves i32 where S does not.
        """
        count, scale = len(part.factor), float(part.factor[0])
        middle = round(float(part.chunk(0).mean()))
        part = replace(part, chunk=self.kept(part.value, part.chunk))
        op, ones = ReduceSum((part.value.type.rank - 1,), True), np.ones(1)
        value = self.node(op, [part.value], self.fresh(f"{name}.sum"))
        least, most = (end.sum() * ones for end in (part.least, part.most))
        total = Part(value, ones / count, -middle * ones, least, most, self.computed(op, part))
        fine = self._finer(part)
        unit = float(fine.factor[0]) / scale
        step = (1 << count.bit_length() - 1) / count
        if step < 1:
            total = self._counted(total, step * unit, scale, self.fresh(f"{name}.step"))
        mean = self._counted(total, unit, scale, name)
        constant = (scale * middle + part.constant.mean()) * ones
        return fine, replace(mean, factor=fine.factor[:1], constant=constant)

    def _finer(self, part: Part) -> Part:
        """The same sums in GUARD_BITS smaller steps, or as many as leave them within FINEST."""
        room = FINEST // max(1, int((part.most - part.least).max()))
        places = min(GUARD_BITS, max(1, room).bit_length() - 1)
        if not places:
            return part
        factor = part.factor / (1 << places)
        op = RequantizeShift(-LIMIT - 1, LIMIT, i32, float(factor[0]))
        zero, code = self._code(0), self._code(places + 1)
        name = self.fresh(f"{part.value.name}.fine")
        value, chunk = self.node(op, [part.value, zero, zero, zero, code], name), part.chunk
        least, most = (np.ldexp(end, places) for end in (part.least, part.most))
        return Part(value, factor, part.constant, least, most, lambda k: chunk(k) << places)

    def _counted(self, part: Part, step: float, scale: float, name: str) -> Part:
        """A part of one channel as integers of `step`; 1 stands for `scale`."""
        ends = [part.factor * end + part.constant for end in (part.least, part.most)]
        least, most = math.floor(ends[0][0] / step), math.ceil(ends[1][0] / step)
        op, ones = RequantizeShift(least, most, i32, scale * step), np.ones(1)
        made, last = self._requantize(part, step, 0, op, name, MAX_TERMS)
        chunk = self._requantizing(last, [])
        return Part(made, step * ones, 0 * ones, least * ones, most * ones, chunk)

    # -- requantization --------------------------------------------------------------------------

    def requantized(
        self,
        form: Sums,
        grid: tuple[Quantization, int],
        name: str,
        lo: float = -math.inf,
        hi: float = math.inf,
        dtype: DType = u8,
    ) -> Bytes:
        """Sums within [lo, hi] as bytes of this grid under `name`, kept as `dtype`."""
        known, top = grid
        part, scale, zero = form.parts[0], known.scale, known.zero_point
        addends: list[_Step] = []
        if len(form.parts) > 1:
            (part, addends), scale = self._added(form, name, scale, top), 1.0
        least, most = known.quantized(np.array([lo, hi]), 0, top).tolist()
        op = RequantizeShift(least, most, dtype, known.scale, zero)
        made, step = self._requantize(part, scale, zero, op, name)
        chunk = self._requantizing(step, addends)
        return Bytes(made, known, top, self.held(chunk) if dtype == u8 else chunk)

    def _requantize(
        self,
        part: Part,
        scale: float,
        zero_point: int,
        op: RequantizeShift,
        name: str,
        terms: int = 0,
    ) -> tuple[Value, _Step]:
        """A node that makes `part` integers of `scale`, and what it does with the samples; a factor
        has `terms` powers of two, where they are given."""
        made: Op = op
        affine = part.affine(scale, zero_point)
        if self.terms is None:
            operands = multiply_operands(affine, op.lo, op.hi)
            made = RequantizeMultiply(op.lo, op.hi, op.dtype, op.scale, op.zero_point)
        else:
            operands = shift_operands(affine, op.lo, op.hi, terms or self.terms)
        constants = [
            self._operand(f"{name}.{key}", a, not terms) for key, a in operands.arrays.items()
        ]
        value = self.node(made, [part.value, *constants], name)
        multiplying = RequantizeMultiply(op.lo, op.hi, op.dtype)  # the same numbers, in one way
        return value, _Step(part, multiplying, operands.multiplying)

    def _requantizing(self, last: _Step, addends: Sequence[_Step]) -> Chunk:
        """The results of `last` on the samples: of its part, or of the sum of what `addends` make.
        One program, for what lies between would pass through memory."""
        builder, given = Builder("op"), list[Chunk | Array]()

        def operand(numbers: Chunk | Array, type: TensorType) -> Value:
            given.append(numbers)
            return builder.input(f"x{len(given)}", type)

        def made(step: _Step, x: Value | None = None) -> Value:
            if x is None:
                part = step.part
                x = operand(part.chunk, replace(part.value.type, quantization=None))
            numbers = [operand(array, TensorType(i32, array.shape)) for array in step.numbers]
            return builder.add(step.op, [x, *numbers], f"y{len(given)}")[0]

        total: Value | None = None
        for step in addends:
            addend = made(step)
            if total is not None:
                addend = builder.add(Add(), [total, addend], f"sum{len(given)}")[0]
            total = addend
        run = self._engine.program(builder.finish([made(last, total)]), {})
        return lambda k: run([a if isinstance(a, np.ndarray) else a(k) for a in given])[0]

    def _operand(self, hint: str, numbers: Array, code: bool) -> Value:
        """Numbers of a requantization: one where the channels agree, as those of bytes do.

        0, 1 and the guard's are the same in all layers: these are `code`, but in a kernel that is
        one op, which takes no numbers of others.
        """
        same = set(numbers.tolist())
        if code and len(same) == 1 and same <= {0, 1, GUARD_BITS, GUARD_HALF}:
            return self._code(numbers[0])
        one = numbers[0].reshape(()) if len(same) == 1 else numbers
        return self.constant(self.fresh(hint), one, i32)

    def _code(self, number: int) -> Value:
        """A number that kernels have in them."""
        return self.builder.add(Full(float(number), (), i32), [], self.fresh("same"))[0]

    def _added(self, form: Sums, name: str, scale: float, top: int) -> tuple[Part, list[_Step]]:
        """The parts as i32 of one scale, GUARD_BITS finer than `scale`, added up: what stands for
        multiples of `scale`, and the steps whose results its integers are the sum of.
        """
        fine = scale / (1 << GUARD_BITS)
        limit = 4 * (top + 1) << GUARD_BITS
        total: Value | None = None
        steps = []
        for part in form.parts:
            op = RequantizeShift(-limit, limit, i32, fine)
            made, step = self._requantize(part, fine, 0, op, self.fresh(f"{name}.part"))
            if total is not None:
                made = self.node(Add(), [total, made], self.fresh(f"{name}.sum"))
            total = made
            steps.append(step)
        assert total is not None
        ones = np.ones(int(total.type.shape[-1]))
        most = float(limit * len(form.parts)) * ones
        factor, unasked = ones / (1 << GUARD_BITS), form.parts[0].chunk  # the steps make its own
        return Part(total, factor, 0 * ones, -most, most, unasked), steps

    def integers(self, form: Sums, largest: float, name: str) -> Integers:
        """Sums as i32 of one scale for all channels, under `name`; `largest`: of their numbers."""
        part, factors, addends = form.parts[0], form.parts[0].factor, list[_Step]()
        uniform = len(form.parts) == 1 and factors[0] > 0 and (factors == factors[0]).all()
        scale, limit = largest / OUTPUT_STEPS, OUTPUT_STEPS * HEADROOM
        if uniform:  # exact: the sums themselves, moved by an integer
            scale = float(factors[0])
            farthest = np.maximum(-part.least, part.most) + np.abs(part.constant) / scale
            limit = max(UNIFORM, min(math.ceil(farthest.max()) + 1, LIMIT))
        target = scale
        if len(form.parts) > 1:
            (part, addends), target = self._added(form, name, scale, OUTPUT_STEPS), 1.0
        op = RequantizeShift(-limit, limit, i32, scale)
        made, step = self._requantize(part, target, 0, op, name)
        return Integers(made, Quantization(scale), self._requantizing(step, addends))
