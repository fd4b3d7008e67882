"""Every target without its hardware: cycles of inner loops for 16 terms, as llvm-mca counts them.

    python -m benchmarks.targets                        # all, with the cores that have a model
    python -m benchmarks.targets --only thumbv7em

Of one layer, 3 x 3 with 32 channels in and 32 out on 16 x 16 pixels, in f32 and in bytes, as an
adder layer and as a convolution, the busiest loop is run by llvm-mca's model of a core, which has
no caches and foresees every branch. Of each loop the table says:

    cycles  for 16 terms, |x - f| and its sum or a product and its sum
    limit   how many times what the instructions alone take that make the terms, none of which
            waits for another

A target without a model has the instructions of the loop for 16 terms instead. llvm-mca is part of
LLVM (Debian: llvm-19; older ones know fewer cores).
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import addergraph as ag
from addergraph import compiler
from addergraph.codegen import llvm
from addergraph.codegen.emit.module import emit_program
from addergraph.codegen.inspect.instructions import machine_for
from addergraph.codegen.targets.lookup import target_named
from addergraph.codegen.targets.target import Target
from addergraph.errors import UnsupportedError
from addergraph.tables import Table
from benchmarks.cycles import cycles, loops

CORES: tuple[tuple[str, str], ...] = (  # target, and the core as llvm-mca names it; "" for none
    ("x86-64", "nehalem"),
    ("x86-64-v3", "haswell"),
    ("x86-64-v3", "znver3"),
    ("x86-64-v4", "sapphirerapids"),
    ("x86-64-v4", "znver4"),
    ("cortex-a53", "cortex-a53"),
    ("cortex-a72", "cortex-a72"),
    ("cortex-a76", "cortex-a76"),
    ("neoverse-n1", "neoverse-n1"),
    ("apple-m1", "apple-m1"),
    ("armv7-linux-gnueabihf", "cortex-a9"),  # there is no model of a Cortex-A7
    ("thumbv6m", ""),
    ("thumbv7em", "cortex-m4"),
    ("thumbv7em-f32", "cortex-m7"),
    ("thumbv8m-mve", "cortex-m55"),
    ("riscv32i", "rocket-rv32"),
    ("riscv32imc", "rocket-rv32"),
    ("riscv64i", "rocket-rv64"),
    ("riscv64-linux-gnu", "sifive-u74"),
    ("riscv64-linux-gnu-v", "sifive-x280"),
)
EXTENSIONS = {"cortex-a9": "+neon,+vfp4"}  # of the code, beyond those of the core
LAYERS = {  # op, types of x, f and y
    "f32 adder": ("adder2d", "f32", "f32", "f32"),
    "f32 conv": ("conv2d", "f32", "f32", "f32"),
    "int8 adder": ("adder2d", "u8", "u8", "i32"),
    "int8 conv": ("conv2d", "u8", "i8", "i32"),
}
LAYER = """
graph g(%x: {x}[1,16,16,32]) params(%f: {f}[3,3,32,32]) {{
  %y = {op}(%x, %f) padding=(1,1,1,1) : {y}[1,16,16,32]
  return %y
}}"""


@dataclass(frozen=True)
class Way:
    """How an instruction set makes terms: `counted` has so many, a number or, of x86, those of
    a register of 16 bytes; `others` go with it."""

    counted: str
    terms: int
    others: str = "$^"


@dataclass(frozen=True)
class Registers:
    """A pattern of them, which operand is written, and names for results and for what is read."""

    pattern: str
    written: int
    results: tuple[str, ...]
    read: tuple[str, ...]


def _numbered(start: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{start}{n}" for n in numbers)


X86 = Registers(r"%[xyz]mm\d+", -1, _numbered("", *range(12)), _numbered("", 13, 14, 15))
A64 = Registers(r"v\d+", 0, _numbered("v", *range(24)), _numbered("v", 30, 31, 29))
NEON = Registers(r"q\d+", 0, _numbered("q", *range(12)), _numbered("q", 13, 14, 15))
GENERAL = Registers(r"r\d+", 0, _numbered("r", *range(7)), _numbered("r", 8, 9, 10))
SINGLE = Registers(r"s\d+", 0, _numbered("s", *range(24)), _numbered("s", 29, 30, 31))
MVE = Registers(r"q\d+", 0, _numbered("q", *range(5)), _numbered("q", 5, 6, 7))
FLOAT_RV = Registers(r"f[ast]\d+", 0, _numbered("ft", *range(8)), _numbered("fa", 0, 1, 2))
RV = Registers(r"[ast]\d+", 0, ("t0", "t1", "t2", "t3", "t4", "t5", "t6"), ("a0", "a1", "a2"))
VECTOR_RV = Registers(r"v\d+", 0, _numbered("v", 0, 4, 8, 12, 16), _numbered("v", 20, 24, 28))
_RV_DISTANCE = Way(r"srai", 1, r"(sub|xor|add) ")
# By architecture, or target: registers and ways, by term and type.
WAYS: dict[str, dict[str, tuple[Registers, tuple[Way, ...]]]] = {
    "x86_64": {
        "f32 adder": (X86, (Way("v?addps", 4, "v?(subps|andps|minps|maxps)"),)),
        "f32 conv": (X86, (Way("vfmadd|mulps", 4, "addps"),)),
        "int8 adder": (X86, (Way("v?psadbw", 16, "v?paddq"),)),
        "int8 conv": (X86, (Way("v?pmaddwd", 8, "v?paddd"),)),
    },
    "aarch64": {
        "f32 adder": (A64, (Way(r"fadd.*\.4s", 4, r"(fabd|smin).*\.4s"),)),
        "f32 conv": (A64, (Way(r"fmla.*\.4s", 4),)),
        "int8 adder": (A64, (Way("udot", 16, "uabd"), Way("uadalp.*8h, .*16b", 16, "uabd"))),
        "int8 conv": (A64, (Way("[su]dot", 16), Way("sadalp.*4s, .*8h", 8, r"mul.*\.8h"))),
    },
    "thumbv7": {
        "f32 adder": (NEON, (Way(r"vadd\.f32\s+q", 4, r"(vsub|vabs)\.f32"),)),
        "f32 conv": (NEON, (Way(r"vfma\.f32\s+q", 4),)),
        "int8 adder": (NEON, (Way(r"vpadal\.u16\s+q", 16, r"vabd\.u8|vpaddl\.u8"),)),
        "int8 conv": (NEON, (Way(r"vpaddl\.s16\s+q", 8, r"vmul\.i16|vadd\.i32"),)),
    },
    "thumbv7em": {
        "f32 adder": (SINGLE, (Way(r"vadd\.f32", 1, r"(vsub|vabs)\.f32"),)),
        "f32 conv": (SINGLE, (Way(r"vfma\.f32", 1),)),
        "int8 adder": (GENERAL, (Way("usada8", 4),)),
        "int8 conv": (GENERAL, (Way("smlad", 2),)),
    },
    "thumbv6m": {
        "int8 adder": (GENERAL, (Way("eors", 1),)),
    },
    "thumbv8.1m.main": {
        "f32 adder": (MVE, (Way(r"vadd\.f32", 4, r"vabd\.f32"),)),
        "f32 conv": (MVE, (Way(r"vfma\.f32", 4),)),
        "int8 adder": (MVE, (Way(r"vabav\.u8", 16),)),
        "int8 conv": (MVE, (Way(r"vmlava\.s16", 8),)),
    },
    "riscv32": {"int8 adder": (RV, (_RV_DISTANCE,)), "int8 conv": (RV, (Way("mul ", 1, "add "),))},
    "riscv64": {
        "f32 adder": (FLOAT_RV, (Way(r"fadd\.s", 1, r"f(sub|abs)\.s"),)),
        "f32 conv": (FLOAT_RV, (Way(r"fmul\.s", 1, r"fadd\.s"),)),
        "int8 adder": (RV, (_RV_DISTANCE,)),
        "int8 conv": (RV, (Way("mulw? ", 1, "add "),)),
    },
    "riscv64-linux-gnu-v": {
        "f32 adder": (VECTOR_RV, (Way(r"vfadd\.vv", 16, r"vfr?sub|vfabs|vsetvli"),)),
        "f32 conv": (VECTOR_RV, (Way(r"vfmul\.v", 16, r"vfadd\.vv|vsetvli"),)),
        "int8 adder": (VECTOR_RV, (Way(r"vwaddu\.wv", 16, r"v(minu|maxu|sub)\.v|vsetvli"),)),
        "int8 conv": (VECTOR_RV, (Way(r"vwmaccsu\.vv", 16, "vsetvli"),)),
    },
}


@dataclass(frozen=True)
class Loop:
    """The busiest loop of a layer: `terms` by one iteration, `alone` what makes them."""

    body: tuple[str, ...]
    terms: int
    alone: tuple[str, ...]


def assembly_of(target: Target, layer: str) -> str:
    op, x, f, y = LAYERS[layer]
    graph = ag.parse(LAYER.format(op=op, x=x, f=f, y=y))
    module, _ = emit_program(compiler.lower(graph, target))
    return llvm.compile_assembly(str(module), target)


def kernels(assembly: str, comment: str) -> Iterator[list[str]]:
    """The lines of each function that computes a layer, without comments and directives."""
    lines, inside = list[str](), False
    for line in assembly.splitlines():
        text = re.sub(r"\s+", " ", line.split(comment)[0]).strip()
        if re.fullmatch(r"[A-Za-z_][\w.$]*:", text):
            if inside:
                yield lines
            lines, inside = [], bool(re.match("(adder|conv)2d", text))
        elif text and (not text.startswith(".") or text.endswith(":")):
            lines.append(text)
    if inside:
        yield lines


def busiest(target: Target, layer: str) -> Loop | None:
    """The loop of most terms; None where the target does not compute such a layer."""
    ways = WAYS.get(target.name) or WAYS[target.triple.partition("-")[0]]
    if layer not in ways:
        return None
    try:
        text = assembly_of(target, layer)
    except UnsupportedError:
        return None
    registers, known = ways[layer]
    found = [
        _loop(body, way, registers)
        for lines in kernels(text, machine_for(target.triple).comment)
        for body in loops(lines)
        for way in known
    ]
    return max(found, key=lambda loop: loop.terms, default=None)


def _loop(body: Sequence[str], way: Way, registers: Registers) -> Loop:
    terms = sum(way.terms * _width(line, registers) for line in body if re.match(way.counted, line))
    made = [line for line in body if re.match(f"({way.counted}|{way.others})", line)]
    renamed = (_renamed(line, number, registers) for number, line in enumerate(made))
    return Loop(tuple(body), terms, tuple(renamed))


def _width(line: str, registers: Registers) -> int:
    """Registers of 16 bytes of an instruction's, 1 but for wider ones of x86."""
    return 4 if "%zmm" in line else 2 if "%ymm" in line else 1


