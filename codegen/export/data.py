"""The data object of a library. LLVM makes it for the last cache line of the weights; all that is
before it is put in afterwards, so the weights are never text. The bytes are those that LLVM would
have written: a whole number of cache lines leaves every alignment as it was. Of objects that are no
ELF (WebAssembly, Windows, macOS) LLVM makes the whole.
"""

from __future__ import annotations

import struct

from addergraph.ir import Array
from addergraph.ir.plan import ALIGNMENT

from .. import llvm
from ..inspect.elf import SYMTAB, read_elf
from ..targets.target import Target
from .attributes import passing_no_floats
from .entry import data_module, data_symbols


def data_object(
    prefix: str, target: Target, weights: Array, golden: bytes, metadata: bytes
) -> list[bytes | memoryview]:
    """The pieces of the object: `weights`, u8, are in it as a view."""
    if target.format != "elf":
        return [llvm.compile_object(data_module(prefix, target, weights, golden, metadata), target)]
    more = max(0, weights.size - 1) // ALIGNMENT * ALIGNMENT
    module = data_module(prefix, target, weights[more:], golden, metadata)
    made = passing_no_floats(llvm.compile_object(module, target))
    made, at = lengthened(made, data_symbols(prefix)[0], more)
    return [made[:at], weights[:more].data, made[at:]]


def lengthened(data: bytes, symbol: str, more: int) -> tuple[bytes, int]:
    """An object in which `symbol` has `more` bytes more, and where in it they are missing: before
    the first byte of the symbol. See `inspect/elf.py` for the format."""
    elf, made = read_elf(data, symbol), bytearray(data)
    wide = elf.bits == 64
    word = "<Q" if wide else "<I"
    # Places of e_shoff; of sh_offset and sh_size in a header; of st_value, st_size and st_shndx.
    table_at, entry, offset, size = (40, 64, 24, 32) if wide else (32, 40, 16, 20)
    row, value, length, home = (24, 8, 16, 6) if wide else (16, 4, 8, 14)

    def read(place: int) -> int:
        return int(struct.unpack_from(word, made, place)[0])

    def add(place: int) -> None:
        struct.pack_into(word, made, place, read(place) + more)

    grown = next(s for s in elf.symbols if s.name == symbol)
    start = elf.sections[grown.section].offset
    table = read(table_at)
    add(table_at)
    for number, section in enumerate(elf.sections):
        if section.offset > start:
            add(table + number * entry + offset)
        if number == grown.section:
            add(table + number * entry + size)
        ends = range(section.offset, section.offset + section.size, row)
        for place in ends if section.type == SYMTAB else ():
            if struct.unpack_from("<H", made, place + home)[0] != grown.section:
                continue
            if read(place + value) > grown.value:
                add(place + value)
            elif read(place + length):
                add(place + length)
    return bytes(made), start + grown.value
