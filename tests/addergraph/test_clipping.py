"""Upper bounds of activations from calibration, and models that have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.data import Normalize, Preprocessing
from addergraph.diagnostics.activations import activations
from addergraph.errors import (
    DataError,
    GraphError,
    ShapeError,
    StorageError,
    UnsupportedError,
)
from addergraph.files import storage
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import interpret
from addergraph.ir.text import parse
from addergraph.ir.trace import Tensor
from addergraph.ir.walk import returning
from addergraph.model.clipping import ActivationBounds
from addergraph.passes.clip_relus import relu_peaks
from tests.addergraph.models import SHAPES, X, Y, adders_only, f32, fit, same_weights, two_ends
from tests.passes.networks import settled

pytestmark = pytest.mark.usefixtures("quick_objects")

SAMPLES = np.random.default_rng(0).normal(size=(150, 5, 5, 2)).astype(np.float32)  # three chunks


def with_shortcut(x: Tensor) -> Tensor:
    x = layers.Conv(4, 3, padding=1)(x)
    y = layers.BatchNorm()(layers.Adder(4, 3, padding=1)(layers.Activation("relu")(x)))
    x = layers.AvgPool(2)(layers.Activation("relu")(x + y))
    return layers.Dense(10)(layers.Dropout(0.2)(layers.Flatten()(x)))


def function_model() -> Model:
    model = Model(with_shortcut, input_shape=(8, 8, 1), name="shortcut")
    model.weights = settled(model.graph(training=False), model.entering(X))
    return model


def of(*more: layers.Layer, shape: tuple[int, ...] = (4,)) -> Model:
    model = Model(input_shape=shape, name="small")
    for layer in more:
        model.add(layer)
    return model


def clipped(model: Model, x: object, **settings: Any) -> Model:
    return ag.activation_bounds(model, x, **settings).clip(model)


def results(model: Model, x: Array, op: str = "relu") -> dict[str, Array]:
    """What every node of this op gives, by NumPy."""
    graph = model.graph(training=False)
    shown = [n.outputs[0] for n in graph.nodes if n.op.name == op]
    found = interpret(returning(graph, shown), x, weights=model.weights)
    arrays = found if isinstance(found, tuple) else (found,)
    return {v.name: np.asarray(a) for v, a in zip(shown, arrays, strict=True)}


# --- the bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.75, 0.9, 0.999, 0.9997, 1.0])
def test_bounds_are_the_quantiles_of_all_results(quantile: float) -> None:
    """To the bit of `np.quantile`, over several chunks."""
    model = adders_only()
    found = ag.activation_bounds(model, SAMPLES, quantile=quantile, engine="reference")
    ((name, values),) = results(model, SAMPLES).items()
    assert (found.model, found.samples, found.quantile) == ("tiny", 150, quantile)
    assert [*found.peaks] == [name]
    peak = found.peaks[name]
    assert peak.most == float(values.max())
    assert peak.bound == float(np.float32(np.quantile(values, quantile)))
    assert peak.above == np.mean(values > np.float32(peak.bound))


@pytest.mark.parametrize("seed", range(6))
def test_quantiles_among_few_and_equal_values(seed: int) -> None:
    """Both neighbours may be in one upper half of the bits, in two, or equal."""
    rng = np.random.default_rng(seed)
    graph = parse("graph g(%x: f32[N,3]) {\n  %y = relu(%x) : f32[N,3]\n  return %y }")
    x = np.exp(rng.normal(0, 9, (1 + 40 * seed, 3))).astype(np.float32)
    if seed % 2:
        x = np.round(rng.exponential(2.0, x.shape)).astype(np.float32) - 1
    engine = ag.model.engines.Interpreted()
    y = np.maximum(x, 0)
    for quantile in (*rng.uniform(0.7, 1, 20), 0.5 + 0.5 / y.size, 1.0):
        expected = np.float32(np.quantile(y, quantile))
        if not expected:
            continue
        found = relu_peaks(graph, {}, graph.nodes, x, float(quantile), engine)["y"]
        assert found == (float(expected), float(y.max()), float(np.mean(y > expected)))


def test_any_number_of_threads_and_images_as_they_are() -> None:
    model = of(layers.Conv(3, 3), layers.Activation("relu"), layers.Flatten(), layers.Dense(4),
               layers.Activation("relu"), layers.Dense(2), shape=(6, 6, 1))  # fmt: skip
    images = np.random.default_rng(1).integers(0, 256, (130, 6, 6, 1), np.uint8)
    model.preprocessing = Preprocessing(Normalize((0.4,), (0.3,), 1 / 255), "u8")
    one = ag.activation_bounds(model, images, threads=1)
    assert one == ag.activation_bounds(model, images, threads=2)
    assert [*one.peaks] == ["act1", "act2"]
    entered = np.array(model.entering(images))
    for name, values in results(model, entered).items():
        np.testing.assert_allclose(one.peaks[name].bound, np.quantile(values, 0.9997), rtol=1e-5)
    made = clipped(model, images)
    assert made.preprocessing == model.preprocessing and made.name == "small"
    assert made.predict(images).shape == (130, 2)


def test_the_report_reads_well() -> None:
    found = ag.activation_bounds(adders_only(), SAMPLES, quantile=0.99)
    assert repr(found) == '<ActivationBounds of "tiny": 1 relu, quantile 0.99 of 150 samples>'
    head, names, _, row = str(found).splitlines()
    assert head == 'of "tiny": 1 relu, quantile 0.99 of 150 samples'
    assert names.split() == ["relu", "bound", "largest", "above"]
    assert row.split()[0] == "%act1" and row.split()[3] == f"{found.peaks['act1'].above:.3%}"
    assert "<table>" in found._repr_html_() and "%act1" in found._repr_html_()


# --- the model ------------------------------------------------------------------------------------


def test_relus_become_clips_and_all_else_stays() -> None:
    model = function_model()
    model.freeze("conv1")
    x = model.entering(X)
    found = ag.activation_bounds(model, x, quantile=0.9)
    made = found.clip(model)
    for training, batch in ((False, None), (True, 8)):
        expected = str(model.graph(training, batch))
        for name, peak in found.peaks.items():
            (line,) = (one for one in expected.splitlines() if f"%{name} = relu" in one)
            limited = line.replace("relu(", "clip(").replace(") :", f") lo=0 hi={peak.bound!r} :")
            expected = expected.replace(line, limited)
        assert str(made.graph(training, batch)) == expected
    assert same_weights(made, model) and made.frozen == model.frozen == ["conv1.f"]
    made.weights["dense1.b"][...] = 7.0
    assert not same_weights(made, model)  # its own
    for name, values in results(made, x, "clip").items():
        assert values.max() == np.float32(found.peaks[name].bound)
    assert [n.op.name for n in model.graph(False).nodes].count("relu") == 2  # as it was


def test_the_gradient_is_that_of_clip() -> None:
    model = of(layers.Dense(1), layers.Activation("relu"))
    model.weights = {"dense1.f": f32([[1], [0], [0], [0]]), "dense1.b": f32([0])}
    x = np.zeros((5, 4), np.float32)
    x[:, 0] = (-1, 0.5, 1, 2, 4)
    made = model.bounded({"act1": 2.0})
    gradient = ag.grad(made.graph(False).bind(5), ["x"])
    (dx,) = np.asarray(
        ag.interpret(gradient, x, np.ones((5, 1), np.float32), weights=made.weights)
    )[None]
    assert dx[:, 0].tolist() == [0, 1, 1, 1, 0]


def test_a_function_is_kept_in_both_forms(tmp_path: Path) -> None:
    model = function_model()
    made = clipped(model, model.entering(X), engine="reference")
    made.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(False) == made.graph(False)
    kept = [n.op for n in again.graph(True, 4).nodes]
    assert [op.name for op in kept].count("clip") == 2
    assert {op.key for op in kept} == {n.op.key for n in made.graph(True, 4).nodes}


@pytest.mark.parametrize("stored", [False, True])
def test_a_bounded_function_gets_other_classes(tmp_path: Path, stored: bool) -> None:
    model = function_model()
    made = clipped(model, model.entering(X), engine="reference")
    if stored:
        made.save(tmp_path / "m.safetensors")
        made = Model.load(tmp_path / "m.safetensors")
    fewer = made.with_classes(4)
    assert fewer.output_shape == (4,)
    clips = [[n.op for n in m.graph(False).nodes if n.op.name == "clip"] for m in (fewer, made)]
    assert clips[0] == clips[1] and len(clips[0]) == 2


@pytest.mark.parametrize(
    "kind", [adders_only, pytest.param(function_model, marks=pytest.mark.slow)]
)
def test_it_is_saved_trained_and_exported_as_others(
    tmp_path: Path, kind: Callable[[], Model]
) -> None:
    model = kind()
    x, y = (SAMPLES, np.arange(150) % 3) if kind is adders_only else (model.entering(X), Y)
    made = clipped(model, x, quantile=0.99)
    made.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(False) == made.graph(False) and same_weights(again, made)
    losses = [fit(m, x, y).history["loss"] for m in (made, again)]
    assert losses[0] == losses[1] and math.isfinite(losses[0][-1])
    assert "clip" in again.summary_text()
    program = ag.compile(again)
    assert ag.verify(again, program, 4).ok
    aware = ag.quantization_aware(again, x, bits=6)
    aware.save(tmp_path / "aware.safetensors")
    loaded = Model.load(tmp_path / "aware.safetensors")
    assert loaded.graph(True, 4) == aware.graph(True, 4)
    assert fit(loaded, x, y).history["loss"] == fit(aware, x, y).history["loss"]
    other = again.with_classes(4).graph(False)
    assert [n.op.name for n in other.nodes].count("clip") == len(
        ag.activation_bounds(model, x).peaks
    )


def test_integers_end_where_the_bounds_are() -> None:
    made = clipped(adders_only(), SAMPLES, quantile=0.99)
    quantized = ag.quantize(made, SAMPLES, quantile=1.0, requantize="multiply")
    (bound,) = (n.op.hi for n in made.graph(False).nodes if n.op.name == "clip")  # type: ignore[attr-defined]
    (node,) = (n for n in quantized.graph.nodes if n.name == "act1")
    assert node.op.scale * 255 == pytest.approx(bound)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_diagnosis_sees_bounded_relus() -> None:
    model = function_model()
    made = clipped(model, model.entering(X))
    shown = {one.node: one.dead for one in activations(made, X)}
    assert shown.keys() == {one.node for one in activations(model, X)}
    assert None not in (shown["act1"], shown["act2"])


def test_relus_of_parameters_alone_stay() -> None:
    def net(x: Tensor) -> Tensor:
        return ops.relu(layers.Dense(3)(x)) + ops.relu(
            ag.ir.trace.new_parameter(x, "p", ag.tensor("f32", (3,)), ag.ir.Init("ones"))
        )

    model = Model(net, input_shape=(4,))
    made = clipped(model, SAMPLES.reshape(-1, 4))
    assert [n.op.name for n in made.graph(True, 2).nodes if n.op.name in ("relu", "clip")] == [
        "clip", "relu"
    ]  # fmt: skip


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0, -0.1, 1.1, math.nan, "much"])
def test_odd_quantiles(quantile: object) -> None:
    with pytest.raises(DataError, match=r"quantile=.* must be above 0 and at most 1"):
        clipped(adders_only(), SAMPLES, quantile=quantile)


def test_dead_relus_are_named() -> None:
    model = adders_only()
    with pytest.raises(DataError, match=r'never above 0 .*: relu "act1"\. .*diagnose'):
        ag.activation_bounds(model, SAMPLES + 1000)
    with pytest.raises(DataError, match=r'quantile=0\.1 of the results is 0 of relu "act1"'):
        ag.activation_bounds(model, SAMPLES, quantile=0.1)


def test_calibration_data_that_say_nothing() -> None:
    model = adders_only()
    broken = SAMPLES.copy()
    broken[140, 2, 2, 1] = np.nan
    with pytest.raises(DataError, match="hold NaN or infinities"):
        ag.activation_bounds(model, broken)
    with pytest.raises(DataError, match="are empty"):
        ag.activation_bounds(model, SAMPLES[:0])
    with pytest.raises(DataError, match="have shape"):
        ag.activation_bounds(model, SAMPLES[..., :1])
    model.weights["bn1.mean"][2] = np.nan
    with pytest.raises(DataError, match="%act1 is not finite"):
        ag.activation_bounds(model, SAMPLES)


def test_models_with_nothing_to_bound() -> None:
    x = SAMPLES.reshape(-1, 4)
    with pytest.raises(GraphError, match='"small" has no relu'):
        clipped(of(layers.Dense(2), layers.Activation("leaky_relu")), x)
    with pytest.raises(GraphError, match='is bounded already, by relu6 "act1": there is nothing'):
        clipped(of(layers.Dense(2), layers.Activation("relu6")), x)
    made = clipped(adders_only(), SAMPLES)
    with pytest.raises(GraphError, match='"tiny" is bounded already, by clip "act1"'):
        clipped(made, SAMPLES)


def test_models_of_another_kind() -> None:
    model = adders_only()
    with pytest.raises(UnsupportedError, match="this model is of integers"):
        clipped(ag.quantize(model, SAMPLES), SAMPLES)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="before, then make it quantization-aware"):
        clipped(ag.quantization_aware(model, SAMPLES), SAMPLES)
    with pytest.raises(GraphError, match="expected a model"):
        clipped(model.graph(False), SAMPLES)  # type: ignore[arg-type]
    several = Model(two_ends, input_shape=SHAPES, loss="huber")
    with pytest.raises(UnsupportedError, match="expected a model of one input"):
        clipped(several, SAMPLES)


FUSED = """graph net(%x: f32[N,4]) {
  %y = fused(%x) : f32[N,4] {
    graph body(%a0: f32[N,4]) {
      %v0 = relu(%a0) : f32[N,4]
      return %v0
    }
  }
  return %y
}"""


def test_relus_inside_of_fused_nodes_are_refused() -> None:
    model = Model(input_shape=(4,))
    model.restore(parse(FUSED))
    with pytest.raises(UnsupportedError, match='fused "y" of "net" has a relu inside'):
        clipped(model, SAMPLES.reshape(-1, 4))


def test_bounds_of_another_network() -> None:
    found = ag.activation_bounds(adders_only(), SAMPLES)
    assert isinstance(found, ActivationBounds)
    with pytest.raises(GraphError, match='nothing is known of the relu "act2"'):
        found.clip(function_model())
    with pytest.raises(GraphError, match='it has no "other"'):
        adders_only().bounded({"act1": 1.0, "other": 1.0}).graph(False)
    for odd in (0, -1.0, math.nan, math.inf, "1"):
        with pytest.raises(GraphError, match="expected a number above 0"):
            adders_only().bounded({"act1": odd})  # type: ignore[dict-item]


def test_files_with_other_bounds_than_they_may_have(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    made = clipped(adders_only(), SAMPLES)
    made.save(path)
    tensors, metadata = storage.load(path)
    for old, new in (("lo=0 hi=", "lo=-1 hi="), ("lo=0 hi=", "lo=0 hi=-")):
        changed = metadata | {"graph": metadata["graph"].replace(old, new)}
        storage.save(path, tensors, changed)
        with pytest.raises((StorageError, ShapeError), match=r"do not build|must not exceed"):
            Model.load(path)


def with_another_relu(x: Tensor) -> Tensor:
    x = layers.Activation("relu", name="a")(layers.Dense(3)(x))
    return layers.Activation("relu", name="b")(x) if x.builder.training else x


def test_a_training_form_with_other_relus_is_refused() -> None:
    model = Model(with_another_relu, input_shape=(4,))
    made = clipped(model, SAMPLES.reshape(-1, 4))
    with pytest.raises(GraphError, match='nothing is known of the relu "b"'):
        made.graph(training=True, batch=2)


def test_the_graph_is_the_same_for_equal_bounds() -> None:
    """Bounds are numbers of f32, which the text of a graph keeps."""
    made = clipped(adders_only(), SAMPLES)
    graph: Graph = made.graph(False)
    assert parse(str(graph)) == graph
    (hi,) = (n.op.hi for n in graph.nodes if n.op.name == "clip")  # type: ignore[attr-defined]
    assert hi == float(np.float32(hi))
