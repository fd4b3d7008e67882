"""Rebuilding a graph, and the driver that applies local rewrite rules to a fixpoint.

Graphs never change in place: `rebuild` walks one and makes another, node by node, and `rewrite`
repeats that with a set of rules until none of them fires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from addergraph.errors import AdderGraphError, GraphError, PassError
from addergraph.ir import Builder, Graph, Node, Op, Parameter, Value, free_name
from addergraph.ir.check import check
from addergraph.ir.trace import Tensor
from addergraph.ir.walk import append


class Draft(Builder):
    """The graph that a pass makes from another: its inputs and parameters, then what is appended.

    Every name of the original stays reserved for the node that has it there, so names made up by a
    pass never take one that a later node needs. `new` maps values of the original to values of the
    draft.
    """

    def __init__(self, graph: Graph, parameters: Iterable[Parameter] | None = None) -> None:
        super().__init__(graph.name)
        self.new: dict[Value, Value] = {}
        self._original = graph
        self._reserved = {v.name for v in graph.values()}
        self._producers: dict[Value, Node] = {}
        for v in graph.inputs:
            self.new[v] = self.input(v.name, v.type)
        for p in graph.parameters if parameters is None else parameters:
            self.new[p] = self.parameter(p)

    def fresh(self, hint: str) -> str:
        """`scope` + `hint`, numbered where a value of the draft or the original has that name."""
        taken = self._names, self._reserved
        return self._claim(free_name(self.scope + hint, *taken, counts=self._counts))

    def add(
        self, op: Op, inputs: Sequence[Value], names: str | Sequence[Value] | None = None
    ) -> tuple[Value, ...]:
        outputs = super().add(op, inputs, names)
        self._producers.update(dict.fromkeys(outputs, self.nodes[-1]))
        return outputs

    def moved(self, node: Node) -> Node:
        """A node of the original with its operands looked up in the draft."""
        return Node(node.op, tuple(self.new[v] for v in node.inputs), node.outputs)

    def keep(self, node: Node) -> tuple[Value, ...]:
        """Appends a moved node as it is, names included."""
        return self.add(node.op, node.inputs, node.outputs)

    def stand_in(self, node: Node, values: Sequence[Value]) -> None:
        """From here on `values` stand for the outputs of `node`; GraphError if types differ."""
        expected = [v.type for v in node.outputs]
        found = [v.type for v in values]
        if found != expected:
            raise GraphError(
                f"{node.label} was replaced by values of type {', '.join(map(str, found))}; "
                f"expected {', '.join(map(str, expected))}"
            )
        self.new.update(zip(node.outputs, values, strict=True))

    def copy(self) -> None:
        """Appends every node of the original as it is."""
        append(self, self._original.nodes, self.new)

    def producer(self, value: Value) -> Node | None:
        """The node of the draft that computes `value`; None for inputs and parameters."""
        return self._producers.get(value)

    def tensor(self, value: Value) -> Tensor:
        """`value` as a symbolic tensor, for passes that write mathematics."""
        return Tensor(self, value)

    def close(self) -> Graph:
        """The finished graph, with the outputs and updates of the original."""
        for u in self._original.updates:
            self.update(u.parameter, self.new[u.value])
        return self.finish([self.new[v] for v in self._original.outputs])


Rule = Callable[[Draft, Node], Sequence[Value] | None]
"""Gets the draft and a node that is about to be appended to it (operands already in the draft).

Answers the values that stand for the node's outputs, or None to leave the node as it is. To keep
the node's name, append the replacement with `draft.add(op, inputs, node.outputs)`.
"""


def rebuild(graph: Graph, transform: Rule) -> Graph:
    """The graph with each node replaced by what `transform` answers; updates and outputs follow."""
    draft = Draft(graph)
    for original in graph.nodes:
        node = draft.moved(original)
        made = transform(draft, node)
        draft.stand_in(node, draft.keep(node) if made is None else made)
    return draft.close()


def rewrite(name: str, graph: Graph, rules: Sequence[Rule], limit: int | None = None) -> Graph:
    """Applies `rules` (first match wins) in sweeps over `graph` until no rule fires.

    Nodes that a rewrite leaves without a reader stay; `eliminate` takes them out. Raises PassError,
    naming the pass `name` and the rules, when a rule builds something invalid or when the rules
    have fired more than `limit` times (by default 64 and 8 for each node) without settling.
    """
    most = 64 + 8 * len(graph.nodes) if limit is None else limit
    steps = 0
    while True:
        fired: list[str] = []
        after = rebuild(graph, _first_match(name, rules, fired))
        if not fired:
            return graph
        _check_sweep(name, fired, graph, after)
        steps += len(fired)
        if steps > most:
            raise PassError(
                f"{name} did not settle after {steps} rewrites (the limit is {most}); the rules "
                f"that undo each other: {_names(fired)}\n{graph}"
            )
        graph = after


def _first_match(name: str, rules: Sequence[Rule], fired: list[str]) -> Rule:
    def transform(draft: Draft, node: Node) -> Sequence[Value] | None:
        for rule in rules:
            try:
                made = rule(draft, node)
                if made is not None:
                    draft.stand_in(node, made)
            except AdderGraphError as error:
                raise PassError(f"{name}: rule {_name(rule)} at {node.label}: {error}") from error
            if made is not None:
                fired.append(_name(rule))
                return made
        return None

    return transform


def _check_sweep(name: str, fired: Sequence[str], before: Graph, after: Graph) -> None:
    try:
        check(after)
    except AdderGraphError as error:
        raise PassError(
            f"{name}: rule {_names(fired)} made an invalid graph: {error}\n"
            f"before:\n{before}\nafter:\n{after}"
        ) from error


def _name(rule: Rule) -> str:
    return getattr(rule, "__name__", repr(rule))


def _names(fired: Sequence[str]) -> str:
    return ", ".join(sorted(set(fired)))
