"""Kernels: how each op becomes code. One file per family; each opens with its contract.

A kernel is made for one `Call`: an op with the static types and layouts of its operands on one
target. It says how much scratch memory it wants and emits one SPMD function. Families register with
`@kernel(OpClass, ...)`; an op without a family is a CodegenError, never a fallback to NumPy.
"""

from __future__ import annotations

if __name__ != "addergraph.codegen.kernels":
    raise ImportError("import it as addergraph.codegen.kernels")

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from addergraph.errors import CodegenError
from addergraph.ir import Array, Op
from addergraph.ir.plan import Layout
from addergraph.ir.taps import Taps
from addergraph.ir.types import TensorType

from ..emit.builder import Emitter
from ..targets.target import Target
from .schedule import Choice

ALL_KEPT = Taps()


@dataclass(frozen=True)
class Operand:
    """One tensor of a call: bound type and where its elements stand."""

    type: TensorType
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours along each axis."""
        return tuple(s * self.type.dtype.itemsize for s in self.layout.strides)


@dataclass(frozen=True)
class Call:
    """What a kernel is made for. Equal calls share one emitted function.

    `constant` holds the numbers of the operands that are constants of the program: a kernel may ask
    for them in an order of its own (`Kernel.packs`). `kept` says, per operand, what taps it has;
    empty where that is not known.
    `choice` is one of several kernels that serve the call; None leaves it to the cost model.
    """

    op: Op
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    target: Target
    constant: frozenset[int] = frozenset()
    kept: tuple[Taps, ...] = ()
    choice: Choice | None = None


def taps_of(call: Call, operand: int) -> Taps:
    """Of an operand; all of them, where nothing is known."""
    return call.kept[operand] if call.kept else ALL_KEPT


class Packing(Protocol):
    """How a kernel wants the numbers of a constant operand."""

    @property
    def nbytes(self) -> int:
        """Of what `pack` gives, whatever the numbers are."""

    def pack(self, f: Array, out: Array, /) -> None:
        """Writes the packed bytes into `out`, u8[nbytes]: of a large filter, there is no other."""


class Kernel(ABC):
    """One emitted function for one call. Subclasses are the kernel families.

    kind       which of several kernels that serve an op this is, as `Choice.kind`; empty for others
    name       by the grammar <op>_<dtype>_<tile>_<isa>
    workspace  bytes of scratch memory in the arena, 64-byte aligned; must not depend on layouts
    packs      operand number -> how its numbers are packed; only operands in `call.constant` may
               be. The kernel then receives a pointer to the packed bytes in place of the operand.
    """

    kind: ClassVar[str] = ""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.target = call.target

    @property
    def name(self) -> str:
        return f"{self.call.op.name}_{self.call.outputs[0].type.dtype}_{self.target.isa}"

    @property
    def workspace(self) -> int:
        return 0

    @property
    def packs(self) -> dict[int, Packing]:
        return {}

    @property
    def in_place(self) -> bool:
        """Whether an output may share its buffer with an equally laid out operand."""
        return False

    @abstractmethod
    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        """Emits the body. Pointers point at element (0, ..., 0), halos around it.

        The function returns after `emit`; `e.thread` and `e.threads` are set.
        """


Family = Callable[[Call], Kernel]
F = TypeVar("F", bound=Family)
_FAMILIES: dict[type[Op], Family] = {}


def kernel(*ops: type[Op]) -> Callable[[F], F]:
    """Decorator: this class or function makes the kernels of `ops`."""

    def register(family: F) -> F:
        for op in ops:
            if op in _FAMILIES:
                raise CodegenError(f'op "{op.name}" has two kernel families')
            _FAMILIES[op] = family
        return family

    return register


def families() -> dict[type[Op], Family]:
    """Every op that has a kernel."""
    from . import all_kernels  # noqa: F401  (importing the families registers them)

    return dict(_FAMILIES)


def kernel_for(call: Call) -> Kernel:
    """The kernel of `call`. CodegenError when its op has none."""
    family = families().get(type(call.op))
    if family is None:
        raise CodegenError(f'op "{call.op.name}" has no native kernel')
    return family(call)
