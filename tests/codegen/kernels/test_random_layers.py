"""Random layers through every kernel that could serve them, between guard pages.

Shapes, attributes, targets, tiles, threads, packing and halos at random. On exact data
every kernel has the bits of the reference. On any data the adders' forward kernels have the same
bits, dense or sparse, whatever else is drawn; gradients the same for any threads and halos.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from addergraph.codegen.kernels import Kernel
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array
from addergraph.ir.types import tensor
from addergraph.ops.contraction.adder2d import Adder2dGradFilter, Adder2dGradInput
from tests.codegen.harness import HERE, run_call, same_bits
from tests.codegen.kernels.cuts import Cut
from tests.codegen.kernels.layers import THREADS, WIDE, Layer, real, whole

QUICK, LONG = 10, 150
TILES = (None, None, (1, 1), (2, 3), (5, 2), (7, 1), (12, 4))  # at most so many pixels and vectors


def random_layer(random: Random) -> Layer:
    """A layer whose windows may lie in the padding, or leave out rows of the image."""
    samples, groups = random.choice((1, 2, 3, 16, 16)), random.choice((1, 1, 1, 2, 3))
    sizes, sides, strides, dilations = [], [], [], []
    padding: list[int] = []
    for _ in range(2):
        size, dilation = random.choice((1, 3, 3, 2, 5)), random.choice((1, 1, 1, 2, 3))
        side, pads = random.randint(1, 11), [random.randint(0, 3), random.randint(0, 3)]
        side += max(0, (size - 1) * dilation + 1 - side - sum(pads))
        sizes.append(size)
        sides.append(side)
        strides.append(random.choice((1, 1, 2, 3)))
        dilations.append(dilation)
        padding += pads
    taken, made = random.choice((1, 2, 3, 5, 8, 9, 17)), random.choice((1, 2, 5, 8, 16, 19, 33))
    return Layer(
        (samples, *sides, taken * groups), (*sizes, taken, made * groups), pair(strides),
        (padding[0], padding[1], padding[2], padding[3]), pair(dilations), groups,
    )  # fmt: skip


def pair(two: list[int]) -> tuple[int, int]:
    return two[0], two[1]


def ways(random: Random, seen: Counter[Any], count: int) -> Iterator[dict[str, Any]]:
    """What may not change a bit; numbers of threads take turns."""
    for _ in range(count):
        tile, target = random.choice(TILES), target_named(random.choice(HERE))
        bounded = target if tile is None else dataclasses.replace(target, max_tile=tile)
        halos = random.choice(({}, {0: WIDE}, {2: WIDE}))
        yield {"target": bounded, "threads": THREADS[seen.total() % len(THREADS)], "halos": halos}


def random_cut(random: Random) -> Cut:
    pixels = (random.randint(1, 3), random.randint(1, 5))
    patches = (random.choice((1, 1, 2, 3, 16)), random.randint(1, 4), random.randint(1, 4))
    return Cut(
        *patches, *pixels, random.randint(1, 3), random.choice((8, 16)), random.randint(1, 6)
    )


def forward(random: Random, seen: Counter[Any], count: int) -> None:
    """Both forms of f32, the min form also by lists of taps."""
    layer, rng = random_layer(random), np.random.default_rng(random.getrandbits(32))
    for form in ("direct", "minimum"):
        op, minimum = layer.op(form), form == "minimum"
        exact, any_data = (
            [draw(rng, layer.x, nonnegative=minimum), draw(rng, layer.f)] for draw in (whole, real)
        )
        (expected,) = op.reference(*exact)
        same = None
        kernels: tuple[type[Kernel], ...] = (DenseKernel, SparseAdderKernel)
        for kernel in kernels[: 1 + minimum]:
            for way in ways(random, seen, count):
                sparse = kernel is SparseAdderKernel
                constant = (1,) if sparse or random.random() < 0.5 else ()
                made = random_cut(random) if sparse and random.random() < 0.7 else kernel
                run = {**way, "constant": constant, "family": made}
                (found,) = run_call(op, exact, **run)
                assert same_bits(found, expected), (layer, form, run)
                (found,) = run_call(op, any_data, **run)
                same = found if same is None else same
                assert same_bits(found, same), (layer, form, run)
                seen[kernel, way["target"].name, way["threads"]] += 1


def of_bytes(random: Random, seen: Counter[Any], count: int) -> None:
    """Distances, and products with filters of i8."""
    layer, rng = random_layer(random), np.random.default_rng(random.getrandbits(32))
    x = rng.integers(0, 256, layer.x).astype(np.uint8)
    forms: tuple[tuple[str, Array], ...] = (
        ("direct", rng.integers(0, 256, layer.f).astype(np.uint8)),
        ("product", rng.integers(-128, 128, layer.f).astype(np.int8)),
    )
    for form, f in random.choice((forms, forms[::-1])):
        op = layer.op(form)
        (expected,) = op.reference(x, f)
        for way in ways(random, seen, count):
            run = {**way, "constant": random.choice(((), (1,))), "family": DenseKernel}
            (found,) = run_call(op, [x, f], **run)
            assert same_bits(found, expected), (layer, form, run)
            seen[form, way["target"].name, way["threads"]] += 1


def backward(random: Random, seen: Counter[Any], count: int) -> None:
    """dX and dF. They multiply, so that on any data their bits are those of one target and tile."""
    layer, rng = random_layer(random), np.random.default_rng(random.getrandbits(32))
    layer = dataclasses.replace(layer, x=(min(layer.x[0], 3), *layer.x[1:]))
    (y,) = layer.op("direct").infer(tensor("f32", layer.x), tensor("f32", layer.f))
    shaped = (layer.stride, layer.padding, layer.dilation, layer.groups)
    for kind in (Adder2dGradInput, Adder2dGradFilter):
        op = kind(*shaped)
        exact, any_data = (
            [draw(rng, shape) for shape in (y.sizes, layer.x, layer.f)] for draw in (whole, real)
        )
        (expected,) = op.reference(*exact)
        for way in ways(random, seen, count):
            (found,) = run_call(op, exact, **way)
            assert same_bits(found, expected), (layer, op, way)
            (found,) = run_call(op, any_data, **way)
            for threads in set(THREADS) - {way["threads"]}:
                (again,) = run_call(op, any_data, **{**way, "threads": threads})
                assert same_bits(again, found), (layer, op, way, threads)
            seen[kind, way["target"].name, way["threads"]] += 1


PATHS = {"forward": forward, "bytes": of_bytes, "backward": backward}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_random_layers(path: str) -> None:
    seen: Counter[Any] = Counter()
    for seed in range(QUICK):
        PATHS[path](Random(f"{path} {seed}"), seen, 1)
    assert {target for _, target, _ in seen} == set(HERE)
    assert {threads for *_, threads in seen} == set(THREADS)
    kernels: dict[str, set[Any]] = {
        "forward": {DenseKernel, SparseAdderKernel},
        "bytes": {"direct", "product"},
    }
    assert {kernel for kernel, *_ in seen} == kernels.get(
        path, {Adder2dGradInput, Adder2dGradFilter}
    )


@pytest.mark.fuzz
@pytest.mark.parametrize("path", PATHS)
def test_many_random_layers(path: str, fuzz_seed: int) -> None:
    for number in range(LONG):
        PATHS[path](Random(f"{path} {fuzz_seed} {number}"), Counter(), 3)
