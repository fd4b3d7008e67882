"""Files of our own: calls of the domain `addergraph`, each an op as it was, the declarations of
inputs and parameters, and the operators that stand for exactly one op.

In such a file a node is called as its result, and Transposes that are there for the layout as the
value and its layout: see `layouts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import ops
from ..errors import ShapeError, StorageError
from ..ir import Array, Op, Parameter
from ..ir.graph import Value
from ..ir.trace import Tensor
from ..ir.types import Dim, TensorType, f32, i32
from ..ops.pointwise.full import Full
from . import import_movement as movement
from .attributes import DECLARED, DOMAIN, DOMAIN_VERSION, declared_value, decoded
from .export_functions import function_of
from .import_call import Call, Handler, Made
from .import_tensors import OURS, dtype_of_array
from .import_values import Laid, Making, as_is
from .import_windows import extents, filter_of, from_image, image
from .layouts import NHWC, OIHW, TO_NHWC, layout_of, op_around

if TYPE_CHECKING:
    import onnx


def own_op(call: Call) -> Made:
    """The op that the call of a function stands for."""
    builder = call.making.builder
    op = decoded(call.node.op_type, call.node.attribute)
    operands = [call.tensor(place).value for place in range(len(call.inputs))]
    call.ignore(*(a.name for a in call.node.attribute))
    _require_own_function(call, op, [v.type for v in operands])
    types = op.infer(*(v.type for v in operands))
    if len(types) != len(call.node.output):
        raise StorageError(f"it has {len(call.node.output)} outputs, its op {len(types)}")
    names = [Value(name, t) for name, t in zip(call.node.output, types, strict=True)]
    return [as_is(Tensor(builder, value)) for value in builder.add(op, operands, names)]


def _require_own_function(call: Call, op: Op, types: Sequence[TensorType]) -> None:
    """StorageError where other runtimes compute something else than the op: by another body."""
    found, name = call.settings.functions.get(call.node.op_type), call.node.op_type
    if found is None:
        raise StorageError(f"the file has no function {DOMAIN}.{name:.80}: it is damaged")
    expected = function_of(op, types)
    given = _bytes_of(found.node), [*found.input], [*found.output]
    if expected is None or given != (_bytes_of(expected[0]), expected[1], [expected[2]]):
        raise StorageError(
            f"the function {DOMAIN}.{name:.80} of the file computes something else than this "
            "program writes for the op: it was changed, or is of another version; export the "
            "network anew, or import the file with the version that wrote it"
        )


def _bytes_of(nodes: Iterable[onnx.NodeProto]) -> list[bytes]:
    return [node.SerializeToString(deterministic=True) for node in nodes]


def require_known_domain(path: object, model: onnx.ModelProto) -> None:
    """StorageError for calls that another version wrote."""
    found = [entry.version for entry in model.opset_import if entry.domain == DOMAIN]
    if any(version != DOMAIN_VERSION for version in found):
        raise StorageError(
            f'"{path}" has calls of version {found[0]} of the domain {DOMAIN}, this program reads '
            f"version {DOMAIN_VERSION}; use the version of AdderGraph that wrote it"
        )


# --- inputs and parameters ------------------------------------------------------------------------


def is_declared(message: Any) -> bool:
    return any(entry.key == DECLARED for entry in message.metadata_props)


def declared(name: str, message: Any, *, parameter: bool) -> Value:
    """What an input or an initializer says of itself."""
    said = next(entry.value for entry in message.metadata_props if entry.key == DECLARED)
    return declared_value(name, said, parameter=parameter)


def declared_parameter(name: str, message: Any) -> Parameter | None:
    """The parameter that an initializer is; None for a constant."""
    found = declared(name, message, parameter=True) if is_declared(message) else None
    return found if isinstance(found, Parameter) else None


def is_filter(name: str, nodes: Sequence[onnx.NodeProto]) -> bool:
    """Whether it is stored OIHW: a convolution reads it as it is, or a Transpose makes it HWIO."""
    for node in nodes:
        if node.op_type in ("Conv", "ConvInteger") and list(node.input[1:2]) == [name]:
            return True
        turned = node.op_type == "Transpose" and list(node.input) == [name]
        if turned and [layout_of(made) for made in node.output] == [(name, NHWC)]:
            return True
    return False


def own_parameter(making: Making, said: Parameter, array: Array, turned: bool) -> Laid:
    """A parameter with its numbers; `turned`: they are OIHW, where the graph has HWIO."""
    numbers = array.transpose(TO_NHWC[OIHW]) if turned and array.ndim == 4 else array
    if dtype_of_array(numbers) != said.type.dtype or numbers.shape != said.type.shape:
        raise StorageError(
            f'the parameter "{said.name:.200}" is declared as {said.type}, its numbers are '
            f"{numbers.dtype}{list(numbers.shape)}"
        )
    made = making.declared(said, numbers)
    return Laid(made, TO_NHWC[OIHW]) if turned else as_is(made)


# --- operators that stand for one op --------------------------------------------------------------


def _full(call: Call) -> Made:
    array = call.array("value")
    if array is None:
        value, dtype = call.real("value_float", 0.0), f32
    else:
        found = dtype_of_array(array)
        if found is None or array.size != 1:
            raise StorageError(
                f"its value is {array.dtype}{list(array.shape)}, where files of our own have one "
                "number: one with the bodies in place of the calls (--inline) does not come back; "
                "export it without"
            )
        value, dtype = float(array.reshape(()).item()), found
    made = call.making.builder.add(Full(value, (), dtype), [], call.name)[0]
    return as_is(Tensor(call.making.builder, made))


def _inside(call: Call, made: Laid) -> bool:
    """Whether this operator is the last one of an op that stands as several."""
    return op_around(call.node.input[0]) == call.name and made.reshaped is None


def _renamed(call: Call, x: Laid) -> Laid:
    """The value that the last node made, called as this one."""
    node = call.making.builder.nodes[-1]
    if node.outputs[0] is not x.tensor.value:
        raise StorageError("it does not stand behind the operator whose op it ends")
    (old,) = node.outputs
    call.making.builder.nodes.pop()
    (value,) = call.making.builder.add(node.op, node.inputs, [Value(call.name, old.type)])
    return Laid(Tensor(call.making.builder, value), x.axes)


def _flatten(call: Call) -> Made:
    x = call.computed(0)
    if call.integer("axis", 1) != 1:
        return movement.flatten(call)
    whole = call.making.reshaped(x, (x.shape[0], *x.inner[1:2]), "") if _pooled(x) else x
    if _inside(call, whole):
        return _renamed(call, whole)
    return as_is(ops.flatten(call.tensor(0), name=call.name))


def _pooled(x: Laid) -> bool:
    """Whether it is the result of a pool over all pixels, which has no axes for them here."""
    return x.reshaped is not None and x.reshaped[:2] == x.inner and len(x.inner) == 2


def _reshape(call: Call) -> Made:
    target = call.integers_of(1, "shape")
    if target is None:
        raise StorageError("it has no shape")
    x = call.tensor(0)
    exact = call.flag("allowzero")
    if any(size == 0 and n >= len(x.shape) for n, size in enumerate(target)):
        raise ShapeError(f"its shape {target} keeps an axis that there is not")
    shape: list[Dim] = [x.shape[n] if s == 0 and not exact else s for n, s in enumerate(target)]
    return as_is(ops.reshape(x, shape, name=call.name))


def _transpose(call: Call) -> Made:
    """A layout where its name, or that of what it reads, says so; else the op."""
    x = call.computed(0)
    order = movement.order_of(call, len(x.shape))
    (read, has), (made, gets) = layout_of(call.node.input[0]), layout_of(call.node.output[0])
    if read == made and (has or gets):
        return call.making.transposed(x, order, call.name)
    return as_is(ops.transpose(call.making.plain(x), order, name=call.name))


def _cast(call: Call) -> Made:
    x, number = call.computed(0), call.integer("to", 0)
    if number not in OURS:
        raise StorageError(f"it casts to the element type {number}, which there is not here")
    if OURS[number] == x.dtype == i32 and _inside(call, x):
        return _renamed(call, x)
    return Laid(ops.cast(x.tensor, OURS[number], name=call.name), x.axes)


def _matmul(call: Call) -> Made:
    return as_is(ops.matmul(call.tensor(0), call.tensor(1), name=call.name))


def _dense_of_bytes(call: Call) -> Made:
    return as_is(ops.dense(call.tensor(0), call.tensor(1), name=call.name))


def _conv_of_bytes(call: Call) -> Made:
    x, f = call.computed(0), call.value(1)
    groups = call.integer("group", 1)
    rows, columns = extents(call, x, [int(d) for d in f.shape[2:]])
    made = ops.conv2d(
        image(call, x), filter_of(call, f), groups=groups, stride=(rows.stride, columns.stride),
        padding=(rows.before, rows.after, columns.before, columns.after),
        dilation=(rows.dilation, columns.dilation), name=call.name,
    )  # fmt: skip
    return from_image(call, made, 4)


def _identity(call: Call) -> Made:
    return call.value(0)


OWN: dict[str, Handler] = {
    "Constant": _full, "Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose,
    "Cast": _cast, "MatMul": _matmul, "MatMulInteger": _dense_of_bytes,
    "ConvInteger": _conv_of_bytes, "Identity": _identity,
}  # fmt: skip
