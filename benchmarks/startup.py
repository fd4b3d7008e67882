"""How long it takes to import the package, to compile the demo's network and to load it from the
cache.

    python -m benchmarks.startup

Each figure is the best of several fresh processes, each of which compiles once. Importing passes,
code generator and LLVM happens at the first compilation of a process and is listed by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

IMPORT = "import time; t = time.perf_counter(); import addergraph; print(time.perf_counter() - t)"
COMPILE = """
import json, time
import addergraph as ag
from addergraph.zoo import build
model = build("small-adder", (8, 8, 1), 10, 0)
graph, weights = model.graph(training=False), model.weights
start = time.perf_counter()
import addergraph.codegen.run.jit, addergraph.codegen.kernels.all_kernels
import addergraph.passes.pipeline, addergraph.passes.hoist, addergraph.passes.plan_memory
addergraph.codegen.llvm.host_features()
imported = time.perf_counter()
ag.compile(graph, weights=weights)
done = time.perf_counter()
print(json.dumps([imported - start, done - imported]))
"""


def best(code: str, cache: str, runs: int = 7) -> list[float]:
    """The smallest of each figure that `code` prints, over several processes."""
    environment = {**os.environ, "ADDERGRAPH_CACHE": cache}
    rows = []
    for _ in range(runs):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        found = json.loads(done.stdout)
        rows.append(found if isinstance(found, list) else [found])
    return [min(column) for column in zip(*rows, strict=True)]


def main() -> None:
    print(f"import addergraph        {1e3 * best(IMPORT, '')[0]:7.1f} ms")
    compiler, cold = best(COMPILE, "", 3)
    print(f"import the compiler      {1e3 * compiler:7.1f} ms (on the first compilation)")
    print(f"compile, no cache        {1e3 * cold:7.1f} ms")
    with tempfile.TemporaryDirectory() as cache:
        _, cached = best(COMPILE, cache)
    print(f"load from the cache      {1e3 * cached:7.1f} ms")


if __name__ == "__main__":
    main()
