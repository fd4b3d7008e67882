"""What an ARM object says of how floats are passed: neither way, so it links with programs of both.

GNU ld refuses to link what passes floats in float registers (-mfloat-abi=hard) with what passes
them in others, by the attribute Tag_ABI_VFP_args. An object without it counts as one of the latter.
All functions of a library take pointers and integers, for which the ABI has a third value; LLVM
has no option for it.

Layout and numbers: ARM's "Addenda to, and Errata in, the ABI for the Arm Architecture", 3.2 and 3.3
(https://github.com/ARM-software/abi-aa/blob/main/addenda32/addenda32.rst).
"""

from __future__ import annotations

from collections.abc import Iterator

from addergraph.errors import CodegenError

from ..inspect.elf import ARM, MAGIC, read_elf

_SECTION = 0x70000003  # SHT_ARM_ATTRIBUTES
_START = b"A????aeabi\0\1????"  # version, length, vendor, Tag_File, length
_STRINGS = (4, 5, 67)  # Tag_CPU_raw_name, Tag_CPU_name, Tag_conformance: their values end by a NUL
_VFP_ARGS, _BOTH = 28, 3  # Tag_ABI_VFP_args: compatible with both


def passing_no_floats(data: bytes) -> bytes:
    """The object that LLVM made, which then says so; what is not for ARM is as it was.

    The statement takes the place of one that says nothing: of an attribute with the value 0, which
    is that of attributes that are not there.
    """
    if not data.startswith(MAGIC):
        return data
    elf = read_elf(data, "the emitted object")
    if elf.machine != ARM:
        return data
    (section,) = (s for s in elf.sections if s.type == _SECTION)
    stated = {tag: (place, value) for place, tag, value in _attributes(section.data)}
    empty = (place for place, value in stated.values() if value == 0)
    place = stated[_VFP_ARGS][0] if _VFP_ARGS in stated else next(empty, None)
    if place is None:
        raise CodegenError("LLVM states no ARM attribute that could be replaced; please report it")
    at = section.offset + place
    return data[:at] + bytes([_VFP_ARGS, _BOTH]) + data[at + 2 :]


def _attributes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Place, tag and value of the numbers; those of LLVM have one byte each."""
    place = len(_START)
    while place < len(data):
        tag = data[place]
        if tag in _STRINGS:
            place = data.index(0, place) + 1
            continue
        yield place, tag, data[place + 1]
        place += 2
