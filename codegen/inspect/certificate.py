"""A certificate that compiled code multiplies nothing, read off its bytes.

Each instruction of an object, archive, program or shared library is decoded (`disassembly.py`) and
looked up in the table of its machine (`instructions.py`). Refused are products of every kind,
address arithmetic included, instructions that the table does not know and bytes that do not decode;
and calls of functions that the file does not hold, since a compiler without a multiply instruction
calls one (`__mulsi3`, `__aeabi_lmul`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from addergraph.errors import StorageError, UnsupportedError

from ..export.archive import is_archive, read_archive
from . import elf
from .disassembly import Instruction, Piece, capstone_version, disassemble, machine_of
from .instructions import CONTROL, REFUSED, UNKNOWN, Machine, counts_table

FORMAT = 1  # of certificate.json
BYTES_LIMIT = 1 << 30
FUNCTION_ALIGNMENT = 16  # the largest that LLVM gives functions
_SHOWN = 20  # failures in the report; the file has all
_RISCV_CALLS = (18, 19)  # R_RISCV_CALL, R_RISCV_CALL_PLT: at the auipc of an auipc, jalr pair
_JUMP = r"jalr \w+, {0}, \S+|(jalr|jr) {0}"  # RISC-V, by a register
_LINKERS = {"_GLOBAL_OFFSET_TABLE_"}  # defined by every linker, and data
# Helpers of libgcc and compiler-rt that multiply or divide, whichever way they are reached.
_HELPER = re.compile(r"__(aeabi_)?[a-z]*(mul|div|mod)[a-z]*\d?")


@dataclass(frozen=True)
class Function:
    """One function, or a piece of code outside of all (its name is section and offset).

    member     the archive's member, "" for files that are none
    offset     of its first byte, into the section
    data_bytes bytes in it that are marked as data and were not decoded
    mnemonics  mnemonic -> instructions
    """

    member: str
    name: str
    section: str
    offset: int
    size: int
    data_bytes: int
    machine: Machine
    mnemonics: Mapping[str, int]

    @property
    def label(self) -> str:
        """The name, after that of the member."""
        return f"{self.member}: {self.name}" if self.member else self.name

    @property
    def is_padding(self) -> bool:
        """Whether it is no function, but as short as what aligns the next one."""
        return self.name == f"{self.section}+{self.offset:#x}" and self.size < FUNCTION_ALIGNMENT

    @property
    def counts(self) -> Counter[str]:
        """Kind -> instructions."""
        found = Counter[str]()
        for mnemonic, count in self.mnemonics.items():
            found[self.machine.kind_of(mnemonic)] += count
        return found


@dataclass(frozen=True)
class Failure:
    """Why the certificate is refused: at byte `offset` of a function, 0 being its first."""

    member: str
    function: str
    offset: int
    instruction: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.member}: {self.function}" if self.member else self.function
        return f"{where}+{self.offset:#x}: {self.instruction}: {self.reason}"


@dataclass(frozen=True)
class Certificate:
    """What was found in a file. It holds (`multiplication_free`) where there is no failure.

    undefined  symbols that the file names and does not hold, such as weights in another object
    """

    file: str
    sha256: str
    decoder: str
    machine: str
    functions: tuple[Function, ...]
    failures: tuple[Failure, ...]
    undefined: tuple[str, ...]

    @property
    def multiplication_free(self) -> bool:
        """Whether every instruction is known and none multiplies or divides."""
        return not self.failures

    def to_json(self) -> bytes:
        """`certificate.json`: the same bytes for the same file, tables and decoder."""
        content = {
            "decoder": self.decoder,
            "failures": [vars(f) for f in self.failures],
            "file": self.file,
            "format": FORMAT,
            "functions": [_described(f) for f in self.functions],
            "machine": self.machine,
            "multiplication_free": self.multiplication_free,
            "sha256": self.sha256,
            "undefined": list(self.undefined),
        }
        return json.dumps(content, sort_keys=True, indent=2).encode() + b"\n"

    def render(self) -> str:
        """The census as a table, then the verdict and what speaks against it."""
        head = f"{self.file}: {self.machine} code, decoded by {self.decoder}"
        rows = [
            (f.label, f.counts, str(f.data_bytes or "")) for f in self.functions if not f.is_padding
        ]
        if padding := [f for f in self.functions if f.is_padding]:
            rows.append(("(between functions)", sum((f.counts for f in padding), Counter()), ""))
        lines = [head, "", counts_table(rows, "data bytes"), ""]
        if self.undefined:
            lines.append("named, not in this file: " + ", ".join(self.undefined))
        if self.multiplication_free:
            return "\n".join([*lines, "multiplication-free: yes, all of it"])
        lines.append(f"multiplication-free: no, for {len(self.failures)} reasons")
        lines += [f"  {failure}" for failure in self.failures[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            lines.append(f"  and {len(self.failures) - _SHOWN} more")
        return "\n".join(lines)


def certify(path: str | os.PathLike[str]) -> Certificate:
    """Reads the instructions of an object, static archive, program or shared library.

    Raises StorageError for a file that cannot be read, is none of these, is damaged, truncated or
    without code; UnsupportedError for a machine without a table, members for several machines, and
    where capstone is not installed.
    """
    data = _read(Path(path))
    return certify_bytes(data, Path(path).name)


def certify_bytes(data: bytes, file: str) -> Certificate:
    """As `certify`, of bytes in memory; `file` is their name."""
    decoder = f"capstone {capstone_version()}"
    members = read_archive(data, file) if is_archive(data) else [("", data)]
    labels = {member: f"{file}({member})" if member else file for member, _ in members}
    files = [(member, elf.read_elf(content, labels[member])) for member, content in members]
    machines = {machine_of(read, labels[member]) for member, read in files}
    if len(machines) > 1:
        names = ", ".join(sorted(m.name for m in machines))
        raise UnsupportedError(f'"{file}" has members for several machines ({names}); expected one')
    exported = {s.name for _, read in files for s in read.symbols if s.exported} | _LINKERS
    undefined = {s.name for _, read in files for s in read.symbols if s.undefined} - exported
    functions: list[Function] = []
    failures: list[Failure] = []
    for member, read in files:
        pieces = disassemble(read, labels[member])
        machine = machine_of(read, labels[member])
        functions += [_function(member, read, piece, machine) for piece in pieces]
        failures += [f for piece in pieces for f in _refused(member, piece, machine)]
        failures += _missing(member, read, pieces, machine, undefined)
    if not functions:
        raise StorageError(
            f'"{file}" has no code: there is nothing to certify; give the object with the '
            "functions, or the archive or library of all"
        )
    digest = hashlib.sha256(data).hexdigest()
    return Certificate(
        file, digest, decoder, machine.name, tuple(functions), tuple(failures),
        tuple(sorted(undefined)),
    )  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > BYTES_LIMIT:
            raise StorageError(f'"{path}" has {size} bytes; at most {BYTES_LIMIT} are read')
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None


def _function(member: str, file: elf.Elf, piece: Piece, machine: Machine) -> Function:
    decoded = Counter(i.mnemonic for i in piece.instructions if i.mnemonic is not None)
    return Function(
        member, piece.name, file.sections[piece.section].name, piece.offset, piece.size,
        piece.data_bytes, machine, dict(sorted(decoded.items())),
    )  # fmt: skip


def _refused(member: str, piece: Piece, machine: Machine) -> list[Failure]:
    """The instructions of a piece that are not allowed."""
    found = []
    for i in piece.instructions:
        if i.mnemonic is None:
            reason = f"does not decode, nor was the rest read ({i.size} bytes)"
            found.append(Failure(member, piece.name, i.offset - piece.offset, i.operands, reason))
            continue
        kind = machine.kind_of(i.mnemonic)
        if kind in REFUSED:
            reason = f"not in the table of {machine.name}" if kind == UNKNOWN else kind
            found.append(Failure(member, piece.name, i.offset - piece.offset, _text(i), reason))
    return found


def _missing(
    member: str, file: elf.Elf, pieces: Sequence[Piece], machine: Machine, absent: Set[str]
) -> list[Failure]:
    """Calls of functions that the file does not hold, and ways in which there may be some."""
    if file.linked:
        return [
            Failure(member, name, 0, "symbol", "is not in this file") for name in sorted(absent)
        ]
    code = {piece.section for piece in pieces}
    everywhere = {r.symbol.name for r in file.relocations if r.section not in code} & absent
    found = []
    for piece in pieces:
        found += _calls_of(member, file, piece, machine, absent, everywhere)
    named = " ".join(f.reason for f in found)
    helpers = sorted(n for n in absent if _HELPER.fullmatch(n) and f'"{n}"' not in named)
    return found + [Failure(member, n, 0, "symbol", "is not in this file") for n in helpers]


def _calls_of(
    member: str, file: elf.Elf, piece: Piece, machine: Machine, absent: Set[str], known: Set[str]
) -> list[Failure]:
    """What one function calls of `absent`.

    A call through a register is held to reach every address that the function takes, and those
    in the file's data (`known`).
    """
    at: dict[int, list[elf.Relocation]] = {}
    for r in file.relocations:
        if r.section == piece.section and 0 <= r.offset - piece.offset < piece.size:
            at.setdefault(r.offset, []).append(r)
    found, indirect, addresses, pair, near = [], [], set(known), False, ""
    for i in piece.instructions:
        inside = [r for o in range(i.offset, i.offset + i.size) for r in at.pop(o, ())]
        names = {r.symbol.name for r in inside} & absent
        text, offset = _text(i), i.offset - piece.offset
        if not _calls(file, inside, i, machine):
            addresses |= names
            known_place = pair or (near and re.fullmatch(_JUMP.format(near), text))
            if not known_place and re.fullmatch(machine.indirect, text):
                indirect.append(Failure(member, piece.name, offset, text, ""))
        elif names:
            reason = f'calls "{min(names)}", which is not in this file'
            found.append(Failure(member, piece.name, offset, text, reason))
        pair = _is_pair(file, inside)
        near = _near_register(file, inside, i)
    addresses |= {r.symbol.name for left in at.values() for r in left} & absent
    if not addresses:
        return found
    reason = f"may call what is not in this file: {', '.join(sorted(addresses))}"
    return found + [replace(failure, reason=reason) for failure in indirect]


def _text(i: Instruction) -> str:
    return f"{i.mnemonic} {i.operands}".rstrip() if i.mnemonic is not None else i.operands


def _calls(
    file: elf.Elf, inside: Sequence[elf.Relocation], i: Instruction, machine: Machine
) -> bool:
    """Whether an instruction with the relocations `inside` calls or jumps to their symbols."""
    if _is_pair(file, inside):
        return True
    return bool(inside) and i.mnemonic is not None and machine.kind_of(i.mnemonic) == CONTROL


def _near_register(file: elf.Elf, inside: Sequence[elf.Relocation], i: Instruction) -> str:
    """The register of a RISC-V auipc without relocation, "" for all else.

    A jalr that follows it and adds to it goes to a distance that the assembler knew: into the file.
    """
    alone = file.machine == elf.RISCV and i.mnemonic == "auipc" and not inside
    return i.operands.partition(",")[0] if alone else ""


def _is_pair(file: elf.Elf, inside: Sequence[elf.Relocation]) -> bool:
    """Whether an instruction is the auipc of a call, whose jalr follows it."""
    return file.machine == elf.RISCV and any(r.type in _RISCV_CALLS for r in inside)


def _described(f: Function) -> dict[str, Any]:
    return {
        "bytes": f.size,
        "counts": dict(sorted(f.counts.items())),
        "data_bytes": f.data_bytes,
        "member": f.member,
        "mnemonics": dict(f.mnemonics),
        "name": f.name,
        "offset": f.offset,
        "section": f.section,
    }
