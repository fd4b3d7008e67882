"""The folder of an export: whose it is, and how it is written.

metadata.json says what a folder holds. An export replaces an earlier one of the same network, but
not that of another, nor files of the user's, unless it is told to overwrite.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from addergraph.data.folder import PICTURES
from addergraph.errors import DataError, StorageError, some
from addergraph.files.records import json_object
from addergraph.files.storage import (
    Pieces,
    atomic_write_all,
    content_digest,
    pieces,
    read_bytes,
    user_path,
)
from addergraph.ir import Array, Graph

from .package import package_paths

METADATA = "metadata.json"
_ADVICE = "name another folder, or overwrite it (overwrite=True, --overwrite)"


def sha256(data: bytes | memoryview | Pieces) -> str:
    """The digest by which metadata.json knows a file."""
    digest = hashlib.sha256()
    for piece in pieces(data):
        digest.update(piece)
    return digest.hexdigest()


def graph_digest(graph: Graph) -> str:
    """SHA-256 of the graph's text."""
    return sha256(str(graph).encode())


def identity(graph: Graph, weights: Mapping[str, Array]) -> dict[str, str]:
    """What metadata.json knows a network by: digests of its graph's text, and of its numbers."""
    numbers = {p.name: np.asarray(weights[p.name]) for p in graph.parameters}
    return {
        "graph_sha256": graph_digest(graph),
        "parameters_sha256": content_digest(numbers, {}),
    }


def require_exported_from(
    metadata: Mapping[str, Any], graph: Graph, weights: Mapping[str, Array], where: str
) -> None:
    """DataError unless the library in the folder `where` was exported from this network."""
    if metadata["graph"] != graph.name:
        raise DataError(
            f'"{where}" holds the graph "{metadata["graph"]}", which is no code of "{graph.name}": '
            "compile that into the folder, or name another one"
        )
    for key, found in identity(graph, weights).items():
        if metadata.get(key) != found:
            what = "graph" if key == "graph_sha256" else "weights"
            raise DataError(
                f'"{where}" was exported from another network of the name "{graph.name}": its '
                f"{what} differ{'s' * (what == 'graph')}; compile this one into the folder"
                + ", or give the --batch that it was compiled with"
                * (what == "graph")
            )


@contextmanager
def made_folder(folder: str | os.PathLike[str], names: Iterable[str]) -> Iterator[Path]:
    """The folder, made if need be, with those of the files `names`; StorageError where that
    fails. After an error those that were made and are empty go again."""
    where = user_path(folder)
    parents = {(where / name).parent for name in (METADATA, *names)}
    wanted = sorted({p for parent in parents for p in (parent, *parent.parents)})
    made = list[Path]()
    try:
        try:
            for path in wanted:
                if not os.path.isdir(path):
                    path.mkdir(exist_ok=True)
                    made.append(path)
        except OSError as error:
            raise StorageError(
                f'cannot write into the folder "{folder}": {error.strerror or error}; '
                "name another one or change its permissions"
            ) from None
        yield where
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):  # it has files by now
                path.rmdir()
        raise


def _require_no_pictures(folder: str | os.PathLike[str]) -> None:
    """StorageError for a folder of pictures, or of folders of them: `example` would be a class."""
    where = user_path(folder)
    try:
        inside = [one for one in os.scandir(where) if not one.name.startswith(".")]
        names = [one.name for one in inside]
        for one in filter(os.DirEntry.is_dir, inside):
            names += [f"{one.name}/{name}" for name in os.listdir(one)]
    except OSError:
        return  # there is none, or what writes it says why it cannot
    pictures = [name for name in names if name.lower().endswith(PICTURES)]
    if pictures:
        raise StorageError(
            f'"{folder}" holds pictures ({some(sorted(pictures))}), and no export; {_ADVICE}'
        )


def objects(prefix: str) -> list[str]:
    """What every export has: code, data, and both."""
    return [f"{prefix}.o", f"{prefix}_data.o", f"lib{prefix}.a"]


