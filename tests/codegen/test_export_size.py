"""Exports of large weights: no copy of them but the packed one, and the same bytes as ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from addergraph.codegen import llvm
from addergraph.codegen.export.attributes import passing_no_floats
from addergraph.codegen.export.data import data_object
from addergraph.codegen.export.entry import data_module
from addergraph.codegen.export.entry_parts import checksum
from addergraph.codegen.targets.lookup import target_named

pytestmark = pytest.mark.slow

MEGABYTES = 16
SCRIPT = """
import resource, sys
import numpy as np
import addergraph as ag
from addergraph import compiler


def export(inputs, folder):
    graph = ag.parse(f'''graph big(%x: f32[N,{inputs}]) params(%f: f32[{inputs},2048] init=zeros) {{
      %y = {sys.argv[2]}(%x, %f) : f32[N,2048]
      return %y
    }}''')
    weights = {"f": np.ones((inputs, 2048), np.float32)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compiler.export(graph, folder, weights=weights, target="x86-64-v3")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak

export(8, sys.argv[1] + "/small")  # imports, and what LLVM keeps
print(export(int(sys.argv[3]), sys.argv[1] + "/large"))
"""


@pytest.mark.parametrize("op", ["dense", "adder_dense"])
def test_an_export_holds_its_weights_once_more(op: str, tmp_path: Path) -> None:
    """Packed, they are as large again; NumPy packs 8 MiB at a time and makes three copies of that,
    so 16 MiB may cost 40 MiB. As text for LLVM they cost twelve times their size."""
    inputs = str((MEGABYTES << 20) // (4 * 2048))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), op, inputs],
        cwd=Path(__file__).parent.parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3.5 * 1024 * MEGABYTES  # KiB
    assert (tmp_path / "large" / "big_data.o").stat().st_size > MEGABYTES << 20


@pytest.mark.parametrize(
    "target", ["x86-64", "aarch64-linux-gnu", "riscv64-linux-gnu", "thumbv6m", "riscv32i"]
)
@pytest.mark.parametrize("size", [0, 64, 128, 4096])
def test_the_data_object_is_that_of_llvm(target: str, size: int) -> None:
    weights = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    golden, metadata = bytes(range(100)), b"{}"
    machine = target_named(target)
    whole = passing_no_floats(
        llvm.compile_object(data_module("net", machine, weights, golden, metadata), machine)
    )
    assert b"".join(data_object("net", machine, weights, golden, metadata)) == whole


def test_the_checksum_is_one_of_words_however_many_are_summed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 1000, np.uint32)
    first = second = 0
    for word in words.tolist():
        first = (first + word) % 2**32
        second = (second + first) % 2**32
    expected = first.to_bytes(4, "little") + second.to_bytes(4, "little")
    assert checksum(words.view(np.uint8)) == expected
    monkeypatch.setattr("addergraph.codegen.export.entry_parts.SUMMED", 7)
    assert checksum(words.view(np.uint8)) == expected
    assert checksum(np.zeros(0, np.uint8)) == bytes(8)
