"""`addergraph import`: the authors' weights give the authors' logits, or errors that name keys."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from addergraph.cli import main as cli
from addergraph.cli.commands.import_weights import imported
from addergraph.errors import AdderGraphError, DataError, GraphError, StorageError, UnsupportedError
from addergraph.ir import Array
from addergraph.model import Model
from tests.addergraph.authors import RESNET18, RESNET20, RESNET50, Network, State, Topology, state


def images(size: int, count: int = 8, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 3, size, size)).astype(np.float32)


def calibrated(net: Topology, size: int, **options: Any) -> Network:
    network = Network(net, state(net), **options)
    network.calibrate(images(size))
    return network


def compare(network: Network, model: Model, size: int) -> None:
    """New images; the logits agree to 1e-4 of their norm and say different things of them."""
    known = model.preprocessing
    assert known is not None
    real = images(size, 3, seed=2).transpose(0, 2, 3, 1) * known.normalize.std
    pixels = np.clip(255 * (real + known.normalize.mean), 0, 255).astype(np.uint8)
    expected = network.logits(model.entering(pixels).transpose(0, 3, 1, 2))
    found = model.predict(pixels, engine="reference")
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    assert np.ptp(expected, axis=0).min() > 1e-3


def put(path: Path, weights: State, prefix: str = "") -> str:
    save_file({prefix + key: np.ascontiguousarray(a) for key, a in weights.items()}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_resnet20_from_safetensors_gives_the_same_logits(tmp_path: Path, prefix: str) -> None:
    network = calibrated(RESNET20, 8)
    file = put(tmp_path / "net.safetensors", network.weights, prefix)
    model = imported(file, "resnet20", (8, 8, 3))
    assert model.name == "resnet20" and len(model.layers) == 24
    compare(network, model, 8)


def test_the_command_writes_a_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = RESNET20._replace(classes=100)
    file, output = put(tmp_path / "a.safetensors", state(net)), tmp_path / "m.safetensors"
    with pytest.raises(SystemExit) as end:
        cli.main(["import", file, "--network", "resnet20", "-o", str(output)])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert "100 classes, samples of 32x32x3" in printed.out
    assert "u8 rgb pixels enter as (pixel * 0.00392157 - mean) / std, mean 0.4914" in printed.out
    model = Model.load(output)
    assert model.output_shape == (100,)
    layer3 = state(net)["layer3.1.conv2.adder"]
    assert np.array_equal(model.weights["stage3.block1.conv2.f"], layer3.transpose(2, 3, 1, 0))


def test_convolutional_forms_and_vectors_for_the_last_layer(tmp_path: Path) -> None:
    weights = state(RESNET20, body="weight")
    weights["fc.weight"] = weights["fc.weight"][:, :, 0, 0].astype(np.float64)
    model = imported(put(tmp_path / "a.safetensors", weights), "resnet20-conv", (8, 8, 3))
    assert np.array_equal(model.weights["last.f"], weights["fc.weight"].T.astype(np.float32))
    skip = weights["layer2.0.downsample.0.weight"]
    assert np.array_equal(model.weights["stage2.block0.skip.f"][0, 0], skip[:, :, 0, 0].T)


def test_every_key_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    weights = state(RESNET20)
    for key in ("bn1.weight", "layer1.0.conv1.adder", "layer3.2.bn2.running_var"):
        del weights[key]
    weights["layer1.0.conv1.weight"] = np.zeros((16, 16, 3, 3), np.float32)
    weights["extra"] = np.zeros(3, np.float32)
    weights["layer2.0.downsample.0.adder"] = np.zeros((16, 32, 1, 1), np.float32)
    weights["bn1.bias"] = np.zeros(16, np.int32)
    weights["bn2.bias"] = np.full(10, np.nan, np.float32)
    with pytest.raises(DataError) as caught:
        imported(put(tmp_path / "a.safetensors", weights), "resnet20")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "3 missing:",
        "bn1.weight",
        "layer1.0.conv1.adder",
        "layer3.2.bn2.running_var",
        "2 unexpected:",
        "extra",
        "layer1.0.conv1.weight",
        "3 that do not fit:",
        "bn1.bias: expected real numbers, found int32",
        "layer2.0.downsample.0.adder: expected [32,16,1,1], found [16,32,1,1]",
        "bn2.bias: has values that are not finite in f32",
    ]
    assert "a.safetensors" in str(caught.value)


def test_the_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "a.safetensors", state(RESNET20))
    with pytest.raises(DataError, match=r"layer1\.3\.conv1\.adder"):
        imported(file, "resnet32")
    other = put(tmp_path / "c.safetensors", state(RESNET20), "encoder.")
    with pytest.raises(DataError, match=r"its names are encoder\.\S+, .* expected ") as caught:
        imported(other, "resnet20")
    assert len(str(caught.value)) < 500
    weights = state(RESNET20)
    both = put(tmp_path / "b.safetensors", weights | {"module.bn1.bias": weights["bn1.bias"]})
    with pytest.raises(DataError, match='has "bn1.bias" twice, once as "module.bn1.bias"'):
        imported(both, "resnet20")


@pytest.mark.parametrize(
    ("file", "content", "network", "error", "said"),
    [
        ("a.safetensors", b"", "resnet21", GraphError, 'did you mean "resnet'),
        ("a.safetensors", b"", "vgg_small", GraphError, "known: resnet20, "),
        ("a.onnx", b"", "resnet20", StorageError, "neither a safetensors file nor a checkpoint"),
        ("none.safetensors", None, "resnet20", StorageError, "cannot read"),
        ("a.safetensors", b"12", "resnet20", StorageError, "or is damaged"),
        ("a.safetensors", b"\xff" * 64, "resnet20", StorageError, "or is damaged"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, file: str, content: bytes | None, network: str,
    error: type[AdderGraphError], said: str,
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=said):
        imported(str(tmp_path / file), network)


def test_without_pytorch_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_torch(name: str, *rest: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (tmp_path / "a.pth").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedError, match="pip install torch"):
        imported(str(tmp_path / "a.pth"), "resnet20")


# --- where PyTorch is installed -------------------------------------------------------------------


def tensors(torch: Any, weights: State, prefix: str = "") -> dict[str, Any]:
    return {prefix + key: torch.from_numpy(np.array(a)) for key, a in weights.items()}


def cdist(columns: Array, filters: Array) -> Array:
    import torch

    x, f = (torch.from_numpy(np.array(a)) for a in (columns, filters))
    return np.asarray(-torch.cdist(x, f, p=1).numpy())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "net", "size"),
    [("resnet20", RESNET20, 32), ("resnet18", RESNET18, 32), ("resnet50", RESNET50, 32)],
)
def test_a_pth_file_gives_the_same_logits(
    tmp_path: Path, name: str, net: Topology, size: int
) -> None:
    torch = pytest.importorskip("torch")
    network = calibrated(net, size, adder=cdist)
    torch.save(tensors(torch, network.weights, "module."), tmp_path / "a.pth")
    compare(network, imported(str(tmp_path / "a.pth"), name, (size, size, 3)), size)


def test_what_else_pytorch_files_hold(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file, weights = tmp_path / "a.pth", tensors(torch, state(RESNET20))
    torch.save({"epoch": 3, "state_dict": weights}, file)
    assert imported(str(file), "resnet20").output_shape == (10,)
    for content, said in (
        ([1, 2], "holds a list, expected a state dict"),
        (weights | {"epoch": 3}, "'epoch' is a int"),
        (torch.nn.Linear(2, 2), r"model\.state_dict\(\)"),
    ):
        torch.save(content, file)
        with pytest.raises((DataError, StorageError), match=said):
            imported(str(file), "resnet20")
    torch.save(weights, file)
    whole = file.read_bytes()
    for damaged in (b"", b"abc", whole[:1000], whole[: len(whole) // 2], b"\x80\x02" + whole[:99]):
        file.write_bytes(damaged)
        with pytest.raises(StorageError, match=r'a\.pth" is (neither|damaged, or holds)'):
            imported(str(file), "resnet20")
