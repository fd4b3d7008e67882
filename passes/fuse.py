"""fuse: contractions take pointwise tails; pointwise nodes and channel sums work in groups."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from addergraph.ir import CONTRACTION, POINTWISE, Builder, Graph, Node, Value
from addergraph.ir.types import Shape
from addergraph.ir.walk import append
from addergraph.ops.fused import Fused, is_channel_sum

from .hoist import hoistable
from .recompute import recompute
from .rewrite import Draft

MAX_BUFFERS = 16  # operands plus results of a pointwise group: its kernel keeps a pointer to each
PATIENCE = 16  # failures to merge through one value, of a node and with one
MOST_NODES = 256  # of a body: more take time to merge and to compile, and gain nothing


def fuse(graph: Graph) -> Graph:
    """Groups nodes into `fused` nodes, so that intermediates stay in registers.

    rewrite:  %y = adder2d(%x, %f)  %z = mul(%y, %s)  %r = relu(%z)
    ->        %r = fused(%x, %f, %s) { %v0 = adder2d(%a0, %a1)  %v1 = mul(%v0, %a2)
                                       %v2 = relu(%v1)  return %v2 }

    1. A forward contraction takes the pointwise nodes after it up to the last one through which
       everything that reads its result passes, as long as each has its shape and their other
       operands have that shape, [T] or []. Pointwise nodes of that shape which only such a group
       reads join it.
    2. The remaining pointwise nodes of one shape merge, producers with consumers and siblings
       with siblings, while the graph stays acyclic and a group has at most MAX_BUFFERS buffers
       and MOST_NODES nodes.
    3. Sums over all axes but the last join the group that computes what they sum, or one that
       reads it, too: one pass over memory gives both.

    Scalar constants are copied into each body that reads them. What `hoist` can move never shares
    a body with what it cannot. A fused node bears its results' names.
    """
    made = _fuse_once(graph)
    # A merge may open the way for another that was looked at before it.
    while len(made.nodes) < len(graph.nodes):
        graph, made = made, _fuse_once(made)
    return made


def _fuse_once(graph: Graph) -> Graph:
    fusion = Fusion(graph)
    _take_tails(fusion)
    _take_side_producers(fusion)
    _PointwiseMerger(fusion).run()
    recompute(fusion, MAX_BUFFERS)
    return _rebuild(fusion)


class Fusion:
    """The graph, and the groups found so far: `group_of` maps a node to its group's number.

    `copies` has the nodes of other groups that a group computes again, `dropped` the groups whose
    values all readers compute again.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.position = {node: i for i, node in enumerate(graph.nodes)}
        self.producer = graph.producers()
        self.readers = {v: list(dict.fromkeys(nodes)) for v, nodes in graph.uses().items()}
        self.kept = {*graph.outputs, *(u.value for u in graph.updates)}
        self.hoistable = hoistable(graph)
        self.members: dict[int, list[Node]] = {i: [n] for i, n in enumerate(graph.nodes)}
        self.group_of: dict[Node, int] = dict(self.position)
        self.copies: dict[int, set[Node]] = {}
        self.dropped: set[int] = set()

    def join(self, group: int, other: int) -> None:
        """Moves the members of `other` into `group`."""
        moved = self.members.pop(other)
        self.members[group].extend(moved)
        self.group_of.update(dict.fromkeys(moved, group))

    def whole(self, group: int) -> list[Node]:
        """The members of a group, and what it computes again."""
        nodes = [*self.members[group], *self.copies.get(group, ())]
        return sorted(nodes, key=lambda n: (n.op.kind != CONTRACTION, self.position[n]))

    def is_alone(self, node: Node) -> bool:
        return len(self.whole(self.group_of[node])) == 1

    def is_scalar_constant(self, node: Node) -> bool:
        return node.op.kind == POINTWISE and not node.inputs and node.outputs[0].type.shape == ()

    def is_candidate(self, node: Node) -> bool:
        """Whether a body may hold `node`: pointwise, alive, not itself a group or a constant."""
        pointwise = node.op.elementwise and node.op.subgraph is None
        if not pointwise or self.is_scalar_constant(node):
            return False
        value = node.outputs[0]
        if not node.inputs and value.type.is_open:
            return False  # a body takes the batch N from its inputs
        return bool(self.readers[value]) or value in self.kept

    def fits_tail(self, node: Node, contraction: Node, inside: Iterable[Node]) -> bool:
        """Whether `node` may stand in the tail of `contraction`, next to the nodes `inside`."""
        if not self.is_candidate(node) or not self.is_alone(node):
            return False
        result, made = contraction.outputs[0], node.outputs[0]
        shape = result.type.shape
        if made.type.shape != shape or (made in self.hoistable) != (result in self.hoistable):
            return False
        own = {v for n in inside for v in n.outputs}
        allowed: tuple[Shape, ...] = (shape, shape[-1:], ())
        return all(v in own or v.type.shape in allowed for v in node.inputs)

    def results(self, members: list[Node]) -> list[Value]:
        """The values of a group that something outside of it needs, in order of definition."""
        inside = set(members)
        return [
            v
            for node in sorted(members, key=self.position.__getitem__)
            for v in node.outputs
            if v in self.kept or not inside.issuperset(self.readers[v])
        ]

    def operands(self, members: list[Node]) -> list[Value]:
        """The values that a group reads from outside, scalar constants aside."""
        inside = {v for node in members for v in node.outputs}
        read = dict.fromkeys(v for node in members for v in node.inputs if v not in inside)
        return [v for v in read if not self.is_constant_value(v)]

    def is_constant_value(self, value: Value) -> bool:
        node = self.producer.get(value)
        return node is not None and self.is_scalar_constant(node)


