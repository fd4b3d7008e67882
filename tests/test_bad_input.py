"""Bad input of every kind, from the outside: each is one clear error of the project's own tree.

An error names the op or file, what was found and what was expected; nothing of LLVM, NumPy or a
KeyError shows through, also not as the cause. What single modules refuse, their own tests say.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.errors import (
    AdderGraphError,
    DataError,
    GraphError,
    ParseError,
    ShapeError,
    StorageError,
    TargetError,
    ToolchainError,
)
from addergraph.files import storage
from addergraph.ir import Array, Graph
from addergraph.ir.trace import Tensor

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


def refused(call: Callable[[], object], error: type[AdderGraphError], *said: str) -> None:
    """`call` raises `error`, whose message holds all of `said` and whose traceback is its own."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in said:
        assert part in message
    shown = caught.value.__cause__ or (
        None if caught.value.__suppress_context__ else caught.value.__context__
    )
    assert shown is None, f"{shown!r} shows through"


def net(*shape: int) -> Model:
    """A model of one named adder layer, a dense layer and three classes."""
    model = Model(input_shape=shape or (6, 6, 2), name="net")
    model.add(layers.Adder(4, kernel_size=3, name="edges"))
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    return model


def traced(function: Callable[..., Any], *shapes: tuple[Any, ...]) -> Graph:
    return ag.trace(function, *(ag.tensor("f32", shape) for shape in shapes))


def adder(**attributes: Any) -> Graph:
    def function(x: Tensor, f: Tensor) -> Tensor:
        return ops.adder2d(x, f, name="edges", **attributes)

    return traced(function, ("N", 6, 6, 2), (3, 3, 2, 4))


# --- networks -------------------------------------------------------------------------------------

X, Y = np.zeros((5, 6, 6, 2), np.float32), np.arange(5) % 3


def altered(array: Array, index: Any, value: float) -> Array:
    changed = array.copy()
    changed[index] = value
    return changed


def twice_named() -> None:
    model = Model(input_shape=(4,))
    model.add(layers.Dense(3, name="head"))
    model.add(layers.Dense(3, name="head"))
    model.build((4,))


Case = tuple[Callable[[], object], type[AdderGraphError], tuple[str, ...]]
NETWORKS: dict[str, Case] = {
    "wrong rank": (
        lambda: traced(lambda x, f: ops.adder2d(x, f, name="edges"), ("N", 6, 2), (3, 3, 2, 4)),
        ShapeError, ('adder2d "edges"', "f32[N,6,2]", "NHWC (rank 4)"),
    ),
    "wrong rank in a model": (
        lambda: net(36).weights, ShapeError, ('adder2d "edges"', "f32[N,36]", "NHWC (rank 4)"),
    ),
    "channel mismatch": (
        lambda: traced(lambda x, f: ops.conv2d(x, f, name="c"), ("N", 6, 6, 2), (3, 3, 5, 4)),
        ShapeError, ('conv2d "c"', "2 channels", "expects 5"),
    ),
    "negative stride": (
        lambda: adder(stride=-1), ShapeError, ('adder2d "edges"', "stride=-1", "at least 1"),
    ),
    "zero stride": (
        lambda: adder(stride=(1, 0)), ShapeError, ('adder2d "edges"', "stride=0", "at least 1"),
    ),
    "zero stride of a layer": (
        lambda: layers.Conv(4, kernel_size=3, stride=0, name="c"),
        ShapeError, ('Conv "c"', "stride=0", "at least 1"),
    ),
    "zero stride of a pool": (
        lambda: traced(lambda x: ops.max_pool2d(x, 2, stride=0, name="p"), ("N", 6, 6, 2)),
        ShapeError, ('max_pool2d "p"', "stride=0", "at least 1"),
    ),
    "zero stride in text": (
        lambda: ag.parse(str(adder(stride=2)).replace("(2,2)", "(0,2)")),
        ParseError, ('adder2d "edges"', "stride=(0, 2)", "at least 1"),
    ),
    "padding by a word": (
        lambda: layers.Adder(4, kernel_size=3, padding="half", name="edges"),
        ShapeError, ('Adder "edges"', 'padding="half"', '"same" or "valid"'),
    ),
    "unknown layer": (
        lambda: layers.Adderr,  # type: ignore[attr-defined]
        GraphError, ('unknown layer "Adderr" (did you mean "Adder"?)',),
    ),
    "unknown loss": (
        lambda: Model(loss_name="cat_crossentropy"),
        GraphError, ('unknown loss "cat_crossentropy" (did you mean "cat_cross_entropy"?)',),
    ),
    "unknown activation": (
        lambda: layers.Activation("reul"),
        GraphError, ('unknown activation "reul" (did you mean "relu"?)',),
    ),
    "unknown op": (
        lambda: ops.adder2,  # type: ignore[attr-defined]
        GraphError, ('unknown op "adder2" (did you mean "adder2d"?)',),
    ),
    "duplicate names": (twice_named, GraphError, ('two layers are called "head"', "must differ")),
}  # fmt: skip

