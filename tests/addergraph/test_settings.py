"""Settings that are declared once: their checks, and what follows from them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model
from addergraph.errors import AdderGraphError, DataError, GraphError, ShapeError
from addergraph.model.quantization import Quantizing
from addergraph.settings import Setting, like, require_valid, setting, settings_of
from addergraph.training.settings import Fit
from tests.addergraph.shell import Shell


@dataclass(frozen=True, kw_only=True)
class Some:
    count: int = setting(1, "How many.", least=1, most=9)
    share: float = setting(0.5, above=0, most=1)
    word: str = setting("left", choices=("left", "right"), error=GraphError)
    limit: int | None = setting(None, kind=int, least=2)
    free: object = None


@dataclass(frozen=True, kw_only=True)
class Other:
    count: int = like(Some, "count", help="How many others.")


@pytest.mark.parametrize(
    "values",
    [{}, {"count": np.int64(9)}, {"share": 1}, {"word": "right"}, {"limit": 2}, {"free": "x"}],
)
def test_what_is_declared_is_taken(values: Mapping[str, Any]) -> None:
    require_valid(Some(**values))


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"count": 0}, DataError, "count=0 must be an integer from 1 to 9"),
        ({"count": 10}, DataError, "count=10 must"),
        ({"count": 1.0}, DataError, "count=1.0 must"),
        ({"count": True}, DataError, "count=True must"),
        ({"count": None}, DataError, "count=None must"),
        ({"share": 0.0}, DataError, "share=0.0 must be above 0 and at most 1"),
        ({"share": float("nan")}, DataError, "share=nan must"),
        ({"word": "lef"}, GraphError, r"unknown word 'lef' .did you mean \"left\".*left, right"),
        ({"limit": 1}, DataError, "limit=1 must be an integer of at least 2"),
    ],
)
def test_what_is_not_is_named(
    values: Mapping[str, Any], error: type[AdderGraphError], said: str
) -> None:
    with pytest.raises(error, match=said):
        require_valid(Some(**values))


def test_a_setting_like_another_one() -> None:
    (one,) = settings_of(Other).values()
    assert (one.help, one.least, Other().count) == ("How many others.", 1, 1)
    assert Setting(kind=float).expected == "a number"


@pytest.mark.parametrize(("function", "declared"), [(Model.fit, Fit), (ag.quantize, Quantizing)])
def test_a_signature_is_what_is_declared(function: Callable[..., Any], declared: type) -> None:
    given = inspect.signature(function).parameters.values()
    keywords = {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
    keywords.pop("weights", None)  # of a graph: no setting
    assert keywords == {f.name: f.default for f in dataclasses.fields(declared)}


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"gradient": "signs"}, ShapeError, "unknown gradient 'signs'"),
        ({"engine": "nativ"}, GraphError, "unknown engine 'nativ'"),
        ({"threads": 0}, DataError, "threads=0 must be an integer from 1 to 1024"),
        ({"threads": 10**6}, DataError, "threads=1000000 must be an integer from 1 to 1024"),
        ({"label_smoothing": 1.0}, DataError, "must be at least 0 and below 1"),
        ({"batch_size": 0}, DataError, "batch_size=0 must be an integer of at least 1"),
    ],
)
def test_fit_refuses_before_it_looks_at_data(
    settings: Mapping[str, Any], error: type[AdderGraphError], said: str
) -> None:
    with pytest.raises(error, match=said):
        Model().fit("no data", None, **settings)


def test_what_a_recipe_has_can_be_changed_on_the_command_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def fit(self: Model, *data: object, **settings: Any) -> None:
        found.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "fit", fit)
    changed = ("--label-smoothing", 0.25, "--gradient", "sign", "--patience", 3, "--keep-best")
    run = ("--batch", 9, "--seed", 4, "--validation-split", 0.1)
    assert shell("train", *changed, *run).status == 130
    assert Fit(**found) == Fit(**found | {
        "label_smoothing": 0.25, "gradient": "sign", "patience": 3, "keep_best": True,
        "batch_size": 9, "seed": 4, "epochs": 30,
    })  # fmt: skip
    assert found.keys() <= {f.name for f in dataclasses.fields(Fit)}
