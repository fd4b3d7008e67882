"""The border: every public function with every odd argument raises errors of the project's own tree
or none, and what users hand in reaches the inside as plain numbers and arrays.
"""

from __future__ import annotations

import os
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, border, data, layers, training
from addergraph.errors import (
    AdderGraphError,
    DataError,
    DataWarning,
    MemoryLimitError,
    ShapeError,
    StorageError,
    nearest,
)
from tests import borders
from tests.odd import odd

pytestmark = pytest.mark.usefixtures("quick_objects")

ENDLESS = {("ag.Model.fit", "epochs")}  # 10^30 of them are no error
OWN_CODE = {("ag.trace", "function")}  # what a function of the user's raises is the user's


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(borders.folder())


# --- the walk -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [19, pytest.param(1, marks=pytest.mark.fuzz)])
def test_no_foreign_exception_from_any_public_function(share: int) -> None:
    """One in `share` of all calls, in turn, so that each argument and each value has its own."""
    values, count, foreign = list(odd().items()), 0, []
    for case in borders.cases():
        for argument in case.arguments:
            for name, value in values:
                count += 1
                if count % (share if share == 1 or not case.slow else 4 * share):
                    continue
                if (case.name, argument) in OWN_CODE and callable(value):
                    continue
                try:
                    case.call(**{**case.arguments, argument: value})
                except AdderGraphError:
                    pass
                except Exception as error:
                    foreign.append(f"{case.name}({argument}={name}): {error!r}")
    assert not foreign, "\n".join(foreign)


def test_the_walk_has_every_public_name() -> None:
    walked = {case.name.partition(",")[0] for case in borders.cases()}
    assert borders.public_names() - walked == borders.NOT_CALLED


@pytest.mark.filterwarnings("ignore")
def test_the_arguments_of_the_walk_are_good_ones() -> None:
    """But for layers, which take no numbers, a library that was made without a C compiler, and
    PyTorch's where there is none."""
    refused = set()
    for case in borders.cases():
        try:
            case.call(**case.arguments)
        except AdderGraphError:
            refused.add(case.name)
    assert {name for name in refused if ", called" not in name} == {
        "ag.load_native",
        *(() if borders.has_torch() else ("ag.from_torch", "ag.to_torch")),
    }


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.array(2), np.ma.array(2)])
def test_an_integer_is_an_int(value: Any) -> None:
    found = border.integer("n", value)
    assert type(found) is int and found == 2


@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2", None, [2], np.ma.masked, 1 << 200])
def test_no_integer(value: Any) -> None:
    with pytest.raises(DataError, match="n=.* must be an integer"):
        border.integer("n", value)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_number_is_a_float(value: Any) -> None:
    found = border.number("x", value)
    assert type(found) is float and found == 0.5


@pytest.mark.parametrize("value", [True, "0.5", 1j, None, np.ones(1), np.ma.masked, 10**400])
def test_no_number(value: Any) -> None:
    with pytest.raises(DataError, match="x=.* must be a number"):
        border.number("x", value)


def test_numpy_scalars_are_numbers_everywhere() -> None:
    two: Any = np.int64(2)
    model = Model(input_shape=np.array([6, 6, 2]), seed=two)
    model.add(layers.Adder(two, two, stride=np.array([1, 2]), eta=np.float32(0.5)))  # type: ignore[arg-type]
    model.add(layers.Flatten())
    layer = model.layers[0]
    assert isinstance(layer, layers.Adder)
    assert (type(model.seed), type(layer.output_channels), type(layer.eta)) == (int, int, float)
    assert "eta=0.5" in str(model.graph(training=False))
    assert ag.compile(model, batch=two, threads=two).threads == 2
    assert type(training.SGD(momentum=two / 4).momentum) is float


def test_arrays_are_the_numbers_of_a_normalization() -> None:
    x = borders.X
    found = data.Normalize(x.mean((0, 1, 2)), x.std((0, 1, 2)), 1.0)
    assert [type(m) for m in (*found.mean, *found.std)] == [float] * 4
    assert abs(found.apply(x).mean()) < 1e-6


