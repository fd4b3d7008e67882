"""A picture of a graph as SVG: boxes for its nodes, ovals for inputs and outputs, lines for what
flows. It needs no program, is the same to the byte for the same graph, and reads on light and dark
grounds alike. `layered.py` says what stands where."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from .. import display
from ..errors import UnsupportedError
from ..ir import Graph, Node, Op, Parameter, Value
from ..ir.op import MOVEMENT, POINTWISE, REDUCTION
from ..ir.text_attributes import shown_attributes
from ..tables import columns, printable, shortened
from .layered import LANE, Line, Spot, place, rows_of, spread

MOST = 3000  # nodes; nobody finds a way through a picture of more
ENDS = "input, output"
COLOURS = {  # of the kinds, in the legend's order
    ENDS: "#ffffff", "adder": "#9ecbff", "product": "#d3bdf5", "norm": "#b5e2b8",
    "activation": "#ffd596", POINTWISE: "#f4edb0", REDUCTION: "#a8e0dd", MOVEMENT: "#d5d8dc",
}  # fmt: skip
LINE, PAD, LETTER = 14.0, 8.0, 6.6  # pixels: height of a line, border of a box, width of a letter
WIDEST = 34  # columns of a line
POINTS = 1  # rows that lines pass, for each box; in a larger picture long lines are words
STYLE = (
    ".ag text{font:11px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1b1f24;"
    "text-anchor:middle}.ag .b{font-weight:bold}.ag .n{fill:#57606a}.ag rect{stroke:#6e7781}"
    ".ag .h{fill:#808890;text-anchor:start}.ag path{fill:none;stroke:#808890;stroke-width:1.3}"
)
HEAD = 46.0  # pixels above the picture, for its name and the legend


@dataclass
class Box:
    """A vertex of the picture: its lines, of which the first is its name, and fainter ones."""

    kind: str
    title: str  # what a pointer on it shows
    lines: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels."""
        widest = max(columns(line) for line in (*self.lines, *self.notes))
        return (
            max(widest * LETTER + 2 * PAD + (8 if self.kind == ENDS else 0), 56.0),
            (len(self.lines) + len(self.notes)) * LINE + 2 * PAD - 4,
        )


@dataclass
class Scene:
    """Boxes in an order in which each comes behind what it reads, and what flows between them."""

    boxes: list[Box] = field(default_factory=list)
    source: dict[Value, int] = field(default_factory=dict)
    readers: dict[Value, list[int]] = field(default_factory=dict)

    def add(self, box: Box, reads: Sequence[Value], makes: Sequence[Value]) -> None:
        self.source.update(dict.fromkeys(makes, len(self.boxes)))
        for value in reads:
            if value in self.source:
                self.readers.setdefault(value, []).append(len(self.boxes))
        self.boxes.append(box)


def to_svg(graph: Graph) -> str:
    """The graph as the text of an SVG file.

    A box has the node's name, its op (of a fused node those of its body), the attributes that are
    not at their default, the results' types, the parameters and constants that it reads and the
    parameters that it updates; the colour is the kind of op. A line is one result, to all that
    read it. UnsupportedError for more than `MOST` nodes.
    """
    if len(graph.nodes) > MOST:
        raise UnsupportedError(
            f'graph "{shortened(printable(graph.name), 80)}" has {len(graph.nodes):,} nodes, a '
            f"picture shows at most {MOST:,}: print the graph, or draw a part of it"
        )
    scene = _scene(graph)
    values, rows = _shortened_lines(scene)
    reads = [(scene.source[v], scene.readers[v]) for v in values]
    spots, lines = place(rows, [box.size for box in scene.boxes], reads)
    return "\n".join(_written(graph, scene.boxes, spots, list(zip(values, lines, strict=True))))


def drawn(graph: Graph) -> str:
    """The picture for a notebook, or what is against it."""
    try:
        return display.drawing(to_svg(graph))
    except UnsupportedError as error:
        return display.text(str(error))


def _shortened_lines(scene: Scene) -> tuple[list[Value], list[int]]:
    """The values that have lines, and the rows of the boxes.

    Where lines pass many rows in all, as in a training step, the longest of them are left out, and
    the boxes that they would lead to name what they read.
    """
    every = list(scene.readers)
    rows = rows_of(len(scene.boxes), [(scene.source[v], scene.readers[v]) for v in every])
    passed = {v: [rows[r] - rows[scene.source[v]] - 1 for r in scene.readers[v]] for v in every}
    left, far = POINTS * len(scene.boxes) + 100, 0
    for far in sorted(max(spans) for spans in passed.values()):
        left -= far
        if left < 0:
            break
    for value in every if left < 0 else ():
        for reader, span in zip(scene.readers[value], passed[value], strict=True):
            if span >= far:
                scene.boxes[reader].notes += _wrapped(["reads", _name(value.name)])
        spans = zip(scene.readers[value], passed[value], strict=True)
        scene.readers[value] = [reader for reader, span in spans if span < far]
    return [value for value in every if scene.readers[value]], rows


