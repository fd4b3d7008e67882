"""Whether groups of nodes may become one node each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import networkx as nx

from addergraph.ir import Graph
from addergraph.report.view import to_networkx


def fusion_is_acyclic(graph: Graph, groups: Sequence[Collection[str]]) -> bool:
    """Whether the graph stays acyclic when each group of nodes (by name) becomes one node."""
    owner = {name: number for number, group in enumerate(groups) for name in group}
    assert len(owner) == sum(map(len, groups)), "a node stands in two groups"
    quotient = nx.DiGraph()
    for before, after in to_networkx(graph).edges():
        ends = owner.get(before, before), owner.get(after, after)
        if ends[0] != ends[1]:
            quotient.add_edge(*ends)
    return bool(nx.is_directed_acyclic_graph(quotient))