def test_a_rate_of_1_goes_on_as_1_0(tmp_path: Path) -> None:
    def run(rate: float, epochs: int) -> Model:
        model = borders.net()
        model.fit(
            borders.X, borders.Y, learning_rate=rate, epochs=epochs, checkpoint=tmp_path / "run",
            resume=epochs > 1, engine="reference", verbose=0, optimizer=training.SGD(momentum=0),
        )  # fmt: skip
        return model

    run(1, 1)
    run(1.0, 2)


def test_values_in_messages_are_short() -> None:
    assert border.shown(borders.X) == "an array of float32 (5, 6, 6, 2)"
    assert len(border.shown("x" * 10**6)) < 500 and len(border.shown([[0] * 99] * 99)) < 500
    assert border.shown(10**5000) == "a int"


# --- arrays ---------------------------------------------------------------------------------------

MASKED = np.ma.masked_greater(borders.X, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: borders.net().fit(MASKED, borders.Y),
        lambda: borders.net().fit([*MASKED], borders.Y),
        lambda: borders.net().fit(borders.X, np.ma.array(borders.Y, mask=borders.Y > 0)),
        lambda: borders.net().fit(borders.X, borders.Y, MASKED, borders.Y),
        lambda: borders.built().predict(MASKED),
        lambda: borders.built().evaluate(MASKED, borders.Y),
        lambda: borders.program()(MASKED),
        lambda: ag.interpret(borders.built().graph(False), MASKED, weights=borders.built().weights),
        lambda: ag.quantize(borders.built(), MASKED),
        lambda: ag.quantization_aware(borders.built(), MASKED),
        lambda: borders.quantized().inputs(MASKED),
        lambda: borders.program().set_weights(masked_weights()),
        lambda: setattr(borders.net(), "weights", masked_weights()),
        lambda: ag.verify(borders.built(), borders.program(), inputs=[MASKED]),
        lambda: data.Dataset("d", MASKED, borders.Y, borders.X, borders.Y, None),
        lambda: data.Loader(MASKED, batch_size=2),
        lambda: data.Normalize((0, 0), (1, 1)).apply(MASKED),
        lambda: data.Augment(1).apply(MASKED, np.random.default_rng(0)),
    ],
)
def test_a_mask_is_not_dropped(call: Any) -> None:
    with pytest.raises(DataError, match=r"masked array.*x\.filled\(0\), or leave"):
        call()


def masked_weights() -> dict[str, Any]:
    weights = dict(borders.built().weights)
    return weights | {"dense1.b": np.ma.array(weights["dense1.b"], mask=[True, False, False])}


def test_a_masked_array_that_hides_nothing_is_an_array() -> None:
    whole = np.ma.masked_greater(borders.X, 99)
    assert (borders.built().predict(whole) == borders.built().predict(borders.X)).all()


def test_ragged_rows_say_so() -> None:
    with pytest.raises(DataError, match="rows have different lengths; cut or pad"):
        borders.net().fit([[1.0, 2.0], [3.0]], [0, 1])


@pytest.mark.parametrize(
    "given",
    [
        borders.X.astype(">f4"), borders.X.astype(">f8"), borders.X[::-1][::-1], borders.X.tolist(),
        np.asfortranarray(borders.X), borders.X.astype("g"), list(borders.X),
    ],
)  # fmt: skip
def test_one_array_in_many_forms(given: Any) -> None:
    expected = borders.built().predict(borders.X)
    assert (borders.built().predict(given) == expected).all()
    assert (borders.program()(given) == expected).all()


def test_big_endian_weights_are_numbers() -> None:
    model = borders.net()
    model.weights = {k: w.astype(">f4") for k, w in borders.built().weights.items()}
    assert (model.predict(borders.X) == borders.built().predict(borders.X)).all()


def test_more_than_the_memory_is_refused_at_once() -> None:
    huge = odd()["huge"]
    with pytest.raises(MemoryLimitError, match="this machine has"):
        borders.built().predict(huge)
    with pytest.raises(MemoryLimitError, match="weights of graph"):
        Model(lambda x: layers.Dense(1 << 36)(x), input_shape=(8,)).build((8,))


# --- labels and images ----------------------------------------------------------------------------