def _scene(graph: Graph) -> Scene:
    scene = Scene()
    folded: dict[Value, str] = {p: _name(p.name) for p in graph.parameters}
    for value in graph.inputs:
        lines = [_name(value.name), str(value.type)]
        scene.add(Box(ENDS, f"input {value}: {value.type}", lines), (), (value,))
    for node in graph.nodes:
        if node.op.constant is not None:
            folded[node.outputs[0]] = f"{node.op.constant:.6g}"
            continue
        updated = [u.parameter.name for u in graph.updates if u.value in node.outputs]
        scene.add(_box(node, folded, updated), node.inputs, node.outputs)
    ends = [("returned", value) for value in graph.outputs]
    made = {value for node in graph.nodes for value in node.outputs} - folded.keys()
    ends += [(f"to {u.parameter.name}", u.value) for u in graph.updates if u.value not in made]
    for what, value in ends:
        lines = [_name(what), *([folded[value]] if value in folded else [])]
        scene.add(Box(ENDS, f"{what}: {value}", lines), (value,), ())
    return scene


def _box(node: Node, folded: dict[Value, str], updated: Sequence[str]) -> Box:
    ops = [atom.op.name for atom in node.atoms if atom.op.constant is None]
    lines = [_name(node.name), *_wrapped(ops)]
    if node.op.subgraph is None:
        lines += _wrapped(shown_attributes(node.op))
    lines += _wrapped(list(dict.fromkeys(str(v.type) for v in node.outputs)))
    notes = _read(node, folded)
    notes += [line for name in updated for line in _wrapped(["updates", _name(name)])]
    title = "\n".join([node.label, *shown_attributes(node.op), *ops])
    return Box(kind_of(node), title, lines, notes)


def _read(node: Node, folded: dict[Value, str]) -> list[str]:
    """Parameters of one type and layer in one line, whose name is not said where it is the node's;
    constants as numbers."""
    groups: dict[tuple[str, str], list[str]] = {}
    for value in dict.fromkeys(node.inputs):
        if isinstance(value, Parameter):
            layer, _, name = value.name.rpartition(".")
            layer = f"{layer}:" if layer not in ("", node.name) else ""
            groups.setdefault((layer, str(value.type)), []).append(name)
        elif value in folded:
            groups.setdefault(("", ""), []).append(folded[value])
    return [
        line for (layer, kind), names in groups.items() for line in _wrapped([layer, *names, kind])
    ]


def kind_of(node: Node) -> str:
    """The kind of a node's op, as the picture colours it; of a fused node what most work is in."""
    if (first := node.contraction) is not None:
        return "adder" if (first.op.gradient_of or first.op).measures_distance else "product"
    ops: list[Op] = [atom.op for atom in node.atoms]
    if any(op.normalizes for op in ops):
        return "norm"
    if ops[-1].activation:
        return "activation"
    return POINTWISE if node.op.subgraph is not None else node.op.kind


def _name(text: str) -> str:
    return shortened(printable(text), WIDEST)


def _wrapped(words: Sequence[str]) -> list[str]:
    """The words in lines of WIDEST columns, at most four of them."""
    text = " ".join(shortened(printable(word), WIDEST) for word in words if word)
    return textwrap.wrap(
        text, WIDEST, max_lines=4, placeholder=" ..", break_long_words=False, break_on_hyphens=False
    )


def _written(
    graph: Graph, boxes: Sequence[Box], spots: Sequence[Spot], lines: Sequence[tuple[Value, Line]]
) -> Iterator[str]:
    kinds = [kind for kind in COLOURS if any(box.kind == kind for box in boxes)]
    least = sum(len(kind) * LETTER + 34 for kind in kinds)
    left = min((s.x - s.width / 2 for s in spots), default=0) - 12
    right = max((s.x + s.width / 2 for s in spots), default=0) + 12
    left, right = min(left, (left + right - least) / 2), max(right, (left + right + least) / 2)
    height = max((s.y + s.height / 2 for s in spots), default=0) + HEAD + 12
    size = f"{right - left:.0f}", f"{height:.0f}"
    name = escape(printable(graph.name))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="{left:.0f} {-HEAD:.0f} {size[0]} {size[1]}" class="ag" role="img">'
    )
    yield f"<title>{name}</title><style>{STYLE}</style>"
    yield (
        '<defs><marker id="ag-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#808890;'
        'stroke:none"/></marker></defs>'
    )
    count = f"{len(graph.nodes):,} nodes"
    title = escape(f"{shortened(printable(graph.name), 60)}: {count}")
    yield f'<text class="h" x="{left + 12:.1f}" y="{-HEAD + 16:.0f}">{title}</text>'
    yield from _legend(kinds, left + 12)
    yield from _drawn_lines(spots, lines)
    for box, spot in zip(boxes, spots, strict=False):
        yield from _drawn_box(box, spot)
    yield "</svg>"


