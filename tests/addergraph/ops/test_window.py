"""Window geometry against plain enumeration of the taps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from addergraph.errors import ShapeError
from addergraph.ir import Halo
from addergraph.ops._window import Window
from tests.addergraph.ops.naive import taps

pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
windows = st.builds(
    Window, st.tuples(st.integers(1, 4), st.integers(1, 4)), pair,
    st.tuples(*[st.integers(0, 4)] * 4), pair,
)  # fmt: skip
sizes = st.tuples(st.integers(0, 7), st.integers(0, 7))


def enumerate_taps(window: Window, size: tuple[int, int]):
    found = taps(size, window.size, window.stride, window.padding, window.dilation)
    assume(found)
    return found


@given(windows, sizes)
def test_output_size_counts_the_windows_that_fit(window: Window, size: tuple[int, int]) -> None:
    found = taps(size, window.size, window.stride, window.padding, window.dilation)
    if not found:
        with pytest.raises(ShapeError, match="output would be empty"):
            window.output_size(*size)
        return
    expected = (max(t.h for t in found) + 1, max(t.w for t in found) + 1)
    assert window.output_size(*size) == expected


@given(windows, sizes)
def test_halo_is_what_the_windows_reach(window: Window, size: tuple[int, int]) -> None:
    found = enumerate_taps(window, size)
    assert window.halo(*size) == Halo(
        max(0, -min(t.row for t in found)),
        max(0, max(t.row for t in found) - size[0] + 1),
        max(0, -min(t.column for t in found)),
        max(0, max(t.column for t in found) - size[1] + 1),
    )


@given(windows, sizes)
def test_gradient_halo_holds_every_output_that_a_gather_reads(
    window: Window, size: tuple[int, int]
) -> None:
    enumerate_taps(window, size)
    out, halo = window.output_size(*size), window.grad_halo(*size)
    for axis, (before, after) in enumerate(((halo.top, halo.bottom), (halo.left, halo.right))):
        for position in range(size[axis]):
            for tap in range(window.size[axis]):
                reach = position + window.padding[2 * axis] - tap * window.dilation[axis]
                if reach % window.stride[axis] == 0:
                    assert -before <= reach // window.stride[axis] < out[axis] + after


@given(windows, sizes)
def test_taps_are_the_elements_that_windows_read(window: Window, size: tuple[int, int]) -> None:
    found = enumerate_taps(window, size)
    x = np.arange(1.0, 1 + size[0] * size[1]).reshape(1, *size, 1)
    views = {(i, j): v for i, j, v in window.taps(window.pad(x), window.output_size(*size))}
    for t in found:
        expected = x[0, t.row, t.column, 0] if t.inside else 0.0
        assert views[t.i, t.j][0, t.h, t.w, 0] == expected
    np.testing.assert_array_equal(window.crop(window.pad(x)), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 1),), r"kernel size=\(0, 1\) must be at least 1"),
        (((1, 1), (0, 1)), r"stride=\(0, 1\) must be at least 1"),
        (((1, 1), (-1, 1)), r"stride=\(-1, 1\) must be at least 1"),
        (((1, 1), (1, 1), (0, -1, 0, 0)), r"padding=.* must be at least 0"),
        (((1, 1), (1, 1), (0, 0)), r"padding=\(0, 0\) must have 4 numbers"),
        (((1, 1), (1, 1), (0, 0, 0, 0), (1, 0)), r"dilation=\(1, 0\) must be at least 1"),
    ],
)
def test_bad_attributes_are_named(arguments, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Window(*arguments)
