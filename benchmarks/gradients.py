"""Gradient kernels of the ResNet-20 layers against the machine's peak.

    taskset -c 0 python -m benchmarks.gradients            # batch 64, one thread
    taskset -c 0 python -m benchmarks.gradients --target x86-64-v3

Kernels and peaks take turns in this one run, best of many: the figures to compare are the ratios.
A term is one multiply-add of a convolution, or one g clip(f - x, -1, 1). The input gradient of
adder layers is held against the faster of two register-only loops (`codegen/measure/peak.py`),
everything else against multiply-add.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from addergraph.codegen.emit.module import standalone
from addergraph.codegen.kernels import Call, Operand, kernel_for
from addergraph.codegen.llvm import LoadedObject, compile_object
from addergraph.codegen.measure.peak import measure_peak
from addergraph.codegen.targets.lookup import target_named
from addergraph.codegen.targets.target import Target
from addergraph.ir import Array, Halo, Op
from addergraph.ir.plan import Layout, align
from addergraph.ir.types import TensorType, tensor
from addergraph.ops.contraction.adder2d import Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.conv2d import Conv2dGradFilter, Conv2dGradInput

ROUNDS, CALLS = 8, 8
REQUIRED = 0.85
LAYERS = ((16, 32, 16, 1), (16, 32, 32, 2), (32, 16, 32, 1), (32, 16, 64, 2), (64, 8, 64, 1))
CACHE_LINE = 64


def aligned(nbytes: int) -> Array:
    """Zeroed f32 memory that starts a cache line."""
    raw = np.zeros(nbytes // 4 + CACHE_LINE // 4, np.float32)
    start = -raw.ctypes.data % CACHE_LINE // 4
    return raw[start : start + nbytes // 4]


def prepared(op: Op, types: Sequence[TensorType], target: Target) -> Callable[[], object]:
    """One call of the op's kernel on random operands."""
    results = op.infer(*types)
    halos = [*op.halo(types), *(Halo() for _ in results)]
    operands = [
        Operand(t, Layout(t.sizes, h)) for t, h in zip((*types, *results), halos, strict=True)
    ]
    count = len(types)
    call = Call(op, tuple(operands[:count]), tuple(operands[count:]), target, frozenset())
    kernel, rng = kernel_for(call), np.random.default_rng(0)
    buffers = [aligned(o.layout.nbytes(o.type)) for o in operands]
    for buffer in buffers[:count]:
        buffer[:] = rng.normal(size=buffer.size)
    pointers = [b.ctypes.data + 4 * o.layout.origin for b, o in zip(buffers, operands, strict=True)]
    scratch = [aligned(align(kernel.workspace)), aligned(CACHE_LINE)]  # workspace and barrier
    pointers += [b.ctypes.data for b in scratch]
    loaded = LoadedObject(compile_object(standalone(call), target), target)
    run = ctypes.CFUNCTYPE(
        None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64, ctypes.c_int64
    )(loaded.address("kernel"))
    alive = (buffers, scratch, loaded)
    return lambda: (run(*pointers, 0, 1), alive)


def jobs(batch: int, target: Target) -> list[tuple[Op, str, str, int, Callable[[], object]]]:
    """(op, layer and op, form of its peak, terms, call)."""
    made = []
    for c, h, t, s in LAYERS:
        padding = (1, 1, 1, 1) if s == 1 else (0, 1, 0, 1)
        g, x = tensor("f32", (batch, h // s, h // s, t)), tensor("f32", (batch, h, h, c))
        f = tensor("f32", (3, 3, c, t))
        ops: list[tuple[Op, tuple[TensorType, ...], str]] = [
            (Adder2dGradInput((s, s), padding), (g, x, f), "clip"),
            (Adder2dGradFilter((s, s), padding), (g, x, f), "product"),
            (Conv2dGradInput((s, s), padding, input_size=(h, h)), (g, f), "product"),
            (Conv2dGradFilter((s, s), padding, kernel_size=(3, 3)), (g, x), "product"),
        ]
        terms = batch * (h // s) ** 2 * t * c * 9
        for op, types, form in ops:
            label = f"{c:2}x{h}x{h} -> {t:2}  {op.name:20}"
            made.append((op, label, form, terms, prepared(op, types, target)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--target", default="host")
    arguments = parser.parse_args()
    target = target_named(arguments.target)
    work = jobs(arguments.batch, target)
    peaks = dict.fromkeys(("product", "clip"), 0.0)
    best = [np.inf] * len(work)
    for _ in range(ROUNDS):
        peaks["product"] = max(peaks["product"], measure_peak("product", target, 0.1))
        for form in ("clip", "between"):
            peaks["clip"] = max(peaks["clip"], measure_peak(form, target, 0.1))
        for number, (*_, call) in enumerate(work):
            for _ in range(CALLS):
                start = time.perf_counter()
                call()
                best[number] = min(best[number], time.perf_counter() - start)
    print(f"{target.name}, batch {arguments.batch}, one thread; G terms/s, share of the peak")
    print(
        f"  peaks: multiply-add {peaks['product']:.1f}, clip and multiply-add {peaks['clip']:.1f}"
    )
    short = []
    for (op, label, form, terms, _), seconds in zip(work, best, strict=True):
        speed = terms / seconds / 1e9
        share = speed / peaks[form]
        print(f"  {label}  {speed:6.1f}  {share:5.2f}")
        if share < REQUIRED and op.gradient_of is not None and op.gradient_of.measures_distance:
            short.append(label)
    if short:
        sys.exit(f"below {REQUIRED} of the peak: {'; '.join(short)}")


if __name__ == "__main__":
    main()
