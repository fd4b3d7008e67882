"""text: what is printed parses back to the same graph; what is not a graph is refused in words."""

from __future__ import annotations

import math
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import AdderGraphError, GraphError, ParseError, ShapeError
from addergraph.ir import Builder, Graph, Init, Op, Parameter, Value, op_named, registry
from addergraph.ir.check import check
from addergraph.ir.text import MAX_NESTING, Parser, parse
from addergraph.ir.text_attributes import Attribute, attributes, shown_attributes
from addergraph.ir.types import DTYPES, Dim, tensor
from addergraph.ops.contraction.adder2d import Adder2d

BLOCK = """\
graph block(%x: f32[N,8,8,16]) params(%conv1.f: f32[3,3,16,32] init=normal(0,1) eta=0.2) {
  %conv1 = adder2d(%x, %conv1.f) stride=(2,1) padding=(1,1,1,1) : f32[N,4,8,32]
  %act1 = relu(%conv1) : f32[N,4,8,32]
  return %act1
}"""

WRAPPED = """graph block(%x: f32[N,8,8,16]) params(
  %conv1.f: f32[3,3,16,32] init=uniform(-0.5,1e-05) eta=0.2,
  %bn1.mean: f32[32] init=zeros fixed,
  %bn1.variance: f32[32] init=ones fixed
) {
  %conv1 = adder2d(%x, %conv1.f) padding=(1,1,1,1) : f32[N,8,8,32]
  %mean, %variance = batch_norm_statistics(%conv1) : f32[32], f32[32]
  update %bn1.mean <- %mean
  update %bn1.variance <- %variance
  return %conv1, %mean
}"""

FUSED = """graph net(%x: f32[N,8,8,16], %f: f32[3,3,16,32], %s: f32[32]) {
  %act1 = fused(%x, %f, %s) : f32[N,8,8,32] {
    graph body(%a0: f32[N,8,8,16], %a1: f32[3,3,16,32], %a2: f32[32]) {
      %v0 = adder2d(%a0, %a1) padding=(1,1,1,1) : f32[N,8,8,32]
      %v1 = mul(%v0, %a2) : f32[N,8,8,32]
      return %v1
    }
  }
  %y = relu(%act1) : f32[N,8,8,32]
  return %y
}"""


QUANTIZED = """graph bytes(%x: u8[N,4] scale=0.5 zero_point=3, %t: u8[4,256] scale=0.25) {
  %y = lookup(%x, %t) scale=0.25 : u8[N,4]
  return %y
}"""


@pytest.mark.parametrize("text", [BLOCK, WRAPPED, FUSED, QUANTIZED])
def test_canonical_text_is_a_fixed_point(text: str) -> None:
    assert str(parse(text)) == text


def test_parsing_keeps_what_the_text_says() -> None:
    graph = parse(WRAPPED)
    f, mean, variance = graph.parameters
    assert f.init == Init("uniform", (-0.5, 1e-5))
    assert (f.trainable, f.eta, mean.trainable, mean.eta) == (True, 0.2, False, None)
    assert variance.init == Init("ones")
    assert [v.name for v in graph.nodes[1].outputs] == ["mean", "variance"]
    assert [(u.parameter, u.value.name) for u in graph.updates] == [
        (mean, "mean"),
        (variance, "variance"),
    ]


def test_a_long_list_of_inputs_is_wrapped_too() -> None:
    builder = Builder("wide")
    for i in range(9):
        builder.input(f"input{i}", tensor("f32", ("N", 8, 8, 16)))
    text = str(builder.finish([builder.inputs[0]]))
    assert text.startswith("graph wide(\n  %input0: f32[N,8,8,16],\n")
    assert max(map(len, text.splitlines())) <= 100
    assert str(parse(text)) == text


def test_white_space_and_comments_are_free() -> None:
    squeezed = re.sub(r"\s*([=:,{}()<>-])\s*", r"\1", WRAPPED.replace("<-", " <- "))
    assert parse(squeezed) == parse(WRAPPED)
    spread = re.sub(r"([(),:{}=\[\]])", "\n \\1  # comment: { ( %\n", WRAPPED)
    assert parse(spread) == parse(WRAPPED)
    assert parse(
        WRAPPED.replace(
            "  %bn1.variance: f32[32] init=ones fixed\n",
            ("  %bn1.variance: f32[32] init=ones fixed,\n"),
        )
    ) == parse(WRAPPED)


