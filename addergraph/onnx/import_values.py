"""Values of an ONNX graph while it is read: numbers that are known, and tensors in some layout.

ONNX has images as NCHW, this project as NHWC. A value is therefore a tensor of ours and how it is
to be read; a transpose or a reshape changes the reading, and only who cannot take it so makes a
node of it. Chains of them cancel by themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .. import ops
from ..errors import ShapeError, UnsupportedError
from ..ir import Array, Builder, Init, Parameter, Value
from ..ir.check import MAX_NAME
from ..ir.graph import NAME, free_name
from ..ir.trace import Tensor
from ..ir.types import Dim, DType, Shape, TensorType, bool_, f32, i32
from ..ops.pointwise.full import Full
from .import_tensors import dtype_of_array

OPEN = -(1 << 62)  # the open batch among the numbers of a shape
Axes = tuple[int, ...]
_NUMBERED = re.compile(r"^onnx::\w+$|^\d+$")  # what exporters call weights that they made


@dataclass(frozen=True, eq=False)
class Constant:
    """Numbers that the file holds, or that follow from its shapes.

    trained  whether they are a parameter that training changes, where one reads them
    """

    array: Array
    name: str
    trained: bool = False

    @property
    def shape(self) -> Shape:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> DType | None:
        return dtype_of_array(self.array)

    @property
    def has_batch(self) -> bool:
        """Whether the open batch is among the numbers."""
        return self.array.dtype == np.int64 and bool((self.array == OPEN).any())


@dataclass(frozen=True, eq=False)
class Laid:
    """A computed tensor: axis p of `tensor` is axis `axes[p]` of the value.

    shape  of the value where that is another one: its elements in row-major order, reshaped
    name   of the node that makes the value, where one has to
    """

    tensor: Tensor
    axes: Axes
    reshaped: Shape | None = None
    name: str = ""

    @property
    def inner(self) -> Shape:
        """The shape before `reshaped`."""
        sizes: dict[int, Dim] = dict(zip(self.axes, self.tensor.shape, strict=True))
        return tuple(sizes[axis] for axis in range(len(sizes)))

    @property
    def shape(self) -> Shape:
        return self.inner if self.reshaped is None else self.reshaped

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    @property
    def rank(self) -> int:
        return len(self.shape)


Known = Constant | Laid


def as_is(tensor: Tensor) -> Laid:
    """A tensor whose axes are those of the value."""
    return Laid(tensor, tuple(range(len(tensor.shape))))


def channels_last(rank: int) -> Axes:
    """The layout of images: axis 1, the channels, behind all others."""
    return tuple(range(rank)) if rank < 3 else (0, *range(2, rank), 1)


def shape_text(shape: Sequence[Dim]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _kept(shape: Sequence[Dim], axes: Sequence[int]) -> bool:
    """Whether `axes` of `shape` are in order, but for those of one element."""
    wide = [axis for axis in axes if shape[axis] != 1]
    return wide == sorted(wide)


@dataclass
class Making:
    """The graph that is made: its nodes, and its parameters with their numbers."""

    builder: Builder
    weights: dict[str, Array] = field(default_factory=dict)
    _parameters: dict[tuple[int, str, tuple[Dim, ...]], Tensor] = field(default_factory=dict)
    _moved: dict[tuple[Value, object, Shape], Tensor] = field(default_factory=dict)
    _kept_alive: list[Constant] = field(default_factory=list)  # their ids are keys

    # --- layouts ----------------------------------------------------------------------------------

    def laid(self, value: Known, axes: Axes, name: str = "") -> Tensor:
        """The value as a tensor whose axis p is axis `axes[p]` of it."""
        if isinstance(value, Constant):
            return self.parameter(value, value.array.transpose(axes), layout=axes)
        if value.reshaped is None and value.axes == axes:
            return value.tensor
        wanted = tuple(value.shape[axis] for axis in axes)
        hint = name or value.name or f"{value.tensor.name}.layout"
        if value.reshaped is None:
            if _kept(value.shape, value.axes) and _kept(value.shape, axes):
                return self._reshape(value.tensor, wanted, hint)
            return self._transpose(value.tensor, tuple(map(value.axes.index, axes)), hint)
        inner = value.tensor
        if not _kept(value.inner, value.axes):
            order = tuple(map(value.axes.index, range(len(value.axes))))
            inner = self._transpose(inner, order, f"{value.tensor.name}.order")
        if _kept(value.shape, axes):
            return self._reshape(inner, wanted, hint)
        whole = self._reshape(inner, value.shape, f"{hint}.shape")
        return self._transpose(whole, axes, hint)

    def plain(self, value: Known, name: str = "") -> Tensor:
        """The value as a tensor with its own axes."""
        return self.laid(value, tuple(range(len(value.shape))), name)

    def reshaped(self, value: Laid, shape: Shape, name: str) -> Laid:
        """The value's elements in row-major order, in another shape of as many."""
        if shape == value.shape:
            return value
        straight = _kept(value.inner, value.axes)
        if straight and shape == value.tensor.shape:
            return as_is(value.tensor)
        if not straight and shape == value.inner:
            return replace(value, reshaped=None)
        return replace(value, reshaped=shape, name=name)

    def transposed(self, value: Laid, order: Axes, name: str) -> Laid:
        """The value whose axis a is axis `order[a]` of this one."""
        if value.reshaped is not None:
            value = as_is(self.plain(value))
        return replace(value, axes=tuple(map(order.index, value.axes)), name=name)

    def _reshape(self, x: Tensor, shape: Shape, name: str) -> Tensor:
        if x.shape == shape:
            return x
        key = (x.value, "reshape", shape)
        if key not in self._moved:
            flat = len(shape) == 2 and len(x.shape) > 1 and x.shape[0] == shape[0]
            made = ops.flatten(x, name=name) if flat else ops.reshape(x, shape, name=name)
            self._moved[key] = made
        return self._moved[key]

    def _transpose(self, x: Tensor, order: Axes, name: str) -> Tensor:
        if order == tuple(range(len(order))):
            return x
        key = (x.value, "transpose", order)
        if key not in self._moved:
            self._moved[key] = ops.transpose(x, order, name=name)
        return self._moved[key]

    # --- numbers ----------------------------------------------------------------------------------

    def parameter(
        self,
        constant: Constant,
        array: Array | None = None,
        *,
        layout: object = None,
        role: str = "",
        init: Init | None = None,
        trained: bool | None = None,
    ) -> Tensor:
        """A parameter of the numbers of `constant`, or of `array`, which was made of them in a way
        that `layout` tells from others. Who asks twice gets the same. `role` is its name where
        the file has a number for one.

        UnsupportedError for elements of a type that parameters have not.
        """
        numbers = constant.array if array is None else array
        dtype = dtype_of_array(numbers)
        if dtype is None or constant.has_batch:
            raise UnsupportedError(
                f'the numbers of "{constant.name}" are {numbers.dtype}, which enter no computation '
                "here; they are read where a shape or axes are meant"
            )
        key = (id(constant), str(layout), numbers.shape)
        if key not in self._parameters:
            hint = role if role and _NUMBERED.search(constant.name) else constant.name
            said = constant.trained if trained is None else constant.trained and trained
            type = TensorType(dtype, numbers.shape)
            free = free_name(word(hint), self.builder._names)
            made = Parameter(free, type, init or Init(), said and dtype == f32)
            self._parameters[key] = self.declared(made, numbers)
            self._kept_alive.append(constant)
        return self._parameters[key]

    def declared(self, parameter: Parameter, numbers: Array) -> Tensor:
        """This parameter, with its numbers."""
        self.weights[parameter.name] = np.ascontiguousarray(numbers).reshape(numbers.shape)
        return Tensor(self.builder, self.builder.parameter(parameter))

    def number(self, value: float, dtype: DType = f32) -> Tensor:
        """A constant of no axes."""
        made = self.builder.add(Full(float(value), (), dtype), [], "const")[0]
        return Tensor(self.builder, made)

    def zero(self) -> Constant:
        """0, as an input that the file has not."""
        return Constant(np.zeros((), np.float32), "zero")

    def alike(self, *values: Known) -> tuple[list[Tensor], Callable[[Tensor], Laid]]:
        """The operands of an elementwise op in one layout, and how its result is to be read."""
        like = _layout_of(values)
        if like is None:
            return [self.plain(v) for v in values], as_is
        known = like

        def reading(made: Tensor) -> Laid:
            return Laid(made, known.axes, known.reshaped, known.name)

        return [self._like(v, known) for v in values], reading

    def _like(self, value: Known, known: Laid) -> Tensor:
        if isinstance(value, Laid) and (known.reshaped is not None or not value.shape):
            return value.tensor if value.reshaped == known.reshaped else self.plain(value)
        return self.operand(value, known.axes)

    def operand(self, value: Known, axes: Axes) -> Tensor:
        """The value as an operand of an elementwise op whose other operands have the layout `axes`,
        with leading axes of one element left out where it is numbers."""
        if isinstance(value, Laid):
            return self.laid(value, axes)
        array, dtype = value.array, value.dtype
        if array.size == 1 and dtype in (f32, i32, bool_) and not value.has_batch:
            return self.number(array.reshape(()).item(), dtype)
        full = array.reshape((1,) * (len(axes) - array.ndim) + array.shape).transpose(axes)
        while full.ndim and full.shape[0] == 1:
            full = full[0]
        return self.parameter(value, full, layout=("operand", axes))


