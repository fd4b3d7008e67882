"""The structured builder: folding of indices, loops, shares, tails, and arithmetic on registers."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.codegen.emit.builder import F32, I64, POINTER, Emitter, vector, wide
from addergraph.codegen.emit.module import ModuleEmitter
from addergraph.codegen.llvm import LoadedObject, compile_object
from addergraph.codegen.targets.lookup import target_named
from addergraph.codegen.targets.target import Target
from addergraph.ir import Array
from addergraph.ir.types import bool_, f32, i32
from tests.codegen.harness import HERE, guarded, same_bits

Body = Callable[[Emitter, Any, Any, Any], None]


def emitted(body: Body, target: str | Target = "toy") -> tuple[LoadedObject, Any]:
    """A function (x, y, n) whose body `body` emits, with `n` an index known only when it runs."""
    chosen = target_named(target) if isinstance(target, str) else target
    made = ModuleEmitter("test", chosen)
    function = made.function("test", [POINTER, POINTER, I64], exported=True)
    e = Emitter(function, made.target, made.wait)
    body(e, *function.args)
    e.b.ret_void()
    loaded = LoadedObject(compile_object(str(made.module), made.target), made.target)
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return loaded, signature(loaded.address("test"))


def run(body: Body, x: Array, y: Array, n: int = 0, target: str | Target = "toy") -> Array:
    """`y` after a run, both arrays right against a page that may not be touched."""
    _loaded, function = emitted(body, target)  # the code lives as long as what loaded it
    with guarded(x.nbytes, True) as source, guarded(y.nbytes, True) as into:
        source.bytes[:] = x.reshape(-1).view(np.uint8)
        into.bytes[:] = y.reshape(-1).view(np.uint8)
        source.freeze()
        function(source.address, into.address, n)
        return np.frombuffer(into.bytes.tobytes(), y.dtype).reshape(y.shape)


def trace_of(body: Callable[[Emitter, Callable[[Any], None], Any], None], n: int = 0) -> list[int]:
    """The indices that `body` reports, in order, by a counter in memory."""

    def whole(e: Emitter, x: Any, y: Any, count: Any) -> None:
        def report(index: Any) -> None:
            place = e.b.load(y, typ=I64, align=8)
            e.b.store(e.index(index), e.at(y, e.mul(e.add(place, 1), 8)), align=8)
            e.b.store(e.add(place, e.index(1)), y, align=8)

        body(e, report, count)

    found = run(whole, np.zeros(1, "i8"), np.zeros(200, "i8"), n)
    return [int(v) for v in found[1 : 1 + found[0]]]


# -- indices -------------------------------------------------------------------------------------


def test_static_indices_fold_before_llvm_sees_them() -> None:
    made = ModuleEmitter("test", target_named("toy"))
    e = Emitter(made.function("test", []), made.target, made.wait)
    assert (e.add(2, 3), e.sub(2, 3), e.mul(2, 3), e.div(7, 3), e.mod(7, 3)) == (5, -1, 6, 2, 1)
    assert e.minimum(4, 2) == 2 and e.dot((1, 2), (10, 20)) == 50
    assert e.split(23, (2, 3, 4)) == [1, 2, 3]
    pointer = e.index(5)
    assert e.at(pointer, 0) is pointer
    same = e.index(9)
    assert e.add(same, 0) is e.add(0, same) is e.mul(1, same) is e.div(same, 1) is same
    assert e.mul(same, 0) == e.mod(same, 1) == 0


@given(st.integers(0, 10**6), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_dynamic_indices_agree_with_static_ones(n: int, a: int, b: int, c: int) -> None:
    x, y = np.array([a, b, c], "i8"), np.zeros(8, "i8")
    index_function()[1](x.ctypes.data, y.ctypes.data, n)
    assert y.tolist() == [n + a, n - a, n * a, n // a, n % a, min(n, a), (n // c) // b, n % c]


@functools.cache
def index_function() -> tuple[LoadedObject, Any]:
    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        a, b, c = (e.b.load(e.at(x, 8 * i), typ=I64, align=8) for i in range(3))
        results = [e.add(n, a), e.sub(n, a), e.mul(n, a), e.div(n, a), e.mod(n, a), e.minimum(n, a)]
        results += [e.div(e.div(n, c), b), e.mod(n, c)]
        for i, result in enumerate(results):
            e.b.store(result, e.at(y, 8 * i), align=8)

    return emitted(body)


# -- loops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 5, 1), (2, 9, 3), (3, 4, 1), (4, 4, 1), (6, 2, 1), (0, 6, 3)]
)
def test_loops_are_ranges(start: int, stop: int, step: int, dynamic: bool) -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        with e.loop(start, n if dynamic else stop, step) as i:
            report(i)

    assert trace_of(body, stop) == list(range(start, stop, step))


def test_loops_nest_and_go_on_after_conditions() -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        with e.loop(0, n) as i, e.loop(0, 3) as j, e.when(e.less(j, i)):
            report(e.add(e.mul(i, 10), j))
        report(99)

    expected = [10 * i + j for i in range(4) for j in range(3) if j < i]
    assert trace_of(body, 4) == [*expected, 99]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_carried_values_pass_from_step_to_step(count: int, dynamic: bool) -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        stop = n if dynamic else count
        results = e.carry(
            0, stop, 1, [e.index(1), e.index(0)], lambda i, v: [e.mul(v[0], 2), e.add(v[1], i)]
        )
        for result in results:
            report(result)

    assert trace_of(body, count) == [2**count, sum(range(count))]


@pytest.mark.parametrize(("count", "unroll"), [(7, 2), (8, 2), (9, 4), (3, 5), (0, 3)])
def test_unrolled_loops_run_every_step_once(count: int, unroll: int) -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        def update(base: Any, offset: int, values: list[Any]) -> list[Any]:
            report(e.add(base, offset))
            return values

        e.unrolled(count, unroll, [], update)

    assert trace_of(body) == list(range(count))


@pytest.mark.parametrize(("count", "threads"), [*itertools.product((0, 1, 5, 7, 64), (1, 2, 3, 7))])
def test_shares_cover_every_item_once_and_evenly(count: int, threads: int) -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        e.thread, e.threads = n, threads
        with e.loop(*e.share(count)) as item:
            report(item)

    shares = [trace_of(body, thread) for thread in range(threads)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("full", "rest"), [(2, 1), (3, 0), (0, 3), (1, 2)])
def test_partial_blocks(full: int, rest: int) -> None:
    def body(e: Emitter, report: Callable[[Any], None], n: Any) -> None:
        for active, here in e.partial(n, full, rest, 4):
            with here:
                report(active)

    expected = [4] * full + ([rest] if rest else []) + [0, 0]
    assert [trace_of(body, block) for block in range(len(expected))] == [[a] for a in expected]


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtype", [f32, i32, bool_], ids=str)
def test_masked_tails_touch_nothing_beyond_them(dtype: Any, target: str) -> None:
    lanes = target_named(target).lanes
    for active in range(1, lanes + 1):
        x = np.arange(1, active + 1).astype(dtype.numpy)

        def body(e: Emitter, x: Any, y: Any, n: Any, active: int = active) -> None:
            value = e.load(x, dtype, lanes, active)
            e.store(value, y, dtype, active)

        assert (run(body, x, np.zeros_like(x), target=target) == x).all()


@pytest.mark.parametrize("target", HERE)
def test_inactive_lanes_are_zero_and_stores_leave_them(target: str) -> None:
    lanes = target_named(target).lanes

    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        e.store(e.load(x, f32, lanes, 1), y)
        e.store(e.load(x, f32, lanes, 1), e.at(y, 4 * lanes), active=1)

    found = run(body, np.ones(1, "f4"), np.full(2 * lanes, 5, "f4"), target=target)
    assert found.tolist() == [1] + [0] * (lanes - 1) + [1] + [5] * (lanes - 1)


def test_a_bool_is_any_byte_but_zero_and_stored_as_one() -> None:
    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        e.store(e.load(x, bool_, 4), y, bool_)

    assert run(body, np.array([0, 1, 2, 255], "u1"), np.zeros(4, "u1")).tolist() == [0, 1, 1, 1]


# -- arithmetic ----------------------------------------------------------------------------------


def on_vectors(
    compute: Callable[[Emitter, Any, Any], Any], a: Array, b: Array, target: str | Target
) -> Array:
    """`compute` of two vectors of as many lanes as the arrays have elements."""
    lanes = a.size

    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        e.store(compute(e, e.load(x, f32, lanes), e.load(e.at(x, 4 * lanes), f32, lanes)), y)

    return run(body, np.concatenate([a, b]), np.zeros_like(a), target=target)


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("target", HERE)
def test_the_minimum_of_non_negative_floats(target: str, floats: bool) -> None:
    chosen = target_named(target)
    wide = replace(chosen.rates, float_minima=floats)
    chosen = replace(chosen, machine=replace(chosen.machine, rates=(wide,)))
    tiny = np.float32(1e-45)
    a = np.array([0, 1, 2.5, tiny, 3e38, np.inf, 7, 0], "f4")
    b = np.array([1, 0, 2.5, 0, np.inf, np.inf, 7.0000005, tiny], "f4")
    found = on_vectors(lambda e, x, y: e.non_negative_min(x, y), a, b, chosen)
    assert same_bits(found, np.minimum(a, b))
    zeros = np.full(8, -0.0, "f4")
    assert (on_vectors(lambda e, x, y: e.non_negative_min(x, y), zeros, a, chosen) == 0).all()


@pytest.mark.parametrize("target", HERE)
def test_fma_rounds_once_where_the_target_has_it(target: str) -> None:
    a = np.full(4, 1 + 2.0**-12, "f4")
    found = on_vectors(lambda e, x, y: e.fma(x, x, y), a, np.full(4, -1, "f4"), target)
    once = np.float32(float(a[0]) ** 2 - 1)
    twice = a[0] * a[0] - np.float32(1)
    assert once != twice
    assert (found == (once if target_named(target).fma else twice)).all()


@pytest.mark.parametrize("target", HERE)
def test_tree_sums_add_halves(target: str) -> None:
    a = np.random.default_rng(0).normal(size=16).astype("f4")

    def compute(e: Emitter, x: Any, y: Any) -> Any:
        return e.splat(e.tree_sum(x), 16)

    expected = a
    while expected.size > 1:
        half = expected.size // 2
        expected = expected[:half] + expected[half:]
    assert same_bits(on_vectors(compute, a, a, target), np.repeat(expected, 16))


def test_splats_numbers_and_wide_registers() -> None:
    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        one = e.load(x)
        e.store(e.splat(one, 4), y)
        e.store(e.number(0.1, 4), e.at(y, 16))
        e.store(e.narrow(e.widen(e.splat(one, 4))), e.at(y, 32))
        e.store(e.splat(e.number(2.5, 1), 4), e.at(y, 48))

    found = run(body, np.array([3.25], "f4"), np.zeros(16, "f4"))
    expected = np.repeat(np.array([3.25, 0.1, 3.25, 2.5], "f4"), 4)
    assert same_bits(found, expected)


def test_registers_of_sums_are_f64() -> None:
    def body(e: Emitter, x: Any, y: Any, n: Any) -> None:
        e.store(e.load(x, wide, 2), y, wide)

    x = np.array([1 / 3, 2 / 3])
    assert (run(body, x, np.zeros(2)) == x).all()
    assert str(vector(F32, 1)) == "float" and str(vector(F32, 4)) == "<4 x float>"


@pytest.mark.parametrize("target", HERE)
def test_clip_unit_keeps_signs_and_all_but_nan(target: str) -> None:
    a = [-5, -1, -0.75, -0.0, 0.0, 0.75, 1, 5, -np.inf, np.inf, 1e-45, -1e-45, 2, -2, 0.5, -1]
    x, lanes = np.array(a, np.float32), target_named(target).lanes

    def body(e: Emitter, source: Any, into: Any, n: Any) -> None:
        for start in range(0, 4 * len(a), 4 * lanes):
            e.store(e.clip_unit(e.load(e.at(source, start), lanes=lanes)), e.at(into, start))

    assert same_bits(run(body, x, np.zeros_like(x), target=target), np.clip(x, -1, 1))


@pytest.mark.parametrize("target", HERE)
def test_an_opaque_number_is_the_number(target: str) -> None:
    def body(e: Emitter, source: Any, into: Any, n: Any) -> None:
        e.store(e.opaque(-1.5), into)

    one = np.zeros(1, np.float32)
    assert run(body, one, one, target=target) == -1.5
