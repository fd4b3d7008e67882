"""Training on the device: a C library's steps have the bits of Python's, states are saved and
loaded, and what cannot be is refused before anything is lost."""

from __future__ import annotations

import json
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, zoo
from addergraph.codegen.export.library import Exported
from addergraph.codegen.export.training_header import _kinds
from addergraph.codegen.export.training_interface import HEAD_BYTES, TRAINING_CODES
from addergraph.codegen.export.training_state import read_state
from addergraph.data import digits
from addergraph.errors import (
    DataError,
    ShapeError,
    StorageError,
    UnsupportedError,
)
from addergraph.ir import Array
from addergraph.model.device import DeviceTraining, learned
from addergraph.training import SGD, Adam
from addergraph.training.recipes import find
from addergraph.training.step import TrainStep
from tests.codegen.harness import guarded
from tests.codegen.learners import Learner, small_model

CODES = {name: code for code, (name, _) in TRAINING_CODES.items()}
SETTINGS = DeviceTraining(batch=4)
BATCH = 8
pytestmark = pytest.mark.needs("cc")


def step_of(model: Model, settings: DeviceTraining) -> TrainStep:
    """Python's step with the same settings."""
    return TrainStep(
        model, settings.batch, settings.optimizer, label_smoothing=settings.label_smoothing,
        gradient=settings.gradient, engine="native", threads=1, seed=settings.seed,
    )  # fmt: skip


def learner(model: Model, settings: DeviceTraining, folder: Path) -> Learner:
    return Learner(ag.export(model, folder, train=settings))


def images(rng: np.random.Generator, count: int = BATCH) -> Array:
    return rng.standard_normal((count, 6, 6, 1), np.float32)


def require_same_steps(
    made: Learner, model: Model, settings: DeviceTraining, steps: int = 10, rate: float = 0.1
) -> Learner:
    """Losses, states and answers of both, to the bit."""
    expected = step_of(model, settings)
    assert made.call("selftest", made.state, made.arena) == 0
    rng = np.random.default_rng(1)
    classes = model.output_shape[0]
    for _ in range(steps):
        x, y = images(rng, settings.batch), rng.integers(0, classes, settings.batch, np.int32)
        loss, _ = expected(x, y, rate)
        assert made.train([x], [y], rate) == np.float32(loss)
    for name, view in made.views.items():
        assert view.tobytes() == expected.state.views[name].tobytes(), name
    x = images(rng, 5)
    with expected.evaluating():
        answers = model.predict(x)
    for one, answer in zip(x, answers, strict=True):
        assert made.run([one])[0].tobytes() == answer.tobytes()
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return ag.export(small_model(), tmp_path_factory.mktemp("small"), train=SETTINGS)


@pytest.fixture
def small(exported: Exported) -> Learner:
    """A new state after three steps."""
    made, rng = Learner(exported), np.random.default_rng(0)
    for _ in range(3):
        made.train([images(rng, 4)], [rng.integers(0, 4, 4, np.int32)], 0.1)
    return made


# -- bits ------------------------------------------------------------------------------------------


def test_steps_have_the_bits_of_python(exported: Exported) -> None:
    made = require_same_steps(Learner(exported), small_model(), SETTINGS)
    assert "bn.mean" in made.views and "adder.f.velocity" in made.views


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        DeviceTraining(batch=2, optimizer=SGD(nesterov=True, clip_norm=0.5)),
        DeviceTraining(batch=5, optimizer=Adam(weight_decay=0.01)),
        DeviceTraining(batch=BATCH, label_smoothing=0.1, gradient="sign"),
        DeviceTraining(batch=BATCH, optimizer=SGD(momentum=0.0), seed=7),
    ],
    ids=["nesterov", "adam", "smoothing", "plain"],
)
def test_steps_of_other_settings(settings: DeviceTraining, tmp_path: Path) -> None:
    """With a dropout, whose counter is in the state."""
    model = small_model(layers.Dropout(0.3, name="dropout"))
    made = learner(model, settings, tmp_path)
    require_same_steps(made, model, settings, rate=0.02)
    assert int(made.views["dropout.steps"]) % 1024 == 10


