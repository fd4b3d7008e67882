"""Images in folders that are called as their classes.

    pets/train/cat/1.png   pets/val/cat/7.png   pets/test/cat/9.png      # the last two optional
    pets/cat/1.png                                                       # all to train on

Two passes: the headers first, from which everything that can be refused is refused before memory is
taken; then the pixels. Between them there are the names alone.
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import DataError, DataWarning, MemoryLimitError, StorageError, nearest
from ..ir import Array
from ..memory import available_memory
from ..settings import require_valid, setting, settings_of
from .dataset import BYTE, Dataset
from .images import (
    STRETCH,
    WAYS,
    bring,
    not_read,
    read_header,
    read_image,
    require_pillow,
    require_size,
)

TRAIN, VALIDATION, TEST = "train", "val", "test"
_PARTS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip
PICTURES = (  # how their names end
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")
_DEEPEST = 16  # folders inside a class; a link that leads back is deeper
_LISTED = 5  # of files in a message
REFUSE, SKIP = "refuse", "skip"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images become those of a data set: `folder:PATH?size=32x48,how=crop`."""

    size: str | None = setting(None)  # HxW
    how: str = setting(STRETCH, choices=WAYS)
    channels: str | None = setting(None, choices=("1", "3"))
    broken: str = setting(REFUSE, choices=(REFUSE, SKIP))

    def __post_init__(self) -> None:
        require_valid(self)
        if self.size is not None and not re.fullmatch(r"\d{1,9}x\d{1,9}", self.size):
            raise DataError(f'size="{self.size}" must be HEIGHTxWIDTH, such as 32x32')

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width); None for that of the images."""
        return None if self.size is None else require_size([int(n) for n in self.size.split("x")])


class Losses:
    """What could not be read, or was left out: how many, and what is said of the first."""

    def __init__(self) -> None:
        self.count, self.said = 0, list[str]()
        self.ends = set[str]()  # of the files' names

    def add(self, what: str) -> None:
        self.count += 1
        self.ends.add(os.path.splitext(what.rstrip('"'))[1][:8])
        if len(self.said) < _LISTED:
            self.said.append(what)

    def __str__(self) -> str:
        more = self.count - len(self.said)
        return "; ".join(self.said) + (f"; and {more} more" if more else "")


Class = tuple[Path, list[str]]  # its folder, and the names of its images in it


def load(spec: Path, unless: Mapping[str, str] = MappingProxyType({})) -> Dataset:
    """The data set in class folders below a path, as `sources.load` describes it; `unless` has
    settings of `Reading` that hold where `spec` does not say them.

    DataError for images that are broken (the first five are named), of different sizes, or too
    large; for a class without images, a single class, classes that the training part lacks;
    MemoryLimitError where all images take more than there is; StorageError for folders that cannot
    be read; UnsupportedError without Pillow. A DataWarning for files that are left out, and for
    animations.
    """
    require_pillow()
    path, reading = _parsed(str(spec), unless)
    strange = Losses()
    folders = _part_folders(path, strange)
    parts = {part: _classes(folder, strange) for part, folder in folders.items()}
    classes = tuple(parts[TRAIN])
    for part, own in parts.items():
        if part != TRAIN:
            _require_known(path, part, own, parts[TRAIN])
    if len(classes) < 2:
        raise DataError(
            f'"{path}" has one class, "{classes[0]}": a network that tells classes needs at least '
            "two, each a folder of images"
        )
    if strange.count:
        _warn(
            f'"{path}": left out, as no class folders or images ({strange.count}): {strange}'
            f"{not_read(strange.ends)}"
        )
    shape = _survey(path, parts, reading)
    arrays: dict[str, Array] = {}
    files: dict[str, tuple[str, ...]] = {}
    broken = Losses()
    for part, own in parts.items():
        x, y, read = _decoded(own, classes, shape, reading, broken)
        arrays |= {f"x_{part}": x, f"y_{part}": y}
        files[f"files_{part}"] = tuple(read)
    for fault in _refused(path, broken, reading):
        raise fault
    for label in np.setdiff1d(np.arange(len(classes)), arrays[f"y_{TRAIN}"])[:1]:
        raise _empty_class(parts[TRAIN][classes[label]][0])
    x, y = arrays[f"x_{TRAIN}"], arrays[f"y_{TRAIN}"]
    held_out = {f"x_{TEST}": x[:0], f"y_{TEST}": y[:0]}
    order = "rgb" if arrays["x_train"].shape[-1] == 3 else ""
    made: dict[str, Any] = {**held_out, **arrays, **files}
    resize = None if reading.size is None else reading.how
    name = path.resolve().name
    return Dataset(name, classes=classes, scale=BYTE, channels=order, resize=resize, **made)


def _parsed(text: str, unless: Mapping[str, str]) -> tuple[Path, Reading]:
    """The folder, and what stands behind a question mark; a folder may have one in its name."""
    if "?" not in text or os.path.isdir(text):
        return Path(text), Reading(**unless)
    path, _, rest = text.rpartition("?")
    if "?" in path and not os.path.isdir(path):
        raise DataError(f'"folder:{text}": options stand behind one "?", with "," between them')
    known = settings_of(Reading)
    given: dict[str, str] = {}
    for pair in rest.split(","):
        key, _, value = pair.partition("=")
        if key not in known or key in given or not value:
            raise DataError(
                f'"{pair}" in "folder:{text}"{nearest(key, known)}: expected '
                "?size=HxW,how=stretch|crop|pad,channels=1|3,broken=skip, each at most once"
            )
        given[key] = value
    if "how" in given and "size" not in {**unless, **given}:
        raise DataError(f'"how={given["how"]}" says how images come to a size: give size=HxW, too')
    return Path(path), Reading(**{**unless, **given})


# --- names ----------------------------------------------------------------------------------------


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What a user put into a folder, links followed, without what systems leave there."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] != "." and entry.name.lower() not in _LEFT_BY_SYSTEMS:
                    yield entry
    except OSError as error:
        raise StorageError(f'cannot read folder "{folder}": {error.strerror or error}') from None


def _composed(name: str) -> str:
    """A name in the one form that equal letters have: systems store "é" in two ways."""
    return unicodedata.normalize("NFC", name)


def _part_folders(path: Path, strange: Losses) -> dict[str, Path]:
    """Where the class folders of each part are, the training part first."""
    found: dict[str, str] = {}
    others = []
    for entry in _entries(path):
        part = _PARTS.get(entry.name.lower()) if _is_folder(entry) else None
        if part is None:
            others.append(entry.name)
        elif part in found:
            raise DataError(f'"{path}" has "{found[part]}" and "{entry.name}"; expected one')
        else:
            found[part] = entry.name
    if not found:
        return {TRAIN: path}
    if TRAIN not in found:
        raise DataError(
            f'"{path}" has "{next(iter(found.values()))}" and no "train": expected the folders '
            "train, val and test, or class folders alone"
        )
    for name in sorted(others):
        strange.add(f'"{path / name}"')
    return {part: path / found[part] for part in (TRAIN, VALIDATION, TEST) if part in found}


def _classes(folder: Path, strange: Losses) -> dict[str, Class]:
    """The classes in a folder with their images, in the order of their names."""
    found: dict[str, Class] = {}
    images_beside = Losses()
    for entry in _entries(folder):
        if not _is_folder(entry):
            (images_beside if _is_image(entry.name) else strange).add(f'"{folder / entry.name}"')
            continue
        name = _composed(entry.name)
        if name in found:
            raise DataError(
                f'"{folder}" has two folders of the same name, "{name}" in two codings: put their '
                "images into one"
            )
        if not _is_text(name):
            raise DataError(f"{folder / entry.name!r}: the name of a class must be UTF-8 text")
        found[name] = folder / entry.name, []
    if images_beside.count or not found:
        what = f"images beside its class folders: {images_beside}" if found else "no class folders"
        raise DataError(
            f'"{folder}" has {what}; put the images of each class into a folder that is called as '
            "the class"
        )
    ordered = {name: found[name] for name in sorted(found)}
    for own, names in ordered.values():
        names.extend(_in_order(_images(own, strange)))
    return ordered


def image_files(folder: Path, strange: Losses) -> list[str]:
    """The images below a folder, by their names in it, in the order of these; other files are
    `strange`. DataError for folders that are too deep, StorageError for those that cannot be
    read."""
    return _in_order(_images(folder, strange))


def _in_order(names: Iterator[str]) -> list[str]:
    return sorted(sorted(names), key=_composed)


def _images(folder: Path, strange: Losses) -> Iterator[str]:
    """The images below a class folder, by their names in it."""
    left = [""]
    while left:
        inside = left.pop()
        if inside.count(os.sep) >= _DEEPEST:
            raise DataError(
                f'"{folder / inside}": folders are {_DEEPEST} deep here; a link may lead back'
            )
        for entry in _entries(folder / inside):
            name = os.path.join(inside, entry.name)
            if _is_folder(entry):
                left.append(name)
            elif _is_image(entry.name):
                yield name
            else:
                strange.add(f'"{folder / name}"')


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _require_known(path: Path, part: str, own: dict[str, Class], classes: Collection[str]) -> None:
    """DataError for images of classes that the training part lacks; an empty folder may be."""
    unknown = [name for name, (_, images) in own.items() if images and name not in classes]
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise DataError(
            f'"{path}": the training part has no class "{", ".join(unknown[:_LISTED])}"{more}, '
            f'which "{part}" has: nothing can be learned of it'
        )


def _empty_class(folder: Path) -> DataError:
    others = not_read(entry.name for entry in _entries(folder))
    return DataError(
        f'"{folder}" has no images ({", ".join(PICTURES)}){others or ": put some there"}, or '
        "remove the folder"
    )


# --- headers, then pixels -------------------------------------------------------------------------


def _survey(path: Path, parts: dict[str, dict[str, Class]], reading: Reading) -> tuple[int, ...]:
    """The shape (H, W, C) of all images, from their headers; names of broken ones are dropped."""
    size, colour, first = reading.shape, False, ""
    broken, animated, faults = Losses(), Losses(), list[DataError]()
    for folder, names in (own for part in parts.values() for own in part.values()):
        kept = []
        for name in names:
            file = folder / name
            try:
                header = read_header(file)
            except (StorageError, DataError) as error:
                broken.add(str(error))
                continue
            kept.append(name)
            colour |= header.channels == 3
            if header.animated:
                animated.add(f'"{file}"')
            if size is None:
                size, first = header[:2], str(file)
            elif not faults and reading.size is None and size != header[:2]:
                faults.append(_other_size((first, size), (str(file), header[:2])))
        if reading.broken == SKIP:
            names[:] = kept
    faults += _refused(path, broken, reading)
    empty = [folder for folder, names in parts[TRAIN].values() if not names]
    faults += map(_empty_class, empty[:_LISTED])
    if faults:  # all kinds at once: reading a large folder again for each takes long
        raise DataError(".\nAlso: ".join(map(str, faults)))
    if animated.count:
        _warn(f"animations, whose first frame is taken ({animated.count}): {animated}")
    assert size is not None  # no class is empty
    shape = (*size, int(reading.channels or (3 if colour else 1)))
    _require_memory(path, sum(len(own[1]) for p in parts.values() for own in p.values()), shape)
    return shape


def _decoded(
    own: dict[str, Class],
    classes: tuple[str, ...],
    shape: tuple[int, ...],
    reading: Reading,
    broken: Losses,
) -> tuple[Array, Array, list[str]]:
    """The images u8, labels i64 and files of a part; broken ones are left out."""
    count, at = sum(len(names) for _, names in own.values()), 0
    x, y = np.empty((count, *shape), np.uint8), np.empty(count, np.int64)
    numbers, files = {name: number for number, name in enumerate(classes)}, list[str]()
    for called, (folder, names) in own.items():
        for name in names:
            try:
                image = read_image(folder / name, shape[2])
            except (StorageError, DataError) as error:
                broken.add(str(error))
                continue
            if reading.size is not None:
                image = bring(image, (shape[0], shape[1]), reading.how)
            if image.shape != shape:  # turned by what stands behind its pixels
                raise _other_size(("others", shape[:2]), (str(folder / name), image.shape[:2]))
            x[at], y[at] = image, numbers[called]
            files.append(str(folder / name))
            at += 1
    return x[:at], y[:at], files


def _other_size(one: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> DataError:
    (first, (h, w)), (second, (height, width)) = one, other
    return DataError(
        f'images have different sizes: "{first}" {h}x{w} (height x width), "{second}" '
        f'{height}x{width}; bring them to one, as "folder:PATH?size={h}x{w}", and with ",how=crop" '
        'or ",how=pad" behind it where they shall not be stretched'
    )


def _refused(path: Path, broken: Losses, reading: Reading) -> list[DataError]:
    """The error for broken images, if any; a warning where they are to be left out."""
    if not broken.count:
        return []
    message = f'"{path}": images that cannot be read ({broken.count}): {broken}'
    if reading.broken == SKIP:
        _warn(f"{message}. They are left out")
        return []
    return [
        DataError(
            f'{message}. Mend or remove them, or leave them out: "?broken=skip" behind the path, '
            '",broken=skip" behind other options'
        )
    ]


def _require_memory(path: Path, count: int, shape: tuple[int, ...]) -> None:
    need, available = count * int(np.prod(shape, dtype=object)), available_memory()
    if available is not None and need > available.nbytes:
        raise MemoryLimitError(
            f'"{path}": {count} images of {"x".join(map(str, shape))} bytes take {need / 1e9:.3g} '
            f"GB; available are {available.nbytes / 1e9:.3g} GB ({available.limit}). Give a "
            'smaller size, as "?size=64x64", or fewer images'
        )


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)
