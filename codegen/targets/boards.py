"""Boards by name: whose code they run, and what memory they have. Names of others need no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from addergraph import border
from addergraph.errors import DataError, TargetError, UnsupportedError, nearest

KIB, MIB = 1 << 10, 1 << 20
HOST = "host"  # the target that says nothing


@dataclass(frozen=True)
class Board:
    """`targets` are names of those whose code it runs, the best for integers first; flash and RAM
    are in bytes, None where nothing limits them."""

    name: str
    targets: tuple[str, ...]
    flash: int | None
    ram: int | None

    def require_room(
        self, library: str, flash: Mapping[str, int], ram: Mapping[str, int], *, known: str = ""
    ) -> None:
        """UnsupportedError where the parts of a library, in bytes, are more than there is.

        known  what is said before the sums, where there are parts that are not known yet
        """
        rows = (("flash", flash, self.flash), ("RAM", ram, self.ram))
        over = [
            f"{kind} {known}{sum(parts.values()):,} of {limit:,} bytes "
            f"({', '.join(f'{name} {n:,}' for name, n in parts.items())})"
            for kind, parts, limit in rows
            if limit is not None and sum(parts.values()) > limit
        ]
        if over:
            raise UnsupportedError(
                f'no room for the library "{library}" on {self.name}: {"; ".join(over)}; '
                "take a larger board or a smaller network"
            )


_DSP = "thumbv7em", "thumbv7em-f32", "thumbv6m"  # of Cortex-M4 and M7 with a float unit
BOARDS = {
    board.name: board
    for board in (
        Board("microbit", ("thumbv6m",), 256 * KIB, 16 * KIB),
        Board("rp2040", ("thumbv6m",), 2 * MIB, 264 * KIB),  # flash: the Pico's
        Board("nrf52840", _DSP, 1 * MIB, 256 * KIB),
        Board("stm32f746", _DSP, 1 * MIB, 320 * KIB),
        Board("stm32f767", _DSP, 2 * MIB, 512 * KIB),
        Board(
            "esp32-c3", ("riscv32imc", "riscv32i"), 4 * MIB, 400 * KIB
        ),  # flash: the usual module's
    )
}


def board_of(target: str, name: str | None, flash: int | None, ram: int | None) -> Board | None:
    """The board called `name`, or one without a name, with so much memory where that is said; None
    where nothing is. Its first target is `target`, unless that is "host" and the board has others.

    Raises TargetError for another name, or a target that is not the board's; DataError for memory
    that is no positive number of bytes.
    """
    name = border.plain(str | None, "board", name, TargetError)
    for what, size in (("flash", flash), ("ram", ram)):
        if size is not None and border.integer(what, size) < 1:
            raise DataError(f"{what}={border.shown(size)} must be a number of bytes of at least 1")
    if name is None:
        return None if flash is None and ram is None else Board("this board", (target,), flash, ram)
    if name not in BOARDS:
        raise TargetError(
            f'unknown board "{name}"{nearest(name, BOARDS)}; known: {", ".join(BOARDS)}. For '
            "another one give its target, and the bytes of its flash and RAM (--flash, --ram)"
        )
    found = BOARDS[name]
    if target not in (HOST, *found.targets):
        raise TargetError(
            f'the board "{name}" runs code for {" or ".join(found.targets)}, not for "{target}"; '
            "leave out the target, or give --flash and --ram instead of --board"
        )
    runs = found.targets if target == HOST else (target,)
    flash, ram = flash or found.flash, ram or found.ram
    return Board(name, runs, flash, ram)
