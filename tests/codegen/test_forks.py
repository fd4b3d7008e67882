"""Forked children compile, whatever other threads of their parent did; so do spawned ones."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from addergraph import compiler
from addergraph.ir.text import parse

TEXT = """graph open(%x: f32[N,6]) params(%f: f32[6,5]) {
  %y = adder_dense(%x, %f) : f32[N,5]
  %z = exp(%y) : f32[N,5]
  return %y, %z
}"""

# The fork meets the other thread's imports, its first compilation, or one of many.
FORKS = """
import faulthandler, os, sys, threading, time
import numpy as np
from addergraph import compiler
from addergraph.ir.text import parse

graph, weights = parse(sys.argv[1]), {"f": np.ones((6, 5), np.float32)}

def compiles():
    program = compiler.compile(graph, weights=weights, threads=2, cache=False)
    return program(np.ones((9, 6), np.float32))

def work():
    while True:
        compiles()

threading.Thread(target=work, daemon=True).start()
time.sleep(float(sys.argv[2]))
for k in range(4):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(20, exit=True)
        compiles()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.01 * k)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("pause", ["0.01", "0.1", "0.5"])
def test_a_child_compiles_that_was_forked_while_another_thread_did(pause: str) -> None:
    """Twelve of twelve waited for LLVM's locks for ever. The process then ends in the middle of a
    compilation on a daemon thread, which LLVM did not always survive."""
    made = subprocess.run(
        [sys.executable, "-c", FORKS, TEXT, pause], capture_output=True, text=True, timeout=300
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "done\n", "")


def _outputs(x: object) -> bytes:
    weights = {"f": np.ones((6, 5), np.float32)}
    program = compiler.compile(parse(TEXT), weights=weights, threads=2)
    return b"".join(a.tobytes() for a in program(x))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_compile_and_run(method: str) -> None:
    """As loaders of data start theirs: some work here before, some in each process."""
    x = np.arange(54, dtype=np.float32).reshape(9, 6)
    expected = _outputs(x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_outputs, [x] * 4) == [expected] * 4
    assert _outputs(x) == expected
