"""`addergraph quantize`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, QuantizationWarning
from ...files import storage
from ...ir import Array
from ...ir.attributes import DEFAULT_BITS
from ...model.file import require_writable_model
from ...model.quantization import Quantizing
from ...model.quantization import quantize as convert
from ...ops.pointwise.fake_quantize import trained_bits
from ...quantization import Quantized
from ...settings import setting
from .. import options as shared
from .images import normalize_option, samples
from .source import Source, open_source


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The options of the command."""

    file: str = shared.file("MODEL")
    weights: str | None = shared.weights()
    data: str = shared.calibration("calibrate")
    normalize: str | None = normalize_option()
    samples: int = shared.samples(256)
    settings: Mapping[str, Any] = shared.group(Quantizing)
    output: str = shared.model_output()
    force: bool = setting(False, "Write the model although its answers are far off.")


def quantize(options: Quantization) -> None:
    """Quantizes, reports the error on the calibration data, and writes the int8 model.

    DataError, and no file, for a network that answers far off, unless forced.
    """
    require_writable_model(options.output)
    source = open_source(options.file, options.weights)
    calibration = samples(options.data, options.normalize, source, options.samples)
    with warnings.catch_warnings():
        warnings.simplefilter("default" if options.force else "error", QuantizationWarning)
        try:
            made = _converted(source, calibration, options.settings)
        except QuantizationWarning as far:
            raise DataError(f"{far}. Nothing was written; --force writes it all the same") from None
    bits = options.settings["bits"] or next(iter(trained_bits(source.graph)), DEFAULT_BITS)
    print(f"{bits} bits, calibrated on {len(calibration)} samples")
    width = max((len(_shown(name)) for name in made.errors), default=0)
    for name, error in made.errors.items():
        chosen = " (chosen)" if name == made.chosen and len(made.errors) > 1 else ""
        print(f"  requantize {_shown(name):<{width}}  relative RMS error {error:.2%}{chosen}")
    made.save(options.output)
    print(f"wrote {options.output} ({storage.user_path(options.output).stat().st_size:,} bytes)")


def _converted(source: Source, calibration: Array, settings: Mapping[str, Any]) -> Quantized:
    if source.model is not None:
        return convert(source.model, calibration, **settings, verbose=1)
    weights = source.required_weights()
    return convert(source.graph, calibration, weights=weights, **settings, verbose=1)


def _shown(name: str) -> str:
    if name == "multiply":
        return "by integer multiplications"
    count = name.removeprefix("shift")
    return f"by {count} power{'' if count == '1' else 's'} of two"
