"""The attributes of ops as text: how fields of their dataclasses are written and read."""

from __future__ import annotations

import dataclasses
import operator
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import GraphError
from .graph import WORD, Graph
from .op import Op
from .types import Dim, DType

if TYPE_CHECKING:
    from .text import Parser


@dataclass(frozen=True)
class Kind:
    """How one type of attribute is written and read."""

    expected: str
    show: Callable[[Any], str]
    read: Callable[[Parser], Any]


@dataclass(frozen=True)
class Attribute:
    """A field of an op's dataclass; `default` is None where the field has none."""

    name: str
    kind: Kind
    default: str | None


def show_float(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _show_bool(value: bool) -> str:
    return "true" if value else "false"


def _show_word(value: str) -> str:
    if not WORD.fullmatch(value):
        raise GraphError(f'the attribute value "{value}" is not one word, it cannot be printed')
    return value


def _show_dim(value: Dim) -> str:
    return "N" if value == "N" else str(operator.index(value))


def _tuple_of(item: Kind, length: int | None) -> Kind:
    """Tuples of `item`, of `length` or (None) of any length."""
    expected = f"({item.expected}, ...)" if length is None else f"{length} times {item.expected}"

    def show(value: Iterable[Any]) -> str:
        return f"({','.join(item.show(v) for v in value)})"

    def read(parser: Parser) -> tuple[Any, ...]:
        start = parser.peek
        values = tuple(parser.listed("(", lambda: item.read(parser), ")"))
        if length is not None and len(values) != length:
            parser.fail(f"expected {length} values, found {len(values)}", start)
        return values

    return Kind(expected, show, read)


_KINDS: dict[object, Kind] = {
    int: Kind("an integer", lambda v: str(operator.index(v)), lambda p: p.integer()),
    float: Kind("a number", show_float, lambda p: p.number()),
    bool: Kind("true or false", _show_bool, lambda p: p.boolean()),
    str: Kind("a word", _show_word, lambda p: p.word()),
    Dim: Kind("a size or N", _show_dim, lambda p: p.dim()),
    DType: Kind("a dtype", str, lambda p: p.dtype()),
}


Attributes = tuple[tuple[Attribute, ...], str | None]
_ATTRIBUTES: dict[type[Op], Attributes] = {}


def attributes(op: type[Op]) -> Attributes:
    """The printed attributes of an op class, and the name of its Graph-valued field if it has one.

    Raises GraphError when a field has a type that the text cannot hold.
    """
    if op not in _ATTRIBUTES:
        _ATTRIBUTES[op] = _attributes(op)
    return _ATTRIBUTES[op]


def _attributes(op: type[Op]) -> Attributes:
    hints = typing.get_type_hints(op)
    found, body = [], None
    for field in dataclasses.fields(op):  # type: ignore[arg-type]
        hint = hints[field.name]
        if hint is Graph:
            body = field.name
            continue
        kind = _kind(op, field.name, hint)
        missing = field.default is dataclasses.MISSING
        found.append(Attribute(field.name, kind, None if missing else kind.show(field.default)))
    return tuple(found), body


def _kind(op: type[Op], name: str, hint: object) -> Kind:
    if hint in _KINDS:
        return _KINDS[hint]
    items = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
    length = None if items[-1:] == (...,) else len(items)
    kinds = set(items) - {...}
    if len(kinds) == 1 and (item := kinds.pop()) in _KINDS:
        return _tuple_of(_KINDS[item], length)
    raise GraphError(f'op "{op.name}": attribute {name} has type {hint}, which text cannot hold')


def shown_attributes(op: Op) -> list[str]:
    """`stride=(2,2)` for each attribute that is not at its default."""
    shown = ((a, a.kind.show(getattr(op, a.name))) for a in attributes(type(op))[0])
    return [f"{a.name}={text}" for a, text in shown if text != a.default]
