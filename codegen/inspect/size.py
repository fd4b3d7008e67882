"""What a library takes of a board: flash, RAM, stack. Read off its static archive, whose metadata
say what stands in no section."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from addergraph.errors import StorageError, UnsupportedError
from addergraph.files.records import json_object
from addergraph.files.storage import read_bytes, user_path

from ..export.archive import read_archive
from . import wasm
from .elf import NOBITS, Elf, read_elf

_METADATA = "metadata.json"
_WRITABLE = 1  # SHF_WRITE
_PARTS = {"weights": "weights", "golden": "self-test", "metadata": "metadata"}  # of the data object


@dataclass(frozen=True)
class Size:
    """In bytes.

    flash  `code`; `weights`; `self-test`, its inputs and outputs; `metadata`; `tables`, all other
           constants, and what pads one part to the next
    ram    `arena`, which the caller brings; so is `state`, of a library that learns; `data`, what
           the library itself writes
    stack  the most that a call takes; None where that is not known
    """

    library: str
    target: str
    flash: Mapping[str, int]
    ram: Mapping[str, int]
    stack: int | None

    @property
    def ram_of_a_call(self) -> dict[str, int]:
        """With the stack, where it is known."""
        return {**self.ram, **({} if self.stack is None else {"stack": self.stack})}


def size_of(path: str | os.PathLike[str]) -> Size:
    """The size of an exported library: its static archive, or the folder that has it.

    Raises StorageError where that is none, UnsupportedError for WebAssembly,
    Windows and macOS.
    """
    where = user_path(path)
    if os.path.isdir(where):
        facts = json_object(read_bytes(where / _METADATA), f'"{where / _METADATA}"')
        name = facts.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
            raise StorageError(f'"{where / _METADATA}" names no library: it is of no export')
        target = facts.get("target")
        if isinstance(target, dict) and re.search("-windows-|-apple-", str(target.get("triple"))):
            raise UnsupportedError(
                f'"{where}" is a library for Windows or macOS, whose objects are not read here; '
                "flash and RAM are those of boards, and metadata.json says what a call needs "
                "(arena_bytes)"
            )
        where = where / f"lib{name}.a"
    return size_of_archive(read_bytes(where), str(where))


def size_of_archive(data: bytes, file: str) -> Size:
    """The same of an archive's bytes; `file` is its name in messages."""
    flash = dict.fromkeys(("code", *_PARTS.values(), "tables"), 0)
    writable, texts = 0, []
    if data.startswith(wasm.MAGIC):
        raise _engines_need_no_room(file)
    for name, member in read_archive(data, file):
        if member.startswith(wasm.MAGIC):
            raise _engines_need_no_room(f"{file}({name})")
        elf = read_elf(member, f"{file}({name})")
        for section in elf.sections:
            if not section.allocated:
                continue
            if section.flags & _WRITABLE:
                writable += section.size
            flash["code" if section.executable else "tables"] += section.size * (
                section.type != NOBITS
            )
        for part, content in _parts(elf):
            flash[_PARTS[part]] += len(content)
            flash["tables"] -= len(content)
            texts += [content] if part == "metadata" else []
    if len(texts) != 1:
        raise StorageError(
            f'"{file}" has the metadata of {len(texts)} libraries, expected that of one: give the '
            "static library that compile wrote, or its folder"
        )
    facts = json_object(texts[0].rstrip(b"\0"), f'the metadata in "{file}"')
    name, target, arena = (_fact(facts, key, file) for key in ("name", "target", "arena_bytes"))
    stack, state = facts.get("stack_bytes"), facts.get("state_bytes")
    brought = {"arena": arena} | ({"state": state} if isinstance(state, int) else {})
    return Size(
        name, target["name"], flash, {**brought, "data": writable},
        stack if isinstance(stack, int) else None,
    )  # fmt: skip


def _engines_need_no_room(file: str) -> UnsupportedError:
    return UnsupportedError(
        f'"{file}" is WebAssembly, which an engine runs, on no board: there is no flash and no RAM '
        "to compare with. Its module has as many bytes as its file (.wasm), and metadata.json "
        "says what a call needs (arena_bytes)"
    )


def _parts(elf: Elf) -> list[tuple[str, bytes]]:
    """The symbols of the data object: what they are, and their bytes."""
    found = []
    for symbol in elf.symbols:
        part = re.fullmatch(r"\w+_data_(weights|golden|metadata)", symbol.name)
        if part is None or not 0 < symbol.section < len(elf.sections):
            continue
        section = elf.sections[symbol.section]
        if section.allocated and not section.executable:
            found.append((part[1], section.data[symbol.value : symbol.value + symbol.size]))
    return found


def _fact(facts: Mapping[str, Any], key: str, file: str) -> Any:
    kinds: Mapping[str, type] = {"name": str, "target": dict, "arena_bytes": int}
    value = facts.get(key)
    named = not isinstance(value, dict) or isinstance(value.get("name"), str)
    if not isinstance(value, kinds[key]) or not named:
        raise StorageError(f'the metadata in "{file}" say nothing of its {key}: it is damaged')
    return value
