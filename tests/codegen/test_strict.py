"""Strict mode: no product or quotient in a whole program, address arithmetic included."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numpy as np
import pytest

import addergraph as ag
from addergraph import driver, layers, ops, zoo
from addergraph.codegen.builder import Emitter
from addergraph.codegen.census import count_instructions
from addergraph.codegen.indices import I64
from addergraph.codegen.instructions import ADDRESS_MULTIPLY, PRODUCTS, UNKNOWN
from addergraph.codegen.llvm import LoadedObject, compile_assembly, compile_object
from addergraph.codegen.shift_add import signed_digits
from addergraph.codegen.strict import require_instructions, without_multiplier
from addergraph.codegen.target import X86_LEVELS, runnable, target_named
from addergraph.errors import UnsupportedError
from addergraph.ir import Graph
from addergraph.trace import Tensor
from addergraph.types import Shape, TensorType, u8

STRICT = without_multiplier(target_named("host"))
SIZES = (1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 15, 16, 27, 48, 63, 64, 100, 255, 990, 3960, 65_535, 10**6)


def function_of(body: Callable[[Emitter, Any, Any], Any], name: str = "f") -> tuple[str, Any]:
    """IR text and a callable of `body(e, a, b)`, i64 each, for code without products."""
    module = ir.Module("test", context=ir.Context())
    function = ir.Function(module, ir.FunctionType(I64, [I64, I64]), name)
    e = Emitter(function, STRICT, lambda _: None)
    e.b.ret(e.index(body(e, *function.args)))
    loaded = LoadedObject(compile_object(str(module), STRICT), STRICT)
    made = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(loaded.address(name))
    made.keep = loaded  # type: ignore[attr-defined]
    return str(module), made


def assert_free(text: str) -> None:
    counts = count_instructions(compile_assembly(text, STRICT))
    for one in counts.values():
        assert not any(one[kind] for kind in (*PRODUCTS, ADDRESS_MULTIPLY, UNKNOWN)), one


@pytest.mark.parametrize("number", [*SIZES, -1, -3, -7, -640, 2**40 + 1])
def test_digits_of_constants(number: int) -> None:
    digits = signed_digits(number)
    assert sum(sign << place for place, sign in digits) == number
    places = [place for place, _ in digits]
    assert all(b - a > 1 for a, b in itertools.pairwise(places))


@pytest.mark.parametrize("number", [*SIZES, -1, -3, -640])
def test_products_with_constants(number: int) -> None:
    text, product = function_of(lambda e, a, _: e.mul(a, number))
    for a in (0, 1, -1, 7, 12_345, -99_999, 2**31):
        assert product(a, 0) == a * number
    assert_free(text)


@pytest.mark.parametrize("size", SIZES)
def test_quotients_by_constants(size: int) -> None:
    for body, expected in (
        (lambda e, a, _: e.div(a, size), lambda a: a // size),
        (lambda e, a, _: e.mod(a, size), lambda a: a % size),
    ):
        text, function = function_of(body)
        numbers = {0, 1, size - 1, size, size + 1, 7 * size, 12_345, 2**40 + 17}
        assert [function(a, 0) for a in numbers] == [expected(a) for a in numbers]
        assert_free(text)


def test_products_and_quotients_of_two_numbers() -> None:
    rng = random.Random(0)
    product_text, product = function_of(lambda e, a, b: e.mul(a, b))
    quotient_text, quotient = function_of(lambda e, a, b: e.div(a, b))
    _, rest = function_of(lambda e, a, b: e.mod(a, b))
    for text in (product_text, quotient_text):
        assert_free(text)
    for _ in range(200):
        a, b = rng.getrandbits(rng.randint(1, 40)), 1 + rng.getrandbits(rng.randint(1, 22))
        assert (product(a, b), quotient(a, b), rest(a, b)) == (a * b, a // b, a % b)


@pytest.mark.parametrize("sizes", [(7,), (3, 5), (4, 8, 2), (2, 1, 7, 3), (6, 10, 1)])
def test_multi_indices(sizes: tuple[int, ...]) -> None:
    """The steps of a quotient are as many as its bits: the largest item has the longest."""
    strides = [10 ** (2 * k) for k in range(len(sizes))]
    text, function = function_of(lambda e, a, _: e.dot(e.split(a, sizes), strides))
    assert_free(text)
    for item in range(int(np.prod(sizes))):
        indices = np.unravel_index(item, sizes)
        expected = sum(int(i) * s for i, s in zip(indices, strides, strict=True))
        assert function(item, 0) == expected


def test_shares_of_threads() -> None:
    for count in (0, 1, 7, 64, 1000):

        def bounds(e: Emitter, thread: Any, threads: Any, count: int = count) -> Any:
            e.thread, e.threads = thread, threads
            low, high = e.share(count)
            return e.b.add(e.b.shl(e.index(low), e.index(32)), e.index(high))

        text, function = function_of(bounds)
        assert_free(text)
        for threads in (1, 2, 3, 7):
            shares = [divmod(function(t, threads), 1 << 32) for t in range(threads)]
            assert shares == [
                (count * t // threads, count * (t + 1) // threads) for t in range(threads)
            ]


# --- programs -------------------------------------------------------------------------------------


def integers() -> Graph:
    """Odd sizes, so that no stride is a power of two."""

    def net(x: Tensor, f: Tensor, g: Tensor) -> Tensor:
        y = ops.adder2d(x, f, stride=(2, 1), padding=(1, 0, 2, 1))
        y = ops.max_pool2d(ops.cast(y, "u8"), (2, 3), stride=(1, 2))
        return ops.adder_dense(ops.flatten(y), g)

    shapes: tuple[Shape, ...] = ("N", 9, 7, 3), (3, 3, 3, 11), (3 * 3 * 11, 5)
    return ag.trace(net, *(TensorType(u8, s) for s in shapes), name="net")


@pytest.mark.parametrize("target", [t.name for t in X86_LEVELS])
def test_programs_without_products(target: str) -> None:
    graph, rng = integers(), np.random.default_rng(0)
    arrays = [rng.integers(0, 256, v.type.bind(5).sizes, np.uint8) for v in graph.inputs]
    expected = ag.interpret(graph, *arrays)
    for batch in (None, 5):
        built = driver.build(
            graph, batch=batch, target=target, multiplication_free=True, cache=False
        )
        assert not built.lowered.target.multiplier
        if not runnable(built.lowered.target):
            continue
        for threads in (1, 3):
            program = ag.compile(
                graph, batch=batch, target=target, threads=threads, multiplication_free=True
            )
            np.testing.assert_array_equal(program(*arrays), expected)
            program.close()


def test_each_layer_that_multiplies_is_named() -> None:
    with pytest.raises(UnsupportedError) as error:
        ag.compile(zoo.build("small-adder"), multiplication_free=True)
    lines = str(error.value).splitlines()
    assert lines[0].startswith('graph "small_adder" is not multiplication-free')
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        'conv2d "conv1"', *(f'batch_norm "bn{i}"' for i in range(1, 5)), 'dense "dense1"',
        'softmax "act5"',
    ]  # fmt: skip
    assert "an adder layer in its place" in lines[1]
    assert "logits instead" in lines[-1]


def test_hidden_products_are_named() -> None:
    x = TensorType(u8, ("N", 3))
    graph = ag.trace(lambda v: ops.cast(v, "i32") * 3, x, name="net")
    with pytest.raises(UnsupportedError, match=r'mul "mul": leave it out'):
        ag.compile(graph, multiplication_free=True)
    text = "define i64 @f(i64 %a, i64 %b) {\n  %c = mul i64 %a, %b\n  ret i64 %c\n}\n"
    with pytest.raises(UnsupportedError, match=r"f \(y\): 1 address mul/div"):
        require_instructions(text, STRICT, {"f": ["y"]})


def test_a_library_is_held_to_it_with_its_entries(tmp_path: Path) -> None:
    graph = ag.trace(lambda v: ops.max_pool2d(v, 3), TensorType(u8, ("N", 9, 9, 5)), name="net")
    made = driver.export(graph, tmp_path, multiplication_free=True)
    assert made.code.is_file()
    with pytest.raises(UnsupportedError, match='not those of "aarch64-linux-gnu"'):
        driver.export(graph, tmp_path, multiplication_free=True, target="aarch64-linux-gnu")


def test_an_adder_of_floats_may_be_free() -> None:
    graph = ag.trace(
        lambda v: layers.Adder(5, 3)(v), TensorType(ag.tensor("f32", ()).dtype, ("N", 5, 5, 3)),
        name="net",
    )  # fmt: skip
    driver.build(graph, multiplication_free=True)
