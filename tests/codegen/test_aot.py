"""aot: exported libraries, from C: complete, self-contained, reproducible, and bit-equal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.export.library import Exported
from addergraph.codegen.run.jit import Program
from addergraph.codegen.targets.lookup import runnable, target_named
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.errors import ToolchainError, UnsupportedError
from addergraph.ir.trace import Tensor
from tests.codegen.libraries import (
    CONSTANT,
    MIXED,
    NET,
    SHARED,
    built_c,
    compiled,
    drawn,
    require_same_bits,
    run_example,
)

pytestmark = pytest.mark.thinned(2)

LEVELS = [t.name for t in X86_LEVELS if runnable(t)]


@pytest.fixture(scope="module")
def net() -> Program:
    return compiled(NET)


@pytest.fixture(scope="module")
def library(net: Program, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return net.export(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def small() -> Program:
    return compiled(CONSTANT)


@pytest.fixture
def copied(library: Exported, tmp_path: Path) -> Path:
    """A copy of the exported folder, to damage."""
    folder = tmp_path / "copy"
    shutil.copytree(library.code.parent, folder)
    return folder


def lines_of(*command: str | Path) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# -- the example program -------------------------------------------------------------------------


@pytest.mark.needs("cc")
def test_the_example_program_gives_the_bits_of_the_program(net: Program, copied: Path) -> None:
    arrays = drawn(net.graph, batch=5)
    found = run_example(copied, net.graph, arrays, batch=5)
    require_same_bits(found, net.run(arrays))
    assert len(np.unique(found[0])) > 10


@pytest.mark.needs("cc")
@pytest.mark.parametrize("text", [MIXED, CONSTANT])
def test_a_bound_graph_runs_on_whole_tensors(text: str, tmp_path: Path) -> None:
    program = compiled(text)
    program.export(tmp_path, shared=False)
    arrays = drawn(program.graph)
    require_same_bits(run_example(tmp_path, program.graph, arrays), program.run(arrays))


@pytest.mark.needs("cc")
def test_an_input_without_a_batch_is_read_once(tmp_path: Path) -> None:
    program = compiled(SHARED)
    program.export(tmp_path, shared=False)
    arrays = drawn(program.graph, batch=4)
    found = run_example(tmp_path, program.graph, arrays, batch=4)
    require_same_bits(found, program.run(arrays))


@pytest.mark.needs("cc", "make")
def test_the_makefile_builds_and_tests_the_example(copied: Path) -> None:
    done = subprocess.run(
        ["make", "-C", copied / "example", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stderr


@pytest.mark.needs("cc")
def test_the_example_program_prints_without_output_files(net: Program, copied: Path) -> None:
    program = built_c(copied / "example" / "main.c", copied, "net")
    (array,) = drawn(net.graph, batch=2)
    array.tofile(copied / "in.bin")
    printed = lines_of(program, copied / "in.bin")
    probabilities, classes = net.run([array])
    for sample in range(2):
        name, *numbers = printed[2 * sample].split()
        assert name == "probabilities:"
        assert [np.float32(n) for n in numbers] == list(probabilities[sample])
        assert printed[2 * sample + 1] == f"class_: {classes[sample]}"


@pytest.mark.needs("cc")
def test_the_example_program_says_how_it_is_called(copied: Path) -> None:
    program = built_c(copied / "example" / "main.c", copied, "net")
    assert (
        lines_of(program, "--help")[0]
        == f"usage: {program} [image.bin [probabilities.bin class_.bin]]"
    )


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([b"12345678"], "image: ends inside a tensor"),
        ([b"", b"", b"", b""], "usage"),
        ([None], "cannot be opened"),
    ],
)
def test_the_example_program_refuses_wrong_files(
    copied: Path, given: list[bytes | None], message: str
) -> None:
    program = built_c(copied / "example" / "main.c", copied, "net")
    paths = [copied / f"in{i}" for i in range(len(given))]
    for path, content in zip(paths, given, strict=True):
        if content is not None:
            path.write_bytes(content)
    done = subprocess.run([program, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr


# -- the interface -------------------------------------------------------------------------------

CALLER = """
#include <pthread.h>
#include <string.h>
#include "net.h"

