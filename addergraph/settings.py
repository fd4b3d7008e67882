"""Settings that are declared once: a field of a frozen dataclass says what it means and may be.

    @dataclass(frozen=True, kw_only=True)
    class Fit:
        epochs: int = setting(1, "How often each sample is seen.", least=1)

        def __post_init__(self) -> None:
            require_valid(self)          # DataError: epochs=0 must be an integer of at least 1

The command line takes options from the same declaration (`cli/options.py`), and files of recipes
their keys (`files/records.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from .border import accept, shown
from .errors import AdderGraphError, DataError, nearest

NOTHING: Any = MISSING  # for a setting that has to be given
MOST_THREADS = 1024  # of a call: a number with too many zeros would stop the machine


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field may be; None is always allowed where it is the default.

    help     for the command line: a sentence
    kind     int, float, bool or str; for the command line also a type of click
    least, above, most, below    of numbers; `above` and `below` are not allowed themselves
    choices  the words there are, where it is one of several
    error    what is raised for another value
    name     in files and on the command line, where that is another than the field's
    unset    what None means, as help texts say it

    For the command line alone:

    metavar  what help texts show for the value
    short    a second name, as "-o"
    place    an argument and no option
    many     several of them: an option may be given again
    alone    what the option means without a value
    """

    help: str = ""
    kind: type = str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    error: type[AdderGraphError] = DataError
    name: str = ""
    unset: str = ""
    metavar: str | None = None
    short: str = ""
    place: bool = False
    many: bool = False
    alone: Any = None

    def require(self, name: str, value: object) -> Any:
        """The value in plain form; `error` where it may not be it, which calls it `name`."""
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return str(value)
            hint = nearest(value, self.choices) if isinstance(value, str) else ""
            raise self.error(
                f"unknown {name} {shown(value)}{hint}; known: {', '.join(self.choices)}"
            )
        if self.kind not in (int, float, bool):
            return value
        found = accept(self.kind, value)
        if found is None or (self.kind is not bool and not self._holds(found)):
            raise self.error(f"{name}={shown(value)} must be {self.expected}")
        return found

    def _holds(self, value: float) -> bool:
        return bool(
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def expected(self) -> str:
        """`an integer of at least 1`, `an integer from 2 to 8`, `at least 0 and below 1`."""
        if self.kind is bool:
            return "True or False"
        if self.kind is int and None not in (self.least, self.most):
            return f"an integer from {self.least} to {self.most}"
        bounds = (
            ("at least", self.least), ("above", self.above), ("at most", self.most),
            ("below", self.below),
        )  # fmt: skip
        limits = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
        if self.kind is not int:
            return limits or "a number"
        return f"an integer of {limits}" if limits else "an integer"


def setting(default: Any, help: str = "", **what: Any) -> Any:
    """A field with a `Setting`, whose `kind` is the default's unless given."""
    if default is not None and default is not MISSING:
        what.setdefault("kind", type(default))
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **what)})


def like(kind: type, name: str, **changes: Any) -> Any:
    """A field as that of another dataclass, but for these parts of its `Setting`."""
    one = dataclasses.replace(settings_of(kind)[name], **changes)
    return dataclasses.field(default=defaults_of(kind)[name], metadata={"setting": one})


def settings_of(kind: type) -> Mapping[str, Setting]:
    """The settings that a dataclass declares, by field, in its order."""
    return {
        f.name: f.metadata["setting"] for f in dataclasses.fields(kind) if "setting" in f.metadata
    }


def defaults_of(kind: type) -> dict[str, Any]:
    """The defaults of these; MISSING for one that has to be given."""
    declared = settings_of(kind)
    return {f.name: f.default for f in dataclasses.fields(kind) if f.name in declared}


def require_valid(values: Any) -> None:
    """Puts the values of a dataclass in plain form, or raises what their declarations say."""
    defaults = defaults_of(type(values))
    for name, one in settings_of(type(values)).items():
        value = getattr(values, name)
        if value is not None or defaults[name] is not None:
            object.__setattr__(values, name, one.require(name, value))


def number_of_threads(value: object) -> int:
    """From 1 to MOST_THREADS; DataError otherwise."""
    return Setting(kind=int, least=1, most=MOST_THREADS).require("threads", value)  # type: ignore[no-any-return]


def integer(name: str, value: object, least: int) -> int:
    """An integer of at least `least`; DataError otherwise."""
    return Setting(kind=int, least=least).require(name, value)  # type: ignore[no-any-return]
