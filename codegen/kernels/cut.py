"""How kernels cut an extent into pieces of one size, of which the last may be smaller.

Code is emitted for both sizes, as the number of accumulators is part of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..emit.builder import Emitter, Index


def pieces(e: Emitter, extent: int, size: int) -> Iterator[tuple[Index, int]]:
    """A loop over the pieces of an extent: (where one begins, its size)."""
    whole = extent - extent % size
    with e.loop(0, whole, size) as begin:
        yield begin, size
    if extent % size:
        yield whole, extent % size


def piece(e: Emitter, number: Index, extent: int, size: int) -> Iterator[int]:
    """The sizes that piece `number` may have, each in code that runs where it has it."""
    whole, rest = divmod(extent, size)
    if not rest or not whole:
        yield rest or size
        return
    with e.b.if_else(e.less(number, whole)) as (full, last):
        with full:
            yield size
        with last:
            yield rest