def _renamed(line: str, number: int, registers: Registers) -> str:
    """The instruction with a result of its own and operands that nothing writes."""
    places = list(re.finditer(registers.pattern, line))
    if not places:
        return line
    written = places[registers.written].start()
    read = iter(registers.read * 2)

    def name(found: re.Match[str]) -> str:
        result = registers.results[number % len(registers.results)]
        chosen = result if found.start() == written else next(read)
        return found[0][:4] + chosen if registers is X86 else chosen

    return re.sub(registers.pattern, name, line)


def cells_of(target: Target, core: str, layer: str) -> list[str]:
    """Two cells of the table: cycles for 16 terms, and times the limit."""
    loop = busiest(target, layer)
    if loop is None or not loop.terms:
        return ["", ""]
    if not core:
        return [f"{16 * len(loop.body) / loop.terms:.0f} instr.", ""]
    rated = dataclasses.replace(target, features=EXTENSIONS.get(core, target.features))
    whole, least = (cycles(body, rated, core) for body in (loop.body, loop.alone))
    # A vector length that is set before the loop is not that of the instructions alone.
    return [f"{16 * whole / loop.terms:.2f}", "" if least > whole else f"{whole / least:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="the targets with this in their name")
    only = parser.parse_args().only or ""
    rows = []
    for name, core in CORES:
        target = target_named(name)
        if only not in name:
            continue
        cells = [cell for layer in LAYERS for cell in cells_of(target, core, layer)]
        rows.append([name, core or "none", *cells])
    heads = ["target", "model", *(head for layer in LAYERS for head in (layer, "limit"))]
    print("\n".join(Table(heads, rows, words={"target", "model"}).lines()))


if __name__ == "__main__":
    main()
