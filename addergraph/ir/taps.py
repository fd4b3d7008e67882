"""The kinds of taps of a constant filter, by which dense and sparse kernels are chosen.

Where x is at least 0, min(x, f) is 0 for f <= 0; of bytes it is x for f = 255. So taps come in
three kinds: those that add nothing, those that add x itself, and those that need a minimum.
"""

from __future__ import annotations

from typing import NamedTuple

EIGHTHS = 8


class Taps(NamedTuple):
    """Of one filter, in eighths of all its taps.

    above   above zero, of bytes below 255: the minimum with x has to be made
    saturated    of bytes: 255, where the minimum is x
    """

    above: int = EIGHTHS
    saturated: int = 0

    @property
    def shares(self) -> tuple[float, float]:
        return self.above / EIGHTHS, self.saturated / EIGHTHS
