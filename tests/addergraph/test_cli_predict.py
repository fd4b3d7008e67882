"""`addergraph predict`, and what `evaluate` says beyond its first line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers
from addergraph.cli.commands import predict as command
from addergraph.data import Normalize, Preprocessing
from addergraph.data.images import bring
from addergraph.ir import Array
from tests.addergraph.models import adders_only
from tests.addergraph.shell import Shell

image = pytest.importorskip("PIL.Image")

NAMES = ("cat", "dog", "bird", "cow")
PIXELS = Preprocessing(Normalize((0.5,) * 3, (0.5,) * 3, 1 / 255), "u8", "rgb", NAMES)
IMAGES: Array = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), np.uint8)


def network(known: Preprocessing | None = PIXELS, softmax: bool = False, depth: int = 3) -> Model:
    model = Model(input_shape=(6, 5, depth), name="net", preprocessing=known)
    model.add(layers.Flatten())
    model.add(layers.Dense(4))
    if softmax:
        model.add(layers.Activation("softmax"))
    model.weights["dense1.b"][...] = (0.5, -0.5, 0.25, 0)
    return model


@pytest.fixture
def files(shell: Shell) -> list[str]:
    """The images as PNG files, in folders of their own folder."""
    names = []
    for number, pixels in enumerate(IMAGES):
        path = Path(f"pics/{'ab'[number // 6]}/{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(path)
        names.append(str(path))
    return names


def softmax(scores: Array) -> Array:
    powers = np.exp(scores.astype("f8") - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def told(shell: Shell, *arguments: object) -> list[dict[str, Any]]:
    out = shell.ok("predict", *arguments, "--json", "--engine", "reference")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def require(found: list[dict[str, Any]], expected: Array, top: int = 3) -> None:
    for one, row in zip(found, expected, strict=True):
        best = np.argsort(-row)[:top]
        assert [c["index"] for c in one["classes"]] == best.tolist()
        assert [c["class"] for c in one["classes"]] == [NAMES[i] for i in best]
        given = [c["probability"] for c in one["classes"]]
        np.testing.assert_allclose(given, row[best], rtol=1e-5)


@pytest.mark.parametrize("ends", [False, True])
def test_the_likeliest_classes_of_a_folder(shell: Shell, files: list[str], ends: bool) -> None:
    model = network(softmax=ends)
    model.save("m.safetensors")
    answers = model.predict(IMAGES, engine="reference")
    expected = answers if ends else softmax(answers)
    found = told(shell, "m.safetensors", "pics")
    assert [one["file"] for one in found] == files
    require(found, expected)
    require(told(shell, "m.safetensors", *files[:2], "--top", 9), expected[:2], 4)


def test_the_text_is_a_line_an_image(shell: Shell, files: list[str]) -> None:
    network().save("m.safetensors")
    long = Path("pics") / ("x" * 90 + ".png")
    image.fromarray(IMAGES[0]).resize((50, 60)).save(long)
    out = shell.ok("predict", "m.safetensors", "pics", "--engine", "reference")
    lines = out.splitlines()
    assert lines[0] == "images of another size are brought to 6x5 by stretch, the first is"
    assert lines[1] == f"{long}, 60x50 (height x width)"
    assert [line.split()[0] for line in lines[2:14]] == files
    assert lines[2].count(" %") == 3 and lines[14] == str(long)
    assert max(map(len, [*lines[2:14], lines[15]])) <= 80 and lines[15].count(" %") == 3


def test_of_an_int8_network_the_logits_are_dequantized(shell: Shell, files: list[str]) -> None:
    model = adders_only((6, 5, 3), 4)
    model.preprocessing = PIXELS
    made = ag.quantize(model, IMAGES)
    made.save("q.safetensors")
    integers = ag.interpret(made.graph, made.inputs(IMAGES), weights=made.weights)
    require(told(shell, "q.safetensors", "pics"), softmax(made.outputs(np.asarray(integers))))


def test_broken_images_are_named_and_the_others_go_on(shell: Shell, files: list[str]) -> None:
    network().save("m.safetensors")
    Path("pics/a/zz.png").write_bytes(b"\x89PNG\r\n")
    Path("none").mkdir()
    many = ("predict", "m.safetensors", "no.png", "pics", "none", "--json", "--engine", "reference")
    done = shell(*many)
    assert done.status == 1
    assert [one["file"] for one in json.loads(done.out)] == files
    errors = done.err.splitlines()
    assert errors[0] == 'error: cannot read "no.png": No such file or directory'
    assert errors[1].startswith('error: "pics/a/zz.png" is no image of PNG, JPEG')
    assert errors[2] == 'error: "none" has no images' and len(errors) == 3
    done = shell("predict", "m.safetensors", "none", "--json")
    assert (done.status, done.out) == (1, "[]\n")


def test_batches_do_not_change_what_is_said(
    shell: Shell, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network().save("m.safetensors")
    whole = told(shell, "m.safetensors", "pics")
    monkeypatch.setattr(command, "BATCH_BYTES", 5 * IMAGES[0].nbytes)
    assert told(shell, "m.safetensors", "pics") == whole


def test_sizes_and_channels_are_brought_to_those_of_the_network(shell: Shell) -> None:
    model = network()
    model.save("m.safetensors")
    large = np.random.default_rng(1).integers(0, 256, (20, 31, 3), np.uint8)
    image.fromarray(large).save("large.png")
    image.fromarray(large[:6, :5, 0]).save("grey.png")
    for how in ("stretch", "crop", "pad"):
        found = told(shell, "m.safetensors", "large.png", "grey.png", "--how", how)
        assert [one["size"] for one in found] == [[20, 31], [6, 5]]
        taken = np.stack([bring(large, (6, 5), how), np.repeat(large[:6, :5, :1], 3, axis=2)])
        require(found, softmax(model.predict(taken, engine="reference")))
        network(replace(PIXELS, resize=how)).save("said.safetensors")
        assert told(shell, "said.safetensors", "large.png", "grey.png") == found
    assert shell.error("predict", "said.safetensors", "large.png", "--how", "crop") == (
        '--how crop contradicts "said.safetensors", which was trained on images that were brought '
        "to size by pad: leave it out, or say pad"
    )
    bgr = network(replace(PIXELS, channels="bgr"))
    bgr.save("bgr.safetensors")
    taken = bring(large, (6, 5))[None, ..., ::-1]
    require(
        told(shell, "bgr.safetensors", "large.png"),
        softmax(bgr.predict(taken, engine="reference")),
    )
    one = Preprocessing(Normalize((0.0,), (1.0,), 1 / 16), "u8", "grey", NAMES)
    grey = network(one, depth=1)
    grey.save("g.safetensors")
    done = shell("predict", "g.safetensors", "large.png", "--engine", "reference")
    assert "was trained on images whose white is 16" in done.err and done.status == 0
    y = np.asarray(image.fromarray(large).convert("L"))[..., None]
    require(
        told(shell, "g.safetensors", "large.png"),
        softmax(grey.predict(bring(y, (6, 5))[None], engine="reference")),
    )


def test_arrays_are_images_as_they_are(shell: Shell) -> None:
    model = network()
    model.save("m.safetensors")
    np.save("one.npy", IMAGES[0].astype(">f8"))
    np.savez("x.npz", x=IMAGES[:2], y=np.arange(2))
    found = told(shell, "m.safetensors", "one.npy", "x.npz")
    assert [one["file"] for one in found] == ["one.npy[0]", "x.npz[0]", "x.npz[1]"]
    expected = softmax(model.predict(IMAGES[:2], engine="reference"))
    require(found, expected[[0, 0, 1]])
    np.save("bad.npy", IMAGES[0] / 255)
    np.save("small.npy", IMAGES[:, :3])
    Path("no.npy").write_bytes(b"no")
    done = shell("predict", "m.safetensors", "bad.npy", "small.npy", "no.npy")
    assert done.status == 1 and "they look normalized already" in done.err
    assert "holds uint8 (12, 3, 5, 3); expected images ('N', 6, 5, 3)" in done.err
    assert '"no.npy" is no NumPy array' in done.err


def test_what_predict_refuses(shell: Shell, files: list[str]) -> None:
    network(None).save("m.safetensors")
    error = shell.error("predict", "m.safetensors", files[0])
    assert error.startswith('"m.safetensors" does not say what a pixel is: addergraph train writes')
    assert "starts with random weights" in shell.error("predict", "small-adder", files[0])
    network(replace(PIXELS, dtype="f32")).save("f.safetensors")
    assert "takes real numbers as pixels, which no image file has: give arrays" in shell.error(
        "predict", "f.safetensors", files[0]
    )
    one = Model(input_shape=(6, 5, 3), preprocessing=PIXELS)
    one.add(layers.Flatten())
    one.add(layers.Dense(1))
    one.weights["dense1.b"][...] = 1
    one.save("one.safetensors")
    assert "which are no classes" in shell.error("predict", "one.safetensors", files[0])
    assert shell("predict", "m.safetensors").status == 2


# --- evaluate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "int8", "graph"])
def test_evaluate_says_what_is_confused(shell: Shell, kind: str) -> None:
    model = adders_only((6, 5, 3), 4)
    model.preprocessing = PIXELS
    y = np.random.default_rng(2).integers(0, 4, len(IMAGES))
    np.savez("d.npz", x=IMAGES, y=y)
    given: tuple[object, ...] = ("m.safetensors",)
    answers = model.predict(IMAGES, engine="reference")
    probabilities = softmax(answers)
    names: tuple[str, ...] = NAMES
    if kind == "int8":
        made = ag.quantize(model, IMAGES)
        made.save("m.safetensors")
        answers = np.asarray(ag.interpret(made.graph, made.inputs(IMAGES), weights=made.weights))
        probabilities = softmax(made.outputs(answers))
    elif kind == "graph":
        Path("net.ag").write_text(str(model.inference_graph()))
        np.savez("w.npz", **model.inference_weights())  # type: ignore[arg-type]
        given, names = ("net.ag", "--weights", "w.npz", "--normalize", "none"), tuple("0123")
    else:
        model.save("m.safetensors")
    base = ("evaluate", *given, "--data", "d.npz", "--engine", "reference")
    plot: tuple[str, ...] = ("-o", "out") if kind != "graph" else ()
    if plot:
        pytest.importorskip("matplotlib")
    out = shell.ok(*base, *plot)
    predicted = answers.argmax(axis=1)
    right = predicted == y
    assert f", accuracy {right.mean():.4f}" in out.splitlines()[0].replace(": ", ", ")
    for index, name in enumerate(names):
        row = [name, str((y == index).sum()), str(right[y == index].sum())]
        assert any(line.split()[:3] == row for line in out.splitlines())
    assert "images of each true class (row) by predicted class (column):" in out
    if not plot:
        return
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "confusion.png", "evaluation.json", "mistakes.png"
    ]  # fmt: skip
    found = json.loads(Path("out/evaluation.json").read_text())
    assert found["accuracy"] == right.mean() and found["images"] == 12
    assert found["confusion"][y[0]][predicted[0]] > 0 and np.sum(found["confusion"]) == 12
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    assert [one["sample"] for one in found["mistakes"]] == worst.tolist()
    first = found["mistakes"][0]
    assert first["probability"] == pytest.approx(probabilities[worst[0]].max(), rel=1e-5)


def test_mistakes_in_a_folder_are_files(shell: Shell) -> None:
    pytest.importorskip("matplotlib")
    for number, pixels in enumerate(IMAGES):  # 0, 1, 10, 11, 2: not the order of their numbers
        file = Path("pets", NAMES[number // 3], f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(file)
    network().save("m.safetensors")
    shell.ok("evaluate", "m.safetensors", "--data", "folder:pets", "-o", "out")
    mistakes = json.loads(Path("out/evaluation.json").read_text())["mistakes"]
    for one in mistakes:
        assert Path(one["file"]).parent.name == NAMES[one["true"]]
        said = shell.ok("predict", "m.safetensors", one["file"], "--top", 1).split()[-3:]
        assert said == [NAMES[one["predicted"]], f"{100 * one['probability']:.1f}", "%"]
    assert len(mistakes) > 3


def test_a_bad_folder_is_refused_before_the_work(shell: Shell) -> None:
    pytest.importorskip("matplotlib")
    Path("file").write_text("")
    assert "cannot make the folder" in shell.error("evaluate", "no.safetensors", "-o", "file/x")


def test_evaluate_and_train_know_how_images_came_to_size(shell: Shell) -> None:
    rng = np.random.default_rng(3)
    for number in range(4):
        path = Path(f"own/{'ab'[number % 2]}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (9, 12 + number, 3), np.uint8)).save(path)
    two = Model(input_shape=(6, 5, 3), name="net")
    two.add(layers.Flatten())
    two.add(layers.Dense(2))
    two.build((6, 5, 3))
    two.weights["dense1.b"][...] = (0.5, -0.5)
    two.save("new.safetensors")
    train = (
        "train", "--model", "new.safetensors", "--epochs", 1, "--engine", "reference",
        "--allow-chance", "--recipe", "quick", "-o", "m.safetensors",
    )  # fmt: skip
    data = "folder:own?size=6x5,how=crop"
    shell.ok(*train, "--data", data, "--validation", "folder:own")
    known = Model.load("m.safetensors").preprocessing
    assert known is not None and known.resize == "crop" and known.classes == ("a", "b")
    shown = [
        shell.ok("evaluate", "m.safetensors", "--data", one, "--engine", "reference").splitlines()
        for one in (data, "folder:own", "folder:own?size=6x5", "folder:own?channels=3")
    ]
    assert [s[1:] for s in shown[1:]] == [shown[0][1:]] * 3
    said = shell.error("evaluate", "m.safetensors", "--data", "folder:own?size=6x5,how=pad")
    assert said.startswith('how=pad of "own" contradicts "m.safetensors", which was trained on')
    for path in Path("own").rglob("*.png"):  # as grey images, which then have three channels
        grey = Path("grey", path.relative_to("own"))
        grey.parent.mkdir(parents=True, exist_ok=True)
        image.open(path).convert("L").save(grey)
    assert "accuracy" in shell.ok("evaluate", "m.safetensors", "--data", "folder:grey")
    again = (*train, "--model", "m.safetensors", "--data")
    assert "how=stretch" in shell.error(*again, "folder:own?size=6x5,how=stretch")
    shell.ok(*again, "folder:own")  # as the file says: by crop
    cropped = Path("m.safetensors").read_bytes()
    shell.ok(*train, "--data", data)
    shell.ok(*again, data)
    assert Path("m.safetensors").read_bytes() == cropped
