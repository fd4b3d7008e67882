"""What groups compute again rather than read: a part of `fuse`.

    rewrite (training: the backward pass reads what the forward pass centered):
      %centered, %y = fused(%x, %mean, ...) { sub, mul, relu }
      %d = fused(%g, %centered, %scale) { mul, mul }
    ->
      %y = fused(%x, %mean, ...) { sub, mul, relu }
      %d = fused(%g, %x, %mean, %scale) { sub, mul, mul }

A value of the iteration shape that pointwise nodes compute is computed again in a group that reads
it, where that group then reads no more bytes than before. That pays in two cases: the group reads
everything anyway that the value is computed from (then it reads less), or all groups that read the
value can do so (then nobody writes it). No buffer lives longer because of it but one that takes the
place of the value's own. Results keep their bits: each operation rounds alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from addergraph.ir import Node, Value

if TYPE_CHECKING:
    from .fuse import Fusion

MOST = 16  # nodes that are computed again for one value


def recompute(fusion: Fusion, most_buffers: int) -> None:
    """Fills `fusion.copies`, the nodes that each group computes beside its own, and `dropped`."""
    values = [v for node in fusion.graph.nodes for v in node.outputs if _is_elementwise(node)]
    work = _Recomputation(fusion, most_buffers)
    while any([work.try_value(v) for v in values]):
        pass
    while work.drop_groups():
        pass


def _is_elementwise(node: Node) -> bool:
    return node.op.elementwise and node.op.subgraph is None and bool(node.inputs)


class _Recomputation:
    """`operands` has what each group reads with what it computes again taken into account."""

    def __init__(self, fusion: Fusion, most_buffers: int) -> None:
        self.fusion, self.most_buffers = fusion, most_buffers
        self.operands = {g: self._reads(g, set()) for g in fusion.members}
        self._again: dict[Node, set[int]] = {}  # the groups that compute a node again

    def try_value(self, v: Value) -> bool:
        """Whether some group now computes `v` again."""
        fusion = self.fusion
        home = fusion.group_of[fusion.producer[v]]
        readers = [g for g in self._may_read(v) if g != home and v in self.operands[g]]
        if not readers or v in fusion.hoistable:
            return False
        nodes = self._slice(v, home)
        if nodes is None:
            return False
        able = [g for g in readers if self._saves(g, v, nodes) >= 0]
        if len(able) < len(readers) or v in fusion.kept:
            able = [g for g in able if self._saves(g, v, nodes) > 0]
        for group in able:
            fusion.copies.setdefault(group, set()).update(nodes)
            for node in nodes:
                self._again.setdefault(node, set()).add(group)
            self.operands[group] = self._reads(group, set())
        return bool(able)

    def _may_read(self, v: Value) -> list[int]:
        readers = self.fusion.readers[v]
        found = {self.fusion.group_of[r] for r in readers}
        return sorted(found.union(*(self._again.get(r, ()) for r in readers)))

    def drop_groups(self) -> bool:
        """Whether groups were found whose values nobody reads any more."""
        fusion = self.fusion
        needed = fusion.kept.union(*self.operands.values())
        found = []
        for group in self.operands:
            values = [v for node in fusion.members[group] for v in node.outputs]
            inside = {*fusion.members[group]}
            outside = [r for v in values for r in fusion.readers[v] if r not in inside]
            constant = fusion.is_scalar_constant(fusion.members[group][0])
            if outside and not constant and needed.isdisjoint(values):
                found.append(group)
        for group in found:
            fusion.dropped.add(group)
            del self.operands[group]
        return bool(found)

    def _reads(self, group: int, more: set[Node]) -> list[Value]:
        fusion = self.fusion
        again = more | fusion.copies.get(group, set())
        return fusion.operands([*fusion.members[group], *again])

    def _slice(self, v: Value, group: int) -> set[Node] | None:
        """The nodes of a group that compute `v`; None where they are too many or too expensive."""
        fusion = self.fusion
        inside = {*fusion.members[group], *fusion.copies.get(group, ())}
        found: set[Node] = set()
        waiting = [fusion.producer[v]]
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found.add(node)
            if not node.op.cheap or len(found) > MOST:
                return None
            made = [fusion.producer[x] for x in node.inputs if x in fusion.producer]
            waiting += [n for n in made if n in inside]
        return found

    def _saves(self, group: int, v: Value, nodes: set[Node]) -> int:
        """Bytes per element that the group reads less; -1 where it cannot compute `v`."""
        fusion, shape = self.fusion, v.type.shape
        members = fusion.members[group]
        first = members[0]
        if not _is_elementwise(first) or first.outputs[0].type.shape != shape:
            return -1
        before, after = self.operands[group], self._reads(group, nodes)
        results = fusion.results(members)
        if not results or len(after) + len(results) > self.most_buffers:
            return -1

        def total(values: list[Value]) -> int:
            return sum(x.type.dtype.itemsize for x in values if x.type.shape == shape)

        new = [x for x in after if x not in before]
        saved = total(before) - total(after)
        # Something else would live longer beside what is read already.
        return min(saved, 0) if saved and total(new) else saved
