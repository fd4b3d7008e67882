"""Names that people bring along from elsewhere, each with what does it here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Self

from .errors import DataError, GraphError, UnknownNameError, nearest

_EARLY = "fit(..., patience=3, keep_best=True) stops early and ends with the best weights"
_HELD_OUT = "fit(x, y, x_val, y_val) takes the samples to validate on"
MODULES: Mapping[str, Mapping[str, str]] = {
    "addergraph": {"Sequential": "Model() is a network, model.add(layer) appends to it"},
    "addergraph.training": {
        "EarlyStopping": _EARLY,
        "ModelCheckpoint": 'fit(..., checkpoint="run", resume=True) writes and reads checkpoints',
    },
}
FIT = {
    "validation_data": _HELD_OUT,
    "validation_split": f"{_HELD_OUT}, and addergraph train has --validation-split",
    "early_stopping": _EARLY,
    "loss": 'the loss is one of the model: model.loss = "mean_squared_error"',
    "lr": "learning_rate= is its name",
}


def refuse(module: str, name: str) -> None:
    """GraphError, which an import passes on as it is, for a habit of this module."""
    if name in MODULES[module]:
        raise GraphError(f"{module} has no {name}: {MODULES[module][name]}")


def require_none(others: Iterable[str], known: Iterable[str]) -> None:
    """DataError for arguments that `fit` does not have, `known` being those that it has."""
    for name in others:
        hint = f": {FIT[name]}" if name in FIT else nearest(name, known)
        raise DataError(f'fit has no argument "{name}"{hint}')


class Missing:
    """An attribute that there is not: to read it and to assign it are both an UnknownNameError,
    which says what there is instead."""

    def __init__(self, instead: str) -> None:
        self._instead, self._name = instead, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__} has no {name}"

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        return self if instance is None else self._refuse()

    def __set__(self, instance: object, value: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnknownNameError(f"{self._name}: {self._instead}")