BYTES = """graph bytes(%x: u8[N,6,6,2] scale=0.25) {
  %y = max_pool2d(%x) window=(2,2) stride=(2,2) : u8[N,3,3,2]
  return %y
}"""
DATA: dict[str, Case] = {
    "empty training data": (
        lambda: net().fit(X[:0], Y[:0]), DataError, ("x is empty", "at least one sample"),
    ),
    "NaN": (
        lambda: net().fit(altered(X, (3, 1, 1, 0), np.nan), Y),
        DataError, ("sample 3 holds nan", "expected finite"),
    ),
    "Inf": (
        lambda: net().fit(altered(X, (1, 0, 0, 1), np.inf), Y),
        DataError, ("sample 1 holds inf", "expected finite"),
    ),
    "real numbers for a quantized input": (
        lambda: ag.compile(ag.parse(BYTES))(X),
        DataError, ("expected u8, found an array of float32", "scale=0.25", "q.inputs(x)"),
    ),
    "NaN in the targets": (
        lambda: net().fit(X, altered(np.eye(3)[Y], (2, 1), np.nan)),
        DataError, ("y: row 2 holds NaN", "expected finite"),
    ),
    "label too large": (
        lambda: net().fit(X, [0, 1, 3, 0, 1]),
        DataError, ("y: label 3 in row 2 is out of range", "labels are 0 to 2"),
    ),
    "negative label": (
        lambda: net().evaluate(X, [0, 1, 2, 0, -1]),
        DataError, ("y: label -1 in row 4 is out of range", "labels are 0 to 2"),
    ),
    "samples of another shape": (
        lambda: net().predict(np.zeros((5, 6, 6, 3))),
        DataError, ("(6, 6, 3)", "(6, 6, 2)"),
    ),
}  # fmt: skip

HEAD = "graph g(%x: f32[N,2]) {\n"
TEXT: dict[str, Case] = {
    "unknown op": (
        lambda: ag.parse(HEAD + "  %y = relv(%x) : f32[N,2]\n  return %y\n}"),
        ParseError, ("line 2", 'unknown op "relv" (did you mean "relu"?)'),
    ),
    "a node without its type": (
        lambda: ag.parse(HEAD + "  %y = relu(%x)\n  return %y\n}"),
        ParseError, ('expected ": f32[N,2]" behind relu(...), found "return"',),
    ),
    "a node of several results without their types": (
        lambda: ag.parse(
            HEAD.replace("N", "4") + "  %m, %v = batch_norm_statistics(%x)\n  return %m\n}"
        ),
        ParseError, ('expected ": f32[2], f32[2]" behind batch_norm_statistics(',),
    ),
    "a node without its type, of wrong operands": (
        lambda: ag.parse(HEAD + "  %y = relu(%x, %x)\n  return %y\n}"),
        ParseError, ("line 2", "relu: takes 1 operands (x), found 2"),
    ),
    "a fused node without its type": (
        lambda: ag.parse(HEAD + "  %y = fused(%x) {\n  return %y\n}"),
        ParseError, ('expected the types of the results behind fused(...), found "{"',),
    ),
    "cyclic": (
        lambda: ag.parse(
            HEAD + "  %y = add(%x, %z) : f32[N,2]\n  %z = relu(%y) : f32[N,2]\n  return %z\n}"
        ),
        ParseError, ("line 2", "%z is not defined above"),
    ),
    "dangling": (
        lambda: ag.parse(HEAD + "  %y = relu(%gone) : f32[N,2]\n  return %y\n}"),
        ParseError, ("line 2", "%gone is not defined above"),
    ),
    "dangling result": (
        lambda: ag.parse(HEAD + "  return %gone\n}"),
        ParseError, ("line 2", "%gone is not defined above"),
    ),
    "duplicate names": (
        lambda: ag.parse(HEAD + "  %x = relu(%x) : f32[N,2]\n  return %x\n}"),
        ParseError, ("line 2", "%x is defined twice", "must be unique"),
    ),
}  # fmt: skip

