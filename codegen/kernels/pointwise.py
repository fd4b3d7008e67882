"""Pointwise kernels: one op, or a fused group of them, in one pass over the iteration shape.

    Y[i] = op(A[i], B[i], ...)        every operand broadcast to the result's shape by NumPy's rule

Each element is rounded as the op's docstring says, operation by operation (no FMA, no fast-math),
so the bits depend neither on ISA nor on threads. Tails are masked; lanes past the tail compute on
zeros, which no op here traps on. Work is split by `_nest`: a result may share the buffer of an
equally laid out operand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from addergraph.errors import CodegenError
from addergraph.ir import Builder, Graph, Op, Value
from addergraph.ir.types import DType, bool_, f32, i8, i32
from addergraph.ops._elementwise import INTEGER_BOUNDS
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.clip import Clip
from addergraph.ops.pointwise.fake_quantize import FakeQuantize
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.greater import Greater
from addergraph.ops.pointwise.relu import LeakyRelu, Relu, Relu6
from addergraph.ops.pointwise.replica_mean import ReplicaMean
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from addergraph.ops.pointwise.select import Select
from addergraph.ops.pointwise.unary import Abs, Exp, Log, Neg, Sigmoid, Sqrt, Tanh

from ..emit.builder import (
    F32,
    F64,
    I32,
    Emitter,
    Register,
    constant,
    element_type,
    type_suffix,
    vector,
)
from . import Kernel, kernel
from ._nest import access, emit_nest
from .math import emit_exp, emit_log, emit_sigmoid, emit_tanh


def emit_pointwise(
    e: Emitter, op: Op, args: Sequence[Register], dtypes: Sequence[DType], lanes: int
) -> Register:
    """The result of a pointwise `op` on registers of `lanes` elements of `dtypes`."""
    rule = _RULES.get(type(op))
    if rule is None:
        raise CodegenError(f'op "{op.name}" has no native pointwise rule')
    return rule(_Context(e, op, dtypes, lanes), *args)


def emit_body(e: Emitter, body: Graph, env: Mapping[Value, Register], lanes: int) -> list[Register]:
    """The outputs of `body`, given registers for its inputs (and any nodes already computed)."""
    known = dict(env)
    for node in body.nodes:
        if node.outputs[0] not in known:
            args = [known[v] for v in node.inputs]
            dtypes = [v.type.dtype for v in node.inputs]
            known[node.outputs[0]] = emit_pointwise(e, node.op, args, dtypes, lanes)
    return [known[v] for v in body.outputs]


# -- what each op does to registers --------------------------------------------------------------


class _Context:
    """What a rule may ask for beside its operands."""

    def __init__(self, e: Emitter, op: Any, dtypes: Sequence[DType], lanes: int) -> None:
        self.e, self.b, self.op, self.lanes = e, e.b, op, lanes
        self.dtypes = dtypes

    @property
    def floating(self) -> bool:
        return self.dtypes[0] == f32

    def number(self, value: float) -> Register:
        """`value` rounded to f32 (and to infinity beyond it)."""
        with np.errstate(over="ignore"):
            return self.e.number(float(np.float32(value)), self.lanes)

    def zero(self, dtype: DType) -> Register:
        return constant(vector(element_type(dtype), self.lanes), 0)


Rule = Callable[..., Register]


def _relu(c: _Context, x: Register) -> Register:
    zero = c.number(0.0)
    return c.e.call("fabs", c.b.select(c.b.fcmp_ordered("<", x, zero), zero, x))


def _relu6(c: _Context, x: Register) -> Register:
    y, most = _relu(c, x), c.number(6.0)
    return c.b.select(c.b.fcmp_ordered(">", y, most), most, y)


def _leaky_relu(c: _Context, x: Register) -> Register:
    scaled = c.b.fmul(x, c.number(c.op.slope))
    return c.b.select(c.b.fcmp_ordered(">", x, c.number(0.0)), x, scaled)


def _neg(c: _Context, x: Register) -> Register:
    return c.b.fneg(x) if c.floating else c.b.neg(x)


def _abs(c: _Context, x: Register) -> Register:
    if c.floating:
        return c.e.call("fabs", x)
    return c.b.select(c.b.icmp_signed("<", x, c.zero(i32)), c.b.neg(x), x)


def _clip(c: _Context, x: Register) -> Register:
    lo, hi = c.number(c.op.lo), c.number(c.op.hi)
    above = c.b.select(c.b.fcmp_ordered(">", x, hi), hi, x)
    return c.b.select(c.b.fcmp_ordered("<", x, lo), lo, above)


ROUND = 1.5 * 2.0**52  # (t + ROUND) - ROUND is t rounded to an integer, ties to even, for small t


def whole(e: Emitter, steps: Register) -> Register:
    """f64 numbers below 2^51 rounded to integers, ties to even; no -0.0."""
    places = constant(steps.type, ROUND)
    return e.b.fsub(e.b.fadd(steps, places), places)


def _fake_quantize(c: _Context, x: Register) -> Register:
    b, op = c.b, c.op
    low, high, scale = (
        constant(vector(F64, c.lanes), value)
        for value in (-op.zero_point, op.top - op.zero_point, op.scale)
    )
    steps = b.fdiv(c.e.widen(x), scale)
    below, above = b.fcmp_ordered("<", steps, low), b.fcmp_ordered(">", steps, high)
    held = b.select(below, low, b.select(above, high, steps))
    y = c.e.narrow(b.fmul(scale, whole(c.e, held)))
    return y if op.saturate else b.select(b.or_(below, above), x, y)


def _arithmetic(name: str) -> Rule:
    """`add`, `sub`, `mul` of floats or of integers, which wrap."""

    def rule(c: _Context, x: Register, y: Register) -> Register:
        return getattr(c.b, f"f{name}" if c.floating else name)(x, y)

    return rule


def _extreme(sign: str) -> Rule:
    """a where `a sign b` holds or a is NaN, otherwise b."""

    def rule(c: _Context, x: Register, y: Register) -> Register:
        if not c.floating:
            return c.b.select(c.b.icmp_signed(sign, x, y), x, y)
        wins = c.b.or_(c.b.fcmp_ordered(sign, x, y), c.b.fcmp_unordered("uno", x, x))
        return c.b.select(wins, x, y)

    return rule


def _greater(c: _Context, x: Register, y: Register) -> Register:
    return c.b.fcmp_ordered(">", x, y) if c.floating else c.b.icmp_signed(">", x, y)


def _full(c: _Context) -> Register:
    if c.op.dtype == f32:
        return c.number(c.op.value)
    return constant(vector(element_type(c.op.dtype), c.lanes), int(c.op.value))


def _batch_norm(
    c: _Context, x: Register, mean: Register, variance: Register, gamma: Register, beta: Register
) -> Register:
    spread = c.e.call("sqrt", c.b.fadd(variance, c.number(c.op.epsilon)))
    scale = c.b.fdiv(gamma, spread)
    return c.b.fadd(c.b.fmul(c.b.fsub(x, mean), scale), beta)


def _saturated(c: _Context, x: Register, to: DType) -> Register:
    """x in the range of bytes, NaN as 0. LLVM takes its own saturating conversion to bytes apart
    into scalars."""
    b, (low, high) = c.b, INTEGER_BOUNDS[to]
    least, most, zero = (c.e.number(value, c.lanes) for value in (low, high, 0.0))
    x = b.select(b.fcmp_ordered("ord", x, x), x, zero) if low else x
    x = b.select(b.fcmp_ordered(">", x, least), x, least)
    return b.select(b.fcmp_ordered("<", x, most), x, most)


def _cast(c: _Context, x: Register) -> Register:
    b, (source,), to = c.b, c.dtypes, c.op.dtype
    if source == to:
        return x
    made = vector(element_type(to), c.lanes)
    if to == bool_:
        zero = c.zero(source)
        return b.fcmp_unordered("!=", x, zero) if c.floating else b.icmp_unsigned("!=", x, zero)
    if to == f32:
        return (b.sitofp if source in (i32, i8) else b.uitofp)(x, made)
    if source == f32:  # truncates and saturates, NaN gives 0
        if to == i32:
            name = f"llvm.fptosi.sat.{type_suffix(made)}.{type_suffix(x.type)}"
            return b.call(c.e.intrinsic(name, made, [vector(F32, c.lanes)]), [x])
        return b.trunc(b.fptosi(_saturated(c, x, to), vector(I32, c.lanes)), made)
    if source == bool_:
        return b.zext(x, made)
    if to != i32:
        return b.trunc(x, made) if source == i32 else x
    return (b.sext if source == i8 else b.zext)(x, made)


def _requantize_shift(c: _Context, x: Register, *channels: Register) -> Register:
    """-t is (t ^ -1) - -1. What is subtracted goes into the offset, so that what a term costs each
    pixel are a shift, an exclusive or and an addition: the rest is the same for all of them."""
    center, total, shift, *terms = channels
    b, t, moves = c.b, c.b.add(x, center), []
    for term in terms:
        type = term.type
        sign = b.ashr(term, constant(type, 31))
        size = b.sub(b.xor(term, sign), sign)
        places = b.and_(b.sub(size, constant(type, 1)), constant(type, 31))
        no_term = b.icmp_signed("==", term, c.zero(i32))
        moves.append((b.select(no_term, constant(type, 32), places), sign))
        total = b.sub(total, sign)
    for places, sign in moves:
        total = b.add(total, b.xor(c.e.shift_left(t, places), sign))
    return _requantized(c, total, shift)


def _requantize_multiply(
    c: _Context, x: Register, center: Register, offset: Register, shift: Register, by: Register
) -> Register:
    return _requantized(c, c.b.add(c.b.mul(c.b.add(x, center), by), offset), shift)


def _requantized(c: _Context, total: Register, shift: Register) -> Register:
    b, dtype = c.b, c.op.dtype
    value = b.ashr(total, b.and_(shift, constant(shift.type, 31)))
    value = c.e.call("smax", value, constant(value.type, c.op.lo))
    value = c.e.call("smin", value, constant(value.type, c.op.hi))
    return value if dtype == i32 else b.trunc(value, vector(element_type(dtype), c.lanes))


_RULES: dict[type[Op], Rule] = {
    Relu: _relu,
    Relu6: _relu6,
    LeakyRelu: _leaky_relu,
    Neg: _neg,
    Abs: _abs,
    Exp: lambda c, x: emit_exp(c.e, x),
    Log: lambda c, x: emit_log(c.e, x),
    Sqrt: lambda c, x: c.e.call("sqrt", x),
    Sigmoid: lambda c, x: emit_sigmoid(c.e, x),
    Tanh: lambda c, x: emit_tanh(c.e, x),
    Clip: _clip,
    FakeQuantize: _fake_quantize,
    Cast: _cast,
    Add: _arithmetic("add"),
    Sub: _arithmetic("sub"),
    Mul: _arithmetic("mul"),
    Div: lambda c, x, y: c.b.fdiv(x, y),
    Maximum: _extreme(">"),
    Minimum: _extreme("<"),
    Greater: _greater,
    Select: lambda c, condition, x, y: c.b.select(condition, x, y),
    Full: _full,
    ReplicaMean: lambda c, x: x,
    BatchNorm: _batch_norm,
    RequantizeShift: _requantize_shift,
    RequantizeMultiply: _requantize_multiply,
}


# -- the kernel ----------------------------------------------------------------------------------


@kernel(*_RULES)
class PointwiseKernel(Kernel):
    """A pointwise op, or the body of a `fused` that has no contraction."""

    @property
    def body(self) -> Graph:
        """The fused body, or the one op as a body."""
        if self.call.op.subgraph is not None:
            return self.call.op.subgraph
        builder = Builder("body")
        operands = [builder.input(f"a{i}", o.type) for i, o in enumerate(self.call.inputs)]
        return builder.finish(builder.add(self.call.op, operands))

    @property
    def in_place(self) -> bool:
        return True

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        body, call = self.body, self.call
        shape = call.outputs[0].shape

        def compute(registers: list[Register], lanes: int) -> list[Register]:
            return emit_body(e, body, dict(zip(body.inputs, registers, strict=True)), lanes)

        reads = [access(o, p, shape) for o, p in zip(call.inputs, inputs, strict=True)]
        writes = [access(o, p, shape) for o, p in zip(call.outputs, outputs, strict=True)]
        emit_nest(e, shape, reads, writes, compute)
