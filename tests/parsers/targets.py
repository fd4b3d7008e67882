"""What each parser promises of an input, as one function a parser.

An input is accepted, or refused with an error of addergraph/errors.py whose message can be printed;
what is accepted and written reads back as the same. `examine` adds the bounds: SECONDS of processor
time and NBYTES of memory for an input of LONGEST bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from addergraph.cli.commands import import_weights
from addergraph.codegen.export.archive import Member, read_archive
from addergraph.codegen.export.folder import METADATA, require_replaceable
from addergraph.codegen.inspect.certificate import certify_bytes
from addergraph.codegen.inspect.limits import require_no_calls
from addergraph.codegen.run import native
from addergraph.codegen.targets.lookup import target_named
from addergraph.data import cifar, npz
from addergraph.data.idx import read_idx
from addergraph.errors import AdderGraphError
from addergraph.ir.text import parse
from addergraph.model import Model, file
from addergraph.onnx import import_network as onnx_network
from addergraph.quantization import load_quantized, quantized
from addergraph.training import checkpoint, logs, recipes
from addergraph.zoo import authors, build
from tests.codegen.elves import joined

from . import sealed

LONGEST, SECONDS, NBYTES = 1 << 16, 2.0, 1 << 30
MACHINES = {
    "x86-64": "x86-64-v3", "aarch64": "aarch64", "thumb": "thumbv6m", "riscv": "riscv32i",
    "riscv64": "riscv64i",
}  # fmt: skip


class BrokenPromise(Exception):
    """The parser did other than it says."""


@dataclass(frozen=True)
class Target:
    """`read(input, folder)` gives the parser an input; it may write into the folder."""

    name: str
    read: Callable[[bytes, Path], None]


def examine(target: Target, data: bytes, folder: Path) -> bool:
    """Whether the input is accepted. BrokenPromise, or whatever the parser raised, where it is
    neither accepted nor refused, or takes too long."""
    accepted, seconds = _timed(target, data, folder)
    if seconds > SECONDS:  # once more, without what is imported and compiled once
        accepted, seconds = _timed(target, data, folder)
    if seconds > SECONDS:
        raise BrokenPromise(f"{target.name}: {seconds:.1f} s for {len(data)} bytes")
    return accepted


def _accepts(target: Target, data: bytes, folder: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(data, folder)
    except AdderGraphError as error:
        _require_printable(str(error))
        return False
    return True


def _timed(target: Target, data: bytes, folder: Path) -> tuple[bool, float]:
    start = time.process_time()
    accepted = _accepts(target, data, folder)
    return accepted, time.process_time() - start


def _require_printable(message: str) -> None:
    try:
        message.encode()
    except UnicodeEncodeError:
        raise BrokenPromise(f"a message that cannot be printed: {message!a}") from None


@contextlib.contextmanager
def _own() -> Iterator[None]:
    """Around the reading of what was written here, which is refused never."""
    try:
        yield
    except AdderGraphError as error:
        raise BrokenPromise(f"what was written is refused: {error}") from error


def _require_equal(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise BrokenPromise(f"{what} is another after a round trip: {found!r}, was {expected!r}")


def _put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# --- networks -------------------------------------------------------------------------------------


def _graph(data: bytes, folder: Path) -> None:
    made = parse(data.decode("utf-8", "surrogateescape"))
    text = str(made)
    with _own():
        again = parse(text)
    _require_equal(str(again), text, "a graph")


def _model(data: bytes, folder: Path) -> None:
    known = {"format": file.FORMAT, "version": file.VERSION}
    content = sealed.model_like(data, known, ("graph", "model", "preprocessing"))
    made = Model.load(_put(folder, "m.safetensors", content))
    with _own():
        made.save(folder / "again.safetensors")
        again = Model.load(folder / "again.safetensors")
    _require_equal(file.metadata_of(again), file.metadata_of(made), "a model")


def _quantized(data: bytes, folder: Path) -> None:
    known = {"format": quantized.FORMAT, "version": quantized.VERSION}
    content = sealed.model_like(data, known, ("graph", "errors", "chosen", "preprocessing"))
    made = load_quantized(_put(folder, "q.safetensors", content))
    with _own():
        made.save(folder / "again.safetensors")
        again = load_quantized(folder / "again.safetensors")
    _require_equal(_plain(again), _plain(made), "a quantized network")


def _plain(made: quantized.Quantized) -> tuple[object, ...]:
    return str(made.graph), repr(sorted(made.errors.items())), made.chosen, repr(made.preprocessing)


def _foreign(data: bytes, folder: Path) -> None:
    """Weights of the authors' release, of safetensors or (where there is PyTorch) of torch.save."""
    path = _put(folder, "state.pth", sealed.foreign_tensors(data))
    state = import_weights.read_state(str(path))
    authors.classes_of(state)
    authors.import_weights(_resnet(), state, "state.pth")


@cache
def _resnet() -> Model:
    return build("resnet20", (8, 8, 3))


def _onnx(data: bytes, folder: Path) -> None:
    """A graph of ours in either layout, whose text reads back, and a model where it is one."""
    path = _put(folder, "m.onnx", data)
    with contextlib.suppress(AdderGraphError):
        onnx_network.from_onnx(path)
    with contextlib.suppress(AdderGraphError):
        onnx_network.graph_from_onnx(path, layout="NCHW")
    graph, _ = onnx_network.graph_from_onnx(path)
    with _own():
        again = parse(str(graph))
    _require_equal(str(again), str(graph), "a graph")