def test_defaults_may_be_written_but_are_not_printed() -> None:
    spelled = BLOCK.replace("stride=", "input_nonnegative=false groups=1 dilation=(1,1) stride=")
    assert str(parse(spelled)) == BLOCK


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e30, 1e-30, -2.0, math.inf, -math.inf])
def test_floats_are_shortest_round_trip(value: float) -> None:
    builder = Builder("g")
    made = builder.add(op_named("full")(shape=(), value=value), [])  # type: ignore[call-arg]
    text = str(builder.finish(made))
    (node,) = parse(text).nodes
    assert repr(node.op.value) == repr(value)  # type: ignore[attr-defined]
    assert f"value={repr(value).removesuffix('.0')} " in text


def test_nan_is_a_number() -> None:
    builder = Builder("g")
    made = builder.add(op_named("full")(shape=(), value=math.nan), [])  # type: ignore[call-arg]
    graph = builder.finish(made)
    assert "value=nan" in str(graph)
    assert parse(str(graph)) == graph


def test_equality_and_hash_are_those_of_the_text() -> None:
    assert parse(BLOCK) == parse(BLOCK)
    assert hash(parse(BLOCK)) == hash(parse(BLOCK))
    assert parse(BLOCK) != parse(BLOCK.replace("eta=0.2", "eta=0.25"))
    assert parse(BLOCK) != BLOCK


# --- every op of the table ----------------------------------------------------------------------

OPS = [op for op in registry().values() if op.__module__.startswith("addergraph.")]


def sample(attribute: Attribute, rng: random.Random) -> str:
    """A random value of `attribute`, as text."""
    expected = attribute.kind.expected
    one = {
        "an integer": lambda: str(rng.randint(-3, 9)),
        "a number": lambda: repr(rng.choice([0.1, -7.5, 1e-05, 1e22, math.inf])),
        "true or false": lambda: rng.choice(["true", "false"]),
        "a word": lambda: "word",
        "a size or N": lambda: rng.choice(["N", "3"]),
        "a dtype": lambda: rng.choice(list(DTYPES)),
    }
    for words, draw in one.items():
        if expected == words:
            return draw()
        if expected == f"({words}, ...)":
            return f"({','.join(draw() for _ in range(rng.randint(0, 5)))})"
        if expected.endswith(f"times {words}"):
            return f"({','.join(draw() for _ in range(int(expected.split()[0])))})"
    raise AssertionError(expected)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_attributes_of_every_op_print_and_parse(op: type[Op]) -> None:
    rng = random.Random(op.name)
    known, body = attributes(op)
    made = 0
    for _ in range(40):
        given = {a.name: sample(a, rng) for a in known}
        parser = Parser(" ".join(f"{name}={text}" for name, text in given.items()))
        fields = parser.fields(op)
        assert parser.peek.kind == "end"
        assert {a.name: a.kind.show(fields[a.name]) for a in known} == {
            name: text.removesuffix(".0").replace(".0,", ",") for name, text in given.items()
        }
        if body is not None:
            continue
        try:
            built = op(**fields)
        except ShapeError:
            continue  # the op refuses these values; still, they were read
        again = Parser(" ".join(shown_attributes(built))).fields(op)
        assert op(**again) == built
        made += 1
    assert made or body is not None or known


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_wrong_operands_of_every_op_are_refused_in_words(op: type[Op]) -> None:
    """Text is data: no operand list makes a shape rule fail with an error that is not ours."""
    rng = random.Random(op.name)
    known, body = attributes(op)
    if body is not None:
        return
    inputs = (
        "%a: f32[], %b: f32[N,4], %c: f32[2,3], %d: f32[N,4,4,2], %e: bool[3], %g: f32[1,1,2,3]"
    )
    for _ in range(60):
        operands = ", ".join(rng.choice(["%a", "%b", "%c", "%d", "%e", "%g"]) for _ in range(4))
        operands = operands[: 4 * rng.randint(0, 4)].rstrip(", ")
        shown = " ".join(f"{a.name}={sample(a, rng)}" for a in known)
        text = f"graph g({inputs}) {{ %y = {op.name}({operands}) {shown} : u8[77] return %y }}"
        with pytest.raises(AdderGraphError):
            parse(text)


