"""Static archives in the format that GNU binutils and LLVM share, written without tools.

    "!<arch>\\n"
    "/"     the symbol index: count, the offset of the defining member for each symbol (big-endian
            32-bit), then the names, each ended by a NUL
    "//"    names of more than 15 bytes, where there are any
    members, each a 60-byte header of ASCII fields and its bytes, padded to an even length

Linkers for Windows take these, too; those of macOS want `bsd_archive`. Dates and owners are 0 and
the modes of members 0644, so equal members give equal archives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from addergraph.errors import StorageError, UnsupportedError

MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_INDEX = {b"/": 4, b"/SYM64/": 8}  # names of the symbol index -> bytes of its words
_BSD_NAME = 20  # bytes of "__.SYMDEF SORTED", padded
_SHORT = 15  # the longest name that fits into a header beside its "/"


@dataclass(frozen=True)
class Member:
    """A file of an archive and the global symbols that it defines."""

    name: str
    data: Sequence[bytes | memoryview]
    symbols: tuple[str, ...]


def archive(members: Sequence[Member]) -> list[bytes | memoryview]:
    """The pieces of a static archive of `members`, in order."""
    long_names, fields = b"", []
    for member in members:
        if len(member.name.encode()) <= _SHORT:
            fields.append(f"{member.name}/")
            continue
        fields.append(f"/{len(long_names)}")
        long_names += member.name.encode() + b"/\n"
    symbols = [symbol for member in members for symbol in member.symbols]
    names = b"".join(symbol.encode() + b"\0" for symbol in symbols)
    before = _entry("//", [long_names], mode="") if long_names else []
    index_bytes = 4 + 4 * len(symbols) + len(names)
    position = len(MAGIC) + _HEADER + index_bytes + index_bytes % 2 + sum(map(len, before))
    offsets, entries = b"", list[bytes | memoryview]()
    for member, field in zip(members, fields, strict=True):
        offsets += position.to_bytes(4, "big") * len(member.symbols)
        made = _entry(field, member.data)
        entries += made
        position += sum(map(len, made))
    index = len(symbols).to_bytes(4, "big") + offsets + names
    return [MAGIC, *_entry("/", [index], mode="0"), *before, *entries]


def bsd_archive(members: Sequence[Member]) -> list[bytes | memoryview]:
    """The same as macOS has it: the index is a member "__.SYMDEF SORTED" of pairs (place of the
    name, place of the member), little-endian 32-bit, in the order of the names; every name stands
    before its member's bytes, padded so that these begin at a multiple of 8."""
    index = sorted((symbol, n) for n, member in enumerate(members) for symbol in member.symbols)
    texts = b"".join(symbol.encode() + b"\0" for symbol, _ in index)
    texts += bytes(-len(texts) % 8)
    position = len(MAGIC) + _HEADER + _BSD_NAME + 4 + 8 * len(index) + 4 + len(texts)
    entries, starts = list[bytes | memoryview](), list[int]()
    for member in members:
        starts.append(position)
        made = _bsd_entry(member.name, member.data, position)
        entries += made
        position += sum(map(len, made))
    pairs, at = b"", 0
    for symbol, n in index:
        pairs += struct.pack("<II", at, starts[n])
        at += len(symbol.encode()) + 1
    table = struct.pack("<I", len(pairs)) + pairs + struct.pack("<I", len(texts)) + texts
    return [MAGIC, *_bsd_entry("__.SYMDEF SORTED", [table], len(MAGIC)), *entries]


def _bsd_entry(
    name: str, data: Sequence[bytes | memoryview], position: int
) -> list[bytes | memoryview]:
    """An entry at a place of the archive, whose bytes are as many as a multiple of 8."""
    start = position + _HEADER + len(name.encode())
    text = name.encode() + bytes(-start % 8)
    size = sum(map(len, data))
    return _entry(f"#1/{len(text)}", [text, *data, b"\n" * (-size % 8)])


