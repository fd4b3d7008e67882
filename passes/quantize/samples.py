"""Calibration data: what samples of a network may be."""

from __future__ import annotations

import numpy as np

from addergraph import border
from addergraph.errors import DataError
from addergraph.ir import Array, Graph


def samples_of(graph: Graph, calibration: object) -> Array:
    """The calibration data of a graph of one input, as f32; DataError unless they are samples that
    say something."""
    (x,) = graph.inputs
    found = border.array("calibration", calibration)
    with np.errstate(over="ignore"):
        samples = found.astype(np.float32)
    expected = ",".join(map(str, x.type.shape))
    if samples.shape[1:] != x.type.shape[1:] or not samples.ndim:
        raise DataError(
            f"calibration data have shape {list(found.shape)} of {found.dtype}, expected samples "
            f"of real numbers [{expected}]" + border.nhwc_hint("calibration", found, x.type.shape)
        )
    if not len(samples):
        raise DataError("calibration data are empty; give some hundred samples")
    if not np.isfinite(samples).all():
        raise DataError("calibration data hold NaN or infinities; remove those samples")
    if not samples.any():
        raise DataError(
            "calibration data are all zero, which says nothing about ranges; give real samples"
        )
    return np.ascontiguousarray(samples)
