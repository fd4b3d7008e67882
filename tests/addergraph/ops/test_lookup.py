"""lookup against plain loops, its ranges, scales and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.errors import GraphError, ShapeError
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.quantization import Quantization
from addergraph.ir.types import TensorType, tensor
from addergraph.ops.movement.lookup import Lookup
from tests.addergraph.ops.properties import run

KNOWN = Quantization(0.5, 3)


@pytest.mark.parametrize("shape", [(7, 1), (2, 5, 3), (2, 3, 2, 4), (1, 2, 1, 3, 19), (0, 2)])
def test_each_channel_has_a_table_of_its_own(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, table = (rng.integers(0, 256, s).astype("u1") for s in (shape, (shape[-1], 256)))
    found = run(Lookup(), x, table)
    assert [found[at] for at in np.ndindex(shape)] == [
        table[at[-1], x[at]] for at in np.ndindex(shape)
    ]


def test_one_table_serves_all_channels() -> None:
    rng = np.random.default_rng(0)
    x, table = (rng.integers(0, 256, s).astype("u1") for s in ((2, 5, 3), (1, 256)))
    assert (run(Lookup(), x, table) == table[0][x]).all()


def test_pixels_become_what_brightness_mean_and_deviation_make_of_them() -> None:
    """The use that it has: the nearest byte to (pixel / 255 - mean) / deviation, exactly."""
    known, mean, std = Quantization(0.02, 128), np.array([0.4, 0.5]), np.array([0.2, 0.3])
    normal = (np.arange(256)[:, None] / 255 - mean) / std
    table = known.quantized(normal.T, 0, 255).astype("u1")
    x = np.random.default_rng(1).integers(0, 256, (2, 3, 3, 2)).astype("u1")
    expected = known.quantized((x / 255 - mean) / std, 0, 255)
    assert (run(Lookup(known.scale, known.zero_point), x, table) == expected).all()


def test_ranges_and_what_the_result_stands_for() -> None:
    types = [tensor("u8", (2, 3)), tensor("u8", (3, 256))]
    assert Lookup().interval([ANY, ANY], types) == (Interval(0, 255),)
    assert Lookup().interval([Interval(5, 9), Interval(7, 300)], types) == (Interval(7, 255),)
    pixels = Quantization(1 / 255)
    assert Lookup(0.5, 3).quantization([pixels, None]) == (KNOWN,), "not that of the pixels"
    assert Lookup(0.5, 3).quantization([pixels, KNOWN]) == (KNOWN,)
    assert Lookup().quantization([pixels, KNOWN]) == (KNOWN,)
    assert Lookup().quantization([pixels, None]) == (None,)
    with pytest.raises(ShapeError, match=r"table and result need one scale .* found .*0.25"):
        Lookup(0.25).quantization([None, KNOWN])


def test_a_padded_layer_of_it_pads_with_what_stands_for_zero() -> None:
    """As behind any bytes: padding of a byte that is not 0.0 is refused, a pad writes the byte."""
    x, table, f = tensor("u8", ("N", 4, 4, 2)), tensor("u8", (2, 256)), tensor("u8", (3, 3, 2, 1))
    ag.trace(lambda x, t, f: ops.adder2d(ops.lookup(x, t, scale=0.5), f, padding=1), x, table, f)
    with pytest.raises(GraphError, match=r"byte 0, whose value is not 0.0 here .*zero_point=3"):
        ag.trace(
            lambda x, t, f: ops.adder2d(ops.lookup(x, t, scale=0.5, zero_point=3), f, padding=1),
            x, table, f,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("x", "table", "message"),
    [
        (("f32", (2, 3)), ("u8", (3, 256)), r"x must be u8, found f32\[2,3\]"),
        (("u8", (2, 3)), ("i8", (3, 256)), r"table must be u8, found i8\[3,256\]"),
        (("u8", (3,)), ("u8", (3, 256)), r"an axis or more before its channels, found u8\[3\]"),
        (("u8", ()), ("u8", (1, 256)), r"an axis or more before its channels, found u8\[\]"),
        (
            ("u8", ("N", 3)),
            ("u8", (2, 256)),
            r"must be u8\[3,256\].* u8\[1,256\] .* u8\[2,256\]",
        ),
        (("u8", ("N", 3)), ("u8", (3, 255)), r"must be u8\[3,256\], 256 bytes .* u8\[3,255\]"),
        (("u8", ("N", 3)), ("u8", (768,)), r"must be u8\[3,256\], 256 bytes .* u8\[768\]"),
    ],
)
def test_refusals(
    x: tuple[str, tuple[int | str, ...]], table: tuple[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        Lookup().infer(tensor(*x), tensor(*table))  # type: ignore[arg-type]


def test_scales_and_operands_are_checked() -> None:
    types: list[TensorType] = [tensor("u8", (2, 3)), tensor("u8", (3, 256))]
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ShapeError, match="must be positive and finite"):
            Lookup(scale).infer(*types)
    with pytest.raises(ShapeError, match=r"takes 2 operands \(x, table\), found 1"):
        Lookup().infer(types[0])


def test_function_and_gradient() -> None:
    graph = ag.trace(
        lambda x, t: ops.lookup(x, t, scale=0.5, zero_point=3, name="pixels"),
        tensor("u8", ("N", 2, 3)), tensor("u8", (3, 256)),
    )  # fmt: skip
    assert graph.nodes[0].op == Lookup(0.5, 3) and graph.outputs[0].name == "pixels"
    assert ag.parse(str(graph)) == graph
    with pytest.raises(GraphError, match="not differentiable"):
        Lookup().grad([], [], [])
