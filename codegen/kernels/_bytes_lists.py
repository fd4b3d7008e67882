"""The lists of bytes above zero: how they are packed, and the loop that walks them.

    packed   i64[lists + 1][5]   per list (group, channel block, filter): its first entry, its first
                                 single entry, the filter, flags, and where its i32 sums stand; the
                                 last row closes the last list
             (i32 offset, u8[4]) entries: QUAD at a time, then single ones; a byte stands four times
             i32[outputs]        the sum of each filter

For each entry of a list min(x, f) is added to the sums of a tile's pixels. As min(x, f) <= f, bytes
of a quad whose f have a sum of at most 255 can be added as bytes, and only their total is widened:

    all += total as u16,  odd += (total as u16) >> 8;    at the end  even = all - (odd << 8)

A filter's bytes are sorted and dealt out, large ones with small ones; what fits no quad is single.
So any numbers can be packed. There is room for every tap, and so the code depends on shapes alone.

`all` and `odd` go on from block to block as long as a filter's bytes have a sum that fits 16 bits.
Where the next block's would not fit, they are added to i32 sums; filters for which this happens
more than once have i32 sums of their own, the others share one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.plan import align
from addergraph.types import u8

from ..builder import I8, I32, I64, Emitter, Index, Register, constant, vector
from ..schedule import ceil_div
from ._bytes_tile import BytesTile

MOST_BYTE, MOST_WORD = 255, 65535
QUAD = 4  # entries that are added before their total is widened
HEAD_BYTES = 40
FRESH, FLUSH, FIRST = 1, 2, 4  # flags: sums start at 0; they end as i32; those are the first
ENTRY_BYTES = 8
INT16 = ir.IntType(16)


class ByteLists:
    """The packed lists of one layer."""

    def __init__(self, tile: BytesTile) -> None:
        self.tile, self.g = tile, tile.g

    @property
    def lists(self) -> int:
        return self.g.groups * self.tile.blocks * self.g.outputs

    @property
    def entries_offset(self) -> int:
        return align(HEAD_BYTES * (self.lists + 1))

    @property
    def sums_offset(self) -> int:
        quads = ceil_div(self.g.kernel[0] * self.g.kernel[1] * self.tile.block, QUAD)
        longest = quads * (2 * QUAD - 1)  # where all but one byte of each is single
        return self.entries_offset + align(ENTRY_BYTES * self.lists * longest)

    def pack(self, f: Array) -> Array:
        """The packed bytes of an HWIO filter: see the module's contract."""
        g, block = self.g, self.tile.block
        f = f.reshape(*g.kernel, g.inputs, g.groups, g.outputs)
        sums = f.sum((0, 1, 2), np.int32)
        blob = np.zeros(self.sums_offset + align(sums.nbytes), np.uint8)
        heads = blob[: HEAD_BYTES * (self.lists + 1)].view(np.int64).reshape(-1, 5)
        entries = blob[self.entries_offset : self.sums_offset].view(np.uint32).reshape(-1, 2)
        number = end = 0
        for group in range(g.groups):
            parts = np.split(f[:, :, :, group], range(block, g.inputs, block), axis=2)
            flags, places = self._flushes(np.array([part.sum((0, 1, 2)) for part in parts]))
            for b, part in enumerate(parts):
                made = self._deal(part)
                for filter in sorted(range(g.outputs), key=lambda t: len(made[t][0])):
                    quads, singles = made[filter]
                    middle = end + len(quads)
                    heads[number] = end, middle, filter, flags[b, filter], places[filter]
                    entries[end:middle] = quads
                    end = middle + len(singles)
                    entries[middle:end] = singles
                    number += 1
        heads[number, 0] = end
        blob[self.sums_offset : self.sums_offset + sums.nbytes] = sums.reshape(-1).view(np.uint8)
        return blob

    def _flushes(self, sums: Array) -> tuple[Array, Array]:
        """Flags [block][filter] and places [filter], given the blocks' sums [block][filter]."""
        flags = np.zeros(sums.shape, np.int64)
        running = np.zeros(sums.shape[1], np.int64)
        flushed = np.zeros(sums.shape[1], np.int64)
        fresh = np.ones(sums.shape[1], bool)
        following = [*sums[1:], np.full_like(running, MOST_WORD + 1)]
        for b, after in enumerate(following):
            running = np.where(fresh, 0, running) + sums[b]
            flush = running + after > MOST_WORD
            flags[b] = FRESH * fresh + FLUSH * flush + FIRST * (flush & (flushed == 0))
            flushed, fresh = flushed + flush, flush
        own = np.arange(1, sums.shape[1] + 1) * self.tile.partial_bytes
        return flags, np.where(flushed > 1, own, 0)

    def _deal(self, values: Array) -> list[tuple[Array, Array]]:
        """Quads and single entries of each filter of a block, u8[i, j, k, filter].

        A filter's n bytes above zero, largest first, are dealt to ceil(n / 4) quads, the direction
        turning each time. While a quad's sum exceeds 255 its largest byte becomes single.
        """
        taps = [self.tile.tap_offset(i, j, k) for i, j, k in np.ndindex(values.shape[:3])]
        offsets = np.array(taps, np.uint32)
        values = values.reshape(len(taps), -1)
        order = np.argsort(values, axis=0, kind="stable")[::-1]
        made = []
        for column, ranked in zip(values.T, order.T, strict=True):
            kept = ranked[: np.count_nonzero(column)]
            count = ceil_div(len(kept), QUAD)
            missing = np.full(QUAD * count - len(kept), -1)
            hands = np.concatenate([kept, missing]).reshape(QUAD, count)
            hands[1::2] = hands[1::2, ::-1].copy()
            dealt = np.where(hands >= 0, column[hands].astype(np.int64), 0)
            alone = []
            for level in range(QUAD):
                over = dealt.sum(0) > MOST_BYTE
                alone += [tap for tap in hands[level, over] if tap >= 0]
                hands[level, over], dealt[level, over] = -1, 0
            quads, single = hands.T.reshape(-1), np.array(alone, np.int64)
            made.append((_entries(quads, column, offsets), _entries(single, column, offsets)))
        return made

    # -- emission --------------------------------------------------------------------------------

    def emit(self, e: Emitter, packed: Any, number: Index, source: Any, pairs: Any) -> Walked:
        """Walks list `number`; `pairs` are the 16-bit sums of all filters."""
        head = e.at(packed, e.mul(number, HEAD_BYTES))
        low, single, filter, flags, place, high = (
            e.b.load(e.at(head, 8 * i), typ=I64, align=8) for i in range(6)
        )
        entries = e.at(packed, self.entries_offset)
        lanes, vectors = self.tile.lanes, self.tile.vectors
        pairs = e.at(pairs, e.mul(filter, self.tile.pair_bytes))

        def added(entry: Any, totals: list[Register]) -> list[Register]:
            offset = e.b.sext(e.b.load(entry, typ=I32, align=4), I64)
            bytes = e.splat(e.b.load(e.at(entry, 4), typ=I32, align=4), lanes // 4)
            bytes = e.b.bitcast(bytes, vector(I8, lanes))
            taps = e.at(source, offset)
            least = [
                e.call("umin", bytes, e.load(e.at(taps, lanes * v), u8, lanes))
                for v in range(vectors)
            ]
            if not totals:
                return least
            # Regrouped, a quad's sums would take more registers than there are.
            return [e.keep_value(e.b.add(t, m)) for t, m in zip(totals, least, strict=True)]

        def several(count: int, s: Index, acc: list[Register]) -> list[Register]:
            totals: list[Register] = []
            for u in range(count):
                e.keep_order()
                totals = added(e.at(entries, e.add(e.mul(s, ENTRY_BYTES), u * ENTRY_BYTES)), totals)
            return widened(e, totals, acc)

        def before() -> list[Register]:
            return [
                e.b.load(e.at(pairs, lanes * v), typ=words(lanes), align=2)
                for v in range(2 * vectors)
            ]

        zeros = [constant(words(lanes), 0)] * (2 * vectors)
        acc = e.choose(_has(e, flags, FRESH), lambda: zeros, before)
        acc = e.carry(low, single, QUAD, acc, lambda s, acc: several(QUAD, s, acc))
        acc = e.carry(single, high, 1, acc, lambda s, acc: several(1, s, acc))
        return Walked(filter, place, pairs, acc, _has(e, flags, FLUSH), _has(e, flags, FIRST))


@dataclass(frozen=True)
class Walked:
    """A list that was walked: its filter, where its sums belong, and what they are.

    sums    `all` and `odd` of each vector in turn
    flush   i1: they go into i32 sums now, else into `pairs`
    first   i1: those i32 sums are the first, so they need not be read
    """

    filter: Any
    place: Any
    pairs: Any
    sums: list[Register]
    flush: Any
    first: Any


def _has(e: Emitter, flags: Any, flag: int) -> Any:
    return e.b.icmp_unsigned("!=", e.b.and_(flags, e.index(flag)), e.index(0))


def words(lanes: int) -> Any:
    """A vector of bytes as one of 16-bit words."""
    return vector(INT16, lanes // 2)


def widened(e: Emitter, totals: list[Register], acc: list[Register]) -> list[Register]:
    """The sums (`all`, `odd` of each vector) plus totals of bytes."""
    made = []
    for v, total in enumerate(totals):
        word = e.b.bitcast(total, acc[0].type)
        made.append(e.b.add(acc[2 * v], word))
        made.append(e.b.add(acc[2 * v + 1], e.b.lshr(word, constant(word.type, 8))))
    return made


def classes(e: Emitter, every: Register, odd: Register) -> list[Register]:
    """i32 sums of pixels 4 l, 4 l + 1, 4 l + 2 and 4 l + 3, l being the lane: no byte crosses."""
    even = e.b.sub(every, e.b.shl(odd, constant(odd.type, 8)))
    made: list[Register] = [None] * 4
    for first, word in ((0, even), (1, odd)):
        wide = e.b.bitcast(word, vector(I32, word.type.count // 2))
        made[first] = e.b.and_(wide, constant(wide.type, 0xFFFF))
        made[first + 2] = e.b.lshr(wide, constant(wide.type, 16))
    return made


def _entries(taps: Array, column: Array, offsets: Array) -> Array:
    """u32[n, 2]: offset and four times the byte of each tap; of -1, a byte of zeros."""
    real = taps >= 0
    made = np.zeros((len(taps), 2), np.uint32)
    made[real, 0] = offsets[taps[real]]
    made[real, 1] = column[taps[real]].astype(np.uint32) * np.uint32(0x01010101)
    return made
