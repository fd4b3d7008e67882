"""Follows every transfer of control to its end.

An instruction may be followed by the next, go to a place that it names, or return to its caller.
All of these have to be instructions that were decoded, so whatever starts at one of them stays
among them: the first ones, which functions, the entry point and pointers in data name, included.
No name outside of the file may be called. Refused are calls and jumps to a place that is only known
when it runs (tables of functions and of `switch`, too), and returns to a place that is no caller's.
What stays is a trap (`svc`, `ecall`, `bkpt`): it goes to the machine's handler, which is no code of
the file, or else is decoded as all of it.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import elf, patches
from .disassembly import Instruction, Piece, decoder_of, origin_of
from .instructions import Machine

UNKNOWN_PLACE = "goes to a place that is only known when it runs"
# x86-64: opcode -> bytes of a jump or call; with other prefixes, processors differ in its length.
_JUMP_SIZES = {0xE8: 5, 0xE9: 5, 0xEB: 2, 0xE3: 2, 0x0F: 6, **dict.fromkeys(range(0x70, 0x80), 2)}
_HINTS = b"\xf2\x3e\x2e"  # bnd, and predictions of old: prefixes that change nothing
_LEGACY = b"\x66\x67\xf2\xf3\xf0\x2e\x36\x3e\x26\x64\x65"
_DIFFERS = "is encoded as processors and decoders differ on it"
_LONGEST = 15  # bytes of an instruction
_BLOCK = re.compile("i(t[te]{0,3})")  # of Thumb: as many instructions have a condition
# What assemblers and linkers fill gaps with.
_FILLER = re.compile(r"(data16 )*(c\.)?nop\w*( .*)?|xchgw %ax, %ax|mov r8, r8")
Place = tuple[int, int]
_NOWHERE: Place = (-1, 0)


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


@dataclass
class Code:
    """One file, its pieces, and where its instructions begin, each as (section, offset).

    starts   every decoded instruction
    targets  those that something names or goes to, but by running on
    inner    second halves of a pair of two, which nothing else may go to
    areas    (address, section) of all code, in order
    """

    member: str
    file: elf.Elf
    machine: Machine
    pieces: Sequence[Piece]
    starts: dict[Place, Instruction] = field(init=False)
    targets: set[Place] = field(default_factory=set)
    inner: set[Place] = field(default_factory=set)
    areas: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = {
            (p.section, i.offset): i for p in self.pieces for i in p.instructions
            if i.mnemonic is not None
        }  # fmt: skip

        code = (n for n, s in enumerate(self.file.sections) if s.executable and s.size)
        self.areas = sorted((self.file.sections[n].address, n) for n in code)

    def bytes_of(self, section: int, i: Instruction) -> bytes:
        return self.file.sections[section].data[i.offset : i.offset + i.size]

    def around(self, place: Place, width: int = 1) -> list[Instruction]:
        """The instructions that have one of `width` bytes at a place."""
        section, offset = place
        at = range(offset - _LONGEST + 1, offset + width)
        found = (self.starts.get((section, o)) for o in at)
        return [i for i in found if i is not None and i.offset + i.size > offset]

    def place(self, symbol: elf.Symbol, more: int = 0) -> Place:
        """Where a symbol of this file stands; in Thumb code without the lowest bit."""
        if not 0 < symbol.section < len(self.file.sections):
            return _NOWHERE
        value = symbol.value + more - origin_of(self.file, self.file.sections[symbol.section])
        thumb = self.file.machine == elf.ARM and self.file.sections[symbol.section].executable
        return symbol.section, value & ~1 if thumb else value

    def beside(self, section: int, offset: int) -> Place:
        """A place by its offset from a section, which in a linked file may be in another one."""
        if not self.file.linked:
            return section, offset
        address = self.file.sections[section].address + offset
        at = bisect.bisect_right(self.areas, (address, len(self.file.sections))) - 1
        if at < 0:
            return _NOWHERE
        start, index = self.areas[at]
        return (
            (index, address - start)
            if address - start < self.file.sections[index].size
            else _NOWHERE
        )

    def objection(self, place: Place) -> str:
        """Why nothing may go to a place, "" where it may."""
        if place in self.inner:
            return "is the second half of a jump"
        return "" if place in self.starts else "is no instruction that was decoded"


def failures(codes: Sequence[Code]) -> list[Failure]:
    """What is refused of files that are linked together."""
    defined: dict[str, list[tuple[Code, elf.Symbol]]] = {}
    for code in codes:
        for symbol in code.file.symbols:
            if symbol.exported:
                defined.setdefault(symbol.name, []).append((code, symbol))
    followers = [_Follower(code, defined) for code in codes]
    found = [failure for follower in followers for failure in follower.transfers()]
    return found + [failure for follower in followers for failure in follower.ends()]


class _Link:
    """Whether what a return goes to, in the register and as it was saved, is the caller's place."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.register = self.saved = True

    def follow(self, text: str) -> None:
        """What an instruction does to it."""
        if link := _compiled(self.machine.links).fullmatch(text):
            self.register = not any(link.groups())
        saves = self.machine.saves and _compiled(self.machine.saves).fullmatch(text)
        if not saves:
            return
        if saves[3]:
            self.register = self.saved
        else:
            self.saved = self.register and saves[1] is not None

    def foreign(self, text: str) -> bool:
        """Whether a return by this instruction goes elsewhere."""
        return not (self.saved if self.machine.saves and "{" in text else self.register)


