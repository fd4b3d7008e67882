"""Integers of one scale as integers of another: the bits of the reference on every target."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.emit.module import standalone
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import PRODUCTS
from addergraph.codegen.kernels import kernel_for
from addergraph.codegen.llvm import compile_assembly
from addergraph.ir import Array, Halo
from addergraph.ir.types import f32, i32, u8
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from addergraph.ops.reduction.max_pool2d import MaxPool2d
from tests.codegen.harness import HERE, RUNS, make_call, require_equal
from tests.codegen.kernels.layers import INTEGERS

pytestmark = pytest.mark.thinned(3)

ENDS = (-(2**31), 2**31 - 1)
NUMBERS = (-(2**31), -256, -255, -3, -1, 0, 1, 2, 127, 255, 256, 2**31 - 1)


def every_pair() -> Array:
    """256 x 256 sums: the pairs of bytes as i32, and numbers at the ends of i32."""
    pairs = np.arange(1 << 16, dtype=np.int32) - (1 << 15)
    return np.concatenate([pairs, np.array(NUMBERS, np.int32)])[:, None]


def channels(*numbers: int) -> list[Array]:
    return [np.array([n], np.int32) for n in numbers]


@pytest.mark.thinned(4)
@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("terms", [(1,), (-1,), (0,), (5, -3), (9, -1, 1), (31, 32, -32)])
@pytest.mark.parametrize("shift", [0, 1, 8, 31])
def test_every_sum(target: str, terms: tuple[int, ...], shift: int) -> None:
    x = every_pair()
    for lo, hi, dtype in ((0, 255, u8), (3, 15, u8), (*ENDS, i32)):
        half = (1 << shift) >> 1
        op = RequantizeShift(lo, hi, dtype)
        require_equal(op, [x, *channels(-77, half, shift), *channels(*terms)], target)


@pytest.mark.parametrize("target", HERE)
def test_every_term(target: str) -> None:
    """Every code of a term, in range and out of it, each in a lane of its own, of 256 numbers."""
    terms = np.arange(-40, 41, dtype=np.int32)
    x, zero = np.repeat(INTEGERS[:, None], 81, 1), np.zeros(81, np.int32)
    require_equal(RequantizeShift(*ENDS, i32), [x, zero, zero, np.abs(terms), terms], target)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("x", [np.arange(256), np.arange(-255, 1), INTEGERS], ids=len)
def test_every_product(target: str, x: Array) -> None:
    """256 numbers by 256 multipliers, one in each channel; centers and shifts of all sizes."""
    numbers = np.repeat(x.astype(np.int32)[:, None], 256, 1)
    center, shift = INTEGERS[::-1].copy(), np.arange(256, dtype=np.int32) % 37
    for lo, hi, dtype in ((0, 255, u8), (*ENDS, i32)):
        op = RequantizeMultiply(lo, hi, dtype)
        require_equal(op, [numbers, center, INTEGERS // 3, shift, INTEGERS], target)
        require_equal(op, [numbers, 0 * center, 0 * center, shift, INTEGERS], target)


@pytest.mark.parametrize("target", HERE)
def test_every_offset(target: str) -> None:
    """256 numbers plus 256 centers and offsets, down to bytes by every shift."""
    x = np.repeat(INTEGERS[:, None], 256, 1)
    shift, terms = np.arange(256, dtype=np.int32) % 32, np.arange(256, dtype=np.int32) % 7 - 3
    for op in (RequantizeShift(0, 255), RequantizeShift(1, 254)):
        require_equal(op, [x, INTEGERS, 0 * shift, shift, terms], target)
        require_equal(op, [x, 0 * shift, INTEGERS, shift, terms], target)


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("count", [1, 7, 16, 33])
def test_channels_and_scalars(target: str, threads: int, count: int) -> None:
    rng = np.random.default_rng(count)

    def drawn(*shape: int) -> Array:
        return rng.integers(*ENDS, shape, np.int32, endpoint=True)

    x, scalar = drawn(3, 2, 5, count), drawn()
    per_channel = [drawn(count) for _ in range(3)]
    for op in (RequantizeShift(0, 255), RequantizeMultiply(-(2**20), 2**20, i32)):
        require_equal(op, [x, *per_channel, drawn(count)], target, threads)
        require_equal(op, [x, *per_channel, scalar], target, threads)
    require_equal(RequantizeShift(5, 9), [x, *[scalar] * 3, drawn(count), scalar], target, threads)


def test_the_last_byte_of_a_row_is_stored_as_one() -> None:
    """With AVX-512, LLVM stores the one element of a mask as the i32 that it was cut from. The
    machine that runs this may not have AVX-512: its assembly says it."""
    operands = [np.zeros((4, 17), np.int32), *[np.zeros(17, np.int32)] * 4]
    call = make_call(RequantizeShift(0, 255), operands, target="x86-64-v4")
    text = compile_assembly(standalone(call, kernel_for(call)), call.target)
    assert re.search(r"vpextrb\s+\$0, %xmm\d+, 16\(", text)
    assert not re.search(r"vmovd\s+%xmm\d+, \d*\(", text)


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_shifts_do_not_multiply(target: str) -> None:
    x = np.zeros((4, 33), np.int32)
    operands = [x, *[np.zeros(33, np.int32)] * 6]
    for op, products in ((RequantizeShift(0, 255), False), (RequantizeMultiply(0, 255), True)):
        used = operands if op.name == "requantize_shift" else operands[:5]
        call = make_call(op, used, target=target)
        text = compile_assembly(standalone(call, kernel_for(call)), call.target)
        counts = count_instructions(text).values()
        assert any(one[kind] for one in counts for kind in PRODUCTS) == products


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("count", [1, 5, 16, 31, 64])
def test_largest_byte(target: str, threads: int, count: int) -> None:
    x = np.random.default_rng(1).integers(0, 256, (2, 5, 6, count), np.uint8)
    for op in (
        MaxPool2d((2, 2), (2, 2)),
        MaxPool2d((3, 2), (1, 2), (1, 2, 0, 1)),
        MaxPool2d((5, 6), (5, 6)),
    ):
        require_equal(op, [x], target, threads)
        halo = Halo(1, 2, 2, 1)
        require_equal(op, [x], target, threads, halos={0: halo, 1: halo})


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("channels", [1, 16])
def test_the_larger_of_every_pair_of_bytes(target: str, threads: int, channels: int) -> None:
    pairs = np.indices((256, 256)).transpose(1, 2, 0).reshape(1, 256 // channels, channels, 512)
    x = np.ascontiguousarray(pairs.swapaxes(2, 3).astype(np.uint8))
    require_equal(MaxPool2d((1, 2), (1, 2)), [x], target, threads)


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("length", [1, 7, 8, 19, 64])
def test_adder_dense_of_bytes(target: str, threads: int, length: int) -> None:
    rng = np.random.default_rng(length)
    x, f = (rng.integers(0, 256, s, np.uint8) for s in ((9, length), (length, 21)))
    bias = rng.integers(*ENDS, 21, np.int32)
    require_equal(AdderDense(), [x, f], target, threads)
    require_equal(AdderDense(), [x, f, bias], target, threads)


def test_what_it_refuses() -> None:
    x, c = ag.tensor("i32", ("N", 4)), ag.tensor("i32", (4,))
    for op, types, message in (
        (RequantizeShift(0, 256), [x, c, c, c, c], r"from 0 to 255"),
        (RequantizeShift(9, 3), [x, c, c, c, c], r"lo=9 and hi=3"),
        (RequantizeShift(0, 1, f32), [x, c, c, c, c], r"must be u8 or i32"),
        (RequantizeShift(0, 1), [x, c, c, c], r"found 0"),
        (RequantizeShift(0, 1), [x, *[c] * 12], r"1 to 8 terms, found 9"),
        (RequantizeMultiply(0, 1), [x, *[c] * 5], r"one multiplier, found 2"),
        (RequantizeShift(0, 1), [x, c, c, ag.tensor("i32", (3,)), c], r"i32\[4\] or i32\[\]"),
        (RequantizeShift(0, 1), [ag.tensor("f32", ("N", 4)), c, c, c, c], r"must be i32"),
        (RequantizeShift(0, 1), [ag.tensor("i32", ()), c, c, c, c], r"channel axis"),
        (dataclasses.replace(RequantizeShift(0, 1), scale=-1.0), [x, c, c, c, c], r"scale=-1"),
    ):
        with pytest.raises(ag.errors.ShapeError, match=message):
            op.infer(*types)
