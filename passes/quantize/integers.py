"""The integer network under construction: u8 and i32 ops for each op of the float network.

`docs/quantization.md` has the equations. The calibration samples run along, op by op: each form
gives its integers on them, so that batch norms are moved by what quantization really did before
them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np

from addergraph.errors import GraphError, UnsupportedError
from addergraph.ir import Array, Builder, Graph, Init, Node, Op, Parameter, Value, free_name
from addergraph.ir.attributes import DEFAULT_BITS, FULL_PRECISION, Padding
from addergraph.ir.quantization import Quantization, symmetric
from addergraph.ir.types import DType, TensorType, i8, i32, u8
from addergraph.ops.movement.lookup import BYTES, Lookup
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.fake_quantize import FakeQuantize
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.sum_pool2d import SumPool2d
from addergraph.quantization import QuantizationSettings

from .calibrate import Engine, Moments, Statistics, chunks
from .fixed_point import LIMIT, multiply_operands, shift_operands
from .forms import Bytes, Chunk, Form, Integers, Part, Sums
from .image import IMAGE_BITS, PIXEL, grid_of_bytes, table_of
from .rules import RULES, Emitter, Factors, Rule, f32, not_computed

GUARD_BITS = 6  # below one step of the bytes that a sum of several parts becomes
GUARD_HALF = 1 << (GUARD_BITS - 1)
OUTPUT_STEPS = 1 << 12  # the largest output on the calibration data, in steps of its integers
HEADROOM = 8  # how far beyond that outputs of other data may go
UNIFORM = 1 << 24  # the end of outputs that are sums themselves, unless these go farther

Slides = TypeVar("Slides", bound=Op)
Made = TypeVar("Made")


class IntegerEmitter(Emitter[Bytes]):
    """Writes the integer network.

    statistics  of the float network on `samples`
    terms       powers of two in a factor; None for integer multiplications
    levels      f32[C,256], what each byte of an image becomes; None where inputs are numbers
    """

    refused: ClassVar[str] = "cannot become integers; quantize knows"

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Array],
        samples: Array,
        statistics: Statistics,
        settings: QuantizationSettings,
        terms: int | None,
        engine: Engine,
        levels: Array | None = None,
    ) -> None:
        super().__init__(graph)
        self.source, self.statistics, self.terms = weights, statistics, terms
        self.bits, self.reestimate = settings.bits or DEFAULT_BITS, settings.reestimate
        self.builder = Builder(graph.name)
        self.weights: dict[str, Array] = {}
        self._engine = engine
        self._forms: dict[Value, Form] = {}
        self._readers = Counter(v for n in graph.nodes for v in n.inputs) + Counter(graph.outputs)
        self._reserved = {v.name for v in graph.values()}
        self._taken: set[str] = set()
        self._output_real: list[Array] = []
        self._read_image(samples, levels)

    def _read_image(self, samples: Array, levels: Array | None) -> None:
        (x,) = self.graph.inputs
        known, top = self._quantization(x, IMAGE_BITS)
        if levels is not None and x.name not in self.statistics.stated:
            known = grid_of_bytes(levels, known) or known
        table = None if levels is None else table_of(levels, known, top)
        stands_for = known if table is None else PIXEL
        value = self.builder.input(x.name, TensorType(u8, x.type.shape, stands_for))
        if table is not None:
            constant = self._constant(self._fresh(f"{x.name}.table"), table, u8)
            op = Lookup(known.scale, known.zero_point)
            value = self._node(op, [value, constant], self._fresh(f"{x.name}.levels"))
        parts = [*chunks(samples)]
        self._count = len(parts)
        held = self._held(lambda k: known.quantized(parts[k], 0, top).astype(np.uint8))
        self._forms[x] = Bytes(value, known, top, held)

    def write(self, node: Node) -> None:
        """Drops forms that no later node reads: their arrays are large."""
        super().write(node)
        self._readers.subtract(node.inputs)
        for v in node.inputs:
            if self._readers[v] <= 0:
                self._forms.pop(v, None)

    def finish(self) -> tuple[Graph, dict[str, Array]]:
        """The integer graph and its numbers; sums at its outputs become i32 of one scale."""
        outputs = []
        for v in self.graph.outputs:
            form = self._forms[v]
            if isinstance(form, Sums):
                taken = v.name in self._taken
                name = self._fresh(f"{v.name}.output") if taken else v.name
                form = self._integers(form, v, name)
            outputs.append(form.value)
            self._output_real.append(form.quantization.values(self._all(form.chunk)))
        return self.builder.finish(outputs), self.weights

    def output_error(self) -> float:
        """How far the outputs are from the float ones on the samples, as a share of their rms."""
        return self._error_beside(lambda y: y)

    def error_in_spread(self) -> float:
        """The same as a share of how far the float outputs are from their mean over the samples:
        outputs that share a large number may differ by little of it. inf where they do not differ
        at all; of one sample `output_error`.
        """
        same = all(len(y) > 1 and (y == y[0]).all() for y in self.statistics.outputs)
        if same:
            return math.inf
        return self._error_beside(lambda y: y - y.mean(0) if len(y) > 1 else y)

    def _error_beside(self, size: Callable[[Array], Array]) -> float:
        off = total = 0.0
        for real, expected in zip(self._output_real, self.statistics.outputs, strict=True):
            off += float(np.square(real - expected).sum())
            total += float(np.square(size(expected.astype("f8"))).sum())
        return float(np.sqrt(off / total)) if total else float(np.sqrt(off))

    # -- operands --------------------------------------------------------------------------------

    def parameter(self, node: Node, operand: int) -> Array:
        """The numbers of an operand that has to be a parameter or a constant."""
        value = node.inputs[operand]
        if value in self.constants:
            return np.full(value.type.sizes, f32(self.constants[value]))
        if not isinstance(value, Parameter):
            raise UnsupportedError(
                f"{node.label} reads {value}, which is computed: quantize needs a parameter there"
            )
        if value.name not in self.source:
            raise GraphError(f"{node.label}: the weights have no {value}")
        return self.source[value.name]

    def form(self, value: Value, user: Node) -> Bytes | Sums:
        """The form of an operand; UnsupportedError for what has none: a parameter, a number, an
        index."""
        form = self._forms.get(value)
        if form is None:
            raise UnsupportedError(not_computed(value, user))
        if isinstance(form, Integers):
            raise UnsupportedError(f"{user.label} reads the indices {value}: let them be outputs")
        return form

    def ends(self, value: Value, user: Node) -> tuple[float, float] | None:
        form = self.form(value, user)
        return form.quantization.ends(form.top) if isinstance(form, Bytes) else None

    def bytes(self, value: Value, user: Node) -> Bytes:
        form = self.form(value, user)
        if isinstance(form, Sums):
            name = self._fresh(f"{value.name}.bytes")
            form = self._requantized(form, self._grid(value), name)
            self._forms[value] = form
        return form

    def sums(self, value: Value, user: Node) -> Sums:
        """An operand as sums; bytes become i32 without a change."""
        form = self.form(value, user)
        if isinstance(form, Sums):
            return form
        made = self._node(Cast(i32), [form.value], self._fresh(f"{value.name}.wide"))
        return Sums((form.mean(made, lambda k: form.chunk(k).astype(np.int32)),))

    # -- ops -------------------------------------------------------------------------------------

    def distances(self, node: Node, x: Bytes) -> None:
        """sum |x - f| = scale sum |qx - qf| + what clamping the filter took off."""
        f = self.parameter(node, 1).astype("f8")
        scale, zero = x.quantization.scale, x.quantization.zero_point
        low, high = -scale * zero, scale * (x.top - zero)
        axes = tuple(range(f.ndim - 1))
        beyond = np.maximum(low - f, 0).sum(axes) + np.maximum(f - high, 0).sum(axes)
        constant = -beyond
        if len(node.inputs) > 2:
            constant = constant + self.parameter(node, 2)
        integers = x.quantization.quantized(f, 0, x.top).astype(np.uint8)
        name = self._fresh(f"{node.inputs[1].name}.bytes")
        taps = self._constant(name, integers, u8, x.quantization)
        op = replace(node.op, input_nonnegative=False, gradient=FULL_PRECISION)  # type: ignore[type-var]
        value, chunk = self._layer(op, x, taps, node.name)
        wide = integers.astype("i8")
        farthest = np.maximum(wide, x.top - wide).sum(axes).astype("f8")
        factor = scale * np.ones(f.shape[-1])
        part = Part(value, factor, constant, -farthest, 0.0 * factor, chunk)
        self._forms[node.outputs[0]] = Sums((part,))

    def products(self, node: Node, x: Bytes) -> None:
        """sum x f = sx sf[t] (sum qx qf - zero_point sum qf), the last a constant of f."""
        f = self.parameter(node, 1)
        integers, scale = symmetric(f, self._filter_bits(node.inputs[1]))
        axes = tuple(range(f.ndim - 1))
        taps = self._constant(self._fresh(f"{node.inputs[1].name}.bytes"), integers, i8)
        value, chunk = self._layer(node.op, x, taps, node.name)
        factor = x.quantization.scale * scale
        constant = -factor * x.quantization.zero_point * integers.sum(axes)
        if len(node.inputs) > 2:
            constant = constant + self.parameter(node, 2)
        least, most = (x.top * side(integers, 0.0).sum(axes) for side in (np.minimum, np.maximum))
        self._forms[node.outputs[0]] = Sums((Part(value, factor, constant, least, most, chunk),))

    def _layer(self, op: Op, x: Bytes, taps: Parameter, name: str) -> tuple[Value, Chunk]:
        """A layer of bytes, and its results on the samples."""
        x, op = self._padded(x, op, name)
        value = self._node(op, [x.value, taps], name)
        return value, self._computed(op, x, taps=(taps, self.weights[taps.name]))

    def _padded(self, x: Bytes, op: Slides, name: str) -> tuple[Bytes, Slides]:
        """An operand and an op without padding, where that is of another byte than 0."""
        padding: Padding = getattr(op, "padding", (0, 0, 0, 0))
        zero = x.quantization.zero_point
        if not any(padding) or not zero:
            return x, op
        top, bottom, left, right = padding
        pad = Pad((0, top, left, 0), (0, bottom, right, 0), float(zero))
        value, chunk = self._applied(pad, x, self._fresh(f"{name}.padded"))
        return replace(x, value=value, chunk=chunk), replace(op, padding=(0, 0, 0, 0))  # type: ignore[type-var]

    def normalized(self, node: Node) -> None:
        """Its statistics move as those of its input did."""
        assert isinstance(node.op, BatchNorm)
        x = self.sums(node.inputs[0], node)
        mean, variance, gamma, beta = (self.parameter(node, k).astype("f8") for k in range(1, 5))
        if self.reestimate:
            here, before = Moments(), self.statistics.moments[node.inputs[0].name]
            for found in self._each(lambda k: x.moments(k, self._engine)):
                here.add(*found)
            mean = mean + (here.mean - before.mean)
            tiny = 1e-3 * variance + node.op.epsilon
            variance = variance * (here.variance + tiny) / (before.variance + tiny)
        scale = gamma / np.sqrt(variance + node.op.epsilon)
        self._forms[node.outputs[0]] = x.scaled(scale, beta - mean * scale)

    def added(self, node: Node) -> None:
        """A parameter [C], or a number, is a constant."""
        one, other = node.inputs
        if one not in self._forms:
            one, other = other, one
        if other not in self._forms:
            numbers = self.parameter(node, node.inputs.index(other))
            if numbers.shape not in ((), node.outputs[0].type.shape[-1:]):
                raise UnsupportedError(
                    f"{node.label} adds {other}: {other.type}; quantize takes one number a channel"
                )
            form = self.sums(one, node)
            ones = np.ones(int(node.outputs[0].type.shape[-1]))
            self._forms[node.outputs[0]] = form.scaled(ones, numbers.astype("f8") * ones)
            return
        parts = (*self.sums(one, node).parts, *self.sums(other, node).parts)
        self._forms[node.outputs[0]] = Sums(parts)

    def averaged(self, node: Node, x: Bytes) -> None:
        """The division is part of the next requantization."""
        if isinstance(node.op, AvgPool2d):
            name, op = node.name, SumPool2d(node.op.window, node.op.stride, node.op.padding)
        else:
            _, height, width, _ = (0, *map(int, x.value.type.shape[1:]))
            name, op = self._fresh(f"{node.name}.sums"), SumPool2d((height, width), (1, 1))
        x, op = self._padded(x, op, name)
        value, chunk = self._applied(op, x, name)
        if name != node.name:
            value = self._node(Flatten(), [value], node.name)
            chunk = _flat(chunk)
        self._forms[node.outputs[0]] = Sums((x.mean(value, chunk, op.area),))

    def moved(self, node: Node, x: Bytes) -> None:
        self._move(node, x, node.op)

    def regrouped(self, node: Node) -> None:
        parts = []
        for part in self.sums(node.inputs[0], node).parts:
            name = node.name if node.name not in self._taken else self._fresh(f"{node.name}.part")
            value = self._node(node.op, [part.value], name)
            parts.append(replace(part, value=value, chunk=self._computed(node.op, part)))
        self._forms[node.outputs[0]] = Sums(tuple(parts))

    def padded(self, node: Node, x: Bytes) -> None:
        assert isinstance(node.op, Pad)
        self._move(node, x, replace(node.op, value=float(x.quantization.zero_point)))

    def _move(self, node: Node, x: Bytes, op: Op) -> None:
        value, chunk = self._applied(op, x, node.name)
        self._forms[node.outputs[0]] = replace(x, value=value, chunk=chunk)

    def same(self, node: Node, x: Value) -> None:
        self._forms[node.outputs[0]] = self._forms[x]

    def limited(self, node: Node, x: Value, lo: float, hi: float) -> None:
        """Clipping to bytes limits, too: that of a relu has 0.0 for its least."""
        sums, value = self.sums(x, node), node.outputs[0]
        self._forms[value] = self._requantized(sums, self._grid(value), node.name, lo, hi)

    def extreme(self, node: Node, op: Op, operands: Factors) -> None:
        """Of i32 in the range of bytes."""
        grid, made = self._grid(node.outputs[0]), []
        for x, factor in operands:
            sums = self.sums(x, node).scaled(np.full(int(x.type.shape[-1]), factor), np.zeros(()))
            part = self._fresh(f"{node.name}.part")
            made.append(self._requantized(sums, grid, part, dtype=i32))
        wide = self._node(op, [b.value for b in made], self._fresh(f"{node.name}.wide"))
        largest = self._computed(op, *made)
        value = self._node(Cast(u8), [wide], node.name)
        held = self._held(lambda k: largest(k).astype(np.uint8))
        self._forms[node.outputs[0]] = Bytes(value, *grid, held)

    def joined(self, node: Node) -> None:
        """Bytes that have that grid stay."""
        grid, parts = self._grid(node.outputs[0]), []
        for x in node.inputs:
            form = self.form(x, node)
            if not (isinstance(form, Bytes) and (form.quantization, form.top) == grid):
                part = self._fresh(f"{node.name}.part")
                form = self._requantized(self.sums(x, node), grid, part)
            parts.append(form)
        value = self._node(node.op, [p.value for p in parts], node.name)
        held = self._held(self._computed(node.op, *parts))
        self._forms[node.outputs[0]] = Bytes(value, *grid, held)

    def tabulated(self, node: Node, x: Bytes) -> None:
        """One table serves all channels."""
        known, top = self._grid(node.outputs[0])
        numbers = x.quantization.values(np.arange(BYTES)[None]).astype(np.float32)
        (results,) = node.op.reference(numbers)
        table = known.quantized(results, 0, top).astype(np.uint8)
        constant = self._constant(self._fresh(f"{node.name}.table"), table, u8)
        op = Lookup(known.scale, known.zero_point)
        value = self._node(op, [x.value, constant], node.name)
        held = self._held(self._computed(Lookup(), x, taps=(constant, table)))
        self._forms[node.outputs[0]] = Bytes(value, known, top, held)

    def _argmax(self, node: Node) -> None:
        """The largest integer is where the largest number is: all have one scale."""
        form = self.form(node.inputs[0], node)
        name = self._fresh(f"{node.inputs[0].name}.integers")
        x = form if isinstance(form, Bytes) else self._integers(form, node.inputs[0], name)
        value, chunk = self._applied(node.op, x, node.name)
        self._forms[node.outputs[0]] = Integers(value, Quantization(1.0), chunk)

    rules: ClassVar[Mapping[type[Op], Rule]] = {**RULES, Argmax: _argmax}

    # -- the graph -------------------------------------------------------------------------------

    def _fresh(self, hint: str) -> str:
        """A name that no value of the float network has, or will have here."""
        name = free_name(hint, self._reserved)
        self._reserved.add(name)
        return name

    def _node(self, op: Op, operands: Sequence[Value], name: str) -> Value:
        """Appends a node under `name`."""
        types = op.infer(*(v.type for v in operands))
        (made,) = self.builder.add(op, operands, [Value(name, types[0])])
        self._taken.add(name)
        return made

    def _applied(self, op: Op, x: Bytes | Integers, name: str) -> tuple[Value, Chunk]:
        """A node of one operand, and its results on the samples."""
        return self._node(op, [x.value], name), self._computed(op, x)

    def _constant(
        self, name: str, array: Array, dtype: DType, quantization: Quantization | None = None
    ) -> Parameter:
        """A parameter of the integer network with its numbers."""
        type = TensorType(dtype, array.shape, quantization)
        self.weights[name] = array.astype(dtype.numpy)
        made = self.builder.parameter(Parameter(name, type, Init(), trainable=False))
        assert isinstance(made, Parameter)
        return made

    def _filter_bits(self, f: Value) -> int:
        """Bits of a filter of products: as the graph was trained, else those of the network."""
        op = self.statistics.stated.get(f.name)
        return self.bits if op is None else op.bits

    # -- the samples -----------------------------------------------------------------------------

    def _computed(
        self,
        op: Op,
        *xs: Bytes | Integers | Part,
        numbers: Sequence[Array] = (),
        taps: tuple[Parameter, Array] | None = None,
    ) -> Chunk:
        """What `op` makes of values, a filter and i32 numbers on a chunk of samples. Nothing here
        names the layer, so that like ones share a program; a filter is packed once for each."""
        builder, weights = Builder("op"), {}
        operands = [
            builder.input(f"x{i}", replace(x.value.type, quantization=None))
            for i, x in enumerate(xs)
        ]
        if taps is not None:
            bare = replace(taps[0].type, quantization=None)
            operands.append(builder.parameter(Parameter("f", bare)))
            weights["f"] = taps[1]
        for number, array in enumerate(numbers):
            operands.append(builder.input(f"operand{number}", TensorType(i32, array.shape)))
        run = self._engine.program(builder.finish(builder.add(op, operands, "y")), weights)
        given = [x.chunk for x in xs]
        return lambda k: run([*(chunk(k) for chunk in given), *numbers])[0]

    def _each(self, function: Callable[[int], Made]) -> list[Made]:
        """`function` of the number of every chunk."""
        return self._engine.each(function, range(self._count))

    def _held(self, chunk: Chunk) -> Chunk:
        """The same integers, computed now: what they are computed from may go."""
        return self._each(chunk).__getitem__

    def _all(self, chunk: Chunk) -> Array:
        """Those of all samples."""
        return np.concatenate(self._each(chunk))

    # -- requantization --------------------------------------------------------------------------

    def _quantization(self, value: Value, bits: int) -> tuple[Quantization, int]:
        """What bytes of a float value stand for, and the largest: as the graph was trained, else
        on the value's range with so many bits."""
        op = self.statistics.stated.get(value.name)
        if isinstance(op, FakeQuantize):
            return op.known, op.top
        top = (1 << bits) - 1
        return Quantization.of_range(*self.statistics.ranges[value.name], top), top

    def _grid(self, value: Value) -> tuple[Quantization, int]:
        """That of the bytes of a hidden float value."""
        return self._quantization(value, self.bits)

    def _requantized(
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
        if len(form.parts) > 1:
            part, scale = self._added(form, name, scale, top), 1.0
        least, most = known.quantized(np.array([lo, hi]), 0, top).tolist()
        op = RequantizeShift(least, most, dtype, known.scale, zero)
        made, chunk = self._requantize(part, scale, zero, op, name)
        return Bytes(made, known, top, self._held(chunk) if dtype == u8 else chunk)

    def _requantize(
        self, part: Part, scale: float, zero_point: int, op: RequantizeShift, name: str
    ) -> tuple[Value, Chunk]:
        """A node that makes `part` integers of `scale`, and its results on the samples."""
        made: Op = op
        affine = part.affine(scale, zero_point)
        if self.terms is None:
            operands = multiply_operands(affine, op.lo, op.hi)
            made = RequantizeMultiply(op.lo, op.hi, op.dtype, op.scale, op.zero_point)
        else:
            operands = shift_operands(affine, op.lo, op.hi, self.terms)
        constants = [self._operand(f"{name}.{key}", a) for key, a in operands.arrays.items()]
        value = self._node(made, [part.value, *constants], name)
        multiplying = RequantizeMultiply(op.lo, op.hi, op.dtype)  # the same numbers, in one way
        return value, self._computed(multiplying, part, numbers=operands.multiplying)

    def _operand(self, hint: str, numbers: Array) -> Value:
        """Numbers of a requantization: one where the channels agree, as those of bytes do.

        0, 1 and the guard's are the same in all layers: these are code.
        """
        same = set(numbers.tolist())
        if len(same) == 1 and same <= {0, 1, GUARD_BITS, GUARD_HALF}:
            return self.builder.add(Full(float(numbers[0]), (), i32), [], self._fresh("same"))[0]
        one = numbers[0].reshape(()) if len(same) == 1 else numbers
        return self._constant(self._fresh(hint), one, i32)

    def _added(self, form: Sums, name: str, scale: float, top: int) -> Part:
        """The parts as i32 of one scale, GUARD_BITS finer than `scale`, added up.

        The result stands for multiples of `scale`.
        """
        fine = scale / (1 << GUARD_BITS)
        limit = 4 * (top + 1) << GUARD_BITS
        total: tuple[Value, Chunk] | None = None
        for part in form.parts:
            op = RequantizeShift(-limit, limit, i32, fine)
            made, chunk = self._requantize(part, fine, 0, op, self._fresh(f"{name}.part"))
            if total is not None:
                made = self._node(Add(), [total[0], made], self._fresh(f"{name}.sum"))
                chunk = _summed(total[1], chunk)
            total = made, chunk
        assert total is not None
        ones = np.ones(int(total[0].type.shape[-1]))
        most = float(limit * len(form.parts)) * ones
        return Part(total[0], ones / (1 << GUARD_BITS), 0 * ones, -most, most, total[1])

    def _integers(self, form: Sums, value: Value, name: str) -> Integers:
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
        made, chunk = self._requantize(part, target, 0, op, name)
        return Integers(made, Quantization(scale), chunk)


def _summed(one: Chunk, other: Chunk) -> Chunk:
    return lambda k: one(k) + other(k)


def _flat(chunk: Chunk) -> Chunk:
    return lambda k: np.reshape(found := chunk(k), (len(found), -1))
