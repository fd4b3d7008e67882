"""Recipes: the built-in ones, their files, and files with mistakes."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

from addergraph.data import Augment, Dataset
from addergraph.errors import DataError, StorageError
from addergraph.training import SGD, Adam, Cosine, Step
from addergraph.training.recipes import BUILT_IN, Images, Recipe, find, parse

ADAM = Recipe(
    epochs=160,
    batch_size=32,
    label_smoothing=0.1,
    gradient="sign",
    patience=7,
    keep_best=True,
    data=Images(normalize="none"),
    optimizer=Adam(weight_decay=0.01, clip_norm=2.5, average=0.999, decoupled=False),
    schedule=Step(1e-3, 160, milestones=(0.5, 0.75), factor=0.2, warmup=5.0, by_step=True),
)
RECIPES = {name: recipe for name, (_, recipe) in BUILT_IN.items()} | {"adam": ADAM}


@pytest.mark.parametrize("name", RECIPES)
def test_files_read_back(name: str) -> None:
    recipe = RECIPES[name]
    assert parse(recipe.text().encode()) == recipe
    assert tomllib.loads(recipe.text())["epochs"] == recipe.epochs


def test_the_authors_recipe() -> None:
    """main.py of huawei-noah/AdderNet: SGD 0.1, 0.9, 5e-4, cosine over 400 epochs, batch 256."""
    recipe = find("cvpr2020")
    given = recipe.arguments()
    assert (given["epochs"], given["batch_size"]) == (400, 256)
    assert given["augment"] == Augment(padding=4, flip=0.5)
    assert given["optimizer"] == SGD(momentum=0.9, weight_decay=5e-4, fan_in=math.inf)
    assert math.isinf(recipe.optimizer.clip_norm) and not recipe.optimizer.average
    rates = [0.05 * (1 + math.cos(math.pi * epoch / 400)) for epoch in range(400)]
    assert [given["learning_rate"](epoch) for epoch in range(400)] == pytest.approx(rates)


def test_the_schedule_is_as_long_as_the_recipe() -> None:
    shorter = dataclasses.replace(find("cvpr2020"), epochs=10)
    assert shorter.schedule == Cosine(0.1, 10)
    assert (
        parse(b'epochs = 3\nbatch = 2\n[schedule]\nkind = "constant"\nbase = 1').schedule.epochs
        == 3
    )


def test_normalizations() -> None:
    x = np.zeros((2, 2, 2, 2), np.uint8)
    x[0, ..., 0], x[1, ..., 1] = 255, 51
    data = Dataset("two", x, np.arange(2), x[:0], np.arange(0), None)
    scaled = Images(normalize="brightness").normalization(data)
    assert scaled is not None and scaled.apply(x).max(axis=(0, 1, 2)).tolist() == pytest.approx(
        [1, 0.2]
    )
    standard = Images(normalize="statistics").normalization(data)
    assert standard is not None
    np.testing.assert_allclose(standard.apply(x).std(axis=(0, 1, 2)), 1.0, rtol=1e-5)
    assert Images(normalize="none").normalization(data) is None
    assert Images().augment() is None


MINIMAL = 'epochs = 2\nbatch = 8\n[schedule]\nkind = "cosine"\nbase = 0.1\n'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 2", "epochs = ", "is no TOML file"),
        ("epochs", "epoch", r'unknown key "epoch" in recipe .did you mean "epochs"'),
        ("batch = 8\n", "", "batch is missing"),
        ("batch = 8", "batch = 0", "batch=0 must be an integer of at least 1"),
        ("epochs = 2", "epochs = 2.5", "epochs = 2.5 in recipe: expected an integer"),
        ("epochs = 2", "epochs = true", "epochs = True in recipe: expected an integer"),
        ("batch = 8", 'batch = 8\ngradient = "signs"', r"gradient 'signs' .did you mean .sign"),
        ("batch = 8", "batch = 8\nlabel_smoothing = 1", "label_smoothing=1.0"),
        ("batch = 8", "batch = 8\ndata = 3", r"data is a section, \[data\]"),
        ('[schedule]\nkind = "cosine"\nbase = 0.1\n', "", r"section \[schedule\] is missing"),
        ('kind = "cosine"', 'kind = "cosin"', r"kind in \[schedule\]: 'cosin' .did you mean .cosi"),
        ('kind = "cosine"\n', "", r"unknown kind in \[schedule\]: None; known: constant"),
        ("base = 0.1\n", "", r"base is missing in \[schedule\]"),
        ("base = 0.1", "base = 0", "Cosine: base=0.0 must be a number above 0"),
        ("base = 0.1", 'base = "0.1"', r"base = '0.1' in \[schedule\]: expected a number"),
        ("base = 0.1", "base = 0.1\nfactor = 2", r'unknown key "factor" in \[schedule\]'),
        ("base = 0.1", "base = 0.1\nepochs = 2", r'unknown key "epochs" in \[schedule\]'),
        ("[sched", '[optimizer]\nkind = "sgd"\nmomentun = 1\n[sched', '"momentun".*"momentum"'),
        ("[sched", '[optimizer]\nkind = "sgd"\nnesterov = 1\n[sched', "expected true or false"),
        ("[sched", '[data]\nnormalize = "mean"\n[sched', "unknown normalize 'mean'; known: bright"),
        ("[sched", "[data]\ncrop = -1\n[sched", "crop=-1 must be an integer of at least 0"),
        ("[sched", "[dataset]\n[sched", r'unknown key "dataset" in recipe .did you mean "data"'),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert parse(MINIMAL.encode()).batch_size == 8
    path = tmp_path / "my.toml"
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(DataError, match=f"my.toml.*{said}"):
        find(path)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        find(tmp_path / "my.toml")
    with pytest.raises(DataError, match='unknown recipe "cvpr" .did you mean "cvpr2020"'):
        find("cvpr")
