"""Functions with arguments that work, and the odd values that each argument is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from addergraph.ir import Array


@dataclass(frozen=True)
class Case:
    """One function with keyword arguments that it takes; `slow`: it compiles."""

    name: str
    call: Callable[..., object]
    arguments: Mapping[str, object]
    slow: bool = False


def image(dtype: str = "f4") -> Array:
    return (np.arange(5 * 6 * 6 * 2) % 7).reshape(5, 6, 6, 2).astype(dtype)


class Text(str):
    """A str of another class."""


def _read_only() -> Array:
    array = image()
    array.flags.writeable = False
    return array


@cache
def odd() -> dict[str, object]:
    """What users hand in that nobody planned for, by name."""
    endless: list[object] = []
    endless.append(endless)
    return {
        "None": None, "True": True, "3": 3, "-1": -1, "0": 0, "1.5": 1.5, "-0.0": -0.0,
        "nan": float("nan"), "inf": float("inf"), "10^30": 10**30, "10^400": 10**400, "2^40": 2**40,
        "fraction": Fraction(1, 3), "complex": 1j,
        "np.int64": np.int64(2), "np.uint8": np.uint8(1), "np.float32": np.float32(0.5),
        "np.float64": np.float64(2.0), "np.bool": np.bool_(True), "np.str": np.str_("relu"),
        "scalar array": np.array(2), "array of one": np.array([0.5], np.float32),
        "pair": np.array([1, 1]), "masked": np.ma.masked_greater(image(), 3),
        "masked pair": np.ma.array([1, 2], mask=[True, False]), "masked scalar": np.ma.masked,
        "ragged": [[1, 2], [3]], "ragged deep": [np.zeros((2, 2)), np.zeros(3)],
        "negative strides": image()[::-1, :, ::-1], "big-endian": image(">f4"),
        "big-endian ints": image(">i4"), "f16": image("f2"), "u8": image("u1"),
        "longdouble": image("g"), "complex array": image("c8"), "bool array": image("?"),
        "read-only": _read_only(), "empty": np.zeros((0, 6, 6, 2), np.float32),
        "empty list": [], "empty tuple": (), "no rows": np.zeros(0),
        "huge": np.broadcast_to(np.float32(0), (2**20, 6, 2**20, 2)),
        "objects": np.array([None, "x", 1], object), "words": np.array(["a", "b"]),
        "record": np.zeros(3, [("a", "f4"), ("b", "i4")]), "dates": np.zeros(3, "M8[s]"),
        "matrix": np.matrix([[1.0, 2.0]]), "": "", "word": "relu", "words and blanks": "two words",
        "surrogate": "\udc80x", "NUL": "a\0b", "bytes": b"relu",
        "bytearray": bytearray(b"\xff\xfe"),
        "long": "x" * 5000, "accents": "größe", "text": Text("u8"), "format": "{0}%s%n",
        "path": Path("/nowhere/at all"), "folder": Path("/"), "device": "/dev/null", "home": "~/x",
        "dict": {"a": 1}, "dict of arrays": {"x": image()}, "keys": {1: 2}, "set": {1, 2},
        "generator": (n for n in (1, 2)), "range": range(3), "endless": endless,
        "object": object(), "class": int, "function": lambda *a, **k: None, "module": np,
        "list of None": [None], "nested": [[[[1.0]]]], "strings": ["N", "x"], "N": "N",
        "infinite pair": (float("inf"), 2), "pair of words": ("a", "b"),
    }  # fmt: skip
