"""`addergraph certify`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ... import compiler
from ...errors import AdderGraphError
from ...files import storage
from ...settings import setting
from .. import options as shared


@dataclass(frozen=True, kw_only=True)
class Certification:
    """The options of the command."""

    file: str = shared.file()
    json: str | None = setting(
        None, "The certificate.", metavar="FILE.json", unset="certificate.json beside FILE"
    )


def certify(options: Certification) -> bool:
    """Prints the census of a compiled file and writes the certificate; whether it holds.

    A refusal is written, too, and where a file cannot be read, the certificate of an earlier one is
    removed: none stays beside a file that it does not speak of.
    """
    file, json = options.file, options.json
    beside = storage.user_path(file).parent / "certificate.json"
    where = beside if json is None else storage.user_path(json)
    try:
        made = compiler.certify(file)
    except AdderGraphError:
        _remove_earlier(where)
        raise
    storage.atomic_write(where, made.to_json())
    print(made.render())
    print(f"wrote {where}")
    return made.multiplication_free


def _remove_earlier(where: Path) -> None:
    with contextlib.suppress(OSError):
        if b'"multiplication_free"' in where.read_bytes():
            where.unlink()
