"""census: no multiplication in an adder reduction, counted twice from independent sources."""

from __future__ import annotations

import functools
import re
import subprocess
from collections import Counter
from pathlib import Path

import capstone
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.inspect.census import Census, FunctionCensus, count_instructions
from addergraph.codegen.inspect.instructions import (
    ADD,
    ADDRESS,
    ADDRESS_MULTIPLY,
    CONTROL,
    CONVERT,
    DIVIDE,
    DOT,
    FMA,
    KINDS,
    LOGIC,
    MOVE,
    MULTIPLY,
    SHIFT,
    SHORT,
    UNKNOWN,
    X86_64,
)
from addergraph.codegen.targets.lookup import TARGETS
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.errors import UnsupportedError
from addergraph.ir.state import initial_weights
from tests.codegen.libraries import MIXED, NET

pytestmark = pytest.mark.thinned(2)

LEVELS = [t.name for t in X86_LEVELS]
BODIES = {
    "direct": ("%x", ""),
    "minimum": ("%x0", "%x0 = relu(%x) : f32[N,9,9,5]\n"),
}


@functools.cache
def taken(text: str, target: str) -> Census:
    return compiler.census(ag.parse(text), target=target)


def adder_with_tail(form: str, tail: str) -> str:
    """An adder layer of 21 channels with a pointwise tail, which names the adder's result %y."""
    source, before = BODIES[form]
    return f"""graph g(%x: f32[N,9,9,5]) params(%f: f32[3,3,5,21] init=normal(0,1),
        %a: f32[21], %b: f32[21], %c: f32[21]) {{
      {before}%y = adder2d({source}, %f) padding=(1,1,1,1) : f32[N,9,9,21]
      {tail}
    }}"""


# -- promise 2 -----------------------------------------------------------------------------------


@pytest.mark.thinned(4)
@pytest.mark.parametrize("target", [*LEVELS, "toy"])
@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize(
    "tail",
    [
        "return %y",
        "%z = add(%y, %a) : f32[N,9,9,21] %r = relu(%z) : f32[N,9,9,21] return %r",
    ],
)
def test_adders_without_a_scale_are_free_of_multiplications(
    form: str, tail: str, target: str
) -> None:
    made = taken(adder_with_tail(form, tail), target)
    assert made.multiplication_free
    (adder,) = made.of_op("adder2d")
    assert adder.products == 0 and adder.counts[ADD] > 10
    assert ("relu" in adder.ops) == ("relu" in tail)
    assert made.render().endswith("multiplication-free: yes, all of it")


@pytest.mark.thinned(3)
@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("form", BODIES)
def test_a_tail_adds_exactly_its_own_multiplications(form: str, target: str) -> None:
    tails = {
        1: "%z = mul(%y, %a) : f32[N,9,9,21] return %z",
        2: "%z = mul(%y, %a) : f32[N,9,9,21] %w = add(%z, %b) : f32[N,9,9,21]"
        " %v = mul(%w, %c) : f32[N,9,9,21] return %v",
    }
    counts = {}
    for factors, tail in tails.items():
        made = taken(adder_with_tail(form, tail), target)
        (adder,) = made.of_op("adder2d")
        counts[factors] = adder.counts[MULTIPLY]
        assert adder.products == adder.counts[MULTIPLY], "no FMA, dot product or division"
        assert adder.causes == ("mul",) and not made.multiplication_free
        assert f"{counts[factors]} multiply, by definition of mul" in made.render()
    # One for each accumulator of each tile, none for the reduction.
    assert 0 < 2 * counts[1] == counts[2]


@pytest.mark.parametrize("target", LEVELS)
def test_adder_dense_is_free_of_multiplications(target: str) -> None:
    text = """graph g(%x: f32[N,37]) params(%f: f32[37,19] init=normal(0,1)) {
      %y = adder_dense(%x, %f) : f32[N,19]
      %m = maximum(%y, %y) : f32[N,19]
      return %m }"""
    assert taken(text, target).multiplication_free