@pytest.mark.slow
def test_averages_answer(tmp_path: Path) -> None:
    """They begin as the weights, so that a network that has learned nothing answers, too."""
    settings = DeviceTraining(batch=4, optimizer=SGD(average=0.9))
    model = small_model()
    first = model.predict(images(np.random.default_rng(0), 1))
    made = learner(model, settings, tmp_path)
    x = images(np.random.default_rng(0), 1)
    assert made.run([x])[0].tobytes() == first.tobytes()
    rng = np.random.default_rng(1)
    for _ in range(5):
        made.train([images(rng, 4)], [rng.integers(0, 4, 4, np.int32)], 0.1)
    views = made.views
    assert not np.array_equal(views["last.f.average"], views["last.f"])
    model.weights = {n: views.get(f"{n}.average", views[n]) for n in model.weights}
    assert made.run([x])[0].tobytes() == model.predict(x).tobytes()


@pytest.mark.slow
def test_several_ends_and_values(tmp_path: Path) -> None:
    """Two inputs; classes of one output, numbers of the other."""

    def net(a: Any, b: Any) -> Any:
        joined = ag.ops.add(layers.Dense(6, name="da")(a), layers.Dense(6, name="db")(b))
        hidden = ag.ops.relu(joined)
        kind = layers.Dense(3, name="kind")(hidden)
        return {"kind": kind, "size": layers.Dense(1, name="size")(hidden)}

    model = Model(
        net, input_shape={"a": (4,), "b": (5,)},
        loss={"kind": "cat_cross_entropy", "size": "mean_squared_error"},
        loss_weights={"size": 0.5},
    )  # fmt: skip
    settings = DeviceTraining(batch=3)
    made, expected = learner(model, settings, tmp_path), step_of(model, settings)
    assert [a["c_name"] for a in made.facts["training"]["answers"]] == [
        "kind_labels", "size_targets"
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = (rng.standard_normal((3, n), np.float32) for n in (4, 5))
        kinds, sizes = rng.integers(0, 3, 3, np.int32), rng.random((3, 1), np.float32)
        loss, _ = expected({"a": a, "b": b}, {"kind": kinds, "size": sizes}, 0.1)
        assert made.train([a, b], [kinds, sizes], 0.1) == np.float32(loss)
    answers = model.predict({"a": a[:1], "b": b[:1]})
    found = made.run([a[:1], b[:1]])
    assert [y.tobytes() for y in found] == [answers[n].tobytes() for n in ("kind", "size")]


@pytest.mark.slow
def test_a_hundred_steps_on_the_digits(tmp_path: Path) -> None:
    """Bytes of pixels, a network of the zoo, the settings of its recipe."""
    data, recipe = digits.dataset(), find("digits")
    model = zoo.build("small-adder")
    model.preprocessing = data.preprocessing(recipe.data.normalization(data))
    settings = DeviceTraining.of_recipe(recipe, batch=16)
    made, expected = learner(model, settings, tmp_path), step_of(model, settings)
    rng = np.random.default_rng(0)
    for _ in range(100):
        chosen = rng.integers(0, len(data.x_train), 16)
        x, y = data.x_train[chosen], data.y_train[chosen].astype(np.int32)
        loss, _ = expected(model.entering(x), y, 0.1)
        assert made.train([x], [y], 0.1) == np.float32(loss)
    assert loss < 0.7
    for name, view in made.views.items():
        assert view.tobytes() == expected.state.views[name].tobytes(), name
    answers = model.predict(data.x_test)
    for one, answer in zip(data.x_test, answers, strict=True):
        assert made.run([one])[0].tobytes() == answer.tobytes()


# -- last layers -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_frozen_layers_are_constants(exported: Exported, tmp_path: Path) -> None:
    """They have no gradient, no place in the state, and take less of the arena."""
    model = small_model()
    model.freeze("adder", "bn")
    made = require_same_steps(learner(model, SETTINGS, tmp_path), model, SETTINGS, steps=5)
    assert {*made.views} == {"last.f", "last.b", "last.f.velocity", "last.b.velocity"}
    whole = json.loads(exported.metadata.read_text())
    assert made.facts["arena_bytes"] < whole["arena_bytes"]
    assert made.facts["state_bytes"] < whole["state_bytes"]


# -- states ----------------------------------------------------------------------------------------


def test_a_saved_state_goes_on_where_it_was(small: Learner, exported: Exported) -> None:
    saved, other, rng = small.save(), Learner(exported), np.random.default_rng(5)
    assert saved.startswith(b"AGSTATE\0") and len(saved) == HEAD_BYTES + small.state.size
    assert other.load(saved) == 0
    assert other.state.tobytes() == small.state.tobytes()
    x, y = images(rng, 4), rng.integers(0, 4, 4, np.int32)
    assert small.train([x], [y], 0.1) == other.train([x], [y], 0.1)
    assert small.save() == other.save() != saved


def damaged(saved: bytes, at: int) -> bytes:
    return saved[:at] + bytes([saved[at] ^ 1]) + saved[at + 1 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: damaged(s, 0), "ERROR_SAVED"),
        (lambda s: s[:8] + struct.pack("<I", 2) + s[12:], "ERROR_VERSION"),
        (lambda s: damaged(s, 12), "ERROR_NETWORK"),
        (lambda s: damaged(s, 20), "ERROR_NETWORK"),
        (lambda s: damaged(s, 48), "ERROR_DAMAGED"),
        (lambda s: damaged(s, HEAD_BYTES - 1), "ERROR_DAMAGED"),
        (lambda s: damaged(s, HEAD_BYTES), "ERROR_DAMAGED"),
        (lambda s: damaged(s, len(s) - 1), "ERROR_DAMAGED"),
        (lambda s: s[:-1], "ERROR_SIZE"),
        (lambda s: s[:HEAD_BYTES], "ERROR_SIZE"),
        (lambda s: s[:20], "ERROR_SIZE"),
        (lambda s: b"", "ERROR_SIZE"),
        (lambda s: s + b"\0", "ERROR_SIZE"),
    ],
)
def test_other_bytes_are_refused_and_the_state_stays(
    small: Learner, change: Any, code: str
) -> None:
    saved = small.save()
    small.call("init", small.state)
    before = small.state.tobytes()
    assert before != saved[HEAD_BYTES:]
    assert small.load(change(saved)) == CODES[code]
    assert small.state.tobytes() == before


