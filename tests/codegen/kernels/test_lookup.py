"""lookup: every byte of every channel, wherever buffers stand, and what padding is behind it."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit.module import emit_program, standalone
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import PRODUCTS
from addergraph.codegen.llvm import compile_assembly
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array, Halo
from addergraph.ops.movement.lookup import Lookup
from tests.codegen.harness import RUNS, make_call, require_equal

CHANNELS = [1, 2, 3, 4, 16, 19]
PADDED = """
graph pixels(%x: u8[N,5,4,3]) params(%table: u8[3,256], %f: u8[3,3,3,7]) {{
  %y = lookup(%x, %table) scale=0.5{zero} : u8[N,5,4,3]
{layer} : i32[N,5,4,7]
  return %sums
}}"""
HALO_LAYER = "  %sums = adder2d(%y, %f) padding=(1,1,1,1)"
PAD_LAYER = """\
  %padded = pad(%y) before=(0,1,1,0) after=(0,1,1,0) value=9 : u8[N,7,6,3]
  %sums = adder2d(%padded, %f)"""
GRAPHS = {
    "halo": PADDED.format(zero="", layer=HALO_LAYER),
    "pad": PADDED.format(zero=" zero_point=9", layer=PAD_LAYER),
}


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_byte_of_every_channel(target: str, threads: int, channels: int) -> None:
    x = (np.arange(256)[:, None] + 37 * np.arange(channels)).astype(np.uint8)
    for tables in {channels, 1}:
        require_equal(Lookup(), [x, drawn(tables, 256)], target, threads)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(
    "leading", [(5,), (2, 3), (1, 3, 4), (2, 3, 5), (3, 1, 1), (2, 1, 3, 2), (2, 0)]
)
def test_ranks_and_halos(leading: tuple[int, ...], channels: int) -> None:
    operands = [drawn(*leading, channels), drawn(channels, 256, seed=1)]
    one, other = Halo(1, 0, 2, 1), Halo(0, 2, 1, 3)
    around = [{0: one}, {2: one}, {0: one, 2: one}, {0: one, 2: other}]
    for halos in [{}, *(around if len(leading) == 3 else [])]:
        for threads in (1, 3, 7):
            require_equal(Lookup(0.5, 3), operands, threads=threads, halos=halos)


def test_no_channels() -> None:
    require_equal(Lookup(), [drawn(4, 0), drawn(0, 256)])


@pytest.mark.parametrize("case", GRAPHS)
@pytest.mark.parametrize("batch", [1, "open"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_padded_layer_behind_it(case: str, batch: int | str, threads: int) -> None:
    """The halo around what is looked up is 0 and no table's byte for 0; another byte is padded."""
    graph = ag.parse(GRAPHS[case])
    weights = {"table": 255 - drawn(3, 256) // 2, "f": drawn(3, 3, 3, 7, seed=2)}
    x = drawn(1 if batch == 1 else 4, 5, 4, 3, seed=3)
    bound = graph.bind(1) if batch == 1 else graph
    program = ag.compile(bound, weights=weights, threads=threads, cache=False)
    assert np.array_equal(program(x), ag.interpret(graph, x, weights=weights))


def test_scales_make_no_kernels_of_their_own() -> None:
    graph = ag.parse("""
graph two(%x: u8[N,3]) params(%s: u8[3,256], %t: u8[3,256]) {
  %y = lookup(%x, %s) scale=0.5 : u8[N,3]
  %z = lookup(%x, %t) scale=0.25 zero_point=1 : u8[N,3]
  return %y, %z
}""")
    lowered = compiler.lower(graph, target_named("host"))
    assert str(emit_program(lowered)[0]).count('define internal void @"lookup') == 1


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("channels", [3, 19])
def test_no_product(target: str, channels: int) -> None:
    call = make_call(Lookup(), [drawn(4, channels), drawn(channels, 256)], target=target)
    counts = count_instructions(compile_assembly(standalone(call), call.target)).values()
    assert not any(one[kind] for one in counts for kind in PRODUCTS)
