"""What a file of our own says of its pixels, classes and integers: JSON in the model's
metadata_props, for programs that run it. Reading the file needs the pixels alone; the classes
stand among these, too, and have to be the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..border import shown
from ..data import preprocessing
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, StorageError
from ..ir import Graph
from ..ir.quantization import value_quantizations
from .attributes import DOMAIN

if TYPE_CHECKING:
    import onnx

CLASSES, PREPROCESSING, SCALES = (
    f"{DOMAIN}.{entry}" for entry in ("classes", preprocessing.ENTRY, "scales")
)


def entries_of(graph: Graph, known: Preprocessing | None) -> dict[str, str]:
    """The entries of a graph whose pixels enter as `known` says."""
    entries: dict[str, Any] = {}
    if known is not None:
        entries[PREPROCESSING] = preprocessing.encoded(known)
        if known.classes is not None:
            entries[CLASSES] = list(known.classes)
    scales = value_quantizations(graph)
    found = {
        v.name: {"scale": q.scale, "zero_point": q.zero_point}
        for v in (*graph.inputs, *graph.outputs)
        if (q := scales[v.name]) is not None
    }
    if found:
        entries[SCALES] = found
    return {key: json.dumps(value, sort_keys=True) for key, value in sorted(entries.items())}


def read_preprocessing(path: object, source: onnx.ModelProto) -> Preprocessing | None:
    """How the pixels of the file enter; None where it does not say so.

    StorageError for a damaged entry, and for classes that are none or other ones than the pixels'
    entry has.
    """
    said = {entry.key: entry.value for entry in source.metadata_props}
    known = _read_pixels(path, said[PREPROCESSING]) if PREPROCESSING in said else None
    if CLASSES in said:
        _require_classes(path, said[CLASSES], known)
    return known


def _read_pixels(path: object, text: str) -> Preprocessing | None:
    try:
        return preprocessing.from_entry({preprocessing.ENTRY: text})
    except AdderGraphError as error:
        raise StorageError(f'"{path}": {error}') from None


def _require_classes(path: object, text: str, known: Preprocessing | None) -> None:
    where = f'"{path}" is damaged: {CLASSES} in its metadata'
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where} is not JSON ({error})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StorageError(f"{where} is {shown(names)}, expected a list of names")
    expected = list(known.classes or ()) if known is not None else []
    if names != expected:
        raise StorageError(
            f"{where} names {shown(names)}, {PREPROCESSING} names {shown(expected)}; both were "
            "written alike: export the network anew"
        )
