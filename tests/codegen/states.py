"""A graph that updates its parameters."""

from __future__ import annotations

from addergraph.ir import Graph
from addergraph.ir.text import parse


def step(batch: int) -> Graph:
    """A descent of %w, and a count of the calls."""
    return parse(
        f"""graph step(%x: f32[{batch},4]) params(%w: f32[4,3], %count: f32[]) {{
          %y = dense(%x, %w) : f32[{batch},3]
          %s = reduce_sum(%y) axes=(0) : f32[3]
          %v = sub(%w, %s) : f32[4,3]
          %one = full() value=1 : f32[]
          %more = add(%count, %one) : f32[]
          update %w <- %v
          update %count <- %more
          return %y
        }}"""
    )
