"""Full disks and quotas, at each step of everything that writes files.

A step is a call that takes room or makes a name: opening for writing, writing, syncing, renaming,
making a folder. From step k on every step fails, for every k; removing still works. Where the
system lets us mount one, the same on a real disk (tmpfs) that has room for k pages, for every k up
to what the writer needs.

After each failure: the error is one of ours, and says where and why; every file has the bytes of
the old or of the new version; what was there can be read; nothing else was left. What is optional
(the cache) does not fail at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

from addergraph.errors import AdderGraphError

from .writers import WRITERS

CAUSES = (errno.ENOSPC, errno.EDQUOT)
MOST_PAGES = 48  # tried of a writer that needs more: as many, evenly spread
PAGE = 4096
DISK = 32 << 20  # bytes of the mounted disk
STEPS = ("open", "fdopen", "write", "fsync", "replace", "mkdir")
Files = dict[str, bytes]


class Faults:
    """Lets `allowed` steps in a folder pass; every later one fails with the error number."""

    def __init__(self, folder: Path, allowed: int, cause: int) -> None:
        self._folder, self._allowed, self._cause = os.path.realpath(folder), allowed, cause
        self.steps = 0
        self._real = {name: getattr(os, name) for name in STEPS}

    def __enter__(self) -> Faults:
        self._patches = contextlib.ExitStack()
        for name in STEPS:
            self._patches.enter_context(mock.patch.object(os, name, getattr(self, f"_{name}")))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def _step(self, place: Any) -> None:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        if not os.path.realpath(place).startswith(self._folder):
            return
        self.steps += 1
        if self.steps > self._allowed:
            raise OSError(self._cause, os.strerror(self._cause), str(place))

    def _open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._step(path)
        found: int = self._real["open"](path, flags, *rest, **named)
        return found

    def _fdopen(self, descriptor: int, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = self._real["fdopen"](descriptor, mode, *rest, **named)
        return _File(file, self._step) if "w" in mode else file

    def _write(self, descriptor: int, data: bytes) -> int:
        self._step(descriptor)
        done: int = self._real["write"](descriptor, data)
        return done

    def _fsync(self, descriptor: int) -> None:
        self._step(descriptor)
        self._real["fsync"](descriptor)

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        self._step(target)
        self._real["replace"](source, target, **named)

    def _mkdir(self, path: Any, *rest: Any, **named: Any) -> None:
        if not os.path.isdir(path):
            self._step(path)
        self._real["mkdir"](path, *rest, **named)


class _File:
    """A file whose writing is a step; half of what fails is written, as on a disk."""

    def __init__(self, file: Any, step: Callable[[int], None]) -> None:
        self._file, self._step = file, step

    def write(self, data: bytes) -> int:
        try:
            self._step(self._file.fileno())
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        done: int = self._file.write(data)
        return done

    def writelines(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def files_of(folder: Path) -> Files:
    """The bytes of every file, by its path in the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Site:
    """Where one writer is tried: its old version is put back before each try."""

    def __init__(self, name: str, folder: Path, elsewhere: Path) -> None:
        self.name, self.writer, self.folder = name, WRITERS[name], folder
        self._old = elsewhere / "old"
        self._old.mkdir()
        self.writer.write(self._old, 0)
        new = elsewhere / "new"
        shutil.copytree(self._old, new)
        with Faults(new, 1 << 30, errno.ENOSPC) as counted:
            self.writer.write(new, 1)
        self.steps = counted.steps
        self.old, self.new = files_of(self._old), files_of(new)

    def restore(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self._old, self.folder, dirs_exist_ok=True)

    def write(self) -> bool:
        """Writes the new version; whether it failed. AssertionError where it fails badly."""
        try:
            self.writer.write(self.folder, 1)
        except AdderGraphError as error:
            said = str(error)
        else:
            return False
        assert not self.writer.optional, f"an optional step stopped the work: {said}"
        assert str(self.folder) in said, f"not where: {said}"
        assert any(why in said for why in _REASONS), f"not why: {said}"
        return True

    def judge(self, failed: bool) -> None:
        """AssertionError where what is there now is not what may be there."""
        found = files_of(self.folder)
        known = self.old.keys() | self.new.keys()
        assert found.keys() <= known, f"left behind: {sorted(found.keys() - known)}"
        assert self.old.keys() <= found.keys(), f"lost: {sorted(self.old.keys() - found.keys())}"
        for name, data in found.items():
            same = self.writer.varies or data in (self.old.get(name), self.new.get(name))
            marked = name == self.writer.marker and b"did not end" in data
            assert same or marked, f"{name} is neither the old nor the new file"
        if failed or self.writer.optional:
            self.writer.read(self.folder)


_REASONS = ("No space left", "no space left", "uota exceeded", "File too large")


def with_faults(name: str) -> Iterator[str]:
    """What went wrong at each step of a writer: an empty text where nothing did."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        here, elsewhere = Path(folder) / "here", Path(folder) / "elsewhere"
        here.mkdir()
        elsewhere.mkdir()
        site = Site(name, here, elsewhere)
        for k in range(site.steps):
            site.restore()
            cause = CAUSES[k % len(CAUSES)]
            yield _tried(site, Faults(here, k, cause), f"{os.strerror(cause)} at step {k}")


def on_a_full_disk(name: str, disk: Path) -> Iterator[str]:
    """The same with room for 0, 1, 2, ... pages on a real disk."""
    with tempfile.TemporaryDirectory(prefix="disk-") as elsewhere:
        here = disk / "here"
        here.mkdir()
        site = Site(name, here, Path(elsewhere))
        site.restore()
        need = 4 + sum(-(-len(data) // PAGE) + 1 for data in site.new.values())
        for pages in sorted({need * i // MOST_PAGES for i in range(MOST_PAGES)}):
            site.restore()
            yield _tried(site, _filled(disk, pages), f"room for {pages} pages")
        shutil.rmtree(here)


@contextlib.contextmanager
def _filled(disk: Path, pages: int) -> Iterator[None]:
    """The disk with room for so many pages."""
    ballast = disk / "ballast"
    try:
        status = os.statvfs(disk)
        with open(ballast, "wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, max(1, (status.f_bavail - pages) * status.f_frsize)
            )
        yield
    finally:
        ballast.unlink()


def _tried(site: Site, disk: AbstractContextManager[object], what: str) -> str:
    try:
        with disk:
            failed = site.write()
        site.judge(failed)
    except Exception as error:  # whatever it is, it is what we look for
        return f"{site.name}, {what}: {type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def mounted() -> Iterator[Path | None]:
    """A small disk of its own; None where the system does not let us."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "addergraph-campaign", folder]
        try:
            done = subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            done = False
        try:
            yield Path(folder) if done else None
        finally:
            if done:
                subprocess.run(["umount", folder], check=True)


def campaign(names: Sequence[str]) -> int:
    """All writers, or those of these names; 1 if any failed."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    def count(kind: str, found: Iterator[str]) -> None:
        for text in found:
            counts[kind] += 1
            if text:
                wrong.append(text)
                print(f"FAIL {text}", flush=True)

    with mounted() as disk:
        for name in names or WRITERS:
            count("injected faults", with_faults(name))
            if disk is not None:
                count("full disks", on_a_full_disk(name, disk))
            print(f"{name}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}", flush=True)
        if disk is None:
            print("no disk could be mounted here: faults were injected only")
    print(f"{counts.total()} in all, {len(wrong)} failed")
    return int(bool(wrong))
