"""Random small graphs with what the passes after autodiff must get right.

Images (read with and without padding), channel vectors, matrices, scalars, masks, reshapes,
reductions, values with many readers, dead nodes, repeated outputs, outputs that are inputs, and
updates, also such that exchange parameters.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from addergraph.errors import ShapeError
from addergraph.ir import Array, Builder, Graph, Init, Parameter, op_named
from addergraph.ir.trace import Tensor, apply, apply_all
from addergraph.ir.types import TensorType, f32
from addergraph.ops.pointwise.select import select

IMAGE, MATRIX = (2, 4, 3, 3), (2, 3)
INPUTS = {"x": IMAGE, "y": MATRIX}
PARAMETERS: dict[str, tuple[int, ...]] = {
    "f": (3, 3, 3, 3),
    "w": (3, 3),
    "scale": (3,),
    "shift": (3,),
    "p": IMAGE,
    "q": IMAGE,
    "m": MATRIX,
    "n": MATRIX,
    "rate": (),
}
UNARY = ("relu", "neg", "abs")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
KINDS = {
    "unary": 3,
    "binary": 8,
    "scalar": 2,
    "full": 1,
    "select": 2,
    "contraction": 7,
    "reduce": 2,
    "reshape": 2,
    "flatten": 1,
}


def op(name: str, *operands: Any, **attributes: Any) -> Tensor:
    """One node of the op `name`."""
    return apply(op_named(name)(**attributes), *operands)


def random_graph(random: Random, *, nodes: int = 14, updates: bool = False) -> Graph:
    """A well-formed bound graph of `nodes` nodes or a few more."""
    builder = Builder("g")
    pool = [Tensor(builder, builder.input(n, TensorType(f32, s))) for n, s in INPUTS.items()]
    for name, shape in PARAMETERS.items():
        made = Parameter(name, TensorType(f32, shape), Init("normal", (0.0, 1.0)))
        pool.append(Tensor(builder, builder.parameter(made)))
    while len(builder.nodes) < nodes:
        recent = pool[-8:] if random.random() < 0.5 else pool
        pool += _step(random, recent, {t.name: t for t in pool})
    outputs = [random.choice(pool[-6:] + pool[:1]).value for _ in range(random.randint(1, 3))]
    for parameter in builder.parameters.values() if updates else ():
        values = [t.value for t in pool if t.type == parameter.type]
        if random.random() < 0.6:
            builder.update(parameter, random.choice(values))
    return builder.finish(outputs)


def random_data(graph: Graph, seed: int) -> tuple[list[Array], dict[str, Array]]:
    """Inputs and weights: small integers."""
    rng = np.random.default_rng(seed)

    def draw(type: TensorType) -> Array:
        return rng.integers(-3, 4, type.sizes).astype(np.float32)

    return [draw(v.type) for v in graph.inputs], {p.name: draw(p.type) for p in graph.parameters}


def _step(random: Random, pool: list[Tensor], named: dict[str, Tensor]) -> list[Tensor]:
    """The results of a random op on random values of the pool; none where they do not fit."""
    a = pool[-1] if random.random() < 0.4 else random.choice(pool)  # chains are what fuses
    b = random.choice(pool)
    same = random.choice([t for t in pool if t.shape == a.shape])
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    try:
        match kind:
            case "unary":
                return [op(random.choice(UNARY), a)]
            case "binary":
                return [op(random.choice(BINARY), a, random.choice([b, same]))]
            case "scalar":
                return [op("mul", a, 0.5)]
            case "full":
                full = op_named("full")
                made = full(shape=a.shape, value=2.0, dtype=f32)  # type: ignore[call-arg]
                return [Tensor(a.builder, a.builder.add(made, (), "const")[0])]
            case "select":
                return [select(op("greater", a, random.choice([b, 0.0])), same, 0.0)]
            case "reshape":
                shape = random.choice([a.shape[::-1], (a.type.elements,), (1, *a.shape), IMAGE])
                return [op("reshape", a, shape=shape)]
            case "flatten":
                return [op("flatten", a)]
            case "reduce" if a.shape == IMAGE and random.random() < 0.5:
                return list(apply_all(op_named("batch_norm_statistics")(), a))
            case "reduce":
                return [op("reduce_max", a, axes=tuple(range(a.type.rank - 1)))]
            case _:
                return [_contraction(random, a, named)]
    except ShapeError:
        return []  # shapes or dtypes do not fit


def _contraction(random: Random, x: Tensor, named: dict[str, Tensor]) -> Tensor:
    if x.shape not in (MATRIX, IMAGE):
        x = named[random.choice(["x", "y"])]
    if x.shape == MATRIX:
        return op(random.choice(["dense", "adder_dense"]), x, named["w"])
    padding = random.choice([(1, 1, 1, 1), (2, 0, 0, 2), (0, 0, 0, 0)])
    return op(random.choice(["conv2d", "adder2d"]), x, named["f"], padding=padding)
