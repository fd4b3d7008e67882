"""Graphs to export, and the C side of a test: compile, link, run."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph.codegen.run.jit import Program
from addergraph.ir import Array, Graph
from addergraph.ir.state import initial_weights

NET = """
graph net(%image: f32[N,6,6,3]) params(%conv.f: f32[3,3,3,5] init=normal(0,1),
    %scale: f32[5] init=uniform(0.01,0.1), %shift: f32[5] init=normal(2,1),
    %adder.f: f32[3,3,5,7] init=normal(0,1), %dense.f: f32[63,4] init=normal(0,0.01)) {
  %conv = adder2d(%image, %conv.f) padding=(1,1,1,1) : f32[N,6,6,5]
  %scaled = mul(%conv, %scale) : f32[N,6,6,5]
  %shifted = add(%scaled, %shift) : f32[N,6,6,5]
  %act = relu(%shifted) : f32[N,6,6,5]
  %adder = adder2d(%act, %adder.f) stride=(2,2) padding=(1,1,1,1) : f32[N,3,3,7]
  %flat = flatten(%adder) : f32[N,63]
  %logits = dense(%flat, %dense.f) : f32[N,4]
  %probabilities = softmax(%logits) : f32[N,4]
  %class = argmax(%logits) axis=1 : i32[N]
  return %probabilities, %class
}"""
MIXED = """
graph mixed(%a: f32[3,5], %i: i32[3,5], %u: u8[5], %s: i8[5], %mask: bool[3,5], %none: f32[0,2]) {
  %uf = cast(%u) dtype=f32 : f32[5]
  %sf = cast(%s) dtype=f32 : f32[5]
  %us = add(%uf, %sf) : f32[5]
  %chosen = select(%mask, %a, %us) : f32[3,5]
  %twice = add(%i, %i) : i32[3,5]
  %larger = greater(%a, %chosen) : bool[3,5]
  %bytes = cast(%chosen) dtype=u8 : u8[3,5]
  %signed = cast(%chosen) dtype=i8 : i8[3,5]
  %empty = neg(%none) : f32[0,2]
  return %chosen, %twice, %larger, %bytes, %signed, %empty, %twice
}"""
SHARED = """
graph shared(%x: f32[N,3], %offset: f32[3], %mask: bool[N,3]) {
  %sum = add(%x, %offset) : f32[N,3]
  %y = select(%mask, %sum, %x) : f32[N,3]
  return %y
}"""
CONSTANT = """
graph constant() {
  %y = full() value=2.5 shape=(3) : f32[3]
  return %y
}"""


def compiled(text: str, target: str = "host", seed: int = 0) -> Program:
    """The program of a graph with drawn weights."""
    graph = ag.parse(text)
    weights = initial_weights(graph, seed)
    return ag.compile(graph, weights=weights, target=target)


def drawn(graph: Graph, batch: int = 1, seed: int = 0) -> list[Array]:
    """Inputs for a graph."""
    rng = np.random.default_rng(seed)
    types = [v.type.bind(batch) for v in graph.inputs]
    return [
        rng.standard_normal(t.sizes, np.float32)
        if t.dtype.name == "f32"
        else rng.integers(0, 2 if t.dtype.name == "bool" else 100, t.sizes).astype(t.dtype.numpy)
        for t in types
    ]


def built_c(source: Path, folder: Path, name: str, *flags: str) -> Path:
    """The program of a C file, linked with the static library `name` of an export."""
    made = source.with_suffix("")
    strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    command = ["cc", *strict, "-o", str(made), str(source), str(folder / f"lib{name}.a"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def run_example(folder: Path, graph: Graph, arrays: Sequence[Array], batch: int = 1) -> list[Array]:
    """What the exported example program makes of `arrays`, by files of raw numbers."""
    program = built_c(folder / "example" / "main.c", folder, graph.name)
    ins = [folder / f"in{i}.bin" for i in range(len(arrays))]
    outs = [folder / f"out{i}.bin" for i in range(len(graph.outputs))]
    for path, array in zip(ins, arrays, strict=True):
        array.tofile(path)
    done = subprocess.run(
        [program, *map(str, ins), *map(str, outs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    types = [v.type.bind(batch) for v in graph.outputs]
    return [
        np.fromfile(path, t.dtype.numpy).reshape(t.sizes)
        for path, t in zip(outs, types, strict=True)
    ]


def require_same_bits(found: Sequence[Array], expected: Sequence[Array]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