def _legend(kinds: Sequence[str], x: float) -> Iterator[str]:
    for kind in kinds:
        yield (
            f'<rect x="{x:.1f}" y="{-HEAD + 24:.0f}" width="12" height="12" rx="3" '
            f'fill="{COLOURS[kind]}"/><text class="h" x="{x + 17:.1f}" y="{-HEAD + 34:.0f}">'
            f"{kind}</text>"
        )
        x += len(kind) * LETTER + 34


def _drawn_box(box: Box, spot: Spot) -> Iterator[str]:
    x, y = spot.x - spot.width / 2, spot.y - spot.height / 2
    round_ = spot.height / 2 if box.kind == ENDS else 7
    title = "\n".join(printable(line) for line in box.title.splitlines())
    yield (
        f'<g><title>{escape(title)}</title><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{spot.width:.1f}" height="{spot.height:.1f}" rx="{round_:.1f}" '
        f'fill="{COLOURS[box.kind]}"/>'
    )
    y += PAD + 8
    for number, line in enumerate((*box.lines, *box.notes)):
        style = ' class="b"' if number == 0 else ' class="n"' if number >= len(box.lines) else ""
        yield f'<text{style} x="{spot.x:.1f}" y="{y:.1f}">{escape(line)}</text>'
        y += LINE
    yield "</g>"


def _drawn_lines(spots: Sequence[Spot], lines: Sequence[tuple[Value, Line]]) -> Iterator[str]:
    """Each step of a line goes down out of a spot and down into the next."""
    outs, ins = _ports(spots, [line for _, line in lines])
    for number, (value, line) in enumerate(lines):
        parts = []
        for a, b in line.steps:
            start, end = outs.get((a, number), spots[a].x), ins.get((b, number), spots[b].x)
            top, bottom = _edge(spots, a, 1), _edge(spots, b, -1)
            middle = (top + bottom) / 2
            path = f"M{start:.1f} {top:.1f}C{start:.1f} {middle:.1f} {end:.1f} {middle:.1f} "
            path += f"{end:.1f} {bottom:.1f}"
            if not spots[b].width:  # through the row
                path += f"V{_edge(spots, b, 1):.1f}"
            arrow = ' marker-end="url(#ag-arrow)"' if spots[b].width else ""
            parts.append(f'<path d="{path}"{arrow}/>')
        yield f"<g><title>{escape(printable(f'{value}: {value.type}'))}</title>{''.join(parts)}</g>"


def _edge(spots: Sequence[Spot], spot: int, side: int) -> float:
    """The lower (1) or upper (-1) edge."""
    return spots[spot].y + side * spots[spot].height / 2


Ports = dict[tuple[int, int], float]


def _ports(spots: Sequence[Spot], lines: Sequence[Line]) -> tuple[Ports, Ports]:
    """Where each line leaves and enters the boxes, by (spot, line): as near to where it goes as
    the box reaches, lines apart."""
    outs: dict[int, dict[int, list[float]]] = {}
    ins: dict[int, dict[int, list[float]]] = {}
    for number, line in enumerate(lines):
        for a, b in line.steps:
            if spots[a].width:
                outs.setdefault(a, {}).setdefault(number, []).append(spots[b].x)
            if spots[b].width:
                ins.setdefault(b, {}).setdefault(number, []).append(spots[a].x)
    return _spread(spots, outs), _spread(spots, ins)


def _spread(spots: Sequence[Spot], found: dict[int, dict[int, list[float]]]) -> Ports:
    ports: Ports = {}
    for number, ends in found.items():
        spot, reach = spots[number], max(spots[number].width / 2 - 14, 0)
        wanted = sorted((sum(xs) / len(xs), line) for line, xs in ends.items())
        near = [min(max(x, spot.x - reach), spot.x + reach) for x, _ in wanted]
        gaps = [min(LANE, 2 * reach / max(len(near) - 1, 1))] * (len(near) - 1)
        for (_, line), x in zip(wanted, spread(near, gaps, [1.0] * len(near)), strict=True):
            ports[number, line] = min(max(x, spot.x - reach), spot.x + reach)
    return ports
