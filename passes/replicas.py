"""A training step on several replicas: where they exchange values, and the graph between.

A replica has a part of the batch. `announced` adds outputs that tell another thread which results
are there, so that their exchange can begin while others are computed. `synchronized` makes the
statistics of batch norms those of the whole batch, by `replica_mean`; `segments` cuts a graph at
these:

    rewrite (synchronized):
      %mean, %variance = batch_norm_statistics(%x)
      ->
      %bn.own.mean, %bn.own.variance = batch_norm_statistics(%x)
      %bn.mean = replica_mean(%bn.own.mean)
      %bn.deviation = sub(%bn.own.mean, %bn.mean)
      %bn.pooled = add(%bn.own.variance, mul(%bn.deviation, %bn.deviation))
      %bn.variance = replica_mean(%bn.pooled)

The variance of a whole is the mean of its parts' variances plus the variance of their means (Chan
et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances"): nothing
cancels, as it would in E[x^2] - E[x]^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from addergraph.ir import Builder, Graph, Node, Value
from addergraph.ir.graph import free_name
from addergraph.ir.types import TensorType, i32
from addergraph.ir.walk import append
from addergraph.ops.pointwise.binary import add, sub
from addergraph.ops.pointwise.replica_mean import replica_mean
from addergraph.ops.reduction.completed import Completed

from .pipeline import run
from .rewrite import Draft, rebuild


def synchronized(graph: Graph) -> Graph:
    """The training form `graph` with batch statistics of the samples of all replicas."""

    def pooled(draft: Draft, node: Node) -> Sequence[Value] | None:
        if not node.op.estimates:
            return None
        mean, variance = map(draft.tensor, draft.add(node.op, node.inputs, f"{node.name}.own"))
        shared = replica_mean(mean, name=f"{node.name}.shared")
        deviation = sub(mean, shared, name=f"{node.name}.deviation")
        whole = add(variance, deviation * deviation, name=f"{node.name}.pooled")
        return shared.value, replica_mean(whole, name=f"{node.name}.pooled.shared").value

    return rebuild(graph, pooled)


@dataclass(frozen=True)
class Announced:
    """A graph that tells, while it runs, which of its outputs are there.

    graph    the outputs that it had and, behind them, a flag for each bucket but the last
    buckets  the names of the values of each bucket; flag k is 1 once those of bucket k are there
    flags    the names of the flags
    """

    graph: Graph
    buckets: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...]


def announced(graph: Graph, sent: Sequence[Value], bucket: int) -> Announced:
    """`graph`, which has neither parameters nor updates, with flags for the outputs `sent`.

    Buckets have `bucket` bytes or more, the last one what is left, in the order in which nodes
    compute their values; there is none where nothing is sent. Left out are values that are copied
    into their outputs in the end: those that passes find to be constants, inputs, or equal to
    another output.
    """
    assert not graph.parameters and not graph.updates
    if not sent:
        return Announced(graph, (), ())
    direct = _direct(graph)
    *buckets, rest = _buckets(graph, [v for v in sent if v in direct], bucket)
    behind = {values[-1]: values for values in buckets}
    builder = Builder(graph.name)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in graph.inputs}
    taken = {v.name for v in graph.values()}
    flags: list[Value] = []
    for node in graph.nodes:
        append(builder, [node], new)
        for v in node.outputs:
            if v in behind:
                called = Value(free_name("completed", taken), TensorType(i32, ()))
                taken.add(called.name)
                flags += builder.add(Completed(), [new[w] for w in behind[v]], [called])
    made = builder.finish([*(new[v] for v in graph.outputs), *flags])
    return Announced(made, tuple(_names(values) for values in (*buckets, rest)), _names(flags))


def _direct(graph: Graph) -> set[Value]:
    """The outputs that a compiled program computes in the caller's memory."""
    optimized = run(graph)
    computed = {v for node in optimized.nodes for v in node.outputs if node.inputs}
    first = {v for node in graph.nodes for v in node.outputs if node.inputs}
    return {
        mine
        for mine, its in zip(graph.outputs, optimized.outputs, strict=True)
        if mine in first and its in computed and optimized.outputs.count(its) == 1
    }


