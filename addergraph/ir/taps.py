"""The kinds of taps of a constant filter, by which kernels are chosen.

Where x is at least 0, min(x, f) is 0 for f <= 0; where x is at most c, it is x for f >= c. So taps
come in three kinds: those that add nothing, those that add x itself, and those that need a minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

EIGHTHS = 8


@dataclass(frozen=True)
class Taps:
    """Of one filter, in eighths of all its taps.

    above       above zero and not saturated: the minimum with x has to be made
    saturated   at least `top`, where the minimum is x. Of f32 it is 0 where a sum does not tell
                these from the others: either a kernel adds them behind the others, or none does
    top         c, of which bytes need not be told: 255. Kernels do not depend on it, only how
                filters are packed does
    """

    above: int = EIGHTHS
    saturated: int = 0
    top: float = field(default=math.inf, compare=False)

    @property
    def shares(self) -> tuple[float, float]:
        return self.above / EIGHTHS, self.saturated / EIGHTHS
