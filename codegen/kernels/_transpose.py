"""Transposition between memory and memory: squares of `lanes` x `lanes` f32, pixels of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from addergraph.types import DType, f32, u8

from ..builder import I8, I32, I64, POINTER, Emitter, Index, Register, constant

Row = Callable[[int], Any]  # the pointer to a row of the source
Columns = Callable[[Emitter, Row], Sequence[Register]]


def transpose(
    e: Emitter,
    source: Any,
    source_step: Index,
    into: Any,
    into_step: Index,
    rows: int,
    columns: int,
    width: int | None = None,
) -> None:
    """into[c][r] = source[r][c], f32, for r < rows and c < columns; steps are bytes between rows.

    Each row of `into` is written whole, `lanes` elements (or the first `width`), zeros from `rows`
    on. Nothing else is read or written. One function per module and size does the work.
    """
    lanes = e.lanes

    def columns_of(f: Emitter, row: Row) -> list[Register]:
        zero = f.number(0.0, lanes)

        def pixel(r: int) -> Register:
            return f.load(row(r), lanes=lanes, active=columns) if r < rows else zero

        return transposed(f, [pixel(r) for r in range(lanes)])[:columns]

    name = f"transpose_{rows}x{columns}_to_{width or lanes}"
    _emit_shared(e, name, (source, source_step, into, into_step), columns_of, f32, width)


def _emit_shared(
    e: Emitter, name: str, places: tuple[Any, Index, Any, Index], columns_of: Columns, dtype: DType,
    width: int | None,
) -> None:  # fmt: skip
    """Calls the module's one function `name`, which stores what `columns_of` makes of the rows.

    places   the source, its step, the target, its step
    """

    def build(f: Emitter, arguments: Sequence[Any]) -> None:
        start, step, target, target_step = arguments
        for c, column in enumerate(columns_of(f, lambda r: f.at(start, f.mul(r, step)))):
            f.store(column, f.at(target, f.mul(c, target_step)), dtype, active=width)

    source, source_step, into, into_step = places
    function = e.shared(name, [POINTER, I64, POINTER, I64], build)
    e.b.call(function, [source, e.index(source_step), into, e.index(into_step)])


def transposed(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """`lanes` vectors of `lanes` elements, transposed: result[k][p] = rows[p][k].

    log2(lanes) rounds, each of which interleaves vector i with vector i + lanes / 2.
    """
    lanes = len(rows)
    half = lanes // 2
    low = [i // 2 + lanes * (i % 2) for i in range(lanes)]
    high = [i + half for i in low]
    current = list(rows)
    for _ in range(lanes.bit_length() - 1):
        current = [
            shuffle(e, current[i], current[i + half], pattern)
            for i in range(half)
            for pattern in (low, high)
        ]
    return current


def shuffle(e: Emitter, a: Register, b: Register, pattern: Sequence[int]) -> Register:
    """The elements of a and b (numbered on after a's) that `pattern` lists."""
    chosen = ir.Constant(ir.VectorType(I32, len(pattern)), list(pattern))
    return e.b.shuffle_vector(a, b, chosen)


PART = 16  # bytes: x86 interleaves those of equal parts of two vectors


def transpose_bytes(
    e: Emitter,
    source: Any,
    source_step: Index,
    into: Any,
    into_step: Index,
    rows: int,
    columns: int,
    width: int | None = None,
) -> None:
    """into[c][r] = source[r][c], u8, for r < rows, at most a vector, and c < columns <= PART.

    Each row of `into` is written whole, one vector of bytes (or the first `width`), zeros from
    `rows` on. Nothing else is read or written.
    """
    lanes = 4 * e.lanes

    def columns_of(f: Emitter, row: Row) -> list[Register]:
        nothing = constant(ir.VectorType(I8, PART), 0)

        def pixel(r: int) -> Register:
            return f.load(row(r), u8, PART, active=columns) if r < rows else nothing

        parts = [[pixel(r) for r in range(q, lanes, PART)] for q in range(PART)]
        return transposed_parts(f, [joined(f, pixels) for pixels in parts])[:columns]

    name = f"transpose_bytes_{rows}x{columns}_to_{width or lanes}"
    _emit_shared(e, name, (source, source_step, into, into_step), columns_of, u8, width)


def transposed_parts(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """PART vectors of bytes, of which each part is transposed: result[k] part l [p] = rows[p] part
    l [k]. Four rounds, each of which interleaves vector i with vector i + 8 part by part."""
    lanes, half = rows[0].type.count, PART // 2
    low = [part + i // 2 + lanes * (i % 2) for part in range(0, lanes, PART) for i in range(PART)]
    high = [i + half for i in low]
    current = list(rows)
    for _ in range(PART.bit_length() - 1):
        current = [
            shuffle(e, current[i], current[i + half], pattern)
            for i in range(half)
            for pattern in (low, high)
        ]
    return current


def joined(e: Emitter, pieces: Sequence[Register]) -> Register:
    """One vector of equally long pieces, whose number is a power of two."""
    while len(pieces) > 1:
        both = range(2 * pieces[0].type.count)
        pieces = [shuffle(e, a, b, both) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]
