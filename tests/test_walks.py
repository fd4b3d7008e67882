"""The walks of docs/design.md: each file is first entered where its list has it."""

from __future__ import annotations

import gc
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.ir.trace import Tensor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
Request = Callable[[], object]
X = np.random.default_rng(0).random((16, 6, 6, 3), np.float32)
Y = np.arange(16) % 4


def net(x: Tensor) -> Tensor:
    y = ops.relu(layers.BatchNorm()(layers.Adder(8, 3, padding=1)(x)))
    return layers.AdderDense(4)(ops.flatten(y))


def model() -> Model:
    return Model(net, input_shape=(6, 6, 3))


def compiling() -> Request:
    graph, weights = ag.trace(net, ag.tensor("f32", ("N", 6, 6, 3))), model().weights
    return lambda: ag.compile(graph, weights=weights)


def fitting() -> Request:
    made = model()
    return lambda: made.fit(X, Y, verbose=0)


def adding() -> Request:
    types = ag.tensor("f32", ("N", 6, 6, 3)), ag.tensor("f32", (3, 3, 3, 8))

    def net(x: Tensor, f: Tensor) -> Tensor:
        return ops.adder2d(x, f, padding=1)

    return lambda: ag.compile(ag.trace(net, *types))


def quantizing() -> Request:
    made = model()
    return lambda: ag.quantize(made, X)


WALKS: dict[str, Callable[[], Request]] = {
    "From `ag.compile` to machine code": compiling,
    "From the samples of `Model.fit` to the compiled step": fitting,
    "From `adder2d` to the kernel that serves it": adding,
    "A request to quantize": quantizing,
}


def walk(title: str) -> list[str]:
    """The files of one numbered list, in order."""
    text = (ROOT / "docs" / "design.md").read_text()
    section = text.split(f"### {title}\n")[1].split("\n#")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)


def entered(request: Request) -> list[str]:
    """The files of the project whose functions a request calls, in the order of the first call.

    What the definition of a class calls while its module loads does not count: the request runs
    once before. Nor do the finalizers of objects that other tests left: garbage is collected first,
    and not during the request.
    """
    found: dict[str, None] = {}
    files: dict[CodeType, str | None] = {}

    def file_of(code: CodeType) -> str | None:
        if code.co_filename.startswith("<"):
            return None
        path = Path(os.path.realpath(code.co_filename))
        inside = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests")
        return str(path.relative_to(ROOT)) if inside else None

    def profile(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code not in files:
            files[code] = file_of(code)
            found.setdefault(files[code] or "")

    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        request()
    finally:
        sys.setprofile(None)
        gc.enable()
    return [file for file in found if file]


@pytest.mark.parametrize("title", WALKS)
def test_nobody_has_to_go_back_up(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDERGRAPH_CACHE", "")
    listed = walk(title)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WALKS[title]()()
        order = entered(WALKS[title]())
    assert len(listed) > 5 and len(set(listed)) == len(listed)
    assert [file for file in order if file in listed] == listed, "\n".join(order)
