"""`make drill-kill` in short: runs that are killed end as if nothing had happened."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.drill_kill import Run, drill


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_three_kills(tmp_path: Path) -> None:
    report = drill(3, tmp_path, partial(Run, epochs=6), seed=2)
    assert report.kills.total() == 3 and report.runs >= 1
