"""The inputs that are kept: for each parser a zip file, the same bytes for the same inputs.

`minimised` keeps few of many: those that take a way through the project's files that no smaller
input took.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

FOLDER = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / folder) for folder in ("addergraph", "passes", "codegen"))
Way = tuple[str, int, int]  # file, line, the line before it in the same call


def named(inputs: Iterable[bytes]) -> dict[str, bytes]:
    """By the beginning of their digests."""
    return {hashlib.sha256(data).hexdigest()[:12]: data for data in inputs}


def kept(name: str) -> dict[str, bytes]:
    """The inputs of a parser in the tree, by name."""
    path = FOLDER / f"{name}.zip"
    if not path.exists():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def keep(name: str, inputs: Mapping[str, bytes]) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member in sorted(inputs):
            archive.writestr(zipfile.ZipInfo(member), inputs[member], zipfile.ZIP_DEFLATED, 9)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.zip").write_bytes(made.getvalue())


def minimised(inputs: Iterable[bytes], run: Callable[[bytes], object], most: int) -> list[bytes]:
    """Of `inputs` at most `most` bytes, the smallest first; `run` gives one to its parser."""
    seen: set[Way] = set()
    found, left = [], most
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        if len(data) > left:
            continue
        new = ways(lambda data=data: run(data)) - seen  # type: ignore[misc]
        if new:
            seen |= new
            found.append(data)
            left -= len(data)
    return found


def ways(call: Callable[[], object]) -> set[Way]:
    """The steps from line to line in the project's files that a call takes."""
    taken: set[Way] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(OURS):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                taken.add((file, frame.f_lineno, last))
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return taken


def files_in(folder: Path) -> Iterator[bytes]:
    """The inputs that a fuzzer left in a folder."""
    for path in sorted(folder.glob("*")):
        if path.is_file():
            yield path.read_bytes()
