"""`addergraph clip`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers
from tests.addergraph.models import adders_only
from tests.addergraph.shell import Shell

pytestmark = pytest.mark.usefixtures("quick_objects")

BASE = ("clip", "m.safetensors", "--data")
OUT = ("--quantile", 0.99, "-o", "c.safetensors")


@pytest.fixture
def network(shell: Shell) -> Model:
    """Trained weights in m.safetensors, samples with and without labels beside it."""
    model = adders_only()
    model.weights["adder_dense1.f"][...] *= 0.5  # other than those that its seed draws
    model.save("m.safetensors")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5, 5, 2)).astype(np.float32)
    parts: dict[str, Any] = {"x_train": x[:40], "x_val": x[40:60], "x_test": x[60:]}
    labels: dict[str, Any] = {
        f"y_{part}": rng.integers(0, 3, n) for part, n in (("train", 40), ("test", 30))
    }
    np.savez("x.npz", x=x[:40])
    np.savez("tested.npz", **labels, **{k: v for k, v in parts.items() if k != "x_val"})
    np.savez("validated.npz", **labels, **parts, y_val=rng.integers(0, 3, 20))
    np.savez("trained.npz", x_train=x, y_train=rng.integers(0, 3, 90))
    return model


def test_clip_and_what_it_says(shell: Shell, network: Model) -> None:
    out = shell.ok(*BASE, "validated.npz", *OUT, "--samples", 30, "--threads", 1)
    with np.load("validated.npz") as arrays:
        x, y, given = arrays["x_val"], arrays["y_val"], arrays["x_train"][:30]
    found = ag.activation_bounds(network, given, quantile=0.99)
    assert str(found) in out
    made = Model.load("c.safetensors")
    assert made.graph(False) == found.clip(network).graph(False)
    assert "on 20 validation images:" in out
    for name, value in network.evaluate(x, y).items():
        after = made.evaluate(x, y)[name]
        assert f"  {name} {value:.4f} before, {after:.4f} after" in out
    assert out.splitlines()[-1].startswith("wrote c.safetensors (")
    assert "clip" in shell.ok("inspect", "c.safetensors")


def test_taps_that_need_no_minimum_are_counted(shell: Shell, network: Model) -> None:
    model = Model(input_shape=(5, 5, 2), name="two", seed=1)
    for layer in (layers.Adder(4, 3), layers.BatchNorm(), layers.Activation("relu")):
        model.add(layer)
    model.add(layers.Adder(2, 3))
    model.weights["bn1.mean"][...] = -20.0
    taps = model.weights["adder2.f"].reshape(-1)
    taps[:20], taps[20:42], taps[42:] = 1e4, -1.0, 1e-6
    model.save("m.safetensors")
    out = shell.ok(*BASE, "x.npz", *OUT)
    assert "at or above the bound of their input, which need no minimum: 20 of 72 (28%)\n" in out
    out = shell.ok("summary", "c.safetensors")
    assert "\nf>=c: taps at or above c, the upper bound of their input" in out
    assert "f>=c:" not in shell.ok("summary", "m.safetensors")


def test_held_out_images(shell: Shell, network: Model) -> None:
    assert "on 30 test images:" in shell.ok(*BASE, "tested.npz", *OUT)
    assert "no images are held out" in shell.ok(*BASE, "trained.npz", *OUT, "--force")
    out = shell.ok(*BASE, "x.npz", *OUT, "--force")
    assert "no labels, so that no accuracy is measured" in out and "of 40 samples" in out


def test_errors(shell: Shell, network: Model) -> None:
    Path("c.safetensors").write_bytes(b"mine")
    error = shell.error(*BASE, "x.npz", *OUT)
    assert error == '"c.safetensors" exists: name another file (-o), or give --force'
    assert Path("c.safetensors").read_bytes() == b"mine"
    assert "ends in .safetensors" in shell.error(*BASE, "x.npz", "-o", "c.npz")
    error = shell.error(*BASE, "x.npz", "--quantile", 0.1, "-o", "d.safetensors")
    assert 'is 0 of relu "act1"' in error
    assert shell(*BASE, "x.npz", "--quantile", 0, "-o", "d.safetensors").status == 2
    rest = ("--data", "x.npz", "-o", "d.safetensors")
    Path("net.ag").write_text("graph g(%x: f32[N,4]) {\n  %y = relu(%x) : f32[N,4]\n  return %y }")
    assert "is the text of a graph" in shell.error("clip", "net.ag", *rest)
    with np.load("x.npz") as arrays:
        ag.quantize(network, arrays["x"]).save("q.safetensors")
        ag.activation_bounds(network, arrays["x"]).clip(network).save("clipped.safetensors")
    assert '"q.safetensors" is of integers' in shell.error("clip", "q.safetensors", *rest)
    assert "there is nothing to do" in shell.error("clip", "clipped.safetensors", *rest)
    assert "starts with random weights" in shell.error("clip", "resnet20", *rest)
    assert not Path("d.safetensors").exists()


def test_data_in_the_order_of_classes_are_seen_from_end_to_end(
    shell: Shell, network: Model
) -> None:
    shape = network.input_shape
    labels = np.repeat([0, 1], 20)
    x = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    x[20:] *= 5  # the first eight images know nothing of these
    np.savez("sorted.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    options = ("--data", "sorted.npz", "--samples", 8, "--quantile", 1.0)
    shell.ok("clip", "m.safetensors", *options, "-o", "c.safetensors")
    expected = ag.activation_bounds(network, x[::5], quantile=1.0).clip(network)
    assert Model.load("c.safetensors").graph(False) == expected.graph(False)
    alone = ag.activation_bounds(network, x[:8], quantile=1.0).clip(network)
    assert alone.graph(False) != expected.graph(False)
