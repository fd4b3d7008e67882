"""native: exported libraries in Python give the program's bits; damage is found before it runs."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.export.folder import sha256
from addergraph.codegen.export.interface import interface_of
from addergraph.codegen.run.jit import Program
from addergraph.codegen.run.native import NativeLibrary, load
from addergraph.codegen.targets.lookup import runnable, target_named
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.errors import (
    DataError,
    ShapeError,
    StorageError,
    TargetError,
    UnsupportedError,
    VerificationError,
)
from addergraph.ir.state import initial_weights
from tests.codegen.harness import guarded
from tests.codegen.libraries import CONSTANT, MIXED, NET, SHARED, compiled, drawn, require_same_bits

pytestmark = pytest.mark.needs("cc")
LEVELS = [t.name for t in X86_LEVELS if runnable(t)]


@pytest.fixture(scope="module")
def net() -> Program:
    return compiled(NET)


@pytest.fixture(scope="module")
def folder(net: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("net")
    net.export(made)
    return made


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the exported folder, to damage."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_a_library_gives_the_bits_of_the_program(net: Program, folder: Path, batch: int) -> None:
    library = ag.load_native(folder)
    ends = repr(net).partition(": ")[2]
    assert repr(library) == f'<NativeLibrary "{library.metadata["name"]}": {ends}'
    arrays = drawn(net.graph, batch)
    require_same_bits(library.run(arrays), net.run(arrays))
    library.selftest()


@pytest.mark.thinned(3)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", [NET, MIXED, SHARED, CONSTANT])
def test_every_graph_at_every_level(text: str, level: str, tmp_path: Path) -> None:
    program = compiled(text, level)
    program.export(tmp_path)
    library = load(tmp_path)
    batch = 3 if program.graph.is_open else 1
    arrays = drawn(program.graph, batch)
    require_same_bits(library.run(arrays), program.run(arrays))
    library.selftest()


def test_a_single_output_comes_alone(tmp_path: Path) -> None:
    compiled(CONSTANT).export(tmp_path)
    assert np.array_equal(load(tmp_path)(), np.full(3, 2.5, np.float32))


def test_inputs_are_checked_like_those_of_a_program(folder: Path) -> None:
    library = load(folder)
    with pytest.raises(ShapeError, match=r'graph "net", input %image: expected f32\[N,6,6,3\]'):
        library(np.zeros((2, 6, 6, 4), np.float32))
    with pytest.raises(DataError, match="takes 1 inputs"):
        library()


def test_many_threads_may_call_at_once(net: Program, folder: Path) -> None:
    library = load(folder)
    (array,) = drawn(net.graph, batch=40)
    expected = net.run([array])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(library.run, [[array]] * 12):
            require_same_bits(found, expected)


@pytest.mark.slow
def test_a_second_export_into_the_same_folder_is_what_runs(tmp_path: Path) -> None:
    arrays = drawn(ag.parse(NET))
    results = []
    for seed in (0, 1):
        program = compiled(NET, seed=seed)
        program.export(tmp_path)
        results.append(load(tmp_path).run(arrays)[0])
        require_same_bits(results[-1:], program.run(arrays)[:1])
    assert not np.array_equal(results[0], results[1])


@pytest.mark.parametrize("right", [True, False])
def test_a_run_stays_in_its_buffers(net: Program, folder: Path, right: bool) -> None:
    library = load(folder)
    interface = interface_of(net.built.lowered)
    (image,) = drawn(net.graph)
    expected = net.run([image])
    with (
        guarded(image.nbytes, right) as x,
        guarded(expected[0].nbytes, right) as y,
        guarded(expected[1].nbytes, right) as c,
        guarded(interface.arena_bytes, right) as arena,
    ):
        x.bytes[:] = image.reshape(-1).view(np.uint8)
        x.freeze()
        pointers = [ctypes.c_void_p(b.address) for b in (x, y, c, arena)]
        assert library._run(*pointers) == 0
        assert y.bytes.tobytes() == expected[0].tobytes()
        assert c.bytes.tobytes() == expected[1].tobytes()
        # As the header says: the arena may hold anything, the barrier and the end stay untouched.
        assert (arena.bytes[:64] == 0xA5).all()
        assert (arena.bytes[interface.run_bytes :] == 0xA5).all()
        assert library._selftest(pointers[3]) == 0


# -- damage --------------------------------------------------------------------------------------


def repaired(folder: Path, change: Callable[[bytearray], None]) -> NativeLibrary:
    """Changes the library and its digest alike, as only malice would."""
    path = folder / "libnet.so"
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    described(folder, lambda m: m["files"].update({"libnet.so": sha256(bytes(content))}))
    return load(folder)


def described(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes metadata.json."""
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def test_a_flipped_bit_in_the_library_is_found(copied: Path) -> None:
    path = copied / "libnet.so"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"libnet\.so\" is damaged or of another export"):
        load(copied)


def test_the_selftest_finds_a_flipped_weight(net: Program, copied: Path) -> None:
    def change(content: bytearray) -> None:
        content[content.index(net.weights["scale"].tobytes())] ^= 1  # the least bit of one

    library = repaired(copied, change)
    with pytest.raises(VerificationError, match="net_selftest returned 4: .*weights differ"):
        library.selftest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.update(format=99),
            "version 99 and ABI 1, this program reads version 1 and",
        ),
        (lambda m: m.update(abi_version=None), "ABI None"),
        (lambda m: m.pop("target"), "is damaged"),
        (lambda m: m.update(inputs=[{"name": "x", "dtype": "f99", "shape": []}]), "is damaged"),
        (lambda m: m.update(files=None), "is damaged"),
        (lambda m: m.update(arena_bytes="many"), "is damaged"),
        (lambda m: m.update(arena_bytes=64), '"arena_bytes" is 64, the library says'),
        (lambda m: m["outputs"][0]["shape"].append(1), '"outputs" is .*, the library says'),
        (lambda m: m.update(golden=None), '"golden" is None, the library says'),
    ],
)
def test_damaged_metadata_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    described(copied, change)
    with pytest.raises(StorageError, match=message):
        load(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\udcff"])
def test_metadata_that_is_no_object_is_refused(copied: Path, text: str) -> None:
    (copied / "metadata.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match=r'metadata\.json" is damaged'):
        load(copied)


def test_a_folder_without_an_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r'cannot read ".*metadata\.json"'):
        load(tmp_path)


def test_code_for_another_machine_is_not_loaded(tmp_path: Path) -> None:
    graph = ag.parse(NET)
    lowered = compiler.lower(graph, target_named("aarch64-linux-gnu"))
    export(lowered, initial_weights(graph), tmp_path, shared=False)
    with pytest.raises(TargetError, match='code for "aarch64-linux-gnu", which this machine'):
        load(tmp_path)


def test_no_shared_library_says_why(net: Program, tmp_path: Path) -> None:
    net.export(tmp_path, shared=False)
    with pytest.raises(UnsupportedError, match="no shared library: not asked for; export again"):
        load(tmp_path)
