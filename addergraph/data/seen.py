"""What a network was trained on, as files of models keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .. import border
from ..errors import StorageError
from ..files import records
from .augment import Normalize


@dataclass(frozen=True)
class Seen:
    """What a network was trained on, for whoever gives it images later; None where nobody said.

    `normalize` takes full brightness as 1, whatever numbers the images were stored as.
    """

    normalize: Normalize | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        border.settle(self, where="Seen: ")

    def entries(self) -> dict[str, str]:
        """The entry `seen` of a file's metadata, JSON; none where nothing is known."""
        if self == Seen():
            return {}
        normalize = None if self.normalize is None else records.encode(self.normalize)
        content = {"normalize": normalize, "classes": self.classes}
        return {"seen": json.dumps(content, sort_keys=True)}


def read_seen(metadata: Mapping[str, str]) -> Seen:
    """What `entries` wrote, nothing of files without it; StorageError for anything else."""
    what = "what the model was trained on"
    found = records.json_object(metadata.get("seen", "{}"), what)
    records.require_known(found, ("normalize", "classes"), what, StorageError)
    normalize, classes = found.get("normalize"), found.get("classes")
    if normalize is not None:
        if not isinstance(normalize, dict):
            raise StorageError(f"normalize in {what} is no object")
        read = records.read(Normalize, normalize, what, error=StorageError, complete=True)
        normalize = Normalize(**read)
    if classes is not None:
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise StorageError(f"classes in {what} are no list of names")
        classes = tuple(classes)
    return Seen(normalize, classes)
