"""Cores that add up the terms of a whole register of bytes: what their inner loops are made of.

That the bits are those of NumPy is tested on emulated boards (`test_boards.py`).
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from addergraph.codegen.emit.module import standalone
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import PRODUCTS, UNKNOWN, machine_for
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.llvm import compile_assembly, compile_object
from addergraph.codegen.targets.lookup import TARGETS
from addergraph.ir import Array, Op
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.conv2d import Conv2d
from tests.codegen.harness import make_call

WHOLE = {name: t.whole_sums.width for name, t in TARGETS.items() if t.whole_sums}
DISTANCES = {4: "usada8", 16: "vabav.u8"}
PRODUCTS_OF = {4: ("smlad", "uxtb16", "sxtb16"), 16: ("vmlava.s16", "vmovlb.u8", "vmovlt.s8")}


def emitted(op: Op, target: str, channels: int, dtype: type) -> str:
    """The IR of a layer of 16 filters 3x3."""
    x: Array = np.zeros((1, 8, 8, channels), np.uint8)
    f: Array = np.zeros((3, 3, channels, 16), dtype)
    call = make_call(op, [x, f], target=target, constant=(1,))
    return standalone(call, DenseKernel(call))


def compiled(text: str, target: str) -> tuple[str, Counter[str]]:
    """The assembly, and its instructions by kind; they call nothing."""
    assembly = compile_assembly(text, TARGETS[target])
    read = elf.read_elf(compile_object(text, TARGETS[target]), "x.o")
    assert [s.name for s in read.symbols if s.undefined and s.name] == []
    functions = count_instructions(assembly, machine_for(TARGETS[target].triple))
    return assembly, sum(functions.values(), Counter())


def loops(assembly: str, instruction: str) -> list[str]:
    """The innermost loops that have this instruction: from a label to the first jump."""
    blocks = re.split(r"^\.LBB\S+:", assembly, flags=re.MULTILINE)
    ends = (
        re.split(r"^\t(?:b\w*(?:\.w)?\t|le\tlr, )\.LBB", b, flags=re.MULTILINE)[0] for b in blocks
    )
    return [end for end in ends if f"\t{instruction}" in end]


@pytest.mark.parametrize("target", WHOLE)
@pytest.mark.parametrize("channels", [3, 16, 32])
def test_distances_are_one_instruction_and_nothing_is_spilled(target: str, channels: int) -> None:
    name = DISTANCES[WHOLE[target]]
    text = emitted(Adder2d(padding=(1, 1, 1, 1)), target, channels, np.uint8)
    assembly, counts = compiled(text, target)
    assert not counts[UNKNOWN]
    found = loops(assembly, name)
    assert found and not any("[sp" in loop for loop in found), found


@pytest.mark.parametrize("target", WHOLE)
def test_products_are_added_in_pairs(target: str) -> None:
    names = PRODUCTS_OF[WHOLE[target]]
    text = emitted(Conv2d(padding=(1, 1, 1, 1)), target, 16, np.int8)
    assembly, counts = compiled(text, target)
    assert all(f"\t{name}" in assembly for name in names)
    assert not counts[UNKNOWN] and any(counts[kind] for kind in PRODUCTS)


@pytest.mark.parametrize("channels", [4, 32])
def test_neon_of_32_bits_adds_pairs_and_spills_nothing(channels: int) -> None:
    target = "armv7-linux-gnueabihf"
    text = emitted(Adder2d(padding=(1, 1, 1, 1)), target, channels, np.uint8)
    assembly, counts = compiled(text, target)
    found = loops(assembly, "vabd.u8")
    assert found and all("vpadal.u16" in loop and "sp" not in loop for loop in found), found
    assert not counts[UNKNOWN]
