"""Batches for a training loop, made one step ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .. import border
from ..errors import DataError
from ..ir import Array
from ..settings import integer
from .augment import Augment, Normalize, empty_f32

Batch = tuple[Array, Array]
Part = Callable[[int], slice]


class Loader:
    """Shuffled, augmented and normalised f32 batches of the samples `x` [N,...].

    Every batch is a pure function of (seed, epoch, step), so neither the depth of prefetching nor
    where an epoch is taken up again changes a bit:

    * the order of an epoch is `np.random.default_rng([seed, epoch]).permutation(N)`, or 0..N-1
      without `shuffle`; step s takes entries `[s batch_size, (s+1) batch_size)` of it;
    * the augmentation of a step draws from `np.random.default_rng([seed, epoch, step + 1])`.

    `x` is u8 or f32. Without `normalize`, bytes become f32 of the same values, 0..255. One
    background thread keeps up to `prefetch` batches ready; with `prefetch=0` the consumer makes
    them itself. DataError for settings out of range, no samples, or `x` of another dtype.
    """

    def __init__(
        self,
        x: Array,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        normalize: Normalize | None = None,
        prefetch: int = 2,
    ) -> None:
        x = border.array("x", x)
        if x.dtype not in (np.uint8, np.float32):
            raise DataError(f"samples have dtype {x.dtype}; expected uint8 or float32")
        if x.ndim < 1 or not len(x):
            raise DataError(f"samples have shape {x.shape}; expected at least one")
        self.x = x
        self.batch_size = integer("batch_size", batch_size, 1)
        self.seed = integer("seed", seed, 0)
        self.shuffle = border.flag("shuffle", shuffle)
        self.augment = border.plain(Augment | None, "augment", augment)
        self.normalize = border.plain(Normalize | None, "normalize", normalize)
        self.prefetch = integer("prefetch", prefetch, 0)

    def __len__(self) -> int:
        """Steps an epoch; the last batch may be short."""
        return -(-len(self.x) // self.batch_size)

    def order(self, number: int) -> Array:
        """Sample numbers i64[N] in the order in which epoch `number` takes them."""
        number = integer("epoch", number, 0)
        if not self.shuffle:
            return np.arange(len(self.x), dtype=np.int64)
        return np.random.default_rng([self.seed, number]).permutation(len(self.x))

    def epoch(
        self, number: int, first_step: int = 0, part: Part | None = None
    ) -> Generator[Batch, None, None]:
        """The batches `(x f32[B,...], sample numbers i64[B])` of an epoch from `first_step` on.

        `part` says which rows of a batch of so many samples are wanted, all unless it is given;
        they are what they would be in the whole batch, and no others are made. Each `x` is a new
        array, C-contiguous and 64-byte aligned. An error while a batch is made is raised where that
        batch is due. Closing the iterator ends the background thread.
        """
        first_step = integer("first_step", first_step, 0)
        if first_step > len(self):
            raise DataError(f"first_step={first_step}: an epoch has {len(self)} steps")
        return self._batches(self.order(number), number, first_step, part or slice)

    def _batches(
        self, order: Array, number: int, first: int, part: Part
    ) -> Generator[Batch, None, None]:
        if not self.prefetch:
            for step in range(first, len(self)):
                yield self._batch(order, number, step, part)
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix="addergraph-loader")
        ready: deque[Future[Batch]] = deque()
        try:
            for step in range(first, len(self)):
                ready.append(thread.submit(self._batch, order, number, step, part))
                if len(ready) > self.prefetch:
                    yield ready.popleft().result()
            while ready:
                yield ready.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)

    def _batch(self, order: Array, number: int, step: int, part: Part) -> Batch:
        index = order[step * self.batch_size : (step + 1) * self.batch_size]
        whole, rows = len(index), part(len(index))
        index = index[rows]
        x = self.x[index]
        if self.augment is not None:
            # step + 1: NumPy pads seeds with zeros, and [seed, epoch] is the order's own.
            random = np.random.default_rng([self.seed, number, step + 1])
            of = () if len(index) == whole else (whole, rows.start)
            x = self.augment.apply(x, random, *of)
        if self.normalize is not None:
            return self.normalize.apply(x), index
        y = empty_f32(x.shape)
        y[...] = x
        return y, index
