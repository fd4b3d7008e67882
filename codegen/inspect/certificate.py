"""A certificate that compiled code multiplies nothing, read off its bytes.

Each instruction of an object, archive, program or shared library is decoded (`disassembly.py`) and
looked up in the table of its machine (`instructions.py`). Refused are products of every kind,
address arithmetic included, instructions that the table does not know and bytes that do not decode;
and calls of functions that the file does not hold, since a compiler without a multiply instruction
calls one (`__mulsi3`, `__aeabi_lmul`). Modules of WebAssembly are read by `wasm.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addergraph.errors import StorageError, UnsupportedError
from addergraph.files.storage import user_path
from addergraph.tables import Table

from ..export.archive import is_archive, read_archive
from . import elf, flow, wasm
from .disassembly import Piece, capstone_version, disassemble, machine_of
from .flow import Code, Failure, text_of
from .instructions import ADD, KINDS, REFUSED, UNKNOWN, WASM, Machine
from .visible import require_visible

FORMAT = 1  # of certificate.json
BYTES_LIMIT = 1 << 30
FUNCTION_ALIGNMENT = 16  # the largest that LLVM gives functions
WIDTH = 80  # columns of a terminal
_LABEL = 42  # of a function's name
_SHOWN = 20  # failures in the report; the file has all
_MOST_FAILURES = 10_000  # of a module of WebAssembly, of which each byte can be one
_MOST_ROWS = 500  # of functions: a table of many takes longer than reading them
_LINKERS = {"_GLOBAL_OFFSET_TABLE_"}  # defined by every linker, and data
# Helpers of libgcc and compiler-rt that multiply or divide, whichever way they are reached.
_HELPER, _DOES = re.compile(r"__(?:aeabi_)?([a-z]*+)\d?"), ("mul", "div", "mod")


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
        """The functions as a table, all instructions by kind, then the verdict and what speaks
        against it."""
        head = f"{self.file}: {self.machine} code, decoded by {self.decoder}"
        lines = [head, "", *self._table(), "", *self._kinds(), ""]
        if self.undefined:
            lines.append("named, not in this file: " + ", ".join(self.undefined))
        if self.multiplication_free:
            return "\n".join([*lines, "multiplication-free: yes, all of it"])
        lines.append(f"multiplication-free: no, for {len(self.failures)} reasons")
        lines += [f"  {failure}" for failure in self.failures[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            lines.append(f"  and {len(self.failures) - _SHOWN} more")
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """The functions, with what is added and what is refused of their instructions."""
        named = [(f.label, f.counts, f.data_bytes) for f in self.functions if not f.is_padding]
        if padding := [f for f in self.functions if f.is_padding]:
            counts = sum((f.counts for f in padding), Counter[str]())
            named.append(("(between functions)", counts, sum(f.data_bytes for f in padding)))
        if more := named[_MOST_ROWS:]:
            counts = sum((c for _, c, _ in more), Counter[str]())
            label = f"({len(more):,} more functions)"
            named = [*named[:_MOST_ROWS], (label, counts, sum(n for _, _, n in more))]
        heads = ("function", "add/sub", "refused", "others", "data bytes")
        rows = []
        for label, counts, data_bytes in named:
            refused, added = sum(counts[kind] for kind in REFUSED), counts[ADD]
            numbers = (added, refused, counts.total() - added - refused, data_bytes)
            rows.append((_fitted(label), *(f"{n:,}" if n else "" for n in numbers)))
        return Table(heads, rows, heads[:1]).lines()

    def _kinds(self) -> list[str]:
        """All instructions of the file by kind, those refused marked."""
        total = sum((f.counts for f in self.functions), Counter[str]())
        shown = ", ".join(
            f"{total[kind]:,} {kind}{' (refused)' * (kind in REFUSED)}"
            for kind in KINDS
            if total[kind]
        )
        return textwrap.wrap(f"in all: {shown}", WIDTH, subsequent_indent="  ")


def _fitted(label: str) -> str:
    """The label, whose middle is left out where it is too long: names differ at their ends."""
    if len(label) <= _LABEL:
        return label
    return f"{label[: _LABEL // 2 - 2]}..{label[-(_LABEL // 2) :]}"


def certify(path: str | os.PathLike[str]) -> Certificate:
    """Reads the instructions of an object, static archive, program, shared library, or module of
    WebAssembly.

    Raises StorageError for a file that cannot be read, is none of these, is damaged, truncated or
    without code; UnsupportedError for a machine without a table, members for several machines, and
    where capstone is not installed.
    """
    where = user_path(path)
    return certify_bytes(_read(where), where.name)


def certify_bytes(data: bytes, file: str) -> Certificate:
    """As `certify`, of bytes in memory; `file` is their name."""
    if data.startswith(wasm.MAGIC):
        return _module_certificate(data, file)
    decoder = f"capstone {capstone_version()}"
    codes = [_code(member, content, file) for member, content in _members(data, file)]
    machines = {(c.machine.name, c.file.bits, c.file.linked) for c in codes}
    if len(machines) > 1:
        names = ", ".join(sorted(f"{name} of {bits} bits" for name, bits, _ in machines))
        raise UnsupportedError(f'"{file}" has members for several machines ({names}); expected one')
    exported = {s.name for c in codes for s in c.file.symbols if s.exported} | _LINKERS
    undefined = {s.name for c in codes for s in c.file.symbols if s.undefined} - exported
    functions: list[Function] = []
    failures: list[Failure] = []
    for code in codes:
        functions += [_function(code, piece) for piece in code.pieces]
        failures += [f for piece in code.pieces for f in _refused(code, piece)]
    failures += flow.failures(codes)
    named = set(re.findall(r'"(\w+)"', " ".join(f.reason for f in failures)))
    for code in codes:
        failures += _missing(code.member, code.file, undefined, named)
    if not functions:
        raise StorageError(
            f'"{file}" has no code: there is nothing to certify; give the object with the '
            "functions, or the archive or library of all"
        )
    digest = hashlib.sha256(data).hexdigest()
    return Certificate(
        file, digest, decoder, codes[0].machine.name, tuple(functions), tuple(failures),
        tuple(sorted(undefined)),
    )  # fmt: skip


def _module_certificate(data: bytes, file: str) -> Certificate:
    """That of a module, whose code goes nowhere but to what it names: see `wasm.py`."""
    from addergraph import __version__

    module = wasm.read_module(data, file)
    if module.linking:
        raise _object_of_wasm(file)
    named = [(module.name_of(n), b) for n, b in enumerate(module.bodies, module.absent)]
    if not named:
        raise StorageError(
            f'"{file}" has no code: it is a module without a function of its own'
            + f" (it imports {len(module.imports)} things of elsewhere)" * bool(module.imports)
            + ", so there is nothing to certify; give the module that compile wrote (.wasm)"
        )
    functions = tuple(_function_of(name, body) for name, body in named)
    found = _refused_of_module(module, named)
    failures = list(itertools.islice(found, _MOST_FAILURES))
    if next(found, None) is not None:
        failures.append(Failure("", "", 0, "more", f"than {_MOST_FAILURES:,}: no more are listed"))
    digest = hashlib.sha256(data).hexdigest()
    absent = tuple(i.name for i in module.imports)
    decoder = f"AdderGraph {__version__}"
    return Certificate(file, digest, decoder, WASM.name, functions, tuple(failures), absent)


def _object_of_wasm(file: str) -> UnsupportedError:
    return UnsupportedError(
        f'"{file}" is an object of WebAssembly, whose calls are not known before it is linked; '
        "give the module that wasm-ld makes of it (.wasm)"
    )


def _function_of(name: str, body: wasm.Body) -> Function:
    found = {i: n for i, n in body.counts.items() if i is not None}
    return Function(
        "", name, "code", body.offset, body.size, 0, WASM, dict(sorted(found.items()))
    )  # fmt: skip


def _refused_of_module(
    module: wasm.Module, named: Iterable[tuple[str, wasm.Body]]
) -> Iterator[Failure]:
    for i in module.imported(wasm.FUNCTION):
        yield Failure("", i.name, 0, "import", "a function of elsewhere, whose code is not seen")
    for name, body in named:
        kinds = {UNKNOWN if i is None else WASM.kind_of(i) for i in body.counts}
        if kinds.intersection(REFUSED) or "call_indirect" in body.counts:
            yield from _refused_in(module, name, body)


def _refused_in(module: wasm.Module, name: str, body: wasm.Body) -> Iterator[Failure]:
    """The instructions of a function that are not allowed, and calls by a table that others may
    change."""
    imported = len(module.imported(wasm.TABLE))
    shown = {number for kind, number in module.exports if kind == wasm.TABLE}
    for i in module.instructions(body):
        kind = UNKNOWN if i.mnemonic is None else WASM.kind_of(i.mnemonic)
        if i.mnemonic is None:
            rest = body.size - i.offset
            yield Failure(
                "", name, i.offset, "bytes", f"do not decode, nor was the rest read ({rest} bytes)"
            )
        elif kind in REFUSED:
            yield Failure("", name, i.offset, i.mnemonic, kind)
        elif i.mnemonic == "call_indirect" and (i.to < imported or i.to in shown):
            yield Failure("", name, i.offset, i.mnemonic, "by a table that others may change")


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > BYTES_LIMIT:
            raise StorageError(f'"{path}" has {size} bytes; at most {BYTES_LIMIT} are read')
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None


def _members(data: bytes, file: str) -> list[tuple[str, bytes]]:
    return read_archive(data, file) if is_archive(data) else [("", data)]


def _code(member: str, data: bytes, file: str) -> Code:
    label = f"{file}({member})" if member else file
    if data.startswith(wasm.MAGIC):
        raise _object_of_wasm(label)
    read = elf.read_elf(data, label)
    machine = machine_of(read, label)
    if member and read.linked:
        raise UnsupportedError(f'"{label}" is linked, and no member that a linker takes')
    require_visible(read, label)
    return Code(member, read, machine, disassemble(read, label))


def _function(code: Code, piece: Piece) -> Function:
    decoded = Counter(i.mnemonic for i in piece.instructions if i.mnemonic is not None)
    return Function(
        code.member, piece.name, code.file.sections[piece.section].name, piece.offset, piece.size,
        piece.data_bytes, code.machine, dict(sorted(decoded.items())),
    )  # fmt: skip


def _refused(code: Code, piece: Piece) -> Iterator[Failure]:
    """The instructions of a piece that are not allowed."""
    for i in piece.instructions:
        kind = UNKNOWN if i.mnemonic is None else code.machine.kind_of(i.mnemonic)
        if kind not in REFUSED:
            continue
        reason = f"not in the table of {code.machine.name}" if kind == UNKNOWN else kind
        if i.mnemonic is None:
            reason = f"does not decode, nor was the rest read ({i.size} bytes)"
        yield Failure(code.member, piece.name, i.offset - piece.offset, text_of(i), reason)


def _missing(member: str, file: elf.Elf, absent: Set[str], named: Set[str]) -> list[Failure]:
    """Symbols that are not in the file: in an object only those of helpers that multiply.

    Data may be elsewhere; what is called is in `named` already.
    """
    helpers = (n for n in absent - named if _is_helper(n))
    wrong = absent if file.linked else helpers
    return [Failure(member, n, 0, "symbol", "is not in this file") for n in sorted(wrong)]


def _is_helper(name: str) -> bool:
    """In time by its length: names of a file may be as long as that."""
    found = _HELPER.fullmatch(name)
    return found is not None and any(word in found[1] for word in _DOES)


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
