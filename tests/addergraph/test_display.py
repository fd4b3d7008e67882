"""display, and what notebooks and `repr` show of each object."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

import addergraph as ag
from addergraph import Model, data, display, layers
from addergraph.data import Dataset, digits
from addergraph.diagnostics import confusion, diagnose
from addergraph.diagnostics.gradients import Recording
from addergraph.diagnostics.pictures import new_figure
from addergraph.report import drawing
from addergraph.tables import Table
from addergraph.training.logs import History

pytestmark = pytest.mark.usefixtures("quick_objects")
EVIL = "<script>\x1b"
SHAPE = (4, 4, 1)


class Read(HTMLParser):
    """Text of a page by the tag around it; tags must close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.pictures: list[str] = []
        self.feed(page)
        assert not self.open
        assert "\x1b" not in page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "link", "iframe")
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[str]:
        return [text for found, text in self.texts if found == tag]


def shown(thing: Any) -> Read:
    return Read(thing._repr_html_())


@pytest.fixture(scope="module")
def model() -> Model:
    made = Model(input_shape=SHAPE, name="net")
    act, flat = layers.Activation("relu"), layers.Flatten()
    for layer in (layers.Adder(2, kernel_size=3), layers.BatchNorm(), act, flat, layers.Dense(3)):
        made.add(layer)
    made.build(SHAPE)
    return made


def samples(count: int = 12) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def test_a_graph_is_one_line_its_text_and_a_picture(model: Model) -> None:
    graph = model.graph(training=False)
    assert repr(graph) == (
        '<Graph "net": f32[N,4,4,1] -> f32[N,3]; 5 nodes, 7 parameters of 53 numbers>'
    )
    assert str(graph).startswith("graph net(") and f"{graph}" == str(graph)
    page = shown(graph)
    assert page.of("b") == [repr(graph).strip("<>")]
    (picture,) = page.pictures
    kind, _, content = picture.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content).decode() == drawing.to_svg(graph)


def test_a_graph_too_large_to_draw_says_so(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MOST", 3)
    page = shown(model.graph(training=False))
    assert not page.pictures and "a picture shows at most 3" in page.of("pre")[0]


def test_a_model_shows_its_layers_and_its_graph(model: Model) -> None:
    page = shown(model)
    assert page.of("td")[1:4] == ["adder2d", "2x2x2", "18"]
    assert page.of("summary") == ["graph"] and len(page.pictures) == 1
    assert "no layers" in shown(Model()).of("pre")[0]
    known = Model(
        input_shape=SHAPE, preprocessing=data.Preprocessing(data.Normalize((0.0,), (1.0,), 1 / 255))
    )
    known.add(layers.Flatten())
    assert "u8 pixels enter as pixel * 0.00392157" in shown(known).of("pre")[0]


def test_parts_of_a_block_stand_below_it_in_a_notebook() -> None:
    made = Model(input_shape=SHAPE)
    made.add(layers.Residual([layers.BatchNorm()], name="block"))
    page = made._repr_html_()
    assert ">block</td>" in page
    assert '<td style="white-space:pre;text-align:left">  bn1</td>' in page


def test_a_dataset_shows_counts_and_the_first_image_of_each_class() -> None:
    x = np.zeros((5, 2, 3, 3), np.uint8)
    x[1] = (255, 0, 9)
    made = Dataset(
        "s", x, np.array([1, 0, 0, 1, 1]), x[:2], np.array([0, 1]), (EVIL, "b"), channels="bgr"
    )
    assert repr(made) == (
        '<Dataset "s": 2x3x3 uint8, 2 classes; 5 images to train, 0 to validate, 2 to test>'
    )
    page = shown(made)
    assert page.of("td") == ["<script>\\x1b", "2", "0", "1", "b", "3", "0", "1"]
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))))
        for p in page.pictures
    )
    assert first.shape == (2, 3, 3) and (first == (9, 0, 255)).all() and not second.any()


def test_a_dataset_of_real_numbers_and_many_classes() -> None:
    x = np.full((30, 2, 2, 1), np.nan, np.float32)
    made = Dataset("s", x, np.arange(30), x[:0], np.arange(0), None, scale=1.0)
    page = shown(made)
    assert len(page.pictures) == 20 and page.of("pre") == ["and 10 classes more"]
    assert repr(digits.load()) == "<Digits: 1,437 images 8x8x1 to train, 360 to test>"


def test_what_is_made_of_a_model(model: Model) -> None:
    program = ag.compile(model)
    assert shown(program).of("td")[:3] == ["input", "%x", "f32[N,4,4,1]"]
    report = ag.verify(model, program, samples=3)
    assert repr(report) == '<Report of "net": 3 samples, random inputs of seed 0: passed>'
    cells = shown(report).of("td")
    assert cells[1] == "yes" and cells[0] == f"output %{report.outputs[0].name}"
    of_layers = ag.verify_layers(model, ag.compile_layers(model), samples=2)
    assert repr(of_layers).startswith('<LayerReport of "net": 2 samples')
    assert shown(of_layers).of("td")[0].startswith("%")
    quantized = ag.quantize(model, samples().astype(np.float32))
    assert "yes" in shown(quantized).of("td") and "graph" in shown(quantized).of("summary")
    found = diagnose(
        model, samples().astype(np.float32), np.arange(12) % 3,
        Recording(steps=1, batch=6, threads=1),
    )  # fmt: skip
    assert repr(found) == f'<Diagnosis of "net": {len(found.findings)} findings>'
    assert "adder2d" in shown(found).of("td")


def test_a_history_and_a_confusion() -> None:
    history = History({"loss": [2.0, 1.0], "val_loss": [3.0]})
    assert repr(history) == "<History of 2 epochs: loss 1, val_loss 3>"
    assert shown(history).of("td") == ["1", "2", "3", "2", "1"]
    assert repr(History()) == "<History of 0 epochs>"
    counted = confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), (EVIL, "b"))
    assert repr(counted) == "<Confusion of 2 classes: 2 of 3 images right>"
    cells = [*shown(counted).of("td")]
    assert cells == ["0 <script>\\x1b", "1", "1.0000", "1 b", "1", "1", "0.5000"]
    many = confusion(np.arange(30), np.arange(30), None)
    assert "the worst 20 of 30" in shown(many).of("pre")[0]


def test_a_figure_shows_itself() -> None:
    figure = new_figure(1, 1)
    assert Image.open(io.BytesIO(figure._repr_png_())).size == (100, 100)
    assert repr(figure).startswith("<Figure")


@pytest.mark.parametrize("channels", [1, 3])
def test_png(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, channels)).astype(np.uint8)
    read = np.asarray(Image.open(io.BytesIO(display.png(pixels))))
    assert np.array_equal(read.reshape(pixels.shape), pixels)


def test_tables_and_text_are_escaped() -> None:
    page = display.table(Table((EVIL, "b"), [("<", "&"), ("c",)], ("b",), ("sum", "")))
    assert Read(page).of("td") == ["<", "&", "c", "sum"]
    assert re.findall("text-align:(left|right)", page)[:2] == ["right", "left"]
    assert Read(display.text("a\n<b>", EVIL)).of("pre") == ["a\n<b>\n<script>\\x1b"]


def test_a_head_of_several_lines_is_one_in_documents() -> None:
    made = Table(("a\nb", "\nc"), [("1", "2")], ())
    assert Read(display.table(made)).of("th") == ["a b", "c"]
    assert made.markdown()[0] == "| a b | c |"
    assert [line.split() for line in made.lines()[:2]] == [["a"], ["b", "c"]]
