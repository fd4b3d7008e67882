"""Tiles: they fit the registers, cover the work, and follow from the shape alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.codegen.kernels.schedule import (  # fmt: skip
    DENSE,
    SPARSE,
    Choice,
    FilterTile,
    Tile,
    adder_input_gradient_tile,
    byte_tile,
    ceil_div,
    contraction_tile,
    filter_tile,
)
from addergraph.codegen.targets.lookup import TARGETS
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import AVX512

TOY = TARGETS["toy"]
targets = st.sampled_from(list(TARGETS.values()))
sizes = st.integers(0, 300)


@given(targets, sizes, sizes, sizes, st.sampled_from([0, 1]))
def test_tiles_fit_the_registers_and_the_image(
    target: Target, height: int, width: int, channels: int, extra: int
) -> None:
    tile = contraction_tile(target, height, width, channels, extra)
    assert min(tile.rows, tile.columns, tile.vectors) >= 1
    used = tile.accumulators * (1 + extra) + tile.vectors + 2
    assert used <= target.registers or tile.pixels == 1
    assert tile.rows <= max(1, height) and tile.columns <= max(1, width)
    blocks = max(1, ceil_div(channels, target.lanes))
    assert blocks % tile.vectors == 0  # no vector of a block is ever empty


@given(targets, sizes, sizes, sizes)
def test_adder_input_gradient_tiles_keep_x_in_registers(
    target: Target, height: int, width: int, channels: int
) -> None:
    tile = adder_input_gradient_tile(target, height, width, channels)
    assert 2 * tile.accumulators + tile.vectors + 2 <= target.registers or tile.pixels == 1
    assert 1 <= tile.rows <= max(1, height) and 1 <= tile.columns <= max(1, width)
    assert max(1, ceil_div(channels, target.lanes)) % tile.vectors == 0


@given(targets, sizes, sizes, sizes)
def test_byte_tiles_fit_the_registers_and_the_image(
    target: Target, height: int, width: int, channels: int
) -> None:
    lanes = max(1, target.lanes // 2)
    tile = byte_tile(target, lanes, height, width, channels)
    assert min(tile.rows, tile.columns, tile.vectors) >= 1
    assert tile.accumulators + tile.vectors + 2 <= target.registers
    assert tile.rows <= max(1, height) and tile.columns <= max(1, width)
    assert max(1, ceil_div(channels, lanes)) % tile.vectors == 0
    if target.max_tile is not None:
        assert tile.pixels <= target.max_tile[0] and tile.vectors <= target.max_tile[1]


@given(targets, sizes, sizes)
def test_filter_tiles_fit_the_registers_and_the_run(
    target: Target, run: int, channels: int
) -> None:
    tile = filter_tile(target, run, channels)
    assert tile.taps * tile.vectors + tile.vectors + 2 <= target.registers
    assert 1 <= tile.taps <= max(1, run)
    assert max(1, ceil_div(channels, target.lanes)) % tile.vectors == 0


@given(sizes, sizes, sizes)
def test_the_toy_target_has_small_tiles(height: int, width: int, channels: int) -> None:
    assert TOY.max_tile is not None
    pixels, vectors = TOY.max_tile
    for extra in (0, 1):
        tile = contraction_tile(TOY, height, width, channels, extra)
        assert tile.pixels <= pixels and tile.vectors <= vectors
    filters = filter_tile(TOY, width, channels)
    assert filters.taps <= pixels and filters.vectors <= vectors


def test_the_toy_target_meets_every_kind_of_edge() -> None:
    """Whole and partial strips, columns and vectors on a small image."""
    tile = contraction_tile(TOY, 5, 4, 7)
    assert (4 % tile.columns or 5 % tile.rows) and 7 % (tile.vectors * TOY.lanes)
    rows = contraction_tile(TOY, 5, 1, 7)
    assert rows.rows > 1 and 5 % rows.rows


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(28, 28, 64), (14, 14, 256), (7, 7, 512), (56, 56, 64)]
)
def test_layers_of_real_networks_hide_the_latency_of_additions(
    height: int, width: int, channels: int
) -> None:
    """Four cycles of latency, two additions a cycle: eight sums at least must be under way."""
    tile = contraction_tile(AVX512, height, width, channels)
    assert tile.accumulators >= 8
    assert (tile.vectors + tile.pixels) / tile.accumulators <= 1.2  # loads per term


def test_schedules_are_plain_data() -> None:
    assert contraction_tile(AVX512, 9, 9, 9) == contraction_tile(AVX512, 9, 9, 9)
    assert hash(Tile(1, 2, 3)) == hash(Tile(1, 2, 3)) and Tile(2, 3, 4).accumulators == 24
    assert filter_tile(AVX512, 9, 16) == FilterTile(9, 1)


@given(st.sampled_from([DENSE, SPARSE]), st.none() | st.builds(Tile, *[st.integers(1, 99)] * 3))
def test_choices_are_read_as_they_are_printed(kind: str, tile: Tile | None) -> None:
    assert Choice.parse(str(Choice(kind, tile))) == Choice(kind, tile)


@pytest.mark.parametrize(
    "text", ["", "dens", "dense ", "dense 1x2", "dense 1x2x3 ", "sparse 0x2x3"]
)
def test_no_other_text_is_a_choice(text: str) -> None:
    with pytest.raises(ValueError, match="no choice of a kernel"):
        Choice.parse(text)


@given(st.integers(0, 10**6), st.integers(1, 10**3))
def test_ceil_div(a: int, b: int) -> None:
    assert (ceil_div(a, b) - 1) * b < a <= ceil_div(a, b) * b