def test_every_bit_of_the_head_of_a_state_counts(
    small: Learner, exported: Exported, tmp_path: Path
) -> None:
    """For the library and for Python."""
    saved, file = small.save(), tmp_path / "device.state"
    for bit in range(8 * HEAD_BYTES):
        data = bytearray(saved)
        data[bit // 8] ^= 1 << bit % 8
        assert small.load(bytes(data)) != 0, bit
        file.write_bytes(data)
        with pytest.raises(StorageError):
            read_state(exported.metadata.parent, file)
    assert small.load(saved) == 0


@pytest.mark.slow
def test_a_state_belongs_to_its_network_and_not_to_its_batch_or_weights(
    small: Learner, tmp_path: Path
) -> None:
    """One of other layers, or of other frozen numbers, is refused; one of another batch fits, and
    one of a network that was trained meanwhile."""
    saved, again, wider = small.save(), small_model(), small_model(classes=5)
    again.weights["last.b"][...] = 1.0
    assert learner(again, DeviceTraining(batch=7), tmp_path / "batch").load(saved) == 0
    other = learner(wider, SETTINGS, tmp_path / "wider")
    assert other.load(saved) == CODES["ERROR_NETWORK"]
    frozen = []
    for number in (0.0, 1.0):
        model = small_model()
        model.freeze("adder", "bn")
        model.weights["adder.f"][0, 0, 0, 0] = number
        frozen.append(learner(model, SETTINGS, tmp_path / f"{number}"))
    assert frozen[0].load(frozen[0].save()) == 0
    assert frozen[1].load(frozen[0].save()) == CODES["ERROR_NETWORK"]


def test_python_reads_what_a_device_learned(
    small: Learner, exported: Exported, tmp_path: Path
) -> None:
    folder, file = exported.metadata.parent, tmp_path / "device.state"
    file.write_bytes(small.save())
    model, x = small_model(), images(np.random.default_rng(3), 1)
    learned(model, folder, file)
    assert small.run([x])[0].tobytes() == model.predict(x).tobytes()
    assert model.weights["bn.mean"].tobytes() == small.views["bn.mean"].tobytes()
    before = {name: array.copy() for name, array in model.weights.items()}
    with pytest.raises(ShapeError, match=r"last\.f"):
        learned(small_model(classes=5), folder, file)
    other = Model(input_shape=(3,))
    other.add(layers.Dense(2, name="d"))
    with pytest.raises(DataError, match='is a state of another network: "model" has no'):
        learned(other, folder, file)
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(StorageError, match="of no library that learns"):
        learned(model, tmp_path, file)
    assert all(np.array_equal(model.weights[name], a) for name, a in before.items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: b"", "does not begin as one"),
        (lambda s: damaged(s, 3), "does not begin as one"),
        (lambda s: s[:8] + struct.pack("<I", 7) + s[12:], "of version 7, expected 1"),
        (lambda s: damaged(s, 30), "the state of another network"),
        (lambda s: s[:-4], "has .* bytes, a saved state of this network"),
        (lambda s: damaged(s, 60), "its head does not end in zeros"),
        (lambda s: damaged(s, 100), "differs from its checksum"),
    ],
)
def test_python_refuses_other_bytes(
    exported: Exported, small: Learner, tmp_path: Path, change: Any, says: str
) -> None:
    file = tmp_path / "device.state"
    file.write_bytes(change(small.save()))
    with pytest.raises(StorageError, match=says):
        learned(small_model(), exported.metadata.parent, file)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1 << 40}, {"offset": -4}, {"shape": [1 << 40]}, {"shape": [-1]},
        {"dtype": "f64"}, {"offset": None},
    ],
)  # fmt: skip
def test_a_layout_that_cannot_be_is_damage(
    exported: Exported, small: Learner, tmp_path: Path, change: dict[str, Any]
) -> None:
    facts = json.loads(exported.metadata.read_text())
    facts["training"]["state"][0] |= change
    (tmp_path / "metadata.json").write_text(json.dumps(facts))
    (tmp_path / "s").write_bytes(small.save())
    with pytest.raises(StorageError, match="is damaged"):
        learned(small_model(), tmp_path, tmp_path / "s")


