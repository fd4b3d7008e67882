"""Forms of a float network's values in integers, with those integers on the calibration samples.

`chunk(k)` gives the integers of a form on the k-th chunk of samples. Bytes that were requantized
are kept as long as the form is. Sums are computed whenever somebody asks; those that a batch norm
reads are asked for twice, for moments and for bytes, and kept between (`IntegerGraph.kept`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from addergraph.ir import Array, Value
from addergraph.ir.quantization import Quantization

from .calibrate import Engine
from .fixed_point import Affine

Chunk = Callable[[int], Array]


@dataclass(frozen=True)
class Bytes:
    """A u8 value in [0, top]: value = quantization.scale (q - zero_point)."""

    value: Value
    quantization: Quantization
    top: int
    chunk: Chunk

    def mean(self, value: Value, chunk: Chunk, area: int = 1) -> Part:
        """Sums of `area` such bytes, an i32 value, as a part that stands for their means."""
        ones = np.ones(int(self.value.type.shape[-1]))
        scale, zero = self.quantization.scale, self.quantization.zero_point
        return Part(
            value, scale / area * ones, -scale * zero * ones, 0 * ones, area * self.top * ones,
            chunk,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An i32 value q in [least, most]: factor q + constant, channel by channel (f64 [C])."""

    value: Value
    factor: Array
    constant: Array
    least: Array
    most: Array
    chunk: Chunk

    def affine(self, scale: float, zero_point: int) -> Affine:
        """How it becomes integers of another scale."""
        constant = self.constant / scale + zero_point
        return Affine(self.factor / scale, constant, self.least, self.most)

    def real(self, k: int) -> Array:
        """The numbers that it stands for on a chunk of samples, f64."""
        return self.factor * self.chunk(k) + self.constant


@dataclass(frozen=True)
class Sums:
    """The sum of its parts."""

    parts: tuple[Part, ...]

    def moments(self, k: int, engine: Engine) -> tuple[int, Array, Array]:
        """Of every channel on a chunk of samples, as `Moments.add` takes them."""
        if len(self.parts) == 1:
            (part,) = self.parts
            found = part.chunk(k)
            mean, variance = engine.moments(found)
            mean, variance = part.factor * mean + part.constant, part.factor**2 * variance
        else:
            found = np.sum([part.real(k) for part in self.parts], axis=0)
            mean, variance = engine.moments(found)
        return found.size // found.shape[-1], mean, variance

    def scaled(self, factor: Array, constant: Array) -> Sums:
        """factor (the sums) + constant, channel by channel; no integer changes."""
        parts = [
            replace(p, factor=p.factor * factor, constant=p.constant * factor) for p in self.parts
        ]
        parts[0] = replace(parts[0], constant=parts[0].constant + constant)
        return Sums(tuple(parts))


@dataclass(frozen=True)
class Integers:
    """An i32 value of one scale, as outputs are; no layer reads it."""

    value: Value
    quantization: Quantization
    chunk: Chunk


Form = Bytes | Sums | Integers
