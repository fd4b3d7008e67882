"""Movement: every number arrives unchanged, and nothing else is written."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addergraph.codegen.emit.builder import I64, POINTER, Emitter
from addergraph.codegen.emit.module import ModuleEmitter
from addergraph.codegen.kernels import Operand
from addergraph.codegen.kernels.movement import CopyKernel
from addergraph.codegen.llvm import LoadedObject, compile_object
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array, Halo, Op
from addergraph.ir.plan import Layout
from addergraph.ir.types import DTYPES, f32, tensor
from addergraph.ops.movement.broadcast_to import BroadcastTo
from addergraph.ops.movement.concat import Concat
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten, Reshape
from addergraph.ops.movement.resize_nearest import ResizeNearest
from addergraph.ops.movement.slice import Slice
from addergraph.ops.movement.transpose import Transpose
from tests.codegen.harness import RUNS, guarded, run_call, same_bits

EXAMPLES = settings().max_examples // 2
SIZES = st.sampled_from([0, 1, 1, 2, 3, 5, 7, 16, 17, 33])
HALO = Halo(1, 0, 2, 1)


def numbers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Random bits: NaNs and -0.0 move like all others."""
    numpy = DTYPES[dtype].numpy
    raw = rng.integers(0, 2 if dtype == "bool" else 256, (*shape, numpy.itemsize), np.uint8)
    return raw.view(numpy).reshape(shape)


def same(found: Array, expected: Array) -> bool:
    return found.shape == expected.shape and found.tobytes() == expected.tobytes()


def require_moved(op: Op, arrays: list[Array], run: tuple[str, int], halos: bool) -> None:
    (expected,) = op.reference(*arrays)
    ranks = enumerate(a.ndim for a in (*arrays, expected))
    chosen = {i: Halo(i, 1, 1, 2) for i, rank in ranks if rank == 4 and halos}
    (found,) = run_call(op, arrays, target=run[0], threads=run[1], halos=chosen)
    assert same(found, expected), (op, found, expected)


@st.composite
def movements(draw: st.DrawFn) -> tuple[Op, list[Array]]:
    """An op of this family with operands."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    x, rank = numbers(rng, dtype, shape), len(shape)
    few = st.integers(0, 3)
    moves = ["transpose", "slice", "pad", "broadcast", "concat", "reshape", "resize"]
    match draw(st.sampled_from(moves)):
        case "transpose":
            return Transpose(tuple(draw(st.permutations(range(rank))))), [x]
        case "slice":
            ends = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
            return Slice(tuple(a for a, _ in ends), tuple(b for _, b in ends)), [x]
        case "pad":
            before, after = (tuple(draw(few) for _ in shape) for _ in range(2))
            value = {"f32": -0.1, "i32": -70000.0, "u8": 200.0, "i8": -7.0, "bool": 1.0}[dtype]
            return Pad(before, after, value), [x]
        case "broadcast":
            thin = x[tuple(slice(0, 1 if draw(st.booleans()) else None) for _ in shape)]
            return BroadcastTo(shape), [np.ascontiguousarray(thin)]
        case "concat":
            axis = draw(st.integers(0, rank - 1))
            parts = [(*shape[:axis], draw(SIZES), *shape[axis + 1 :]) for _ in range(3)]
            return Concat(axis), [numbers(rng, dtype, s) for s in parts]
        case "resize" if rank == 4:
            return ResizeNearest((draw(st.integers(1, 3)), draw(st.integers(1, 3)))), [x]
    split = [f for n in shape for f in ((n // 2, 2) if n % 2 == 0 and n else (n,))]
    shapes = [shape[::-1], tuple(split), (math.prod(shape),), (1, *shape)]
    return draw(st.sampled_from([Flatten(), *map(Reshape, shapes)])), [x]


@pytest.mark.slow
@settings(max_examples=2 * EXAMPLES)
@given(movements(), st.sampled_from(RUNS), st.booleans())
def test_any_movement(case: tuple[Op, list[Array]], run: tuple[str, int], halos: bool) -> None:
    require_moved(*case, run, halos)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_scalar_moves(run: tuple[str, int]) -> None:
    x = np.asarray(np.float32(3.5))
    for op in (Reshape((1, 1)), BroadcastTo((5, 3)), Pad((), ()), Slice((), ()), Transpose(())):
        require_moved(op, [x], run, False)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_larger_tensors_in_halos(run: tuple[str, int]) -> None:
    rng = np.random.default_rng(2)
    x = numbers(rng, "f32", (2, 12, 10, 33))
    for op in (
        Flatten(),
        Reshape((2, 10, 12, 33)),
        Transpose((0, 3, 1, 2)),
        Pad((0, 1, 2, 0), (0, 0, 1, 3), -1.5),
        Slice((0, 1, 2, 3), (2, 11, 9, 30)),
        BroadcastTo((2, 12, 10, 33)),
        ResizeNearest((2, 3)),
    ):
        for halos in (False, True):
            require_moved(op, [x], run, halos)


def test_staging_into_a_halo_keeps_the_numbers() -> None:
    x = np.random.default_rng(3).normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
    host = target_named("host")
    source, result = (Operand(tensor(f32, x.shape), Layout(x.shape, h)) for h in (Halo(), HALO))
    call = CopyKernel.staging(source, result, host)
    assert (call.inputs, call.outputs) == ((source,), (result,))
    (found,) = run_call(call.op, [x], halos={1: HALO})
    assert same_bits(found, x)


@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 2, 33), (2, 0, 3, 4)], ids=str
)
def test_zeroing_a_halo_touches_the_ring_and_nothing_else(
    shape: tuple[int, ...], run: tuple[str, int]
) -> None:
    target, threads = target_named(run[0]), run[1]
    operand = Operand(tensor(f32, shape), Layout(shape, HALO))
    made = ModuleEmitter("zeroing", target)
    inner = made.zero_halo(operand)
    function = made.function("zero", [POINTER, POINTER, I64, I64], exported=True)
    e = Emitter(function, target, made.wait)
    e.b.call(inner, function.args)
    e.b.ret_void()
    loaded = LoadedObject(compile_object(str(made.module), target), target)
    for right in (True, False):
        with guarded(operand.layout.nbytes(operand.type), right) as buffer:
            padded = buffer.bytes.view(np.float32).reshape(operand.layout.padded)
            inside = padded[:, 1 : 1 + shape[1], 2 : 2 + shape[2]]
            kept = inside.copy()
            for thread in range(threads):
                _call(loaded, buffer.address + 4 * operand.layout.origin, thread, threads)
            assert same(inside, kept)
            inside[...] = 0
            assert not buffer.bytes.any()


def _call(loaded: LoadedObject, pointer: int, thread: int, threads: int) -> None:
    kernel = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )
    kernel(loaded.address("zero"))(pointer, None, thread, threads)