RELU = traced(ops.relu, ("N", 3))
TARGETS: dict[str, Case] = {
    "unknown CPU": (
        lambda: ag.compile(RELU, target="znver33"),
        TargetError, ('unknown target or CPU "znver33" (did you mean "znver3"?)', "known: host"),
    ),
    "unknown target": (
        lambda: ag.compile(RELU, target="x86_64-v3"),
        TargetError, ('"x86_64-v3" (did you mean "x86-64-v3"?)', "known: host"),
    ),
    "no name at all": (
        lambda: ag.compile(RELU, target=None),  # type: ignore[arg-type]
        TargetError, ('"None"', "known: host"),
    ),
    "a microcontroller": (
        lambda: ag.compile(RELU, target="stm32f4"),
        TargetError, ('"stm32f4" (every Cortex-M runs the code of thumbv6m, those with DSP',),
    ),
    "a phone": (
        lambda: ag.compile(RELU, target="cortex-a73"),
        TargetError, ('"cortex-a73" (64-bit ARM CPUs run the code of aarch64-linux-gnu)',),
    ),
    "another machine": (
        lambda: ag.compile(RELU, target="riscv64-linux-gnu"),
        TargetError, ("cannot run", '"riscv64-linux-gnu"', "export it"),
    ),
    "no graph": (
        lambda: ag.compile(np.tanh),  # type: ignore[arg-type]
        GraphError, ("expected a graph", "or a model", "found ufunc"),
    ),
    "threads": (
        lambda: ag.compile(RELU, threads="2"),  # type: ignore[arg-type]
        AdderGraphError, ("threads='2'", "an integer from 1 to 1024"),
    ),
    "batch": (
        lambda: ag.compile(RELU, batch=-1), ShapeError, ("batch=-1", "an integer of at least 0"),
    ),
}  # fmt: skip

CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("network", NETWORKS), ("data", DATA), ("text", TEXT), ("code", TARGETS))
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error(name: str) -> None:
    call, error, said = CASES[name]
    refused(call, error, *said)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_no_samples_to_predict_give_no_answers(engine: str) -> None:
    empty = net().predict(X[:0], engine=engine)
    assert empty.shape == (0, 3) and empty.dtype == np.float32


def test_no_samples_are_no_answers_of_a_program() -> None:
    assert ag.compile(net())(X[:0]).shape == (0, 3)  # type: ignore[union-attr]


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> bytes:
    """The bytes of a model file."""
    return _saved_bytes(net())