def texts(prefix: str) -> list[str]:
    """What an export has for some targets, and a user may change."""
    return [f"{prefix}.js", f"{prefix}.d.ts", "example/main.c", "example/Makefile"]


def others(prefix: str) -> list[str]:
    """What an export has for some targets: what is linked, and texts."""
    return [f"lib{prefix}.so", f"{prefix}.wasm", *texts(prefix)]


def require_replaceable(
    folder: str | os.PathLike[str], prefix: str, graph_sha256: str, packaged: Iterable[str] = ()
) -> None:
    """StorageError where an export of the library `prefix`, with the files `packaged` of a package,
    would replace what is no earlier export of the same graph: another network's library, or files
    that somebody wrote or changed."""
    where = user_path(folder)
    if not os.path.exists(where / METADATA):  # Path.exists raises for long names
        names = [f"{prefix}.h", *others(prefix), *packaged, *objects(prefix)]
        if alien := [name for name in names if os.path.exists(where / name)]:
            raise StorageError(f'"{folder}" has a file {alien[0]} that is of no export; {_ADVICE}')
        _require_no_pictures(folder)
        return
    path = where / METADATA
    found = json_object(read_bytes(path), f'"{path}" is of no export: it')
    if found.get("name") != prefix and found.get("graph_sha256") == graph_sha256:
        raise StorageError(
            f'"{folder}" holds this network under the name "{found.get("name")}", not "{prefix}"; '
            f"give that name, or {_ADVICE}"
        )
    if found.get("name") != prefix or found.get("graph_sha256") != graph_sha256:
        raise StorageError(
            f'"{folder}" holds the library "{found.get("name")}" of another network; {_ADVICE}'
        )
    written = _digests(found)
    for name in packaged if written else ():  # nothing is known of an export that was killed
        if name not in written and os.path.exists(where / name):
            raise StorageError(f'"{folder}" has a file {name} that is of no export; {_ADVICE}')
    for name in (f"{prefix}.h", *texts(prefix), *_of_packages(written, prefix)):
        path = where / name
        if name in written and path.exists() and sha256(read_bytes(path)) != written[name]:
            raise StorageError(
                f'"{path}" was changed after it was exported; keep a copy, or overwrite it '
                "(overwrite=True, --overwrite)"
            )


def _digests(metadata: Mapping[str, Any]) -> Mapping[str, object]:
    found = metadata.get("files")
    return found if isinstance(found, dict) else {}


def _of_packages(written: Iterable[str], prefix: str) -> list[str]:
    """Those that can be files of a package: what a file says is not deleted for its saying so."""
    return sorted(package_paths(prefix).intersection(written))


def write(
    where: Path, prefix: str, files: Mapping[str, bytes | Pieces], no_shared: str | None
) -> None:
    """Replaces all files, or none where there is no room for all.

    metadata.json comes first, without digests, so that what a killed export leaves is known for
    what it is; and again last, with them. What an earlier export had for another target goes.
    """
    described = json.loads(b"".join(pieces(files[METADATA])))
    unfinished = {"files": {}, "no_shared_library": "its export did not end"}
    contents: dict[str, bytes | Pieces | None] = {
        n: data for n, data in files.items() if n != METADATA
    }
    digests = {name: sha256(files[name]) for name in contents}
    finished = {"files": digests, "no_shared_library": no_shared}
    contents = dict.fromkeys(_earlier(where, prefix)) | contents
    ordered = [
        (METADATA, canonical(described | unfinished)),
        *contents.items(),
        (METADATA, canonical(described | finished)),
    ]
    atomic_write_all([(where / name, data) for name, data in ordered])


def _earlier(where: Path, prefix: str) -> list[str]:
    """The files of `others` and of a package that an export before this one wrote."""
    try:
        known = _digests(json_object(read_bytes(where / METADATA), METADATA))
    except StorageError:
        return []  # there was none, or it is overwritten
    return [*(name for name in others(prefix) if name in known), *_of_packages(known, prefix)]


def canonical(metadata: Mapping[str, Any]) -> bytes:
    """The text of metadata.json: the same for the same content."""
    return json.dumps(metadata, sort_keys=True, indent=2).encode() + b"\n"
