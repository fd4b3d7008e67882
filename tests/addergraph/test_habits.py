"""Whoever knows Keras is told what its names are here."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

import addergraph as ag
from addergraph import Model, layers, training
from addergraph.errors import AdderGraphError, DataError, GraphError
from tests.addergraph.models import fit, small_model

HABITS: dict[str, Callable[[Model], Any]] = {
    'no trainable: model.freeze("*")': lambda m: setattr(m, "trainable", False),
    "no compile: Model(loss=...)": lambda m: m.compile(optimizer="sgd"),  # type: ignore[operator]
    "no stop_training: a callback has it": lambda m: setattr(m, "stop_training", True),
    'argument "validation_data": fit(x, y, x_val, y_val)': lambda m: fit(m, validation_data=1),
    'argument "validation_split": fit(x, y, x_val, y_val)': lambda m: fit(m, validation_split=0.1),
    'no argument "epoch" (did you mean "epochs"?)': lambda m: fit(m, epoch=3),
    "no EarlyStopping: fit(..., patience=3": lambda m: training.EarlyStopping,  # type: ignore[attr-defined]
    "no Sequential: Model() is a network": lambda m: ag.Sequential,  # type: ignore[attr-defined]
    "no load_model: Model.load(path)": lambda m: ag.load_model,  # type: ignore[attr-defined]
    "here it is an argument of the function": lambda m: layers.Input,  # type: ignore[attr-defined]
    "no ReduceLROnPlateau: fit(learning_rate": lambda m: training.ReduceLROnPlateau,  # type: ignore[attr-defined]
    "no save_weights: model.save(path)": lambda m: m.save_weights("w"),  # type: ignore[operator]
    'model.freeze("bn1")': lambda m: setattr(m.layers[1], "trainable", False),
    'model.freeze("head")': lambda m: setattr(layers.Dense(3, name="head"), "units", 4),
}


@pytest.mark.parametrize("said", HABITS)
def test_a_habit_is_told_what_it_is_here(said: str) -> None:
    with pytest.raises(AdderGraphError) as found:
        HABITS[said](small_model())
    assert said in str(found.value)


def test_nobody_else_notices() -> None:
    assert not hasattr(Model(), "compile") and not hasattr(training, "Stopping")
    assert not hasattr(ag, "Sequence")
    copy.deepcopy(small_model())
    with pytest.raises(GraphError, match="no EarlyStopping"):
        exec("from addergraph.training import EarlyStopping")
    with pytest.raises(DataError, match="no argument"):
        Model().fit(1, 2, zzz=3)  # type: ignore[arg-type]


def test_layers_of_others_keep_what_they_like() -> None:
    class Named(layers.Dense):
        pass

    layer = Named(3)
    layer.remembered = 4  # type: ignore[attr-defined]
    with pytest.raises(GraphError, match="Named: a layer does not change"):
        layer.trainable = False  # type: ignore[misc]
    assert dataclasses.replace(layers.Dense(3), trainable=False).trainable is False
