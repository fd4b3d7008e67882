"""How ops stand in an ONNX file that have no exact standard operator, and what else it keeps.

Such a node is a call of a function of the domain `addergraph`, which stands in the same file and
whose body is standard operators: any runtime executes it, and `decoded` reads the op from the call.

* op_type    NAME, the op's name in the textual IR, or `NAME__2`, `NAME__3` ... where a file has
             several bodies of one op, for other attributes or operand types. (Not an overload: a
             runtime that ignores those would run the wrong body.) `op_name` reads it.
* inputs     the op's operands in its own order; images are NHWC, filters HWIO.
* outputs    the op's results, called as in the graph; the node is called as the first of them.
* attributes all of the op's own, by their own names, those at their default too:

    int, bool          INT (0 or 1)             tuple of ints, bools, dims   INTS
    float              TENSOR, DOUBLE, no axes  tuple of floats              TENSOR of DOUBLE, 1-D
    str, dtype's name  STRING                   tuple of strs                STRINGS
    dim                INT, the open batch -1

A float is a tensor because an ONNX FLOAT has 32 bits and an op's number 64. Standard operators do
take a FLOAT: `short` says which numbers come back from one; an op with another one is a call. A
`full` of one number is a Constant: its `value` where f32 holds the number, which then is exactly
that, and `value_float`, the short decimal, where it does not.

Inputs and parameters keep what their ONNX type does not say as the metadata property DECLARED of
their ValueInfoProto or TensorProto: the text behind the colon in the IR, as
`f32[3,3,16,32] init=zeros eta=0.2`. It speaks of the layout in the graph: an initializer that a
Conv reads is stored OIHW, and HWIO in the graph. `declared_text` writes it, `declared_value` reads.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AdderGraphError, StorageError, nearest
from ..ir import Op
from ..ir.graph import Graph, Parameter, Value
from ..ir.op import op_named
from ..ir.text import parse, print_graph
from ..ir.types import Dim, DType, dtype_named

if TYPE_CHECKING:
    import onnx

DOMAIN, DOMAIN_VERSION = "addergraph", 1
FORM = "__"  # between an op's name and the number of its body; no op's name has it
DECLARED = "addergraph.declared"
OPEN = -1  # the open batch N, in INT and INTS

_MOST = 1 << 20  # items of an attribute that are read


@dataclass(frozen=True)
class _Kind:
    """How one type of attribute is written, and read back from what was written."""

    expected: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _dim(value: Dim) -> int:
    return OPEN if value == "N" else int(value)


def _read_bool(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def _read_text(value: Any) -> str:
    return bytes(value).decode("utf-8")


_KINDS: dict[object, _Kind] = {
    int: _Kind("an INT", int, int),
    bool: _Kind("an INT, 0 or 1", int, _read_bool),
    Dim: _Kind(f"an INT, a size or {OPEN} for N", _dim, lambda v: "N" if v == OPEN else int(v)),
    str: _Kind("a STRING", str, _read_text),
    DType: _Kind("a STRING, the name of a dtype", str, lambda v: dtype_named(_read_text(v))),
}


def function_name(op_name: str, form: int) -> str:
    """What the function of an op's body number `form` (from 1) is called."""
    return op_name if form == 1 else f"{op_name}{FORM}{form}"


def op_name(op_type: str) -> str:
    """The op that a function of the domain `addergraph` stands for, by its name."""
    return op_type.partition(FORM)[0]


def short(value: float) -> bool:
    """Whether `value` is the shortest decimal that names its nearest f32, infinities included.

    A reader takes an ONNX FLOAT for that decimal, so that such a number comes back as it was; see
    `from_float`.
    """
    with np.errstate(over="ignore"):
        return math.isnan(value) or same(from_float(float(np.float32(value))), value)


def from_float(value: float) -> float:
    """The shortest decimal that names the f32 `value`, as the float nearest to it: 1e-5, of
    9.99999974737875e-06."""
    return float(str(np.float32(value)))


def same(one: float, other: float) -> bool:
    """Equal, and of one sign: 0.0 is not -0.0."""
    return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)


# --- attributes -----------------------------------------------------------------------------------


def encoded(op: Op) -> list[onnx.AttributeProto]:
    """The attributes of `op`, in the order of its fields."""
    return [_encoded(name, hint, getattr(op, name)) for name, hint in _fields(type(op)).items()]


def decoded(op_type: str, given: Iterable[onnx.AttributeProto]) -> Op:
    """The op that a call of the function `op_type` with these attributes stands for.

    An attribute that is left out has its default. StorageError for an op, an attribute or a value
    that there is not; the caller says where the node stands.
    """
    name = op_name(op_type)
    try:
        found = op_named(name)
    except AdderGraphError as error:
        raise StorageError(str(error)) from None
    hints, fields = _fields(found), {}
    for attribute in given:
        if attribute.name not in hints:
            known = ", ".join(hints) or "none"
            raise StorageError(
                f'op "{name}" has no attribute "{attribute.name:.80}"'
                f"{nearest(attribute.name, hints)}; known: {known}"
            )
        fields[attribute.name] = _decoded(name, hints[attribute.name], attribute)
    try:
        return found(**fields)
    except (AdderGraphError, TypeError) as error:  # TypeError: one without a default is missing
        raise StorageError(f'op "{name}": {error}') from None


