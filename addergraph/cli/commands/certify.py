"""`addergraph certify`."""

from __future__ import annotations

from pathlib import Path

from ... import compiler
from ...files import storage


def certify(file: str, json: str | None) -> bool:
    """Prints the census of a compiled file and writes the certificate; whether it holds.

    A refusal is written, too: no certificate of an earlier file stays beside a later one.
    """
    where = Path(file).parent / "certificate.json" if json is None else Path(json)
    made = compiler.certify(file)
    storage.atomic_write(where, made.to_json())
    print(made.render())
    print(f"wrote {where}")
    return made.multiplication_free
