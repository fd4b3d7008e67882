"""view: networkx views, DOT."""

from __future__ import annotations

import dataclasses

import networkx as nx

from addergraph.ir.text import parse
from addergraph.report.view import to_dot, to_networkx

# a -> b -> d and a -> c -> d, with a + a at the start
DIAMOND = parse("""graph diamond(%x: f32[N,4]) params(%s: f32[4] init=ones) {
  %a = add(%x, %x) : f32[N,4]
  %b = mul(%a, %s) : f32[N,4]
  %c = relu(%a) : f32[N,4]
  %d = sub(%b, %c) : f32[N,4]
  %mean, %variance = batch_norm_statistics(%c) : f32[4], f32[4]
  update %s <- %variance
  return %d, %mean
}""")


def test_the_view_has_a_vertex_a_node_and_an_edge_an_operand() -> None:
    view = to_networkx(DIAMOND)
    assert isinstance(view, nx.MultiDiGraph)
    assert set(view.nodes) == {"x", "s", "a", "b", "c", "d", "mean"}
    assert view.nodes["x"]["kind"] == "input"
    assert view.nodes["s"]["kind"] == "parameter"
    assert view.nodes["d"]["kind"] == "sub"
    edges = {(u, v, key, d["value"]) for u, v, key, d in view.edges(keys=True, data=True)}
    assert edges == {
        ("x", "a", 0, "x"),
        ("x", "a", 1, "x"),
        ("a", "b", 0, "a"),
        ("s", "b", 1, "s"),
        ("a", "c", 0, "a"),
        ("b", "d", 0, "b"),
        ("c", "d", 1, "c"),
        ("c", "mean", 0, "c"),
    }


def test_edges_from_a_second_result_come_from_its_node() -> None:
    graph = parse("""graph g(%x: f32[2,4]) {
      %mean, %variance = batch_norm_statistics(%x) : f32[4], f32[4]
      %y = relu(%variance) : f32[4]
      return %y
    }""")
    assert to_networkx(graph)["mean"]["y"][0]["value"] == "variance"
    assert '"mean" -> "y" [label="variance"];' in to_dot(graph)


def test_dot_shows_ops_types_and_attributes() -> None:
    graph = parse("""graph g(%x: f32[N,4,4,2]) params(%f: f32[3,3,2,2] init=zeros) {
      %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,2]
      update %f <- %f
      return %y
    }""")
    assert to_dot(graph).splitlines() == [
        'digraph "g" {',
        "  node [shape=box];",
        '  "x" [shape=oval, style=solid, label="x\\nf32[N,4,4,2]"];',
        '  "f" [shape=oval, style=dashed, label="f\\nf32[3,3,2,2]"];',
        '  "y" [label="adder2d y\\npadding=(1,1,1,1)\\nf32[N,4,4,2]"];',
        '  "x" -> "y";',
        '  "f" -> "y";',
        '  "return 0" [shape=plaintext];',
        '  "y" -> "return 0";',
        '  "f" -> "f" [style=dotted, constraint=false, label="update"];',
        "}",
    ]


def test_dot_escapes_quotes_and_backslashes() -> None:
    named = dataclasses.replace(DIAMOND, name='a"b\\')
    assert to_dot(named).startswith('digraph "a\\"b\\\\" {')