def _fields(op: type[Op]) -> Mapping[str, object]:
    """Name and type of each attribute. An op whose attribute is a graph has no form in ONNX."""
    hints = typing.get_type_hints(op)
    fields = {name: hints[name] for name in getattr(op, "__dataclass_fields__", {})}
    if any(hint is Graph for hint in fields.values()):
        raise StorageError(f'op "{op.name}" has a graph for its attribute, which no ONNX call has')
    return {name: hint for name, hint in fields.items() if not _is_class_variable(hint)}


def _is_class_variable(hint: object) -> bool:
    return typing.get_origin(hint) is typing.ClassVar


def _item(hint: object) -> tuple[object, bool]:
    """The type of the items of a tuple, and whether it is one; of anything else itself."""
    if typing.get_origin(hint) is tuple:
        return next(a for a in typing.get_args(hint) if a is not ...), True
    return hint, False


def _encoded(name: str, hint: object, value: Any) -> onnx.AttributeProto:
    import onnx
    from onnx import helper, numpy_helper

    item, several = _item(hint)
    if item is float:
        tensor = numpy_helper.from_array(np.array(value, np.float64))
        return helper.make_attribute(name, tensor)
    kind = _KINDS[item]
    types = onnx.AttributeProto
    text = item in (str, DType)
    if not several:
        return helper.make_attribute(
            name, kind.write(value), attr_type=types.STRING if text else types.INT
        )
    items = [kind.write(v) for v in value]  # of an empty tuple nothing tells the type but we
    return helper.make_attribute(name, items, attr_type=types.STRINGS if text else types.INTS)


def _decoded(op: str, hint: object, attribute: onnx.AttributeProto) -> Any:
    item, several = _item(hint)
    try:
        if item is float:
            return _decoded_floats(attribute, several)
        return _decoded_items(_KINDS[item], item in (str, DType), attribute, several)
    except (ValueError, AdderGraphError):
        what = "a TENSOR of DOUBLE" if item is float else _KINDS[item].expected
        raise StorageError(
            f'op "{op}": attribute {attribute.name} must be {what}'
            f"{', several' if several else ''}; found {str(attribute)!r:.200}"
        ) from None


def _decoded_floats(attribute: onnx.AttributeProto, several: bool) -> Any:
    from onnx import TensorProto, numpy_helper

    tensor = attribute.t
    if attribute.type != attribute.TENSOR or tensor.data_type != TensorProto.DOUBLE:
        raise ValueError
    sizes = list(tensor.dims)
    if len(sizes) != int(several) or tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError
    if several and not 0 <= sizes[0] <= _MOST:
        raise ValueError
    numbers = [float(v) for v in np.ravel(numpy_helper.to_array(tensor))]
    return tuple(numbers) if several else numbers[0]


def _decoded_items(kind: _Kind, text: bool, attribute: onnx.AttributeProto, several: bool) -> Any:
    a = attribute
    wanted = (a.STRINGS if text else a.INTS) if several else (a.STRING if text else a.INT)
    if a.type != wanted:
        raise ValueError
    if not several:
        return kind.read(a.s if text else a.i)
    items = a.strings if text else a.ints
    if len(items) > _MOST:
        raise ValueError
    return tuple(kind.read(v) for v in items)


# --- inputs and parameters ------------------------------------------------------------------------


def declared_text(value: Value) -> str:
    """What the IR says of an input or a parameter behind its name: type, scale, init, eta."""
    header = print_graph(_alone(value))
    start = header.index(f"{value}: ") + len(f"{value}: ")
    line = header[start:].split("\n", 1)[0]
    return line[: line.rindex(")")] if line.endswith(") {") else line


def declared_value(name: str, text: str, *, parameter: bool) -> Value:
    """The input or parameter that `declared_text` described; StorageError for any other text."""
    given = f"(%{name}: {text})"
    ends = f"() params{given}" if parameter else given
    try:
        graph = parse(f"graph g{ends} {{\n  return\n}}")
    except AdderGraphError as error:
        raise StorageError(f'the declaration of "{name:.80}" is damaged: {error}') from None
    found = graph.parameters if parameter else graph.inputs
    if len(found) != 1 or len(graph.inputs) + len(graph.parameters) != 1 or graph.nodes:
        raise StorageError(f'the declaration of "{name:.80}" is damaged: it holds more than one')
    return found[0]


def _alone(value: Value) -> Graph:
    if isinstance(value, Parameter):
        return Graph("g", (), (value,), (), ())
    return Graph("g", (value,), (), (), ())
