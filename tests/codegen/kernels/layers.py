"""Layers, numbers and ways to run a kernel for the tests of contractions and their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from addergraph.ir import Array, Halo, Op
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.conv2d import Conv2d
from tests.codegen.harness import HERE

U = 2.0**-24
THREADS = (1, 2, 3, 7)
WIDE = Halo(3, 2, 1, 4)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """Shapes and attributes of one windowed layer."""

    x: Shape
    f: Shape
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def op(self, form: str) -> Op:
        shaped = (self.stride, self.padding, self.dilation, self.groups)
        return Conv2d(*shaped) if form == "product" else Adder2d(*shaped, form == "minimum")


LAYERS = {
    "one": Layer((1, 1, 1, 1), (1, 1, 1, 1)),
    "same": Layer((2, 5, 5, 3), (3, 3, 3, 5), padding=(1, 1, 1, 1)),
    "tails": Layer((1, 9, 7, 17), (3, 3, 17, 33), padding=(1, 2, 0, 1)),
    "pointwise": Layer((3, 4, 5, 18), (1, 1, 18, 40)),
    "wide": Layer((1, 2, 61, 1), (1, 3, 1, 64)),
    "strided": Layer((2, 8, 9, 4), (2, 2, 4, 16), stride=(2, 3)),
    "stride_beyond_kernel": Layer((2, 7, 8, 2), (2, 1, 2, 7), stride=(3, 5)),
    "dilated": Layer((1, 8, 9, 4), (3, 2, 4, 8), padding=(2, 0, 0, 3), dilation=(2, 3)),
    # dX takes every tap of some rows and none of others where stride and dilation share a factor.
    "strided_dilated": Layer(
        (2, 9, 11, 3), (3, 2, 3, 4), stride=(2, 4), padding=(1, 2, 3, 0), dilation=(2, 6)
    ),
    # Wide enough for vectors of pixels.
    "wide_rows": Layer((1, 4, 21, 9), (3, 3, 9, 5), padding=(1, 1, 1, 1)),
    "wide_strided": Layer((1, 5, 41, 3), (3, 2, 3, 7), stride=(2, 2), padding=(1, 0, 1, 1)),
    "grouped": Layer((1, 6, 7, 6), (3, 3, 2, 9), padding=(1, 1, 1, 1), groups=3),
    "grouped_blocks": Layer((2, 3, 3, 4), (2, 2, 2, 74), groups=2),
    "depthwise": Layer((1, 5, 4, 5), (3, 3, 1, 5), padding=(1, 1, 1, 1), groups=5),
    "kernel_beyond_input": Layer((1, 2, 1, 3), (5, 4, 3, 4), padding=(3, 1, 2, 3)),
    "deep": Layer((1, 4, 3, 51), (3, 3, 51, 6), padding=(0, 1, 1, 0)),
    "no_samples": Layer((0, 4, 4, 3), (3, 3, 3, 5)),
    "no_channels": Layer((2, 4, 4, 0), (3, 3, 0, 5), padding=(1, 1, 1, 1)),
    "no_results": Layer((2, 4, 4, 3), (3, 3, 3, 0)),
}
MATRICES = {
    "one": ((1, 1), (1, 1)),
    "tails": ((7, 19), (19, 37)),
    "row": ((1, 33), (33, 17)),
    "column": ((23, 5), (5, 1)),
    "no_rows": ((0, 4), (4, 3)),
    "no_terms": ((3, 0), (0, 5)),
}
# Around every power of two, both ends, and any others: 256 numbers as bytes are.
_NEAR = {sign * 2**k + off for k in range(31) for sign in (1, -1) for off in (-1, 0, 1)}
_NEAR |= {-(2**31), 1 - 2**31, 2**31 - 2, 2**31 - 1}
_OTHERS = np.random.default_rng(0).integers(-(2**31), 2**31, 256 - len(_NEAR))
INTEGERS = np.array([*sorted(_NEAR), *_OTHERS], np.int32)
FORMS = ("direct", "minimum", "product")


def whole(rng: np.random.Generator, shape: Shape, *, nonnegative: bool = False) -> Array:
    """Small integers times 1/4: sums of a few thousand of them do not round."""
    return rng.integers(0 if nonnegative else -9, 10, shape).astype(np.float32) / 4


def real(rng: np.random.Generator, shape: Shape, *, nonnegative: bool = False) -> Array:
    """Normal numbers of very different magnitudes."""
    drawn = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 3, shape)
    return (np.abs(drawn) if nonnegative else drawn).astype(np.float32)


def ways(start: int, image: bool = True) -> list[dict[str, Any]]:
    """Every target once, and what may not change a bit taking turns: threads, packing, halos."""
    halos = ({}, {0: WIDE}, {2: Halo(1, 0, 0, 2)}) if image else ({},)
    return [
        {
            "target": target,
            "threads": THREADS[(k + start) % len(THREADS)],
            "constant": (1,) if (k + start) % 2 else (),
            "halos": halos[(k + start // 2) % len(halos)],
        }
        for k, target in enumerate(HERE)
    ]
