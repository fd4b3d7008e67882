"""One node of an ONNX graph as the functions of the operators see it: inputs, attributes, refusals.

Attributes are read by name and type; one that nobody read is refused, so that none is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import border
from ..errors import DataError, ShapeError, StorageError, UnsupportedError
from ..ir import Array
from ..ir.trace import Tensor
from ..ir.types import DType
from .attributes import from_float
from .import_tensors import array_of
from .import_values import OPEN, Constant, Known, Laid, Making, as_is, shape_text

if TYPE_CHECKING:
    import onnx

MOST_ITEMS = 1 << 16  # of an attribute, and of numbers that say a shape, axes or pads


@dataclass
class Settings:
    """What holds for all nodes of a file.

    batch  the size that stands for the open batch in a file that has a fixed one; 0: none does
    own    whether it is a file of our own, whose nodes become the ops that they were
    functions  of the domain `addergraph`, by name
    """

    path: str | os.PathLike[str]
    opset: int
    batch: int = 0
    own: bool = False
    functions: Mapping[str, onnx.FunctionProto] = field(default_factory=dict)
    momentum: dict[str, float] = field(default_factory=dict)  # of batch norms, by node
    dropouts: dict[str, tuple[str, float, int]] = field(default_factory=dict)  # of, rate, seed


@dataclass
class Call:
    """A node with its inputs; None stands for one that is left out."""

    node: onnx.NodeProto
    inputs: Sequence[Known | None]
    making: Making
    settings: Settings
    name: str  # of what it makes
    readers: Callable[[str], int]  # how many nodes and outputs read a value of the file
    _read: set[str] = field(default_factory=set)

    # --- inputs -----------------------------------------------------------------------------------

    @property
    def opset(self) -> int:
        return self.settings.opset

    def given(self, place: int) -> Known | None:
        return self.inputs[place] if place < len(self.inputs) else None

    def value(self, place: int) -> Known:
        """The input; StorageError where it is missing."""
        found = self.given(place)
        if found is None:
            raise StorageError(f"its input {place} is missing")
        return found

    def computed(self, place: int) -> Laid:
        """The input as a tensor in some layout; numbers become a parameter."""
        found = self.value(place)
        return found if isinstance(found, Laid) else as_is(self.making.parameter(found))

    def tensor(self, place: int) -> Tensor:
        return self.making.plain(self.value(place))

    def of_dtype(self, place: int, *allowed: DType) -> Laid:
        """As `computed`; UnsupportedError for another dtype."""
        found = self.computed(place)
        if found.dtype not in allowed:
            known = " or ".join(map(str, allowed))
            self.refuse(f"its input {place} is of {found.dtype}, here it is {known}")
        return found

    def constant(self, place: int, what: str) -> Array | None:
        """The numbers of an input that has to be known; None where it is left out."""
        found = self.given(place)
        if found is None:
            return None
        if not isinstance(found, Constant):
            self.refuse(
                f"its {what} (input {place}) are computed, here they have to be numbers of the file"
            )
        return found.array

    def integers_of(self, place: int, what: str) -> list[int] | None:
        """As `constant`, of one axis at most; whole numbers."""
        array = self.constant(place, what)
        if array is None:
            return None
        if array.ndim > 1 or array.dtype.kind not in "iu" or array.size > MOST_ITEMS:
            raise ShapeError(f"its {what} must be a list of whole numbers, found {_told(array)}")
        return [int(v) for v in np.ravel(array)]

    def scalar(self, place: int, what: str, default: float) -> float:
        """The only number of an input; `default` where it is left out."""
        array = self.constant(place, what)
        if array is None:
            return default
        if array.size != 1 or array.dtype.kind not in "fiub":
            raise ShapeError(f"its {what} must be one number, found {_told(array)}")
        number = array.reshape(()).item()
        if number == OPEN:
            self.refuse(f"its {what} is the size of the open batch")
        return from_float(number) if array.dtype == np.float32 else float(number)

    # --- attributes -------------------------------------------------------------------------------

    def _attribute(self, name: str, kind: str) -> Any:
        """The attribute, of that type; None where it is not given."""
        self._read.add(name)
        found = [a for a in self.node.attribute if a.name == name]
        if not found:
            return None
        if len(found) > 1:
            raise StorageError(f"its attribute {name} is given twice")
        (attribute,) = found
        if attribute.ref_attr_name:
            self.refuse(f"its attribute {name} is that of a function, which are not read")
        if attribute.type != getattr(attribute, kind):
            raise DataError(f"its attribute {name} must be of the type {kind}")
        return attribute

    def has(self, name: str) -> bool:
        return any(a.name == name for a in self.node.attribute)

    def integer(self, name: str, default: int) -> int:
        found = self._attribute(name, "INT")
        return default if found is None else int(found.i)

    def flag(self, name: str, default: bool = False) -> bool:
        found = self.integer(name, int(default))
        if found not in (0, 1):
            raise DataError(f"its attribute {name}={found} must be 0 or 1")
        return bool(found)

    def integers(self, name: str) -> list[int] | None:
        found = self._attribute(name, "INTS")
        if found is None:
            return None
        if len(found.ints) > MOST_ITEMS:
            raise DataError(f"its attribute {name} has {len(found.ints):,} items")
        return [int(v) for v in found.ints]

    def real(self, name: str, default: float) -> float:
        """An ONNX FLOAT as the shortest decimal that names it."""
        found = self._attribute(name, "FLOAT")
        return default if found is None else from_float(found.f)

    def reals(self, name: str) -> list[float] | None:
        found = self._attribute(name, "FLOATS")
        if found is not None and len(found.floats) > MOST_ITEMS:
            raise DataError(f"its attribute {name} has {len(found.floats):,} items")
        return None if found is None else [float(v) for v in found.floats]

    def text(self, name: str, default: str, *known: str) -> str:
        """A word; UnsupportedError for one that is not among the `known`."""
        found = self._attribute(name, "STRING")
        said = default if found is None else found.s[:200].decode("utf-8", "backslashreplace")
        if said not in known:
            self.refuse(f"its attribute {name} is {border.shown(said)}, here it is {_or(known)}")
        return said

    def array(self, name: str) -> Array | None:
        found = self._attribute(name, "TENSOR")
        return None if found is None else array_of(self.settings.path, found.t, name)

    def ignore(self, *names: str) -> None:
        """Attributes that change nothing here."""
        self._read.update(names)

    def require_all_read(self) -> None:
        """UnsupportedError for an attribute that nobody read."""
        left = [a.name for a in self.node.attribute if a.name not in self._read]
        if left:
            self.refuse(f"its attribute {border.shown(left[0])} is not known here")

    # --- outputs ----------------------------------------------------------------------------------

    def wants(self, place: int) -> bool:
        """Whether anything reads this output."""
        outputs = self.node.output
        return place < len(outputs) and bool(outputs[place]) and self.readers(outputs[place]) > 0

    def require_one_output(self, others: str) -> None:
        """UnsupportedError where another output than the first is read; `others` says what they
        are."""
        for place in range(1, len(self.node.output)):
            if self.wants(place):
                self.refuse(f"its output {place}, {others}, is read, which is not computed here")

    def refuse(self, why: str) -> NoReturn:
        raise UnsupportedError(why)


def _told(array: Array) -> str:
    return f"{array.dtype}{shape_text(array.shape)}"


def _or(words: Sequence[str]) -> str:
    quoted = [f'"{w}"' for w in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


Made = Known | Sequence[Known]
Handler = Callable[[Call], Made]


@dataclass(frozen=True)
class Operator:
    """One operator of the standard domain.

    make       what makes its outputs of a call
    becomes    what it is here, for the documentation
    constants  inputs that have to be numbers of the file
    fold       what its output is where all its inputs are numbers that say shapes or axes
    """

    make: Handler
    becomes: str
    constants: tuple[int, ...] = ()
    fold: Callable[[Call, list[Array]], Array] | None = None


def require_rank(value: Known, *ranks: int) -> None:
    """UnsupportedError for other ranks."""
    if len(value.shape) not in ranks:
        known = " or ".join(map(str, ranks))
        raise UnsupportedError(
            f"its input has the shape {shape_text(value.shape)}, here it has {known} dimensions"
        )
