"""What a pixel is: declared once, applied by everything that takes images."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers
from addergraph.data import Dataset, Normalize, Preprocessing, load
from addergraph.data.preprocessing import entry, from_entry
from addergraph.errors import DataError, DataWarning
from addergraph.ir import Array, Graph, Value
from addergraph.ir.state import initial_weights
from addergraph.quantization import load_quantized

pytestmark = pytest.mark.thinned(2)

RNG = np.random.default_rng(0)
IMAGES: Array = RNG.integers(0, 256, (40, 6, 5, 3), np.uint8)
CLASSES: Array = RNG.integers(0, 3, 40)
SHARED = Preprocessing(Normalize((0.0,) * 3, (1.0,) * 3), channels="rgb")
CENTERED = Preprocessing(Normalize((128 / 255,) * 3, (0.25,) * 3), channels="rgb")
OWN = Preprocessing(Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)), channels="rgb")
FORMS = {"shared": SHARED, "centered": CENTERED, "own": OWN}


def network(preprocessing: Preprocessing | None = None) -> Model:
    model = Model(input_shape=(6, 5, 3), name="net", preprocessing=preprocessing)
    model.add(layers.Adder(4, kernel_size=3, padding=1, eta=0.2, name="first"))
    model.add(layers.BatchNorm(name="bn"))
    model.add(layers.Activation("relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(3, name="last"))
    model.weights["bn.mean"][...] = -20
    return model


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_computes_what_normalize_does_to_the_bit(form: str) -> None:
    model, plain = network(FORMS[form]), network()
    given = FORMS[form].apply(IMAGES)
    assert np.array_equal(model.entering(IMAGES), given)
    found, expected = model.predict(IMAGES), plain.predict(given)
    assert np.array_equal(ag.compile(model)(IMAGES), found)
    if form == "shared":  # known to be at least 0, so minima may be summed
        assert np.allclose(found, expected, rtol=0, atol=1e-4)
    else:
        assert np.array_equal(found, expected)
    graph, weights = model.inference_graph(), model.inference_weights()
    first = Graph(graph.name, graph.inputs, graph.parameters, graph.nodes, (_entered(graph),))
    assert np.array_equal(ag.interpret(first, IMAGES, weights=weights), given)
    assert ag.verify(model, ag.compile(model), samples=4).ok


def _entered(graph: Graph) -> Value:
    return next(node for node in graph.nodes if node.op.name == "adder2d").inputs[0]


def test_a_number_that_channels_share_stands_in_the_graph() -> None:
    assert network(SHARED).inference_weights().keys() == network().weights.keys()
    new = network(OWN).inference_weights().keys() - network().weights.keys()
    assert new == {"x.factor", "x.offset"}
    assert "x.factor" not in network(OWN).weights


@pytest.mark.parametrize("kind", ["list", "f8", "i8", "big-endian", "strided", "masked"])
def test_images_in_any_form_are_the_same_images(kind: str) -> None:
    model = network(OWN)
    images = IMAGES[:4] // 2
    forms = {
        "list": images.tolist(), "f8": images.astype("f8"), "i8": images.astype("i1"),
        "big-endian": images.astype(">u2"), "strided": np.repeat(images, 2, axis=2)[:, :, ::2],
        "masked": np.ma.masked_array(images),
    }  # fmt: skip
    assert np.array_equal(model.predict(forms[kind]), model.predict(images))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([IMAGES[0], IMAGES[1][:3]], r"found arrays \(6, 5, 3\), \(3, 5, 3\) \(its rows have dif"),
        ([IMAGES[0].tolist(), IMAGES[1][:3].tolist()], "rows have different lengths; cut or pad"),
        (np.ma.array(IMAGES[:2], mask=IMAGES[:2] > 200), r"masked array.*x\.filled\(0\)"),
        ([np.ma.array(i, mask=i > 200) for i in IMAGES[:2]], r"masked array.*x\.filled\(0\)"),
        (
            IMAGES[:2].astype(object),
            r"an array of object; where they are .*\.astype\(np\.float32\)",
        ),
        ((image for image in IMAGES[:2]), "expected real numbers, found <generator object"),
        (None, "expected real numbers, found None$"),
        (IMAGES[:2] + 0j, "found an array of complex128$"),
        (np.full(IMAGES[:2].shape, "1"), "found an array of <U1$"),
        (IMAGES[0], r"a single sample is x\[None\]"),
        (
            IMAGES[:2, :4],
            r"takes \(6, 5, 3\); addergraph\.data\.images\.bring\(image, \(6, 5\)",
        ),
        (IMAGES[:2, :4, :, :2], r"takes \(6, 5, 3\)$"),
        (IMAGES[:2].transpose(0, 3, 1, 2), r"images are NHWC: x\.transpose\(0, 2, 3, 1\)"),
    ],
)
def test_what_are_no_images_is_one_clear_error(given: object, said: str) -> None:
    model = network(OWN)
    with pytest.raises(DataError, match=said):
        model.predict(given, engine="reference")
    if not hasattr(given, "send"):  # the first call took what a generator gives
        with pytest.raises(DataError, match=said):
            model.evaluate(given, CLASSES[:2], engine="reference")


def test_classes_in_any_form_are_the_same_classes() -> None:
    model, x, y = network(OWN), IMAGES[:4], CLASSES[:4]
    expected = model.evaluate(x, y, engine="reference")
    one_hot = np.eye(3)[y]
    forms = {
        "list": y.tolist(), "f8": y.astype("f8"), "big-endian": y.astype(">i8"),
        "strided": np.repeat(y, 2)[::2], "column": y[:, None], "masked": np.ma.array(y),
        "one-hot": one_hot, "one-hot, big-endian": one_hot.astype(">f8"),
        "one-hot, columns": np.asfortranarray(one_hot), "one-hot, list": one_hot.tolist(),
    }  # fmt: skip
    for form, given in forms.items():
        assert model.evaluate(x, given, engine="reference") == expected, form
    seen: list[Array] = []
    model.evaluate(x, y, engine="reference", observe=lambda rows, answers: seen.append(answers))
    assert np.array_equal(seen[0], model.predict(x, engine="reference"))
    for wrong, said in ((y + 0.5, "out of range"), ([[1, 0], [1]] * 2, "rows have different")):
        with pytest.raises(DataError, match=f"^y: .*{said}"):
            model.evaluate(x, wrong, engine="reference")
    with pytest.raises(DataError, match="observe=3 must be a function"):
        model.evaluate(x, y, engine="reference", observe=3)  # type: ignore[arg-type]


def test_what_can_be_no_pixels_is_refused() -> None:
    model = network(OWN)
    for images, said in (
        (OWN.apply(IMAGES), "found float32 from .*; they look normalized already"),
        (IMAGES.astype("i4") + 1, "found float32 from 1 to 256$"),
        (np.full((1, 6, 5, 3), np.nan), "found float32 from nan to nan$"),
    ):
        for take in (model.predict, lambda x: model.evaluate(x, CLASSES[: len(x)])):
            with pytest.raises(DataError, match=f"bytes, whole numbers of 0..255, {said}"):
                take(images)


def test_fit_says_what_it_was_trained_on(tmp_path: Path) -> None:
    """The accuracy of a fit is that of `evaluate` on the same images."""
    data = load("digits")
    model = Model(input_shape=(8, 8, 1))
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    normalize = data.normalize()
    history = model.fit(
        data.x_train, data.y_train, data.x_test, data.y_test, epochs=1, normalize=normalize,
        verbose=0,
    )  # fmt: skip
    assert model.preprocessing == Preprocessing(normalize, "u8", "grey")
    found = model.evaluate(data.x_test, data.y_test)
    assert found["accuracy"] == history.history["val_accuracy"][-1] > 0.8
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.evaluate(data.x_test, data.y_test) == found
    assert again.preprocessing == copy.deepcopy(model).preprocessing == model.preprocessing
    again.fit(data.x_train, data.y_train, epochs=1, verbose=0)  # goes on with the same pixels
    assert again.preprocessing == model.preprocessing
    with pytest.raises(DataError, match=r"normalize=.* contradicts the model's preprocessing"):
        again.fit(data.x_train, data.y_train, normalize=Normalize((0.0,), (1.0,)), verbose=0)


@pytest.mark.slow
def test_bytes_that_enter_as_they_are_stay_bytes() -> None:
    model = network()
    with pytest.warns(DataWarning, match="samples enter with numbers up to 255"):
        model.fit(IMAGES, CLASSES, epochs=1, verbose=0)
    assert str(model.preprocessing) == "u8 rgb pixels enter as pixel"
    real = network()
    real.fit(IMAGES / 255, CLASSES, epochs=1, verbose=0)
    assert real.preprocessing is None


def test_a_fit_that_fails_declares_nothing() -> None:
    model = network()
    with pytest.raises(DataError, match="x_val"):
        model.fit(IMAGES, CLASSES, IMAGES[:0], CLASSES[:0], normalize=OWN.normalize, verbose=0)
    assert model.preprocessing is None


def test_what_is_declared_has_to_fit() -> None:
    with pytest.raises(DataError, match=r"has 1 channels, samples have shape \(6, 5, 3\)"):
        network(Preprocessing(Normalize((0.0,), (1.0,))))
    later = Model(preprocessing=OWN)
    later.add(layers.Flatten())
    with pytest.raises(DataError, match=r"has 3 channels, samples have shape \(6, 5, 1\)"):
        later.build((6, 5, 1))
    with pytest.raises(DataError, match='"grey" are 1 channels, normalize has 3'):
        Preprocessing(OWN.normalize, channels="grey")
    with pytest.raises(DataError, match="normalize is missing; expected a Normalize"):
        Preprocessing(channels="grey")


@pytest.mark.parametrize("form", FORMS)
def test_the_int8_model_takes_the_same_bytes(form: str, tmp_path: Path) -> None:
    """Its integers are those of the int8 model of the normalized images."""
    known = FORMS[form]
    made = ag.quantize(network(known), IMAGES, terms=2)
    looks_up = "lookup" in str(made.graph)
    assert looks_up == (form == "own")
    made.save(tmp_path / "q.safetensors")
    again = load_quantized(tmp_path / "q.safetensors")
    assert again.preprocessing == known
    found = ag.compile(again)(again.inputs(IMAGES))
    assert np.array_equal(ag.interpret(made.graph, IMAGES, weights=made.weights), found)
    if looks_up:
        plain = ag.quantize(network(), known.apply(IMAGES), terms=2)
        expected = ag.compile(plain)(plain.inputs(known.apply(IMAGES)))
        assert np.array_equal(found, expected)
    with pytest.raises(DataError, match="they look normalized already"):
        again.inputs(known.apply(IMAGES))


def test_real_pixels_are_normalized_by_the_int8_model() -> None:
    known = Preprocessing(OWN.normalize, "f32", "rgb")
    images = IMAGES.astype("f4")
    made, plain = ag.quantize(network(known), images), ag.quantize(network(), known.apply(images))
    assert made.graph == plain.graph
    assert np.array_equal(made.inputs(images), plain.inputs(known.apply(images)))


@pytest.mark.slow
def test_training_for_integers_keeps_the_pixels() -> None:
    model = network(OWN)
    aware = ag.quantization_aware(model, IMAGES, bits=4)
    assert aware.preprocessing == OWN
    aware.fit(IMAGES, CLASSES, epochs=1, verbose=0)
    made = ag.quantize(aware, IMAGES)
    assert made.preprocessing == OWN
    assert made.graph.inputs[0].type.dtype.name == "u8"


def test_a_model_that_rounds_images_keeps_what_they_are() -> None:
    aware = ag.quantization_aware(network(OWN), IMAGES, bits=4)
    with pytest.raises(DataError, match="is quantization-aware and rounds images to the grid of"):
        aware.preprocessing = SHARED
    assert aware.preprocessing == OWN
    aware.preprocessing = named = replace(OWN, classes=("a", "b", "c"), resize="pad")
    assert aware.preprocessing == named
    undeclared = ag.quantization_aware(network(), OWN.apply(IMAGES), bits=4)
    undeclared.preprocessing = OWN  # the numbers that enter stay what they are


def test_how_images_come_to_size_is_in_the_file_and_older_files_do_not_say_it() -> None:
    said = replace(OWN, resize="crop")
    assert from_entry(entry(said)) == said and "; images of another size: crop" in str(said)
    assert "resize" not in entry(OWN)["preprocessing"]  # as before there was one
    assert from_entry(entry(OWN)) == OWN
    with pytest.raises(DataError, match='resize="crob" \\(did you mean "crop"'):
        replace(OWN, resize="crob")


def test_changing_it_changes_the_answers() -> None:
    model = network(OWN)
    before = model.predict(IMAGES)
    model.preprocessing = SHARED
    assert np.array_equal(model.predict(IMAGES), network(SHARED).predict(IMAGES))
    assert not np.array_equal(model.predict(IMAGES), before)
    assert initial_weights(model.graph(training=False), 0).keys() == model.weights.keys()


def test_a_set_of_images_takes_the_order_and_the_numbers_of_the_model() -> None:
    known = Preprocessing(OWN.normalize, channels="bgr", classes=("red", "green", "blue"))
    data = Dataset(
        "d", IMAGES[:20], CLASSES[:20] % 2, IMAGES[20:], CLASSES[20:] % 2, ("blue", "red"),
        channels="rgb",
    )  # fmt: skip
    made = data.like(known)
    assert np.array_equal(made.x_train, IMAGES[:20, ..., ::-1]) and made.channels == "bgr"
    assert made.classes == known.classes and made.class_count == 3
    assert np.array_equal(made.y_test, np.where(data.y_test == 0, 2, 0))
    other = replace(data, classes=("blue", "cat"))
    assert other.like(known).classes == ("blue", "cat")  # the command warns, or refuses
    unnamed = replace(data, channels="", classes=None)
    assert np.array_equal(unnamed.like(known).x_train, unnamed.x_train)


def test_normalizations_are_compared_over_the_range_of_a_pixel() -> None:
    half, whole = Normalize((64.0,), (64.0,), 1.0), Normalize((128.0,), (128.0,), 1.0)
    assert Preprocessing(whole).is_close(whole) and not Preprocessing(whole).is_close(half)


def test_pixels_of_the_other_kind_are_named() -> None:
    real = network(Preprocessing(OWN.normalize, "f32", "rgb"))
    with pytest.raises(DataError, match="takes real numbers as pixels, found bytes"):
        real.predict(IMAGES)
    with pytest.warns(DataWarning, match="have pixels 0 and 1 alone, of 255"):
        network(OWN).predict(IMAGES > 128)
    with pytest.warns(DataWarning, match="does not say what a pixel is"):
        network().predict(IMAGES)
    with pytest.warns(DataWarning, match="does not say what a pixel is"):
        network().evaluate(IMAGES, CLASSES)
