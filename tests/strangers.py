"""Files of another user, whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STRANGER = 54321


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `path`, not what it links to, another user's: really where this is root, who alone
    may; elsewhere as the program sees it."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, -1, follow_symlinks=False)
        return
    key = (found := os.lstat(path)).st_dev, found.st_ino

    def strange(real: os.stat_result) -> os.stat_result:
        if (real.st_dev, real.st_ino) != key:
            return real
        return os.stat_result((*real[:4], STRANGER, *real[5:10]), {"st_mtime_ns": real.st_mtime_ns})

    for name in ("stat", "lstat", "fstat"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, **k: strange(real(*a, **k)))