def _entry(
    name: str, data: Sequence[bytes | memoryview], mode: str = "644"
) -> list[bytes | memoryview]:
    """A header (name, date, owner, group, mode, size) and the padded bytes."""
    owner, size = "0" if mode else "", sum(map(len, data))
    header = f"{name:<16}{owner:<12}{owner:<6}{owner:<6}{mode:<8}{size:<10}`\n"
    return [header.encode(), *data, b"\n" * (size % 2)]


def is_archive(data: bytes) -> bool:
    """Whether bytes begin as an archive does, a thin one included."""
    return data.startswith((MAGIC, _THIN))


def read_archive(data: bytes, file: str) -> list[tuple[str, bytes]]:
    """(name, bytes) of each member of a static archive, in order; `file` is its name in messages.

    Every byte of the archive is one of a header, of a member, or a newline that pads one. The
    symbol index ("/", first) and the table of long names ("//", first or second) are no members; at
    other places linkers read members of such names, and so they are refused. StorageError where the
    bytes are no archive, are damaged, or stand for files elsewhere (a thin archive),
    UnsupportedError for the names of BSD's archives.
    """
    if data.startswith(_THIN):
        raise StorageError(f'"{file}" is a thin archive, which holds only names; make a whole one')
    if not data.startswith(MAGIC):
        raise StorageError(f'"{file}" is no static archive: it does not begin with {MAGIC!r}')
    found: list[tuple[str, bytes]] = []
    long_names, before = b"", list[bytes]()
    for position, name, content in _entries(data, file):
        if name in _INDEX and not before:
            _require_index(content, _INDEX[name], len(data), file)
        elif name == b"//" and all(n in _INDEX for n in before):
            long_names = content
        elif name.startswith((b"#1/", b"__.SYMDEF")):
            raise UnsupportedError(
                f'"{file}" is an archive of macOS or BSD (member {name.decode()!r}), whose objects '
                "are not read; for other systems make one with GNU ar"
            )
        else:
            found.append((_member_name(name, long_names, position, file), content))
        before.append(name)
    return found


def _entries(data: bytes, file: str) -> Iterator[tuple[int, bytes, bytes]]:
    """(position, name as it stands, bytes) of each entry."""
    position = len(MAGIC)
    while position < len(data):
        fields = data[position : position + _HEADER]
        digits = fields[48:58].rstrip(b" ")
        if len(fields) < _HEADER or fields[58:] != b"`\n" or not digits.isdigit():
            raise StorageError(f'"{file}" is damaged: no header of a member at byte {position}')
        start, size = position + _HEADER, int(digits)
        content = data[start : start + size]
        if len(content) < size:
            raise StorageError(
                f'"{file}" is truncated: the member at byte {position} has {size} bytes, '
                f"{len(content)} are there"
            )
        yield position, fields[:16].rstrip(b" "), content
        position = start + size + size % 2
        if size % 2 and data[position - 1 : position] not in (b"", b"\n"):
            raise StorageError(f'"{file}" is damaged: byte {position - 1} is of no member')


def _require_index(content: bytes, word: int, size: int, file: str) -> None:
    """StorageError where what stands first is no symbol index of words of `word` bytes."""
    count = int.from_bytes(content[:word], "big")
    end = word + count * word
    fits = end <= len(content) and content.count(b"\0", end) >= count
    offsets = (content[i : i + word] for i in range(word, end if fits else 0, word))
    if not fits or any(int.from_bytes(o, "big") >= size for o in offsets):
        raise StorageError(f'"{file}" is damaged: its first member is no symbol index')


def _member_name(field: bytes, long_names: bytes, position: int, file: str) -> str:
    """A printable name; StorageError for one that is no name of a member."""
    name = field.removesuffix(b"/")
    if field[:1] == b"/":
        digits = field[1:]
        end = long_names.find(b"/\n", int(digits)) if digits.isdigit() else -1
        if end < 0:
            raise StorageError(
                f'"{file}" is damaged: the name {field!r} of the member at byte {position} '
                "is not in its table of long names"
            )
        name = long_names[int(digits) : end]
    shown = name.decode(errors="backslashreplace")
    if not shown or not shown.isprintable():
        raise StorageError(f'"{file}": the member at byte {position} has the name {field!r}')
    return shown
