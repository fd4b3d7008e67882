"""Pages in headless Chromium."""

from __future__ import annotations

import subprocess
from pathlib import Path


def dom_of(url: str, profile: Path, budget: int) -> str:
    """What a page has become in Chromium, after so many milliseconds of its own time at most."""
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={profile}", f"--virtual-time-budget={budget}", url],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "<" in done.stdout, done.stderr
    return done.stdout
