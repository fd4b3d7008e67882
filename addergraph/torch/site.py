"""One node of an exported graph, as the rule of its op sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import fx

from ..errors import UnsupportedError
from ..ir import Array, Init
from ..ir.trace import Tensor
from ..layers._parameters import ONES

ORDER = (0, 2, 3, 1)  # of the axes of NCHW, in NHWC
BACK = (0, 3, 1, 2)
# What only shows a tensor otherwise: a parameter behind it is still the parameter.
_VIEWS = {"permute", "transpose", "t", "view", "reshape", "unsqueeze", "squeeze", "clone", "alias"}


@dataclass(frozen=True)
class Constant:
    """A tensor that depends on no input: of the module, or computed from such.

    trains  whether training changes it; `frozen`: it would, but it was told not to
    """

    value: torch.Tensor
    name: str
    trains: bool
    frozen: bool = False


def ours(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of PyTorch's with its axes in our order."""
    return tuple(shape[axis] for axis in ORDER) if len(shape) == 4 else shape


def word(name: str) -> str:
    """A dotted name of PyTorch's, which may begin with a digit, as a name of ours."""
    made = re.sub(r"[^\w.]", "_", name)
    return made if re.match(r"[^\W\d]", made) else f"layer{made}"


class Importing(Protocol):
    """What is known while a graph is built; see `importing.py`."""

    known: dict[fx.Node, Any]
    momentum: dict[str, float]

    def parameter(
        self, constant: Constant, role: str, name: str, array: Array, init: Init, eta: float | None
    ) -> Tensor | None:
        """Its one parameter here; None where it was made for another role."""

    def leave_out(self, x: Tensor, rate: float, name: str, alone: bool) -> Tensor:
        """`x` behind a dropout of this rate."""


