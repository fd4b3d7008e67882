"""What objects of Windows and macOS need of elsewhere, of those that LLVM made here.

Layouts: Microsoft's "PE Format" (learn.microsoft.com/windows/win32/debug/pe-format), sections "COFF
File Header" and "COFF Symbol Table"; Apple's <mach-o/loader.h> and <mach-o/nlist.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from addergraph.errors import StorageError

_COFF_X86_64 = 0x8664
_EXTERNAL = 2  # IMAGE_SYM_CLASS_EXTERNAL
_MACHO_64 = 0xFEEDFACF
_SYMTAB = 2  # LC_SYMTAB
_STAB, _KIND, _UNDEFINED, _OF_ALL = 0xE0, 0x0E, 0, 1  # N_STAB, N_TYPE, N_UNDF, N_EXT


def undefined(data: bytes) -> list[str]:
    """Names that an object of COFF (x86-64) or Mach-O (64 bits) uses and does not define, as the
    file spells them. StorageError where the bytes are neither, or are truncated."""
    try:
        (machine,), (magic,) = struct.unpack_from("<H", data), struct.unpack_from("<I", data)
        if machine == _COFF_X86_64:
            return list(_of_coff(data))
        if magic == _MACHO_64:
            return list(_of_macho(data))
    except (struct.error, IndexError, ValueError) as error:
        raise StorageError(f"the object is damaged or truncated: {error}") from None
    raise StorageError(f"the object is no COFF of x86-64 and no Mach-O: {data[:4].hex(' ')}")


def _of_coff(data: bytes) -> Iterator[str]:
    table, count = struct.unpack_from("<II", data, 8)
    strings, number = table + 18 * count, 0
    while number < count:
        raw, _, section, _, kind, more = struct.unpack_from("<8sIhHBB", data, table + 18 * number)
        number += 1 + more
        if section == 0 and kind == _EXTERNAL:
            at = int.from_bytes(raw[4:], "little")
            yield raw.rstrip(b"\0").decode() if any(raw[:4]) else _text(data, strings + at)


def _of_macho(data: bytes) -> Iterator[str]:
    (commands,) = struct.unpack_from("<I", data, 16)
    at = 32
    for _ in range(commands):
        kind, size, table, count, strings = struct.unpack_from("<5I", data, at)
        at += size
        for row in range(table, table + 16 * count, 16) if kind == _SYMTAB else ():
            name, type_ = struct.unpack_from("<IB", data, row)
            if not type_ & _STAB and type_ & _OF_ALL and type_ & _KIND == _UNDEFINED:
                yield _text(data, strings + name)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
