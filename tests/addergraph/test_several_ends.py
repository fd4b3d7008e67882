"""Models with several inputs and outputs: what they take and answer, their files, what refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.cli.commands.source import model_in_file, open_trained
from addergraph.data import Normalize, Preprocessing
from addergraph.errors import (
    AdderGraphError,
    DataError,
    GraphError,
    ShapeError,
    StorageError,
    UnsupportedError,
)
from addergraph.files import storage
from addergraph.ir.interpreter import run_reference
from addergraph.ir.trace import Tensor
from addergraph.model import predictor
from tests.addergraph.models import SHAPES, both_ends, fit, of_two_ends, same_weights, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

PIXELS = Preprocessing(Normalize((0.5,), (0.25,), 1 / 255), channels="grey")
X, Y = both_ends()


@pytest.fixture(scope="module")
def trained() -> Model:
    model = of_two_ends(preprocessing=PIXELS)
    fit(model, X, Y, epochs=2)
    return model


# --- answers --------------------------------------------------------------------------------------


def test_answers_come_by_name(trained: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained.predict(X, engine="reference")
    graph, weights = trained.inference_graph(), trained.inference_weights()
    expected, _ = run_reference(graph, [X["image"], X["meta"]], weights)
    assert list(found) == ["class", "size"] == [v.name for v in graph.outputs]
    assert all(map(np.array_equal, found.values(), expected))
    monkeypatch.setattr(predictor, "CHUNK", 16)  # in parts, by order, in another order of the dict
    for x in ((X["image"], X["meta"]), dict(reversed(X.items()))):
        again = trained.predict(x, engine="reference")
        assert all(np.array_equal(again[name], found[name]) for name in found)
    native = trained.predict(X)
    assert all(np.allclose(native[name], found[name], atol=1e-4) for name in found)
    empty = trained.predict({name: array[:0] for name, array in X.items()})
    assert {name: array.shape for name, array in empty.items()} == {"class": (0, 3), "size": (0, 1)}


def test_one_input_and_one_output_have_no_names_but_may_be_given_by_it() -> None:
    model = Model(lambda image: {"score": layers.Dense(2)(image)}, input_shape=(4,), seed=3)
    found = model.predict({"image": X["meta"]}, engine="reference")
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, model.predict(X["meta"], engine="reference"))
    assert (model.input_shape, model.output_shape) == ((4,), (2,))
    assert (model.input_shapes, model.output_shapes) == ({"image": (4,)}, {"score": (2,)})


@pytest.mark.parametrize("shape", [SHAPES, dict(reversed(SHAPES.items())), [(6, 6, 1), (4,)]])
def test_shapes_by_name_or_in_order(shape: object) -> None:
    model = of_two_ends(input_shape=shape)
    assert model.input_shapes == SHAPES and list(model.input_shapes) == ["image", "meta"]
    assert model.output_shapes == {"class": (3,), "size": (1,)}
    assert repr(model).startswith('<Model "both" of samples image (6, 6, 1), meta (4,)')
    with pytest.raises(UnsupportedError, match=r"one input, found 2: image \(6, 6, 1\), meta"):
        model.input_shape  # noqa: B018
    with pytest.raises(UnsupportedError, match="one output, found 2: class"):
        model.output_shape  # noqa: B018
    with pytest.raises(ShapeError, match=r"takes samples of shape image \(6, 6, 1\), meta \(4,\)"):
        model.build({**SHAPES, "meta": (5,)})


# --- the images are one input's -------------------------------------------------------------------


def test_the_preprocessing_is_that_of_the_images(trained: Model) -> None:
    graph = trained.inference_graph()
    assert [str(v.type) for v in graph.inputs] == ["u8[N,6,6,1]", "f32[N,4]"]
    entering = trained.entering(X)
    assert np.array_equal(entering["image"], PIXELS.apply(X["image"]))
    assert np.array_equal(entering["meta"], X["meta"])
    plain = of_two_ends(input_shape=SHAPES)
    plain.weights = trained.weights
    found = [m.predict(x, engine="reference") for m, x in ((trained, X), (plain, entering))]
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-4) for name in found[0])
    with pytest.raises(DataError, match=r'x\["image"\]: this model takes pixels as bytes'):
        trained.predict({**X, "image": X["image"] + 0.5})


def two_images(left: Tensor, right: Tensor) -> Tensor:
    return layers.Dense(2)(ops.flatten(left - right))


def test_of_two_images_somebody_says_which() -> None:
    x = {"left": X["image"], "right": X["image"] / np.float32(255)}
    shapes = {name: (6, 6, 1) for name in x}
    with pytest.raises(DataError, match="does not say which of the inputs left, right"):
        Model(two_images, input_shape=shapes, preprocessing=PIXELS)
    named = Preprocessing(PIXELS.normalize, input="left")
    model = Model(two_images, input_shape=shapes, preprocessing=named)
    assert np.array_equal(model.entering(x)["left"], PIXELS.apply(x["left"]))
    assert np.array_equal(model.entering(x)["right"], x["right"])
    assert "u8 pixels of left enter as" in str(model.preprocessing)
    with pytest.raises(DataError, match=r'input="lef" \(did you mean "left"\?\); expected left, r'):
        model.preprocessing = Preprocessing(PIXELS.normalize, input="lef")


# --- files ----------------------------------------------------------------------------------------


def test_a_file_has_all_of_it_and_trains_on(trained: Model, tmp_path: Path) -> None:
    trained.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    assert loaded.preprocessing == PIXELS
    assert (loaded.loss, loaded.loss_weights) == (trained.loss, {"class": 1.0, "size": 1.0})
    assert loaded.input_shapes == SHAPES and loaded.output_shapes == trained.output_shapes
    assert loaded.graph(training=False) == trained.graph(training=False)
    others = [loaded, of_two_ends(preprocessing=PIXELS, input_shape=SHAPES)]
    others[1].weights = trained.weights
    histories = [fit(model, X, Y, epochs=2).history for model in others]
    for history in histories:
        del history["seconds"]
    assert histories[0] == histories[1] and same_weights(*others)


def test_what_a_file_says_of_its_ends_is_checked(trained: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    trained.save(path)
    tensors, metadata = storage.load(path)
    model = json.loads(metadata["model"])
    assert model["input_shape"] == {name: list(shape) for name, shape in SHAPES.items()}
    assert model["loss_name"] == {"class": "cat_cross_entropy", "size": "mean_squared_error"}
    for key, value, said in (
        ("input_shape", {"image": [6, 6, 1]}, 'lacks "meta"'),
        ("input_shape", {"image": [6, 6, 1], "meta": [5]}, r"expected f32\[N,6,6,1\], f32\[N,5\]"),
        ("input_shape", [6, 6, 1], "expected a dict with image, meta"),
        ("loss_name", {"class": "huber"}, 'no loss reads the output "size"'),
        ("loss_name", {"class": "huber", "size": 3}, "unknown loss 3"),
        ("loss_weights", {"class": -1.0}, 'that of "class" is -1.0'),
        ("loss_weights", [1.0, 2.0], "loss_weights = "),
    ):
        changed = {**metadata, "model": json.dumps({**model, key: value})}
        storage.save(path, tensors, changed)
        with pytest.raises(StorageError, match=said):
            Model.load(path)


def test_files_of_one_input_and_one_output_are_what_they_were(tmp_path: Path) -> None:
    model = small_model(input_shape=(8, 8, 1), name="small", seed=4, preprocessing=PIXELS)
    model.save(tmp_path / "m.safetensors")
    _, metadata = storage.load(tmp_path / "m.safetensors")
    described = metadata["model"]
    assert described.startswith('{"input_shape": [8, 8, 1], "layers": [{"')
    assert described.endswith('"loss_name": "cat_cross_entropy", "name": "small", "seed": 4}')
    assert metadata["preprocessing"] == (
        '{"channels": "grey", "classes": null, "dtype": "u8", "normalize": '
        '{"mean": [0.5], "scale": 0.00392156862745098, "std": [0.25]}}'
    )


# --- names ----------------------------------------------------------------------------------------


def test_outputs_are_called_as_the_dict_says() -> None:
    graph = of_two_ends(input_shape=SHAPES).graph(training=False)
    assert {"edges.f", "head.f"} <= {p.name for p in graph.parameters}
    made = ag.trace(lambda a: {"a": a, "b": ops.relu(a)}, ag.tensor("f32", ("N", 3)), name="g")
    assert str(made) == ("graph g(%a: f32[N,3]) {\n  %b = relu(%a) : f32[N,3]\n  return %a, %b\n}")


@pytest.mark.parametrize(
    ("net", "error", "said"),
    [
        (lambda a: {"b": a, "c": ops.relu(a)}, GraphError, 'returned %a as its output "b"'),
        (lambda a: (lambda y: {"b": y, "c": y})(ops.relu(a)), GraphError, "as two outputs.*once"),
        (lambda a: {"q": ops.relu(layers.Dense(2, name="q")(a))}, GraphError, "layers have name="),
        (lambda a: {3: ops.relu(a)}, GraphError, "returned 3 as the name of an output"),
        (lambda a: {"two words": ops.relu(a)}, GraphError, 'value name "two words"'),
        (lambda a: {}, GraphError, r"maps f32\[N,4\] to nothing"),
        (lambda a: (lambda y: (y, y))(ops.relu(a)), GraphError, '"relu" twice.*Return it once'),
        (lambda a: {"q": ops.relu(a), "val_q": ops.neg(a)}, GraphError, "call it otherwise"),
        (lambda a: {"q": ops.argmax(a, 1)}, GraphError, r"maps f32\[N,4\] to i32\[N\]"),
        (lambda a: [ops.relu(a), 3], GraphError, "returned 3; expected symbolic tensors"),
    ],
)
def test_outputs_that_cannot_be(
    net: Callable[[Tensor], Any], error: type[AdderGraphError], said: str
) -> None:
    with pytest.raises(error, match=said):
        Model(net, input_shape=(4,), loss="huber").build((4,))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (lambda *tensors: tensors[0], r'any number of tensors as "\*tensors": name each'),
        (lambda image, *others: image, r'"\*others"'),
        (lambda **named: named["a"], "takes no tensor: name each"),
        (lambda: None, "takes no tensor"),
    ],
)
def test_a_function_names_its_inputs(net: Callable[..., Any], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        Model(net)


def test_an_input_that_nothing_reads() -> None:
    with pytest.raises(GraphError, match='input "image" of "model" reaches none of its outputs'):
        Model(lambda image, meta: layers.Dense(2)(meta), input_shape=SHAPES).build(SHAPES)


@pytest.mark.parametrize("several", [False, True])
def test_names_that_a_training_step_has_too(several: bool) -> None:
    def net(targets: Tensor, learning_rate: Tensor) -> dict[str, Tensor] | Tensor:
        both = layers.Dense(2, name="loss")(layers.Concatenate()(targets, learning_rate))
        return {"size": both, "learning_rate_1": layers.Dense(1)(both)} if several else both

    model, x = Model(net, loss="huber", seed=1), np.ones((4, 2))
    y = (x, x[:, :1]) if several else x
    history = fit(model, (x, 2 * x), y, epochs=3, batch_size=4, engine="reference").history
    assert history["loss"][-1] < history["loss"][0]


# --- what takes one input or output ---------------------------------------------------------------


def test_what_takes_one_input_says_so(trained: Model, tmp_path: Path) -> None:
    path = str(tmp_path / "m.safetensors")
    trained.save(path)
    for call in (
        lambda: ag.quantize(trained, X["image"]),
        lambda: ag.quantization_aware(trained, X),
        lambda: open_trained(path),  # evaluate, predict
        lambda: model_in_file(path),  # train, diagnose
    ):
        with pytest.raises(
            UnsupportedError, match="one input, found 2: image .*model.input_shapes"
        ):
            call()
    with pytest.raises(UnsupportedError, match="has 2 inputs, %image, %meta: quantize takes one"):
        ag.quantize(trained.graph(training=False), X["image"], weights=trained.weights)
    with pytest.raises(UnsupportedError, match='"both" has 2 outputs, class, size'):
        trained.with_classes(4)


def test_several_outputs_of_one_input_become_integers(tmp_path: Path) -> None:
    def net(image: Tensor) -> dict[str, Tensor]:
        found = layers.BatchNorm()(layers.Adder(4, kernel_size=3)(image))
        found = layers.GlobalAvgPool()(layers.Activation("relu")(found))
        return {"class": layers.Dense(3)(found), "size": layers.Dense(1)(found)}

    model = Model(net, loss="huber", preprocessing=PIXELS)
    targets = (np.eye(3)[Y["class"]], Y["size"])
    fit(model, X["image"], targets, epochs=2)
    made = ag.quantize(model, X["image"])
    assert [v.name for v in made.graph.outputs] == ["class.output", "size.output"]
    found = made.outputs(ag.compile(made).run([X["image"]]))
    for scores, expected in zip(found, model.predict(X["image"]).values(), strict=True):
        assert np.abs(scores - expected).max() < 0.2 * np.abs(expected).max()
    assert (made.outputs(ag.compile(made).run([X["image"]])[0]) == found[0]).all()
    with pytest.raises(DataError, match=r"expected a tuple of 2, class.output, .*; found one of 1"):
        made.outputs(found[:1])
    made.save(tmp_path / "q.safetensors")
    with pytest.raises(UnsupportedError, match=r"one output, found 2: class\.output \(3,\), size"):
        open_trained(str(tmp_path / "q.safetensors"))


def test_compiling_verifying_and_exporting(trained: Model, tmp_path: Path) -> None:
    program = ag.compile(trained)
    found = program.run([X["image"], X["meta"]])
    assert all(map(np.array_equal, found, trained.predict(X).values()))
    assert ag.verify(trained, program, samples=20).ok
    exported = ag.export(trained, tmp_path / "library")
    header = exported.header.read_text()
    assert "image: u8[" in header and "size: f32[" in header
    assert "Images. image holds one image: 6 rows of 6 pixels of 1 byte" in header
    assert '#define BOTH_IMAGE_FORMAT "GREY8"' in header
    told = json.loads(exported.metadata.read_text())["image"]
    assert told["input"] == "image" and told["height"] == 6
    named = Preprocessing(PIXELS.normalize, classes=("a", "b", "c"))

    def one_input(image: Tensor) -> dict[str, Tensor]:
        y = ops.flatten(image)
        return {"size": layers.Dense(1)(y), "class": layers.Dense(3)(y)}

    model = Model(one_input, input_shape=(6, 6, 1), preprocessing=named, name="one")
    header = ag.export(model, tmp_path / "other").header.read_text()
    assert "#define ONE_IMAGE_HEIGHT 6" in header and "ONE_CLASSES" not in header
    assert "class" in trained._repr_html_() and "image" in trained.summary_text()
