"""certify: whatever multiplies is found, by name and by encoding, and two decoders agree."""

from __future__ import annotations

import functools
import mmap
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.archive import read_archive
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.certificate import Certificate, certify, certify_bytes
from addergraph.codegen.inspect.disassembly import Instruction, disassemble, machine_of
from addergraph.codegen.inspect.instructions import CONTROL, MACHINES, REFUSED
from addergraph.ir.state import initial_weights
from tests.codegen import encodings, objects
from tests.codegen.libraries import NET
from tests.codegen.test_strict import integers

pytestmark = pytest.mark.thinned(3)

SAMPLE = Path(__file__).parent / "products.txt"
TABLES = {machine.name: machine for machine in MACHINES if machine.name != "wasm"}  # decodes alone
# A mnemonic in each of the tables of names that LLVM prints from.
NAMED = {
    "x86-64": rb"vpmulld\t\0", "aarch64": rb"sqrdmulh\t\0", "thumb": rb"umaal\0",
    "riscv": rb"mulhsu\t\0",
}  # fmt: skip


# -- by name -------------------------------------------------------------------------------------


@functools.cache
def names(machine: str) -> frozenset[str]:
    """What LLVM's printers of a machine know, but for names that are the end of another."""
    folder = Path(llvmlite.binding.__file__).parent
    with next(folder.glob("*llvmlite.*")).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = set()
    for hit in re.finditer(NAMED[machine], data):
        first, last = max(hit.start() - 200_000, 0), hit.start() + 200_000
        before, after = data[first : hit.start()], data[hit.start() : last]
        for text in (*_texts(reversed(before.split(b"\0"))), *_texts(after.split(b"\0"))):
            found.add(text.split("\t")[0])
    return frozenset(found)


def _texts(parts: Sequence[bytes] | Iterator[bytes]) -> Iterator[str]:
    for part in parts:
        if not re.fullmatch(rb"[\t -~]*", part):
            return
        yield part.decode()


@pytest.mark.parametrize("machine", TABLES)
def test_no_product_that_llvm_names_is_allowed(machine: str) -> None:
    found = names(machine)
    if not found:
        pytest.skip("this llvmlite has its names elsewhere")
    ends = {name[i:] for name in found for i in range(len(name))}
    products = {n for n in ends if encodings.is_product(machine, n)}
    assert len(products) > 100
    assert [n for n in products if TABLES[machine].kind_of(n) not in REFUSED] == []


# -- by encoding ---------------------------------------------------------------------------------


def first_ones(machine: str, codes: Sequence[bytes]) -> dict[int, Instruction]:
    """Slot -> what the product decodes there."""
    read = elf.read_elf(encodings.object_of(machine, codes), "x")
    return {p.offset // encodings.SLOT: p.instructions[0] for p in disassemble(read, "x")}


def sample(machine: str) -> list[tuple[bytes, str]]:
    """(encoding, LLVM's name) of one of each product, from the sweep below."""
    rows = (line.split() for line in SAMPLE.read_text().splitlines() if line[:1] != "#")
    return [(bytes.fromhex(code), name) for of, code, name in rows if of == machine]


@pytest.mark.parametrize("machine", objects.MACHINES)
def test_one_of_each_product_is_found(machine: str) -> None:
    rows = sample(machine)
    assert len(rows) > 50
    data = encodings.object_of(machine, [code for code, _ in rows])
    made = certify_bytes(data, "x.o")
    found = {f.function for f in made.failures if f.offset == 0}
    assert [name for n, (_, name) in enumerate(rows) if f"s{n}" not in found] == []
    decoded = first_ones(machine, [code for code, _ in rows])
    kind_of = TABLES[objects.TABLE[machine]].kind_of
    allowed = [
        i.mnemonic for i in decoded.values() if i.mnemonic and kind_of(i.mnemonic) not in REFUSED
    ]
    assert allowed == []


@dataclass
class Disagreement:
    """What the product allows and another decoder does not."""

    code: str
    ours: str
    theirs: str


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("machine", "program"),
    [
        pytest.param("x86-64", "llvm-objdump", marks=pytest.mark.needs("llvm-objdump")),
        pytest.param("x86-64", "objdump", marks=pytest.mark.needs("objdump")),
        pytest.param("aarch64", "llvm-objdump", marks=pytest.mark.needs("llvm-objdump")),
        pytest.param("thumb", "llvm-objdump", marks=pytest.mark.needs("llvm-objdump")),
        pytest.param("riscv", "llvm-objdump", marks=pytest.mark.needs("llvm-objdump")),
        pytest.param("riscv64", "llvm-objdump", marks=pytest.mark.needs("llvm-objdump")),
    ],
)
def test_encodings_of_all_forms(machine: str, program: str, fuzz_seed: int, tmp_path: Path) -> None:
    """What another decoder calls a product is refused; what is allowed has the length it says."""
    counted, wrong = Counter[str](), list[Disagreement]()
    for codes in encodings.batches(encodings.of(machine, fuzz_seed)):
        path = tmp_path / "x.o"
        path.write_bytes(encodings.object_of(machine, codes))
        made = certify_bytes(path.read_bytes(), "x.o")
        refused = {
            int(f.function[1:]) for f in made.failures if f.offset == 0 and f.function[:1] == "s"
        }
        ours = first_ones(machine, codes)
        for seen in encodings.decoded(machine, path, program):
            slot, inside = divmod(seen.start, encodings.SLOT)
            if inside:
                continue
            product = encodings.is_product(machine, seen.text)
            counted["products" if product else "others"] += 1
            i = ours[slot]
            same = seen.end is None or seen.end - seen.start == i.size
            if slot not in refused and (product or not same):
                wrong.append(
                    Disagreement(codes[slot].hex(), f"{i.mnemonic} {i.operands}", seen.text)
                )
    print(f"{machine}, {program}: {dict(counted)}")
    assert wrong == [] and counted["products"] > 500


