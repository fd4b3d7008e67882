"""`addergraph export-onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import StorageError
from ...onnx.export import to_onnx
from ...settings import NOTHING, setting
from .. import options as shared
from .source import open_source


@dataclass(frozen=True, kw_only=True)
class Onnx:
    """The options of the command."""

    file: str = shared.file("MODEL")
    output: str = setting(NOTHING, "The file to write.", short="-o", metavar="FILE.onnx")
    weights: str | None = shared.weights()
    batch: int | None = shared.batch("Samples that one run takes.", "any number: N stays open")
    inline: bool = setting(
        False, "No functions: their bodies in place of the calls, for runtimes without functions."
    )


def export_onnx(options: Onnx) -> None:
    """Writes the file and says what is in it."""
    if Path(options.output).suffix != ".onnx":
        raise StorageError(f'--output "{options.output}": the name of an ONNX model ends in .onnx')
    source = open_source(options.file, options.weights)
    known = source.model or source.quantized
    model = to_onnx(
        known or source.graph,
        options.output,
        weights=None if known else source.required_weights(),
        batch=options.batch,
        inline=options.inline,
    )
    size = Path(options.output).stat().st_size
    print(f"wrote {options.output}: {size:,} bytes, {_contents(model)}")
    graph = source.graph if options.batch is None else source.graph.bind(options.batch)
    for what, values in (("takes", graph.inputs), ("gives", graph.outputs)):
        print(f"it {what} {', '.join(f'{v.name}: {v.type}' for v in values)}")


def _contents(model: object) -> str:
    nodes, functions = len(model.graph.node), len(model.functions)  # type: ignore[attr-defined]
    opset = model.opset_import[0].version  # type: ignore[attr-defined]
    version = model.ir_version  # type: ignore[attr-defined]
    bodies = f", {functions} functions" if functions else ""
    return f"opset {opset}, IR version {version}, {nodes} nodes{bodies}"
