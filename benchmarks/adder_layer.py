"""One adder layer against the machine's peak, the NumPy reference and a plain loop nest.

    taskset -c 1 python -m benchmarks.adder_layer

Everything is timed in this one run, on one thread, best of many: the figures to compare are the
ratios. The loop nest is the definition written down as six loops, in Python and, where there is a C
compiler, in C with -O2. A term is one |x - f| (or one multiply-add of a convolution)."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import ops
from addergraph.codegen.measure.peak import measure_peak
from addergraph.codegen.targets.lookup import host
from addergraph.ir.trace import Tensor
from addergraph.ops.contraction.adder2d import Adder2d

C, H, T, K = 64, 28, 64, 3

LOOP_NEST = """
#include <math.h>
void layer(const float *x, const float *f, float *y, int h, int c, int t, int k) {
  int p = k / 2;
  for (int r = 0; r < h; r++) for (int s = 0; s < h; s++) for (int o = 0; o < t; o++) {
    float sum = 0;
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) for (int q = 0; q < c; q++) {
      int a = r + i - p, b = s + j - p;
      float v = a < 0 || b < 0 || a >= h || b >= h ? 0 : x[(a * h + b) * c + q];
      sum += fabsf(v - f[((i * k + j) * c + q) * t + o]);
    }
    y[(r * h + s) * t + o] = -sum;
  }
}
"""


def best(call: Callable[[], object], seconds: float = 1.0) -> float:
    """Seconds of the fastest of many calls."""
    least, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end or least == np.inf:
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return float(least)


def python_loops(x: np.ndarray, f: np.ndarray, outputs: int) -> float:
    """Seconds that the loop nest takes in Python, from `outputs` of its outputs."""
    xs, fs = np.pad(x[0], ((1, 1), (1, 1), (0, 0))).tolist(), f.tolist()
    start = time.perf_counter()
    for o in range(outputs):
        total = 0.0
        for i in range(K):
            for j in range(K):
                for q in range(C):
                    total -= abs(xs[i][j][q] - fs[i][j][q][o])
    return (time.perf_counter() - start) * H * H * T / outputs


def c_loops(x: np.ndarray, f: np.ndarray) -> float | None:
    """Seconds that the loop nest takes in C, or None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "layer.c"), Path(folder, "layer.so")
        source.write_text(LOOP_NEST)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        layer = ctypes.CDLL(str(library)).layer
        y = np.empty((1, H, H, T), np.float32)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, f, y)]
        seconds = best(lambda: layer(*pointers, H, C, T, K))
        expected = Adder2d(padding=(1, 1, 1, 1)).reference(x, f)[0]
        assert np.allclose(y, expected, rtol=1e-4), "the C loop nest computes something else"
        return seconds


def main() -> None:
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(1, H, H, C))).astype(np.float32)
    f = rng.normal(size=(K, K, C, T)).astype(np.float32)
    image = ag.tensor("f32", ("N", H, H, C))

    def timed(layer: str) -> float:
        # relu before it proves x >= 0, as every adder layer after batch norm and relu has it
        def net(x: Tensor) -> Tensor:
            one = ops.relu(x) if layer == "minimum" else x
            new = ag.layers.Conv if layer == "product" else ag.layers.Adder
            return new(T, kernel_size=K, padding=1, name="layer")(one)

        graph = ag.trace(net, image)
        program = ag.compile(graph, weights={"layer.f": f})
        return best(lambda: program(x))

    terms = H * H * T * C * K * K
    native = {form: timed(form) for form in ("minimum", "direct", "product")}
    target = host()
    peaks = {form: measure_peak(form, target) for form in native}
    numpy_seconds = best(lambda: Adder2d(padding=(1, 1, 1, 1)).reference(x, f), 2.0)
    shape = f"{C}x{H}x{H} -> {T}, {K}x{K}"
    print(f"adder2d {shape}, {target.name}, one thread, {terms / 1e6:.1f} M terms")
    for form, seconds in native.items():
        speed = terms / seconds / 1e9
        print(
            f"  {form:8} {1e6 * seconds:8.0f} us  {speed:6.1f} G terms/s  "
            f"{speed / peaks['product']:5.2f} of the FMA peak ({peaks['product']:.1f})  "
            f"{speed / peaks[form]:5.2f} of its own peak ({peaks[form]:.1f})"
        )
    least = native["minimum"]
    print(f"  NumPy reference {numpy_seconds / least:10.0f} times as long")
    print(f"  Python loops    {python_loops(x, f, 20) / least:10.0f} times as long")
    in_c = c_loops(x, f)
    shown = "no C compiler" if in_c is None else f"{in_c / least:10.0f} times as long"
    print(f"  C loops, -O2    {shown}")
    if terms / least / 1e9 < 0.70 * peaks["product"]:
        sys.exit("below 0.70 of the FMA peak")


if __name__ == "__main__":
    main()
