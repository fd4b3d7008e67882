"""Depthwise and separable layers, and the network of them: from training to a C library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, zoo
from addergraph.data import digits
from addergraph.errors import AdderGraphError
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import trace
from addergraph.ir.types import tensor
from addergraph.layers.descriptions import describe, restore
from addergraph.training.schedules import cosine
from addergraph.verification.outputs import verify
from addergraph.zoo import mobilenet

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", [layers.DepthwiseAdder, layers.DepthwiseConv])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_each_channel_has_its_own_filters(
    kind: type[layers.DepthwiseAdder | layers.DepthwiseConv], multiplier: int
) -> None:
    x = RNG.normal(size=(2, 6, 5, 4)).astype(np.float32)
    layer = kind(3, stride=2, padding="same", multiplier=multiplier, bias=True)
    graph = trace(layer, tensor("f32", x.shape))
    f = RNG.normal(size=(3, 3, 1, 4 * multiplier)).astype(np.float32)
    b = np.arange(4 * multiplier, dtype=np.float32)
    y = interpret(graph, x, weights={"depthwise1.f": f, "depthwise1.b": b})
    padded = np.pad(x, ((0, 0), (0, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 3, 3, 4 * multiplier))
    for h, w, t in np.ndindex(3, 3, 4 * multiplier):
        window = padded[:, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3, t // multiplier]
        terms = -abs(window - f[..., 0, t]) if "Adder" in kind.__name__ else window * f[..., 0, t]
        expected[:, h, w, t] = terms.sum((1, 2)) + b[t]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("body", ["Adder", "Conv"])
def test_a_separable_layer_is_its_parts(body: str) -> None:
    whole = getattr(layers, f"Separable{body}")(8, 3, stride=2, padding="same", bias=True)
    graph = trace(whole, tensor("f32", (2, 6, 6, 4)))
    assert [n.name for n in graph.nodes] == [
        f"separable1.{part}" for part in ("depthwise", "bn", "act", "pointwise")
    ]
    assert graph.outputs[0].type.shape == (2, 3, 3, 8)
    sizes = {p.name: p.type.shape for p in graph.parameters}
    assert sizes["separable1.depthwise.f"] == (3, 3, 1, 4)
    assert sizes["separable1.pointwise.f"] == (1, 1, 4, 8)
    assert "separable1.pointwise.b" in sizes and "separable1.depthwise.b" not in sizes


def test_files_hold_them(tmp_path: Path) -> None:
    made: list[layers.Layer] = [
        layers.DepthwiseAdder(3, multiplier=2, eta=None), layers.SeparableAdder(3, 3, eta=0.1),
        layers.DepthwiseConv(3, padding="same"), layers.SeparableConv(2, 1), layers.Flatten(),
    ]  # fmt: skip
    assert describe(restore(describe(made))) == describe(made)
    model = Model(input_shape=(8, 8, 2))
    for layer in made:
        model.add(layer)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").graph(training=True, batch=2) == model.graph(True, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.DepthwiseAdder(3, multiplier=0), "multiplier=0"),
        (lambda: layers.SeparableConv(0, 3), "output_channels=0"),
        (lambda: layers.SeparableAdder(2, 3, padding="some"), 'padding="some"'),
        (lambda: layers.DepthwiseAdder(3, eta=-1.0), "eta"),
        (lambda: layers.SeparableAdder(2, 3, depth_multiplier=2), 'here it is "multiplier"'),  # type: ignore[call-arg]
    ],
)
def test_what_they_refuse(make: Callable[[], object], message: str) -> None:
    with pytest.raises(AdderGraphError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_objects")
def test_the_network_from_training_to_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two blocks of few channels, on digits of three classes: it learns, and its integers are
    those of NumPy in C."""
    monkeypatch.setattr(mobilenet, "FIRST", 16)
    monkeypatch.setattr(mobilenet, "BLOCKS", ((24, 2), (32, 2)))
    data, model = digits.load(), zoo.build("mobilenet_small", (8, 8, 1), 3)
    few = [np.flatnonzero(y < 3) for y in (data.y_train, data.y_test)]
    x, y = (a[few[0]][:256] for a in (data.x_train, data.y_train))
    model.fit(x, y, epochs=10, batch_size=32, learning_rate=cosine(0.1, 10), verbose=0)
    held = data.x_test[few[1]], data.y_test[few[1]]
    accuracy = model.evaluate(*held)["accuracy"]
    assert accuracy > 0.9
    q = ag.quantize(model, x)
    program = ag.compile(q)
    assert verify(q, program, samples=2).ok
    ag.export(q, tmp_path / "net", name="net")
    library = ag.load_native(tmp_path / "net")
    answers = [library.run([image[None]])[0] for image in q.inputs(held[0])]
    assert np.array_equal(np.concatenate(answers), program.run([q.inputs(held[0])])[0])
    right = np.concatenate(answers).argmax(-1) == held[1]
    assert right.mean() > accuracy - 0.05
