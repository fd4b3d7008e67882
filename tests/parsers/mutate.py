"""Changes of text by words and numbers, which keep more of it readable than changes of bytes do."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

TEXTS = {"log", "recipe", "metadata", "checkpoint", "npz", "state", "graph", "quantized", "model"}
MOST_TOKENS = 4000
_TOKEN = re.compile(rb"[A-Za-z_%][\w.]*|-?\d+(?:\.\d+)?|\s+|.", re.DOTALL)
_KIND = re.compile(rb"[\w%-]")
_NUMBERS = (
    b"0", b"1", b"-1", b"2", b"3", b"4", b"8", b"16", b"17", b"255", b"256", b"1000", b"65536",
    b"2147483648", b"9223372036854775807", b"18446744073709551616", b"1e400", b"-0.0", b"0.5",
    b"1e-45", b"NaN", b"inf", b"-inf", b"-nan", b"Infinity", b"true", b"null", b"[]", b"{}",
)  # fmt: skip


def mutated(data: bytes, seed: int, words: Sequence[bytes]) -> bytes:
    """`data` with up to four changes: a word for a word, a number for a number, or a few tokens
    taken out, twice, elsewhere or in another order."""
    rng = random.Random(seed)
    tokens = _TOKEN.findall(data)[:MOST_TOKENS]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not tokens:
            break
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        span = tokens[other : other + rng.choice((1, 1, 3, 8, 24))]
        change = rng.randrange(8)
        if change < 4:
            meant = [i for i, t in enumerate(tokens) if _KIND.match(t)]
            at = rng.choice(meant) if meant else at
            tokens[at] = _another(tokens, at, rng, words)
        elif change == 4:
            del tokens[at : at + len(span)]
        elif change == 5:
            tokens[at:at] = span
        elif change == 6:
            tokens[at : at + len(span)] = span
        else:
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return b"".join(tokens)


def _another(tokens: Sequence[bytes], at: int, rng: random.Random, words: Sequence[bytes]) -> bytes:
    """What could stand for the token `at`."""
    token = tokens[at]
    if token[:1].isdigit() or token[:1] == b"-":
        return rng.choice(_NUMBERS)
    if token[:1] == b"%":
        return rng.choice([t for t in tokens if t[:1] == b"%"])
    return rng.choice([*(t for t in tokens if t[:1].isalpha()), *words, token])
