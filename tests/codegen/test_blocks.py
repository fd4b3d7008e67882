"""Programs whose batch is open: many samples run in blocks, with the bits of one at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from addergraph import compiler
from addergraph.codegen.emit.lowered import Lowered
from addergraph.codegen.run import blocks
from addergraph.codegen.run.jit import Built, Program
from addergraph.codegen.targets.lookup import target_named
from addergraph.compiler.lowering import in_blocks
from addergraph.errors import DataError
from addergraph.ir import Array, Graph, Parameter
from addergraph.ir.interpreter import run_reference
from addergraph.ir.text import parse
from addergraph.ir.types import TensorType, f32
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
    assert blocks.sizes(lowered(NETWORK)) == blocks.SIZES
    assert [blocks.sizes(lowered(graph)) for graph in (BYTES, PRODUCTS)] == [(), ()]
    assert blocks.sizes(lowered(NETWORK, l2=16)) == ()
    bound = compiler.compile(NETWORK, weights=weights(), batch=BLOCK)
    bound.prepare(BLOCK)
    assert bound._block is None


def test_a_block_fits_the_cache_or_is_small_beside_the_filters() -> None:
    one = lowered(PRODUCTS)
    arena = one.plan.arena_bytes
    assert blocks.fits(lowered(PRODUCTS, l2=arena))
    small = lowered(PRODUCTS, l2=arena - 1)
    assert not blocks.fits(small)
    filters = Parameter("far", TensorType(f32, (blocks.SIZES[-1] * blocks.FILTERS * arena // 4,)))
    far = replace(small, main=replace(small.main, parameters=(filters,)))
    assert blocks.fits(far) and blocks.sizes(far) == blocks.SIZES  # whatever the kernels are


def test_the_largest_block_that_fits_is_taken() -> None:
    of_eight = compiler.lower(NETWORK.bind(8), target_named("host"), weights=weights())
    one = lowered(NETWORK, l2=of_eight.plan.arena_bytes)
    built = in_blocks(one, weights(), cache=False)
    assert built is not None and built.lowered.samples == 8
