"""certify: what compilers and linkers make of C, with and without products."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from addergraph.codegen.export.archive import Member
from addergraph.codegen.inspect.certificate import certify_bytes
from addergraph.codegen.inspect.flow import UNKNOWN_PLACE
from addergraph.errors import AdderGraphError, UnsupportedError
from tests.codegen.elves import joined
from tests.codegen.test_certificate_refusals import GOOD, failures

SOURCE = "int f(int a, int b) { return a * b; }\n"


def built(folder: Path, command: str) -> bytes:
    (folder / "f.c").write_text(SOURCE)
    done = subprocess.run([*command.split(), "-c", "f.c", "-o", "f.o"], cwd=folder, check=False)
    if done.returncode:
        pytest.skip(f"this {command.split()[0]} cannot: {command}")
    return (folder / "f.o").read_bytes()


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        ("gcc", "-O1 -flto"),
        ("gcc", "-O1 -flto -ffat-lto-objects"),
        ("clang", "-O1 -flto"),
        ("clang", "-O1 -flto=thin"),
        ("clang", "-O1 -fembed-bitcode"),
        ("clang", "-O1 --target=wasm32"),
        ("clang", "-O1 --target=x86_64-pc-windows-msvc"),
        ("clang", "-O1 --target=x86_64-apple-macos"),
        ("clang", "-O1 --target=i386-linux-gnu"),
        ("clang", "-O1 --target=x86_64-linux-gnux32"),
        ("clang", "-O1 --target=aarch64_be-linux-gnu"),
        ("clang", "-O1 --target=mips64-linux-gnu"),
    ],
)
def test_an_object_whose_code_is_not_seen(tool: str, options: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}")
    data = joined(
        [Member("a.o", [GOOD], ("g",)), Member("b.o", [built(tmp_path, f"{tool} {options}")], ())]
    )
    with pytest.raises(AdderGraphError, match=r'x\.a\(b\.o\)"'):
        certify_bytes(data, "x.a")


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("int (*fp)(int); int f(int a) { return 1 + fp(a); }", UNKNOWN_PLACE),
        ("int g(int); static int (*const t[2])(int) = {g, g}; int f(int a) { return 1 + t[a](a); }",
         UNKNOWN_PLACE),
        ("extern int g(int); int f(int a) { return g(a); }", 'calls "g"'),
        ("extern int g[]; int f(int a) { return ((int (*)(int))g)(a); }", 'calls "g"'),
        ("__attribute__((weak)) int g(int a) { return a; } int f(int a) { return 1 + g(a); }",
         'calls "g", which is weak'),
        ("static int h(int a) { return a; } static void *r(void) { return h; } "
         'int g(int) __attribute__((ifunc("r")));', "IFUNC"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["-fno-pic", "-fPIC -fno-plt", "-mcmodel=large"])
def test_calls_that_a_compiler_makes(source: str, said: str, model: str, tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text(source)
    command = ["cc", "-O2", "-fcf-protection=none", *model.split(), "-c", "f.c"]
    if subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode:
        pytest.skip("this compiler has other options")
    found = failures((tmp_path / "f.o").read_bytes())
    assert any(said in f or UNKNOWN_PLACE in f for f in found), found


COUNTED = """
static const int table[4] = {1, 2, 3, 4};
static __attribute__((noinline)) int g(int a) { return a + table[a & 3]; }
int f(const unsigned char *x, int n)
{
    int s = 0;
    for (int i = 0; i < n; i++)
        s = x[i] > 9 ? g(s) : s + x[i];
    return s;
}
int h(const unsigned char *x) { return f(x, 3) + 1; }
"""


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-g -c", ""),
        ("-fno-pic -ffunction-sections -c", ""),
        ("-shared -fPIC -nostdlib -Wl,-Bsymbolic", ""),
        ("-static -nostdlib -Wl,-e,f", ""),
        ("-shared -fPIC -nostdlib", "calls by way of a table"),  # `f` may be another library's
        ("-shared -fPIC", "before or after main"),
    ],
)
def test_what_a_c_compiler_makes_without_products(options: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text(COUNTED)
    subprocess.run(["cc", "-O2", *options.split(), "-o", "f", "f.c"], cwd=tmp_path, check=True)
    data = (tmp_path / "f").read_bytes()
    if not said:
        assert failures(data) == []
        return
    with pytest.raises(UnsupportedError, match=said):
        certify_bytes(data, "f")
