"""Transposition between memory and memory: squares of `lanes` x `lanes` f32, pixels of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir

from addergraph.ir.types import u8

from ..emit.builder import I32, POINTER, Emitter, Index, Register

PART = 16  # bytes: x86 interleaves those of equal parts of two vectors
QUAD = 4  # f32 of one part


def transpose(
    e: Emitter, source: Any, places: Sequence[int], into: Any, into_step: Index, columns: int
) -> None:
    """into[c][r] = source[r][c], f32, for `lanes` rows and c < columns <= lanes.

    Row r of `source` is places[r] bytes behind it, the rows of `into` are `into_step` bytes apart.
    Nothing else is read or written. One function per module, places and size does the work.
    """

    def build(f: Emitter, arguments: Sequence[Any]) -> None:
        start, target, step = arguments
        for c, row in enumerate(transposed_from(f, start, places, columns)):
            f.store(row, f.at(target, f.mul(c, step)))

    known = hashlib.sha256(repr(list(places)).encode()).hexdigest()[:16]
    function = e.shared(f"transpose_{columns}_of_{known}", [POINTER, POINTER, e.word], build)
    e.b.call(function, [source, into, e.index(into_step)])


def transposed_from(e: Emitter, source: Any, places: Sequence[int], columns: int) -> list[Register]:
    """The columns of `transpose`: result[c][r] = source[r][c]."""
    if columns < e.lanes or e.lanes != 2 * QUAD:
        rows = [e.load(e.at(source, p), lanes=e.lanes, active=columns) for p in places]
        return transposed(e, rows)[:columns]
    parts = ([e.load(e.at(source, p + 4 * k), lanes=QUAD) for p in places] for k in (0, QUAD))
    return [column for rows in parts for column in _columns(e, rows)]


def transposed(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """`lanes` vectors of `lanes` elements, transposed: result[k][p] = rows[p][k].

    Of 8 lanes it takes 24 instructions: most of AVX2 shuffle within 16 bytes. Of other numbers
    log2(lanes) rounds, each of which interleaves vector i with vector i + lanes / 2.
    """
    if len(rows) == 2 * QUAD:
        parts = (range(k, k + QUAD) for k in (0, QUAD))
        return [c for part in parts for c in _columns(e, [shuffle(e, r, r, part) for r in rows])]
    return _interleaved(e, rows, len(rows), 1)


def _columns(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """2 QUAD rows of QUAD elements each, transposed: result[k][p] = rows[p][k]."""
    pairs = zip(rows[:QUAD], rows[QUAD:], strict=True)
    return _interleaved(e, [shuffle(e, a, b, range(2 * QUAD)) for a, b in pairs], QUAD, 2)


def _interleaved(e: Emitter, rows: Sequence[Register], size: int, parts: int) -> list[Register]:
    """`size` vectors of so many parts of `size` elements, each part transposed."""
    half = size // 2
    low = [
        part + i // 2 + size * parts * (i % 2)
        for part in range(0, size * parts, size)
        for i in range(size)
    ]
    high = [i + half for i in low]
    current = list(rows)
    for _ in range(size.bit_length() - 1):
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


def transpose_bytes(
    e: Emitter, source: Any, offsets: Sequence[int], into: Any, into_step: int, columns: int
) -> None:
    """into[c][r] = the byte c of what stands offsets[r] behind `source`, for c < columns <= PART.

    There are as many offsets as a vector has bytes. Nothing else is read or written; rows of `into`
    are into_step bytes apart.
    """
    rows = [e.load(e.at(source, offset), u8, PART, active=columns) for offset in offsets]
    planes = transposed_parts(e, [joined(e, rows[q::PART]) for q in range(PART)])
    for c, plane in enumerate(planes[:columns]):
        e.store(plane, e.at(into, c * into_step), u8)


def transpose_planes(
    e: Emitter, source: Any, source_step: int, into: Any, offsets: Sequence[int], columns: int
) -> None:
    """The way back: the byte c of what stands offsets[r] behind `into` = source[c][r].

    PART rows of `source`, one vector of bytes each, are read, whatever `columns` is.
    """
    lanes = 4 * e.lanes
    rows = [e.load(e.at(source, c * source_step), u8, lanes) for c in range(PART)]
    pixels = transposed_parts(e, rows)
    for r, offset in enumerate(offsets):
        part, p = divmod(r, PART)
        one = shuffle(e, pixels[p], pixels[p], range(part * PART, (part + 1) * PART))
        e.store(one, e.at(into, offset), u8, active=columns)


def transposed_parts(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """PART vectors of bytes, of which each part is transposed: result[k] part l [p] = rows[p] part
    l [k]. Four rounds, each of which interleaves vector i with vector i + 8 part by part."""
    return _interleaved(e, rows, PART, rows[0].type.count // PART)


def joined(e: Emitter, pieces: Sequence[Register]) -> Register:
    """One vector of equally long pieces, whose number is a power of two."""
    while len(pieces) > 1:
        both = range(2 * pieces[0].type.count)
        pieces = [shuffle(e, a, b, both) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]
