"""The terms that contractions sum, and how their sum becomes the result.

    term          x, f       added for each x and f    result; acc is the sum
    DIRECT        f32        |x - f|                   0 - acc
    MINIMUM       f32        min(x, f+)                ((acc + acc) - sum x) - sum|f|
    PRODUCT       f32        x * f                     acc
    BYTES         u8, u8     |x - f|                   0 - acc
    BYTE_PRODUCT  u8, i8     x * f                     acc
    BYTE_DOT      u8, i8     (x - 128) * f             acc, from 128 * sum f on

f+ = max(f, 0); every x of MINIMUM is at least 0. Terms of f32 are added one by one to a register of
sums, in an order that is part of the result's definition; PRODUCT uses FMA where there is one.

Terms of bytes come in steps: several bytes of a pixel, broadcast, and as many of the filter for
each channel, make one number per lane. Their sums are exact in i32, in any order. Distances: x86's
psadbw sums eight in a 64-bit lane; ARM's uabd makes sixteen, which uadalp adds in pairs to 16-bit
lanes, and those are widened after 128 steps at the latest; or, where there are dot products, udot
by ones in fours to 32-bit lanes. WebAssembly takes as many
instructions for the larger less the smaller byte, adds pairs in 16 bits, and widens after some
steps only. Products, four at a time: even and odd bytes become 16-bit numbers, whose products x86's
pmaddwd adds in pairs, in 32 bits, as WebAssembly's dot; ARM's mul keeps them in 16, and saddlp adds
them. (x86's pmaddubsw, which takes bytes as they are, saturates its sums at 16 bits: not exact.)
ARM's sdot multiplies signed bytes, so there x loses 128, and the sums of a kernel row of f make up
for it. Where an instruction adds up a whole register (usada8 and smlad four bytes, vabav and vmlava
sixteen), a register has bytes of one channel, and a sum is a number. Elsewhere a step is one byte,
which is widened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array, Op
from addergraph.ir.types import DType, f32, u8

from ...emit.builder import F32, I8, I16, I32, I64, Emitter, Register, constant, vector
from ...targets.target import Target, WholeSums

SATURATING_STEPS = 65535 // (8 * 255)  # of eight distances, whose sums 16 bits hold


@dataclass(frozen=True)
class Sums:
    """What the result of MINIMUM needs beside its terms: a pointer at sum x of the output's window,
    or a register of the sums of each lane's own, and a register of sum|f|."""

    window: Any = None
    magnitudes: Register | None = None
    inputs: Register | None = None


class Term(ABC):
    """One kind of term.

    label           of it in the names of kernels
    number          dtype of the numbers of a packed filter
    skips_padding   whether kernel rows in the padding are left out, because their terms are zeros
                    or, where there are `magnitudes`, known sums
    magnitudes      whether sums of |f| are packed with a filter
    joins_steps     whether several steps of a loop may be taken at once, pixel by pixel
    row_sums        which kernel rows' packed sums are added, of those that a tile has: those that
                    it leaves out, or those that it takes
    """

    label: ClassVar[str]
    number: ClassVar[DType]
    skips_padding: ClassVar[bool] = False
    magnitudes: ClassVar[bool] = False
    joins_steps: ClassVar[bool] = False
    row_sums: ClassVar[Literal["left out", "taken"]] = "left out"

    @abstractmethod
    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        """The result without a bias, in a register of `lanes`."""

    @abstractmethod
    def plus(self, e: Emitter, value: Register, bias: Register) -> Register:
        """The result with a bias."""

    @abstractmethod
    def none(self, target: Target, lanes: int) -> Register:
        """A register of sums before the first term."""

    @abstractmethod
    def magnitude(self, e: Emitter, f: Register, total: Register) -> Register:
        """`total` plus the sum of |f| of one step."""

    def packed_sum(self, e: Emitter, total: Register) -> Register:
        """A sum of |f| as it is packed: 4 bytes for each channel."""
        return total

    def sums_of(self, f: Array, axes: tuple[int, ...]) -> Array:
        """What `magnitude` adds up, in NumPy: i32, of terms of bytes."""
        sums: Array = f.sum(axes, np.int32)
        return sums

    def kept(self, e: Emitter, f: Register) -> Register:
        """What is packed of a filter. `kept_of` is the same in NumPy."""
        return f

    def kept_of(self, f: Array) -> Array:
        return f


