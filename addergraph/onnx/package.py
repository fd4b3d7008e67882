"""The package `onnx`, which is optional: `pip install 'addergraph[onnx]'`."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError

INSTALL = "pip install 'addergraph[onnx]'"


def require_onnx(what: str) -> Any:
    """The package `onnx`; UnsupportedError, which says `what` needs it, where it is not there."""
    try:
        import onnx
    except ImportError:
        raise UnsupportedError(f"{what} needs the package onnx: {INSTALL}") from None
    return onnx
