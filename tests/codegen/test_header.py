"""header and interface: names become C, and the header is clean in C99 and C++."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit.lowered import Lowered
from addergraph.codegen.export.header import example, header
from addergraph.codegen.export.interface import (
    RESERVED_WORDS,
    SYSTEM_HEADERS,
    Interface,
    identifier,
    interface_of,
)
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.compiler import lower
from addergraph.errors import UnsupportedError
from addergraph.ir import Builder
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.unary import Neg
from tests.codegen.libraries import CONSTANT, MIXED, NET, SHARED

COMPILERS = [
    pytest.param([program, *options], marks=pytest.mark.needs(program))
    for program, *options in (
        ("cc", "-std=c99"),
        ("cc", "-std=c17"),
        ("c++", "-std=c++98", "-x", "c++"),
    )
]

BYTES = """graph bytes(%x: u8[N,2] scale=0.25 zero_point=3) params(
  %f: u8[2,4] scale=0.25 zero_point=3
) {
  %y = adder_dense(%x, %f) : i32[N,4]
  return %y
}"""


def lowered(*inputs: str, name: str = "net") -> Lowered:
    """A graph with these inputs, each negated into an output `-<input>`."""
    builder = Builder(name)
    values = [builder.input(i, tensor("f32", (2,))) for i in inputs]
    return compiler.lower(builder.finish([builder.add(Neg(), [v])[0] for v in values]), BASELINE)


def interface(*inputs: str, name: str = "net") -> Interface:
    return interface_of(lowered(*inputs, name=name))


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("text", [NET, MIXED, SHARED, CONSTANT, BYTES])
def test_the_header_compiles_without_warnings(
    compiler: list[str], text: str, tmp_path: Path
) -> None:
    made = interface_of(lower(ag.parse(text), BASELINE))
    path = tmp_path / f"{made.prefix}.h"
    path.write_text(header(made, golden=True))
    source = tmp_path / "use.c"
    # Twice, and before anything else: guarded and self-contained.
    source.write_text(
        f'#include "{path.name}"\n#include "{path.name}"\n'
        f"int main(void) {{ return {made.prefix}_metadata_json() == 0 "
        f"? {made.macro}_ERROR_NULL : {made.macro}_OK; }}\n"
    )
    flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    done = subprocess.run([*compiler, *flags, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_dtype_has_its_c_type() -> None:
    text = header(interface_of(compiler.lower(ag.parse(MIXED), BASELINE)), golden=False)
    expected = (
        "int32_t mixed_run(const float *a, const int32_t *i, const uint8_t *u, const int8_t *s, "
        "const uint8_t *mask, const float *none, float *chosen, int32_t *twice, uint8_t *larger, "
        "uint8_t *bytes, int8_t *signed_, float *empty, int32_t *twice_out, void *arena);"
    )
    assert expected in text
    assert "#define MIXED_NONE_ELEMENTS 0u" in text
    assert "MIXED_ERROR_NO_GOLDEN if they are intact" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net", "net"),
        ("résnet-20 (v2)", "r_snet_20_v2"),
        ("3layers", "net_3layers"),
        ("stdio", "net_stdio"),
        ("Math", "net_Math"),
        ("網", "net"),
        ("_private_", "private"),
        ("for", "for"),  # `for_run` is no keyword
    ],
)
def test_library_names(name: str, expected: str) -> None:
    assert interface_of(lowered("x"), name).prefix == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x", "x"), ("conv1.y", "conv1_y"), ("1st", "v1st"), ("int", "int_"), ("_x", "v_x")],
)
def test_argument_names(name: str, expected: str) -> None:
    assert identifier(name) == expected


@pytest.mark.parametrize("word", sorted(RESERVED_WORDS))
def test_reserved_words_are_not_used(word: str) -> None:
    assert identifier(word) not in RESERVED_WORDS


def test_prefixes_do_not_hide_system_headers() -> None:
    assert "string" in SYSTEM_HEADERS
    for name in SYSTEM_HEADERS:
        assert interface_of(lowered("x"), name).prefix == f"net_{name}"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("a.b", "a_b"), '%a_b would be called "a_b" in C, which clashes with %a.b'),
        (("x", "X"), '%X would be called "X" in C, which clashes with %x'),
        (("arena",), '"arena" in C, which clashes with the argument `arena`'),
        (("threads",), "clashes with the argument `threads`"),
        (("NET_ABI_VERSION",), "clashes with the macro NET_ABI_VERSION"),
        (("x", "NET_X_ELEMENTS"), "clashes with the macro NET_X_ELEMENTS"),
        (("int", "int_"), '%int_ would be called "int_" in C, which clashes with %int'),
    ],
)
def test_clashing_names_are_refused(inputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnsupportedError, match='graph "net": .*rename one of them') as caught:
        interface(*inputs)
    assert message in str(caught.value)


def test_names_of_other_alphabets_stay_out_of_c() -> None:
    made = interface("größe", name="网络")
    assert made.prefix == "net" and made.inputs[0].c_name == "gr_e"
    for text in (header(made, golden=True), example(made)):
        assert text.isascii()


def test_the_arena_holds_the_outputs_of_the_selftest() -> None:
    made = interface("x", "y")
    assert made.golden_bytes == 128
    assert made.arena_bytes == made.run_bytes + 128 and made.run_bytes % 64 == 0


def test_the_header_says_what_integers_stand_for() -> None:
    made = interface_of(compiler.lower(ag.parse(BYTES), BASELINE))
    text = header(made, golden=True)
    for line in (
        "#define BYTES_X_SCALE 0.25",
        "#define BYTES_X_ZERO_POINT 3",
        "#define BYTES_Y_SCALE 0.25",
        "#define BYTES_Y_ZERO_POINT 0",
    ):
        assert line in text.splitlines()
        assert line.split()[1] in made.macros
    assert "SCALE" not in header(interface("x"), golden=True)


def test_the_header_speaks_of_nan_where_there_are_floats() -> None:
    integers = header(interface_of(compiler.lower(ag.parse(BYTES), BASELINE)), golden=True)
    assert "All of them are integers" in integers and "NaN" not in integers
    assert "passes NaN on" in header(interface("x"), golden=True)
