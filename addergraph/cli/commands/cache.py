"""`addergraph cache`."""

from __future__ import annotations

from dataclasses import dataclass

from ... import compiler
from ...report.summary import size_text
from ...settings import setting


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The options of the command."""

    clear: bool = setting(False, "Remove all of it; what is needed again is compiled again.")


def cache(options: Cache) -> None:
    """Prints where compiled code is kept and how much it is; removes it if asked to."""
    found, limit = compiler.cached(clear=options.clear)
    if found.folder is None:
        print("there is no cache: ADDERGRAPH_CACHE is empty, or this user has no home")
        return
    what = "removed" if options.clear else f"of at most {size_text(limit)}"
    print(f"{found.folder}: {found.entries} entries, {size_text(found.nbytes)} {what}")