class SplitTerm(Term):
    """A term that is made by one instruction and added by another, between which there may be
    others."""

    joins_steps = True

    @abstractmethod
    def made(self, e: Emitter, x: Register, f: Register) -> Register:
        """The term of x and f."""

    @abstractmethod
    def summed(self, e: Emitter, acc: Register, made: Register) -> Register:
        """acc plus what was made."""


# -- f32 -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FloatTerm(Term):
    number = f32

    @abstractmethod
    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        """acc plus the term of x and f."""

    def plus(self, e: Emitter, value: Register, bias: Register) -> Register:
        return e.b.fadd(value, bias)

    def none(self, target: Target, lanes: int) -> Register:
        return constant(vector(F32, lanes), 0.0)

    def magnitude(self, e: Emitter, f: Register, total: Register) -> Register:
        return e.b.fadd(total, e.call("fabs", f))


class SplitFloatTerm(FloatTerm, SplitTerm):
    def summed(self, e: Emitter, acc: Register, made: Register) -> Register:
        return e.b.fadd(acc, made)

    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        return self.summed(e, acc, self.made(e, x, f))


@dataclass(frozen=True)
class Direct(SplitFloatTerm):
    label = "direct_f32"

    def made(self, e: Emitter, x: Register, f: Register) -> Register:
        return e.call("fabs", e.b.fsub(x, f))

    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        return e.b.fsub(e.number(0.0, lanes), acc)


@dataclass(frozen=True)
class Minimum(SplitFloatTerm):
    label = "minimum_f32"
    skips_padding = magnitudes = True

    def made(self, e: Emitter, x: Register, f: Register) -> Register:
        return e.non_negative_min(f, x)

    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        sum_x = sums.inputs
        if sum_x is None:
            sum_x = e.splat(e.load(sums.window), lanes)
        return e.b.fsub(e.b.fsub(e.b.fadd(acc, acc), sum_x), sums.magnitudes)

    def kept(self, e: Emitter, f: Register) -> Register:
        zero = constant(f.type, 0.0)
        return e.b.select(e.b.fcmp_ordered(">", f, zero), f, zero)

    def kept_of(self, f: Array) -> Array:
        return np.where(f > 0, f, np.float32(0))


@dataclass(frozen=True)
class Product(FloatTerm):
    label = "f32"

    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        return e.fma(x, f, acc)

    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        return acc


# -- bytes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByteTerm(Term):
    label, number = "u8", u8
    skips_padding = True

    @abstractmethod
    def step(self, target: Target) -> int:
        """Bytes of one channel that a step takes."""

    @abstractmethod
    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        """acc plus one number per channel: the sum of its terms in one step."""

    def wide(self, target: Target) -> Any:
        """The integers that sums are made in."""
        return I32

    def lanes(self, target: Target) -> int:
        """Channels of one register of sums."""
        return 1 if target.whole_sums else target.lanes

    def bytes_type(self, target: Target) -> Any:
        """The register of the bytes of a step, for all of its channels."""
        if target.whole_sums and target.whole_sums.width == 4:
            return I32  # a general register
        return vector(I8, self.lanes(target) * self.step(target))

    def short_steps(self, target: Target) -> int:
        """Steps that may be added to a `short` register of sums; 0 where there is none."""
        return 0

    def short(self, e: Emitter) -> Register:
        """A register of sums of 16 bits before the first term."""
        return constant(vector(I16, 2 * e.target.lanes), 0)

    def with_short(self, e: Emitter, acc: Register, short: Register) -> Register:
        """acc plus what a `short` register holds, two sums for each channel."""
        return e.b.add(acc, e.converted(e.target.signed_pair_sums, acc.type, short))

    def plus(self, e: Emitter, value: Register, bias: Register) -> Register:
        return e.b.add(value, bias)

    def pixel(self, e: Emitter, x: Register) -> Register:
        """The bytes of a pixel as `added` takes them."""
        return x

    def none(self, target: Target, lanes: int) -> Register:
        return constant(vector(self.wide(target), lanes), 0)

    def magnitude(self, e: Emitter, f: Register, total: Register) -> Register:
        bytes = e.b.bitcast(f, self.bytes_type(e.target))
        return self.added(e, constant(bytes.type, 0), bytes, total)

    def packed_sum(self, e: Emitter, total: Register) -> Register:
        made = vector(I32, self.lanes(e.target))
        return total if total.type == made else e.b.trunc(total, made)