# -- our own archives ----------------------------------------------------------------------------


@functools.cache
def own(target: str, strict: bool) -> bytes:
    graph = integers() if strict else ag.parse(NET)
    weights = initial_weights(graph)
    with tempfile.TemporaryDirectory() as folder:
        made = compiler.export(
            graph, folder, weights=weights, target=target, multiplication_free=strict
        )
        # Code without products calls nothing through the arena, and its header offers nothing.
        assert ("At byte 8" in made.header.read_text()) == (not strict)
        if made.shared is not None:
            assert certify(made.shared).multiplication_free == strict
        return made.archive.read_bytes()


OWN = [
    ("x86-64", "x86-64", True), ("x86-64-v3", "x86-64", True), ("x86-64-v4", "x86-64", True),
    ("x86-64-v4", "x86-64", False), ("aarch64-linux-gnu", "aarch64", True),
    ("aarch64-linux-gnu", "aarch64", False), ("thumbv6m", "thumb", True),
    ("riscv32i", "riscv", True), ("riscv64i", "riscv64", True),
    ("riscv64-linux-gnu", "riscv64", False),
]  # fmt: skip
BOTH = [
    pytest.param(
        *case, program, marks=pytest.mark.needs(program), id=f"{case[0]}-{case[2]}-{program}"
    )
    for program in ("llvm-objdump", "objdump")
    for case in OWN
    if program == "llvm-objdump" or case[1] == "x86-64"  # GNU's knows the machine it is built for
]


def judged(kind: str) -> str:
    """The kind, of those that matter: LLVM calls an `addi` of zero a move."""
    return kind if kind in REFUSED or kind == CONTROL else "allowed"


@pytest.mark.thinned(6)
@pytest.mark.parametrize(("target", "machine", "strict", "program"), BOTH)
def test_a_second_decoder_sees_the_same(
    target: str, machine: str, strict: bool, program: str, tmp_path: Path
) -> None:
    """The same instructions at the same places, and of LLVM's names the same kinds."""
    data = own(target, strict)
    made: Certificate = certify_bytes(data, "x.a")
    assert made.multiplication_free == strict, made.render()
    for name, content in read_archive(data, "x.a"):
        read = elf.read_elf(content, name)
        pieces = disassemble(read, name)
        if not pieces:
            continue
        path = tmp_path / "x.o"
        path.write_bytes(content)
        kind_of = machine_of(read, name).kind_of
        ours = [i for p in pieces for i in p.instructions]
        seen = encodings.decoded(machine, path, program)
        assert [i.offset for i in ours] == [s.start for s in seen]
        kinds = [kind_of(str(i.mnemonic)) for i in ours]
        if program == "llvm-objdump":
            theirs = [kind_of(encodings.without_prefixes(s.text)) for s in seen]
            pairs = zip(ours, seen, kinds, theirs, strict=True)
            assert [(i.mnemonic, s.text) for i, s, a, b in pairs if judged(a) != judged(b)] == []
        products = [encodings.is_product(machine, s.text) for s in seen]
        assert any(products) == (not strict) or machine != "x86-64"
        assert all(kind in REFUSED for kind, p in zip(kinds, products, strict=True) if p)
