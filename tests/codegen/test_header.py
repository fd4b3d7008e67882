"""header and interface: names become C, and the header is clean in C99 and C++."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit.lowered import Lowered
from addergraph.codegen.export.example import program as example
from addergraph.codegen.export.header import header
from addergraph.codegen.export.interface import (
    RESERVED_WORDS,
    SYSTEM_NAMES,
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
from tests.codegen.libraries import CONSTANT, MIXED, NET, SHARED, built_c, compiled

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
    path.write_text(header(made, exact=True))
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
    text = header(interface_of(compiler.lower(ag.parse(MIXED), BASELINE)), exact=False)
    expected = (
        "int32_t mixed_run(const float *a, const int32_t *i, const uint8_t *u, const int8_t *s, "
        "const uint8_t *mask, const float *none, float *chosen, int32_t *twice, uint8_t *larger, "
        "uint8_t *bytes, int8_t *signed_, float *empty, int32_t *twice_out, void *arena);"
    )
    assert expected in re.sub(r"\* /\* (\w+) \*/", r"*\1", text)
    assert "#define MIXED_NONE_ELEMENTS 0u" in text
    assert "each element within what rounding explains" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net", "net"),
        ("résnet-20 (v2)", "r_snet_20_v2"),
        ("3layers", "net_3layers"),
        ("stdio", "net_stdio"),
        ("Math", "net_Math"),
        ("features", "net_features"),
        ("m", "net_m"),
        ("R", "net_R"),
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


def test_prefixes_hide_nothing_of_the_system() -> None:
    for name in SYSTEM_NAMES:
        assert interface_of(lowered("x"), name).prefix == f"net_{name}"


@pytest.mark.needs("cc")
def test_the_headers_of_this_systems_c_library_are_known() -> None:
    """Those that its own headers include by name, of which <stdio.h> includes <features.h>."""
    names = " ".join(f"#include <{n}.h>\n" for n in ("stdio", "stdlib", "math", "pthread", "time"))
    done = subprocess.run(
        ["cc", "-M", "-x", "c", "-"], input=names, capture_output=True, text=True, check=True
    )
    found = {Path(word).stem for word in done.stdout.split() if Path(word).parent.name == "include"}
    assert {"stdio", "features"} <= found
    plain = {name for name in found if name.isidentifier() and not name.startswith("_")}
    assert plain <= SYSTEM_NAMES


@pytest.mark.parametrize("compiler", COMPILERS)
def test_macros_of_the_program_do_not_change_the_header(
    compiler: list[str], tmp_path: Path
) -> None:
    """A board's headers define PI, INPUT and B1 (Arduino); parameters there need no names."""
    made = interface("PI", "B1", "INPUT", "arena", "thread", "threads", "x")
    (tmp_path / "net.h").write_text(header(made, exact=True))
    macros = [*(a.c_name for a in made.arguments), "image", "size", "code"]
    source = tmp_path / "use.c"
    source.write_text(
        "".join(f"#define {name} 3.14159 +\n" for name in macros)
        + '#include "net.h"\nint main(void) { return NET_OK; }\n'
    )
    done = subprocess.run(
        [*compiler, "-Wall", "-Werror", "-fsyntax-only", source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("cc")
@pytest.mark.parametrize("name", ["features", "m"])
def test_a_library_may_stand_on_every_path(name: str, tmp_path: Path) -> None:
    """Named as a system's header or library, it is not taken for that."""
    program = compiled(CONSTANT)
    made = program.export(tmp_path / "made", name=name, shared=False)
    assert made.header.name == f"net_{name}.h"
    source = tmp_path / "use.c"
    source.write_text(
        f'#include <math.h>\n#include <stdio.h>\n#include "{made.header.name}"\n'
        "int main(int argc, char **argv) { return argv[0][0] == 0 || sin(argc) > 2; }\n"
    )
    where = made.header.parent
    built_c(source, where, f"net_{name}", f"-I{where}", f"-L{where}", "-lm")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("a.b", "a_b"), '%a_b would be called "a_b" in C, which clashes with %a.b'),
        (("x", "X"), '%X would be called "X" in C, which clashes with %x'),
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
    for text in (header(made, exact=True), example(made)):
        assert text.isascii()


def test_the_arena_holds_the_outputs_of_the_selftest() -> None:
    made = interface("x", "y")
    assert made.golden_bytes == 128
    assert made.arena_bytes == made.run_bytes + 128 and made.run_bytes % 64 == 0


def test_the_header_says_what_integers_stand_for() -> None:
    made = interface_of(compiler.lower(ag.parse(BYTES), BASELINE))
    text = header(made, exact=True)
    for line in (
        "#define BYTES_X_SCALE 0.25",
        "#define BYTES_X_ZERO_POINT 3",
        "#define BYTES_Y_SCALE 0.25",
        "#define BYTES_Y_ZERO_POINT 0",
    ):
        assert line in text.splitlines()
    assert "SCALE" not in header(interface("x"), exact=True)


def test_the_header_speaks_of_nan_where_there_are_floats() -> None:
    integers = header(interface_of(compiler.lower(ag.parse(BYTES), BASELINE)), exact=True)
    assert "All of them are integers" in integers and "NaN" not in integers
    assert "passes NaN on" in header(interface("x"), exact=True)
