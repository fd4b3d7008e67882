"""The project's one tree of errors.

Every message names the op or file, what was found, what was expected and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile


class AdderGraphError(Exception):
    """Base of every error that AdderGraph raises on purpose."""


class ShapeError(AdderGraphError):
    """Shapes, dtypes or attributes of an op do not fit together."""


class GraphError(AdderGraphError):
    """A graph is not well formed: order, names, updates, or a proven fact that does not hold."""


class UnknownNameError(GraphError, AttributeError):
    """A layer or op that does not exist (an AttributeError too, as Python's protocols ask)."""


class ParseError(AdderGraphError):
    """Textual IR that does not parse; the message shows the line."""


class PassError(AdderGraphError):
    """A pass produced an invalid graph or did not settle; names the pass and the rule."""


class UnsupportedError(AdderGraphError):
    """Something valid that this version does not do, said before any work is lost."""


class TargetError(AdderGraphError):
    """An unknown target, CPU or feature name."""


class CodegenError(AdderGraphError):
    """The backend could not turn a valid graph into machine code."""


class ToolchainError(AdderGraphError):
    """A C compiler or linker is missing or failed."""


class StorageError(AdderGraphError):
    """A file or folder cannot be read, is damaged, or cannot be written."""


class DataError(AdderGraphError):
    """Training or inference data of the wrong shape, type or range."""


class ProcessError(AdderGraphError):
    """Another process of a training run failed, does not answer, or works on something else."""


class MemoryLimitError(AdderGraphError, MemoryError):
    """Work that needs more memory than there is, refused before it starts."""


class VerificationError(AdderGraphError):
    """Native and reference results differ by more than the stated bound."""


class RangeWarning(UserWarning):
    """A value is provably constant or dead, which is rarely what the author meant."""


class DataWarning(UserWarning):
    """Data that can be used, but are hardly what was meant or published under their name."""


class QuantizationWarning(UserWarning):
    """A quantized network whose answers are far from those of the float network."""


class EnvironmentWarning(UserWarning):
    """Something optional that this system does not give: work goes on without it."""


_LONGEST, _MOST = 80, 2000  # letters and names: comparing takes the square of one times the other


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean "relu"?)`, or an empty string when nothing is close.

    Bounded: no name of more than _LONGEST letters is compared, and no more than _MOST are.
    """
    if len(name) > _LONGEST:
        return ""
    short = islice((other for other in known if len(other) <= _LONGEST), _MOST)
    listed = list(short)
    same = next((other for other in listed if other.lower() == name.lower()), None)
    close = difflib.get_close_matches(name, listed, n=5, cutoff=0.5) if same is None else [same]
    if not close:  # capitals may be all that they do not share
        lowered = {other.lower(): other for other in listed}
        found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
        close = [lowered[other] for other in found]
    if not close:
        return ""
    best = [other for other in close if _likeness(other, name) == _likeness(close[0], name)]
    chosen = max(best, key=lambda other: _begins_alike(other, name))
    return f' (did you mean "{chosen}"?)'


def some(names: Sequence[str]) -> str:
    """`a, b, c, d, e and 7 more`: the first five of many, for a message."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _likeness(other: str, name: str) -> float:
    """As `get_close_matches` has it; of equal ones it takes the last in the alphabet."""
    return difflib.SequenceMatcher(None, other, name).ratio()


def _begins_alike(other: str, name: str) -> int:
    """How many letters both begin with."""
    pairs = zip(other, name, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