def _saved_bytes(model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        model.save(path)
        return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_model_file(stored: bytes, share: float, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(stored[: int(share * len(stored))])
    refused(lambda: Model.load(path), StorageError, "m.safetensors")


def test_a_flipped_bit_in_a_model_file(stored: bytes, tmp_path: Path) -> None:
    path, rng = tmp_path / "m.safetensors", random.Random(0)
    for _ in range(200):
        data = bytearray(stored)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        refused(lambda: Model.load(path), StorageError, "m.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("adder2d(", "adder3d(", 'unknown op "adder3d" (did you mean "adder2d"?)'),
        ("%flatten1", "%edges", "%edges is defined twice"),
        ("flatten(%edges)", "flatten(%edge)", "%edge is not defined above"),
    ],
)
def test_a_graph_in_a_model_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "m.safetensors"
    net().save(path)
    tensors, metadata = storage.load(path)
    assert old in metadata["graph"]
    storage.save(path, tensors, metadata | {"graph": metadata["graph"].replace(old, new)})
    refused(lambda: Model.load(path), StorageError, "m.safetensors", said)


def unwritable(tmp_path: Path) -> list[Path]:
    """Folders that nobody can make or write into, root neither."""
    file = tmp_path / "file"
    file.write_text("no folder")
    return [file / "folder", *([Path("/proc/addergraph")] if Path("/proc/self").is_dir() else [])]


def test_an_unwritable_output_folder(tmp_path: Path) -> None:
    program = ag.compile(RELU)
    for folder in unwritable(tmp_path):
        refused(lambda f=folder: program.export(f), StorageError, str(folder), "cannot write")  # type: ignore[misc]
        path = folder / "m.safetensors"
        refused(lambda p=path: net().save(p), StorageError, str(path), "cannot write")  # type: ignore[misc]


def test_a_missing_c_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = ag.compile(RELU)
    made = program.export(tmp_path / "out")
    assert made.shared is None and made.archive.is_file()
    refused(
        lambda: program.export(tmp_path / "out", shared=True),
        ToolchainError, "no C compiler", "looked for cc", "install one",
    )  # fmt: skip
    refused(lambda: ag.load_native(tmp_path / "out"), AdderGraphError, "no C compiler")


def test_a_failed_save_keeps_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bytes
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "m.safetensors"
    path.write_bytes(stored)
    monkeypatch.setattr(os, "fsync", full)
    refused(lambda: net().save(path), StorageError, str(path), "No space left", "free space")
    assert path.read_bytes() == stored
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


SAVES = """
import itertools, sys
import numpy as np
from addergraph import Model
model = Model.load(sys.argv[1])
for count in itertools.count(1):
    model.weights = {name: np.full_like(w, count) for name, w in model.weights.items()}
    model.save(sys.argv[1])
    if count == 1:
        print("saving", flush=True)
"""


@pytest.mark.slow
@posix
def test_killing_saves_leaves_a_whole_file_each_time(tmp_path: Path) -> None:
    path, rng = tmp_path / "m.safetensors", random.Random(1)
    net().save(path)
    for _ in range(8):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert saver.stdout is not None
        with saver.stdout:
            assert saver.stdout.readline() == "saving\n"
            time.sleep(rng.uniform(0.0, 0.03))
            saver.send_signal(signal.SIGKILL)
        assert saver.wait(60) == -signal.SIGKILL
        values = {float(v) for w in Model.load(path).weights.values() for v in w.flat}
        assert len(values) == 1 and values.pop() >= 1.0  # of one save, none of another


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("summary bad.ag", '"bad.ag", line 2, column 8: unknown op "relv"'),
        ("summary cut.safetensors", '"cut.safetensors" is truncated'),
        ("compile net.safetensors -o file/out", 'cannot write into the folder "file/out"'),
        ("inspect net.safetensors --plan --target i9", 'unknown target or CPU "i9"'),
        ("train --data nan.npz -o m.safetensors --epochs 1", "sample 1 holds nan"),
        ("train --data none.npz -o m.safetensors", "has no images to train on"),
        ("train --model bad.ag -o m.safetensors", '"bad.ag" is the text of a graph'),
        ("train --model small-addr -o m.safetensors", '(did you mean "small-adder"?)'),
        ("train -o file/m.safetensors", 'cannot write "file/m.safetensors"'),
        pytest.param(
            "train -o /proc/m.safetensors", 'cannot write "/proc/m.safetensors"',
            marks=pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc"),
        ),
    ],
)  # fmt: skip
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, stored: bytes, arguments: str, said: str
) -> None:
    (tmp_path / "bad.ag").write_text(HEAD + "  %y = relv(%x) : f32[N,2]\n  return %y\n}")
    (tmp_path / "net.safetensors").write_bytes(stored)
    (tmp_path / "cut.safetensors").write_bytes(stored[: len(stored) // 9])
    (tmp_path / "file").touch()
    np.savez(
        tmp_path / "nan.npz", x=altered(np.zeros((4, 8, 8)), (1, 0, 0), np.nan), y=np.arange(4)
    )
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 8, 8)), y=np.arange(0))
    done = subprocess.run(
        [sys.executable, "-m", "addergraph", *arguments.split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ") and said in first
    assert all(line.startswith("  ") for line in rest)  # the line of a text, and a caret
    assert "epoch" not in done.stdout