def _take_tails(fusion: Fusion) -> None:
    # In reverse, so that of two contractions that meet in an add, the later one takes it.
    for node in reversed(fusion.graph.nodes):
        if node.op.takes_tail:
            for taken in _tail(fusion, node):
                fusion.join(fusion.group_of[node], fusion.group_of[taken])


def _tail(fusion: Fusion, contraction: Node) -> list[Node]:
    """The longest tail of which only the last node's value is read outside.

    Walks what the contraction reaches in order; `open_values` counts the values of the walk,
    its newest aside, that nodes not yet walked read. Where it is 0, everything has passed
    through the newest node, so the walk so far is a tail, and no operand of it can depend on it.
    """
    walked, newest = [contraction], contraction
    unread: dict[Value, int] = {}
    waiting: list[int] = []
    open_values, ends = 0, [1]
    while True:
        value = newest.outputs[0]
        if value in fusion.kept:
            break
        readers = fusion.readers[value]
        unread[value] = len(readers)
        open_values += bool(readers)
        for reader in readers:
            heapq.heappush(waiting, fusion.position[reader])
        if not waiting:
            break
        newest = fusion.graph.nodes[heapq.heappop(waiting)]
        while waiting and waiting[0] == fusion.position[newest]:
            heapq.heappop(waiting)
        if len(walked) == MOST_NODES or not fusion.fits_tail(newest, contraction, walked):
            break
        for operand in dict.fromkeys(newest.inputs):
            if operand in unread:
                unread[operand] -= 1
                open_values -= not unread[operand]
        walked.append(newest)
        if not open_values:
            ends.append(len(walked))
    return walked[1 : _narrowest(fusion, walked, ends)]


def _narrowest(fusion: Fusion, walked: list[Node], ends: list[int]) -> int:
    """Where a tail should end, of the places where it may: at the last, unless its reader is a tail
    that can take the nodes at the end itself, and so read fewer bytes: a cast of bytes to f32."""

    def size(end: int) -> int:
        return walked[end - 1].outputs[0].type.dtype.itemsize

    last = ends[-1]
    readers = fusion.readers[walked[last - 1].outputs[0]]
    groups = {fusion.group_of[reader] for reader in readers}
    heads = {fusion.members[group][0] for group in groups}
    taken = len(heads) == 1 and heads.isdisjoint(readers) and heads.pop().op.takes_tail
    if last == 1 or not taken or walked[last - 1].outputs[0] in fusion.kept:
        return last
    known, first = set(ends), last
    while first - 1 in known:
        first -= 1
    return min(range(first, last + 1), key=lambda end: (size(end), -end))


def _take_side_producers(fusion: Fusion) -> None:
    for node in reversed(fusion.graph.nodes):
        value = node.outputs[0]
        groups = {fusion.group_of[r] for r in fusion.readers[value]}
        if len(groups) != 1 or value in fusion.kept:
            continue
        (group,) = groups
        contraction = fusion.members[group][0]
        if len(fusion.members[group]) == 1 or contraction in fusion.readers[value]:
            continue
        if fusion.fits_tail(node, contraction, ()):
            fusion.join(group, fusion.group_of[node])