def _layout_of(values: Sequence[Known]) -> Laid | None:
    """The value whose layout an elementwise op of these is computed in, an image for choice; None:
    each with its own axes."""
    rank = max(len(v.shape) for v in values)
    wide = [v for v in values if isinstance(v, Laid) and len(v.shape) == rank]
    narrow = [v for v in values if isinstance(v, Laid) and len(v.shape) not in (0, rank)]
    numbers = [v for v in values if isinstance(v, Constant)]
    if not wide or narrow or not rank:
        return None
    image = next((v for v in wide if v.axes != tuple(range(len(v.axes)))), wide[0])
    if all(v.reshaped is None for v in wide):
        return image
    same = all(
        (v.axes, v.reshaped, v.tensor.shape) == (image.axes, image.reshaped, image.tensor.shape)
        for v in wide
    )
    return image if same and all(v.array.size == 1 for v in numbers) else None


def elements(shape: Sequence[Dim]) -> int:
    """Without an open batch."""
    return math.prod(d for d in shape if d != "N")


def sizes_of(shape: Sequence[Dim]) -> Array:
    """A shape as the numbers that ONNX has of it."""
    return np.array([OPEN if d == "N" else d for d in shape], np.int64)


def normal_axis(axis: int, rank: int) -> int:
    """Counted from 0; ShapeError where there is none."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is not one of the {rank} of its input")
    return axis % rank


def word(text: str) -> str:
    """A name of the file as a value can be called: "/" becomes ".", other letters "_"."""
    if NAME.fullmatch(text) and len(text) < MAX_NAME // 2:
        return text
    parts = text[:200].replace("/", ".")
    made = "".join(c if c.isalnum() or c in "_." else "_" for c in parts).strip("_.")
    return made or "value"
