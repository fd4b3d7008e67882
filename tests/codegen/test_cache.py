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
import addergraph as ag
from addergraph.codegen.run import cache
from addergraph.errors import EnvironmentWarning, StorageError
from tests.strangers import give_away

FACTS = {"weights": [], "kernels": {"y": "relu"}, "weights_bytes": 0}
CODE = bytes(range(256)) + b"\n\n" + b"code"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "a" / "b"))
    cache._say.cache_clear()
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


@pytest.mark.skipif(os.name != "posix", reason="users")
@pytest.mark.parametrize("version", ["raises", "leaves ~"])
def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """No HOME and a uid without a name, as in containers: compiling needs no cache."""
    monkeypatch.delenv("ADDERGRAPH_CACHE", raising=False)

    def found(name: str) -> Path:
        if version == "raises":
            raise RuntimeError("could not determine the home directory")
        return Path("~/.cache") / name

    monkeypatch.setattr("platformdirs.user_cache_path", found)
    assert cache.folder() is None
    graph = ag.parse("graph g(%x: f32[3]) {\n  %y = relu(%x) : f32[3]\n  return %y\n}")
    assert list(ag.compile(graph)([-1.0, 0.0, 2.0])) == [0, 0, 2]


def test_a_folder_may_be_named_from_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("ADDERGRAPH_CACHE", "~/objects")
    assert cache.folder() == Path("/home/somebody/objects")


# -- whose it is ---------------------------------------------------------------------------------


def refused(folder: Path, key: str, said: str) -> None:
    """Neither read nor written, and said once."""
    before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
    with pytest.warns(EnvironmentWarning, match=said):
        assert cache.load(key) is None
    assert cache.load(key) is None  # warnings are errors here: it is said once
    cache.store(cache.key_of("b"), FACTS, CODE)
    assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(folder: Path, mode: int) -> None:
    key = cache.key_of("a")
    cache.store(key, FACTS, CODE)
    folder.chmod(mode)
    refused(folder, key, f'others may write ".*b" \\(mode {mode:o}\\).*chmod go-w')
    folder.chmod(0o755)
    assert cache.load(key) == (FACTS, CODE)


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(os.name != "posix", reason="users")
def test_a_folder_of_another_user_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cache.key_of("a")
    cache.store(key, FACTS, CODE)
    give_away(folder, monkeypatch)
    refused(folder, key, r"belongs to another user \(uid 54321\), who could make this process run")


@pytest.mark.skipif(os.name != "posix", reason="users and permissions")
@pytest.mark.parametrize("how", ["owner", "mode", "link"])
def test_an_entry_of_others_is_a_miss_and_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    key = cache.key_of("a")
    cache.store(key, FACTS, b"planted")
    entry = folder / key
    if how == "owner":
        give_away(entry, monkeypatch)
    elif how == "mode":
        entry.chmod(0o664)
    else:  # to what somebody else may change
        entry.rename(folder.parent / "elsewhere")
        entry.symlink_to(folder.parent / "elsewhere")
    if how == "link":
        assert cache.load(key) is None
    else:
        with pytest.warns(EnvironmentWarning, match=key):
            assert cache.load(key) is None
    monkeypatch.undo()
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(folder))
    entry.unlink()
    cache.store(key, FACTS, CODE)
    assert cache.load(key) == (FACTS, CODE)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_what_is_written_is_own_whatever_the_umask_is(folder: Path) -> None:
    key, before = cache.key_of("a"), os.umask(0o002)
    try:
        cache.store(key, FACTS, CODE)
        (folder / key).chmod(0o666)
        cache.store(key, FACTS, CODE)  # does not keep the mode of what it replaces
        cache.store(cache.key_of("b"), FACTS, CODE)
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600, 0o600]
    assert cache.load(key) == (FACTS, CODE)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_rates_are_not_measured_into_a_folder_of_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a lock made there: that of a planted link would empty what it points to."""
    from addergraph.codegen.measure import host
    from addergraph.codegen.targets.lookup import target_named

    folder.mkdir(parents=True)
    folder.chmod(0o777)
    host._measured.cache_clear()
    with pytest.warns(EnvironmentWarning, match="others may write"):
        assert host._measured(target_named("host"), str(folder)) is None
    assert list(folder.iterdir()) == []


# -- how much it is ------------------------------------------------------------------------------


def test_the_entries_used_least_recently_go_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(CODE) + 200
    monkeypatch.setattr(cache, "LIMIT", 5 * size)
    keys = [cache.key_of(str(i)) for i in range(6)]
    (folder / "notes").parent.mkdir(parents=True)
    (folder / "notes").write_bytes(bytes(20 * size))  # not ours: neither counted nor removed
    for number, key in enumerate(keys[:5]):
        cache.store(key, FACTS, CODE)
        os.utime(folder / key, (number, number))
    assert cache.usage().entries == 5 and cache.usage().nbytes < 5 * size
    assert cache.load(keys[0]) is not None  # used now: the oldest no longer
    left = folder / f".{keys[0]}.{'0' * 16}.tmp"
    left.write_bytes(bytes(size))  # of a process that was killed while it wrote
    os.utime(left, (0, 0))
    cache.store(keys[5], FACTS, CODE)
    assert not left.exists() and (folder / "notes").exists()
    assert [cache.load(k) is not None for k in keys] == [True, False, False, True, True, True]
    assert cache.usage().nbytes <= 4 * size


def test_few_new_entries_look_at_all_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(cache, "_evict", looks.append)
    for number in range(256):
        cache.store(cache.key_of(str(number)), FACTS, b"code")
    assert cache.usage().entries == 256
    assert 0 < len(looks) < 16


def test_the_newest_entry_stays_however_large_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT", 100)
    for name in "ab":
        cache.store(cache.key_of(name), FACTS, CODE)
    assert cache.load(cache.key_of("b")) == (FACTS, CODE)
    assert cache.usage().entries == 1


def test_clearing_removes_entries_and_nothing_else(folder: Path) -> None:
    assert cache.clear() == cache.Usage(folder, 0, 0)  # there is no folder yet
    cache.store(cache.key_of("a"), FACTS, CODE)
    (folder / "notes").write_text("mine")
    removed = cache.clear()
    assert removed.entries == 1 and removed.nbytes > len(CODE)
    assert [p.name for p in folder.iterdir()] == ["notes"]


def test_a_folder_that_is_a_file_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot read"):
        cache.usage()


# -- keys ----------------------------------------------------------------------------------------


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


@pytest.mark.slow
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
