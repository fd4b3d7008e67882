"""Recipes: all that decides a training beside network, data and seed, as a TOML file to edit.

    addergraph recipe cvpr2020 > my.toml      # print a built-in one
    addergraph train --recipe my.toml ...     # after editing

A file has the fields of `Recipe` at its top, those of `Images` under [data], and under [optimizer]
and [schedule] a `kind` and the fields of that description. What is left out keeps its default.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from ..data import Augment, Dataset, Normalize
from ..errors import DataError, nearest
from ..ir.attributes import FULL_PRECISION, GRADIENTS
from .optimizers import OPTIMIZERS, SGD, Optimizer
from .schedules import SCHEDULES, Schedule

NONE, BRIGHTNESS, STATISTICS = "none", "brightness", "statistics"


@dataclass(frozen=True, kw_only=True)
class Images:
    """How images reach the network.

    crop       pad by so many zeros on each side, then cut a window at random; 0 leaves them
    flip       probability of a mirror image, left to right
    normalize  "statistics": each channel of mean 0 and deviation 1 over the training images;
               "brightness": 0..1; "none": as stored
    """

    crop: int = 0
    flip: float = 0.0
    normalize: str = BRIGHTNESS

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise DataError(f"crop={self.crop} must be at least 0")
        Augment(flip=self.flip)
        _require_known("normalize", self.normalize, (STATISTICS, BRIGHTNESS, NONE))

    def augment(self) -> Augment | None:
        return Augment(self.crop, self.flip) if self.crop or self.flip else None

    def normalization(self, data: Dataset) -> Normalize | None:
        """Fixed by the images of `data` to train on."""
        if self.normalize == STATISTICS:
            return data.normalize()
        channels = data.shape[-1]
        scaled = Normalize((0.0,) * channels, (1.0,) * channels, data.scale)
        return scaled if self.normalize == BRIGHTNESS else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The arguments of `Model.fit` that are no data; the schedule is as long as the recipe.

    The adaptive rate's eta belongs to the layers, 0.2 by default. Raises DataError where a number
    is out of range.
    """

    epochs: int
    batch: int
    label_smoothing: float = 0.0
    gradient: str = FULL_PRECISION
    patience: int = 0
    keep_best: bool = False
    data: Images = field(default_factory=Images)
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise DataError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")
        _require_known("gradient", self.gradient, GRADIENTS)
        if self.schedule.epochs != self.epochs:
            object.__setattr__(
                self, "schedule", dataclasses.replace(self.schedule, epochs=self.epochs)
            )

    def arguments(self) -> dict[str, Any]:
        """For `Model.fit`; `normalize` depends on the data, see `Images.normalization`."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch,
            "learning_rate": self.schedule,
            "optimizer": self.optimizer,
            "label_smoothing": self.label_smoothing,
            "gradient": self.gradient,
            "augment": self.data.augment(),
            "patience": self.patience,
            "keep_best": self.keep_best,
        }

    def text(self) -> str:
        """The TOML file of this recipe; `parse` reads it back."""
        lines, sections = [], []
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not dataclasses.is_dataclass(value):
                lines.append(_line(f.name, value))
                continue
            kinds = _KINDS.get(f.name, {})
            kind = [_line("kind", name) for name, made in kinds.items() if type(value) is made]
            sections += ["", f"[{f.name}]", *kind]
            sections += [_line(w.name, getattr(value, w.name)) for w in _written(type(value))]
        return "\n".join([*lines, *sections, ""])


_KINDS: dict[str, Mapping[str, type]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}


def parse(data: bytes, where: str = "recipe") -> Recipe:
    """The recipe in a TOML file; DataError, naming the key, for anything else."""
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is no TOML file: {error}") from None
    try:
        return _recipe(content)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _recipe(content: dict[str, Any]) -> Recipe:
    sections = {name: content.pop(name) for name in ("data", *_KINDS) if name in content}
    values = _checked("recipe", Recipe, content)
    for name in ("epochs", "batch"):
        if name not in values:
            raise DataError(f"{name} is missing")
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise DataError(f"{name} is a section, [{name}], with keys of its own")
        values[name] = _section(name, section, values["epochs"])
    if "schedule" not in values:
        raise DataError("the section [schedule] is missing")
    return Recipe(**values)


def _section(name: str, section: dict[str, Any], epochs: int) -> object:
    """The description in a section; the schedule's length is the recipe's."""
    if name not in _KINDS:
        return Images(**_checked(f"[{name}]", Images, section))
    kind = section.pop("kind", None)
    _require_known(f"kind in [{name}]", kind, _KINDS[name])
    description = _KINDS[name][kind]
    values = _checked(f"[{name}]", description, section)
    if name == "optimizer":
        return description(**values)
    if "base" not in values:
        raise DataError("base is missing in [schedule]: the learning rate at the start")
    return description(**values, epochs=epochs)


def _checked(where: str, description: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for the fields of a description; DataError for unknown names and wrong types."""
    types = {f.name: get_type_hints(description)[f.name] for f in _written(description)}
    found = {}
    for name, value in values.items():
        if name not in types:
            raise DataError(
                f'unknown key "{name}" in {where}{nearest(name, types)}; known: {", ".join(types)}'
            )
        found[name] = _typed(where, name, value, types[name])
    return found


def _typed(where: str, name: str, value: object, expected: object) -> object:
    if expected is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if expected == tuple[float, ...] and isinstance(value, list):
        return tuple(_typed(where, name, item, float) for item in value)
    if expected in (int, bool, str) and type(value) is expected:
        return value
    shown = getattr(expected, "__name__", str(expected))
    raise DataError(f"{name} = {value!r} in {where}: expected {_WORDS.get(shown, 'numbers')}")


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a word in quotes",
}


def _written(description: type) -> list[dataclasses.Field[Any]]:
    """The fields that a file has: the length of a schedule is that of its recipe."""
    fields = dataclasses.fields(description)
    return [f for f in fields if f.name != "epochs" or description is Recipe]


def _line(name: str, value: object) -> str:
    """`name = value` in TOML."""
    if isinstance(value, tuple):
        return f"{name} = [{', '.join(map(repr, value))}]"
    return f"{name} = {json.dumps(value) if isinstance(value, str | bool) else repr(value)}"


def _require_known(what: str, value: object, known: Iterable[str]) -> None:
    words = list(known)
    if value not in words:
        hint = nearest(value, words) if isinstance(value, str) else ""
        raise DataError(f"unknown {what}: {value!r}{hint}; known: {', '.join(words)}")
