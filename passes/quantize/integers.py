"""u8 and i32 ops for each op of the float network.

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
from addergraph.ir import Array, Graph, Node, Op, Parameter, Value
from addergraph.ir.attributes import DEFAULT_BITS, FULL_PRECISION, Padding
from addergraph.ir.interpreter import same_for_all
from addergraph.ir.quantization import Quantization, symmetric
from addergraph.ir.types import TensorType, i8, i32, u8
from addergraph.ops.movement.lookup import BYTES, Lookup
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Sub
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.fake_quantize import FakeQuantize
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.sum_pool2d import SumPool2d
from addergraph.quantization import QuantizationSettings

from .calibrate import Engine, Moments, Statistics, chunks
from .fixed_point import LIMIT
from .forms import Bytes, Chunk, Form, Integers, Part, Sums
from .image import IMAGE_BITS, PIXEL, grid_of_bytes, table_of
from .integer_graph import IntegerGraph
from .rules import RULES, Emitter, Factors, Rule, f32, not_computed

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
        parts, reserved = [*chunks(samples)], (v.name for v in graph.values())
        self.out = IntegerGraph(graph.name, reserved, terms, engine, len(parts))
        self._engine = engine
        self._forms: dict[Value, Form] = {}
        self._centers: dict[Value, tuple[Part, Part]] = {}  # by means: what to subtract, from what
        self._readers = Counter(v for n in graph.nodes for v in n.inputs) + Counter(graph.outputs)
        self._output_real: list[Array] = []
        self._read_image(parts, levels)

    def _read_image(self, parts: Sequence[Array], levels: Array | None) -> None:
        (x,) = self.graph.inputs
        known, top = self._quantization(x, IMAGE_BITS)
        if levels is not None and x.name not in self.statistics.stated:
            known = grid_of_bytes(levels, known) or known
        table = None if levels is None else table_of(levels, known, top)
        stands_for = known if table is None else PIXEL
        value = self.out.builder.input(x.name, TensorType(u8, x.type.shape, stands_for))
        if table is not None:
            constant = self.out.constant(self.out.fresh(f"{x.name}.table"), table, u8)
            op = Lookup(known.scale, known.zero_point)
            value = self.out.node(op, [value, constant], self.out.fresh(f"{x.name}.levels"))
        held = self.out.held(lambda k: known.quantized(parts[k], 0, top).astype(np.uint8))
        self._forms[x] = Bytes(value, known, top, held)

    def write(self, node: Node) -> None:
        """Drops forms that no later node reads: their arrays are large."""
        super().write(node)
        self._readers.subtract(node.inputs)
        for v in node.inputs:
            if self._readers[v] <= 0:
                self._forms.pop(v, None)
                self._centers.pop(v, None)

    def finish(self) -> tuple[Graph, dict[str, Array]]:
        """The integer graph and its numbers; sums at its outputs become i32 of one scale."""
        outputs = []
        for v in self.graph.outputs:
            form = self._forms[v]
            if isinstance(form, Sums):
                taken = v.name in self.out.taken
                name = self.out.fresh(f"{v.name}.output") if taken else v.name
                form = self.out.integers(form, self._largest(v), name)
            outputs.append(form.value)
            self._output_real.append(form.quantization.values(self.out.all(form.chunk)))
        return self.out.builder.finish(outputs), self.out.weights

    def output_error(self) -> float:
        """How far the outputs are from the float ones on the samples, as a share of their rms."""
        return self._error_beside(lambda y: y)

    def error_in_spread(self) -> float:
        """The same as a share of how far the float outputs are from their mean over the samples:
        outputs that share a large number may differ by little of it. inf where they do not differ
        at all; of one sample `output_error`.
        """
        if all(map(same_for_all, self.statistics.outputs)):
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
            name = self.out.fresh(f"{value.name}.bytes")
            form = self.out.requantized(form, self._grid(value), name)
            self._forms[value] = form
        return form

    def sums(self, value: Value, user: Node) -> Sums:
        """An operand as sums; bytes become i32 without a change."""
        form = self.form(value, user)
        if isinstance(form, Sums):
            return form
        made = self.out.node(Cast(i32), [form.value], self.out.fresh(f"{value.name}.wide"))
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
        name = self.out.fresh(f"{node.inputs[1].name}.bytes")
        taps = self.out.constant(name, integers, u8, x.quantization)
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
        taps = self.out.constant(self.out.fresh(f"{node.inputs[1].name}.bytes"), integers, i8)
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
        value = self.out.node(op, [x.value, taps], name)
        return value, self.out.computed(op, x, taps=(taps, self.out.weights[taps.name]))

    def _padded(self, x: Bytes, op: Slides, name: str) -> tuple[Bytes, Slides]:
        """An operand and an op without padding, where that is of another byte than 0."""
        padding: Padding = getattr(op, "padding", (0, 0, 0, 0))
        zero = x.quantization.zero_point
        if not any(padding) or not zero:
            return x, op
        top, bottom, left, right = padding
        pad = Pad((0, top, left, 0), (0, bottom, right, 0), float(zero))
        value, chunk = self.out.applied(pad, x, self.out.fresh(f"{name}.padded"))
        return replace(x, value=value, chunk=chunk), replace(op, padding=(0, 0, 0, 0))  # type: ignore[type-var]

    def normalized(self, node: Node) -> None:
        """Its statistics move as those of its input did."""
        assert isinstance(node.op, BatchNorm)
        x = self.sums(node.inputs[0], node)
        mean, variance, gamma, beta = (self.parameter(node, k).astype("f8") for k in range(1, 5))
        if self.reestimate:
            x = Sums(tuple(replace(p, chunk=self.out.kept(p.value, p.chunk)) for p in x.parts))
            here, before = Moments(), self.statistics.moments[node.inputs[0].name]
            for found in self.out.each(lambda k: x.moments(k, self._engine)):
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

    def channel_mean(self, node: Node) -> None:
        """Integers of the scale of the layer's: constants have a mean of their own."""
        (part,) = self.sums(node.inputs[0], node).parts
        least, most = part.least.sum(), part.most.sum()
        if most - least > LIMIT // 2:
            raise UnsupportedError(
                f"{node.label}: the sum of the {len(part.factor)} channels, from {least:.0f} to "
                f"{most:.0f}, may leave i32; take fewer channels or smaller kernels, or leave this "
                "network in f32"
            )
        fine, mean = self.out.channel_mean(part, node.name)
        self._centers[node.outputs[0]] = mean, fine
        self._forms[node.outputs[0]] = Sums((mean,))

    def centered(self, node: Node) -> None:
        """No integer leaves i32: a mean lies between its channels. Both are as they were at the
        mean, whatever others have read as bytes since."""
        mean, one = self._centers[node.inputs[1]]
        value = self.out.node(Sub(), [one.value, mean.value], node.name)
        chunk = self.out.computed(Sub(), one, mean)
        part = Part(
            value, one.factor, one.constant - mean.constant, one.least - mean.most,
            one.most - mean.least, chunk,
        )  # fmt: skip
        self._forms[node.outputs[0]] = Sums((part,))

    def averaged(self, node: Node, x: Bytes) -> None:
        """The division is part of the next requantization."""
        if isinstance(node.op, AvgPool2d):
            name, op = node.name, SumPool2d(node.op.window, node.op.stride, node.op.padding)
        else:
            _, height, width, _ = (0, *map(int, x.value.type.shape[1:]))
            name, op = self.out.fresh(f"{node.name}.sums"), SumPool2d((height, width), (1, 1))
        x, op = self._padded(x, op, name)
        value, chunk = self.out.applied(op, x, name)
        if name != node.name:
            value = self.out.node(Flatten(), [value], node.name)
            chunk = _flat(chunk)
        self._forms[node.outputs[0]] = Sums((x.mean(value, chunk, op.area),))

    def moved(self, node: Node, x: Bytes) -> None:
        self._move(node, x, node.op)

    def regrouped(self, node: Node) -> None:
        parts = []
        for part in self.sums(node.inputs[0], node).parts:
            taken = node.name in self.out.taken
            name = self.out.fresh(f"{node.name}.part") if taken else node.name
            value = self.out.node(node.op, [part.value], name)
            parts.append(replace(part, value=value, chunk=self.out.computed(node.op, part)))
        self._forms[node.outputs[0]] = Sums(tuple(parts))

    def padded(self, node: Node, x: Bytes) -> None:
        assert isinstance(node.op, Pad)
        self._move(node, x, replace(node.op, value=float(x.quantization.zero_point)))

    def _move(self, node: Node, x: Bytes, op: Op) -> None:
        value, chunk = self.out.applied(op, x, node.name)
        self._forms[node.outputs[0]] = replace(x, value=value, chunk=chunk)

    def same(self, node: Node, x: Value) -> None:
        self._forms[node.outputs[0]] = self._forms[x]

    def limited(self, node: Node, x: Value, lo: float, hi: float) -> None:
        """Clipping to bytes limits, too: that of a relu has 0.0 for its least."""
        sums, value = self.sums(x, node), node.outputs[0]
        self._forms[value] = self.out.requantized(sums, self._grid(value), node.name, lo, hi)

    def extreme(self, node: Node, op: Op, operands: Factors) -> None:
        """Of i32 in the range of bytes."""
        grid, made = self._grid(node.outputs[0]), []
        for x, factor in operands:
            sums = self.sums(x, node).scaled(np.full(int(x.type.shape[-1]), factor), np.zeros(()))
            part = self.out.fresh(f"{node.name}.part")
            made.append(self.out.requantized(sums, grid, part, dtype=i32))
        wide = self.out.node(op, [b.value for b in made], self.out.fresh(f"{node.name}.wide"))
        largest = self.out.computed(op, *made)
        value = self.out.node(Cast(u8), [wide], node.name)
        held = self.out.held(lambda k: largest(k).astype(np.uint8))
        self._forms[node.outputs[0]] = Bytes(value, *grid, held)

    def joined(self, node: Node) -> None:
        """Bytes that have that grid stay."""
        grid, parts = self._grid(node.outputs[0]), []
        for x in node.inputs:
            form = self.form(x, node)
            if not (isinstance(form, Bytes) and (form.quantization, form.top) == grid):
                part = self.out.fresh(f"{node.name}.part")
                form = self.out.requantized(self.sums(x, node), grid, part)
            parts.append(form)
        value = self.out.node(node.op, [p.value for p in parts], node.name)
        held = self.out.held(self.out.computed(node.op, *parts))
        self._forms[node.outputs[0]] = Bytes(value, *grid, held)

    def tabulated(self, node: Node, x: Bytes) -> None:
        """One table serves all channels."""
        known, top = self._grid(node.outputs[0])
        numbers = x.quantization.values(np.arange(BYTES)[None]).astype(np.float32)
        (results,) = node.op.reference(numbers)
        table = known.quantized(results, 0, top).astype(np.uint8)
        constant = self.out.constant(self.out.fresh(f"{node.name}.table"), table, u8)
        op = Lookup(known.scale, known.zero_point)
        value = self.out.node(op, [x.value, constant], node.name)
        held = self.out.held(self.out.computed(Lookup(), x, taps=(constant, table)))
        self._forms[node.outputs[0]] = Bytes(value, known, top, held)

    def _argmax(self, node: Node) -> None:
        """The largest integer is where the largest number is: all have one scale."""
        form = self.form(node.inputs[0], node)
        name = self.out.fresh(f"{node.inputs[0].name}.integers")
        largest = self._largest(node.inputs[0])
        x = form if isinstance(form, Bytes) else self.out.integers(form, largest, name)
        value, chunk = self.out.applied(node.op, x, node.name)
        self._forms[node.outputs[0]] = Integers(value, Quantization(1.0), chunk)

    rules: ClassVar[Mapping[type[Op], Rule]] = {**RULES, Argmax: _argmax}

    # -- numbers that were measured ----------------------------------------------------------------

    def _filter_bits(self, f: Value) -> int:
        """Bits of a filter of products: as the graph was trained, else those of the network."""
        op = self.statistics.stated.get(f.name)
        return self.bits if op is None else op.bits

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

    def _largest(self, value: Value) -> float:
        return max(map(abs, self.statistics.ranges[value.name])) or 1.0


def _flat(chunk: Chunk) -> Chunk:
    return lambda k: np.reshape(found := chunk(k), (len(found), -1))
