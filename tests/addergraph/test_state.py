"""state: parameters in one aligned block, initial weights."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import DataError, ShapeError
from addergraph.ir import Array, Builder, Graph, Init, Parameter
from addergraph.ir.state import State, bind_weights, initial_weights, parameter_offsets
from addergraph.ir.types import tensor

PARAMETERS = (
    Parameter("f", tensor("f32", (3, 3, 2)), Init("normal", (0.0, 1.0))),
    Parameter("step", tensor("i32", ())),
    Parameter("empty", tensor("f32", (0, 4))),
    Parameter("mask", tensor("bool", (65,))),
    Parameter("b", tensor("f32", (16,)), Init("uniform", (-2.0, -1.0))),
)


def graph(*parameters: Parameter) -> Graph:
    builder = Builder("g")
    for p in parameters:
        builder.parameter(p)
    return builder.finish([])


def weights() -> dict[str, Array]:
    drawn = initial_weights(graph(*PARAMETERS), 3)
    return drawn | {"step": np.array(7, "i4"), "mask": np.arange(65) % 3 == 0}


def test_offsets_are_aligned_and_in_order() -> None:
    offsets, size = parameter_offsets(PARAMETERS)
    assert offsets == {"f": 0, "step": 128, "empty": 192, "mask": 192, "b": 320}
    assert size == 384
    assert parameter_offsets(()) == ({}, 0)


def test_views_share_the_aligned_block() -> None:
    state = State(PARAMETERS)
    offsets, size = parameter_offsets(PARAMETERS)
    assert state.blob.shape == (size,)
    assert state.blob.flags.writeable
    assert state.blob.ctypes.data % 64 == 0
    assert not state.blob.any()
    for p in PARAMETERS:
        view = state.views[p.name]
        assert (view.shape, view.dtype) == (p.type.sizes, p.type.dtype.numpy)
        if view.size:
            assert view.ctypes.data == state.blob.ctypes.data + offsets[p.name]
    state.views["b"][...] = 1.0
    assert state.blob[320:384].view("f4").tolist() == [1.0] * 16


def test_loaded_arrays_may_be_views_of_the_state() -> None:
    state = State([Parameter(name, tensor("f32", (2,))) for name in "ab"])
    state.load({"a": np.array([1, 2], "f4"), "b": np.array([3, 4], "f4")})
    state.load({"a": state.views["b"], "b": state.views["a"]})
    assert (state.views["a"].tolist(), state.views["b"].tolist()) == ([3, 4], [1, 2])


def test_load_copies_every_parameter() -> None:
    state, given = State(PARAMETERS), weights()
    state.load(given)
    for name, array in given.items():
        np.testing.assert_array_equal(state.views[name], array)
        assert not np.shares_memory(state.views[name], array)
    assert bytes(state.blob[128:132]) == (7).to_bytes(4, "little")


def test_copies_are_independent() -> None:
    state = State(PARAMETERS)
    state.load(weights())
    twin = state.copy()
    np.testing.assert_array_equal(twin.blob, state.blob)
    twin.views["b"][...] = 0
    np.testing.assert_array_equal(state.views["b"], weights()["b"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bb": np.zeros(1)}, DataError, r'no parameter named "bb" \(did you mean "b"\?\)'),
        ({"b": np.zeros(16)}, DataError, r"parameter %b: expected f32\[16\], found float64"),
        ({"b": np.zeros(15, "f4")}, ShapeError, r"%b: expected f32\[16\], found the shape \[15\]"),
        ({"b": None}, DataError, "1 of 5 parameters have no weights: b"),
    ],
)
def test_a_refused_load_changes_nothing(
    change: dict[str, Array | None], error: type[Exception], message: str
) -> None:
    state = State(PARAMETERS)
    given = {name: a for name, a in (weights() | change).items() if a is not None}
    with pytest.raises(error, match=message):
        state.load(given)
    assert not state.blob.any()


def test_many_missing_weights_are_counted() -> None:
    many = [Parameter(f"p{i}", tensor("f32", ())) for i in range(8)]
    with pytest.raises(DataError, match="8 of 8 parameters .*: p0, p1, p2, p3, p4 and 3 more"):
        bind_weights("here", many, {})


class TestInitialWeights:
    def test_follow_the_initializer_and_the_type(self) -> None:
        drawn = initial_weights(
            graph(*PARAMETERS, Parameter("g", PARAMETERS[4].type, Init("ones")))
        )
        assert {name: (a.shape, a.dtype) for name, a in drawn.items() if name != "g"} == {
            p.name: (p.type.sizes, p.type.dtype.numpy) for p in PARAMETERS
        }
        assert drawn["f"].std() > 0.5
        assert drawn["b"].min() >= -2
        assert drawn["b"].max() <= -1
        assert (drawn["g"] == 1).all()
        assert not drawn["mask"].any()

    def test_depend_on_name_and_seed_alone(self) -> None:
        forward = initial_weights(graph(*PARAMETERS), 1)
        backward = initial_weights(graph(*PARAMETERS[::-1]), 1)
        other = initial_weights(graph(*PARAMETERS), 2)
        for name in ("f", "b"):
            np.testing.assert_array_equal(forward[name], backward[name])
            assert (forward[name] != other[name]).any()

    def test_differ_between_names(self) -> None:
        p, q = (Parameter(n, tensor("f32", (50,)), Init("normal", (0.0, 1.0))) for n in "pq")
        drawn = initial_weights(graph(p, q))
        assert (drawn["p"] != drawn["q"]).all()

    def test_are_the_same_in_every_version(self) -> None:
        """Written down once: a changed seed rule would change every user's results."""
        drawn = initial_weights(graph(PARAMETERS[4]), 0)["b"]
        np.testing.assert_array_equal(drawn[:2], np.array([-1.7980753, -1.7013142], "f4"))

    def test_refuse_a_negative_seed(self) -> None:
        with pytest.raises(DataError, match="seed -1 is negative"):
            initial_weights(graph(), -1)
