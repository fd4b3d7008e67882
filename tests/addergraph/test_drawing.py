"""drawing, layered: a graph as a picture."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from random import Random

import pytest

from addergraph import compiler, zoo
from addergraph.errors import UnsupportedError
from addergraph.ir import Builder, Graph
from addergraph.ir.text import parse
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.binary import Add
from addergraph.report import drawing
from addergraph.report.drawing import kind_of, to_svg
from addergraph.report.layered import place, rows_of, spread
from tests.passes.random_graphs import random_graph

SVG = "{http://www.w3.org/2000/svg}"
TRAIN = parse("""graph g(%x: f32[4,8,8,2], %rate: f32[]) params(
  %conv.f: f32[3,3,2,2] init=zeros, %mean: f32[2] init=zeros fixed,
  %last: f32[] init=zeros fixed) {
  %conv = adder2d(%x, %conv.f) stride=(2,2) padding=(1,1,1,1) : f32[4,4,4,2]
  %m, %v = batch_norm_statistics(%conv) : f32[2], f32[2]
  %half = full() value=0.5 : f32[]
  %next = mul(%v, %half) : f32[2]
  %y = sub(%conv, %m) : f32[4,4,4,2]
  update %mean <- %next
  update %conv.f <- %conv.f
  update %last <- %rate
  return %y, %half
}""")


class Picture:
    """What an SVG file shows."""

    def __init__(self, graph: Graph) -> None:
        self.text = to_svg(graph)
        self.root = ET.fromstring(self.text)
        self.boxes: dict[str, tuple[float, float, float, float]] = {}  # x0 y0 x1 y1, by first line
        self.lines: dict[str, list[str]] = {}
        self.paths: list[list[tuple[float, float]]] = []  # start, controls, end, and below a point
        self.fills: dict[str, str] = {}
        for group in self.root.iter(f"{SVG}g"):
            if (box := group.find(f"{SVG}rect")) is not None:
                x, y, w, h = (float(box.get(k) or "") for k in ("x", "y", "width", "height"))
                texts = [t.text or "" for t in group.iter(f"{SVG}text")]
                name = texts[0] if texts[0] not in self.boxes else f"{texts[0]} again"
                self.boxes[name] = (x, y, x + w, y + h)
                self.lines[name], self.fills[name] = texts, box.get("fill") or ""
            for path in group.iter(f"{SVG}path"):
                numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d") or "")]
                points = list(zip(numbers[:8:2], numbers[1:8:2], strict=True))
                points += [(points[-1][0], y) for y in numbers[8:]]
                self.paths.append(points)

    def name_at(self, x: float, y: float) -> str | None:
        """The box that (x, y) is in or on."""
        inside = (
            name
            for name, (x0, y0, x1, y1) in self.boxes.items()
            if x0 - 0.2 <= x <= x1 + 0.2 and y0 - 0.2 <= y <= y1 + 0.2
        )
        return next(inside, None)


def curve(points: list[tuple[float, float]], steps: int = 12) -> list[tuple[float, float]]:
    """Points on the cubic curve of the first four, and the others."""
    a, b, c, d = points[:4]
    made = []
    for i in range(1, steps):
        t = i / steps
        u = 1 - t
        weights = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
        xs, ys = zip(a, b, c, d, strict=True)
        made.append(
            (
                sum(w * x for w, x in zip(weights, xs, strict=True)),
                sum(w * y for w, y in zip(weights, ys, strict=True)),
            )
        )
    return made + points[4:]


@pytest.fixture(scope="module")
def resnet() -> Picture:
    return Picture(zoo.build("resnet20").inference_graph())


def test_a_box_says_name_op_attributes_shape_and_parameters(resnet: Picture) -> None:
    assert resnet.lines["stage2.block0.conv1"] == [
        "stage2.block0.conv1",
        "adder2d",
        "stride=(2,2) padding=(1,1,1,1)",
        "f32[N,16,16,32]",
        "f f32[3,3,16,32]",
    ]
    assert resnet.lines["first_bn"][3:] == ["mean variance gamma beta f32[16]"]
    assert len(resnet.boxes) == 73 + 2  # input and output
    colours = drawing.COLOURS
    assert resnet.fills["stage1.block0.conv1"] == colours["adder"]
    assert resnet.fills["first"] == colours["product"]
    assert resnet.fills["x"] == resnet.fills["returned"] == colours[drawing.ENDS]
    assert resnet.fills["first_act"] == colours["activation"]


@pytest.mark.parametrize("seed", range(6))
def test_boxes_do_not_overlap_and_lines_pass_beside_them(seed: int, resnet: Picture) -> None:
    picture = resnet if seed == 0 else Picture(random_graph(Random(seed), nodes=30, updates=True))
    boxes = list(picture.boxes.values())
    for i, (ax0, ay0, ax1, ay1) in enumerate(boxes):
        for bx0, by0, bx1, by1 in boxes[:i]:
            assert ax1 < bx0 or bx1 < ax0 or ay1 < by0 or by1 < ay0
    assert picture.paths
    for points in picture.paths:
        assert [picture.name_at(x, y) for x, y in curve(points)] == [None] * (len(points) + 7)
        assert picture.name_at(*points[0]) or len(points) > 4 or True
        assert all(y0 <= y1 for (_, y0), (_, y1) in pairwise(points))  # all lead down
    _, _, width, height = map(float, (picture.root.get("viewBox") or "").split())
    left = float((picture.root.get("viewBox") or "").split()[0])
    assert min(b[0] for b in boxes) >= left and max(b[2] for b in boxes) <= left + width
    assert max(b[3] for b in boxes) + drawing.HEAD <= height


def test_the_longest_path_is_one_straight_line(resnet: Picture) -> None:
    middles = {
        round((x0 + x1) / 2, 1)
        for name, (x0, _, x1, _) in resnet.boxes.items()
        if "skip" not in name
    }
    assert middles == {0.0}


def test_the_same_graph_is_the_same_picture() -> None:
    assert to_svg(TRAIN) == to_svg(parse(str(TRAIN)))


def test_parameters_constants_updates_and_ends_are_words_in_boxes() -> None:
    lines = Picture(TRAIN).lines
    assert lines["conv"][-1] == "f f32[3,3,2,2]"
    assert lines["next"] == ["next", "mul", "f32[2]", "0.5", "updates mean"]
    assert lines["rate"] == ["rate", "f32[]"]
    assert lines["returned again"] == ["returned", "0.5"]
    assert lines["to conv.f"] == ["to conv.f", "conv.f"]
    assert lines["to last"] == ["to last"]  # a line leads there
    assert "half" not in lines


def test_a_fused_node_shows_the_ops_of_its_body_and_has_the_kind_of_its_work() -> None:
    graph = compiler.optimize(zoo.build("small-adder").inference_graph())
    lines = Picture(graph).lines
    assert lines["act2"] == [
        "act2", "adder2d mul add relu", "f32[N,8,8,32]", "adder1: f f32[3,3,16,32]"
    ]  # fmt: skip
    kinds = {node.name: kind_of(node) for node in graph.nodes}
    assert kinds["act2"] == "adder" and kinds["act1"] == "product"
    assert kinds["bn1.scale"] == "pointwise" and kinds["pool1"] == "reduction"


def test_names_are_text() -> None:
    name = 'a<script>&"' + chr(27) + chr(0)
    builder = Builder("g")
    x = builder.input("x", tensor("f32", (2,)))
    (y,) = builder.add(Add(), [x, x], 60 * "y")
    text = to_svg(dataclasses.replace(builder.finish([y]), name=name))
    root = ET.fromstring(text)
    assert "<script" not in text
    assert root.findtext(f"{SVG}title") == 'a<script>&"\\x1b\\x00'
    shown = [t.text or "" for t in root.iter(f"{SVG}text")]
    assert any(t.startswith("yyy") and t.endswith("..") for t in shown)


def test_lines_over_many_rows_become_words_where_there_are_many() -> None:
    few, many = (Picture(ladder(n)) for n in (8, 60))
    assert not any("reads" in " ".join(lines) for lines in few.lines.values())
    assert many.lines["end_59"][-1] == "reads v"
    assert many.lines["end"][-1] != "reads v_59"  # the next row
    assert many.root.get("height") is not None


def ladder(count: int) -> Graph:
    """A chain whose results are added again in the opposite order, as gradients are."""
    builder = Builder("ladder")
    x = builder.input("x", tensor("f32", (2,)))
    made = []
    for _ in range(count):
        (x,) = builder.add(Add(), [x, x], "v")
        made.append(x)
    for value in reversed(made):
        (x,) = builder.add(Add(), [x, value], "end")
    return builder.finish([x])


def test_a_thousand_nodes_are_drawn_and_too_many_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(Picture(ladder(500)).boxes) == 1002
    monkeypatch.setattr(drawing, "MOST", 15)
    with pytest.raises(UnsupportedError, match='"ladder" has 16 nodes, a picture shows at most 15'):
        to_svg(ladder(8))


def test_spread_is_the_nearest_to_what_is_wanted() -> None:
    assert spread([0.0, 10.0], [5.0], [1.0, 1.0]) == [0.0, 10.0]
    assert spread([0.0, 0.0], [4.0], [1.0, 1.0]) == [-2.0, 2.0]
    assert spread([0.0, 0.0], [4.0], [3.0, 1.0]) == [-1.0, 3.0]
    assert spread([], [], []) == []


def test_what_only_one_box_reads_stands_just_above_it() -> None:
    # 0 -> 1 -> 2 -> 3, and 4 -> 5 would be early: numbers are in topological order
    reads = [(0, [2]), (1, [4]), (2, [3]), (3, [4])]
    assert rows_of(5, reads) == [0, 2, 1, 2, 3]
    spots, lines = place(rows_of(5, reads), [(10.0, 10.0)] * 5, reads)
    assert [line.steps for line in lines] == [((0, 2),), ((1, 4),), ((2, 3),), ((3, 4),)]
    assert len(spots) == 5
