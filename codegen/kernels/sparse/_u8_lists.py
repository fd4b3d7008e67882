"""The lists of bytes above zero: how they are packed, and the loops that walk them.

    packed   i64[lists + 1][8]   per list (group, channel block, filter): its first eight, its first
                                 four, its first single entry, its saturated taps, the filter,
                                 flags, where its i32 sums stand, and how many u16 its saturated
                                 taps are; the last row closes the last list, and its number says
                                 whether any list has saturated taps
             records             of n = 8, 4 or 1 entries: u16[n] places, in vectors (of one entry,
                                 padded to 4 bytes), and u8[n][4], a byte standing four times; of
                                 saturated taps: u16[n] places
             i32[outputs]        the sum of each filter

For each entry of a list min(x, f) is added to the sums of a tile's pixels. As min(x, f) <= f, the
bytes of a record whose f have a sum of at most 255 can be added as bytes; their total is widened:

    all += total as u16,  odd += (total as u16) >> 8;    at the end  even = all - (odd << 8)

So any numbers can be packed: small bytes by eights, larger ones by fours, what fits none alone.

Taps come in three kinds. Of those with f = 0 there is nothing to add. Those with f = 255, the
saturated ones, add x itself, which takes no minimum: `all` and `odd` of each channel, and their
sums for each pair of channels, are made once for all filters ("saturated" of
`BytesTile.sections`), so that a pair of saturated taps is two additions. In filters of 8 bits that
were trained, 0.28 of the taps are saturated and 0.45 zero (the authors' ResNet-20).

There is room for every tap, and so the code depends on shapes alone.

`all` and `odd` go on from block to block as long as a filter's bytes have a sum that fits 16 bits.
Where the next block's would not fit, they are added to i32 sums; filters for which this happens
more than once have i32 sums of their own, the others share one place."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import align
from addergraph.ir.types import u8

from ...emit.builder import I8, I16, I32, I64, Emitter, Index, Register, constant, vector
from ..schedule import ceil_div
from ._u8_tile import TOGETHER, BytesTile

MOST_BYTE, MOST_WORD = 255, 65535  # a byte of MOST_BYTE is no less than any x: saturated
HEAD_BYTES = 64
EIGHT, FOUR = 8, 4  # entries that are added before their total is widened
UNIT = 8  # bytes; records are whole units
FRESH, FLUSH, FIRST = 1, 2, 4  # flags: sums start at 0; they end as i32; those are the first


class ByteLists:
    """The packed lists of one layer."""

    def __init__(self, tile: BytesTile) -> None:
        self.tile, self.g = tile, tile.g

    @property
    def lists(self) -> int:
        return self.g.groups * self.tile.blocks * self.g.outputs

    @property
    def records_offset(self) -> int:
        return align(HEAD_BYTES * (self.lists + 1))

    @property
    def sums_offset(self) -> int:
        taps = self.g.kernel[0] * self.g.kernel[1] * self.tile.block
        # The upper bound: every four keeps one byte, and its other bytes have records of their own.
        longest = ceil_div(taps, FOUR) * (record_bytes(FOUR) + (FOUR - 1) * record_bytes(1))
        return self.records_offset + align(self.lists * (longest + UNIT) + record_bytes(EIGHT))

    @property
    def nbytes(self) -> int:
        return self.sums_offset + align(4 * self.g.groups * self.g.outputs)

    def pack(self, f: Array, out: Array) -> None:
        """The packed bytes of an HWIO filter: see the module's contract."""
        g, block = self.g, self.tile.block
        f = f.reshape(*g.kernel, g.inputs, g.groups, g.outputs)
        sums = f.sum((0, 1, 2), np.int32)
        out[...] = 0
        heads = out[: HEAD_BYTES * (self.lists + 1)].view(np.int64).reshape(-1, HEAD_BYTES // 8)
        number, end, any_saturated = 0, self.records_offset, 0
        for group in range(g.groups):
            parts = np.split(f[:, :, :, group], range(block, g.inputs, block), axis=2)
            flags, places = self._flushes(np.array([part.sum((0, 1, 2)) for part in parts]))
            for b, part in enumerate(parts):
                made = self._deal(part)
                for filter in sorted(range(g.outputs), key=lambda t: _position(t, made[t])):
                    for n, records in enumerate(made[filter]):
                        heads[number, n] = (end - self.records_offset) // UNIT
                        out[end : end + len(records)] = records
                        end += ceil_div(len(records), UNIT) * UNIT
                    count = len(made[filter][-1]) // 2
                    heads[number, 4:] = filter, flags[b, filter], places[filter], count
                    number, any_saturated = number + 1, any_saturated | count
        heads[number, 0] = (end - self.records_offset) // UNIT
        heads[number, -1] = any_saturated
        out[self.sums_offset : self.sums_offset + sums.nbytes] = sums.reshape(-1).view(np.uint8)

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

    def _deal(self, values: Array) -> list[tuple[Array, ...]]:
        """The records of eight, four, one and the saturated taps of each filter of a block,
        u8[i, j, k, filter]."""
        saturated = self._saturated(values)
        values = np.where(values < MOST_BYTE, values, 0)
        lanes, taps = self.tile.lanes, np.ndindex(values.shape[:3])
        places = np.array([self.tile.tap_offset(*tap) // lanes for tap in taps], np.uint16)
        values = values.reshape(len(places), -1)
        order = np.argsort(values, axis=0, kind="stable")[::-1]
        made: list[tuple[Array, ...]] = []
        for column, ranked, places_saturated in zip(values.T, order.T, saturated, strict=True):
            kept = ranked[: np.count_nonzero(column)]
            eights = _by_eights(column[kept].astype(np.int64))
            large, small = np.split(kept, [len(kept) - EIGHT * eights])
            hands = _dealt(small, EIGHT)
            fours, alone = _by_fours(large, column)
            eight, four, one = (
                _records(each, column, places) for each in (hands, fours, alone.reshape(1, -1))
            )
            made.append((eight, four, one, places_saturated.view(np.uint8)))
        return made

    def _saturated(self, values: Array) -> list[Array]:
        """The places of each filter's saturated taps, of a block u8[i, j, k, filter]."""
        tile = self.tile
        pad = values.shape[2] % 2
        saturated = np.pad(values == MOST_BYTE, ((0, 0), (0, 0), (0, pad), (0, 0)))
        first, second = (saturated[:, :, k::2].astype(np.uint8) for k in range(2))
        which = (first + 2 * second).transpose(3, 0, 1, 2)  # 0: neither
        shape = (*which.shape[1:], 3)
        places = [tile.saturated_offset(*where) // tile.lanes for where in np.ndindex(shape)]
        table = np.array(places, np.uint16).reshape(shape)
        return [table[(*np.nonzero(one), one[np.nonzero(one)] - 1)] for one in which]

    # -- emission --------------------------------------------------------------------------------

    def emit_any_saturated(self, e: Emitter, packed: Any) -> Any:
        """i1: whether a list has saturated taps."""
        last = e.at(packed, HEAD_BYTES * (self.lists + 1) - 8)
        return e.b.icmp_signed("!=", e.b.load(last, typ=I64, align=8), e.index(0))

    def emit(
        self, e: Emitter, packed: Any, number: Index, source: Any, saturated_source: Any, pairs: Any
    ) -> Walked:
        """Walks list `number` for one register tile.

        source, saturated_source   the tile's first pixel in the block's planes, in "saturated"
        pairs                      and in the 16-bit sums of the first filter
        """
        head = e.at(packed, e.mul(number, HEAD_BYTES))
        low, fours, alone, saturated, filter, flags, place, count_saturated = (
            e.b.load(e.at(head, 8 * i), typ=I64, align=8) for i in range(8)
        )
        records = e.at(packed, self.records_offset)
        lanes, vectors, pixels = self.tile.lanes, self.tile.vectors, self._pixels
        pairs = e.at(pairs, e.mul(filter, self.tile.pair_bytes))

        def least(record: Any, count: int, u: int, where: Register) -> list[Register]:
            bytes = e.b.load(e.at(record, bytes_offset(count) + 4 * u), typ=I32, align=4)
            bytes = e.b.bitcast(e.splat(bytes, lanes // 4), vector(I8, lanes))
            taps = e.at(source, where)
            return [e.call("umin", bytes, e.load(e.at(taps, pixel), u8, lanes)) for pixel in pixels]

        def several(count: int, s: Index, values: list[Register]) -> list[Register]:
            (*acc,) = values[: 2 * vectors]
            record = e.at(records, e.mul(s, UNIT))
            # Loaded here, they are known when they are wanted: vector loads that wait for an
            # address just being loaded take more than their share of the ports.
            following = _places(e, e.at(record, record_bytes(count)), count)
            totals: list[Register] = []
            for u, where in enumerate(_split(e, values[2 * vectors :], count, lanes)):
                e.keep_order()
                added = least(record, count, u, where)
                # Regrouped, a record's sums would take more registers than there are.
                totals = [
                    e.keep_value(e.b.add(a, b)) for a, b in zip(totals, added, strict=True)
                ] if totals else added  # fmt: skip
            return [*widened(e, totals, acc), *following]

        def before() -> list[Register]:
            return [
                e.b.load(e.at(pairs, lanes * v), typ=words(lanes), align=2)
                for v in range(2 * vectors)
            ]

        zeros = [constant(words(lanes), 0)] * (2 * vectors)
        acc = e.choose(_has(e, flags, FRESH), lambda: zeros, before)
        ends = (low, fours, EIGHT), (fours, alone, FOUR), (alone, saturated, 1)
        for start, stop, count in ends:
            step = record_bytes(count) // UNIT
            places = _places(e, e.at(records, e.mul(start, UNIT)), count)
            after = e.carry(start, stop, step, [*acc, *places], functools.partial(several, count))
            acc = after[: 2 * vectors]
        first = e.at(records, e.mul(saturated, UNIT))
        acc = self._walk_saturated(e, first, count_saturated, saturated_source, acc)
        return Walked(filter, place, pairs, acc, _has(e, flags, FLUSH), _has(e, flags, FIRST))

    def _walk_saturated(
        self, e: Emitter, first: Any, count: Index, source: Any, acc: list[Register]
    ) -> list[Register]:
        """The sums plus those of `count` places, of which the first is at `first`."""
        lanes = self.tile.lanes
        halves = [2 * pixel + half * lanes for pixel in self._pixels for half in range(2)]

        def pair(n: Index, values: list[Register]) -> list[Register]:
            *sums, where = values
            following = _place(e, e.at(first, e.mul(e.add(n, 1), 2)))
            taps = e.at(source, e.mul(where, lanes))
            added = [e.b.load(e.at(taps, at), typ=words(lanes), align=lanes) for at in halves]
            return [*(e.b.add(a, b) for a, b in zip(sums, added, strict=True)), following]

        return e.carry(0, count, 1, [*acc, _place(e, first)], pair)[:-1]

    @property
    def _pixels(self) -> list[int]:
        """Where the vectors of a register tile stand, from its first on."""
        tile = self.tile
        return [tile.pixel_offset(r, c) for r in range(tile.rows) for c in range(tile.columns)]


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
    return vector(I16, lanes // 2)


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


def _position(filter: int, records: Sequence[Array]) -> tuple[int, ...]:
    """Lists of one length follow each other, as far as a strip's shares allow."""
    return filter // TOGETHER, *map(len, records)


def record_bytes(count: int) -> int:
    return bytes_offset(count) + 4 * count


def bytes_offset(count: int) -> int:
    """Where the bytes of a record of `count` entries begin."""
    return max(2 * count, 4)


def _places(e: Emitter, record: Any, count: int) -> list[Register]:
    """The places of a record, four in a word: loads are what the loop is bound by."""
    if count == 1:
        return [_place(e, record)]
    return [e.b.load(e.at(record, at), typ=I64, align=8) for at in range(0, 2 * count, 8)]


def _place(e: Emitter, at: Any) -> Register:
    return e.b.zext(e.b.load(at, typ=I16, align=2), I64)


def _split(e: Emitter, words: list[Register], count: int, lanes: int) -> list[Register]:
    """Byte offsets of a record's entries."""
    if count == 1:
        return [e.b.mul(words[0], e.index(lanes))]
    places = [e.b.lshr(word, e.index(16 * u)) for word in words for u in range(4)]
    return [e.b.mul(e.b.and_(place, e.index(0xFFFF)), e.index(lanes)) for place in places]


def _by_eights(kept: Array) -> int:
    """How many eights the smallest of a filter's bytes make, given largest first."""
    eights = len(kept) // EIGHT
    while eights:
        largest = int(_dealt(kept[len(kept) - EIGHT * eights :], EIGHT).sum(0).max())
        if largest <= MOST_BYTE:
            break
        # The more is too much, the more leave at once, which spares rounds; never more than half.
        excess = eights * (largest - MOST_BYTE) // (4 * MOST_BYTE)
        eights -= max(1, min(eights // 2, excess))
    return eights


def _dealt(ranked: Array, size: int) -> Array:
    """[size][hands]: numbers dealt to hands of `size`, large ones with small ones; -1 is none."""
    count = ceil_div(len(ranked), size)
    hands = np.concatenate([ranked, np.full(size * count - len(ranked), -1)]).reshape(size, count)
    hands[1::2] = hands[1::2, ::-1].copy()
    return hands


def _by_fours(ranked: Array, column: Array) -> tuple[Array, Array]:
    """Taps by fours, [4][hands], and those that stand alone: while a four's sum exceeds 255, its
    largest byte leaves it."""
    hands = _dealt(ranked, FOUR)
    dealt = np.where(hands >= 0, column[hands].astype(np.int64), 0)
    alone = []
    for level in range(FOUR):
        over = dealt.sum(0) > MOST_BYTE
        alone += [tap for tap in hands[level, over] if tap >= 0]
        hands[level, over], dealt[level, over] = -1, 0
    return hands, np.array(alone, np.int64)


def _records(hands: Array, column: Array, places: Array) -> Array:
    """The bytes of the records of taps [entries][records]; of -1, a byte of zeros."""
    count, number = hands.shape
    made = np.zeros((number, record_bytes(count)), np.uint8)
    taps, start = hands.T, bytes_offset(count)
    made[:, : 2 * count].view(np.uint16)[:] = np.where(taps >= 0, places[taps], 0)
    made[:, start:] = np.repeat(np.where(taps >= 0, column[taps], 0), 4, axis=1)
    return made.reshape(-1)
