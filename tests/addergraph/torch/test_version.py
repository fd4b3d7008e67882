"""Which PyTorch there may be, and that nothing needs one that does not ask for it."""

from __future__ import annotations

import builtins
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import addergraph as ag
import addergraph.torch
from addergraph.errors import EnvironmentWarning, UnsupportedError
from addergraph.torch import version


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    version.require_torch.cache_clear()
    yield
    version.require_torch.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=number))


def test_tested_versions_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in version.TESTED:
        installed(monkeypatch, f"{number}.1+cpu")
        version.require_torch.cache_clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            version.require_torch()


@pytest.mark.parametrize("number", ["1.13.1", "2.0.0", "of my own"])
def test_older_ones_are_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    installed(monkeypatch, number)
    with pytest.raises(
        UnsupportedError, match=f"PyTorch {number} is older than {version.TESTED[0]}"
    ):
        version.require_torch()


def test_newer_ones_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "9.0.0")
    with pytest.warns(EnvironmentWarning, match=f"9.0.0 is newer than {version.TESTED[-1]}"):
        version.require_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        version.require_torch()


def test_without_pytorch_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    model = ag.Model(lambda x: x)
    for use in (
        lambda: ag.from_torch(object(), object()),
        lambda: ag.to_torch(model),
        lambda: addergraph.torch.__getattr__("Adder2d"),
    ):
        with pytest.raises(UnsupportedError, match=r"pip install 'addergraph\[torch\]'"):
            use()


def test_the_package_is_imported_without_it() -> None:
    code = (
        "import sys, addergraph as ag, addergraph.torch; ag.from_torch, ag.to_torch; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Adder3d'"):
        addergraph.torch.Adder3d  # type: ignore[attr-defined]  # noqa: B018
