"""The cache on disk: keys, entries, and what a damaged or missing folder does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import addergraph
from addergraph.codegen.run import cache

FACTS = {"weights": [], "kernels": {"y": "relu"}, "weights_bytes": 0}
CODE = bytes(range(256)) + b"\n\n" + b"code"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "a" / "b"))
    return tmp_path / "a" / "b"


def test_what_is_stored_is_loaded(folder: Path) -> None:
    key = cache.key_of("a")
    assert cache.load(key) is None
    cache.store(key, FACTS, CODE)
    assert cache.load(key) == (FACTS, CODE)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in folder.iterdir()] == [key]  # no temporary file stays


def test_an_entry_is_replaced_whole(folder: Path) -> None:
    key = cache.key_of("a")
    cache.store(key, FACTS, CODE)
    cache.store(key, FACTS, b"other")
    assert cache.load(key) == (FACTS, b"other")


def test_every_flipped_byte_and_every_cut_is_a_miss(folder: Path) -> None:
    key = cache.key_of("a")
    cache.store(key, FACTS, CODE)
    entry = folder / key
    good = entry.read_bytes()
    for position in range(len(good)):
        entry.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        assert cache.load(key) is None, position
        entry.write_bytes(good[:position])
        assert cache.load(key) is None, position
    entry.write_bytes(good + b"\0")
    assert cache.load(key) is None


def test_a_folder_in_the_place_of_an_entry_is_a_miss(folder: Path) -> None:
    key = cache.key_of("a")
    (folder / key).mkdir(parents=True)
    assert cache.load(key) is None
    cache.store(key, FACTS, CODE)
    assert cache.load(key) is None


def test_a_folder_that_cannot_be_made_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "file" / "cache"))
    cache.store(cache.key_of("a"), FACTS, CODE)
    assert cache.load(cache.key_of("a")) is None


def test_an_empty_name_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDERGRAPH_CACHE", "")
    assert cache.folder() is None
    cache.store(cache.key_of("a"), FACTS, CODE)
    assert cache.load(cache.key_of("a")) is None


def test_without_a_name_it_is_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADDERGRAPH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    folder = cache.folder()
    assert folder is not None and folder.name == "objects"
    assert "addergraph" in str(folder)


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_different_parts_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (cache.key_of(*one) == cache.key_of(*other)) == (one == other)


def test_parts_do_not_run_into_each_other() -> None:
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc") != cache.key_of("abc")
    assert cache.key_of("1:a") != cache.key_of("a")


def key_in(folder: Path) -> str:
    """A key in a new process that imports the package from `folder`."""
    script = (
        "import addergraph; from addergraph.codegen.run import cache\n"
        "print(addergraph.__file__, cache.key_of('a'))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, key = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    return key


def test_an_edit_anywhere_in_the_package_changes_every_key(tmp_path: Path) -> None:
    """Kernels are not only what lies beside them: an op's attributes end in the code, too."""
    package = tmp_path / "addergraph"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(addergraph.__file__).parent, package, ignore=without)
    first = key_in(tmp_path)
    assert first == cache.key_of("a")  # wherever it is, with links or without
    (package / "notes.txt").write_text("x = 1\n")
    assert key_in(tmp_path) == first
    for part in ("ops", "passes", "codegen/kernels"):
        *_, deepest = sorted((package / part).rglob("*.py"), key=lambda p: len(p.parts))
        good = deepest.read_bytes()
        deepest.write_bytes(good + b"\n")
        assert key_in(tmp_path) != first, part
        deepest.write_bytes(good)
    (package / "ops" / "another.py").touch()
    assert key_in(tmp_path) != first
