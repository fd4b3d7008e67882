"""`addergraph quantize`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...ir.attributes import DEFAULT_BITS
from ...model.file import require_writable_model
from ...model.quantization import quantize as convert
from ...ops.pointwise.fake_quantize import trained_bits
from .images import samples
from .source import open_source


@dataclass(frozen=True)
class Quantization:
    """The options of the command."""

    file: str
    weights: str | None
    data: str
    normalize: str
    samples: int
    bits: int | None
    requantize: str
    terms: int | None
    quantile: float
    reestimate: bool
    output: str


def quantize(options: Quantization) -> None:
    """Quantizes, reports the error on the calibration data, and writes the integer network."""
    require_writable_model(options.output)
    source = open_source(options.file, options.weights)
    calibration = samples(options.data, options.normalize)[: options.samples]
    made = convert(
        source.graph,
        calibration,
        weights=source.required_weights(),
        bits=options.bits,
        requantize=options.requantize,
        terms=options.terms,
        quantile=options.quantile,
        reestimate=options.reestimate,
    )
    bits = options.bits or next(iter(trained_bits(source.graph)), DEFAULT_BITS)
    print(f"{bits} bits, calibrated on {len(calibration)} samples")
    for name, error in made.errors.items():
        chosen = " (chosen)" if name == made.chosen and len(made.errors) > 1 else ""
        print(f"  factors {_shown(name):<24} outputs off by {error:.2%} of their rms{chosen}")
    made.save(options.output)
    print(f"wrote {options.output} ({os.path.getsize(options.output):,} bytes)")


def _shown(name: str) -> str:
    if name == "multiply":
        return "by integer products"
    count = name.removeprefix("shift")
    return f"of {count} power{'' if count == '1' else 's'} of two"