class _PointwiseMerger:
    """Merges pointwise groups; `below` has a bit for each node that a group's results reach."""

    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion
        self.bits = {g: self._bits(members) for g, members in fusion.members.items()}
        self.below: dict[int, int] = {}
        # Ordered by their last members, groups are in topological order: only that one of a
        # contraction group is read outside.
        for group in sorted(fusion.members, key=lambda g: self.bits[g].bit_length(), reverse=True):
            reached = 0
            for reader in self._successors(group):
                reached |= self.bits[reader] | self.below[reader]
            self.below[group] = reached
        # Readers of a value between two contractions, and how often merging them has failed.
        self.reading: dict[tuple[Value, int], dict[Node, int]] = {}
        # How many contractions stand before each position.
        self.barriers = [0]
        for node in fusion.graph.nodes:
            self.barriers.append(self.barriers[-1] + (node.op.kind == CONTRACTION))

    def run(self) -> None:
        # In reverse: a node that both an early and a late group could take goes to the late one,
        # as the mask of a relu goes to the gradient that reads it.
        for node in reversed(self.fusion.graph.nodes):
            if not self._is_open(node):
                continue
            shape = node.outputs[0].type.shape
            shared = [v for v in dict.fromkeys(node.inputs) if v.type.shape == shape]
            for producer in self._producers(node, shared):
                self._merge(self.fusion.group_of[node], self.fusion.group_of[producer])
            for v in shared:
                self._merge_readers(v, node)
        for node in self.fusion.graph.nodes:
            if is_channel_sum(node):
                self._take_sum(node)

    def _take_sum(self, node: Node) -> None:
        """Merges a channel sum into the group that computes what it sums, or reads it nearby."""
        fusion, (v,) = self.fusion, node.inputs
        around = [fusion.producer[v]] if v in fusion.producer else []
        around += [r for r in fusion.readers[v] if r is not node and self._near(r, node)]
        for one in around:
            if not fusion.is_alone(node):
                return
            fits = self._is_open(one) and one.outputs[0].type.shape == v.type.shape
            if fits and fusion.group_of[one] not in self._successors(fusion.group_of[node]):
                self._merge(fusion.group_of[one], fusion.group_of[node])

    def _is_open(self, node: Node) -> bool:
        members = self.fusion.members[self.fusion.group_of[node]]
        return self.fusion.is_candidate(node) and members[0].op.elementwise

    def _producers(self, node: Node, shared: list[Value]) -> list[Node]:
        """The nodes that compute values of `shared` and could share a body with `node`."""
        producers = [self.fusion.producer[v] for v in shared if v in self.fusion.producer]
        return [p for p in producers if self._is_open(p) and self._may_follow(p, node)]

    def _merge_readers(self, v: Value, node: Node) -> None:
        """Merges the groups of nodes nearby that read `v`, as `node` does. The updates of all
        layers read the same constants: who has failed PATIENCE times is not tried again."""
        fusion = self.fusion
        region = v, self.barriers[fusion.position[node]]
        if region not in self.reading:
            near = (r for r in fusion.readers[v] if self._near(r, node) and self._is_open(r))
            self.reading[region] = dict.fromkeys(
                (r for r in near if r.outputs[0].type.shape == v.type.shape), 0
            )
        failures, failed = self.reading[region], 0
        for reader in list(failures):
            if self._merge(fusion.group_of[node], fusion.group_of[reader]):
                continue
            failed, failures[reader] = failed + 1, failures[reader] + 1
            if failures[reader] == PATIENCE:
                del failures[reader]
            if failed == PATIENCE:
                return

    def _may_follow(self, producer: Node, node: Node) -> bool:
        """Whether the producer's value ends in the group, or is needed nearby at most."""
        value = producer.outputs[0]
        groups = {self.fusion.group_of[r] for r in self.fusion.readers[value]}
        ends = value not in self.fusion.kept and groups <= {
            self.fusion.group_of[node],
            self.fusion.group_of[producer],
        }
        return ends or self._near(producer, node)

    def _near(self, one: Node, other: Node) -> bool:
        """Whether no contraction stands between two nodes.

        Farther apart, computing them together would keep results of one alive for long.
        """
        position = self.fusion.position
        return self.barriers[position[one]] == self.barriers[position[other]]

    def _merge(self, one: int, other: int) -> bool:
        """Merges two groups where that is legal; whether they are one now."""
        if one == other or not self._same_class(one, other):
            return one == other
        if self._path_between(one, other) or self._path_between(other, one):
            return False
        fusion = self.fusion
        together = fusion.members[one] + fusion.members[other]
        if len(together) > MOST_NODES:
            return False
        operands, results = fusion.operands(together), fusion.results(together)
        if not operands or len(operands) + len(results) > MAX_BUFFERS:
            return False
        fusion.join(one, other)
        own = self.bits[one] | self.bits.pop(other)
        self.bits[one] = own
        below = (self.below[one] | self.below.pop(other)) & ~own
        self.below[one] = below
        self._tell_above(one)
        return True

    def _tell_above(self, merged: int) -> None:
        """What reaches a merged group reaches what that does. Who knows it already, as all in a
        chain do, has told all above it. That they reach the group itself, they know by the bits of
        one of its nodes: to tell them of the others would be to tell thousands at each merge."""
        known = self.below[merged]
        waiting = [merged]
        while waiting:
            for group in self._predecessors(waiting.pop()):
                if known & ~self.below[group]:
                    self.below[group] |= known
                    waiting.append(group)

    def _predecessors(self, group: int) -> set[int]:
        fusion = self.fusion
        read = (fusion.producer.get(v) for n in fusion.members[group] for v in n.inputs)
        return {fusion.group_of[n] for n in read if n is not None} - {group}

    def _same_class(self, one: int, other: int) -> bool:
        first, second = (self.fusion.members[g][0].outputs[0] for g in (one, other))
        return (first in self.fusion.hoistable) == (second in self.fusion.hoistable)

    def _path_between(self, start: int, end: int) -> bool:
        """Whether a path leads from group `start` through a third group to group `end`."""
        target = self.bits[end]
        return bool(self.below[start] & target) and any(
            self.below[g] & target for g in self._successors(start) if g != end
        )

    def _successors(self, group: int) -> set[int]:
        fusion = self.fusion
        found = {
            fusion.group_of[r]
            for node in fusion.members[group]
            for v in node.outputs
            for r in fusion.readers[v]
        }
        return found - {group}

    def _bits(self, members: list[Node]) -> int:
        return sum(1 << self.fusion.position[n] for n in members)