enum { THREADS = 3 };
static float image[NET_IMAGE_ELEMENTS], whole[NET_PROBABILITIES_ELEMENTS];
static float parts[NET_PROBABILITIES_ELEMENTS];
static int32_t class1, class2;
static unsigned char memory[NET_ARENA_BYTES + NET_ARENA_ALIGN];
static void *arena;

static void *work(void *thread)
{
    int32_t number = *(int32_t *)thread;
    return net_run_part(image, parts, &class2, arena, number, THREADS) == NET_OK ? NULL : thread;
}

int main(void)
{
    int32_t i, round, numbers[THREADS];
    pthread_t threads[THREADS];
    void *failed;

    arena = memory + (NET_ARENA_ALIGN - (uintptr_t)memory % NET_ARENA_ALIGN);
    if (net_run(NULL, whole, &class1, arena) != NET_ERROR_NULL) return 1;
    if (net_run(image, whole, NULL, arena) != NET_ERROR_NULL) return 2;
    if (net_run(image, whole, &class1, NULL) != NET_ERROR_NULL) return 3;
    if (net_run(image, whole, &class1, (char *)arena + 4) != NET_ERROR_ARENA) return 4;
    if (net_run_part(image, whole, &class1, arena, -1, 1) != NET_ERROR_THREAD) return 5;
    if (net_run_part(image, whole, &class1, arena, 1, 1) != NET_ERROR_THREAD) return 6;
    if (net_run_part(image, whole, &class1, arena, 0, 0) != NET_ERROR_THREAD) return 7;
    if (net_selftest(NULL) != NET_ERROR_NULL) return 8;
    if (net_selftest((char *)arena + 4) != NET_ERROR_ARENA) return 9;
    if (net_selftest(arena) != NET_OK) return 10;
    if (!strstr(net_metadata_json(), "\\"abi_version\\": 1")) return 11;
    for (round = 0; round < 20; round++) {
        for (i = 0; i < (int32_t)NET_IMAGE_ELEMENTS; i++)
            image[i] = (float)((i * 7 + round) % 11);
        if (net_run(image, whole, &class1, arena) != NET_OK) return 12;
        memset(parts, 0, sizeof parts);
        for (i = 0; i < THREADS; i++) {
            numbers[i] = i;
            if (pthread_create(&threads[i], NULL, work, &numbers[i])) return 13;
        }
        for (i = 0; i < THREADS; i++)
            if (pthread_join(threads[i], &failed) || failed) return 14;
        if (memcmp(whole, parts, sizeof whole) || class1 != class2) return 15;
    }
    return 0;
}
"""


@pytest.mark.needs("cc")
def test_codes_and_threads_from_c(library: Exported, tmp_path: Path) -> None:
    source = tmp_path / "caller.c"
    source.write_text("#define _POSIX_C_SOURCE 200112L\n" + CALLER)
    folder = library.code.parent
    program = built_c(source, folder, "net", f"-I{folder}", "-pthread")
    assert subprocess.run([program], check=False, timeout=60).returncode == 0


@pytest.mark.needs("cc", "nm")
@pytest.mark.parametrize("level", LEVELS)
def test_the_objects_need_nothing_and_show_only_the_interface(level: str, tmp_path: Path) -> None:
    made = compiled(NET, level).export(tmp_path)
    data = ["net_data_golden", "net_data_metadata", "net_data_weights"]
    api = ["net_metadata_json", "net_run", "net_run_part", "net_selftest", "net_supported"]
    assert sorted(line.split()[-1] for line in lines_of("nm", "-u", made.code)) == data
    assert lines_of("nm", "-u", made.data) == []
    assert sorted(line.split()[-1] for line in lines_of("nm", "-g", made.data)) == data
    defined = lines_of("nm", "-g", "--defined-only", made.code)
    assert sorted(line.split()[-1] for line in defined) == api
    assert made.shared is not None
    assert sorted(line.split()[-1] for line in lines_of("nm", "-D", made.shared)) == api
    # No symbol is writable data: in neither .data, .bss nor their local forms.
    kinds = {line.split()[-2] for line in lines_of("nm", made.code, made.data) if " " in line}
    assert kinds <= set("TtRrU")


@pytest.mark.needs("ar")
def test_the_archive_lists_its_members(library: Exported) -> None:
    assert lines_of("ar", "t", library.archive) == ["net.o", "net_data.o"]


@pytest.mark.parametrize(("kept", "kind"), [(0.4, "sparse"), (1.0, "minimum")])
def test_filters_choose_the_kernels_of_a_library(tmp_path: Path, kept: float, kind: str) -> None:
    def net(x: Tensor) -> Tensor:
        return ag.layers.Adder(32, 3, padding="same")(ag.ops.relu(x))

    model, rng = ag.Model(net, input_shape=(16, 16, 32)), np.random.default_rng(0)
    (f,) = model.weights.values()
    f[...] = np.where(rng.random(f.shape) < kept, 1, -1) * rng.random(f.shape)
    made = ag.export(model, tmp_path / "lib", target="x86-64-v3", tune_for="znver3")
    assert f"adder2d_{kind}_f32".encode() in made.code.read_bytes()


# -- the self-test -------------------------------------------------------------------------------


def damaged(folder: Path, block: bytes) -> int:
    """Flips a bit of `block` in the archive; what the example program then returns."""
    path = folder / "libnet.a"
    content = bytearray(path.read_bytes())
    assert content.count(block) == 1
    content[content.index(block) + 1] ^= 0x10
    path.write_bytes(content)
    program = built_c(folder / "example" / "main.c", folder, "net")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    found = re.search(r"returned (\d+)", done.stderr)
    assert done.returncode == 1 and found is not None, done.stderr
    return int(found[1])


@pytest.mark.needs("cc")
def test_the_selftest_finds_a_flipped_weight(net: Program, copied: Path) -> None:
    assert damaged(copied, net.weights["scale"].tobytes()) == 4


@pytest.mark.needs("cc")
def test_the_selftest_finds_an_output_of_other_bits(net: Program, copied: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 6, 6, 3), np.float32)
    assert damaged(copied, net.run([image])[0].tobytes()) == 5


# -- the files -----------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.codegen.libraries import NET, compiled
compiled(NET).export(sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(library: Exported, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(root)]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    subprocess.run(command, check=True, env=environment)
    first, second = library.code.parent, tmp_path
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.needs("cc")
def test_metadata_describes_the_library(library: Exported) -> None:
    metadata = json.loads(library.metadata.read_text())
    assert metadata["name"] == "net" and metadata["golden"] == {"exact": True, "seed": 0}
    assert metadata["inputs"] == [
        {"c_name": "image", "dtype": "f32", "name": "image", "shape": ["N", 6, 6, 3]}
    ]
    assert [o["c_name"] for o in metadata["outputs"]] == ["probabilities", "class_"]
    header = library.header.read_text()
    assert f"NET_ARENA_BYTES {metadata['arena_bytes']}u" in header
    assert sorted(metadata["files"]) == [
        "example/Makefile", "example/main.c", "libnet.a", "libnet.so", "net.h", "net.o",
        "net_data.o",
    ]  # fmt: skip
    assert str(library.code.parent) not in library.metadata.read_text()


def test_code_does_not_depend_on_weights(library: Exported, tmp_path: Path) -> None:
    other = compiled(NET, seed=1).export(tmp_path)
    assert other.code.read_bytes() == library.code.read_bytes()
    assert other.data.read_bytes() != library.data.read_bytes()


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_a_shared_library_for_another_machine_takes_its_compiler(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether this machine has it or not: none first, then one that is a script."""
    lowered = compiler.lower(ag.parse(CONSTANT), target_named(target))
    weights: dict[str, Any] = {}
    tools = tmp_path / "tools"
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("CC", "gcc-of-this-machine")  # says nothing of other machines
    with pytest.raises(ToolchainError, match=f'"{target}": looked for {target}-gcc'):
        export(lowered, weights, tmp_path / "a", shared=True)
    made = export(lowered, weights, tmp_path / "a")
    assert made.shared is None
    reason = json.loads(made.metadata.read_text())["no_shared_library"]
    assert reason == f"there was no C compiler ({target}-gcc) to link it"
    program(tools / f"{target}-gcc", "echo linked > libconstant.so")
    found = export(lowered, weights, tmp_path / "a").shared
    assert found is not None and found.read_text() == "linked\n"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, marks=pytest.mark.needs(f"{target}-gcc"))
        for target in ("aarch64-linux-gnu", "riscv64-linux-gnu")
    ],
)
def test_a_real_cross_compiler_links(target: str, tmp_path: Path) -> None:
    made = export(compiler.lower(ag.parse(CONSTANT), target_named(target)), {}, tmp_path)
    assert made.shared is not None
    machine = {"aarch64-linux-gnu": 183, "riscv64-linux-gnu": 243}[target]  # of ELF
    assert made.shared.read_bytes()[18:20] == machine.to_bytes(2, "little")


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.needs("cc")
def test_without_a_compiler_there_is_no_shared_library(
    net: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "net"
    assert net.export(folder).shared is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="looked for cc on the PATH; install one"):
        net.export(folder, shared=True)
    made = net.export(folder)
    assert made.shared is None
    assert not (folder / "libnet.so").exists(), "that of the first export is stale"
    metadata = json.loads(made.metadata.read_text())
    assert "no C compiler (cc)" in metadata["no_shared_library"]
    with pytest.raises(UnsupportedError, match="no shared library: there was no C compiler"):
        ag.load_native(folder)


