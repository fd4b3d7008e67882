"""All planted bugs, and what `tests/test_drill_table.py` asks of them."""

from __future__ import annotations

from pathlib import Path

from . import (
    adder_u8,
    building,
    clipping,
    contractions,
    data,
    elsewhere,
    exchange,
    files,
    kinds,
    machines,
    parallel,
    pixels,
    processes,
    product_u8,
    quantization,
    results,
    sparse_u8,
    training,
)
from .mutant import Mutant

ROOT = Path(__file__).parents[2]
MUTANTS: tuple[Mutant, ...] = (
    *contractions.MUTANTS,
    *kinds.MUTANTS,
    *adder_u8.MUTANTS,
    *product_u8.MUTANTS,
    *sparse_u8.MUTANTS,
    *elsewhere.MUTANTS,
    *files.MUTANTS,
    *quantization.MUTANTS,
    *clipping.MUTANTS,
    *machines.MUTANTS,
    *pixels.MUTANTS,
    *processes.MUTANTS,
    *data.MUTANTS,
    *results.MUTANTS,
    *training.MUTANTS,
    *parallel.MUTANTS,
    *building.MUTANTS,
    *exchange.MUTANTS,
)


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the mutant's file with the bug in it.

    Raises ValueError where the old text does not occur exactly once: the table has to follow the
    code.
    """
    text = (root / mutant.file).read_text()
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(
            f'mutant "{mutant.name}": its old text occurs {count} times in {mutant.file}, expected '
            f"once; change the entry in tests/drill to what the code says now: {mutant.old!r}"
        )
    return text.replace(mutant.old, mutant.new)
