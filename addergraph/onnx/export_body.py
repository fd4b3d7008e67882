"""Writes the nodes of a function's body, one call a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir import Array
from ..ir.types import DType, bool_, f32, i8, i32, u8

if TYPE_CHECKING:
    import onnx

f64, i64 = DType("f64", 8), DType("i64", 8)  # of bodies alone: no value of a graph has them
_NUMPY = {f64.name: np.float64, i64.name: np.int64}


def element_type(dtype: DType) -> int:
    """The ONNX element type of a dtype."""
    from onnx import TensorProto as T

    types = {f32: T.FLOAT, i32: T.INT32, u8: T.UINT8, i8: T.INT8, bool_: T.BOOL}
    return int((types | {f64: T.DOUBLE, i64: T.INT64})[dtype])


def numpy_type(dtype: DType) -> Any:
    """The NumPy dtype of a dtype, also of those of bodies."""
    return _NUMPY.get(dtype.name) or dtype.numpy


class Body:
    """Nodes in order. `body("Add", a, b)` appends one and gives the name of its result.

    Results are called by `prefix` and a number, as no value of a graph can be called, so that none
    is taken for another where a runtime puts bodies in place of calls. Constants stand as nodes,
    each once.
    """

    def __init__(self, prefix: str = "/v") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{self._prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def constant(self, values: Array) -> str:
        """An array."""
        from onnx import numpy_helper

        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._constants:
            value = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape))
            self._constants[key] = self("Constant", value=value)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A list of positions, sizes or axes."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, dtype: DType) -> str:
        return self.constant(np.array(value, numpy_type(dtype)))

    def cast(self, x: str, dtype: DType) -> str:
        return self("Cast", x, to=element_type(dtype))

    def reshape(self, x: str, *sizes: int) -> str:
        """0 keeps the size of the axis, -1 takes the rest."""
        return self("Reshape", x, self.ints(*sizes))

    def transpose(self, x: str, *permutation: int) -> str:
        return self("Transpose", x, perm=permutation)

    def slice(
        self, x: str, axes: Sequence[int], starts: Sequence[int], stops: Sequence[int],
        steps: Sequence[int],
    ) -> str:  # fmt: skip
        return self("Slice", x, *(self.ints(*s) for s in (starts, stops, axes, steps)))

    def scan(
        self, state: str, inputs: Sequence[str], dtype: DType, step: Callable[..., str]
    ) -> str:
        """`state = step(body, state, one element of each input)` over the leading axes of
        `inputs`; all are of `dtype`. The last state."""
        graph = self._inside(["state", *"abc"[: len(inputs)]], dtype, step)
        return self("Scan", state, *inputs, body=graph, num_scan_inputs=len(inputs))

    def map(self, inputs: Sequence[str], dtype: DType, step: Callable[..., str]) -> str:
        """`step(body, one element of each input)` over the leading axes; the results, stacked."""
        graph = self._inside("abc"[: len(inputs)], dtype, step)
        return self("Scan", *inputs, body=graph, num_scan_inputs=len(inputs))

    def _inside(
        self, operands: Sequence[str], dtype: DType, step: Callable[..., str]
    ) -> onnx.GraphProto:
        """A graph inside a node; names differ from all outside, which it may read."""
        from onnx import helper

        inner = Body(f"{self._prefix}{len(self.nodes)}/")
        names = [f"{inner._prefix}{name}" for name in operands]
        result = step(inner, *names)
        kind = element_type(dtype)
        given = [helper.make_tensor_value_info(n, kind, None) for n in names]
        made = helper.make_tensor_value_info(result, kind, None)
        return helper.make_graph(inner.nodes, "step", given, [made])