# -- calls that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "rate", "code"),
    [
        ([0, 1, 2, 4], 0.1, "ERROR_LABEL"),
        ([-1, 1, 2, 3], 0.1, "ERROR_LABEL"),
        ([0, 1, 2, 3], -0.1, "ERROR_RATE"),
        ([0, 1, 2, 3], float("nan"), "ERROR_RATE"),
        ([0, 1, 2, 3], float("inf"), "ERROR_RATE"),
    ],
)
def test_a_step_that_cannot_be_changes_nothing(
    small: Learner, labels: list[int], rate: float, code: str
) -> None:
    before, loss = small.state.tobytes(), np.full(1, 5.0, np.float32)
    x = images(np.random.default_rng(0), 4)
    assert small.step([x], [np.array(labels, np.int32)], rate, loss) == CODES[code]
    assert small.state.tobytes() == before and loss[0] == 5.0


def test_pointers_are_checked(small: Learner) -> None:
    x, y, rate = images(np.random.default_rng(0), 4), np.zeros(4, np.int32), np.ones(1, np.float32)
    loss, scores, saved = rate.copy(), np.zeros(4, np.float32), np.zeros(100_000, np.uint8)
    calls: dict[str, list[Any]] = {
        "init": [small.state],
        "train": [x, y, rate, loss, small.state, small.arena],
        "run": [x, scores, small.state, small.arena],
        "save": [small.state, saved],
        "selftest": [small.state, small.arena],
    }
    for name, given in calls.items():
        for at, argument in enumerate(given):
            wrong = [*given[:at], None, *given[at + 1 :]]
            assert small.call(name, *wrong) == CODES["ERROR_NULL"], (name, at)
            if argument is small.state or argument is small.arena:
                wrong[at] = argument[4:]
                assert small.call(name, *wrong) == CODES["ERROR_ARENA"], (name, at)
    assert small.call("load", small.state, None, 0) == CODES["ERROR_NULL"]


