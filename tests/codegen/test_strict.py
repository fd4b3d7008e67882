"""Strict mode: no product or quotient in a whole program, address arithmetic included."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler, layers, ops, zoo
from addergraph.codegen.emit.builder import Emitter
from addergraph.codegen.emit.module import emit_program
from addergraph.codegen.emit.shift_add import signed_digits
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import ADDRESS_MULTIPLY, PRODUCTS, UNKNOWN
from addergraph.codegen.inspect.strict import compile_object as compile_strict
from addergraph.codegen.inspect.strict import without_multiplier
from addergraph.codegen.llvm import LoadedObject, compile_assembly, compile_object
from addergraph.codegen.targets.lookup import TARGETS, runnable, target_named
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import BASELINE, X86_LEVELS
from addergraph.errors import UnsupportedError
from addergraph.ir import Graph
from addergraph.ir.trace import Tensor
from addergraph.ir.types import Shape, TensorType, f32, u8

pytestmark = pytest.mark.thinned(2)

STRICT = without_multiplier(target_named("host"))
NARROW = dataclasses.replace(STRICT, word=32)  # indices as wide as on 32-bit machines
PRODUCT = """
define i64 @f(i64 %a, i64 %b) nounwind {
  %c = mul i64 %a, %b
  ret i64 %c
}
"""
COPIES = """
declare void @memcpy(ptr, ptr, i32)
@data = external global i8
define void @f(ptr %a) nounwind {
  call void @memcpy(ptr %a, ptr @data, i32 99)
  ret void
}
define void @g(ptr %a) nounwind {
  call void @memcpy(ptr %a, ptr %a, i32 7)
  ret void
}
"""
BARE = [t for t in TARGETS.values() if not t.multiplier]
SIZES = (1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 15, 16, 27, 48, 63, 64, 100, 255, 990, 3960, 65_535, 10**6)


def module_of(body: Callable[[Emitter, Any, Any], Any], target: Target = STRICT) -> str:
    """IR text of `f(a, b) = body(e, a, b)`, of indices."""
    module, word = ir.Module("test", context=ir.Context()), ir.IntType(target.word)
    function = ir.Function(module, ir.FunctionType(word, [word, word]), "f")
    e = Emitter(function, target, lambda _: None)
    e.b.ret(e.index(body(e, *function.args)))
    return str(module)


def function_of(
    body: Callable[[Emitter, Any, Any], Any], target: Target = STRICT
) -> tuple[str, Any]:
    """IR text and a callable of `body(e, a, b)`, for code without products."""
    text = module_of(body, target)
    loaded = LoadedObject(compile_object(text, STRICT), STRICT)
    index = ctypes.c_int64 if target.word == 64 else ctypes.c_int32
    made = ctypes.CFUNCTYPE(index, index, index)(loaded.address("f"))
    made.keep = loaded  # type: ignore[attr-defined]
    return text, made


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


@pytest.mark.parametrize(("target", "bits"), [(STRICT, (40, 22)), (NARROW, (15, 15))])
def test_products_and_quotients_of_two_numbers(target: Target, bits: tuple[int, int]) -> None:
    rng = random.Random(0)
    product_text, product = function_of(lambda e, a, b: e.mul(a, b), target)
    quotient_text, quotient = function_of(lambda e, a, b: e.div(a, b), target)
    _, rest = function_of(lambda e, a, b: e.mod(a, b), target)
    for text in (product_text, quotient_text):
        assert_free(text)
    for _ in range(200):
        a, b = (rng.getrandbits(rng.randint(1, most)) for most in bits)
        b += 1
        assert (product(a, b), quotient(a, b), rest(a, b)) == (a * b, a // b, a % b)


@pytest.mark.parametrize("target", [STRICT, NARROW])
@pytest.mark.parametrize("sizes", [(7,), (3, 5), (4, 8, 2), (2, 1, 7, 3), (6, 10, 1)])
def test_multi_indices(sizes: tuple[int, ...], target: Target) -> None:
    """The steps of a quotient are as many as its bits: the largest item has the longest."""
    strides = [10 ** (2 * k) for k in range(len(sizes))]
    text, function = function_of(lambda e, a, _: e.dot(e.split(a, sizes), strides), target)
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


@pytest.mark.slow
@pytest.mark.parametrize("target", [t.name for t in X86_LEVELS])
def test_programs_without_products(target: str) -> None:
    graph, rng = integers(), np.random.default_rng(0)
    arrays = [rng.integers(0, 256, v.type.bind(5).sizes, np.uint8) for v in graph.inputs]
    expected = ag.interpret(graph, *arrays)
    for batch in (None, 5):
        built = compiler.build(
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
    graph = ag.trace(lambda v: v * 3.0, TensorType(f32, ("N", 3)), name="net")
    with pytest.raises(UnsupportedError, match=r'mul "mul": ag.quantize, which makes a batch norm'):
        ag.compile(graph, multiplication_free=True)
    with pytest.raises(UnsupportedError, match=r"f \(y\): 1 address mul/div"):
        compile_strict(PRODUCT, STRICT, {"f": ["y"]})


def test_a_library_is_held_to_it_with_its_entries(tmp_path: Path) -> None:
    graph = ag.trace(lambda v: ops.max_pool2d(v, 3), TensorType(u8, ("N", 9, 9, 5)), name="net")
    made = compiler.export(graph, tmp_path, multiplication_free=True)
    assert made.code.is_file()


@pytest.mark.parametrize("target", BARE)
def test_index_arithmetic_of_machines_without_a_multiplier(target: Target) -> None:
    """Neither a product nor a call; and nothing is wider than a register."""
    for body in (
        lambda e, a, b: e.mul(a, b), lambda e, a, b: e.mod(a, b), lambda e, a, b: e.mul(a, 990),
        lambda e, a, b: e.dot(e.split(a, (7, 12, 5)), (640, 1000, 3)),
    ):  # fmt: skip
        text = module_of(body, target)
        assert compile_strict(text, target, {})
        assert "i64" not in text or target.word == 64
    with pytest.raises(UnsupportedError, match=r"f \(y\): (1 multiply|__mul[sd]i3)"):
        compile_strict(PRODUCT.replace("i64", f"i{target.word}"), target, {"f": ["y"]})


@pytest.mark.parametrize("target", BARE)
def test_whole_programs_for_machines_without_a_multiplier(target: Target) -> None:
    """They are strict without being asked; 32-bit machines have no index of 64 bits."""
    graph = integers()
    for batch in (None, 2):
        built = compiler.build(graph, batch=batch, target=target.name, cache=False)
        text = str(emit_program(built.lowered)[0])
        assert ("i64" in text) == (target.word == 64)
        assert "atomic" not in text and "@barrier" not in text and "@work" not in text
        slot = re.search(r"getelementptr i8, ptr %\S+, i\d+ (\d+)\n.*load ptr", text)
        assert slot is not None and int(slot[1]) == target.pointer_bytes
    multiplied = ag.trace(lambda v: ops.cast(v, "i32") * 3, TensorType(u8, ("N", 3)), name="net")
    with pytest.raises(UnsupportedError, match=rf'as {target.name} needs it.*\n  mul "mul": leave'):
        compiler.build(multiplied, target=target.name)


@pytest.mark.parametrize("target", BARE)
def test_floats_are_refused_where_there_are_no_instructions_for_them(target: Target) -> None:
    x = TensorType(f32, ("N", 4, 4, 2))
    for net, named in (
        (lambda v: layers.Adder(3, 3)(v), 'adder2d "adder1"'),
        (lambda v: ops.cast(v, "u8"), 'cast "cast"'),
    ):
        with pytest.raises(UnsupportedError, match=f"{target.name} has no float inst") as error:
            compiler.build(ag.trace(net, x, name="net"), target=target.name)
        assert "input %v: f32[1,4,4,2]" in str(error.value) and named in str(error.value)
        assert "ag.quantize" in str(error.value)


def test_what_32_bit_indices_do_not_reach_is_refused() -> None:
    graph = ag.trace(lambda v: ops.pad(v, (0, 0), (1, 0)), TensorType(u8, (2**29, 4)), name="net")
    with pytest.raises(UnsupportedError, match=r"%\S+ has \d{10,} bytes; indices of thumbv6m"):
        compiler.build(graph, target="thumbv6m")


def test_a_call_of_a_library_is_named_with_its_nodes() -> None:
    for name in ("riscv32i", "thumbv6m"):
        with pytest.raises(UnsupportedError) as error:
            compile_strict(COPIES, TARGETS[name], {"g": ["y", "z"]}, ["data"])
        lines = str(error.value).splitlines()
        assert lines[1:] == ["  f (no node): memcpy", "  g (y, z): memcpy"]


@pytest.mark.parametrize("target", ["thumbv6m", "thumbv7em", "riscv32i"])
def test_loops_of_a_length_that_is_computed_are_counted_without_a_product(target: str) -> None:
    """Rows and columns of a dilated window are loops from one index to another."""
    graph = ag.parse("""
    graph dilated(%x: u8[1,9,9,4]) params(%f: u8[3,3,4,12]) {
      %y = adder2d(%x, %f) dilation=(2,2) : i32[1,5,5,12]
      return %y
    }""")
    made = strict_target(target)
    module, _ = emit_program(compiler.lower(graph, made))
    compile_strict(str(module), made, {})


def strict_target(name: str) -> Target:
    made = TARGETS[name]
    return without_multiplier(made) if made.multiplier else made


def test_scalars_instead_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What small machines run, on this one: one lane, few registers, no multiplier."""
    scalar = dataclasses.replace(
        BASELINE, name="scalar", lanes=1, registers=8, multiplier=False, byte_distances="",
    )  # fmt: skip
    monkeypatch.setitem(TARGETS, "scalar", scalar)
    graph, rng = integers(), np.random.default_rng(1)
    for batch in (None, 5):
        arrays = [rng.integers(0, 256, v.type.bind(5).sizes, np.uint8) for v in graph.inputs]
        program = ag.compile(graph, batch=batch, target="scalar", threads=2, cache=False)
        np.testing.assert_array_equal(program(*arrays), ag.interpret(graph, *arrays))
        program.close()


def test_an_adder_of_floats_may_be_free() -> None:
    graph = ag.trace(
        lambda v: layers.Adder(5, 3)(v), TensorType(ag.tensor("f32", ()).dtype, ("N", 5, 5, 3)),
        name="net",
    )  # fmt: skip
    compiler.build(graph, multiplication_free=True)