def program(path: Path, script: str) -> Path:
    """A program that is a script of the shell, with this system's tools in reach."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'the linker is broken' >&2; exit 3", r"exit status 3\): the linker is broken"),
        ("printf '\\377' >&2; exit 1", r"exit status 1\): \ufffd"),
        ("exit 0", r"could not link libconstant\.so \(exit status 0\)"),  # and there is no library
    ],
)
def test_a_compiler_that_fails_costs_the_shared_library_alone(
    small: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setenv("CC", str(program(tmp_path / "broken", script)))
    made = small.export(tmp_path / "net")
    assert made.shared is None and made.archive.exists()
    assert re.search(said, json.loads(made.metadata.read_text())["no_shared_library"])
    with pytest.raises(UnsupportedError, match=f"no shared library: the C compiler .*{said}"):
        ag.load_native(tmp_path / "net")
    with pytest.raises(ToolchainError, match=f"{said}.*export with shared=False"):
        small.export(tmp_path / "net", shared=True)
    left = sorted(p.name for p in (tmp_path / "net").iterdir())
    assert left == [
        "constant.h", "constant.o", "constant_data.o", "example", "libconstant.a",
        "metadata.json",
    ]  # fmt: skip


@pytest.mark.needs("cc")
def test_the_compiler_is_the_one_that_cc_names(
    small: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = program(tmp_path / "wrapper", 'shift; exec cc "$@"')
    monkeypatch.setenv("CC", f"{wrapper} --launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert small.export(tmp_path / "net").shared is not None
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(ToolchainError, match="looked for no-such-compiler on the PATH"):
        small.export(tmp_path / "net", shared=True)
    monkeypatch.setenv("CC", "gcc 'unfinished")
    with pytest.raises(ToolchainError, match="CC=.* is no command: No closing quotation"):
        small.export(tmp_path / "net")


@pytest.mark.needs("cc")
def test_linking_needs_no_folder_for_temporary_files(
    small: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")  # even root cannot write there
    monkeypatch.setenv("TMPDIR", "/proc/self")
    monkeypatch.chdir(tmp_path)
    made = small.export("net")
    assert made.shared is not None
    assert not [p.name for p in (tmp_path / "net").iterdir() if p.name.startswith(".")]
