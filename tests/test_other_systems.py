"""What works where no native code runs, and what a copy without links says.

The systems are played: a process takes away what they lack before it imports the package. Nothing
here runs on them; that code for Linux is not loaded there does not depend on more.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen import llvm
from addergraph.codegen.targets.lookup import TARGETS, has_native_code, host, runnable
from addergraph.errors import TargetError

ROOT = Path(__file__).parent.parent

# NumPy and the others choose by the system when they are imported: these come first.
SCRIPT = """
import concurrent.futures, contextlib, ctypes, io, os, signal, subprocess, sys, tempfile
import capstone, click, filelock, llvmlite.binding, networkx, numpy, platformdirs, safetensors.numpy
sys.platform, root = sys.argv[1], sys.argv[2]
lacks = ["memfd_create", "sched_getaffinity", "sched_setaffinity"]
if sys.platform == "win32":
    lacks += ["fork", "geteuid", "getuid", "O_NOFOLLOW", "O_NONBLOCK", "register_at_fork"]
    sys.modules.update(dict.fromkeys(("fcntl", "grp", "pwd", "resource")))
    del signal.SIGHUP
for name in lacks:
    delattr(os, name)
sys.path.insert(0, root)
from addergraph.cli import main
for line in sys.stdin.read().splitlines():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main.main(line.split())
        except SystemExit as end:
            status = end.code
    print(status, out.getvalue().strip().splitlines()[-1])
"""
WORK = (
    "summary small-adder",
    "check small-conv",
    "train --data few.npz --epochs 1 --engine reference --model all-adder -o m.safetensors",
    "evaluate m.safetensors --data few.npz --engine reference",
    "quantize m.safetensors --data few.npz -o q.safetensors --force",  # a network of one epoch
    "evaluate q.safetensors --data few.npz --engine reference",
    "compile m.safetensors --target x86-64 -o linux",
    "cache",
)
REFUSED = (
    "compile m.safetensors -o here",
    "train --data few.npz --epochs 1 -o n.safetensors",
    "evaluate m.safetensors --data few.npz",
    "verify m.safetensors",
    "verify m.safetensors --native linux",
    "bench m.safetensors --seconds 0",
)


@pytest.mark.parametrize("system", ["darwin", "freebsd14", "win32"])
def test_native_code_is_refused_elsewhere(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "graph g(%x: f32[3]) {\n  %y = relu(%x) : f32[3]\n  return %y\n}"
    llvm.version()  # loads the library of this system, not of that one
    monkeypatch.setattr(sys, "platform", system)
    assert not has_native_code() and not any(map(runnable, TARGETS.values()))
    for target in ("host", "x86-64", "aarch64-linux-gnu"):
        with pytest.raises(TargetError, match=f'is a 64-bit process on "{system}", .*NumPy'):
            ag.compile(ag.parse(text), target=target)
        with pytest.raises(TargetError, match="runs native code on 64-bit Linux"):
            compiler.measure_peak(target=target)


@pytest.mark.slow
def test_everything_but_running_works_on_windows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(40) % 10)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, "win32", str(ROOT)], cwd=tmp_path,
        input="\n".join((*WORK, *REFUSED)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for command, line in zip((*WORK, *REFUSED), lines, strict=True):
        if command in WORK:
            assert line.startswith("0 "), (command, line)
            continue
        said = "2 error: AdderGraph runs native code on 64-bit Linux, on x86-64 and AArch64; "
        assert line.startswith(f'{said}this is a 64-bit process on "win32"'), (command, line)
        assert 'engine="reference" (NumPy), and compile for a target: x86-64, ' in line


def test_32_bit_processes_run_no_64_bit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a 32-bit system under a 64-bit kernel, which `uname -m` does not tell."""
    assert has_native_code()
    monkeypatch.setattr(struct, "calcsize", lambda format: 4)
    with pytest.raises(TargetError, match="this is a 32-bit process"):
        host()
    assert not has_native_code() and not any(map(runnable, TARGETS.values()))


def test_a_copy_that_lost_its_links_says_so(tmp_path: Path) -> None:
    """As git makes it on Windows, and archives that know no links."""
    package = tmp_path / "addergraph"
    package.mkdir()
    source = Path(ag.__file__)
    (package / "__init__.py").write_bytes(source.read_bytes())
    (package / "codegen").write_text("../codegen")
    done = subprocess.run(
        [sys.executable, "-c", "import addergraph"], cwd=tmp_path, env={"PYTHONPATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("ImportError: ")]
    assert "has lost its symbolic links" in line and "core.symlinks=true" in line