@dataclass(frozen=True)
class ByteDistance(ByteTerm, SplitTerm):
    magnitudes = True

    def step(self, target: Target) -> int:
        if target.whole_sums:
            return target.whole_sums.width
        return 8 if target.byte_distances else 4 if target.pair_sums else 1

    def short_steps(self, target: Target) -> int:
        if target.byte_dot:
            return 0  # it adds to 32 bits
        return SATURATING_STEPS if _saturates(target) else target.short_sums

    def short(self, e: Emitter) -> Register:
        zero = super().short(e)
        # Where LLVM sees that nothing saturates, it takes plain additions.
        return e.keep_value(zero) if _saturates(e.target) else zero

    def with_short(self, e: Emitter, acc: Register, short: Register) -> Register:
        """psadbw leaves the other three quarters of its lanes zero."""
        if _saturates(e.target):
            return e.b.add(acc, e.b.bitcast(short, acc.type))
        if 2 * 255 * e.target.short_sums >= 1 << 15:  # sums of 16 bits without a sign
            return e.b.add(acc, e.converted(e.target.pair_sums, acc.type, short))
        return super().with_short(e, acc, short)

    def wide(self, target: Target) -> Any:
        """psadbw's lanes are 64 bits wide."""
        return I64 if target.byte_distances else I32

    def lanes(self, target: Target) -> int:
        return target.lanes // 2 if target.byte_distances else super().lanes(target)

    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        if e.target.whole_sums:
            return _summed(e, e.target.whole_sums.distances, x, f, acc)
        if name := e.target.byte_distances:
            lanes = vector(I64, self.lanes(e.target))
            sums = e.b.call(e.intrinsic(name, lanes, [x.type] * 2), [x, f])
            if acc.type == lanes:
                return e.b.add(acc, sums)
            return e.call("uadd.sat", acc, e.b.bitcast(sums, acc.type))
        if e.target.lanes == 1:
            difference = e.b.sub(e.b.zext(x, acc.type), e.b.zext(f, acc.type))
            return e.b.add(acc, e.call("smax", difference, e.b.neg(difference)))
        return self.summed(e, acc, self.made(e, x, f))

    def made(self, e: Emitter, x: Register, f: Register) -> Register:
        return e.b.sub(e.call("umax", x, f), e.call("umin", x, f))

    def summed(self, e: Emitter, acc: Register, made: Register) -> Register:
        if name := e.target.byte_dot:
            return e.converted(name, acc.type, acc, made, constant(made.type, 1))
        if not e.target.pair_sums:
            return e.b.add(acc, e.b.zext(made, acc.type))
        pairs = vector(I16, 2 * e.target.lanes)
        sums = e.converted(e.target.pair_sums, pairs, made)
        if acc.type == pairs:
            return e.b.add(acc, sums)
        if name := e.target.added_pair_sums:
            return e.converted(name, acc.type, acc, sums)
        return e.b.add(acc, e.converted(e.target.pair_sums, acc.type, sums))

    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        return e.b.neg(acc)


