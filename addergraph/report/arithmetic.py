"""What a network computes for one sample, by kind of layer, and the energy of that arithmetic.

Counted are the additions and multiplications that the ops state as declared (`Op.cost`): a term
|x - f| of an adder is two additions (the difference, the sum), a term x f of a convolution is one
multiplication and one addition, a batch norm takes two additions and one multiplication an element.
Comparisons of relu, biases and exponentials are not counted; those of a max pool are additions.

Energies are those of Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
2014, at 45 nm and 0.9 V, in picojoules an operation. They are of the arithmetic alone: an
access to an 8 KiB cache takes 10 pJ for 64 bits by the same source, and control comes on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..ir import Graph, Op

ADDER, PRODUCT, BATCH_NORM, OTHER = "adder", "convolution, dense", "batch norm", "other"

F32_ADD, F32_MULTIPLY = 0.9, 3.7
INT8_ADD, INT8_MULTIPLY = 0.03, 0.2
INT32_ADD, INT32_MULTIPLY = 0.1, 3.1


@dataclass(frozen=True)
class Arithmetic:
    """Additions and multiplications for one sample, and their energy in picojoules.

    f32:  0.9 pJ an addition, 3.7 pJ a multiplication
    int8: operands of contractions are int8, their sums and all other layers int32. So a term of an
          adder takes 0.03 + 0.1 pJ, a multiply-add 0.2 + 0.1 pJ
    """

    kind: str
    additions: int
    multiplications: int
    f32_picojoules: float
    int8_picojoules: float


def by_kind(graph: Graph) -> list[Arithmetic]:
    """The kinds that occur, for one sample; bodies of fused nodes are looked into."""
    bound = graph.bind(1) if graph.is_open else graph
    additions = dict.fromkeys((ADDER, PRODUCT, BATCH_NORM, OTHER), 0)
    multiplications = dict(additions)
    for node in (atom for outer in bound.nodes for atom in outer.atoms):
        cost, kind = node.op.cost([v.type for v in node.inputs]), _kind(node.op)
        additions[kind] += cost.additions
        multiplications[kind] += cost.multiplications
    counts = ((kind, additions[kind], multiplications[kind]) for kind in additions)
    return [_arithmetic(*count) for count in counts if any(count[1:])]


def with_convolutions(kinds: Iterable[Arithmetic]) -> list[Arithmetic]:
    """The same network with each adder term |x - f| replaced by a product x f."""
    return [
        _arithmetic(PRODUCT, one.additions // 2, one.additions // 2) if one.kind == ADDER else one
        for one in kinds
    ]


def total(name: str, kinds: Sequence[Arithmetic]) -> Arithmetic:
    """The sum over `kinds`."""
    return Arithmetic(
        name,
        sum(one.additions for one in kinds),
        sum(one.multiplications for one in kinds),
        sum(one.f32_picojoules for one in kinds),
        sum(one.int8_picojoules for one in kinds),
    )


def _arithmetic(kind: str, additions: int, multiplications: int) -> Arithmetic:
    f32 = F32_ADD * additions + F32_MULTIPLY * multiplications
    if kind == ADDER:
        int8 = (INT8_ADD + INT32_ADD) * additions / 2
    else:
        multiply = INT8_MULTIPLY if kind == PRODUCT else INT32_MULTIPLY
        int8 = INT32_ADD * additions + multiply * multiplications
    return Arithmetic(kind, additions, multiplications, f32, int8)


def _kind(op: Op) -> str:
    if op.takes_tail:
        return ADDER if op.measures_distance else PRODUCT
    return BATCH_NORM if op.normalizes else OTHER
