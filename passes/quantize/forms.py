"""Forms of a float network's values in integers, with those integers on the calibration samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from addergraph.ir import Array, Value
from addergraph.ir.quantization import Quantization

from .fixed_point import Affine


@dataclass(frozen=True)
class Bytes:
    """A u8 value in [0, top]: value = quantization.scale (q - zero_point)."""

    value: Value
    quantization: Quantization
    top: int
    array: Array

    def mean(self, value: Value, array: Array, area: int = 1) -> Part:
        """Sums of `area` such bytes, an i32 value, as a part that stands for their means."""
        ones = np.ones(int(self.value.type.shape[-1]))
        scale, zero = self.quantization.scale, self.quantization.zero_point
        return Part(
            value, scale / area * ones, -scale * zero * ones, 0 * ones, area * self.top * ones,
            array,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An i32 value q in [least, most]: factor q + constant, channel by channel (f64 [C])."""

    value: Value
    factor: Array
    constant: Array
    least: Array
    most: Array
    array: Array

    def affine(self, scale: float, zero_point: int) -> Affine:
        """How it becomes integers of another scale."""
        constant = self.constant / scale + zero_point
        return Affine(self.factor / scale, constant, self.least, self.most)

    @property
    def real(self) -> Array:
        """The numbers that it stands for on the calibration samples, f64."""
        return self.factor * self.array + self.constant


@dataclass(frozen=True)
class Sums:
    """The sum of its parts."""

    parts: tuple[Part, ...]

    @property
    def real(self) -> Array:
        total = self.parts[0].real
        for part in self.parts[1:]:
            total = total + part.real
        return total

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
    array: Array


Form = Bytes | Sums | Integers
