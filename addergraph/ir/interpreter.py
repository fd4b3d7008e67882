"""The meaning of a graph: every node's `reference`, in order, with NumPy.

Everything native is checked against this. Nothing here is clever; each result is compared with
the inferred type, so that an op whose reference and shape rule disagree is found at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import border
from ..errors import DataError, GraphError, ShapeError
from . import walk
from .graph import Graph, Node, Value
from .op import Array
from .state import bind_weights
from .types import TensorType


def interpret(
    graph: Graph, *inputs: object, weights: Mapping[str, Array] | None = None
) -> Array | tuple[Array, ...]:
    """The outputs of `graph`: one array, or a tuple where it has several (or none).

    `inputs` are whatever `bind_inputs` takes; `weights` holds an array for each parameter. New
    values of updated parameters are dropped: `run_reference` returns them.
    """
    graph = border.plain(Graph, "graph", graph, GraphError)
    outputs, _ = run_reference(graph, inputs, {} if weights is None else weights)
    return outputs[0] if len(outputs) == 1 else outputs


def run_reference(
    graph: Graph, inputs: Sequence[object], weights: Mapping[str, Array]
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """The outputs of `graph`, and the new value of each parameter that it updates.

    None of the arrays shares memory with `inputs` or `weights`.
    """
    known = evaluate(graph, inputs, weights)
    outputs = tuple(known[v.name].copy() for v in graph.outputs)
    return outputs, {u.parameter.name: known[u.value.name].copy() for u in graph.updates}


def evaluate(
    graph: Graph, inputs: Sequence[object], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """Every value of `graph` by name, in order of definition (for layer-by-layer comparison).

    Raises ShapeError or DataError for inputs or weights that do not fit the graph, GraphError
    when an op's reference and its shape rule disagree.
    """
    batch, arrays = bind_inputs(graph, inputs)
    bound = graph if batch is None else graph.bind(batch)
    numbers = bind_weights(f'graph "{graph.name}"', bound.parameters, weights)
    known = walk.evaluate(bound, [*arrays, *numbers.values()], _run)
    return {v.name: array for v, array in known.items()}


def bind_inputs(graph: Graph, inputs: Sequence[object]) -> tuple[int | None, list[Array]]:
    """The batch N that `inputs` have (None where no input has it), and the inputs as arrays.

    Takes anything that np.asarray does. The arrays are C-contiguous, aligned to their elements (as
    emitted code relies on) and of the graph's dtypes: any real numbers become f32 (rounded),
    integers that fit become integers; floats never become integers and nothing but bool becomes
    bool. An array that already fits is not copied.

    Raises DataError for a wrong number of inputs, or numbers of the wrong kind or range, and
    ShapeError for a shape that is not the input's or a batch that differs between inputs.
    """
    inputs = border.plain(Sequence[object], "inputs", inputs)
    if len(inputs) != len(graph.inputs):
        names = ", ".join(f"{v}: {v.type}" for v in graph.inputs)
        raise DataError(
            f'graph "{graph.name}" takes {len(graph.inputs)} inputs ({names}), found {len(inputs)}'
        )
    batch: int | None = None
    first: Value | None = None
    arrays = []
    for value, given in zip(graph.inputs, inputs, strict=True):
        where = f'graph "{graph.name}", input {value}'
        array = _as_array(where, value.type, given)
        found = _batch_of(where, value.type, array)
        if found is not None and batch is None:
            batch, first = found, value
        if found is not None and found != batch:
            raise ShapeError(
                f"{where}: expected the batch {batch} that {first} has, found {found}; "
                "N is the same for all inputs"
            )
        arrays.append(array)
    return batch, arrays


_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}  # NumPy kinds that each kind is made from


def _as_array(where: str, type: TensorType, given: object) -> Array:
    """`given` as an array of the type's dtype, C-contiguous and aligned.

    DataError where that would change its kind.
    """
    dtype, array = type.dtype, border.array(where, given)
    wanted = dtype.numpy
    if array.size == 0 and isinstance(given, (list, tuple)):
        array = array.astype(wanted)  # np.asarray([]) is float64 only for want of elements
    if array.dtype.kind not in _KINDS[wanted.kind]:
        how = "convert it"
        if type.quantization is not None:
            how = (
                f"the tensor is quantized ({type.quantization}): quantize the samples with "
                "q.inputs(x)"
            )
        raise DataError(f"{where}: expected {dtype}, found an array of {array.dtype}; {how}")
    if wanted.kind in "iu" and array.size:
        least, most = array.min(), array.max()
        limits = np.iinfo(str(wanted))
        if least < limits.min or most > limits.max:
            raise DataError(f"{where}: values from {least} to {most} do not fit in {dtype}")
    with np.errstate(over="ignore"):
        return np.require(array, wanted, ("C", "ALIGNED"))


def _batch_of(where: str, type: TensorType, array: Array) -> int | None:
    """The batch that `array` has as a tensor of `type`; ShapeError where it is none."""
    fits = array.ndim == type.rank and all(
        expected in ("N", found) for expected, found in zip(type.shape, array.shape, strict=True)
    )
    if not fits:
        found = ",".join(map(str, array.shape))
        raise ShapeError(f"{where}: expected {type}, found the shape [{found}]")
    return int(array.shape[0]) if type.is_open else None


def _run(node: Node, operands: Sequence[Array]) -> list[Array]:
    with np.errstate(all="ignore"):  # inf and nan are values like any other
        results = node.op.reference(*operands)
    if len(results) != len(node.outputs):
        raise GraphError(
            f"{node.label}: its reference gives {len(results)} results, "
            f"its shape rule {len(node.outputs)}"
        )
    arrays = [np.asarray(r) for r in results]
    for value, found in zip(node.outputs, arrays, strict=True):
        if found.shape != value.type.sizes or found.dtype != value.type.dtype.numpy:
            raise GraphError(
                f"{node.label}: its reference gives {found.dtype}{list(found.shape)} for {value}, "
                f"its shape rule {value.type}"
            )
    return arrays


def same_for_all(samples: Array) -> bool:
    """Whether all samples, rows of an array, have the same numbers; of one nobody can tell."""
    return len(samples) > 1 and bool((samples == samples[:1]).all())