def stored(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    return path


def test_labels_from_1_are_said(tmp_path: Path) -> None:
    x, y = np.zeros((10, 4, 4), np.uint8), np.arange(10) + 1
    x[1:] = 9
    with pytest.warns(DataWarning, match=r"make 11 classes, of which class 0 .* store y - 1"):
        assert data.load(str(stored(tmp_path, x=x, y=y))).class_count == 11
    with pytest.raises(DataError, match="labels are 0 to 2; these count from 1: use y - 1"):
        borders.net().fit(borders.X, borders.Y + 1)


def test_ids_are_no_classes(tmp_path: Path) -> None:
    x, y = np.zeros((10, 4, 4), np.uint8), np.arange(10) * 4_200_000
    with pytest.raises(DataError, match=r"37800001 classes.*return_inverse=True"):
        data.load(str(stored(tmp_path, x=x, y=y)))
    with pytest.raises(DataError, match="return_inverse"):
        borders.net().fit(borders.X, borders.Y * 1000)


def test_every_class_used_is_silent(tmp_path: Path) -> None:
    x, y = np.zeros((10, 4, 4), np.uint8), np.arange(10) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.load(str(stored(tmp_path, x=x, y=y))).class_count == 3


def test_images_in_nchw_are_said(tmp_path: Path) -> None:
    x, y = np.zeros((4, 3, 32, 32), np.uint8), np.arange(4) % 3
    said = r"looks like 3 channels of 32x32 pixels.*transpose\(0, 2, 3, 1\)"
    model = Model()
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    with pytest.raises(DataError, match=said):
        model.fit(x, y)
    with pytest.raises(DataError, match=said):
        data.load(str(stored(tmp_path, x=x, y=y)))
    with pytest.warns(DataWarning, match=said):
        model.fit(x / 255, y, verbose=0, engine="reference")
    with pytest.warns(DataWarning, match=said):
        model.predict(x, engine="reference")


@pytest.mark.parametrize(
    ("shape", "looks"),
    [
        ((3, 8, 8), True), ((1, 9, 9), True), ((4, 8, 8), False), ((3, 7, 7), False),
        ((3, 8, 9), False), ((2, 8, 8), False), ((8, 8, 3), False),
    ],
)  # fmt: skip
def test_stated_real_numbers_in_nchw_are_said(shape: tuple[int, ...], looks: bool) -> None:
    model = Model(input_shape=shape)
    model.add(layers.Flatten())
    model.add(layers.Dense(2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.predict(np.zeros((2, *shape), np.float32), engine="reference")
    pixels = f"looks like {shape[0]} channels of {shape[1]}x{shape[2]} pixels"
    assert [pixels in str(one.message) for one in said] == [True] * looks
    assert all(one.category is DataWarning for one in said)


# --- words and paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, 3, "a\0b", "", "\ud800", ["m"], b"a\0b"])
def test_no_path(path: Any) -> None:
    for call in (Model.load, borders.built().save, data.load_npz, ag.load_native):
        with pytest.raises(StorageError, match=r"path=|folder="):
            call(path)


def test_a_path_as_bytes_is_a_path(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path / "m.safetensors")
    borders.built().save(file)  # type: ignore[arg-type]
    assert Model.load(file).name == "net"  # type: ignore[arg-type]


def test_a_name_too_long_to_compare_has_no_nearest_one() -> None:
    assert nearest("a" * 120_000, ["b" * 120_000, "a" * 119_999]) == ""
    assert nearest("relo", (f"r{n}" for n in range(10**6))) is not None
    assert nearest("relo", ["relu"]) == ' (did you mean "relu"?)'
    assert nearest("resnet21", ["resnet32", "resnet20"]) == ' (did you mean "resnet20"?)'


def test_attributes_of_records_are_plain() -> None:
    step = training.Step(np.float32(1), np.int32(4), milestones=np.array([0.25, 0.5]))  # type: ignore[arg-type]
    assert repr(step) == repr(training.Step(1.0, 4, milestones=(0.25, 0.5)))
    with pytest.raises(ShapeError, match="shape=.* must be a tuple of sizes"):
        ag.tensor("f32", np.ones((2, 2)))  # type: ignore[arg-type]