@pytest.mark.parametrize("right", [True, False])
def test_calls_stay_in_their_buffers(small: Learner, right: bool) -> None:
    """Between pages that nobody may touch; what is read is read-only."""
    rng, facts = np.random.default_rng(0), small.facts
    given = [images(rng, 4), rng.integers(0, 4, 4, np.int32), np.array([0.1], np.float32)]
    sizes = [a.nbytes for a in given]
    sizes += [4, facts["state_bytes"], facts["arena_bytes"], facts["training"]["saved_bytes"], 16]
    with ExitStack() as stack:
        made = [stack.enter_context(guarded(size, right)) for size in sizes]
        for buffer, array in zip(made, given, strict=False):
            buffer.bytes[:] = array.reshape(-1).view(np.uint8)
            buffer.freeze()
        x, y, rate, loss, state, arena, saved, scores = (b.bytes for b in made)
        assert small.call("init", state) == 0
        state[:] = small.state
        assert small.call("train", x, y, rate, loss, state, arena) == 0
        expected = small.train(given[:1], given[1:2], 0.1)
        assert loss.view(np.float32)[0] == expected
        assert state.tobytes() == small.state.tobytes()
        assert small.call("run", x, scores, state, arena) == 0
        assert scores.tobytes() == small.run([given[0][:1]])[0].tobytes()
        assert small.call("save", state, saved) == 0 and saved.tobytes() == small.save()
        made[6].freeze()
        assert small.call("load", state, saved, saved.size) == 0
        assert small.call("selftest", state, arena) == 0


def test_the_selftest_finds_damaged_constants(exported: Exported, tmp_path: Path) -> None:
    """A bit of the first weights, in a copy of the library."""
    first = Learner(exported).views["adder.f"].tobytes()
    data = bytearray(Path(str(exported.shared)).read_bytes())
    data[data.index(first)] ^= 1
    copied = tmp_path / "libother.so"
    copied.write_bytes(data)
    broken = Learner(Exported(**{**vars(exported), "shared": copied}))
    assert broken.call("selftest", broken.state, broken.arena) == CODES["ERROR_WEIGHTS"]


# -- what is written -------------------------------------------------------------------------------

LAYOUT = """
#include "small.h"
#include <stdio.h>
struct tensor { const char *name; uint32_t offset, elements, rank, shape[4]; };
static const struct tensor layout[] = SMALL_STATE_LAYOUT;
int main(void)
{
    for (unsigned i = 0; i < SMALL_STATE_TENSORS; i++)
        printf("%s %u %u %u\\n", layout[i].name, (unsigned)layout[i].offset,
               (unsigned)layout[i].elements, (unsigned)layout[i].rank);
    printf("%d\\n", (int)small_supported());
    return sizeof layout / sizeof *layout != SMALL_STATE_TENSORS;
}
"""


def test_the_header_has_the_layout_of_the_state(exported: Exported, tmp_path: Path) -> None:
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text(LAYOUT)
    folder = exported.header.parent
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{folder}"]
    subprocess.run([*command, "-o", program, source, exported.archive], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    *rows, supported = done.stdout.splitlines()
    known = json.loads(exported.metadata.read_text())["training"]["state"]
    assert rows == [
        f"{one['name']} {one['offset']} {int(np.prod(one['shape'], dtype=int))} {len(one['shape'])}"
        for one in known
    ]
    assert supported == "1"
    lines = exported.header.read_text().splitlines()
    assert max(len(line) for line in lines if line.startswith(("/*", " *"))) <= 100


def test_the_header_says_what_is_no_float() -> None:
    assert _kinds([]) == " * Offsets are in bytes. All are float. */"
    assert _kinds(["step"]) == " * Offsets are in bytes. All are float, but for step: int32_t. */"
    long = _kinds([f"dropout{i}.step" for i in range(20)]).splitlines()
    assert len(long) > 1 and all(one.startswith(" * ") and len(one) <= 100 for one in long)
    assert long[-1].endswith("dropout19.step: int32_t. */")


@pytest.mark.slow
def test_exports_are_reproducible_and_replace_their_own(exported: Exported, tmp_path: Path) -> None:
    again = ag.export(small_model(), tmp_path, train=SETTINGS)
    for path in (exported.code, exported.data, exported.archive, exported.header):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(StorageError, match="another network"):
        ag.export(small_model(classes=3), tmp_path, train=SETTINGS)
    assert again.metadata.read_bytes() == exported.metadata.read_bytes()


def test_python_says_what_such_a_folder_is(exported: Exported) -> None:
    with pytest.raises(UnsupportedError, match="holds a library that learns"):
        ag.load_native(exported.code.parent)
