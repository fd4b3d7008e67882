"""What every layer is, and how one trace names layers and shares their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from .. import habits
from ..border import shown
from ..errors import GraphError, UnknownNameError, nearest
from ..ir import Builder, Value
from ..ir.attributes import flag
from ..ir.graph import WORD
from ..ir.trace import Tensor


@dataclass(frozen=True, eq=False)
class Layer:
    """Base of every layer.

    name       replaces the number that a trace would give
    trainable  False: its parameters, and those of its parts, are frozen (see `Model.freeze`)
    """

    prefix: ClassVar[str] = ""
    parts: ClassVar[tuple[str, ...]] = ()  # the attributes that are lists of layers
    makes_node: ClassVar[bool] = True  # in an inference graph

    name: str | None = field(default=None, kw_only=True)
    trainable: bool = field(default=True, kw_only=True)

    def __new__(cls, *given: Any, **attributes: Any) -> Any:
        """GraphError for an attribute that there is not, is missing, or is given twice."""
        if "__dataclass_fields__" in vars(cls):  # not so of a class with an __init__ of its own
            _require_attributes(cls, len(given), attributes)
        return super().__new__(cls)

    def __reduce__(self) -> Any:
        """A copy has the attributes as they are: no call of the class makes it."""
        return object.__new__, (type(self),), vars(self)

    def __post_init__(self) -> None:
        given = self.name is not None
        if given and not (isinstance(self.name, str) and WORD.fullmatch(self.name)):
            raise GraphError(
                f"{type(self).__name__}: name={self.name!r} cannot stand in a graph; use letters, "
                "digits, underscores and dots, not starting with a digit"
            )
        self._store("trainable", flag(self.where, "trainable", self.trainable))
        self.validate()

    def validate(self) -> None:
        """Refuses attributes that make no sense (ShapeError that names the layer), and puts the
        others in one form: plain ints, pairs, four sides."""

    def _keep(self, name: str, value: object) -> None:
        """The `__setattr__` of our layers; that of a frozen dataclass says less. Layers that derive
        from ours, and are none, may keep things of their own."""
        if "__dataclass_fields__" in vars(type(self)) or name in {f.name for f in fields(self)}:
            raise UnknownNameError(
                f"{self.where}: a layer does not change ({name} = {shown(value)}). Make it so, as "
                f"{type(self).__name__}(..., {name}=...); of a model, layers are frozen by "
                f'name: model.freeze("{self.name or self.prefix + "1"}")'
            )
        self._store(name, value)

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def build(self, x: Tensor, name: str) -> Tensor:
        """Appends this layer to the graph of `x`, as `name`."""
        raise GraphError(f"{type(self).__name__} does not say how it is built")

    def __call__(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise GraphError(
                f"{type(self).__name__} was called on {type(x).__name__}; layers take symbolic "
                "tensors, inside ag.trace or Model. To run numbers use model.predict"
            )
        scope = scope_of(x.builder)
        name, outer = scope.name_of(self), scope.frozen
        scope.frozen = outer or not self.trainable
        try:
            return self.build(x, name)
        finally:
            scope.frozen = outer

    @property
    def where(self) -> str:
        """How messages speak of this layer before it has a place in a graph."""
        return f'{type(self).__name__} "{self.name}"' if self.name else type(self).__name__


def _require_attributes(cls: type[Layer], count: int, named: Mapping[str, object]) -> None:
    """Refuses a call of `cls` with `count` attributes by their place and with the others named."""
    known = [f.name for f in fields(cls)]
    for word in named:
        if word not in known:
            raise GraphError(
                f'{cls.__name__}: unknown attribute "{word}"{_instead(word, known)}; known: '
                f"{', '.join(known)}"
            )
    placed = [f for f in fields(cls) if f.init and not f.kw_only]
    if count > len(placed):
        raise GraphError(
            f"{cls.__name__} takes {len(placed)} attributes without a name, found {count}"
            f"{': ' * bool(placed)}{', '.join(f.name for f in placed)}"
        )
    taken = [f.name for f in placed[:count]]
    missing = [f.name for f in placed[count:] if _is_required(f) and f.name not in named]
    wrong = [f"{name} is given twice" for name in taken if name in named]
    wrong += [f"{name} is missing" for name in missing]
    if wrong:
        expected = ", ".join(
            f.name if _is_required(f) else f"{f.name}={f.default!r}" for f in placed
        )
        raise GraphError(f"{cls.__name__}: {', '.join(wrong)}; expected {cls.__name__}({expected})")


def _is_required(attribute: Field[Any]) -> bool:
    return attribute.default is MISSING and attribute.default_factory is MISSING


def _instead(word: str, known: Sequence[str]) -> str:
    """What to do for an attribute that there is not."""
    if habits.ATTRIBUTES.get(word) in known:
        return f' (here it is "{habits.ATTRIBUTES[word]}")'
    return f" ({habits.ELSEWHERE[word]})" if word in habits.ELSEWHERE else nearest(word, known)


class Scope:
    """The layers that one trace has met, and the parameters that they made."""

    def __init__(self) -> None:
        self.path = ""  # what the names of layers inside a composite layer start with
        self.frozen = False  # whether the layer that is being built, or one around it, is
        self.names: dict[Layer, str] = {}
        self.taken: set[str] = set()  # of these names
        self.counts: dict[str, int] = {}
        # No tensors: these would keep the builder, for which a scope is kept as long as it lives.
        self.parameters: dict[str, Value] = {}

    def name_of(self, layer: Layer) -> str:
        if layer in self.names:
            return self.names[layer]
        name = f"{self.path}{layer.name}"
        if layer.name is None:
            name = self._numbered(f"{self.path}{layer.prefix}")
        if name in self.taken:
            raise GraphError(f'two layers are called "{name}"; names must differ')
        self.names[layer] = name
        self.taken.add(name)
        return name

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Layers that are named here are parts of the layer `name`."""
        outer, self.path = self.path, f"{name}."
        try:
            yield
        finally:
            self.path = outer

    def _numbered(self, prefix: str) -> str:
        while True:
            self.counts[prefix] = self.counts.get(prefix, 0) + 1
            name = f"{prefix}{self.counts[prefix]}"
            if name not in self.taken:
                return name


_SCOPES: WeakKeyDictionary[Builder, Scope] = WeakKeyDictionary()


def scope_of(builder: Builder) -> Scope:
    """What the trace into `builder` knows of layers."""
    return _SCOPES.setdefault(builder, Scope())
