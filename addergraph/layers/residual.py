"""A sum of two branches of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..errors import GraphError, ShapeError
from ..ir.trace import Tensor
from .base import Layer, scope_of


@dataclass(frozen=True, eq=False)
class Residual(Layer):
    """Y = body(X) + shortcut(X), each a sequence of layers; no shortcut means X itself.

    Both results must have one type (no broadcasting), else ShapeError. The parts are numbered and
    named within this layer: `Residual([Adder(16, 3, padding=1), BatchNorm()], name="block0")` has
    the parameters `block0.adder1.f`, `block0.bn1.gamma`. Source: He et al., arXiv:1512.03385,
    eq. 1 and 2; their relu after the sum is a layer of its own.
    """

    prefix: ClassVar[str] = "block"
    parts: ClassVar[tuple[str, ...]] = ("body", "shortcut")
    body: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def validate(self) -> None:
        for name in ("body", "shortcut"):
            given = getattr(self, name)
            listed = isinstance(given, Sequence) and all(isinstance(g, Layer) for g in given)
            if not listed:
                raise GraphError(f"{self.where}: {name} must be a list of layers, found {given!r}")
            self._store(name, tuple(given))
        if not self.body:
            raise GraphError(f"{self.where}: body has no layers, so there is nothing to add")

    def build(self, x: Tensor, name: str) -> Tensor:
        ends = []
        with scope_of(x.builder).inside(name):
            for branch in (self.body, self.shortcut):
                y = x
                for layer in branch:
                    y = layer(y)
                ends.append(y)
        if ends[0].type != ends[1].type:
            raise ShapeError(
                f'residual "{name}": its body gives {ends[0].type} and its shortcut '
                f"{ends[1].type}; give the shortcut the body's stride and channels"
            )
        return ops.add(ends[0], ends[1], name=f"{name}.add")
