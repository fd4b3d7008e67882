"""Which PyTorch there is, and whether this package was tested with it."""

from __future__ import annotations

import functools
import re
import warnings

from ..errors import EnvironmentWarning, UnsupportedError

TESTED = ("2.6", "2.13", "2.14")  # by all tests of this package; the ends of what is accepted
INSTALL = "pip install 'addergraph[torch]'"


@functools.cache
def require_torch() -> None:
    """UnsupportedError where PyTorch is missing or older than what was tested; EnvironmentWarning,
    once, where it is newer."""
    try:
        import torch
    except ImportError as error:
        raise UnsupportedError(
            f"addergraph.torch needs PyTorch, which cannot be imported ({error}): {INSTALL}"
        ) from None
    found = str(torch.__version__)
    if _number(found) < _number(TESTED[0]):
        raise UnsupportedError(
            f"PyTorch {found} is older than {TESTED[0]}, the oldest that addergraph.torch is "
            f"tested with; install a newer one: {INSTALL}"
        )
    if _number(found) > _number(TESTED[-1]):
        warnings.warn(
            f"PyTorch {found} is newer than {TESTED[-1]}, the newest that addergraph.torch was "
            "tested with: compare results before you rely on them",
            EnvironmentWarning,
            stacklevel=3,
        )


def _number(version: str) -> tuple[int, int]:
    """(2, 13) of "2.13.0+cpu"; of what does not begin with two numbers (0, 0)."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
