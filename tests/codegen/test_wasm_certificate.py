"""The certificate of modules of WebAssembly: every opcode, damage, what others could change."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import pytest

from addergraph.codegen.inspect import certificate, wasm
from addergraph.codegen.inspect.certificate import Certificate, certify_bytes
from addergraph.codegen.inspect.instructions import REFUSED, WASM
from addergraph.codegen.inspect.wasm import read_module
from addergraph.codegen.inspect.wasm_opcodes import OPCODES
from addergraph.errors import AdderGraphError, StorageError, UnsupportedError

wasmtime: Any = pytest.importorskip("wasmtime", reason="pip install wasmtime")

_BLOCKS = ("block", "loop", "if", "else", "end")
NAMES = [name for name, _ in OPCODES.values() if name not in _BLOCKS]
PRODUCTS = [
    name for name in NAMES
    if any(word in name.split(".")[-1] for word in ("mul", "div", "rem", "dot", "sqrt"))
]  # fmt: skip
_TEXT = {"u": "0", "c": "0", "T": "", "s": "1", "S": "1", "m": "", "l": "0", "0": "", "4": "1",
         "8": "1", "t": "0 0"}  # fmt: skip
OTHERS = {"v128.const": "i32x4 0 0 0 0", "i8x16.shuffle": "0 " * 16, "call_indirect": "(type 0)"}


def wat(text: str) -> bytes:
    """The bytes that wasmtime makes of a text, which it does not validate here."""
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


def of_code(*bodies: str) -> bytes:
    functions = "".join(f"(func (type 0) {body})" for body in bodies)
    return wat(f'(type (func)) (table 1 funcref) (memory 1) {functions} (data "x")')


def instruction(name: str) -> str:
    operands = next(o for n, o in OPCODES.values() if n == name)
    return f"{name} {OTHERS.get(name) or ' '.join(_TEXT[o] for o in operands)}"


def refusals(data: bytes) -> list[str]:
    return [str(f) for f in certify_bytes(data, "x.wasm").failures]


def test_every_opcode_is_that_of_another_assembler() -> None:
    bodies = [f"unreachable {instruction(name)}" for name in NAMES]
    found = read_module(of_code(*bodies), "x.wasm")
    read = [[i.mnemonic for i in found.instructions(body)] for body in found.bodies]
    assert read == [["unreachable", name, "end"] for name in NAMES]
    assert [b.counts for b in found.bodies] == [Counter(one) for one in read]
    assert len(OPCODES) == 425 and {WASM.kind_of(name) for name in NAMES} & {"unknown"} == set()


def test_each_product_is_found_and_nothing_else_is_refused() -> None:
    assert len(PRODUCTS) == 39
    made = certify_bytes(of_code(*map(instruction, NAMES)), "x.wasm")
    found = {f.instruction for f in made.failures}
    assert found == set(PRODUCTS) == {n for n in NAMES if WASM.kind_of(n) in REFUSED}
    for name in PRODUCTS:
        (failure,) = refusals(of_code("nop", instruction(name)))
        assert failure.startswith("function[1]+0x") and f": {name}: " in failure


def test_blocks_and_names() -> None:
    made = certify_bytes(
        wat("""(func $outer (export "f") (param i32) (result i32)
        (block (loop (br_if 1 (local.get 0)) (br_table 0 1 (local.get 0))))
        (if (result i32) (local.get 0) (then (i32.const -5)) (else (i32.const 1000000))))
        (func (export "g") (local i64) (drop (i64.const -9000000000)))"""),
        "x.wasm",
    )
    assert made.multiplication_free and [f.name for f in made.functions] == ["outer", "g"]
    assert made.functions[0].counts["control"] == 10
    assert b'"decoder": "AdderGraph' in made.to_json() and "wasm code" in made.render()


def test_more_than_a_network_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wat("(func nop) (func nop) (func (drop (i32.mul (i32.const 1) (i32.const 2))))")
    assert len(certify_bytes(data, "x.wasm").functions) == 3
    for name, said in (
        ("CODE_LIMIT", "has 18 bytes of code; at most 1 are read"),
        ("FUNCTIONS_LIMIT", "has 3 functions; at most 1 are read"),
        ("SECTION_LIMIT", "bytes in section 1; at most 1 are read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(wasm, name, 1)
            with pytest.raises(UnsupportedError, match=said):
                certify_bytes(data, "x.wasm")
    monkeypatch.setattr(certificate, "_MOST_FAILURES", 0)
    (failure,) = certify_bytes(data, "x.wasm").failures
    assert failure.reason == "than 0: no more are listed"


@pytest.mark.slow
def test_a_large_body_takes_little_memory() -> None:
    """Products alone, of which each would be a line of the certificate."""
    body = b"\0" + b"\x6c" * (1 << 18) + b"\x0b"
    size = wasm_number(len(body))
    code = b"\1" + size + body
    head = b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\x0a"
    data = head + wasm_number(len(code)) + code
    tracemalloc.start()
    made = certify_bytes(data, "x.wasm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.functions[0].mnemonics == {"end": 1, "i32.mul": 1 << 18}
    assert not made.multiplication_free and len(made.failures) == 10_001
    assert peak < 32 * len(data)


def wasm_number(n: int) -> bytes:
    """An unsigned LEB128 number of five bytes."""
    return bytes(n >> 7 * i & 0x7F | (0x80 if i < 4 else 0) for i in range(5))


TABLE = "(type (func)) {} (func (call_indirect (type 0) (i32.const 0)))"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('(import "env" "pow" (func)) (func)', "env.pow+0x0: import: a function of elsewhere"),
        (TABLE.format('(table (export "t") 1 funcref)'), "by a table that others may change"),
        (TABLE.format('(import "m" "t" (table 1 funcref))'), "by a table that others may change"),
        ("(func (drop (ref.func 0)))", "do not decode, nor was the rest read"),
    ],
)
def test_what_others_could_change_is_refused(text: str, said: str) -> None:
    (failure,) = refusals(wat(text))
    assert said in failure


def test_a_table_of_many_functions_is_cut() -> None:
    found = certify_bytes(of_code(*["nop"] * 503), "many.wasm").render()
    assert "function[499]" in found and "function[500]" not in found
    assert "(3 more functions)" in found and "in all: 1,006 control" in found


def test_a_table_of_its_own_is_no_way_out() -> None:
    assert refusals(wat(TABLE.format("(table 1 funcref) (elem (i32.const 0) func 0)"))) == []
    with pytest.raises(UnsupportedError, match=r'a section "dylink\.0"'):
        certify_bytes(wat('(@custom "dylink.0" "x") (func)'), "x.wasm")
    with pytest.raises(UnsupportedError, match="limits with flags 0x3"):
        certify_bytes(wat("(memory 1 1 shared) (func)"), "x.wasm")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0asm", "begins with 00 61 73 6d, expected"),
        (b"\0asm\x0d\0\1\0", "expected 00 61 73 6d 01 00 00 00"),  # a component
        (b"\0asm\1\0\0\0", "has no code: it is a module without a function of its own, so"),
        (b"\0asm\1\0\0\0\2\x08\1\1m\1g\3\x7f\0", "(it imports 1 things of elsewhere)"),
        (b"\0asm\1\0\0\0\1\xff\xff\xff\xff\xff\1", "has more than 32 bits"),
        (b"\0asm\1\0\0\0\x0e\0", "section 14 is unknown"),
        (b"\0asm\1\0\0\0\1\1\0\1\1\0", "double or not in order"),
        (b"\0asm\1\0\0\0\1\2\0\0", "bytes from 11 on that are nothing"),
        (b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0", "1 functions are declared, 0 there"),
        (b"\0asm\1\0\0\0\1\5\xff\xff\xff\xff\x0f", "items are said to stand before"),
        (b"\0asm\1\0\0\0\0\3\2\xff\xff", "is no UTF-8"),
    ],
)  # fmt: skip
def test_damage_is_named(data: bytes, said: str) -> None:
    with pytest.raises(StorageError) as caught:
        certify_bytes(data, "x.wasm")
    assert said in str(caught.value)


def small() -> bytes:
    return wat("""(type (func (param i32))) (import "m" "g" (global i32)) (table 2 funcref)
    (memory (export "memory") 1) (global (mut i32) (i32.const 65536)) (func $a (type 0) nop)
    (func $b (export "b") (type 0) (local v128) (block (br_if 0 (local.get 0))
      (call_indirect (type 0) (local.get 0) (i32.const 1)) (call $a (local.get 0)))
      (v128.store offset=300 (i32.const 0) (i32x4.add (local.get 1) (v128.const i32x4 1 2 3 4))))
    (start $c) (func $c) (elem (i32.const 0) func $a $b) (data (i32.const 8) "weights")""")


def test_every_cut_and_every_flipped_bit() -> None:
    """Errors are ours, and what is accepted has every byte: cuts between sections behind the code
    leave modules that are whole. Of what both read, no engine sees more functions."""
    whole = small()
    assert certify_bytes(whole, "x.wasm").multiplication_free
    code = whole.index(b"\x0a", whole.index(b"memory"))
    accepted = 0
    for end in range(len(whole)):
        made = tried(whole[:end])
        if made is not None:
            accepted += 1
            assert end > code and wasmtime.Module(wasmtime.Engine(), whole[:end])
    assert accepted <= 2  # behind the code, and behind the data
    for bit in range(64, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        made = tried(bytes(flipped))
        assert made is None or len(made.functions) == 3


def tried(data: bytes) -> Certificate | None:
    try:
        return certify_bytes(data, "x.wasm")
    except AdderGraphError:
        return None
