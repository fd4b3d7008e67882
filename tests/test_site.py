"""What the site is made of. That it builds without a warning is checked by `make docs`."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Callable

import pytest

import addergraph as ag
from addergraph import Model, layers
from addergraph.training import SGD, Adam
from addergraph.training.optimizers import Optimizer
from addergraph.training.schedules import Schedule
from addergraph.verification.outputs import Report
from tests.documents import ROOT

PAGE = runpy.run_path(str(ROOT / "docs" / "site" / "docstrings.py"))
markdown: Callable[[str], str] = PAGE["markdown"]


def test_every_page_has_its_place() -> None:
    named = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (Model, "net input_shape loss seed preprocessing"),
        (Model.fit, "learning_rate label_smoothing gradient augment keep_best engine threads"),
        (ag.compile, "weights batch target tune_for threads state tune multiplication_free"),
        (ag.quantize, "calibration weights"),
        (Report, "layers mistrusted constant"),
        (Schedule, "base epochs warmup by_step"),
        (Optimizer, "clip_norm (eta) average"),
    ],
)
def test_arguments_become_a_table(item: object, names: str) -> None:
    table = re.findall(
        r"^\| `(.+?)` \| \S.* \|$", markdown(inspect.getdoc(item) or ""), re.MULTILINE
    )
    assert set(names.split()) <= set(table)


@pytest.mark.parametrize("item", [SGD, Adam, layers.Adder, layers.Conv, ag])
def test_equations_and_code_stay_as_they_are(item: object) -> None:
    """`*` and `_` of an equation are no emphasis, and comments behind code make no table."""
    fenced = re.findall(r"```text\n(.+?)\n```", markdown(inspect.getdoc(item) or ""), re.DOTALL)
    assert len(fenced) >= 1 and "| `" not in markdown(inspect.getdoc(item) or "")
    assert all(line in (inspect.getdoc(item) or "") for line in fenced[0].splitlines())


def test_the_rest_has_no_markup_but_code_and_lists() -> None:
    text = "What a <name> is: 2 * f(`<a>`), x*y*z, docs/data.md.\n* an item"
    made = markdown(text).splitlines()
    assert made[0] == (r"What a &lt;name&gt; is: 2 \* f(`<a>`), x\*y\*z, [data](../data.md).")
    assert made[1] == "* an item"