def _buckets(graph: Graph, values: Sequence[Value], bucket: int) -> list[list[Value]]:
    wanted = set(values)
    groups: list[list[Value]] = [[]]
    size = 0
    for value in (v for node in graph.nodes for v in node.outputs if v in wanted):
        if size >= bucket:
            groups.append([])
            size = 0
        groups[-1].append(value)
        size += value.type.nbytes
    return groups


@dataclass(frozen=True)
class Segment:
    """What a replica computes between two exchanges.

    graph    without parameters, under canonical names: inputs %a0 %a1 ..., results %v0 %v1 ...,
             so that equal segments have equal texts
    reads    how the whole graph calls the inputs
    gives    how it calls the outputs, in order
    means    pairs: a value whose mean over the replicas is due behind this segment, and how later
             segments call the mean
    """

    graph: Graph
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    means: tuple[tuple[str, str], ...]


def segments(graph: Graph) -> list[Segment]:
    """`graph`, which has neither parameters nor updates, cut at each `replica_mean`.

    A node is in the first segment that has its operands; constants are in each that reads them.
    Where nothing is exchanged there is one segment. The last one has no `means`.
    """
    assert not graph.parameters and not graph.updates
    level: dict[Value, int] = dict.fromkeys(graph.inputs, 0)
    at: dict[int, list[Node]] = {0: []}
    for node in graph.nodes:
        depth = max((level[v] for v in node.inputs), default=0)
        level.update(dict.fromkeys(node.outputs, depth + node.op.exchanged))
        at.setdefault(depth, []).append(node)
    return [_segment(graph, at[depth], at, depth) for depth in sorted(at)]


def _segment(graph: Graph, nodes: Sequence[Node], at: dict[int, list[Node]], depth: int) -> Segment:
    own = [n for n in nodes if n.inputs and not n.op.exchanged]
    exchanges = [n for n in nodes if n.op.exchanged]
    constants = {n.outputs[0]: n for n in graph.nodes if not n.inputs}
    later = (n for d, others in at.items() if d > depth for n in others)
    wanted = {v for n in later for v in n.inputs} | {n.inputs[0] for n in exchanges}
    wanted |= set(graph.outputs)
    made = [v for n in own for v in n.outputs]
    made += [v for v in _read_constants(graph, exchanges, depth) if v in constants]
    gives = [v for v in made if v in wanted]
    reads = _reads(own, {*made, *constants})
    means = tuple((n.inputs[0].name, n.outputs[0].name) for n in exchanges)
    built = _canonical(reads, own, constants, gives)
    return Segment(built, _names(reads), _names(gives), means)


def _read_constants(graph: Graph, exchanges: Sequence[Node], depth: int) -> list[Value]:
    """Constants that leave the graph or a segment as they are; the first segment gives outputs."""
    left = [v for v in graph.outputs] if depth == 0 else []
    return list(dict.fromkeys([*left, *(n.inputs[0] for n in exchanges)]))


def _reads(nodes: Iterable[Node], known: set[Value]) -> list[Value]:
    return list(dict.fromkeys(v for n in nodes for v in n.inputs if v not in known))


def _canonical(
    reads: Sequence[Value], nodes: Sequence[Node], constants: dict[Value, Node],
    gives: Sequence[Value],
) -> Graph:  # fmt: skip
    builder = Builder("segment")
    new = {v: builder.input(f"a{i}", v.type) for i, v in enumerate(reads)}
    count = 0

    def put(node: Node) -> None:
        nonlocal count
        called = [Value(f"v{count + i}", v.type) for i, v in enumerate(node.outputs)]
        made = builder.add(node.op, [new[v] for v in node.inputs], called)
        new.update(zip(node.outputs, made, strict=True))
        count += len(called)

    for node in nodes:
        for v in node.inputs:
            if v not in new:
                put(constants[v])
        put(node)
    for v in gives:
        if v not in new:
            put(constants[v])
    return builder.finish([new[v] for v in gives])


def _names(values: Iterable[Value]) -> tuple[str, ...]:
    return tuple(v.name for v in values)
