"""The integer network under construction: forms of values, and how sums become bytes again.

`docs/quantization.md` has the equations. The calibration samples run along: each form has its
integers on them, so that batch norms are moved by what quantization really did before them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from addergraph.errors import GraphError, UnsupportedError
from addergraph.ir import Array, Builder, Graph, Init, Node, Op, Parameter, Value, free_name
from addergraph.ir.quantization import Quantization
from addergraph.ir.types import DType, TensorType, i32, u8
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.fake_quantize import FakeQuantize, FakeQuantizeFilter
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift

from .calibrate import Execute, Statistics, chunks
from .fixed_point import LIMIT, Affine, multiply_operands, shift_operands

IMAGE_BITS = 8
GUARD_BITS = 6  # below one step of the bytes that a sum of several parts becomes
GUARD_HALF = 1 << (GUARD_BITS - 1)
OUTPUT_STEPS = 1 << 12  # the largest output on the calibration data, in steps of its integers
HEADROOM = 8  # how far beyond that outputs of other data may go
UNIFORM = 1 << 24  # the end of outputs that are sums themselves, unless these go farther


@dataclass(frozen=True)
class Bytes:
    """A u8 value in [0, top]: value = quantization.scale (q - zero_point)."""

    value: Value
    quantization: Quantization
    top: int
    array: Array


@dataclass(frozen=True)
class Part:
    """An i32 value q in [least, most]: factor q + constant, channel by channel (f64 [C])."""

    value: Value
    factor: Array
    constant: Array
    least: Array
    most: Array
    array: Array

    def affine(self, scale: float, zero_point: int) -> Affine:
        """How it becomes integers of another scale."""
        constant = self.constant / scale + zero_point
        return Affine(self.factor / scale, constant, self.least, self.most)

    @property
    def real(self) -> Array:
        """The numbers that it stands for on the calibration samples, f64."""
        return self.factor * self.array + self.constant


@dataclass(frozen=True)
class Sums:
    """The sum of its parts."""

    parts: tuple[Part, ...]

    @property
    def real(self) -> Array:
        total = self.parts[0].real
        for part in self.parts[1:]:
            total = total + part.real
        return total


@dataclass(frozen=True)
class Integers:
    """An i32 value of one scale, as outputs are; no layer reads it."""

    value: Value
    quantization: Quantization
    array: Array


Form = Bytes | Sums | Integers


class IntegerNetwork:
    """What the rules of `integer_rules.py` write to.

    terms       powers of two in a factor; None for integer products
    statistics  of the float network on `samples`
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Array],
        samples: Array,
        statistics: Statistics,
        bits: int,
        terms: int | None,
        reestimate: bool,
        execute: Execute,
    ) -> None:
        self.graph, self.source = graph, weights
        self.statistics, self.bits, self.terms = statistics, bits, terms
        self.reestimate = reestimate
        self.builder = Builder(graph.name)
        self.weights: dict[str, Array] = {}
        self._execute = execute
        self._forms: dict[Value, Form] = {}
        self._readers = Counter(v for n in graph.nodes for v in n.inputs) + Counter(graph.outputs)
        self._reserved = {v.name for v in graph.values()}
        self._taken: set[str] = set()
        self._output_real: list[Array] = []
        self._read_image(samples)

    def _read_image(self, samples: Array) -> None:
        (x,) = self.graph.inputs
        known, top = self._quantization(x, IMAGE_BITS)
        value = self.builder.input(x.name, TensorType(u8, x.type.shape, known))
        self._forms[x] = Bytes(value, known, top, known.quantized(samples, 0, top).astype(np.uint8))

    # -- what rules ask for ----------------------------------------------------------------------

    def parameter(self, node: Node, operand: int) -> Array:
        """The numbers of an operand that has to be a parameter."""
        value = node.inputs[operand]
        if not isinstance(value, Parameter):
            raise UnsupportedError(
                f"{node.label} reads {value}, which is computed: quantize needs a parameter there"
            )
        if value.name not in self.source:
            raise GraphError(f"{node.label}: the weights have no {value}")
        return self.source[value.name]

    def form(self, value: Value, user: Node) -> Bytes | Sums:
        """The form of an operand; UnsupportedError for a parameter or an index, which have none."""
        form = self._forms.get(value)
        if form is None:
            raise UnsupportedError(f"{user.label} reads the parameter {value} as an activation")
        if isinstance(form, Integers):
            raise UnsupportedError(f"{user.label} reads the indices {value}: let them be outputs")
        return form

    def bytes(self, value: Value, user: Node) -> Bytes:
        """An operand as bytes."""
        form = self.form(value, user)
        if isinstance(form, Sums):
            form = self.requantized(form, value, self.fresh(f"{value.name}.bytes"))
            self._forms[value] = form
        return form

    def sums(self, value: Value, user: Node) -> Sums:
        """An operand as sums; bytes become i32 without a change."""
        form = self.form(value, user)
        if isinstance(form, Sums):
            return form
        made = self.node(Cast(i32), [form.value], self.fresh(f"{value.name}.wide"))
        channels = np.ones(int(form.value.type.shape[-1]))
        scale, zero = form.quantization.scale, form.quantization.zero_point
        part = Part(
            made, scale * channels, -scale * zero * channels, 0 * channels, form.top * channels,
            form.array.astype(np.int32),
        )  # fmt: skip
        return Sums((part,))

    def set(self, value: Value, form: Form) -> None:
        """From here on `form` is that of the float network's `value`."""
        self._forms[value] = form

    def forget(self, node: Node) -> None:
        """Drops forms that no later node reads: their arrays are large."""
        self._readers.subtract(node.inputs)
        for v in node.inputs:
            if self._readers[v] <= 0:
                self._forms.pop(v, None)

    # -- what rules write ------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A name that no value of the float network has, or will have here."""
        name = free_name(hint, self._reserved)
        self._reserved.add(name)
        return name

    def node(self, op: Op, operands: Sequence[Value], name: str) -> Value:
        """Appends a node under `name`."""
        types = op.infer(*(v.type for v in operands))
        (made,) = self.builder.add(op, operands, [Value(name, types[0])])
        self._taken.add(name)
        return made

    def constant(
        self, name: str, array: Array, dtype: DType, quantization: Quantization | None = None
    ) -> Parameter:
        """A parameter of the integer network with its numbers."""
        type = TensorType(dtype, array.shape, quantization)
        self.weights[name] = array.astype(dtype.numpy)
        made = self.builder.parameter(Parameter(name, type, Init(), trainable=False))
        assert isinstance(made, Parameter)
        return made

    def run(self, op: Op, operands: Sequence[tuple[Value, Array]]) -> Array:
        """The results of one op on the calibration samples; later operands are constants."""
        builder = Builder("layer")
        (x, samples), *rest = operands
        values = [builder.input("x", x.type)]
        values += [builder.parameter(Parameter(v.name, v.type)) for v, _ in rest]
        layer = builder.finish(builder.add(op, values, "y"))
        weights = {v.name: a for v, a in rest}
        return np.concatenate([self._execute(layer, weights, [x])[0] for x in chunks(samples)])

    def requantized(self, form: Sums, value: Value, name: str) -> Bytes:
        """Sums as bytes under `name`, on the range of the float `value`.

        Behind a relu that begins at 0.0, so that the least byte is its zero.
        """
        known, top = self._quantization(value, self.bits)
        part, scale, zero = form.parts[0], known.scale, known.zero_point
        if len(form.parts) > 1:
            part, scale = self._added(form, name, scale, top), 1.0
        op = RequantizeShift(0, top, u8, known.scale, zero)
        made, array = self._requantize(part, scale, zero, op, name)
        return Bytes(made, known, top, array)

    def finish(self) -> tuple[Graph, dict[str, Array]]:
        """The integer graph and its numbers; sums at its outputs become i32 of one scale."""
        outputs = []
        for v in self.graph.outputs:
            form = self._forms.get(v)
            if form is None:
                raise UnsupportedError(f"output {v} is a parameter, which has no integer form")
            if isinstance(form, Sums):
                taken = v.name in self._taken
                name = self.fresh(f"{v.name}.output") if taken else v.name
                form = self.integers(form, v, name)
            outputs.append(form.value)
            self._output_real.append(form.quantization.values(form.array))
        return self.builder.finish(outputs), self.weights

    def output_error(self) -> float:
        """How far the outputs are from the float ones on the samples, as a share of their rms."""
        off = total = 0.0
        for real, expected in zip(self._output_real, self.statistics.outputs, strict=True):
            off += float(np.square(real - expected).sum())
            total += float(np.square(expected.astype("f8")).sum())
        return float(np.sqrt(off / total)) if total else float(np.sqrt(off))

    def filter_bits(self, f: Value) -> int:
        """Bits of a filter of products: as the graph was trained, else those of the network."""
        op = self.statistics.stated.get(f.name)
        return op.bits if isinstance(op, FakeQuantizeFilter) else self.bits

    # -- requantization --------------------------------------------------------------------------

    def _quantization(self, value: Value, bits: int) -> tuple[Quantization, int]:
        """What bytes of a float value stand for, and the largest: as the graph was trained, else
        on the value's range with so many bits."""
        op = self.statistics.stated.get(value.name)
        if isinstance(op, FakeQuantize):
            return op.known, op.top
        top = (1 << bits) - 1
        return Quantization.of_range(*self.statistics.ranges[value.name], top), top

    def _requantize(
        self, part: Part, scale: float, zero_point: int, op: RequantizeShift, name: str
    ) -> tuple[Value, Array]:
        """A node that makes `part` integers of `scale`, and its results on the samples."""
        made: Op = op
        affine = part.affine(scale, zero_point)
        if self.terms is None:
            operands = multiply_operands(affine, op.lo, op.hi)
            made = RequantizeMultiply(op.lo, op.hi, op.dtype, op.scale, op.zero_point)
        else:
            operands = shift_operands(affine, op.lo, op.hi, self.terms)
        constants = [self._operand(f"{name}.{key}", a) for key, a in operands.arrays.items()]
        value = self.node(made, [part.value, *constants], name)
        (array,) = made.reference(part.array, *operands.arrays.values())
        return value, array

    def _operand(self, hint: str, numbers: Array) -> Value:
        """Numbers of a requantization: one where the channels agree, as those of bytes do.

        0, 1 and the guard's are the same in all layers: these are code.
        """
        same = set(numbers.tolist())
        if len(same) == 1 and same <= {0, 1, GUARD_BITS, GUARD_HALF}:
            return self.builder.add(Full(float(numbers[0]), (), i32), [], self.fresh("same"))[0]
        one = numbers[0].reshape(()) if len(same) == 1 else numbers
        return self.constant(self.fresh(hint), one, i32)

    def _added(self, form: Sums, name: str, scale: float, top: int) -> Part:
        """The parts as i32 of one scale, GUARD_BITS finer than `scale`, added up.

        The result stands for multiples of `scale`.
        """
        fine = scale / (1 << GUARD_BITS)
        limit = 4 * (top + 1) << GUARD_BITS
        total: tuple[Value, Array] | None = None
        for part in form.parts:
            op = RequantizeShift(-limit, limit, i32, fine)
            made, array = self._requantize(part, fine, 0, op, self.fresh(f"{name}.part"))
            if total is not None:
                made = self.node(Add(), [total[0], made], self.fresh(f"{name}.sum"))
                array = total[1] + array
            total = made, array
        assert total is not None
        ones = np.ones(int(total[0].type.shape[-1]))
        most = float(limit * len(form.parts)) * ones
        return Part(total[0], ones / (1 << GUARD_BITS), 0 * ones, -most, most, total[1])

    def integers(self, form: Sums, value: Value, name: str) -> Integers:
        """Sums as i32 of one scale for all channels, under `name`."""
        part, factors = form.parts[0], form.parts[0].factor
        uniform = len(form.parts) == 1 and factors[0] > 0 and (factors == factors[0]).all()
        largest = max(map(abs, self.statistics.ranges[value.name])) or 1.0
        scale, limit = largest / OUTPUT_STEPS, OUTPUT_STEPS * HEADROOM
        if uniform:  # exact: the sums themselves, moved by an integer
            scale = float(factors[0])
            farthest = np.maximum(-part.least, part.most) + np.abs(part.constant) / scale
            limit = max(UNIFORM, min(math.ceil(farthest.max()) + 1, LIMIT))
        target = scale
        if len(form.parts) > 1:
            part, target = self._added(form, name, scale, OUTPUT_STEPS), 1.0
        op = RequantizeShift(-limit, limit, i32, scale)
        made, array = self._requantize(part, target, 0, op, name)
        return Integers(made, Quantization(scale), array)


def scaled(form: Sums, factor: Array, constant: Array) -> Sums:
    """factor (the sums) + constant, channel by channel; no integer changes."""
    parts = [replace(p, factor=p.factor * factor, constant=p.constant * factor) for p in form.parts]
    parts[0] = replace(parts[0], constant=parts[0].constant + constant)
    return Sums(tuple(parts))
