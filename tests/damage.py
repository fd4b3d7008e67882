"""What tests of readers share: files with damage, and bounds on what reading them takes."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from addergraph.errors import AdderGraphError


def ours(call: Callable[..., object], *arguments: object) -> bool:
    """Whether the project refused it; any other exception is the test's failure."""
    try:
        call(*arguments)
    except AdderGraphError:
        return True
    return False


def flipped(content: bytes, count: int = 300) -> Iterator[bytes]:
    """`content` with one bit turned, or a few bytes, or cut, by a fixed generator."""
    rng = random.Random(12)
    for number in range(count):
        changed = bytearray(content)
        at = rng.randrange(len(changed))
        changed[at] ^= 1 << rng.randrange(8)
        if number % 3 == 1:
            changed[at : at + 4] = rng.randbytes(4)
        if number % 9 == 2:
            del changed[at:]
        yield bytes(changed)


@contextmanager
def within(nbytes: int, seconds: float) -> Iterator[None]:
    tracemalloc.start()
    start = time.monotonic()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < nbytes, f"{peak:,} bytes"
    assert time.monotonic() - start < seconds
