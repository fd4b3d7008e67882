"""How values are distributed: histograms, and which of two densities explains them better.

Both densities have a location m and a scale, set to their maximum-likelihood values:

    normal   exp(-(x - m)^2 / (2 s^2)) / (s sqrt(2 pi))    m the mean, s the standard deviation
    Laplace  exp(-|x - m| / b) / (2 b)                     m the median, b the mean of |x - m|

With equally many parameters, the larger log-likelihood is the better fit. At these values the mean
log-likelihood of a value is -log(s sqrt(2 pi e)), and -log(2 b e). An adder layer that minimises
sums of absolute differences has Laplace-like filters where a convolution's are closer to normal:
Chen et al., CVPR 2020 (arXiv:1912.13200), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..border import array
from ..errors import DataError
from ..ir import Array

NORMAL, LAPLACE = "normal", "Laplace"
BINS = 60  # at most; about 2 sqrt(n) for n values, so that bins are not all noise
SHOWN = (
    0.001,
    0.999,
)  # quantiles between which histograms are drawn: a few far values set no scale


@dataclass(frozen=True)
class Fit:
    """A density with its parameters, and the mean log-likelihood of a value in nats."""

    density: str
    location: float
    scale: float
    log_likelihood: float

    def at(self, x: Array) -> Array:
        """The density at `x`, in 1 / (unit of x)."""
        z = (np.asarray(x, np.float64) - self.location) / self.scale
        if self.density == NORMAL:
            return np.asarray(np.exp(-z * z / 2) / (self.scale * math.sqrt(2 * math.pi)))
        return np.asarray(np.exp(-np.abs(z)) / (2 * self.scale))


@dataclass(frozen=True, eq=False)
class Shape:
    """The distribution of the values of one array.

    density    f64[bins]: share of the values in each bin, over the bin's width
    edges      f64[bins + 1], between the quantiles SHOWN of the values
    fits       normal and Laplace; none where the values are all the same
    """

    count: int
    mean: float
    std: float
    zeros: float  # share of values that are 0
    density: Array
    edges: Array
    fits: tuple[Fit, ...]

    @property
    def better(self) -> Fit | None:
        """The fit with the larger likelihood; None for constant values."""
        return max(self.fits, key=lambda fit: fit.log_likelihood, default=None)

    @property
    def advantage(self) -> float:
        """Log-likelihood of Laplace less that of normal, in nats a value: above 0, Laplace fits
        better. 0 for constant values."""
        if not self.fits:
            return 0.0
        normal, laplace = self.fits
        return laplace.log_likelihood - normal.log_likelihood


def shape_of(values: Array, what: str = "values") -> Shape:
    """The distribution of `values`, of any shape. DataError where there are none, or NaN or Inf."""
    x = array(what, values).astype(np.float64).reshape(-1)
    if not x.size:
        raise DataError(f"{what}: there are no values")
    if not np.isfinite(x).all():
        raise DataError(f"{what}: {np.count_nonzero(~np.isfinite(x))} of {x.size} are NaN or Inf")
    low, high = np.quantile(x, SHOWN)
    if low == high:
        low, high = x.min(), x.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = min(BINS, max(10, round(2 * math.sqrt(x.size))))
    counts, edges = np.histogram(x, bins, (float(low), float(high)))
    density = counts / (x.size * np.diff(edges))
    zeros = float(np.mean(x == 0))
    return Shape(x.size, float(x.mean()), float(x.std()), zeros, density, edges, _fits(x))


def _fits(x: Array) -> tuple[Fit, ...]:
    median = float(np.median(x))
    std, spread = float(x.std()), float(np.abs(x - median).mean())
    if std == 0 or spread == 0:
        return ()
    normal = Fit(NORMAL, float(x.mean()), std, -math.log(std * math.sqrt(2 * math.pi * math.e)))
    return normal, Fit(LAPLACE, median, spread, -math.log(2 * spread * math.e))
