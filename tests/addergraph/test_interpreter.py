"""interpreter: binding of inputs, values, updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from addergraph.errors import DataError, GraphError, ShapeError
from addergraph.ir import POINTWISE, Array, Builder, Graph, Op, op_named
from addergraph.ir.interpreter import bind_inputs, evaluate, interpret, run_reference
from addergraph.ir.text import parse
from addergraph.ir.types import TensorType, tensor

ADDER = parse("""graph net(%x: f32[N,1,1,2])
  params(%f: f32[1,1,2,1] init=zeros, %m: f32[1] init=ones) {
  %d = adder2d(%x, %f) : f32[N,1,1,1]
  %y = neg(%d) : f32[N,1,1,1]
  %s = reduce_sum(%y) axes=(0,1,2) : f32[1]
  update %m <- %s
  return %y, %s
}""")
WEIGHTS = {"f": np.array([1, -2], "f4").reshape(1, 1, 2, 1), "m": np.array([5], "f4")}


def identity(*types: TensorType) -> Graph:
    builder = Builder("identity")
    values = [builder.input(f"x{i}", t) for i, t in enumerate(types)]
    return builder.finish(values)


def test_values_are_those_of_the_equation() -> None:
    x = np.array([[1, -2], [0, 0]], "f4").reshape(2, 1, 1, 2)
    (y, s), updates = run_reference(ADDER, [x], WEIGHTS)
    np.testing.assert_array_equal(y.ravel(), [0, 3])
    np.testing.assert_array_equal(s, [3])
    assert list(updates) == ["m"]
    np.testing.assert_array_equal(updates["m"], [3])
    assert WEIGHTS["m"] == 5


def test_interpret_gives_an_array_for_one_output_and_a_tuple_for_several() -> None:
    x = np.zeros((3, 1, 1, 2))
    both = interpret(ADDER, x, weights=WEIGHTS)
    assert isinstance(both, tuple)
    assert [a.shape for a in both] == [(3, 1, 1, 1), (1,)]
    single = interpret(identity(tensor("f32", ("N",))), [1.0])
    assert isinstance(single, np.ndarray)


def test_evaluate_has_every_value_in_order() -> None:
    known = evaluate(ADDER, [np.ones((1, 1, 1, 2))], WEIGHTS)
    assert list(known) == ["x", "f", "m", "d", "y", "s"]
    assert known["d"].item() == -3


def test_an_empty_batch_gives_empty_results() -> None:
    (y, s), _ = run_reference(ADDER, [np.zeros((0, 1, 1, 2))], WEIGHTS)
    assert y.shape == (0, 1, 1, 1)
    assert s == 0


def test_results_share_no_memory_with_what_came_in() -> None:
    x = np.ones((2, 3), "f4")
    y = interpret(identity(tensor("f32", ("N", 3))), x)
    assert not np.shares_memory(x, y)
    swap = parse("graph g() params(%a: f32[1], %b: f32[1]) { update %a <- %b return %a }")
    weights = {"a": np.zeros(1, "f4"), "b": np.ones(1, "f4")}
    _, updates = run_reference(swap, [], weights)
    assert not np.shares_memory(updates["a"], weights["b"])


def test_special_values_pass_through_without_warnings() -> None:
    x = np.array([np.inf, -np.inf]).reshape(1, 1, 1, 2)
    with np.errstate(all="raise"):
        y, _ = interpret(ADDER, x, weights={**WEIGHTS, "f": np.full((1, 1, 2, 1), np.inf, "f4")})
    assert np.isnan(y).all()


class TestBindInputs:
    @pytest.mark.parametrize(
        ("dtype", "given"),
        [
            ("f32", [1, 2]),
            ("f32", [1.5, 2]),
            ("f32", np.array([1, 2], "f8")),
            ("f32", np.array([1, 2], ">f4")),
            ("f32", np.array([1, 2], "u1")),
            ("i32", [1, -2]),
            ("i32", np.array([1, 2], "i8")),
            ("u8", [0, 255]),
            ("i8", [-128, 127]),
            ("bool", [True, False]),
            ("f32", []),
            ("i32", []),
        ],
    )
    def test_converts_numbers_of_the_right_kind(self, dtype: str, given: Any) -> None:
        type = tensor(dtype, ("N",))
        batch, (array,) = bind_inputs(identity(type), [given])
        assert batch == len(given)
        assert array.dtype == type.dtype.numpy
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, np.asarray(given))

    @pytest.mark.parametrize(
        ("dtype", "given"),
        [
            ("i32", [1.0]),
            ("i32", [True]),
            ("f32", [True]),
            ("f32", ["1"]),
            ("f32", [1j]),
            ("f32", [None]),
            ("bool", [1]),
            ("u8", [256]),
            ("u8", [-1]),
            ("i32", [2**31]),
            ("i32", np.array([2**63], "u8")),
            ("f32", [[1], [1, 2]]),
        ],
    )
    def test_refuses_numbers_of_another_kind_or_range(self, dtype: str, given: Any) -> None:
        with pytest.raises(DataError, match=r'graph "identity", input %x0: .*'):
            bind_inputs(identity(tensor(dtype, ("N",))), [given])

    def test_makes_arrays_contiguous(self) -> None:
        given = np.arange(24, dtype="f4").reshape(2, 3, 4)
        strided = [
            given.transpose(2, 1, 0),
            given[:, ::-1, ::2],
            np.broadcast_to(given[:1], (2, 3, 4)),
        ]
        for array in strided:
            _, (bound,) = bind_inputs(identity(tensor("f32", array.shape)), [array])
            assert bound.flags.c_contiguous
            np.testing.assert_array_equal(bound, array)

    def test_aligns_arrays_to_their_elements(self) -> None:
        given = np.frombuffer(b"." + np.arange(5, dtype="f4").tobytes(), "f4", offset=1)
        assert not given.flags.aligned
        _, (bound,) = bind_inputs(identity(tensor("f32", (5,))), [given])
        assert bound.flags.aligned
        np.testing.assert_array_equal(bound, given)

    def test_does_not_copy_what_fits(self) -> None:
        given = np.ones((2, 3), "f4")
        _, (bound,) = bind_inputs(identity(tensor("f32", ("N", 3))), [given])
        assert np.shares_memory(bound, given)

    def test_keeps_scalars_scalar(self) -> None:
        batch, (bound,) = bind_inputs(identity(tensor("f32", ())), [2])
        assert batch is None
        assert bound.shape == ()

    def test_rounds_to_f32(self) -> None:
        _, (bound,) = bind_inputs(identity(tensor("f32", (2,))), [[0.1, 1e300]])
        np.testing.assert_array_equal(bound, np.array([0.1, np.inf], "f4"))

    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1), ()])
    def test_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        found = ",".join(map(str, shape))
        with pytest.raises(ShapeError, match=rf"input %x0: expected f32\[N,3\], .*\[{found}\]"):
            bind_inputs(identity(tensor("f32", ("N", 3))), [np.zeros(shape)])

    def test_refuses_another_number_of_inputs(self) -> None:
        with pytest.raises(DataError, match=r"takes 1 inputs \(%x0: f32\[3\]\), found 2"):
            bind_inputs(identity(tensor("f32", (3,))), [[0] * 3, [0] * 3])

    def test_refuses_batches_that_differ(self) -> None:
        graph = identity(tensor("f32", ("N",)), tensor("f32", (2,)), tensor("f32", ("N", 1)))
        with pytest.raises(ShapeError, match=r"%x2: expected the batch 2 that %x0 has, found 3"):
            bind_inputs(graph, [[0, 0], [0, 0], np.zeros((3, 1))])


class TestWeights:
    def test_missing_ones_are_named(self) -> None:
        with pytest.raises(DataError, match=r'graph "net": 2 of 2 parameters have no .*: f, m'):
            interpret(ADDER, np.zeros((1, 1, 1, 2)))

    def test_wrong_shapes_are_named(self) -> None:
        wrong = {**WEIGHTS, "m": np.zeros(2, "f4")}
        with pytest.raises(ShapeError, match=r"parameter %m: expected f32\[1\], .*\[2\]"):
            interpret(ADDER, np.zeros((1, 1, 1, 2)), weights=wrong)

    def test_wrong_dtypes_are_named(self) -> None:
        wrong = {**WEIGHTS, "m": np.zeros(1)}
        with pytest.raises(DataError, match=r"parameter %m: expected f32\[1\], found float64"):
            interpret(ADDER, np.zeros((1, 1, 1, 2)), weights=wrong)

    def test_others_are_ignored(self) -> None:
        interpret(ADDER, np.zeros((1, 1, 1, 2)), weights={**WEIGHTS, "z": np.zeros(1)})


@dataclass(frozen=True)
class _Liar(Op):
    """Says one type and gives another. It has no name, so it is not registered."""

    kind: ClassVar[str] = POINTWISE
    result: tuple[Array, ...] = ()

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((np.zeros(2, "f8"),), r"gives float64\[2\] for %y, its shape rule f32\[2\]"),
        ((np.zeros((2, 1), "f4"),), r"gives float32\[2, 1\] for %y"),
        ((np.zeros(2, "f4"), np.zeros(2, "f4")), "gives 2 results, its shape rule 1"),
    ],
)
def test_a_reference_that_disagrees_with_its_shape_rule_is_named(
    result: tuple[Array, ...], message: str
) -> None:
    builder = Builder("g")
    x = builder.input("x", tensor("f32", (2,)))
    made = builder.add(_Liar(result), [x], "y")
    with pytest.raises(GraphError, match=message):
        interpret(builder.finish(made), [0, 0])


def test_scalar_results_are_arrays() -> None:
    builder = Builder("g")
    made = builder.add(op_named("full")(shape=(), value=2.0), [])  # type: ignore[call-arg]
    y = interpret(builder.finish(made))
    assert isinstance(y, np.ndarray)
    assert y == 2
