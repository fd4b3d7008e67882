"""`addergraph size`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ... import compiler
from ...settings import setting
from ...tables import Table
from .. import options as shared

INSTRUCTIONS = "instructions an image: benchmarks/boards.py counts them in an emulator"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The options of the command."""

    file: str = shared.file(metavar="LIBRARY_OR_FOLDER")
    board: str | None = shared.board("Compare with this board's memory")
    flash: int | None = shared.flash()
    ram: int | None = shared.ram()
    json: bool = setting(False, "Print JSON.")


def size(options: Sizes) -> bool:
    """Prints what a library takes; whether it has room on the board, where one is given."""
    found = compiler.size_of(options.file)
    board = compiler.board_of(found.target, options.board, options.flash, options.ram)
    flash, ram = sum(found.flash.values()), sum(found.ram_of_a_call.values())
    limits = (None, None) if board is None else (board.flash, board.ram)
    fits = all(m is None or n <= m for n, m in zip((flash, ram), limits, strict=True))
    if options.json:
        known = {"flash_bytes": flash, "ram_bytes": ram, "fits": fits}
        print(json.dumps(asdict(found) | known | {"board": board and asdict(board)}, indent=2))
        return fits
    of = "" if board is None else f"of {board.name}"
    rows = [
        *(("flash", part, f"{n:,}") for part, n in found.flash.items()),
        ("flash", "in all", f"{flash:,}", _share(flash, limits[0])),
        *(("RAM", part, f"{n:,}") for part, n in found.ram_of_a_call.items()),
        ("RAM", "in all", f"{ram:,}", _share(ram, limits[1])),
    ]
    ends = [i for i, row in enumerate(rows) if row[1] == "in all"]
    print(f"{found.library}, for {found.target}")
    heads = ["memory", "part", "bytes", *([of] if of else [])]
    print("\n".join(Table(heads, rows, ["memory", "part"], ruled=ends[:1]).lines()))
    if found.stack is None:
        print("the stack of a call is not known")
    print(INSTRUCTIONS)
    if not fits:
        print(f"no room {of.replace('of', 'on', 1)}")
    return fits


def _share(bytes_: int, limit: int | None) -> str:
    return "" if limit is None else f"{bytes_ / limit:.0%} of {limit:,}"