# --- random graphs ------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random well-formed graph over a few ops of every kind of attribute."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    builder = Builder(rng.choice(["g", "net_2", "a.b"]))
    batches: list[Dim] = ["N", 0, 2]
    batch = rng.choice(batches)
    image = tensor("f32", (batch, rng.randint(1, 6), rng.randint(1, 6), 2))
    pool: list[Value] = [builder.input(f"x{i}", image) for i in range(rng.randint(1, 3))]
    for i in range(rng.randint(0, 4)):
        shape = rng.choice([(1, 1, 2, 2), (3, 2, 2, 4), (2,), ()])
        init = rng.choice([Init(), Init("ones"), Init("normal", (0.0, rng.random()))])
        eta = rng.choice([None, 0.2, 1e-7])
        made = Parameter(f"p{i}.w", tensor("f32", shape), init, rng.random() < 0.5, eta)
        pool.append(builder.parameter(made))
    for _ in range(draw(st.integers(0, 12))):
        name = rng.choice(["adder2d", "relu", "add", "full", "batch_norm_statistics", "greater"])
        fields: dict[str, object] = {}
        if name == "adder2d":
            fields["stride"] = (rng.randint(1, 2), rng.randint(1, 3))
            fields["padding"] = tuple(rng.randint(0, 2) for _ in range(4))
        if name == "full":
            fields |= {"shape": rng.choice([(), (2,)]), "value": rng.uniform(-1, 1)}
        count = {"relu": 1, "full": 0, "batch_norm_statistics": 1}.get(name, 2)
        try:
            op = op_named(name)(**fields)
            pool += builder.add(op, rng.choices(pool, k=count), rng.choice(["v", "a.b", "7"]))
        except ShapeError:
            continue  # these operands do not fit
    for p in list(builder.parameters.values()):
        same = [v for v in pool if v.type == p.type]
        if rng.random() < 0.5:
            builder.update(p, rng.choice(same))
    return builder.finish(rng.choices(pool, k=rng.randint(0, 3)))


@given(graphs())
def test_random_graphs_print_and_parse(graph: Graph) -> None:
    check(graph)
    text = str(graph)
    again = parse(text)
    assert str(again) == text
    assert again == graph
    assert [n.op for n in again.nodes] == [n.op for n in graph.nodes]
    assert [v.type for v in again.values()] == [v.type for v in graph.values()]


@given(st.text(alphabet="graph ()%xN:f32[],{}=-<#\n1.relu", max_size=60))
def test_noise_is_refused_in_words(text: str) -> None:
    with pytest.raises(AdderGraphError):
        parse(text)


def test_a_message_can_be_printed_whatever_the_text_holds() -> None:
    for text in ("g\udcdargra", "graph g(\x1b[31m\udc80", "graph g\0() {}"):
        with pytest.raises(ParseError, match="line 1, column") as caught:
            parse(text)
        message = str(caught.value)
        assert message.encode() and message.replace("\n", "").isprintable() and "?" in message


@given(st.data())
def test_damaged_text_is_refused_in_words_or_means_something(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([BLOCK, WRAPPED, FUSED]))
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, min(len(text), at + 8)))
    damaged = text[:at] + data.draw(st.text(alphabet='(){}%,:=-9N"é', max_size=3)) + text[end:]
    try:
        graph = parse(damaged)
    except AdderGraphError:
        return
    assert parse(str(graph)) == graph


# --- errors -------------------------------------------------------------------------------------


def refusal(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("relu(", "reluu(", 'line 3, column 11: unknown op "reluu" (did you mean "relu"?)'),
        ("stride", "strid", 'op "adder2d" has no attribute "strid" (did you mean "stride"?)'),
        ("stride=(2,1)", "stride=(2,1) stride=(2,1)", "attribute stride is given twice"),
        ("(2,1)", "(2)", "expected 2 values, found 1"),
        ("(2,1)", "2", 'expected "(", found "2"'),
        ("(2,1)", "(2,x)", 'expected an integer, found "x"'),
        ("(2,1)", "(2,1.5)", 'expected an integer, found "1.5"'),
        ("(2,1)", "(2,-1)", 'adder2d "conv1": stride=(2, -1) must be at least 1'),
        ("(2,1)", "(2,1234567890123456789)", "more than 18 digits"),
        ("stride=(2,1)", "input_nonnegative=1", 'expected true or false, found "1"'),
        ("relu(%conv1)", "relu(%act1)", "line 3, column 16: %act1 is not defined above"),
        ("relu(%conv1)", "relu(%conv2)", '%conv2 is not defined above (did you mean "conv1'),
        ("return %act1", "return %act", "%act is not defined above"),
        ("%act1 =", "%conv1 =", "%conv1 is defined twice"),
        ("%act1 =", "%x =", "%x is defined twice"),
        ("%conv1.f: ", "%x: ", "%x is defined twice"),
        ("f32[3,3,16,32]", "f33[3,3,16,32]", 'unknown dtype "f33" (did you mean "f32"?)'),
        ("f32[N,8,8,16]", "f32[8,N,8,16]", "N may only be the leading dimension"),
        ("f32[N,8,8,16]", "f32[N,8,-8,16]", "dimension -8 of axis 2"),
        ("f32[N,8,8,16]", "f32[N,8,8,15]", "input has 15 channels but the filter expects 16"),
        (") : f32[N,4,8,32]\n  return", ") : f32[N,4,8,31]\n  return", "stated (f32[N,4,8,31])"),
        ("%act1 =", "%act1, %b =", "2 results are named, 1 types stated"),
        ("normal", "norml", 'unknown initializer "norml" (did you mean "normal"?)'),
        ("normal(0,1)", "normal(0)", "initializer normal takes 2 numbers, found 1"),
        ("  return %act1\n", "", 'expected a node, "update" or "return", in this order, found "}"'),
        ("return", "update %x <- %x\n  return", "%x is not a parameter"),
        ("\n}", "", 'expected "}", found the end of the text'),
        ("\n}", "\n}}", 'expected the end of the text, found "}"'),
        ("relu(", "relu $ (", 'expected "(", found "$"'),
        ("graph", "grap", 'line 1, column 1: expected "graph", found "grap"'),
    ],
)
def test_errors_name_the_line_and_what_was_expected(old: str, new: str, message: str) -> None:
    assert old in BLOCK
    assert message in refusal(BLOCK.replace(old, new, 1) if old != "\n}" else BLOCK[:-2] + new)


