"""Encodings of instructions by the thousand, and what LLVM's disassembler says that they are."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.codegen import elves

SLOT = 16  # bytes, more than any instruction has
# What multiplies, divides or takes roots, is a polynomial's or a matrix's product, or one of x87,
# by what LLVM calls it.
PRODUCTS = {
    "x86-64": r"v?(p?(mul|madd|mac|dp)|i?mul|i?div|4fn?m|p4dp|dp|fn?m(add|sub)|fc?(mul|madd)|tdp"
    r"|t2rpnt|tmmul|tcmm|gf2p8|pclmul|rcp|rsqrt|sqrt|scalef|getmant|pf(mul|rcp|rsq)|aes|crc32|sha\d"
    r"|exp2)\w*|f(?!emms)\w+|aa[dm]",
    "aarch64": r"(?!movs)\w*(mul|mla|mls|madd|msub|mneg|div|dot|mmla|sqrt|recp|rsqrt|mopa|mops"
    r"|scale|ftmad|expa|aes|crc32|mlal|mlsl|nmad|nmsb)\w*|mad|msb|index|rdvl|addvl|addpl"
    r"|(inc|dec|cnt)[bhwd]",
    "thumb": r"(mul|ml[as]|sm[ml]|smu|uml|umu|umaal|[us]div|vmul|vml|vfm|vfn|vnm|vqr?dm|vdiv|vsqrt"
    r"|vrec|vrsq|v[us]+dot|vdot|v\w*mmla|vcmla|vcmul|vrml|vpmul|crc32|v?cx|cdp|mcr|mrc)\S*",
    "riscv": r"(c\.)?(vw?)?f?n?(mul|div|rem|madd|msub|macc|msac|nm|sqrt|rec7|rsqrt7|dot|clmul|red)"
    r"\S*|(v?aes|v?sha|v?sm[34]|vg|clmul|vclmul|cv\.|th\.mu)\S*",
}  # fmt: skip
_NONE = re.compile(r"<unknown>|.*\(bad\)|([0-9a-f]{2}\s)*\s*\.\w+")  # no instruction, or data
_PREFIX = re.compile(
    r"lock|repn?[ez]?|data16|data32|addr32|rex\S*|\{\w+\}|[cdefgs]s|xacquire|xrelease|notrack|bnd"
)
PRODUCTS["riscv64"] = PRODUCTS["riscv"]
TRIPLES = {
    "x86-64": "x86_64", "aarch64": "aarch64", "thumb": "thumbv8.1m.main", "riscv": "riscv32",
    "riscv64": "riscv64",
}  # fmt: skip
ATTRIBUTES = {
    "x86-64": "",
    "aarch64": "+v9a,+sve2-aes,+sve2-bitperm,+sme,+fullfp16,+fp16fml,+dotprod,+i8mm,+bf16,+aes"
    ",+sha3,+crc,+f64mm,+f32mm,+ls64,+mte",
    "thumb": "+dsp,+mve.fp,+fp64,+fullfp16,+cdecp0",
    "riscv": "+m,+a,+f,+d,+c,+v,+zba,+zbb,+zbc,+zbs,+zbp,+experimental-v,+experimental-zbc,"
    "+experimental-zbp,+zfh,+experimental-zfh",
}  # fmt: skip
ATTRIBUTES["riscv64"] = ATTRIBUTES["riscv"]


@dataclass(frozen=True)
class Seen:
    """An instruction by another decoder; `end` is where the next one begins, None for the last."""

    start: int
    end: int | None
    text: str


def of(machine: str, seed: int, share: float = 1.0) -> Iterator[bytes]:
    """Encodings of a machine, in all forms, each with `share` of its register numbers."""
    rng = random.Random(seed)
    made = {"x86-64": _x86, "aarch64": _aarch64, "thumb": _thumb}.get(machine, _riscv)
    return (code for code in made(rng) if share == 1 or rng.random() < share)


def _x86(rng: random.Random) -> Iterator[bytes]:
    def tail() -> bytes:
        return rng.randbytes(8)

    forms = [0xC0, 0x05, 0x44, 0x80]  # registers; memory by rip, with an index, with a distance
    prefixes = [
        b"",
        b"\x66",
        b"\xf3",
        b"\xf2",
        b"\x48",
        b"\x66\x49",
        b"\xf2\x44",
        b"\xf0",
        b"\x2e\x66",
    ]
    maps = [b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\x0f\x0f"]
    for prefix, table, opcode in itertools.product(prefixes, maps, range(256)):
        for register in range(8):
            modrm = (
                rng.choice(forms) | register << 3 | (rng.randrange(8) if rng.random() < 0.5 else 0)
            )
            yield prefix + table + bytes([opcode, modrm]) + tail()
    for pp, opcode, form in itertools.product(range(4), range(256), forms):
        second = pp | rng.choice((0x78, 0xF8, 0x7C, 0xC4))
        yield bytes([0xC5, second, opcode, form | rng.randrange(8) << 3]) + tail()
    three = itertools.product((0xC4, 0x8F), range(1, 12), range(4), (0, 0x80), (0, 4), range(256))
    for lead, space, pp, wide, length, opcode in three:
        modrm = rng.choice(forms) | rng.randrange(8) << 3
        yield bytes([lead, 0xE0 | space, wide | length | 0x78 | pp, opcode, modrm]) + tail()
    four = itertools.product((1, 2, 3, 5, 6), range(4), (0, 0x80), (0, 0x20, 0x40), range(256))
    for space, pp, wide, length, opcode in four:
        modrm, flags = rng.choice(forms) | rng.randrange(8) << 3, rng.choice((0, 0x10, 0x81, 1))
        second = wide | 0x7C | pp
        yield bytes([0x62, 0xF0 | space, second, length | flags | 8, opcode, modrm]) + tail()


def _aarch64(rng: random.Random) -> Iterator[bytes]:
    for high in range(1 << 16):  # the opcode is mostly in the upper half, and in bits 10 to 15
        for _ in range(3):
            yield (high << 16 | rng.getrandbits(16)).to_bytes(4, "little")


def _thumb(rng: random.Random) -> Iterator[bytes]:
    for first in range(1 << 16):
        if first >> 11 < 0b11101:
            yield first.to_bytes(2, "little")
            continue
        for _ in range(12):
            yield first.to_bytes(2, "little") + rng.randbytes(2)


def _riscv(rng: random.Random) -> Iterator[bytes]:
    for word in range(1 << 16):
        if word & 3 != 3:
            yield word.to_bytes(2, "little")
    for opcode, third, seventh in itertools.product(range(32), range(8), range(128)):
        for _ in range(3):
            registers = [rng.choice((rng.randrange(32), 0, 1, 2)) for _ in range(3)]
            fields = zip((7, 15, 20), registers, strict=True)
            word = opcode << 2 | 3 | third << 12 | seventh << 25
            yield (word | sum(r << at for at, r in fields)).to_bytes(4, "little")


def object_of(machine: str, codes: Sequence[bytes]) -> bytes:
    """An object with each encoding at the start of a function `s0`, `s1`, ... of a slot."""
    thumb = machine == "thumb"
    symbols = [elves.Symbol("$t", 0, 0, elves.NOTYPE, elves.LOCAL)] if thumb else []
    symbols += [elves.Symbol(f"s{n}", n * SLOT + thumb, SLOT) for n in range(len(codes))]
    data = b"".join(
        code[:SLOT].ljust(SLOT, b"\x90" if machine == "x86-64" else b"\0") for code in codes
    )
    return elves.made(machine, [elves.Section(".text", data, elves.ALLOC | elves.EXEC)], symbols)


def decoded(machine: str, path: Path, program: str, attributes: str | None = None) -> list[Seen]:
    """All instructions of an object, in order, as an objdump prints them; none of what it cannot.

    A prefix that it prints on a line of its own is part of the next instruction.
    """
    options = ["-M", "att"]
    if program == "llvm-objdump":
        extra = ATTRIBUTES[machine] if attributes is None else attributes
        options = [f"--mattr={extra}", f"--triple={TRIPLES[machine]}"]
    done = subprocess.run(
        [program, "-d", "-z", "--no-show-raw-insn", *options, path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [
        (int(m[1], 16), m[2].strip()) for m in re.finditer(r"^ *([0-9a-f]+):\s(.*)$", done, re.M)
    ]
    ends = [at for at, _ in lines[1:]] + [None]
    found, start, before = list[Seen](), None, ""
    for (at, line), end in zip(lines, ends, strict=True):
        start, text = (at if start is None else start), f"{before} {line}".strip()
        if line and end is not None and not without_prefixes(line):
            before = text
            continue
        if not _NONE.match(line):
            found.append(Seen(start, end, text))
        start, before = None, ""
    return found


def without_prefixes(text: str) -> str:
    """The mnemonic of "lock xaddl %eax, (%rdi)": `xaddl`."""
    return next((w for w in text.split() if not _PREFIX.fullmatch(w)), "")


def is_product(machine: str, text: str) -> bool:
    return bool(re.fullmatch(PRODUCTS[machine], without_prefixes(text)))


def batches(codes: Iterable[bytes], size: int = 8192) -> Iterator[list[bytes]]:
    iterator = iter(codes)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
