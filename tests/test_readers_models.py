"""As test_readers.py, for files of models, training runs and libraries, and weights of others."""

from __future__ import annotations

import json
import struct
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.cli.commands import import_weights
from addergraph.cli.commands.source import open_source
from addergraph.errors import (
    DataError,
    GraphError,
    StorageError,
)
from addergraph.files import storage
from addergraph.layers import descriptions
from addergraph.training import recipes
from addergraph.training.logs import read_log
from tests import borders
from tests.damage import flipped, ours, within

# --- models, checkpoints, recipes -----------------------------------------------------------------


def resealed(path: Path, entry: str, change: Callable[[Any], Any]) -> None:
    """The file with another JSON entry, under a checksum that fits."""
    tensors, metadata = storage.load(path)
    content = change(json.loads(metadata[entry]))
    storage.save(path, tensors, metadata | {entry: json.dumps(content)})


@pytest.mark.parametrize(
    "change",
    [
        {"input_shape": [float("inf")]}, {"input_shape": [10**400]}, {"input_shape": [1.5, "a"]},
        {"input_shape": []}, {"seed": 10**4000}, {"seed": -1}, {"name": "\ud800"}, {"name": "a/b"},
        {"name": "n" * 300}, {"loss_name": "\udc80"}, {"layers": [{"kind": "Adder"}]},
        {"layers": {"kind": []}}, {"layers": [[]]}, {"layers": [{"kind": "Dense", "a": 1}]},
        {"layers": [{"kind": "Dense", "output_channels": 10**30}]},
        {"layers": [{"kind": "Dense", "output_channels": float("nan")}]},
        {"layers": [{"repeat": 0}]}, {"layers": [{"kind": "Residual", "body": 3}]},
    ],
)  # fmt: skip
def test_resealed_models(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "m.safetensors"
    borders.built().save(path)
    resealed(path, "model", lambda found: found | change)
    with pytest.raises(StorageError, match=r"m\.safetensors|description of the model"):
        Model.load(path)


def test_a_surrogate_in_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors, metadata = {"a": np.zeros(1, np.float32)}, {"format": "\ud800"}
    storage.save(path, tensors, metadata)
    with pytest.raises(StorageError, match="metadata is incomplete"):
        storage.load(path)


def run(folder: Path, epochs: int = 2) -> None:
    borders.net().fit(
        borders.X, borders.Y, epochs=epochs, checkpoint=folder, resume=True, verbose=0,
        engine="reference", keep_best=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    run(folder, 1)
    return (folder / "checkpoint.safetensors").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1}, {"epoch": 10**30}, {"epoch": 1.5}, {"step": 10**400}, {"best_epoch": 9},
        {"loss": float("nan")}, {"seconds": -1.0}, {"seconds": float("inf")}, {"history": []},
        {"history": {}}, {"history": {"loss": 3, "seconds": 3}}, {"correct": "a"},
        {"history": {"loss": [1.0, 2.0], "seconds": [1.0, 2.0]}},
        {"history": {"loss": ["a"], "seconds": [1.0]}}, {"loss": 10**400},
    ],
)  # fmt: skip
def test_resealed_checkpoints(tmp_path: Path, checkpoint: bytes, change: dict[str, Any]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(checkpoint)
    resealed(path, "position", lambda found: found | change)
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors"):
        run(tmp_path)


@pytest.mark.parametrize("prefix", ["state/", "best/"])
def test_a_checkpoint_with_other_arrays(tmp_path: Path, checkpoint: bytes, prefix: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(checkpoint)
    tensors, metadata = storage.load(path)
    for change in ("shape", "missing"):
        other = dict(tensors)
        del other[f"{prefix}dense1.b"]
        if change == "shape":
            other[f"{prefix}dense1.b"] = np.zeros(7, np.float32)
        storage.save(path, other, metadata)
        with pytest.raises(StorageError, match=r"checkpoint\.safetensors\" is damaged"):
            run(tmp_path)


RECIPE = recipes.BUILT_IN["quick"][1].text()


def test_a_recipe_with_a_byte_order_mark() -> None:
    assert recipes.parse(b"\xef\xbb\xbf" + RECIPE.encode()) == recipes.BUILT_IN["quick"][1]


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 30_000 + " = 1", "[" + "1." * 30_000 + "1]",
        "a = {" + "b." * 30_000 + "c = 1}",
        "a = " + "[" * 30_000, "epochs = " + "9" * 5000, RECIPE.replace("= 5", f"= {10**400}", 1),
        RECIPE.replace("base = 0.1", f"base = {10**400}"), "\0", "x" * (1 << 20),
        RECIPE.replace("base = 0.1", "base = inf"), RECIPE.replace("base = 0.1", "base = nan"),
        RECIPE.replace("[data]", "[data]\ncrop = 1979-05-27"),
        RECIPE.replace("= 128", f"= {2**63}").replace("= 5", "= 1" + "0" * 30),
    ],
)  # fmt: skip
def test_recipes_that_are_none(text: str) -> None:
    with within(32 << 20, 5.0), pytest.raises(DataError, match="recipe"):
        recipes.parse(text.encode())


def test_damaged_recipes() -> None:
    for changed in flipped(RECIPE.encode(), 400):
        ours(recipes.parse, changed)


# --- logs, metadata, weights of others ------------------------------------------------------------