@pytest.mark.parametrize("target", LEVELS)
def test_what_multiplies_is_named(target: str) -> None:
    made = taken(NET, target)
    assert not made.multiplication_free
    (dense,) = made.of_op("dense")
    assert dense.counts[FMA if target != "x86-64" else MULTIPLY] > 0
    assert dense.nodes == ("logits",) and dense.causes == ("dense",)
    (softmax,) = made.of_op("softmax")
    assert softmax.counts[DIVIDE] > 0 and softmax.causes == ("softmax",)
    text = " ".join(made.render().split())
    assert "by definition of dense (logits)" in text
    assert "by definition of softmax (probabilities)" in text
    assert all(f.causes for f in made.functions if f.products), "every product has its cause"


def test_integer_products_are_asked_of_the_op() -> None:
    text = "graph g(%x: i32[3,5], %z: i32[3,1]) { %y = mul(%x, %z) : i32[3,5] return %y }"
    made = taken(text, "x86-64-v3")
    assert made.integer_products == ('mul "y"',) and not made.multiplication_free
    assert taken(text.replace("mul", "add"), "x86-64-v3").multiplication_free


def test_a_core_without_floats_has_no_product_of_them_to_count() -> None:
    """They would be calls: nothing of the text multiplies."""
    with pytest.raises(UnsupportedError, match="has no float instructions.*quantize"):
        taken(NET, "thumbv6m")


# -- the table -----------------------------------------------------------------------------------


def test_a_terminal_of_80_columns_holds_it() -> None:
    counts = Counter({kind: 12_345 for kind in KINDS if kind != UNKNOWN})
    nodes = tuple(f"block{n}.conv1.requantized" for n in range(9))
    functions = [FunctionCensus(s, nodes, (), ("mul",), counts) for s in ("run", "x" * 70)]
    made = Census("host", tuple(functions), ())
    lines = made.render().splitlines()
    assert max(map(len, lines)) <= 80
    heads = next(line for line in lines if "logic" in line).split()
    assert heads == [SHORT.get(kind, kind) for kind in KINDS if kind != UNKNOWN]
    numbers = [cells for line in lines if (cells := line.split()) and cells[0].isdigit()]
    assert numbers == [["12345"] * 12, ["12345"] * 12, ["24690"] * 12]
    text = " ".join(" ".join(lines).split())
    for kind in KINDS:
        assert kind == UNKNOWN or kind in heads or f"{SHORT[kind]}: {kind}" in text


@pytest.mark.parametrize(
    ("kind", "mnemonics"),
    [
        (MULTIPLY, "mulps vmulss vmulpd pmulld vpmuludq vpmulhrsw"),
        (FMA, "vfmadd231ps vfnmsub132sd vfmaddsub213pd vfmaddps"),
        (DOT, "dpps vdppd vpdpbusd vpmaddwd pmaddubsw vdpbf16ps"),
        (DIVIDE, "divps vdivsd sqrtss vrcp14ps rsqrtps"),
        (ADD, "addps vsubss vpaddd psubusb vpsadbw vhaddps vpavgb pavgw"),
        (LOGIC, "minps vpminsd vpmaxub andnps vpternlogd vcmpltps ucomiss pand vpabsd kortestw"),
        (SHIFT, "psrld vpsllvd kshiftrw"),
        (CONVERT, "cvtdq2ps vcvttps2dq vpmovzxbd packuswb vroundps vpmovdb"),
        (MOVE, "movups vmovdqu32 movzbl vbroadcastss vpbroadcastd vinsertf128 vpshufb vblendvps "
               "vpermt2ps pushq vmaskmovps vpmaskmovd kmovd movabsq unpcklps xchgl vpsrldq"),
        (CONTROL, "jne callq retq pause jmp vzeroupper"),
        (ADDRESS, "leaq addq subl cmpq testb shlq sarl incl cmovgq setae shrxq btq xaddl andb"),
        (ADDRESS_MULTIPLY, "imulq mulq mulxq divq idivl imull"),
        (UNKNOWN, "vpclmulqdq fmulp aesenc vreduceps frobnicate mulpsx"),
    ],
)  # fmt: skip
def test_kinds(kind: str, mnemonics: str) -> None:
    found = {mnemonic: X86_64.kind_of(mnemonic) for mnemonic in mnemonics.split()}
    assert found == dict.fromkeys(found, kind)


