"""Lanes over patches: which output pixel stands in which lane of a sparse kernel's vectors.

The image of outputs is cut into `bands` x `chunks` patches of like size, and a vector holds the
pixel (r, c) of each patch of several samples:

    lane  (sample * bands + band) * chunks + chunk     pixel  (top(band) + r, left(chunk) + c)

The input is cut alike, its patches overlapping by what the windows reach. So what the tap (i, j) of
pixel (r, c) reads is one aligned vector, number (r * sh + i * dh, c * sw + j * dw), whatever the
stride and the dilation are; nothing is shifted, and no lane is idle where the patches fit.

Where they do not, the last ones are moved back until they end with the image, and the last samples
of a batch likewise. So nothing beyond the image is read; a pixel that two patches have is computed
twice, and written by the first of them alone (a second write might follow another's reading of it:
a residual may share the result's memory; a kernel that has read a strip's residual before it writes
may write the same twice). Lanes beyond the last patch repeat it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ...emit.builder import LINE
from ..forward.geometry import Geometry
from ..schedule import ceil_div

SETS = 64  # of a level 1 cache


@dataclass(frozen=True)
class Patches:
    """How the pixels of `samples` samples are dealt to `lanes` lanes."""

    g: Geometry
    lanes: int
    samples: int
    bands: int
    chunks: int

    @property
    def used(self) -> int:
        """Lanes that have a patch of their own."""
        return self.samples * self.bands * self.chunks

    @property
    def fit(self) -> bool:
        """Whether each pixel has one lane, and each lane one of its own."""
        g, samples = self.g, self.sample_groups * self.samples
        made = (samples, self.bands * self.rows, self.chunks * self.columns)
        return self.used == self.lanes and made == (g.samples, g.height, g.width)

    @property
    def rows(self) -> int:
        """Output rows of a patch."""
        return ceil_div(self.g.height, self.bands)

    @property
    def columns(self) -> int:
        return ceil_div(self.g.width, self.chunks)

    @property
    def sample_groups(self) -> int:
        return ceil_div(self.g.samples, self.samples)

    @property
    def vectors(self) -> int:
        """Vectors of one channel of all outputs."""
        return self.sample_groups * self.rows * self.columns

    @property
    def columns_read(self) -> int:
        """Input columns of a patch."""
        return (self.columns - 1) * self.g.stride[1] + self.g.reach[1] + 1

    def rows_read(self, rows: int) -> int:
        """Input rows that `rows` output rows of a patch read."""
        return (rows - 1) * self.g.stride[0] + self.g.reach[0] + 1

    def top(self, band: int) -> int:
        """The image row of a band's first row."""
        return min(band * self.rows, self.g.height - self.rows)

    def left(self, chunk: int) -> int:
        return min(chunk * self.columns, self.g.width - self.columns)

    def place(self, lane: int) -> tuple[int, int, int]:
        """Sample, band and chunk of a lane."""
        image, chunk = divmod(min(lane, self.used - 1), self.chunks)
        sample, band = divmod(image, self.bands)
        return sample, band, chunk

    def input_offsets(self) -> list[int]:
        """Bytes from the first lane's pixel to that of each lane, in the input."""
        (sh, sw), (n, h, w) = self.g.stride, self.g.x
        return self._offsets((n, sh * h, sw * w))

    def output_offsets(self, strides: tuple[int, int, int]) -> list[int]:
        """The same in an image of outputs, whose samples, rows and columns are `strides` apart."""
        return self._offsets(strides)

    def crowded(self, offsets: list[int]) -> int:
        """The most lanes whose pixels, at these offsets, meet in one set of a cache of 4096-byte
        ways: more than it has ways, and each access evicts what another one needs."""
        sets = Counter(offset // LINE % SETS for offset in offsets[: self.used])
        return max(sets.values())

    def _offsets(self, strides: tuple[int, int, int]) -> list[int]:
        n, h, w = strides
        places = [self.place(lane) for lane in range(self.lanes)]
        return [s * n + self.top(band) * h + self.left(chunk) * w for s, band, chunk in places]


def arrangements(g: Geometry, lanes: int) -> Iterator[Patches]:
    """Every way to deal a layer's pixels to the lanes."""
    for samples in range(1, min(g.samples, lanes) + 1):
        for bands in range(1, min(g.height, lanes // samples) + 1):
            for chunks in range(1, min(g.width, lanes // (samples * bands)) + 1):
                yield Patches(g, lanes, samples, bands, chunks)
