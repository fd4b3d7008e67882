"""The files of the page: what `page/` has, and what the compiler makes of the network.

index.html, page.css, page.js, pixels.js, teach.js, lesson.js   as they are in `page/`
net.js, net.wasm         the network, without multiplications
layers.js, layers.wasm   the same network, whose outputs are also what its layers give
certificate.json         that of net.wasm
learn.js, learn.wasm     where there is a teacher: a network that learns, and its step of training
demo.json                `white`: the pixel that full ink is; `teach`: what the page rehearses
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from .. import compiler
from ..errors import StorageError, UnsupportedError
from ..files import storage
from ..ir import Graph
from ..ir.walk import computed, returning
from ..quantization import Quantized
from .teacher import STEP, Teacher

TARGET = "wasm32"
PAGE = Path(__file__).with_name("page")
STATIC = ("index.html", "page.css", "page.js", "pixels.js", "teach.js", "lesson.js")
IMAGE, DIGITS = (8, 8, 1), 10
MARK = b'content="AdderGraph demo"'  # of index.html: a page of ours may be replaced


def site(network: Quantized, teacher: Teacher | None = None) -> dict[str, bytes]:
    """All files of the page for an int8 network, u8[N,8,8,1] -> scores[N,10], by name. With a
    `teacher`, of the same classes, the page can be taught.

    Raises what `require_readable` raises, UnsupportedError for a network that multiplies or divides
    (its layers are named), and ToolchainError where wasm-ld is missing or fails.
    """
    require_readable(network)
    compiler.require_linker(TARGET)
    graph = network.graph
    made = {name: (PAGE / name).read_bytes() for name in STATIC}
    known = {} if teacher is None else {"teach": teacher.content()}
    made["demo.json"] = json.dumps({"white": _white(network)} | known).encode()
    with tempfile.TemporaryDirectory(prefix="addergraph-demo-") as scratch:
        for name, shown in (("net", graph), ("layers", _observed(graph))):
            folder = Path(scratch) / name
            exported = compiler.export(
                replace(network, graph=shown), folder, target=TARGET, name=name,
                multiplication_free=True,
            )  # fmt: skip
            assert exported.module is not None and exported.script is not None  # there is a linker
            made |= {path.name: path.read_bytes() for path in (exported.module, exported.script)}
            if name == "net":
                made["certificate.json"] = compiler.certify(exported.module).to_json()
        if teacher is not None:
            learner = compiler.export(
                teacher.model, Path(scratch) / "learn", target=TARGET, name="learn", train=STEP
            )
            assert learner.module is not None and learner.script is not None
            made |= {path.name: path.read_bytes() for path in (learner.module, learner.script)}
    return made


def require_readable(network: Quantized) -> None:
    """UnsupportedError unless the network takes one image u8[N,8,8,1] and gives scores [N,10]."""
    (image,), outputs = network.graph.inputs, network.graph.outputs
    if image.type.shape[1:] != IMAGE or image.type.dtype.name != "u8":
        raise UnsupportedError(
            f'"{network.graph.name}" takes {image}: {image.type}; the page draws u8[N,8,8,1]: '
            "quantize a network that was trained on --data digits"
        )
    if len(outputs) != 1 or outputs[0].type.shape[1:] != (DIGITS,):
        found = ", ".join(f"{v}: {v.type}" for v in outputs)
        raise UnsupportedError(
            f'"{network.graph.name}" gives {found}; the page shows one output of {DIGITS} scores, '
            f"one for each digit: quantize a network that was trained on --data digits"
        )


def _white(network: Quantized) -> int:
    """The byte that full brightness is."""
    images, (image,) = network.preprocessing, network.graph.inputs
    if images is not None and images.dtype == "u8":
        scale = images.normalize.scale
    else:
        assert image.type.quantization is not None  # check_quantized
        scale = image.type.quantization.scale
    return max(1, min(255, round(1 / scale)))


def _observed(graph: Graph) -> Graph:
    """`graph`, which also returns what each layer hands on: its maps of bytes."""
    maps = (
        v for v in computed(graph)
        if v.type.dtype.name == "u8" and len(v.type.shape) == 4 and v.type.shape[1:] != IMAGE
    )  # fmt: skip
    return returning(graph, (*graph.outputs, *maps))


def write(files: Mapping[str, bytes], folder: str | os.PathLike[str]) -> Path:
    """Writes them into a folder, which is made if need be; where it is.

    StorageError where that cannot be, and for a folder with files of these names but no page of
    ours, or with an index.html of somebody else.
    """
    where = storage.user_path(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f'cannot make "{where}": {error.strerror or error}') from None
    index = where / "index.html"
    if index.exists() and MARK not in storage.read_bytes(index):
        raise StorageError(f'"{index}" is another page: choose another folder, or remove it')
    foreign = [] if index.exists() else [name for name in sorted(files) if (where / name).exists()]
    if foreign:
        raise StorageError(
            f'"{where / foreign[0]}" is of no page of this command: choose another folder, or '
            "remove it"
        )
    storage.atomic_write_all([(where / name, data) for name, data in _in_order(files)])
    return where


def _in_order(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The page last: what it asks for is there."""
    yield from sorted(files.items(), key=lambda one: (one[0] == "index.html", one[0]))
