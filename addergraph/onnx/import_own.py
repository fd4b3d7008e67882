"""What only our own files have: calls of the domain `addergraph`, each an op as it was, and the
declarations of inputs and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StorageError
from ..ir import Parameter
from ..ir.graph import Value
from ..ir.trace import Tensor
from .attributes import DECLARED, DOMAIN, DOMAIN_VERSION, declared_value, decoded
from .import_call import Call, Made
from .import_values import as_is

if TYPE_CHECKING:
    import onnx


def own_op(call: Call) -> Made:
    """The op that the call of a function stands for."""
    op = decoded(call.node.op_type, call.node.attribute)
    operands = [call.tensor(place).value for place in range(len(call.inputs))]
    call.ignore(*(a.name for a in call.node.attribute))
    made = call.making.builder.add(op, operands, call.name)
    return [as_is(Tensor(call.making.builder, value)) for value in made]


def require_known_domain(path: object, model: onnx.ModelProto) -> None:
    """StorageError for calls that another version wrote."""
    found = [entry.version for entry in model.opset_import if entry.domain == DOMAIN]
    if any(version != DOMAIN_VERSION for version in found):
        raise StorageError(
            f'"{path}" has calls of version {found[0]} of the domain {DOMAIN}, this program reads '
            f"version {DOMAIN_VERSION}; use the version of AdderGraph that wrote it"
        )


def declared(name: str, message: Any, *, parameter: bool) -> Value | None:
    """What an input or an initializer says of itself; None where it says nothing."""
    said = [entry.value for entry in message.metadata_props if entry.key == DECLARED]
    return declared_value(name, said[0], parameter=parameter) if said else None


def declared_parameter(name: str, message: Any) -> Parameter | None:
    found = declared(name, message, parameter=True)
    return found if isinstance(found, Parameter) else None