def _rebuild(fusion: Fusion) -> Graph:
    graph = fusion.graph
    draft = Draft(graph)
    live = [g for g in fusion.members if _is_live(fusion, g)]
    needed = fusion.kept.union(*(_reads(fusion.whole(g)) for g in live))
    for group in _ordered(fusion, set(live)):
        members = fusion.whole(group)
        op, operands, results = members[0].op, list(members[0].inputs), list(members[0].outputs)
        if len(members) > 1:
            own = sorted(fusion.members[group], key=fusion.position.__getitem__)
            results = [v for node in own for v in node.outputs if v in needed]
            body, operands = _body(fusion, members, results)
            op = Fused(body)
        append(draft, [Node(op, tuple(operands), tuple(results))], draft.new)
    return draft.close()


def _reads(members: list[Node]) -> set[Value]:
    """What `members` read of the values that others compute."""
    inside = {v for node in members for v in node.outputs}
    return {v for node in members for v in node.inputs} - inside


def _ordered(fusion: Fusion, live: set[int]) -> Iterator[int]:
    """The groups `live` in a topological order that moves them as little as it can.

    A group stands where its last member stood, or before the first group that reads it.
    """
    position, done, opened = fusion.position, set[int](), set[int]()
    for root in sorted(live, key=lambda g: max(position[n] for n in fusion.members[g])):
        stack = [root]
        while stack:
            group = stack[-1]
            read = [fusion.producer.get(v) for v in _reads(fusion.whole(group))]
            missing = {fusion.group_of[n] for n in read if n is not None} & live - done
            if missing:
                assert group not in opened, "a merge closed a cycle"
                opened.add(group)
                stack.extend(sorted(missing, reverse=True))
                continue
            stack.pop()
            if group not in done:
                done.add(group)
                yield group


def _is_live(fusion: Fusion, group: int) -> bool:
    """False where each reader has its copy: of a scalar constant, or of what all compute again."""
    node = fusion.members[group][0]
    if group in fusion.dropped:
        return False
    if not fusion.is_scalar_constant(node) or node.outputs[0] in fusion.kept:
        return True
    readers = fusion.readers[node.outputs[0]]
    alone = (r for r in readers if fusion.is_alone(r))
    return not readers or any(fusion.group_of[r] not in fusion.dropped for r in alone)


def _body(fusion: Fusion, members: list[Node], results: list[Value]) -> tuple[Graph, list[Value]]:
    """The body of a group under canonical names, and the operands of its fused node."""
    operands = fusion.operands(members)
    builder = Builder("body")
    new = {v: builder.input(f"a{i}", v.type.plain) for i, v in enumerate(operands)}
    for node in members:
        for v in node.inputs:
            if v not in new:  # a scalar constant: a copy right before its first reader
                new[v] = builder.add(fusion.producer[v].op, (), f"v{len(builder.nodes)}")[0]
        new[node.outputs[0]] = builder.add(
            node.op, [new[v] for v in node.inputs], f"v{len(builder.nodes)}"
        )[0]
    return builder.finish([new[v] for v in results]), operands