class Site:
    """The arguments of a node, by their names in its schema, and its place in the module."""

    def __init__(self, importing: Importing, node: fx.Node) -> None:
        self.importing, self.node = importing, node
        schema = getattr(node.target, "_schema", None)
        self.op = schema.name.removeprefix("aten::") if schema else str(node.target)
        self._arguments: dict[str, Any] = {}
        for place, argument in enumerate(schema.arguments if schema else ()):
            given = node.kwargs.get(argument.name, argument.default_value)
            self._arguments[argument.name] = node.args[place] if place < len(node.args) else given

    # --- arguments --------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """An argument: a tensor of ours, a `Constant`, or a number, word or list as it stands;
        None where the schema has none of this name."""
        return self._known(self._arguments.get(name))

    def _known(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.importing.known[value]
        if isinstance(value, list | tuple):
            return [self._known(item) for item in value]
        return value

    def tensor(self, name: str) -> Tensor:
        """An argument that depends on the inputs."""
        found = self[name]
        if not isinstance(found, Tensor):
            self.refuse(f"takes a constant as {name}")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an argument, as it is in PyTorch."""
        return tuple(self._arguments[name].meta["val"].shape)

    @property
    def result(self) -> tuple[int, ...]:
        """The shape of the result, as it is in PyTorch."""
        return tuple(self._values()[0].shape)

    def pair(self, name: str, default: Sequence[int] = ()) -> tuple[int, int]:
        """One integer for both directions or two; `default` where there is none."""
        found = [int(n) for n in self[name] or default]
        return (found[0], found[-1])

    def axis(self, dim: int, rank: int) -> int:
        """An axis of PyTorch's, counted from the end where negative, in our order."""
        dim %= rank
        return ORDER.index(dim) if rank == 4 else dim

    # --- constants --------------------------------------------------------------------------------

    def is_constant(self) -> bool:
        """Whether it depends on no input."""
        values = [self.importing.known[n] for n in self.node.all_input_nodes]
        return all(isinstance(value, Constant) for value in values)

    def folded(self) -> Constant:
        """The value of a node of constants alone."""
        target = self.node.target
        if not callable(target) or torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            self.refuse("is random")
        nodes = self.node.all_input_nodes
        constants = {n: self.importing.known[n] for n in nodes}

        def value(node: fx.Node) -> torch.Tensor:
            held: torch.Tensor = constants[node].value
            return held

        arguments = fx.node.map_arg((self.node.args, dict(self.node.kwargs)), value)
        with torch.no_grad():
            made = target(*arguments[0], **arguments[1])
        if not isinstance(made, torch.Tensor):
            self.refuse("gives no tensor")
        first = constants[nodes[0]] if nodes else None
        if first is not None and self.op in _VIEWS:
            return Constant(made, f"{first.name}.{self.node.name}", first.trains, first.frozen)
        return Constant(made, self.node.name, False)

    def parameter(
        self, name: str, role: str, init: Init, order: Sequence[int] | None = None, *,
        where: str, eta: float | None = None,
    ) -> Tensor:  # fmt: skip
        """An argument that the module has, as our parameter `where.role`, its axes in `order`."""
        constant = self[name]
        if not isinstance(constant, Constant):
            self.refuse(f"takes {name} as a computed tensor; expected a parameter of the module")
        array = constant.value.numpy()
        array = array if order is None else array.transpose(order)
        return self._parameter(constant, role, f"{where}.{role}", array, init, eta)

    def fixed(self, where: str, role: str, init: Init, channels: int) -> Tensor:
        """A parameter that the module lacks, and that no training changes."""
        value = torch.ones(channels) if init == ONES else torch.zeros(channels)
        return self._parameter(Constant(value, f"{where}.{role}", False), role, f"{where}.{role}",
                               value.numpy(), init, None)  # fmt: skip

    def operand(self, name: str, rank: int) -> Tensor | float:
        """An argument of an elementwise op whose result has `rank` axes."""
        found = self[name]
        if isinstance(found, Tensor):
            if found.type.rank != rank:
                self.refuse(f"spreads {found.type} over {rank} axes; reshape it before")
            return found
        if not isinstance(found, Constant):
            return float(found)
        if not found.trains and found.value.numel() == 1:
            return float(found.value)
        array = found.value.numpy()
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        if array.shape[0] != 1:
            self.refuse(f"takes {found.name} {list(array.shape)} with an axis for the batch")
        array = array.transpose(ORDER) if rank == 4 else array
        while array.ndim and array.shape[0] == 1:
            array = array[0]
        return self._parameter(found, f"at{rank}", found.name, array, Init("zeros"), None)

    def _parameter(
        self, constant: Constant, role: str, name: str, array: Array, init: Init, eta: float | None
    ) -> Tensor:
        if array.dtype != np.float32:
            self.refuse(f"takes {constant.name} of {array.dtype}; expected float32")
        made = self.importing.parameter(constant, role, name, array, init, eta)
        if made is None:
            self.refuse(f"takes {constant.name}, which another op takes in another place")
        return made

    # --- its place --------------------------------------------------------------------------------

    def layer_of(self, name: str) -> str:
        """The path of the module that has this argument as a parameter."""
        found = self[name]
        return found.name.rpartition(".")[0] or self.node.name if found else self.name

    @property
    def name(self) -> str:
        """A name for its node here: the path of a module of PyTorch's own, else its name there."""
        path, kind = self._module()
        own = kind.startswith("torch.nn.modules") and path
        return word(path) if own else self.node.name

    def _module(self) -> tuple[str, str]:
        """Path and class of the innermost module around it."""
        stack = list((self.node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        return re.sub(r"@\d+$", "", path), kind if isinstance(kind, str) else kind.__module__

    def is_only_reader(self, name: str) -> bool:
        """Whether no other node reads this argument."""
        return len(self._arguments[name].users) == 1

    def _values(self) -> Sequence[torch.Tensor]:
        value = self.node.meta["val"]
        return value if isinstance(value, list | tuple) else [value]

    def results(self, made: Any) -> Iterator[tuple[Tensor, Sequence[int]]]:
        """Each result with the shape that it has in PyTorch; refused where that is no f32."""
        several = made if isinstance(made, list | tuple) else [made]
        for tensor, value in zip(several, self._values(), strict=False):
            if value.dtype != torch.float32:
                self.refuse(f"gives {value.dtype}; expected float32")
            yield tensor, value.shape

    def refuse(self, why: str) -> NoReturn:
        """UnsupportedError that names the op and its place."""
        path, _ = self._module()
        line = (self.node.meta.get("stack_trace") or "").strip().splitlines()
        code = f": {line[-1].strip()}" if line else ""
        inside = f'in module "{path}"' if path else "in the module itself"
        raise UnsupportedError(
            f"from_torch: {self.node.target} (%{self.node.name}), {inside}{code}, {why}"
        )
