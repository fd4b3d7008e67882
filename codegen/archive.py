"""Static archives in the format that GNU binutils and LLVM share, written without tools.

    "!<arch>\\n"
    "/"     the symbol index: count, the offset of the defining member for each symbol (big-endian
            32-bit), then the names, each ended by a NUL
    "//"    names of more than 15 bytes, where there are any
    members, each a 60-byte header of ASCII fields and its bytes, padded to an even length

Dates and owners are 0 and the modes of members 0644, so equal members give equal archives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"!<arch>\n"
_HEADER = 60
_SHORT = 15  # the longest name that fits into a header beside its "/"


@dataclass(frozen=True)
class Member:
    """A file of an archive and the global symbols that it defines."""

    name: str
    data: bytes
    symbols: tuple[str, ...]


def archive(members: Sequence[Member]) -> bytes:
    """The bytes of a static archive of `members`, in order."""
    long_names, fields = b"", []
    for member in members:
        if len(member.name.encode()) <= _SHORT:
            fields.append(f"{member.name}/")
            continue
        fields.append(f"/{len(long_names)}")
        long_names += member.name.encode() + b"/\n"
    symbols = [symbol for member in members for symbol in member.symbols]
    names = b"".join(symbol.encode() + b"\0" for symbol in symbols)
    before = [_entry("//", long_names, mode="")] if long_names else []
    index_bytes = 4 + 4 * len(symbols) + len(names)
    position = len(MAGIC) + _HEADER + index_bytes + index_bytes % 2 + sum(map(len, before))
    offsets, entries = b"", []
    for member, field in zip(members, fields, strict=True):
        offsets += position.to_bytes(4, "big") * len(member.symbols)
        entries.append(_entry(field, member.data))
        position += len(entries[-1])
    index = len(symbols).to_bytes(4, "big") + offsets + names
    return b"".join([MAGIC, _entry("/", index, mode="0"), *before, *entries])


def _entry(name: str, data: bytes, mode: str = "644") -> bytes:
    """A header (name, date, owner, group, mode, size) and the padded bytes."""
    owner = "0" if mode else ""
    header = f"{name:<16}{owner:<12}{owner:<6}{owner:<6}{mode:<8}{len(data):<10}`\n"
    return header.encode() + data + b"\n" * (len(data) % 2)