# --- training -------------------------------------------------------------------------------------


def _checkpoint(data: bytes, folder: Path) -> None:
    identity = checkpoint.Identity("net", "data", {"seed": "0"})
    run = checkpoint.RunFolder(folder, identity, resume=True)
    _, parts = sealed.parts_of(data)
    names = ("position", "settings", "network", "data")
    texts = [part.decode("utf-8", "surrogateescape") for part in parts]
    known = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "network": "net",
             "data": "data", "settings": '{"seed": "0"}', "position": ""}  # fmt: skip
    state = {"state/f": np.zeros(2, np.float32), "best/f": np.ones(2, np.float32)}
    content = sealed.tensor_file(state, known | dict(zip(names, texts, strict=False)))
    _put(folder, checkpoint.NAME, data[1:] if data[:1] == b"r" else content)
    made = run.load()
    assert made is not None
    with _own():
        run.save(made)
        again = run.load()
    assert again is not None
    _require_equal(repr(again.position), repr(made.position), "a position")


def _recipe(data: bytes, folder: Path) -> None:
    made = recipes.parse(data)
    with _own():
        again = recipes.parse(made.text().encode())
    _require_equal(repr(again), repr(made), "a recipe")


def _log(data: bytes, folder: Path) -> None:
    name = "log.jsonl" if data[:1] == b"j" else "log.csv"
    rows = logs.read_log(_put(folder, name, data[1:]))
    if len({len(column) for column in rows.values()}) != 1:
        raise BrokenPromise("columns of different lengths")


def _metadata(data: bytes, folder: Path) -> None:
    """There is no library beside it: what is right in all else is refused for that."""
    _put(folder, METADATA, data)
    with contextlib.suppress(AdderGraphError):
        require_replaceable(folder, "net", "0" * 64)
    native.load(folder)


# --- data sets ------------------------------------------------------------------------------------


def _idx(data: bytes, folder: Path) -> None:
    form, content = data[:1], data[1:]
    dimensions = 1 if form in (b"1", b"g") else 3
    if form in (b"g", b"z"):
        content = gzip.compress(content, 1, mtime=0)
    made = read_idx(_put(folder, "idx", content), dimensions)
    if form in (b"g", b"z") or content[:2] != b"\x1f\x8b":
        again = struct.pack(f">4B{dimensions}I", 0, 0, 8, dimensions, *made.shape) + made.tobytes()
        _require_equal(again, data[1:], "an IDX file")


def _cifar(data: bytes, folder: Path) -> None:
    """An archive as it is, one with sums that fit, or a file of the binary or python version."""
    (_, binary, pickled), content = (None, *cifar._SETS["cifar10"][1]), data[1:]
    match data[:1]:
        case b"p":
            pickled.parse(sealed.with_pixels(content), "batch")
        case b"b":
            binary.parse(sealed.with_pixels(content), "batch")
        case b"t":
            cifar.load("cifar10", _put(folder, "cifar.tar", sealed.tar_archive(content)))
        case _:
            cifar.load("cifar10", _put(folder, "cifar.tar", content))


def _npz(data: bytes, folder: Path) -> None:
    path = _put(folder, "a.npz", sealed.zip_archive(data))
    for other in (npz.load_npz, npz.load_npz_samples):
        with contextlib.suppress(AdderGraphError):
            other(path)
    made = npz.load_npz_dataset(path)
    content = io.BytesIO()
    tests = {"x_test": made.x_test, "y_test": made.y_test} if len(made.x_test) else {}
    np.savez(content, x_train=made.x_train, y_train=made.y_train, **tests)  # type: ignore[arg-type]
    with _own():
        again = npz.load_npz_dataset(_put(folder, "b.npz", content.getvalue()))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        first, second = (getattr(d, name).tobytes() for d in (made, again))
        _require_equal(first, second, name)


# --- objects --------------------------------------------------------------------------------------


def _object(machine: str, data: bytes, folder: Path) -> None:
    with contextlib.suppress(AdderGraphError):
        require_no_calls(data, target_named(MACHINES[machine]), {})
    made = certify_bytes(data, "x.o")
    said = json.loads(made.to_json())["multiplication_free"]
    _require_equal(said, made.render().endswith("multiplication-free: yes, all of it"), "a verdict")


def _module(data: bytes, folder: Path) -> None:
    with contextlib.suppress(AdderGraphError):
        require_no_calls(data, target_named("wasm32"), {})
    certify_bytes(data, "x.wasm")


def _archive(data: bytes, folder: Path) -> None:
    content = sealed.static_archive(data)
    members = read_archive(content, "a.a")
    if all(re.fullmatch(r"[\w.]+", name, re.ASCII) for name, _ in members):
        with _own():
            again = read_archive(joined([Member(n, [c], ()) for n, c in members]), "b.a")
        _require_equal(again, members, "an archive")
    certify_bytes(content, "a.a")


_READERS: dict[str, Callable[[bytes, Path], None]] = {
    "recipe": _recipe, "idx": _idx, "log": _log, "metadata": _metadata, "cifar": _cifar,
    "npz": _npz, "checkpoint": _checkpoint, "graph": _graph, "archive": _archive,
    "onnx": _onnx, "state": _foreign, "quantized": _quantized, "model": _model, "module": _module,
    **{f"object-{machine}": partial(_object, machine) for machine in MACHINES},
}  # fmt: skip
TARGETS = {name: Target(name, read) for name, read in _READERS.items()}
