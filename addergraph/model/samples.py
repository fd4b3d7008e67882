"""What a network takes and gives: shapes of one sample."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .. import border
from ..data.preprocessing import Preprocessing
from ..errors import DataError, DataWarning, GraphError, ShapeError, UnsupportedError
from ..ir import Array, Graph, Value
from ..ir.trace import RETURN_ONCE
from ..ir.types import f32
from ..ir.walk import upstream

Shape = tuple[int, ...]
Shapes = dict[str, Shape]  # of the inputs or the outputs of a network, by name, in their order


def require_network(graph: Graph) -> None:
    """GraphError unless `graph` maps f32 tensors to f32 tensors, all with a row a sample, and,
    where there are several, each input reaches an output, and outputs are told apart."""
    ends = [*graph.inputs, *graph.outputs]
    fits = graph.outputs and all(v.type.dtype == f32 and v.type.rank >= 2 for v in ends)
    if not fits or len({v.type.shape[0] for v in ends}) > 1:
        raise GraphError(
            f'a network maps f32[N,...] to f32[N,...], one or several each; "{graph.name}" maps '
            f"{', '.join(str(v.type) for v in graph.inputs)} to "
            f"{', '.join(str(v.type) for v in graph.outputs) or 'nothing'}"
        )
    names = [v.name for v in graph.outputs]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise GraphError(f'"{graph.name}" has an output "{twice}" twice: {RETURN_ONCE}')
    if len(names) > 1 and (taken := next(filter(_is_taken, names), None)):
        raise GraphError(
            f'"{graph.name}" has an output "{taken}" of several, so that what is said of it in '
            "the history of a run has no name of its own: call it otherwise (return a dict)"
        )
    read = {*graph.outputs, *(v for n in upstream(graph.nodes, graph.outputs) for v in n.inputs)}
    dead = [v.name for v in graph.inputs if v not in read]
    if dead and len(graph.inputs) > 1:
        raise GraphError(
            f'the input "{dead[0]}" of "{graph.name}" reaches none of its outputs '
            f"({', '.join(names)}): use it, or leave it out"
        )


def _is_taken(name: str) -> bool:
    """Whether `<name>_loss` may be the validation loss of another output, or of all."""
    return name == "val" or name.startswith("val_")


def shapes_of(ends: Sequence[Value]) -> Shapes:
    """Those of one sample."""
    return {v.name: tuple(int(d) for d in v.type.shape[1:]) for v in ends}


def stated_shapes(given: object, names: Sequence[str]) -> Shapes:
    """The shapes of one sample that somebody gave; ShapeError for what are none."""
    found = border.by_name("input_shape", given, names, ShapeError)
    return {
        name: sample_shape(shape, border.called("input_shape", name, names))
        for name, shape in found.items()
    }


def told(shapes: Mapping[str, Shape]) -> str:
    """Shapes in a message: of several with their names."""
    if len(shapes) == 1:
        return str(*shapes.values())
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def the_only(shapes: Shapes, what: str) -> Shape:
    """The shape of the only input or output; UnsupportedError where there are several."""
    if len(shapes) > 1:
        raise UnsupportedError(
            f"expected a model of one {what}, found {len(shapes)}: {told(shapes)}. Several go with "
            f"fit, evaluate, predict and save in Python (model.{what}_shapes has their shapes) and "
            "with the commands that read no images"
        )
    return next(iter(shapes.values()))


def sample_shape(shape: object, what: str = "input_shape") -> Shape:
    """The sizes of one sample as plain integers; ShapeError for what is none."""
    sizes: Shape = border.accept(Sequence[int], shape) or ()
    if not sizes or min(sizes) < 1:
        raise ShapeError(
            f"{what}={border.shown(shape)} must be the sizes of one sample, as (8, 8, 1)"
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


def warn_of_bytes(inputs: Mapping[str, Array], known: Preprocessing | None) -> None:
    """A DataWarning for images, and a model that does not say what a pixel is."""
    if known is None and any(samples.dtype == np.uint8 for samples in inputs.values()):
        warnings.warn(
            "this model does not say what a pixel is: bytes enter as 0..255. Assign "
            "model.preprocessing, or give numbers as it was trained on",
            DataWarning,
            stacklevel=3,
        )