@dataclass(frozen=True)
class ByteProduct(ByteTerm):
    def step(self, target: Target) -> int:
        if target.whole_sums:
            return target.whole_sums.width
        return 4 if target.pair_products or target.pair_sums else 1

    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        if self.step(e.target) == 1:
            return e.b.add(acc, e.b.mul(e.b.zext(x, acc.type), e.b.sext(f, acc.type)))
        if sums := e.target.whole_sums:
            for half in (0, 1):
                a, b = _widened(e, sums, x, half, 0), _widened(e, sums, f, half, 1)
                acc = _summed(e, sums.products, a, b, acc)
            return acc
        pairs = vector(I16, 2 * self.lanes(e.target))
        x, f, byte = e.b.bitcast(x, pairs), e.b.bitcast(f, pairs), constant(pairs, 8)
        even = e.b.and_(x, constant(pairs, 255)), e.b.ashr(e.b.shl(f, byte), byte)
        odd = e.b.lshr(x, byte), e.b.ashr(f, byte)
        return e.b.add(acc, e.b.add(self._pairs(e, *even), self._pairs(e, *odd)))

    def _pairs(self, e: Emitter, a: Register, b: Register) -> Register:
        """a * b of neighbours, added up: a u8 and an i8, whose product 16 bits hold."""
        made = vector(I32, self.lanes(e.target))
        if name := e.target.pair_products:
            return e.b.call(e.intrinsic(name, made, [a.type] * 2), [a, b])
        return e.converted(e.target.signed_pair_sums, made, e.b.mul(a, b))

    def result(self, e: Emitter, acc: Register, lanes: int, sums: Sums) -> Register:
        return acc


@dataclass(frozen=True)
class ByteDot(ByteProduct):
    magnitudes = joins_steps = True
    row_sums = "taken"

    def step(self, target: Target) -> int:
        return 4

    def pixel(self, e: Emitter, x: Register) -> Register:
        return e.b.xor(x, constant(x.type, 128))

    def added(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        return e.converted(e.target.signed_byte_dot, acc.type, acc, x, f)

    def magnitude(self, e: Emitter, f: Register, total: Register) -> Register:
        """`total` plus 128 times the sum of f of one step."""
        bytes = e.b.bitcast(f, vector(I8, 4 * e.target.lanes))
        lost = self.added(e, constant(bytes.type, -128), bytes, constant(total.type, 0))
        return e.b.sub(total, lost)

    def sums_of(self, f: Array, axes: tuple[int, ...]) -> Array:
        return 128 * super().sums_of(f.view(np.int8), axes)


def _saturates(target: Target) -> bool:
    """Whether distances of bytes are added with saturation, which never happens."""
    return bool(target.byte_distances) and target.rates.saturating_sums


def _summed(
    e: Emitter, primitive: tuple[str | int, ...], x: Register, f: Register, acc: Register
) -> Register:
    """acc plus all terms of two registers, by a primitive of WholeSums."""
    name, *parts = primitive
    known = {"x": x, "f": f, "sum": acc}
    values = [known[p] if isinstance(p, str) else constant(I32, p) for p in parts]
    return e.b.call(e.intrinsic(str(name), I32, [v.type for v in values]), values)


def _widened(e: Emitter, sums: WholeSums, value: Register, odd: int, signed: int) -> Register:
    """The even or the odd bytes of a register as numbers of 16 bits."""
    if name := sums.widened[signed]:
        by = constant(I32, 8)
        value = e.call("fshr", value, value, by) if odd else value
        return e.b.call(e.intrinsic(name, I32, [I32]), [value])
    half = sums.width // 2
    every = ir.Constant(ir.VectorType(I32, half), list(range(odd, sums.width, 2)))
    bytes = e.b.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), every)
    return (e.b.sext if signed else e.b.zext)(bytes, vector(I16, half))


DIRECT, MINIMUM, PRODUCT = Direct(), Minimum(), Product()
BYTES, BYTE_PRODUCT, BYTE_DOT = ByteDistance(), ByteProduct(), ByteDot()


def measures_distance(op: Op) -> bool:
    """Of a layer's op, or of that of one of its gradients."""
    return (op.gradient_of or op).measures_distance


def term_of(op: Any, dtype: DType, target: Target) -> Term:
    """The term of a forward layer whose input has this dtype."""
    if not op.measures_distance:
        of_bytes = BYTE_DOT if target.signed_byte_dot else BYTE_PRODUCT
        return of_bytes if dtype == u8 else PRODUCT
    if dtype == u8:
        return BYTES
    return MINIMUM if op.input_nonnegative else DIRECT
