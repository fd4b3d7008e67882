"""Which parameters of a model training leaves as they are: names and patterns, the last one wins.

    model.freeze("conv1", "block*")      # these layers and all that is in them
    model.unfreeze("block3.conv2.f")     # but for this parameter

A pattern is a shell's (`*`, `?`, `[ab]`), compared with a parameter's name and with every beginning
of it that ends before a dot: "block0" is all of block0, "block0.conv1" one layer in it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self

from ..border import plain, shown
from ..errors import AdderGraphError, GraphError, nearest, some
from ..ir import Array, Builder, Graph, Parameter, Value
from ..ir.trace import Tensor
from ..ir.walk import append
from .samples import Shapes


@dataclass(frozen=True)
class Freezing:
    """What was said, in order: a pattern, and whether it freezes."""

    rules: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def exactly(cls, names: Sequence[str]) -> Freezing:
        """These parameters and no others, whatever the layers say."""
        names = plain(Sequence[str], "frozen", names, GraphError)
        return cls((("*", False), *((name, True) for name in names)))

    def then(self, patterns: Sequence[str], frozen: bool) -> Freezing:
        """This, then one more; GraphError for what is no pattern."""
        word = "freeze" if frozen else "unfreeze"
        if not patterns or not all(isinstance(p, str) and p for p in patterns):
            raise GraphError(
                f'model.{word} takes names of layers and parameters, as "conv1" or "block*", found '
                f"{', '.join(map(shown, patterns)) or 'none'}"
            )
        return Freezing((*self.rules, *((str(p), frozen) for p in patterns)))

    def __call__(self, name: str) -> bool | None:
        """Whether the parameter of this name is frozen; None where nobody said."""
        said = (frozen for pattern, frozen in reversed(self.rules) if _matches(name, pattern))
        return next(said, None)

    def tracing(self, net: Callable[..., Any]) -> Callable[..., Any]:
        """`net`, whose parameters are frozen as this says."""

        @functools.wraps(net)
        def traced(x: Tensor, *others: Any) -> Any:
            x.builder.frozen = self
            return net(x, *others)

        return traced if self.rules else net

    def of_graph(self, graph: Graph) -> Graph:
        """An inference graph with its parameters as this says."""

        def held(p: Parameter) -> Parameter:
            said = self(p.name)
            return p if said is None else p.held(said)

        return with_parameters(graph, held) if self.rules else graph

    def require_known(self, graph: Graph) -> None:
        """GraphError, with the nearest name, for a pattern that no trainable parameter has."""
        names = [p.name for p in graph.parameters if p.learns]
        for pattern, _ in self.rules:
            if any(_matches(name, pattern) for name in names):
                continue
            if any(_matches(p.name, pattern) for p in graph.parameters):
                raise GraphError(
                    f'"{pattern}" is never trained: running statistics stay where a batch norm\'s '
                    "gamma and beta are frozen, so name the batch norm"
                )
            known = dict.fromkeys(part for name in names for part in _parts(name))
            raise GraphError(
                f'"{graph.name}" has no layer or parameter "{pattern}" to train'
                f"{nearest(pattern, known)}; it has {some([*known])}"
            )


class Freezable(ABC):
    """The part of `Model` that freezes; `Model` traces its graphs as `_freezing` says."""

    _freezing = Freezing()
    _in_fit = False  # whether a `fit` of this model is running
    _input_shapes: Shapes | None
    _graphs: dict[tuple[bool, int | None], Graph]
    _entry: tuple[Graph, dict[str, Array]] | None

    @abstractmethod
    def graph(self, training: bool, batch: int | None = None) -> Graph:
        """The network; see `Model`."""

    @property
    def frozen(self) -> list[str]:
        """The names of the parameters that are frozen."""
        return frozen_names(self.graph(training=False))

    def freeze(self, *names: str) -> None:
        """Training leaves these parameters as they are: no gradient is computed for them.

        `names` are those of layers or parameters, or shell patterns: "conv1", "block*". A batch
        norm with a frozen gamma and beta uses its running statistics, also in training, and does
        not move them. Raises GraphError, with the nearest name, for one that nothing trainable has;
        where the model does not know its input yet, `build` and `fit` do. GraphError while a `fit`
        runs, whose step is made.
        """
        self._set_frozen(names, True)

    def unfreeze(self, *names: str) -> None:
        """Takes back `freeze`, and a layer's `trainable=False`, for `names` as there."""
        self._set_frozen(names, False)

    def _set_frozen(self, names: Sequence[str], frozen: bool) -> None:
        self._require_no_fit(f"model.{'freeze' if frozen else 'unfreeze'}(...)")
        before = self._freezing
        self._say_frozen(before.then(names, frozen))
        if self._input_shapes is None:
            return
        try:
            self._freezing.require_known(self.graph(training=False))
        except AdderGraphError:
            self._say_frozen(before)
            raise

    def _require_no_fit(self, what: str) -> None:
        """GraphError while a `fit` of this model runs, where `what` would be without effect."""
        if self._in_fit:
            raise GraphError(
                f"{what} counts from the next fit, and a fit of this model is running: stop it "
                f"(callback.stop_training = True), then {what} and fit again"
            )

    def _say_frozen(self, freezing: Freezing) -> None:
        self._freezing = freezing
        self._graphs.clear()
        self._entry = None

    def holding(self, frozen: Sequence[str]) -> Self:
        """A copy, with its own weights, of which these parameters are frozen and no others."""
        made = copy(self)
        made._say_frozen(Freezing.exactly(frozen))
        return made


def with_parameters(graph: Graph, new: Callable[[Parameter], Parameter]) -> Graph:
    """An inference graph with other parameters in the place of its own; types follow."""
    builder = Builder(graph.name)
    known: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in graph.inputs}
    for p in graph.parameters:
        known[p] = builder.parameter(new(p))
    append(builder, graph.nodes, known)
    return builder.finish([known[v] for v in graph.outputs])


def frozen_names(graph: Graph) -> list[str]:
    """The parameters that training leaves as they are because somebody said so."""
    return [p.name for p in graph.parameters if p.frozen]


def _parts(name: str) -> Iterator[str]:
    """a, a.b and a.b.c of a.b.c."""
    words = name.split(".")
    return (".".join(words[: count + 1]) for count in range(len(words)))


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(part, pattern) for part in _parts(name))
