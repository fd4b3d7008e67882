"""`addergraph clip`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data import Dataset
from ...errors import DataError, UnsupportedError
from ...files import storage
from ...model import Model
from ...model.clipping import Clipping, activation_bounds
from ...model.file import require_writable_model
from ...report.summary import saturated_taps
from ...settings import setting
from .. import options as shared
from .images import entering, held_out, normalize_option, samples_and_data
from .source import Source, open_trained


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The options of the command."""

    file: str = shared.file("MODEL")
    data: str = shared.calibration("find the bounds")
    normalize: str | None = normalize_option()
    samples: int = shared.samples(2048)
    settings: Mapping[str, Any] = shared.group(Clipping)
    output: str = shared.model_output()
    force: bool = setting(False, "Write over a file that exists.")


def clip(options: Clip) -> None:
    """Prints the bounds of the relus and the accuracy with and without them, and writes the model.

    DataError, before any work, where the file to write exists, unless forced; UnsupportedError for
    what is no float model.
    """
    require_writable_model(options.output)
    if storage.user_path(options.output).exists() and not options.force:
        raise DataError(f'"{options.output}" exists: name another file (-o), or give --force')
    source = _opened(options.file)
    model = source.model
    assert model is not None  # `_opened`
    images, data = samples_and_data(options.data, options.normalize, source, options.samples)
    found = activation_bounds(model, images, **options.settings, verbose=1)
    clipped = found.clip(model)
    print(found)
    saturated, taps = saturated_taps(clipped.graph(training=False), clipped.weights)
    if taps:
        share = f"{saturated:,} of {taps:,} ({saturated / taps:.0%})"
        print(
            f"taps of adders at or above the bound of their input, which need no minimum: {share}"
        )
    if data is None:
        print("no labels, so that no accuracy is measured")
    else:
        _compare(model, clipped, source, data, options)
    clipped.save(options.output)
    print(f"wrote {options.output} ({storage.user_path(options.output).stat().st_size:,} bytes)")


def _opened(file: str) -> Source:
    if Path(file).suffix == ".ag":
        raise UnsupportedError(
            f'"{file}" is the text of a graph: relus are bounded in a model file, which train, '
            "import and Model.save write"
        )
    source = open_trained(file)
    if source.quantized is not None:
        raise UnsupportedError(
            f'"{file}" is of integers, which their bytes bound: clip the float model, then '
            "quantize that"
        )
    return source


def _compare(before: Model, after: Model, source: Source, data: Dataset, options: Clip) -> None:
    """Prints what both models make of held-out images."""
    x, y = held_out(data)
    if x is None or y is None:
        print("no images are held out, so that no accuracy is measured")
        return
    entered = entering(source, x, data, options.normalize)
    how = {name: options.settings[name] for name in ("engine", "threads")}
    numbers = [model.evaluate(entered, y, **how) for model in (before, after)]
    part = "validation" if len(data.x_val) else "test"
    print(f"on {len(x):,} {part} images:")
    for name, value in numbers[0].items():
        print(f"  {name} {value:.4f} before, {numbers[1][name]:.4f} after")