def test_assembly_is_counted_by_function() -> None:
    text = """
        .type first,@function
first:                                  # @first
# %bb.0:                                # %entry
        vaddps  (%rdi), %ymm0, %ymm0    # vmulps in a comment
.LBB0_1:
        lock            xaddl   %eax, (%rdi)
        lock
        frobnicate
        retq
.Lfunc_end0:
        .size first, .Lfunc_end0-first
        .type second,@function
second:
        vmulps %ymm0, %ymm0, %ymm0
        retq
        .section .rodata,"a",@progbits
data:
        .long 1
"""
    assert count_instructions(text) == {
        "first": Counter({ADD: 1, ADDRESS: 1, CONTROL: 2, UNKNOWN: 1}),
        "second": Counter({MULTIPLY: 1, CONTROL: 1}),
    }


@pytest.mark.parametrize("target", [*LEVELS, "toy"])
def test_no_instruction_of_these_graphs_is_unknown(target: str) -> None:
    for text in (NET, MIXED):
        made = taken(text, target)
        assert made.total[UNKNOWN] == 0 and made.total[CONTROL] > 0


def test_an_unknown_instruction_forfeits_the_claim() -> None:
    made = compiler.census(ag.parse(adder_with_tail("direct", "return %y")), target="x86-64")
    counts = made.functions[0].counts
    assert isinstance(counts, Counter) and made.multiplication_free
    counts[UNKNOWN] += 1
    assert not made.multiplication_free
    assert "1 instructions of unknown kind" in made.render()


@pytest.mark.parametrize("target", [t for t in TARGETS if not t.startswith(("x86", "toy"))])
def test_other_machines(target: str) -> None:
    """There is one kind of product for data and addresses; bytes need none where none may be."""
    bytes_only = """
graph net(%x: u8[3,7,5]) {
  %y = transpose(%x) permutation=(1,2,0) : u8[7,5,3]
  return %y
}"""
    made = taken(bytes_only, target)
    assert made.total["move"] > 5 and not made.total["address"] and not made.total[UNKNOWN]
    assert made.multiplication_free or TARGETS[target].multiplier
    if TARGETS[target].floats:
        assert not taken(NET, target).multiplication_free


# -- the second source: a disassembler, on the exported object -----------------------------------

_PRODUCT = re.compile(r"v?f(n?m)(add|sub)\w+|v?mul[ps][ds]|v?pmul\w+|v?(div|sqrt)[ps][ds]")


def disassembled(path: Path) -> dict[str, tuple[int, int]]:
    """Function -> (instructions, those that multiply or divide data), by capstone."""
    listing = subprocess.run(["nm", "-S", path], capture_output=True, text=True, check=True)
    sections = subprocess.run(
        ["readelf", "-SW", path], capture_output=True, text=True, check=True
    ).stdout
    place = re.search(r"\.text\s+PROGBITS\s+\w+ (\w+) (\w+)", sections)
    assert place is not None
    start, size = (int(number, 16) for number in place.groups())
    code = path.read_bytes()[start : start + size]
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = {}
    for address, length, name in re.findall(r"(\w+) (\w+) [tT] (\S+)", listing.stdout):
        first, count = int(address, 16), int(length, 16)
        instructions = list(machine.disasm(code[first : first + count], first))
        assert sum(i.size for i in instructions) == count, f"{name} did not decode"
        products = sum(bool(_PRODUCT.fullmatch(i.mnemonic)) for i in instructions)
        # The assembler fills the space before aligned loops; the text has a directive there.
        padding = sum("nop" in i.mnemonic or i.op_str == "ax, ax" for i in instructions)
        found[name] = (len(instructions) - padding, products)
    return found


@pytest.mark.slow
@pytest.mark.thinned(3)
@pytest.mark.needs("nm", "readelf")
@pytest.mark.parametrize("target", [*LEVELS, "toy"])
def test_a_disassembler_counts_the_same_in_the_exported_object(target: str, tmp_path: Path) -> None:
    graph = ag.parse(NET)
    built = compiler.build(graph, target=target, cache=False)
    made = export(built, initial_weights(graph), tmp_path, shared=False)
    found = disassembled(made.code)
    kernels = [f for f in taken(NET, target).functions if f.nodes]
    assert {"adder2d", "dense", "softmax", "argmax"} <= {op for f in kernels for op in f.ops}
    for f in kernels:
        assert found[f.symbol] == (sum(f.counts.values()), f.products), f.symbol
    # The entries of the C interface, which the census does not see, multiply nothing either.
    assert all(products == 0 for name, (_, products) in found.items() if name.startswith("net_"))
