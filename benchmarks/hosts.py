"""One int8 network on this machine as native code and as WebAssembly, and what choosing code costs.

    python -m benchmarks.hosts [--network all-adder] [--bursts 200]

Every library is called one image at a time, by a C program or by Node; a time is that of the
fastest of many bursts. The rows of "a few bytes" are of a graph that does next to nothing: by what
x86-64-every takes longer there than code of the level that it chooses, it asks for the CPU and
jumps. Needs cc and, for WebAssembly, wasm-ld and node. Pin it: `taskset -c 1 python -m ...`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.data import digits
from addergraph.ir import Graph
from addergraph.ir.text import parse
from addergraph.tables import Table
from tests.codegen.harness import HERE

FEW = "graph few(%x: u8[N,8]) {\n  %y = cast(%x) dtype=i32 : i32[N,8]\n  return %y\n}"
IN_C = """
#include <stdio.h>
#include <time.h>
#include "net.h"
static unsigned char in[1 << 22] __attribute__((aligned(64)));
static unsigned char out[1 << 16] __attribute__((aligned(64)));
static unsigned char arena[NET_ARENA_BYTES] __attribute__((aligned(NET_ARENA_ALIGN)));
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}
int main(void)
{
    double best = 1e30, start, took;
    for (int burst = 0; burst < BURSTS; burst++) {
        start = now();
        for (int i = 0; i < CALLS; i++)
            if (net_run((const void *)in, (void *)out, arena) != 0)
                return 1;
        took = (now() - start) / CALLS;
        best = took < best ? took : best;
    }
    printf("%.6f\\n", best);
    return 0;
}
"""
IN_NODE = """
import { load, inputs } from "./net.js";
const net = await load(), size = inputs[0].shape.reduce((a, b) => a * b, 1);
const image = new Uint8Array(size);
let best = Infinity;
for (let burst = 0; burst < BURSTS; burst++) {
  const start = performance.now();
  for (let i = 0; i < CALLS; i++) net.run(image);
  best = Math.min(best, 1e3 * (performance.now() - start) / CALLS);
}
console.log(best);
"""


def in_c(folder: Path, bursts: int, calls: int) -> float:
    """Microseconds of a call."""
    (folder / "main.c").write_text(IN_C)
    counts = [f"-DBURSTS={bursts}", f"-DCALLS={calls}"]
    command = ["cc", "-std=gnu11", "-O2", *counts, "-o", "main", "main.c", "libnet.a"]
    subprocess.run(command, cwd=folder, check=True)
    return float(subprocess.run([folder / "main"], capture_output=True, check=True).stdout)


def in_node(folder: Path, bursts: int, calls: int) -> float:
    """Microseconds of a call, what `run` of net.js does around it included."""
    text = IN_NODE.replace("BURSTS", str(bursts)).replace("CALLS", str(calls))
    (folder / "time.mjs").write_text(text)
    done = subprocess.run(["node", "time.mjs"], cwd=folder, capture_output=True, check=True)
    return float(done.stdout)


def timed(
    graph: Graph, weights: Mapping[str, np.ndarray], target: str, bursts: int, calls: int
) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ag.export(graph, folder, weights=weights, target=target, name="net", batch=1)
        return (in_node if target == "wasm32" else in_c)(folder, bursts, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="all-adder")
    parser.add_argument("--bursts", type=int, default=200)
    options = parser.parse_args()
    data = digits.load()
    model = zoo.build(options.network, data.x_train.shape[1:], 10, 0)
    model.fit(data.x_train, data.y_train, epochs=3, batch_size=64, verbose=0)
    network = ag.quantize(model, data.x_train)
    levels = [level.name for level in X86_LEVELS if level.name in HERE]
    targets = [*levels, "x86-64-every"]
    if shutil.which("node") and shutil.which("wasm-ld"):
        targets.append("wasm32")
    rows = []
    few = parse(FEW)
    for what, graph, weights, calls in (
        (options.network, network.graph, network.weights, 50), ("a few bytes", few, {}, 5000),
    ):  # fmt: skip
        found = {t: timed(graph, weights, t, options.bursts, calls) for t in targets}
        first = found[targets[0]]
        rows += [(what, t, f"{us:.3f}", f"{us / first:.2f}") for t, us in found.items()]
        if graph is few:
            extra = 1e3 * (found["x86-64-every"] - found[levels[-1]])
    heads = ["graph", "target", "us a call", "ratio"]
    print("\n".join(Table(heads, rows, heads[:2]).lines()))
    print(f"x86-64-every takes {extra:.1f} ns a call longer than {levels[-1]}")


if __name__ == "__main__":
    main()
