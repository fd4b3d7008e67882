"""Layers of several tensors, for networks that are functions: a sum, and one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..border import accept, shown
from ..errors import GraphError, ShapeError
from ..ir.trace import Tensor
from .base import Layer, scope_of


@dataclass(frozen=True, eq=False)
class _Join(Layer):
    """Called on two tensors or more, or on one list of them, inside a function model."""

    def join(self, xs: Sequence[Tensor], name: str) -> Tensor:
        """Appends this layer to the graph of `xs`, as `name`."""
        raise GraphError(f"{type(self).__name__} does not say how it joins")

    def __call__(self, *xs: Tensor | Sequence[Tensor]) -> Tensor:
        given = xs[0] if len(xs) == 1 and isinstance(xs[0], list | tuple) else xs
        tensors = [x for x in given if isinstance(x, Tensor)]
        if len(tensors) < max(2, len(given)):
            raise GraphError(
                f"{self.where} joins two symbolic tensors or more, found {shown(given)}; call it "
                f"in a function: Model(net) with net(x) that has y = layers.{type(self).__name__}()"
                "(x, layer(x))"
            )
        if any(x.builder is not tensors[0].builder for x in tensors):
            raise GraphError(f"{self.where}: the tensors belong to different graphs")
        return self.join(tensors, scope_of(tensors[0].builder).name_of(self))


@dataclass(frozen=True, eq=False)
class Add(_Join):
    """Y = X1 + X2 + ..., from left to right, of tensors of one type (no broadcasting), which Y has.

    Called on them or on a list of them: `layers.Add()(x, y)`. Raises ShapeError for other types.
    """

    prefix: ClassVar[str] = "add"

    def join(self, xs: Sequence[Tensor], name: str) -> Tensor:
        odd = [x for x in xs if x.type != xs[0].type]
        if odd:
            raise ShapeError(f'add "{name}": {odd[0]!r} has not the type of {xs[0]!r}')
        y = xs[0]
        for number, x in enumerate(xs[1:], 2):
            y = ops.add(y, x, name=name if number == len(xs) else f"{name}.sum{number}")
        return y


@dataclass(frozen=True, eq=False)
class Concatenate(_Join):
    """The tensors one behind the other along `axis`, which counts from 0, or from the end.

    Called on them or on a list of them: `layers.Concatenate()(x, y)`. All other axes must agree.
    Raises ShapeError where they do not, and for the batch's axis.
    """

    prefix: ClassVar[str] = "concat"
    axis: int = -1

    def validate(self) -> None:
        axis = accept(int, self.axis)
        if axis is None:
            raise ShapeError(f"{self.where}: axis={shown(self.axis)} must be an integer")
        self._store("axis", axis)

    def join(self, xs: Sequence[Tensor], name: str) -> Tensor:
        if self.axis in (0, -xs[0].type.rank):
            raise ShapeError(
                f'concatenate "{name}": axis={self.axis} is the batch\'s; choose another'
            )
        return ops.concat(xs, self.axis, name=name)
