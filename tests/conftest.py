"""Settings that all tests share. Random tests draw the same examples on every run.

Hypothesis draws from the constants of all loaded modules of ours: nothing is imported up here, so
that a test draws what its own imports say.
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from addergraph import Model

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
    "cc": "gcc", "ld.lld": "lld", "wasm-ld": "lld", "lld-link": "lld", "ld64.lld": "lld",
    "llvm-nm": "llvm", "llvm-ar": "llvm", "node": "nodejs",
    "nm": "binutils", "size": "binutils", "qemu-aarch64": "qemu-user",
    "qemu-riscv32": "qemu-user", "qemu-riscv64": "qemu-user",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu", "qemu-x86_64": "qemu-user",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi", "pio": "platformio",
    **{f"arm-none-eabi-{name}": "binutils-arm-none-eabi" for name in ("ld", "readelf")},
}  # fmt: skip
# Kernels are chosen by the table of this CPU: tests shall not depend on what was measured.
os.environ.setdefault("ADDERGRAPH_MACHINE", "builtin")
settings.load_profile("fuzz" if os.environ.get("AG_FUZZ") else "test")


@pytest.fixture(scope="module")
def quick_objects() -> Iterator[None]:
    """Where machine code is not the subject: programs are compiled as `tests/quick.py` does it.

    Exports, strict programs and what counts instructions are as ever. The cache has other keys.
    """
    from addergraph.codegen import llvm
    from tests import quick

    version = f"{llvm.version()} without optimization"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llvm, "compile_object", quick.compile_object)
        patch.setattr(llvm, "version", lambda: version)
        yield


@pytest.fixture(scope="session")
def digits_of_adders(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The zoo's all-adder, trained on the digits: once, whichever worker comes first."""
    from addergraph import Model, zoo
    from addergraph.data import digits
    from addergraph.training.schedules import cosine

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "all-adder.safetensors"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            data, model = digits.load(), zoo.build("all-adder")
            model.fit(
                data.x_train, data.y_train, epochs=8, batch_size=64, verbose=0,
                learning_rate=cosine(0.1, 8),
            )  # fmt: skip
            model.save(path)
    return Model.load(path)


@pytest.fixture
def fuzz_seed(capsys: pytest.CaptureFixture[str]) -> int:
    """Another number on every run, or AG_FUZZ_SEED."""
    seed = int(os.environ.get("AG_FUZZ_SEED") or secrets.randbits(32))
    with capsys.disabled():
        print(f"\nfuzzing with AG_FUZZ_SEED={seed}")
    return seed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test marked `thinned(n)`, all but one in n or so are slow.

    Which, their names say: a checksum goes across all parameters, and a new case moves no other.
    """
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("thinned") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in cases.values():
        mark = group[0].get_closest_marker("thinned")
        assert mark is not None
        rest = [i for i in group if zlib.crc32(i.name.encode()) % mark.args[0]]
        for item in rest if len(rest) < len(group) else rest[1:]:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: collections need not look at them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


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
