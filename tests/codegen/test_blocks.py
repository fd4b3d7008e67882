"""Many samples run in blocks, of an open batch or a bound one, with the bits of one at a time."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit import blocks
from addergraph.codegen.emit import lowered as emitted
from addergraph.codegen.emit.lowered import Lowered
from addergraph.codegen.run.jit import Built, Program
from addergraph.codegen.targets.lookup import target_named
from addergraph.compiler.lowering import in_blocks
from addergraph.errors import DataError
from addergraph.ir import Array, Graph, Parameter
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import aligned_bytes
from addergraph.ir.text import parse
from addergraph.ir.types import TensorType, f32
from addergraph.verification.outputs import verify
from tests.codegen.test_jit import NETWORK, require_same, samples, weights

pytestmark = pytest.mark.usefixtures("quick_objects")
BLOCK = blocks.SIZES[0]
BYTES = parse(
    """graph bytes(%x: u8[N,4,4,3]) params(%f: u8[3,3,3,8]) {
      %y = adder2d(%x, %f) padding=(1,1,1,1) : i32[N,4,4,8]
      return %y
    }"""
)
PRODUCTS = parse(
    """graph products(%x: f32[N,4,4,3]) params(%f: f32[3,3,3,8]) {
      %y = conv2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,8]
      return %y
    }"""
)


def compiled(threads: int = 1) -> Program:
    return compiler.compile(NETWORK, weights=weights(), threads=threads)


def lowered(graph: Graph, l2: int | None = None) -> Lowered:
    """For a machine with an L2 of this size."""
    made = compiler.lower(graph, target_named("host"))
    machine = made.target.machine
    machine = replace(machine, l2=machine.l2 if l2 is None else l2)
    return replace(made, target=replace(made.target, machine=machine))


def sizes(one: Lowered) -> tuple[int, ...]:
    return blocks.of_calls(one.main, one.plan, one.target.machine)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_samples_has_the_bits_of_one_at_a_time(threads: int) -> None:
    """Of two outputs; one input is the same for all samples."""
    single, program = compiled(threads), compiled(threads)
    program.prepare(BLOCK * threads)
    for count in (1, BLOCK - 1, BLOCK, 2 * BLOCK + 3, BLOCK * threads, 4 * BLOCK * threads + 5):
        data = samples(count)
        require_same(program.run(data), run_reference(NETWORK, data, weights())[0])
        require_same(program.run(data), single.run(data))
    assert program._block is not None and program._block.samples == BLOCK
    program.close()


def test_most_samples_of_a_call_run_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compiled(threads=2)
    program.prepare(2 * BLOCK)
    assert program._block is not None
    counted = []
    for workers in (program._block.workers, program._workers):

        def run(io: Any, packed: int, count: int, *, in_turn: bool, of: Any = workers.run) -> None:
            counted.append(count)
            of(io, packed, count, in_turn=in_turn)

        monkeypatch.setattr(workers, "run", run)
    program.run(samples(5 * BLOCK + 1))
    program.run(samples(4 * BLOCK))
    assert counted == [4, BLOCK + 1, 4]  # as many blocks for each thread
    program.close()


def test_new_weights_are_those_of_blocks_too() -> None:
    program, data = compiled(), samples(BLOCK + 1)
    program.prepare(BLOCK)
    program.run(data)
    others = {name: array + 1 for name, array in weights().items()}
    program.set_weights(others)
    require_same(program.run(data), run_reference(NETWORK, data, others)[0])


def test_blocks_are_compiled_late(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compiled()
    program.prepare(BLOCK - 1)
    program.run(samples(BLOCK))
    assert program._block is None
    monkeypatch.setattr(blocks, "PATIENCE", 0.0)
    program.run(samples(BLOCK - 1))
    assert program._block is None
    program.run(samples(BLOCK))
    assert program._block is not None
    again = copy.deepcopy(program)
    again.prepare(BLOCK)
    assert again._block is not None
    assert program.built.lowered.samples == 1  # what is exported
    with pytest.raises(DataError, match="samples=-1"):
        program.prepare(-1)


def test_an_interrupt_leaves_the_question_open() -> None:
    made = compiled()
    asked = 0

    def widen(one: Lowered, given: Mapping[str, Array]) -> Built | None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyboardInterrupt
        return None

    program = Program(made.built, made.weights, None, 1, None, widen)
    with pytest.raises(KeyboardInterrupt):
        program.prepare(BLOCK)
    program.prepare(BLOCK)
    program.prepare(BLOCK)  # that they do not pay is known
    assert asked == 2
    require_same(program.run(samples(BLOCK)), made.run(samples(BLOCK)))


def test_where_blocks_do_not_pay_there_are_none() -> None:
    assert sizes(lowered(NETWORK)) == blocks.SIZES
    assert [sizes(lowered(graph)) for graph in (BYTES, PRODUCTS)] == [(), ()]
    assert sizes(lowered(NETWORK, l2=16)) == ()
    bound = compiler.compile(NETWORK, weights=weights(), batch=BLOCK)
    bound.prepare(BLOCK)
    assert bound._block is None


def test_a_block_fits_the_cache_or_is_small_beside_the_filters() -> None:
    one = lowered(PRODUCTS)
    arena = one.plan.arena_bytes
    small = lowered(PRODUCTS, l2=arena - 1)
    assert blocks.room(small.main, small.target.machine) == arena - 1
    filters = Parameter("far", TensorType(f32, (blocks.SIZES[-1] * blocks.FILTERS * arena // 4,)))
    far = replace(small, main=replace(small.main, parameters=(filters,)))
    assert blocks.room(far.main, far.target.machine) == blocks.SIZES[-1] * arena
    assert sizes(far) == blocks.SIZES  # whatever the kernels are


def test_the_largest_block_that_fits_is_taken() -> None:
    of_eight = compiler.lower(NETWORK.bind(8), target_named("host"), weights=weights())
    one = lowered(NETWORK, l2=of_eight.plan.arena_bytes)
    built = in_blocks(one, weights(), cache=False)
    assert built is not None and built.lowered.samples == 8


# -- a bound batch ---------------------------------------------------------------------------------


def small_cache(monkeypatch: pytest.MonkeyPatch, graph: Graph, samples: int) -> None:
    """As if no more than so many samples of `graph` had room."""
    space = compiler.lower(graph.bind(samples), target_named("host")).plan.arena_bytes
    monkeypatch.setattr(emitted, "room", lambda graph, machine: space)


def given(graph: Graph, count: int) -> tuple[list[Array], dict[str, Array]]:
    if graph is NETWORK:
        return samples(count), weights()
    rng, (x,), (f,) = np.random.default_rng(0), graph.inputs, graph.parameters
    return (
        [rng.integers(0, 9, x.type.bind(count).sizes).astype(x.type.dtype.numpy)],
        {"f": rng.integers(0, 9, f.type.sizes).astype(f.type.dtype.numpy)},
    )


def test_blocks_of_a_bound_batch_are_halves_of_it() -> None:
    assert blocks.of_batch(64) == (64, 32, 16, 8, 4, 2, 1)
    assert blocks.of_batch(2) == (2, 1)
    # What the last block computes once more is at most a sixteenth.
    assert blocks.of_batch(61) == (61, 31, 16, 8, 4, 2, 1)
    assert blocks.of_batch(17) == (17, 9, 3, 2, 1)
    assert blocks.of_batch(3) == (3, 1)


@pytest.mark.parametrize("graph", [NETWORK, BYTES, PRODUCTS], ids=lambda graph: graph.name)
@pytest.mark.parametrize("batch", [3, 16, 61])
def test_a_bound_batch_runs_in_blocks_that_fit(
    graph: Graph, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one sample, of half, and of a quarter with some computed twice; two outputs, and an input
    that is the same for all samples."""
    arrays, numbers = given(graph, batch)
    expected = run_reference(graph, arrays, numbers)[0]
    whole = compiler.compile(graph, weights=numbers, batch=batch)
    require_same(whole.run(arrays), expected)
    small_cache(monkeypatch, graph, 17 if batch > 16 else max(1, batch // 2))
    for threads in (1, 2, 3):
        program = compiler.compile(graph, weights=numbers, batch=batch, threads=threads)
        assert program.built.lowered.samples == {3: 1, 16: 8, 61: 16}[batch]
        cleared = tuple(map(np.zeros_like, expected))
        require_same(program.run_into(arrays, cleared), expected)
        assert program.arena_bytes < whole.arena_bytes
        assert program.graph == graph.bind(batch)
        program.close()


def test_where_samples_are_not_independent_the_batch_is_one_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emitted, "room", lambda graph, machine: 0)
    mixing = parse(
        """graph mixing(%x: f32[N,3]) {
          %mean = reduce_mean(%x) axes=(0) : f32[3]
          %y = sub(%x, %mean) : f32[N,3]
          return %y
        }"""
    )
    arrays = [np.arange(12, dtype=np.float32).reshape(4, 3)]
    program = compiler.compile(mixing, weights={}, batch=4)
    assert program.built.lowered.batched is None
    require_same(program.run(arrays), run_reference(mixing, arrays, {})[0])
    bound = compiler.compile(NETWORK.bind(4), weights=weights())
    assert bound.built.lowered.main.inputs[0].type.sizes[0] == 4  # a graph runs as it is


def test_verify_compares_the_nodes_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_cache(monkeypatch, NETWORK, 4)
    program = compiler.compile(NETWORK, weights=weights(), batch=31)
    assert program.built.lowered.blocks == [0, 4, 8, 12, 16, 20, 24, 27]
    report = verify(NETWORK.bind(31), program, samples=1)
    assert report.ok and len(report.layers) == len(program.built.lowered.main.nodes)
    assert compiler.profile(NETWORK, weights(), batch=31, seconds=0.0).samples == 4


@pytest.mark.parametrize("strict", [False, True])
def test_a_library_of_a_bound_batch_has_the_arena_of_a_block(
    strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays, numbers = given(BYTES, 11)
    options: dict[str, Any] = {"weights": numbers, "batch": 11, "multiplication_free": strict}
    compiler.export(BYTES, tmp_path / "whole", **options)
    small_cache(monkeypatch, BYTES, 6)
    exported = compiler.export(BYTES, tmp_path / "blocks", **options)
    library, whole = map(ag.load_native, (tmp_path / "blocks", tmp_path / "whole"))
    library.selftest()
    expected = run_reference(BYTES, arrays, numbers)[0]
    require_same(library.run(arrays), expected)
    assert library.metadata["arena_bytes"] < whole.metadata["arena_bytes"]
    assert library.metadata["inputs"][0]["shape"] == [11, 4, 4, 3]
    assert library.metadata["stack_bytes"] > whole.metadata["stack_bytes"]  # both are known
    assert " *   x: u8[11,4,4,3]" in exported.header.read_text()
    assert exported.shared is not None
    run_part = ctypes.CDLL(str(exported.shared)).bytes_run_part
    for threads in (blocks.AT_ONCE - 1, blocks.AT_ONCE + 1):  # with arenas of their own, or one
        found, arena = np.zeros_like(expected[0]), aligned_bytes(library.metadata["arena_bytes"])
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (arrays[0], found, arena)]
        with ThreadPoolExecutor(threads) as pool:
            calls = [pool.submit(run_part, *pointers, t, threads) for t in range(threads)]
        assert [call.result() for call in calls] == [0] * threads
        require_same((found,), tuple(expected))