class _Follower:
    def __init__(
        self, code: Code, defined: Mapping[str, Sequence[tuple[Code, elf.Symbol]]]
    ) -> None:
        self.code, self.file, self.machine, self.defined = code, code.file, code.machine, defined
        self.decoder = decoder_of(code.file)
        self.decoder.detail = True  # of the fields that relocations fill
        self.relocations: dict[Place, list[elf.Relocation]] = {}
        for r in () if self.file.linked else self.file.relocations:
            self.relocations.setdefault((r.section, r.offset), []).append(r)
        self.pairs = patches.CALLS if self.file.machine == elf.RISCV else ()
        self.reached: list[tuple[Piece, Instruction, Code, Place]] = []
        self.runs_on: set[Place] = set()  # instructions that the next one follows
        self.arrived: set[Place] = set()  # what is reached by running on

    # -- first: where everything goes ---------------------------------------------------------

    def transfers(self) -> Iterator[Failure]:
        """Failures of instructions and relocations by themselves; notes where they go."""
        for piece in self.code.pieces:
            before, link, left = None, _Link(self.machine), 0
            for i in piece.instructions:
                if i.mnemonic is None:
                    continue
                text = text_of(i)
                yield from self.patches(piece, i)
                if reason := self.step(piece, before, i, text, link.foreign(text)):
                    yield _failure(self.code, piece, i, reason)
                if left:
                    self.runs_on.add((piece.section, i.offset))  # where its condition is false
                block = _BLOCK.fullmatch(i.mnemonic) if self.machine.saves else None
                left = len(block[1]) if block else max(0, left - 1)
                link.follow(text)
                before = i
            if left and before:
                reason = "states conditions of what is not in this function"
                yield _failure(self.code, piece, before, reason)
        yield from self.strays()

    def step(
        self, piece: Piece, before: Instruction | None, i: Instruction, text: str, foreign: bool
    ) -> str:
        """Notes where one instruction goes; why it may not, or ""."""
        here = piece.section, i.offset
        if not _compiled(self.machine.ends).fullmatch(text):
            self.runs_on.add(here)
        if not self.machine.moves_control(i.mnemonic or "", i.operands):
            x86 = self.file.machine == elf.X86_64
            return _DIFFERS if x86 and _late_prefix(self.code.bytes_of(here[0], i)) else ""
        if _compiled(self.machine.returns).fullmatch(text):
            self.runs_on.discard(here)
            return "returns to a place that is not its caller's" if foreign else ""
        if self.file.machine == elf.X86_64 and not _plain_jump(self.code.bytes_of(here[0], i)):
            return UNKNOWN_PLACE if "*" in i.operands else _DIFFERS
        direct = _compiled(self.machine.direct).fullmatch(text)
        if direct is not None:
            return self.go(piece, i, self.inside(piece, i), _offset(self.file, i, direct[1]))
        paired = self.file.machine == elf.RISCV and i.mnemonic in ("jalr", "jr")
        return self.pair(piece, before, i) if paired else UNKNOWN_PLACE

    def pair(self, piece: Piece, before: Instruction | None, i: Instruction) -> str:
        """RISC-V: auipc and jalr, whose destination is known where the first has all of it."""
        word = int.from_bytes(self.code.bytes_of(piece.section, i), "little")
        if i.size != 4 or not word >> 7 & 31:
            self.runs_on.discard((piece.section, i.offset))
        if before is None or before.offset + 4 != i.offset or i.size != 4 or before.size != 4:
            return UNKNOWN_PLACE
        first = int.from_bytes(self.code.bytes_of(piece.section, before), "little")
        if first & 0x7F != 0x17 or first >> 7 & 31 != word >> 15 & 31 or not first >> 7 & 31:
            return UNKNOWN_PLACE
        named = [r for r in self.inside(piece, before) if r.type]
        if self.inside(piece, i) or any(r.type not in patches.CALLS for r in named):
            return UNKNOWN_PLACE
        self.code.inner.add((piece.section, i.offset))
        distance = _signed(first & 0xFFFFF000, 32) + _signed(word >> 20, 12)
        return self.go(piece, i, named, before.offset + distance)

    def go(self, piece: Piece, i: Instruction, named: Sequence[elf.Relocation], place: int) -> str:
        """Notes where a jump or call goes: to `place`, unless relocations name a symbol."""
        if not named:
            self.reached.append((piece, i, self.code, self.code.beside(piece.section, place)))
            return ""
        if len(named) > 1:
            return "has several relocations"
        (r,) = named
        if self.file.machine == elf.X86_64 and r.type not in (2, 4):
            return UNKNOWN_PLACE
        more = place - i.offset if r.addend is None else r.addend
        more += i.offset + i.size - r.offset if self.file.machine == elf.X86_64 else 0
        if not r.symbol.undefined:
            return self.to(piece, i, self.code, r.symbol, more)
        found = self.defined.get(r.symbol.name, ())
        if not found:
            return f'calls "{r.symbol.name}", which is not in this file'
        return next(filter(None, (self.to(piece, i, c, s, more) for c, s in found)), "")

    def to(self, piece: Piece, i: Instruction, code: Code, symbol: elf.Symbol, more: int) -> str:
        if symbol.binding == elf.WEAK:
            return f'calls "{symbol.name}", which is weak: a linker may put another in its place'
        self.reached.append((piece, i, code, code.place(symbol, more)))
        return ""

    def inside(self, piece: Piece, i: Instruction) -> list[elf.Relocation]:
        at = range(i.offset, i.offset + i.size)
        return [r for o in at for r in self.relocations.get((piece.section, o), ())]

    def patches(self, piece: Piece, i: Instruction) -> Iterator[Failure]:
        raw = self.code.bytes_of(piece.section, i)
        for r in self.inside(piece, i) if self.relocations else ():
            whole = r.type not in self.pairs or self.jumps(piece.section, i.offset + 4)
            if not whole or not patches.fits(self.file, r, i, raw, self.decoder):
                reason = f"is changed by a relocation of type {r.type}, which does not belong there"
                yield _failure(self.code, piece, i, reason)

    def jumps(self, section: int, offset: int) -> bool:
        """Whether the jalr is there that a relocation of an auipc fills, too."""
        i = self.code.starts.get((section, offset))
        return i is not None and i.size == 4 and i.mnemonic in ("jalr", "jr")

    def strays(self) -> Iterator[Failure]:
        """Relocations of what is no instruction, but reach into one."""
        for place, found in self.relocations.items():
            for r in found if self.file.sections[place[0]].executable else ():
                hit = self.code.around(place, patches.width(self.file, r))
                if hit and not self.code.around(place):
                    reason = f"a relocation of type {r.type} reaches into an instruction"
                    yield Failure(
                        self.code.member, self.file.sections[place[0]].name, r.offset,
                        r.symbol.name or "relocation", reason,
                    )  # fmt: skip

    # -- then: whether all of that was decoded ------------------------------------------------

    def ends(self) -> Iterator[Failure]:
        """Failures of where things go, once all is noted."""
        for piece, i, code, place in self.reached:
            code.targets.add(place)
            if why := code.objection(place):
                yield _failure(self.code, piece, i, f"goes to what {why}")
        yield from self.symbols()
        yield from self.pointers()
        for piece in self.code.pieces:
            yield from self.follows(piece)

    def follows(self, piece: Piece) -> Iterator[Failure]:
        """What runs on has to run into an instruction; padding that nothing reaches need not."""
        for i in piece.instructions:
            here, after = (piece.section, i.offset), (piece.section, i.offset + i.size)
            if i.mnemonic is None:
                continue
            reached = here in self.arrived or here in self.code.targets
            if here not in self.runs_on or (_FILLER.fullmatch(text_of(i)) and not reached):
                continue
            self.arrived.add(after)
            if after not in self.code.starts:
                yield _failure(self.code, piece, i, "runs on into what was not decoded")
            elif after in self.code.inner and i.mnemonic != "auipc":
                yield _failure(self.code, piece, i, "runs on into the second half of a jump")

    def symbols(self) -> Iterator[Failure]:
        """Every function, and what may be one, has to begin at an instruction."""
        for s in self.file.symbols:
            place = self.code.place(s)
            self.code.targets.add(place)
            if not s.undefined and s.name and (why := self.objection_to(s, place)):
                yield Failure(self.code.member, s.name, 0, "symbol", why)

    def objection_to(self, s: elf.Symbol, place: Place) -> str:
        if s.kind == elf.IFUNC:
            return "is chosen when it is loaded (IFUNC)"
        if s.kind == elf.FUNCTION:
            even = self.file.machine == elf.ARM and not s.value & 1
            return "is ARM code, not Thumb" if even else self.code.objection(place)
        if s.kind != elf.NOTYPE or not s.exported or place == _NOWHERE:
            return ""
        if self.file.sections[place[0]].executable:
            return self.code.objection(place) if self.code.around(place) else ""
        if self.file.linked:
            return ""
        return "is neither function nor data by its type, and not in code (.type name, %object)"

    def pointers(self) -> Iterator[Failure]:
        """An address in data that is one of code has to be one of an instruction."""
        for r in () if self.file.linked else self.file.relocations:
            if not patches.is_pointer(self.file, r) or not self.file.sections[r.section].allocated:
                continue
            place = self.code.place(r.symbol, patches.addend(self.file, r))
            self.code.targets.add(place)
            if self.code.around(place) and (why := self.code.objection(place)):
                where = self.file.sections[r.section].name
                yield Failure(self.code.member, where, r.offset, "address", f"{place[1]:#x} {why}")
        entry = self.file.entry & ~1 if self.file.machine == elf.ARM else self.file.entry
        if self.file.linked and entry and self.code.areas:
            start, index = self.code.areas[0]
            if why := self.code.objection(self.code.beside(index, entry - start)):
                yield Failure(self.code.member, "entry point", 0, f"{entry:#x}", why)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def text_of(i: Instruction) -> str:
    """Mnemonic and operands."""
    return f"{i.mnemonic} {i.operands}".rstrip() if i.mnemonic is not None else i.operands


def _failure(code: Code, piece: Piece, i: Instruction, reason: str) -> Failure:
    return Failure(code.member, piece.name, i.offset - piece.offset, text_of(i), reason)


def _offset(file: elf.Elf, i: Instruction, shown: str) -> int:
    """The offset that a jump names: RISC-V shows a distance, others the offset without a sign."""
    value = int(shown, 0)
    return i.offset + value if file.machine == elf.RISCV else _signed(value, file.bits)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _late_prefix(code: bytes) -> bool:
    """Whether an x86-64 REX prefix is not the last one: processors then pass over it."""
    rest = code.lstrip(_LEGACY)
    return len(rest) > 1 and rest[0] >> 4 == 4 and (rest[1] >> 4 == 4 or rest[1] in _LEGACY)


def _plain_jump(code: bytes) -> bool:
    """Whether an x86-64 jump or call has one length on all processors."""
    plain = code.lstrip(_HINTS)
    return bool(plain) and _JUMP_SIZES.get(plain[0]) == len(plain)
