"""aot: what stands in the folder of an export already, and folders that cannot be written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.run.jit import Program
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import DataError, StorageError, UnsupportedError
from addergraph.files import storage
from tests.codegen.libraries import (
    CONSTANT,
    NET,
    SHARED,
    compiled,
)

pytestmark = pytest.mark.thinned(2)


@pytest.fixture(scope="module")
def net() -> Program:
    return compiled(NET)


@pytest.fixture(scope="module")
def small() -> Program:
    return compiled(CONSTANT)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def kept(small: Program, tmp_path: Path) -> Path:
    """A folder that holds the export of `small`."""
    small.export(tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("name", ["constant", "other"])
def test_another_network_does_not_replace_an_export(kept: Path, name: str) -> None:
    """Of the same name or not: metadata.json and the example are called alike."""
    before, other = contents(kept), compiled(SHARED.replace("shared", name))
    said = (
        'kept" holds the library "constant" of another network; name another folder, or overwrite'
    )
    with pytest.raises(StorageError, match=said):
        other.export(kept)
    assert contents(kept) == before
    other.export(kept, overwrite=True)
    assert json.loads((kept / "metadata.json").read_text())["name"] == name


def test_another_target_of_the_network_replaces_it(small: Program, kept: Path) -> None:
    lowered = compiler.lower(small.graph, target_named("riscv64-linux-gnu"))
    export(lowered, {}, kept, shared=False)


@pytest.mark.parametrize("name", ["constant.h", "example/main.c", "example/Makefile"])
def test_a_file_that_was_changed_is_kept(small: Program, kept: Path, name: str) -> None:
    with (kept / name).open("a") as file:
        file.write("mine")
    before = contents(kept)
    with pytest.raises(StorageError, match=f'{name}" was changed after it was exported'):
        small.export(kept)
    assert contents(kept) == before
    small.export(kept, overwrite=True)
    assert not (kept / name).read_text().endswith("mine")


@pytest.mark.parametrize("text", [None, "", "[]", "{}"])
def test_files_of_the_users_are_kept(small: Program, tmp_path: Path, text: str | None) -> None:
    (tmp_path / "constant.h").write_text("mine")
    if text is not None:
        (tmp_path / "metadata.json").write_text(text)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=r"of no export|of another network"):
        small.export(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.needs("cc")
def test_an_export_that_was_killed_is_known_for_it(
    small: Program, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are a mixture then; the same network may be exported again."""
    real, written = os.replace, 0

    def killed(source: Path, target: Path) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        small.export(kept)
    monkeypatch.undo()
    with pytest.raises(UnsupportedError, match="no shared library: its export did not end; export"):
        ag.load_native(kept)
    assert small.export(kept).shared is not None
    ag.load_native(kept)


def test_an_export_without_room_for_all_files_changes_none(
    small: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.export(tmp_path, shared=False)
    before, real = contents(tmp_path), storage._write_synced

    def full(path: Path, data: bytes, mode: int | None) -> None:
        if "main.c" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data, mode)

    monkeypatch.setattr(storage, "_write_synced", full)
    with pytest.raises(StorageError, match=r'main\.c": No space left on device'):
        compiled(CONSTANT.replace("2.5", "3.5")).export(tmp_path, shared=False, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.needs("cc")
def test_a_library_is_known_by_its_network(net: Program, tmp_path: Path) -> None:
    loaded = ag.load_native(net.export(tmp_path).code.parent)
    loaded.require_exported_from(net.graph, net.weights, "build")
    other = {**net.weights, "scale": net.weights["scale"] + 1}
    with pytest.raises(DataError, match='"build" was exported from another .* its weights differ;'):
        loaded.require_exported_from(net.graph, other, "build")
    with pytest.raises(DataError, match="its graph differs; .* give the --batch"):
        loaded.require_exported_from(net.graph.bind(2), net.weights, "build")
    with pytest.raises(DataError, match='holds the graph "net", which is no code of "constant"'):
        loaded.require_exported_from(ag.parse(CONSTANT), {}, "build")


# -- folders -------------------------------------------------------------------------------------


@pytest.mark.needs("cc")
def test_a_folder_may_be_named_from_home(
    small: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert small.export("~/made").header == tmp_path / "made" / "constant.h"
    assert ag.load_native("~/made").graph.name == "constant"


def test_a_folder_that_cannot_be_written_is_named(net: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write into the folder .*file/net"):
        net.export(tmp_path / "file" / "net")


def test_programs_with_updates_are_refused(tmp_path: Path) -> None:
    program = compiled(
        """graph step(%x: f32[3]) params(%w: f32[3]) {
        %y = add(%x, %w) : f32[3]
        update %w <- %y
        return %y }"""
    )
    with pytest.raises(UnsupportedError, match='"step" updates its parameters.*inference graph'):
        program.export(tmp_path)
    assert list(tmp_path.iterdir()) == []
