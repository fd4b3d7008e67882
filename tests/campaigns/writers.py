"""Everything of the product that writes files, each as it writes a first and then another version.

Version 0 is what was there, version 1 what is written over it. Both fill a folder of their own.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import addergraph as ag
from addergraph.cli import main as cli
from addergraph.codegen.run.jit import Program
from addergraph.demo.site import MARK, write
from addergraph.diagnostics import pictures, plots
from addergraph.errors import AdderGraphError, EnvironmentWarning, QuantizationWarning
from addergraph.files import storage
from addergraph.model import Model
from addergraph.quantization import Quantized, load_quantized
from tests.addergraph.models import X, Y, adders_only, small_model
from tests.codegen.libraries import CONSTANT, compiled

LEARNING: dict[str, Any] = {
    "engine": "reference", "verbose": 0, "batch_size": 16, "learning_rate": 0.05,
}  # fmt: skip


class Writer(NamedTuple):
    """One kind of file or folder.

    write     writes a version into a folder
    read      raises where what is in the folder is not whole, after a write that failed
    optional  whether work goes on without it: then `write` does not fail
    varies    bytes differ from time to time, and lines are appended: `read` alone judges
    marker    a file that may say instead that a write did not end
    """

    write: Callable[[Path, int], None]
    read: Callable[[Path], object]
    optional: bool = False
    varies: bool = False
    marker: str = ""


def _write_model(folder: Path, version: int) -> None:
    small_model(input_shape=(8, 8, 1), seed=version).save(folder / "model.safetensors")


def _read_model(folder: Path) -> Model:
    return Model.load(folder / "model.safetensors")


@functools.cache
def _quantized(version: int) -> Quantized:
    images = np.random.default_rng(version).normal(0, 1 + version, (12, 5, 5, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        return ag.quantize(adders_only(), images.astype("f4"))


def _write_quantized(folder: Path, version: int) -> None:
    _quantized(version).save(folder / "int8.safetensors")


def _read_quantized(folder: Path) -> object:
    return load_quantized(folder / "int8.safetensors")


def _train(folder: Path, version: int) -> None:
    """Each version goes on for an epoch where the one before it ended."""
    model = small_model(input_shape=(8, 8, 1), seed=5)
    options: dict[str, Any] = {"checkpoint": folder / "run", "checkpoint_steps": 1, "resume": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnvironmentWarning)  # no room for the lock
        model.fit(X[:48], Y[:48], epochs=1 + version, keep_best=True, **options, **LEARNING)


def _read_run(folder: Path) -> None:
    """It can be resumed, and trained on."""
    _, metadata = storage.load(folder / "run" / "checkpoint.safetensors")
    _train(folder, 1 + json.loads(metadata["position"])["epoch"])


@functools.cache
def _program(version: int) -> Program:
    return compiled(CONSTANT.replace("2.5", f"{version + 1}.5"))


def _write_library(folder: Path, version: int) -> None:
    _program(version).export(folder / "library", overwrite=True)


def _read_library(folder: Path) -> None:
    """Either a whole library, or one that is refused with a reason."""
    try:
        library = ag.load_native(folder / "library")
    except AdderGraphError as error:
        if "did not end" in str(error):
            return
        raise
    assert float(library.run([])[0][0]) in (1.5, 2.5)


def _write_cache(folder: Path, version: int) -> None:
    text = CONSTANT.replace("2.5", f"{version + 3}.5")
    cache = mock.patch.dict(os.environ, {"ADDERGRAPH_CACHE": str(folder / "cache")})
    with cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", EnvironmentWarning)
        (found,) = ag.compile(ag.parse(text), target="x86-64").run([])
    assert float(found[0]) == version + 3.5


def _write_picture(folder: Path, version: int) -> None:
    runs = {"one": {"loss": np.arange(2.0, 6.0 + version)}}
    pictures.save(plots.plot_curves(runs), folder / "curves.png")


def _read_picture(folder: Path) -> None:
    assert (folder / "curves.png").read_bytes().endswith(b"IEND\xaeB`\x82")


def _write_drawing(folder: Path, version: int) -> None:
    with _scratch() as scratch:
        (scratch / "graph.ag").write_text(CONSTANT.replace("2.5", f"{version + 3}.5"))
        command("inspect", scratch / "graph.ag", "--svg", folder / "graph.svg")


def _read_drawing(folder: Path) -> None:
    assert (folder / "graph.svg").read_text().endswith("</svg>")


def command(*arguments: object) -> None:
    """The command line, in this process; its error message as an AdderGraphError."""
    out, err, status = io.StringIO(), io.StringIO(), None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main([str(a) for a in arguments])
    except SystemExit as end:
        status = end.code
    said = err.getvalue()
    if status in (0, 1):  # 1: it was written, and says no
        return
    assert status == 2 and said.startswith("error: ") and "Traceback" not in said, said
    raise AdderGraphError(said)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on another disk, for what a command reads."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write_results(folder: Path, version: int) -> None:
    with _scratch() as scratch:
        text = scratch / "graph.ag"
        text.write_text("graph g(%x: f32[3]) {\n  %y = neg(%x) : f32[3]\n  return %y }")
        np.savez(scratch / "x.npz", x=np.full(3, version, "f4"))
        command(
            "run", text, "--engine", "reference", "--input", scratch / "x.npz",
            "--output", folder / "y.npz",
        )  # fmt: skip


def _read_results(folder: Path) -> None:
    with np.load(folder / "y.npz") as arrays:
        assert arrays["y"].shape == (3,)


def _write_certificate(folder: Path, version: int) -> None:
    with _scratch() as scratch:
        (scratch / "code.o").write_bytes(_program(version).built.code)
        command("certify", scratch / "code.o", "--json", folder / "certificate.json")


def _read_certificate(folder: Path) -> None:
    assert b'"multiplication_free"' in (folder / "certificate.json").read_bytes()


def _write_page(folder: Path, version: int) -> None:
    page = MARK + bytes([version]) * 5000
    write({"index.html": page, "net.wasm": bytes([version]) * 9000}, folder / "page")


def _read_page(folder: Path) -> None:
    index = folder / "page" / "index.html"
    assert index.read_bytes().startswith(MARK)
    assert len((folder / "page" / "net.wasm").read_bytes()) == 9000


def _write_onnx(folder: Path, version: int) -> None:
    ag.to_onnx(small_model(input_shape=(8, 8, 1), seed=version), folder / "model.onnx")


def _read_onnx(folder: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)


WRITERS = {
    "model": Writer(_write_model, _read_model),
    "quantized model": Writer(_write_quantized, _read_quantized),
    "checkpoint and history": Writer(_train, _read_run, varies=True),
    "library": Writer(_write_library, _read_library, marker="library/metadata.json"),
    "cache": Writer(_write_cache, lambda folder: _write_cache(folder, 1), optional=True),
    "picture": Writer(_write_picture, _read_picture),
    "drawing": Writer(_write_drawing, _read_drawing),
    "results": Writer(_write_results, _read_results),
    "certificate": Writer(_write_certificate, _read_certificate),
    "page": Writer(_write_page, _read_page),
    "ONNX model": Writer(_write_onnx, _read_onnx),
}
# The modules that write files, and the writer that stands for each.
WRITTEN_BY = {
    "addergraph/model/model.py": "model",
    "addergraph/quantization/quantized.py": "quantized model",
    "addergraph/training/checkpoint.py": "checkpoint and history",
    "addergraph/training/logs.py": "checkpoint and history",
    "addergraph/diagnostics/pictures.py": "picture",
    "addergraph/cli/commands/diagnose.py": "picture",
    "addergraph/cli/commands/evaluate.py": "results",
    "addergraph/cli/commands/show.py": "drawing",
    "addergraph/cli/commands/native.py": "results",
    "addergraph/cli/commands/certify.py": "certificate",
    "addergraph/cli/bench/report.py": "results",
    "addergraph/cli/bench/tune.py": "results",
    "addergraph/demo/site.py": "page",
    "addergraph/onnx/export.py": "ONNX model",
    "codegen/export/folder.py": "library",
    "codegen/run/cache.py": "cache",
}