def test_logs_that_are_none(tmp_path: Path) -> None:
    csv, jsonl = tmp_path / "log.csv", tmp_path / "log.jsonl"
    for content in (b"a,b\n1,\0", b'a\n"' + b"1" * 200_000 + b'"\n', b"a\n\xff", b""):
        csv.write_bytes(content)
        assert ours(lambda: read_log(csv))
    jsonl.write_text("".join(f'{{"c{n}": 1}}\n' for n in range(3000)))
    with within(8 << 20, 5.0), pytest.raises(DataError, match="3000 columns"):
        read_log(jsonl)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"}, {"name": "x\0"}, {"name": "n" * 300}, {"name": ["a"]}, {"name": ""},
        {"arena_bytes": float("inf")}, {"arena_bytes": float("nan")}, {"arena_bytes": -1},
        {"arena_bytes": 10**400}, {"files": []}, {"files": None}, {"target": 3}, {"inputs": 3},
        {"inputs": [{"name": "x", "dtype": "f32", "shape": [float("inf")]}]},
        {"inputs": [{"name": "x", "dtype": [], "shape": []}]}, {"target": {"name": "\ud800"}},
    ],
)  # fmt: skip
def test_the_metadata_of_a_library(tmp_path: Path, change: dict[str, Any]) -> None:
    path = borders.exported() / "metadata.json"
    metadata = json.loads(path.read_text()) | change
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(StorageError, match="metadata"):
        ag.load_native(tmp_path)


def foreign(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, content = {}, b""
    for name, (kind, shape, raw) in tensors.items():
        ends = [len(content), len(content) + len(raw)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": ends}
        content += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_bf16_is_read_as_f32(tmp_path: Path) -> None:
    numbers = np.array([1.0, -2.5, np.inf, 3.0], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = tmp_path / "weights"
    path.write_bytes(foreign({"w": ("BF16", [2, 2], halves), "n": ("I64", [], bytes(8))}))
    state = import_weights.read_state(str(path))
    assert state["w"].dtype == np.float32 and state["n"].shape == ()
    assert (state["w"].reshape(-1) == numbers).all()


def test_damaged_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    whole = foreign({"w": ("F32", [2, 2], bytes(16)), "v": ("F16", [3], bytes(6))})
    for changed in flipped(whole, 400):
        path.write_bytes(changed)
        ours(lambda: import_weights.read_state(str(path)))
    kinds: list[object] = ["F8_E4M3", ["F32"], {}, None, 2]
    entries: list[tuple[Any, Any]] = [(kind, [1]) for kind in kinds]
    for entry in [*entries, ("F32", [-1, -1]), ("F32", [2**70]), ("F32", "ab")]:
        path.write_bytes(foreign({"w": (*entry, bytes(4))}))
        assert ours(lambda: import_weights.read_state(str(path)))


def test_a_model_of_any_name_and_text_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "model.bak"
    borders.built().save(path)
    assert open_source(str(path)).model is not None
    text = str(borders.built().graph(training=False))
    (tmp_path / "g.ag").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert str(open_source(str(tmp_path / "g.ag")).graph) == text
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbfepoch,loss\n1,2\n")
    assert list(read_log(tmp_path / "log.csv")) == ["epoch", "loss"]


class FakeTensor:
    """As much of a tensor as the search for a state dict looks at."""


TORCH = types.SimpleNamespace(Tensor=FakeTensor)


@pytest.mark.parametrize("key", ["net", "state_dict", "model", "whatever"])
def test_a_state_dict_is_found_by_its_content(key: str) -> None:
    state = {"fc.weight": FakeTensor()}
    assert import_weights._inner("a.th", {key: state, "epoch": 3, "optimizer": {}}, TORCH) is state
    assert import_weights._inner("a.th", state, TORCH) is state


def test_one_of_several_state_dicts() -> None:
    one, two = {"a": FakeTensor()}, {"a": FakeTensor()}
    both = {"student": one, "teacher": two}
    with pytest.raises(DataError, match="several state dicts: student, teacher"):
        import_weights._inner("a.th", both, TORCH)
    assert import_weights._inner("a.th", {"ema": one, "state_dict": two}, TORCH) is two


@pytest.mark.parametrize("error", [AssertionError, RecursionError, KeyError, MemoryError, OSError])
def test_whatever_pytorch_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error("of the old format")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    path = tmp_path / "model_best.pth.tar"
    path.write_bytes(b"\x80\x02" + bytes(20))
    with pytest.raises(StorageError, match=r"pth\.tar\" is damaged, or holds more than tensors"):
        import_weights.read_state(str(path))


def test_devices_are_no_files() -> None:
    for read in (Model.load, storage.read_bytes, import_weights.read_state):
        with pytest.raises(StorageError, match="is a device"):
            read("/dev/zero")


@pytest.mark.fuzz
def test_many_described_layers_take_time_by_their_number() -> None:
    one = {"kind": "Activation", "function": "relu", "name": None}

    def seconds(count: int) -> float:
        start = time.monotonic()
        model = Model(input_shape=(8,))
        for layer in descriptions.restore([one] * count):
            model.add(layer)
        model.graph(training=False)
        return time.monotonic() - start

    assert seconds(40_000) < 8 * seconds(10_000)


def test_a_layer_inside_layers() -> None:
    nested: list[Any] = [{"kind": "Flatten", "name": None}]
    for _ in range(200):
        nested = [{"kind": "Residual", "name": None, "body": nested, "shortcut": []}]
    with pytest.raises(GraphError, match="deep"):
        descriptions.restore(nested)
    assert layers.Flatten().prefix == "flatten" and callable(ops.relu)
