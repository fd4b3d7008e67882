"""The default number of threads follows affinity and quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from addergraph.processors import usable_processors
from addergraph.training.step import thread_count

FILES = {
    "version 2, of the group": (
        "0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "cpu.max": "max 100000\n"}, 2
    ),
    "version 2, of the group above": ("0::/a/b\n", {"a/cpu.max": "350000 100000"}, 3),
    "version 2, less than one": ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, 8),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000\n", "cpu/x/cpu.cfs_period_us": "1",
         "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 4,
    ),
    "version 1, no limit": (
        "3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8
    ),
    "more than there are": ("0::/\n", {"cpu.max": "9900000 100000"}, 8),
    "damaged": ("0::/\n:\n\n", {"cpu.max": "a b c"}, 8),
    "nothing": ("", {}, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_quotas(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, files, expected = FILES[name]
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    for path, text in (files | {"proc/self/cgroup": groups}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_processors(tmp_path) == expected


def test_the_default_number_of_threads() -> None:
    assert thread_count(None) == usable_processors() >= 1
    assert thread_count(3) == 3


def test_files_of_quotas_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    thread_count(None)

    def refuse(*_: object) -> None:
        raise AssertionError("a prediction must not read files")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert thread_count(None) >= 1
