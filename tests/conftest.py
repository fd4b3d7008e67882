"""Settings that all tests share. Random tests draw the same examples on every run."""

from __future__ import annotations

import gc
import os
import secrets
import shutil

import pytest
from hypothesis import HealthCheck, Phase, settings

_COMMON = settings(
    deadline=None,  # the machine may be busy
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("test", _COMMON, derandomize=True)
# A planted bug has to be found, not to be shown in its smallest form.
settings.register_profile(
    "drill", _COMMON, derandomize=True, phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("fuzz", _COMMON, max_examples=1000, print_blob=True)
# Debian's packages, where they are not called as the program is.
_PACKAGES = {
    "cc": "gcc", "ld.lld": "lld", "nm": "binutils", "qemu-aarch64": "qemu-user",
    "qemu-riscv32": "qemu-user", "qemu-riscv64": "qemu-user",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu",
}  # fmt: skip
# Kernels are chosen by the table of this CPU: tests shall not depend on what was measured.
os.environ.setdefault("ADDERGRAPH_MACHINE", "builtin")
settings.load_profile("fuzz" if os.environ.get("AG_FUZZ") else "test")


@pytest.fixture
def fuzz_seed(capsys: pytest.CaptureFixture[str]) -> int:
    """Another number on every run, or AG_FUZZ_SEED."""
    seed = int(os.environ.get("AG_FUZZ_SEED") or secrets.randbits(32))
    with capsys.disabled():
        print(f"\nfuzzing with AG_FUZZ_SEED={seed}")
    return seed


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: collections need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked `needs("cc")` where there is no cc, before its fixtures are made."""
    for mark in item.iter_markers("needs"):
        missing = [program for program in mark.args if shutil.which(program) is None]
        if missing:
            packages = " ".join(dict.fromkeys(_PACKAGES.get(p, p) for p in missing))
            pytest.skip(
                f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install {packages}"
            )
