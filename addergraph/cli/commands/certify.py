"""`addergraph certify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ... import compiler
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

    A refusal is written, too: no certificate of an earlier file stays beside a later one.
    """
    file, json = options.file, options.json
    where = Path(file).parent / "certificate.json" if json is None else Path(json)
    made = compiler.certify(file)
    storage.atomic_write(where, made.to_json())
    print(made.render())
    print(f"wrote {where}")
    return made.multiplication_free
