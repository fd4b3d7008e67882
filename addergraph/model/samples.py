"""What a network takes and gives: shapes of one sample."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .. import border
from ..data.preprocessing import Preprocessing
from ..errors import DataError, DataWarning, GraphError, ShapeError
from ..ir import Array, Graph
from ..ir.types import TensorType, f32

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
SEVERAL = (
    "A model has one input and one output: join them (ops.concat), or trace and compile the graph "
    "itself (ag.trace, ag.compile), which may have several"
)


def require_one_input(net: Callable[..., object]) -> None:
    """GraphError for a function that needs several tensors."""
    try:
        parameters = inspect.signature(net).parameters.values()
    except (TypeError, ValueError):  # nobody knows
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]
    if len(needed) > 1:
        raise GraphError(f"Model(net): the function takes {', '.join(needed)}. {SEVERAL}")


def require_network(graph: Graph) -> None:
    """GraphError unless `graph` takes one f32 tensor and gives one, with a row a sample."""
    ends = [*graph.inputs, *graph.outputs]
    one = len(graph.inputs) == 1 and len(graph.outputs) == 1
    fits = one and all(v.type.dtype == f32 and v.type.rank >= 2 for v in ends)
    if not fits or graph.inputs[0].type.shape[0] != graph.outputs[0].type.shape[0]:
        raise GraphError(
            f'a network maps one f32[N,...] to one f32[N,...]; "{graph.name}" maps '
            f"{', '.join(str(v.type) for v in graph.inputs)} to "
            f"{', '.join(str(v.type) for v in graph.outputs) or 'nothing'}. {SEVERAL}"
        )


def without_batch(type: TensorType) -> tuple[int, ...]:
    """The shape without the leading batch."""
    return tuple(int(d) for d in type.shape[1:])


def sample_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The sizes of one sample as plain integers; ShapeError for what is none."""
    sizes: tuple[int, ...] = border.accept(Sequence[int], shape) or ()
    if not sizes or min(sizes) < 1:
        raise ShapeError(
            f"input_shape={border.shown(shape)} must be the sizes of one sample, as (8, 8, 1)"
        )
    return sizes


def with_names(
    known: Preprocessing | None, names: Sequence[str] | None, count: int
) -> Preprocessing | None:
    """`known` for `count` classes of these names; DataError where they do not fit."""
    given: tuple[str, ...] | None = border.plain(Sequence[str] | None, "names", names)
    if given is not None and len(given) != count:
        raise DataError(f"names={border.shown(given)}: {len(given)} of {count} classes")
    if given is not None and known is None:
        raise DataError(
            "names of classes are part of the preprocessing, and this model has none: assign "
            "model.preprocessing"
        )
    return None if known is None else replace(known, classes=given)


def warn_of_bytes(samples: Array, known: Preprocessing | None) -> None:
    """A DataWarning for images, and a model that does not say what a pixel is."""
    if samples.dtype == np.uint8 and known is None:
        warnings.warn(
            "this model does not say what a pixel is: bytes enter as 0..255. Assign "
            "model.preprocessing, or give numbers as it was trained on",
            DataWarning,
            stacklevel=3,
        )