def test_errors_show_the_source_line_with_a_caret() -> None:
    message = refusal(BLOCK.replace("relu(", "reluu("))
    assert message.splitlines()[1:] == [
        "    %act1 = reluu(%conv1) : f32[N,4,8,32]",
        "            ^",
    ]


def test_the_caret_stays_in_view_on_endless_lines() -> None:
    line = BLOCK.replace("\n", " ").replace("graph", "graph" + " " * 5000).replace("relu(", "rlu(")
    message = refusal(line)
    _, shown, caret = message.splitlines()
    assert len(shown) < 110
    assert shown[caret.index("^") :].startswith("rlu(")


def test_wrong_types_in_the_whole_graph_are_graph_errors() -> None:
    with pytest.raises(GraphError, match=r"update of %bn1.mean: f32\[32\] with %conv1"):
        parse(WRAPPED.replace("%bn1.mean <- %mean", "%bn1.mean <- %conv1"))


def test_a_missing_attribute_is_named() -> None:
    assert 'op "full" needs the attribute' in refusal("graph g() { %a = full() : f32[] return %a }")


def test_text_that_is_not_text_is_refused() -> None:
    with pytest.raises(ParseError, match="expected the text of a graph, found bytes"):
        parse(BLOCK.encode())  # type: ignore[arg-type]


def test_nesting_is_bounded() -> None:
    text = "return %x }"
    for _ in range(MAX_NESTING + 500):
        text = f"%y = fused(%x) : f32[4] {{ graph b(%x: f32[4]) {{ {text} }} return %y }}"
    assert f"nested more than {MAX_NESTING} deep" in refusal(f"graph g(%x: f32[4]) {{ {text}")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500_000,
        "graph g(" + "%a: f32[1]," * 1,
        "#" * 500_000,
        " " * 500_000,
        "graph g(%x: f32[" + "1," * 100_000 + "]) { return %x }",
        "graph " + "a" * 500_000,
        "graph g(%x: f32[" + "9" * 500_000 + "]) { return %x }",
        "graph g() { %a = full() shape=() value=" + "9" * 100_000 + "e : f32[] return %a }",
        "%" * 500_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_fails_fast(text: str) -> None:
    start = time.process_time()
    with pytest.raises(AdderGraphError) as caught:
        parse(text)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 1_000


def test_text_has_a_maximal_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("addergraph.ir.text.MAX_CHARACTERS", 100)
    assert "at most 100 are read" in refusal(BLOCK)


def test_an_attribute_that_text_cannot_hold_is_refused() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Family(Op):  # abstract: it has no name and is not registered
        rows: list[int]

    with pytest.raises(GraphError, match=r"attribute rows has type list\[int\]"):
        attributes(Family)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clip(%x) lo=nan hi=inf : f32[N,4]", "lo=nan must not exceed hi=inf"),
        ("fused(%x)", "expected the types of the results behind fused"),
        ("relu(%x)", 'expected ": f32\\[N,4\\]" behind relu'),
    ],
)
def test_a_node_that_does_not_say_enough(line: str, expected: str) -> None:
    with pytest.raises(ParseError, match=expected):
        parse(f"graph g(%x: f32[N,4]) {{\n  %y = {line}\n  return %y\n}}")


def test_a_scale_that_is_infinite() -> None:
    with pytest.raises(ParseError, match="inf"):
        parse("graph g(%x: u8[N,4] scale=inf) {\n  return %x\n}")


def test_ends_of_a_range_that_are_infinite_parse_back() -> None:
    text = """graph g(%x: f32[N,4]) {
  %y = clip(%x) lo=-inf hi=2.5 : f32[N,4]
  return %y
}"""
    assert str(parse(text)) == text


def test_a_word_that_cannot_stand_in_text_is_not_printed() -> None:
    odd: Op = Adder2d(gradient="two words")
    with pytest.raises(GraphError, match='"two words" is not one word'):
        shown_attributes(odd)
