"""Records: frozen dataclasses as the plain data of JSON and TOML, and back.

    {"kind": "cosine", "base": 0.1, "warmup": 0.5}     one of a closed table of dataclasses

What is read is checked against the fields: unknown and missing names, values of another type or out
of range are refused. Reading runs nothing of a file. A field is called in files as its `Setting`
says, where it has one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args, get_origin

from ..border import accept, hints_of, shown
from ..errors import AdderGraphError, DataError, StorageError, nearest
from ..settings import settings_of

T = TypeVar("T")
_WORDS: dict[object, str] = {
    int: "an integer", float: "a number", bool: "true or false", str: "a word in quotes",
    list: "a list", dict: "an object", tuple: "a list",
}  # fmt: skip


def encode(record: Any, kind: str | None = None, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields by name, after `kind` where there is one; those in `without` are left out."""
    named = {} if kind is None else {"kind": kind}
    return named | {key: getattr(record, name) for key, name in _keys(type(record), without)}


def kind_of(record: object, table: Mapping[str, type]) -> str | None:
    """The name of a record's class; None where it is not in the table."""
    return next((name for name, made in table.items() if made is type(record)), None)


def named(kind: object, table: Mapping[str, type[T]], where: str) -> type[T]:
    """The class of that name; DataError for another one."""
    if not isinstance(kind, str) or kind not in table:
        hint = nearest(kind, table) if isinstance(kind, str) else ""
        raise DataError(f"unknown kind in {where}: {shown(kind)}{hint}; known: {', '.join(table)}")
    return table[kind]


def read(
    kind: type,
    values: Mapping[str, Any],
    where: str,
    *,
    error: type[AdderGraphError] = DataError,
    without: Collection[str] = (),
    complete: bool = False,
) -> dict[str, Any]:
    """The arguments that `values` hold for a dataclass, by the names of its fields.

    `error`, which names the key and says `where` it stands, for an unknown key, a value of another
    type or out of range, and where one of a record that is to be `complete` is missing.
    """
    keys = dict(_keys(kind, without))
    require_known(values, keys, where, error)
    if complete and (missing := [key for key in keys if key not in values]):
        raise error(f"{missing[0]} is missing in {where}")
    hints, settings, found = hints_of(kind), settings_of(kind), {}
    for key, value in values.items():
        name = keys[key]
        found[name] = _typed(key, value, hints[name], where, error)
        if name in settings:
            settings[name].require(key, found[name])
    return found


def require_known(
    given: Collection[str], known: Collection[str], where: str, error: type[AdderGraphError]
) -> None:
    """`error`, with the nearest name, for a key that is not known."""
    for key in given:
        if key not in known:
            raise error(
                f'unknown key "{key[:80]}" in {where}{nearest(key, known)}; '
                f"known: {', '.join(known)}"
            )


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`, which is `what`; StorageError for anything else, and for words
    that are no text (half of a surrogate pair), since they could not be printed."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StorageError(f"{what} has a word that is no text") from None
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{what} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise StorageError(f"{what} is no JSON object")
    return found


_KINDS = {  # what files of ours are, by their format
    "addergraph.model": "a model file",
    "addergraph.quantized": "an int8 network",
    "addergraph.checkpoint": "the checkpoint of a run",
}


def require_format(
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    format: str,
    version: str,
    what: str,
    entries: Collection[str] = (),
) -> None:
    """StorageError unless the metadata of the file `path` are those of `what`, by the name of its
    `format`, with these `entries`, and in the version that is read here."""
    if metadata.get("format") != format or not {"version", *entries} <= metadata.keys():
        found = _KINDS.get(metadata.get("format", ""))
        raise StorageError(f'"{path}" is {"" if found is None else f"{found}, and "}no {what}')
    require_version(path, metadata["version"], version)


def require_version(
    path: str | os.PathLike[str],
    found: str,
    expected: str,
    advice: str = "use the version of AdderGraph that wrote it",
) -> None:
    """StorageError unless the file `path` has the one version of its format that is read here."""
    if found != expected:
        raise StorageError(
            f'"{path}" has format version {found[:40]}, this program reads version {expected}; '
            f"{advice}"
        )


def _keys(kind: type, without: Collection[str]) -> list[tuple[str, str]]:
    """What a file calls each field, and the field."""
    settings = settings_of(kind)
    fields = [f.name for f in dataclasses.fields(kind) if f.name not in without]
    return [((settings[n].name if n in settings else "") or n, n) for n in fields]


def _typed(
    key: str, value: object, expected: Any, where: str, error: type[AdderGraphError]
) -> object:
    """The value as the field takes it; a type that is not listed is left to the dataclass."""
    options = get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    kinds = [get_origin(option) or option for option in options]
    if any(type(value) is kind or (value is None and kind is types.NoneType) for kind in kinds):
        return value
    if float in kinds and type(value) is int and (found := accept(float, value)) is not None:
        return found
    listed = next((option for option in options if get_origin(option) is tuple), None)
    if listed is not None and isinstance(value, list):
        return tuple(_typed(key, item, get_args(listed)[0], where, error) for item in value)
    if not all(kind in _WORDS or kind is types.NoneType for kind in kinds):
        return value
    raise error(f"{key} = {shown(value)} in {where}: expected {_WORDS[kinds[0]]}")
