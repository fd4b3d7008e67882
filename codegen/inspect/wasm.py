"""Reads modules of WebAssembly: every byte of them, or none. As strict as a certificate needs.

Layout: WebAssembly Core Specification 2.0, chapter 5 (https://webassembly.github.io/spec/core/
binary/). What the specification refuses may be read here, since an engine refuses it; what both
take they take alike. References, several memories, threads and exceptions are not read.

Control stays inside: a branch goes to the end or start of a block, a call to a function of its
module, by a number, or to one that stands in a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from addergraph.errors import StorageError, UnsupportedError

from .wasm_opcodes import NUMERIC, OPCODES, VECTOR

MAGIC = b"\0asm"
_VERSION = b"\1\0\0\0"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(7)
_EXPORT, _START, _ELEMENT, _CODE, _DATA, _DATA_COUNT = range(7, 13)
_ORDER = (
    _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _DATA_COUNT,
    _CODE, _DATA,
)  # fmt: skip
FUNCTION, TABLE, MEMORY, GLOBAL = range(4)  # what is imported and exported
_KINDS = ("function", "table", "memory", "global")
_VALUES = (0x7F, 0x7E, 0x7D, 0x7C, 0x7B)  # i32, i64, f32, f64, v128
_FUNCREF, _NO_VALUE, _FUNCTION_TYPE = 0x70, 0x40, 0x60
_CALLS = ("call", "call_indirect")
_OPENS, _CONSTANTS = ("block", "loop", "if"), ("const", "global.get", "end")
_FUNCTION_NAMES = 1  # of the parts of section "name"
_BYTES = {"4": 4, "8": 8, "F": 16, "l": 1}
# Sections that say something of the code and are none. The rest may mean anything to a host.
_SAYS = ("name", "producers", "target_features", "sourceMappingURL", "external_debug_info")
_LINKING, _SAYS_SO_FAR = ("linking",), (".debug_", "reloc.")
# Reading takes about a microsecond a byte of code, and for each other item hundreds of bytes.
CODE_LIMIT, SECTION_LIMIT, FUNCTIONS_LIMIT = 16 << 20, 4 << 20, 1 << 16
Item = TypeVar("Item")


@dataclass(frozen=True)
class Import:
    """Something of elsewhere. `kind` is FUNCTION, TABLE, MEMORY or GLOBAL."""

    name: str
    kind: int


@dataclass(slots=True)  # not frozen: those take three times as long to make
class Instruction:
    """At byte `offset` of a body. `mnemonic` is None where the bytes are no instruction that is
    known, and the rest of the body was not read; `to` the function or table that a call names."""

    offset: int
    mnemonic: str | None
    to: int = 0


@dataclass(frozen=True)
class Body:
    """The code of a function: `size` bytes from byte `offset` of the file, and how often it has
    each instruction; None is one that is not known, behind which nothing was read."""

    offset: int
    size: int
    counts: Mapping[str | None, int]


@dataclass
class Module:
    """What a module has, as far as a certificate asks.

    absent   how many functions are imported; `functions`, how many are not
    tables   how many, those that are imported first
    exports  (kind, number) of all
    bodies   of the functions that are not imported; their numbers follow those of imported ones
    names    number of a function -> its name, of the section "name", or that of an export
    linking  whether it is an object, for a linker
    """

    data: bytes = field(repr=False)
    file: str
    imports: list[Import] = field(default_factory=list)
    absent: int = 0
    types: int = 0
    functions: int = 0
    tables: int = 0
    exports: list[tuple[int, int]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    linking: bool = False

    def imported(self, kind: int) -> list[Import]:
        return [i for i in self.imports if i.kind == kind]

    def name_of(self, number: int) -> str:
        """The name of a function."""
        return self.names.get(number, f"function[{number}]")

    def instructions(self, body: Body) -> Iterator[Instruction]:
        """Those of one of its bodies, read once more: all of them at once take much memory."""
        reader = _Reader(self.data, self.file, self)
        reader.at, reader.end = body.offset, body.offset + body.size
        reader.skip(reader.local)
        return reader.instructions(body.offset)


def read_module(data: bytes, file: str) -> Module:
    """The parts of a module; `file` is its name in messages.

    StorageError where the bytes are no module, are truncated or contradict themselves,
    UnsupportedError for what is not read (see above), for sections that are not known, and for more
    than the limits: 16 MiB of code, 65,536 functions, 4 MiB of any other section but data.
    """
    return _Reader(data, file, Module(data, file)).read()


class _Reader:
    def __init__(self, data: bytes, file: str, module: Module) -> None:
        self.data, self.file, self.at, self.end = data, file, 0, len(data)
        self.module = module
        self.exported: dict[int, str] = {}

    # -- pieces ----------------------------------------------------------------------------------

    def damaged(self, what: str) -> StorageError:
        return StorageError(f'"{self.file}" is damaged or truncated: {what}')

    def unknown(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f'"{self.file}" has {what}, which is not read; expected WebAssembly 2.0 with one '
            "memory and without references, as AdderGraph and clang write it"
        )

    def require_most(self, found: int, most: int, what: str) -> None:
        if found > most:
            raise UnsupportedError(
                f'"{self.file}" has {found:,} {what}; at most {most:,} are read, many times what a '
                "network takes"
            )

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise self.damaged(f"{count} bytes from byte {self.at} on end behind byte {self.end}")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        at = self.at
        if at >= self.end:
            raise self.damaged(f"1 byte from byte {at} on ends behind byte {self.end}")
        self.at = at + 1
        return self.data[at]

    def leb(self, bits: int = 32) -> int:
        """An unsigned number; of a signed one the bits, as nothing asks for more."""
        start, found = self.at, 0
        if start < self.end and (first := self.data[start]) < 0x80:  # nearly all
            self.at = start + 1
            return first
        for shift in range(0, bits, 7):
            byte = self.byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
        raise self.damaged(f"the number at byte {start} has more than {bits} bits")

    def text(self) -> str:
        start = self.at
        try:
            found = self.take(self.leb()).decode()
        except UnicodeDecodeError:
            raise self.damaged(f"the name at byte {start} is no UTF-8") from None
        return found if found.isprintable() else repr(found)[1:-1]

    def count(self) -> int:
        found = self.leb()
        if found > self.end - self.at:  # each has a byte at least
            raise self.damaged(f"{found} items are said to stand before byte {self.end}")
        return found

    def many(self, one: Callable[[], Item]) -> list[Item]:
        """So many of `one` as a number says."""
        return [one() for _ in range(self.count())]

    def skip(self, one: Callable[[], object]) -> int:
        """The same without keeping them; how many there were."""
        count = self.count()
        for _ in range(count):
            one()
        return count

    def below(self, most: int, what: str) -> int:
        start, found = self.at, self.leb()
        if found >= most:
            raise self.damaged(f"{what} {found} at byte {start} is none of {most}")
        return found

    # -- sections --------------------------------------------------------------------------------

    def read(self) -> Module:
        if self.data[:4] != MAGIC or self.data[4:8] != _VERSION:
            raise self.damaged(
                f"it begins with {self.data[:8].hex(' ') or 'nothing'}, "
                f"expected {(MAGIC + _VERSION).hex(' ')}"
            )
        self.at, last = 8, -1
        while self.at < len(self.data):
            number, self.end = self.byte(), len(self.data)
            size = self.leb()
            if size > len(self.data) - self.at:
                raise self.damaged(f"section {number} at byte {self.at} has no {size} bytes")
            self.end = self.at + size
            if number != _CUSTOM:
                place = _ORDER.index(number) if number in _ORDER else -1
                if place <= last:
                    raise self.damaged(f"section {number} is unknown, double or not in order")
                last = place
            self.section(number)
            if self.at != self.end:
                raise self.damaged(f"section {number} has bytes from {self.at} on that are nothing")
            self.end = len(self.data)
        if len(self.module.bodies) != self.module.functions:
            raise self.damaged(
                f"{self.module.functions} functions are declared, {len(self.module.bodies)} there"
            )
        self.module.names = self.exported | self.module.names
        return self.module

    def section(self, number: int) -> None:
        m = self.module
        if number == _CODE:
            self.require_most(self.end - self.at, CODE_LIMIT, "bytes of code")
        elif number not in (_CUSTOM, _DATA):
            self.require_most(self.end - self.at, SECTION_LIMIT, f"bytes in section {number}")
        match number:
            case 0:
                self.custom()
            case 1:
                m.types = self.skip(self.type)
            case 2:
                m.imports = self.many(self.imported)
                m.absent, m.tables = len(m.imported(FUNCTION)), len(m.imported(TABLE))
            case 3:
                m.functions = self.skip(lambda: self.below(m.types, "type"))
                self.require_most(m.functions, FUNCTIONS_LIMIT, "functions")
            case 4:
                m.tables += self.skip(self.table)
            case 5:
                self.skip(self.limits)
            case 6:
                self.skip(self.variable)
            case 7:
                m.exports = self.many(self.export)
            case 8:
                self.function()
            case 9:
                self.skip(self.element)
            case 10:
                m.bodies = self.many(self.body)
            case 11:
                self.skip(self.segment)
            case _:
                self.leb()

    def custom(self) -> None:
        name = self.text()
        if name == "name":
            return self.names()
        if name in _LINKING:
            self.module.linking = True
        elif name not in _SAYS and not name.startswith(_SAYS_SO_FAR):
            raise self.unknown(f'a section "{name}"')
        self.at = self.end
        return None

    def names(self) -> None:
        whole = self.end
        self.require_most(whole - self.at, SECTION_LIMIT, "bytes of names")
        while self.at < whole:
            kind, size = self.byte(), self.leb()
            start = self.at
            if size > whole - start:
                raise self.damaged(f"the names at byte {start} have no {size} bytes")
            self.end = start + size
            if kind == _FUNCTION_NAMES:
                self.module.names = dict(self.many(lambda: (self.leb(), self.text())))
                if self.at != self.end:
                    raise self.damaged(f"names have bytes from {self.at} on that are nothing")
            self.at, self.end = self.end, whole

    def value(self) -> int:
        found = self.byte()
        if found not in _VALUES:
            raise self.unknown(f"a value of type {found:#x}")
        return found

    def type(self) -> None:
        if (form := self.byte()) != _FUNCTION_TYPE:
            raise self.unknown(f"a type of the form {form:#x}")
        self.skip(self.value)
        self.skip(self.value)

    def imported(self) -> Import:
        name, kind = f"{self.text()}.{self.text()}", self.byte()
        match kind:
            case 0:
                self.below(self.module.types, "type")
            case 1:
                self.table()
            case 2:
                self.limits()
            case 3:
                self.value()
                self.byte()
            case _:
                raise self.unknown(f"an import of kind {kind}")
        return Import(name, kind)

    def table(self) -> None:
        if (kind := self.byte()) != _FUNCREF:
            raise self.unknown(f"a table of type {kind:#x}")
        self.limits()

    def limits(self) -> None:
        if (flags := self.byte()) > 1:
            raise self.unknown(f"limits with flags {flags:#x}")
        for _ in range(1 + flags):
            self.leb()

    def variable(self) -> None:
        self.value()
        self.byte()
        self.constant()

    def export(self) -> tuple[int, int]:
        name, kind = self.text(), self.byte()
        if kind >= len(_KINDS):
            raise self.unknown(f"an export of kind {kind}")
        number = self.function() if kind == FUNCTION else self.leb()
        if kind == FUNCTION:
            self.exported.setdefault(number, name)
        return kind, number

    def function(self) -> int:
        return self.below(self.module.absent + self.module.functions, "function")

    def element(self) -> None:
        if (form := self.leb()) != 0:
            raise self.unknown(f"elements of the form {form}")
        self.constant()
        self.skip(self.function)

    def segment(self) -> None:
        form = self.leb()
        if form > 2:
            raise self.unknown(f"data of the form {form}")
        if form == 2:
            self.leb()
        if form != 1:
            self.constant()
        self.take(self.leb())

    # -- code ------------------------------------------------------------------------------------

    def constant(self) -> None:
        """An expression that an engine computes when it loads a module."""
        while True:
            start, mnemonic = self.at, self.instruction(0).mnemonic
            if mnemonic is None or not mnemonic.endswith(_CONSTANTS):
                raise self.unknown(f"an initial value (byte {start}) that is computed")
            if mnemonic == "end":
                return

    def local(self) -> None:
        self.leb()
        self.value()

    def body(self) -> Body:
        size, whole = self.leb(), self.end
        start = self.at
        if size > whole - start:
            raise self.damaged(f"the function at byte {start} has no {size} bytes")
        self.end = start + size
        self.skip(self.local)
        counts = Counter(i.mnemonic for i in self.instructions(start))
        if self.at != self.end:
            raise self.damaged(f"the function at byte {start} ends before its {size} bytes")
        self.end = whole
        return Body(start, size, counts)

    def instructions(self, start: int) -> Iterator[Instruction]:
        """Those of a body, to the end of its outermost block."""
        depth = 1
        while depth:
            found = self.instruction(start)
            yield found
            if found.mnemonic is None:
                self.at = self.end
                return
            depth += (found.mnemonic in _OPENS) - (found.mnemonic == "end")

    def instruction(self, start: int) -> Instruction:
        at, code = self.at, (0, self.byte())
        if code[1] in (NUMERIC, VECTOR):
            code = code[1], self.leb()
        name, operands = OPCODES.get(code, (None, ""))
        last = 0
        for operand in operands:
            last = self.operand(operand)
        return Instruction(at - start, name, last if name in _CALLS else 0)

    def operand(self, kind: str) -> int:
        start = self.at
        match kind:
            case "u" | "s":
                return self.leb()
            case "c":
                return self.function()
            case "T":
                return self.below(self.module.tables, "table")
            case "S":
                return self.leb(64)
            case "b":
                found = self.leb(33)
                if found < 0x40 or found in (*_VALUES, _NO_VALUE) or self.at - start > 1:
                    return found
                raise self.unknown(f"a block (byte {start}) of type {found:#x}")
            case "m":
                if (alignment := self.leb()) > 4:
                    raise self.unknown(f"an access (byte {start}) of alignment {alignment}")
                return self.leb()
            case "t":
                self.skip(self.leb)
                return self.leb()
            case "0":
                if (found := self.byte()) != 0:
                    raise self.unknown(f"a memory (byte {start}) of number {found}")
                return 0
            case _:
                self.take(_BYTES[kind])
                return 0


def calls(module: Module) -> Mapping[str, list[str]]:
    """Function that is imported -> those that call it."""
    absent = module.imported(FUNCTION)
    found: dict[str, list[str]] = {i.name: [] for i in absent}
    for number, body in enumerate(module.bodies, module.absent):
        for i in module.instructions(body) if absent else ():
            if i.mnemonic == "call" and i.to < len(absent):
                found[absent[i.to].name].append(module.name_of(number))
    return found
