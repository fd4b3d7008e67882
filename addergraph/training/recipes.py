"""Recipes: all settings of a training run but network, data and seed, as a TOML file to edit.

    addergraph recipe cvpr2020 > my.toml      # print a built-in one
    addergraph train --recipe my.toml ...     # after editing

A file has the fields of `Recipe` at its top, those of `Images` under [data], and under [optimizer]
and [schedule] a `kind` and the fields of that description. What is left out keeps its default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..border import path
from ..data import Augment, Dataset, Normalize
from ..errors import AdderGraphError, DataError, nearest
from ..files import records
from ..files.storage import read_bytes
from ..settings import require_valid, setting
from .optimizers import OPTIMIZERS, SGD
from .schedules import SCHEDULES, Cosine, Schedule
from .settings import Learning

NONE, BRIGHTNESS, STATISTICS = "none", "brightness", "statistics"


@dataclass(frozen=True, kw_only=True)
class Images:
    """How images reach the network.

    crop       pad by so many zeros on each side, then cut a window at random; 0 leaves them
    flip       probability of a mirror image, left to right
    normalize  "statistics": each channel of mean 0 and deviation 1 over the training images;
               "brightness": 0..1; "none": as stored
    """

    crop: int = setting(0, least=0)
    flip: float = setting(0.0, least=0, most=1)
    normalize: str = setting(
        BRIGHTNESS,
        "Pixels as 0..1, of mean 0 and deviation 1, or as stored.",
        choices=(BRIGHTNESS, STATISTICS, NONE),
    )

    def __post_init__(self) -> None:
        require_valid(self)

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
class Recipe(Learning):
    """The arguments of `Model.fit` that are no data; the schedule is as long as the recipe.

    The adaptive rate's eta belongs to the layers, 0.2 by default. Raises DataError where a number
    is out of range.
    """

    data: Images = field(default_factory=Images)
    schedule: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule.epochs != self.epochs:
            object.__setattr__(
                self, "schedule", dataclasses.replace(self.schedule, epochs=self.epochs)
            )

    def arguments(self) -> dict[str, Any]:
        """For `Model.fit`; `normalize` depends on the data, see `Images.normalization`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Learning)}
        return own | {"learning_rate": self.schedule, "augment": self.data.augment()}

    def text(self) -> str:
        """The TOML file of this recipe; `parse` reads it back."""
        top = records.encode(self, without=_SECTIONS)
        lines = [_line(key, value) for key, value in top.items()]
        for name, table in _SECTIONS.items():
            value = getattr(self, name)
            written = records.encode(value, records.kind_of(value, table), _LEFT_OUT)
            lines += ["", f"[{name}]", *(_line(key, one) for key, one in written.items())]
        return "\n".join([*lines, ""])


# The sections of a file, with the kinds of what they describe; [data] has one kind.
_SECTIONS: dict[str, Mapping[str, type]] = {
    "data": {}, "optimizer": OPTIMIZERS, "schedule": SCHEDULES,
}  # fmt: skip
_LEFT_OUT = ("epochs",)  # the length of a schedule is that of its recipe


MOST_BYTES, MOST_DOTS = 1 << 16, 500
# Reading a dotted key takes the square of its parts: these are the dots that are in no number.
_DOTS = re.compile(r"(?<!\d)\.|\.(?!\d)|\.(?=\d+[ \t]*\.)")


def parse(data: bytes, where: str = "recipe") -> Recipe:
    """The recipe in a TOML file; DataError, naming the key, for anything else."""
    if len(data) > MOST_BYTES:
        raise DataError(f"{where} has {len(data)} bytes; a recipe has at most {MOST_BYTES}")
    try:
        text = data.decode("utf-8-sig")  # editors of Windows begin a file with a byte order mark
        if len(_DOTS.findall(text)) > MOST_DOTS:
            raise DataError(f"{where} has keys of many parts, a.b.c; a recipe has [sections]")
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no TOML file: {error}") from None
    try:
        return _recipe(content)
    except AdderGraphError as error:
        raise DataError(f"{where}: {error}") from None


def _recipe(content: dict[str, Any]) -> Recipe:
    sections = {name: content.pop(name) for name in _SECTIONS if name in content}
    values = records.read(Recipe, content, "recipe")
    for key, name in (("epochs", "epochs"), ("batch", "batch_size")):
        if name not in values:
            raise DataError(f"{key} is missing")
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise DataError(f"{name} is a section, [{name}], with keys of its own")
        values[name] = _section(name, section, values["epochs"])
    if "schedule" not in values:
        raise DataError("the section [schedule] is missing")
    return Recipe(**values)


def _section(name: str, section: dict[str, Any], epochs: int) -> object:
    """The description in a section; the schedule's length is the recipe's."""
    where, table = f"[{name}]", _SECTIONS[name]
    made: Any = records.named(section.pop("kind", None), table, where) if table else Images
    values = records.read(made, section, where, without=_LEFT_OUT)
    if name != "schedule":
        return made(**values)
    if "base" not in values:
        raise DataError("base is missing in [schedule]: the learning rate at the start")
    return made(**values, epochs=epochs)


def _line(name: str, value: object) -> str:
    """`name = value` in TOML."""
    if isinstance(value, tuple):
        return f"{name} = [{', '.join(map(repr, value))}]"
    return f"{name} = {json.dumps(value) if isinstance(value, str | bool) else repr(value)}"


BUILT_IN: dict[str, tuple[str, Recipe]] = {
    "cvpr2020": (
        "CIFAR-10 as in the release of Chen et al. 2020 (main.py of huawei-noah/AdderNet)",
        Recipe(
            epochs=400,
            batch_size=256,
            data=Images(crop=4, flip=0.5, normalize=STATISTICS),
            optimizer=SGD(fan_in=math.inf),
            schedule=Cosine(0.1, 400),
        ),
    ),
    "digits": (
        "the embedded digits, in seconds",
        Recipe(epochs=30, batch_size=64, schedule=Cosine(0.1, 30)),
    ),
    "integers": (
        "quantization-aware training of a trained network on the digits (train --quantize-bits)",
        Recipe(epochs=20, batch_size=64, schedule=Cosine(0.05, 20)),
    ),
    "quick": (
        "five epochs, to see whether a network learns at all",
        Recipe(
            epochs=5,
            batch_size=128,
            data=Images(normalize=STATISTICS),
            optimizer=SGD(nesterov=True),
            schedule=Cosine(0.1, 5, warmup=0.5, by_step=True),
        ),
    ),
}


def find(name: str | os.PathLike[str]) -> Recipe:
    """A built-in recipe by name, or the one in a file that ends in .toml.

    Raises StorageError for a file that cannot be read, DataError for what it holds, and for an
    unknown name.
    """
    text = path("recipe", name)
    if text.endswith(".toml"):
        return parse(read_bytes(text), f'"{text}"')
    if text not in BUILT_IN:
        raise DataError(
            f'unknown recipe "{text}"{nearest(text, BUILT_IN)}; known: {", ".join(BUILT_IN)}, '
            "or a file that ends in .toml"
        )
    return BUILT_IN[text][1]
