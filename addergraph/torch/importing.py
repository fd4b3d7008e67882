"""`ag.from_torch`: an exported PyTorch module becomes a graph of ours, node by node.

`torch.export` gives a graph of ATen ops without side effects; `aten.py` has a rule for each op.
Tensors with four axes are NHWC here and NCHW there (ORDER); all others have the axes they had.
"""

from __future__ import annotations

import operator
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from .. import border, ops
from ..errors import AdderGraphError, DataError, UnsupportedError
from ..ir import Array, Graph, Init, free_name
from ..ir.trace import Tensor, new_parameter, trace, with_outputs_called
from ..ir.types import Shape, TensorType, f32
from ..model import Model
from ..model.replay import Left, Replay
from ..ops.pointwise.dropout import MOST_SEED
from ..training.trainee import Losses
from . import custom_ops
from .aten import RULES
from .outputs import output_names
from .quiet import logs_held_back
from .site import Constant, Site, ours, word

_PLACEHOLDERS = torch.export.graph_signature.InputKind


def imported(module: object, example: object, name: str, loss: Losses | None) -> Model:
    """See `front.from_torch`."""
    if not isinstance(module, nn.Module):
        raise DataError(
            f"from_torch: expected a torch.nn.Module, found {border.shown(module)}; a function is "
            "the forward of one"
        )
    model = Model(name=name, loss=loss)
    examples = _examples(example)
    _require_f32(module)
    importing = _Importing(module, _exported(module, examples), len(examples[0]))
    types = [TensorType(f32, importing.shape_of(v.shape)) for v in examples]
    graph = importing.traced(types, model.name)
    known = Replay(graph, importing.momentum, importing.dropouts)
    replay = known if importing.trains() else None
    model.restore(graph, replay, {v.name: v.type.shape[1:] for v in graph.inputs})
    model.weights = importing.weights
    return model


# --- what is given --------------------------------------------------------------------------------


def _examples(example: object) -> tuple[torch.Tensor, ...]:
    """The example's tensors; DataError for anything but f32[N,...] on the CPU, N of one size."""
    given = example if isinstance(example, tuple | list) else (example,)
    for tensor in given:
        if not isinstance(tensor, torch.Tensor):
            found = border.shown(tensor)
            raise DataError(f"from_torch: example: expected tensors, found {found}")
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.dim() < 2:
            raise DataError(
                f"from_torch: example is {tensor.dtype} {list(tensor.shape)} on {tensor.device}; "
                "expected float32 [N, ...] on the CPU, as the module takes it"
            )
    tensors = tuple(t.detach() for t in given if isinstance(t, torch.Tensor))
    if len({len(t) for t in tensors}) != 1 or not len(tensors[0]):
        found = ", ".join(str(list(t.shape)) for t in tensors) or "none"
        raise DataError(f"from_torch: examples need the same batch, of 1 or more; found {found}")
    return tensors


def _require_f32(module: nn.Module) -> None:
    """DataError for parameters and buffers of other kinds; counters may be integers."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu" or (
            tensor.is_floating_point() and tensor.dtype != torch.float32
        ):
            raise DataError(
                f'from_torch: "{name}" is {tensor.dtype} on {tensor.device}; expected float32 on '
                'the CPU: module.float().to("cpu")'
            )


def _exported(module: nn.Module, examples: tuple[torch.Tensor, ...]) -> Any:
    """The module in evaluation form, as a graph of ATen ops that change nothing in place."""
    with _evaluating(module), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, about PyTorch
        try:
            with logs_held_back():
                return torch.export.export(module, examples, strict=False).run_decompositions({})
        except (AdderGraphError, MemoryError):
            raise
        except Exception as error:  # of the user's forward and torch.export: they share no base
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise UnsupportedError(
                f"from_torch: torch.export cannot trace {type(module).__name__}: "
                f"{border.shown(told[0])}; the module has to take tensors of the example's shapes, "
                "and no decision may depend on their numbers"
            ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation form, in which dropouts can be seen; afterwards each part is as it was."""
    before = [(part, part.training) for part in module.modules()]
    dropouts = [part for part, _ in before if _is_plain(part)]
    module.eval()
    for part in dropouts:
        vars(part)["forward"] = partial(custom_ops.dropout, rate=float(part.p))
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
        for part in dropouts:
            del vars(part)["forward"]


def _is_plain(part: nn.Module) -> bool:
    """Whether it is a dropout of single elements, and not of all."""
    return type(part) is nn.Dropout and 0.0 < part.p < 1.0


# --- the graph ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Made:
    """A parameter of ours, and as what its tensor there was used."""

    role: str
    tensor: Tensor


class _Importing:
    """What is known while a graph is built: of each node there its value here.

    weights   the numbers of the parameters, by their names here
    momentum  of each batch norm, and `dropouts`, by node: what `Replay` takes
    """

    def __init__(self, module: nn.Module, program: Any, batch: int) -> None:
        self.module, self.program, self.batch = module, program, batch
        self.known: dict[fx.Node, Any] = {}
        self.weights: dict[str, Array] = {}
        self.momentum: dict[str, float] = {}
        self.dropouts: dict[str, Left] = {}
        self._made: dict[str, _Made] = {}
        self._inputs: list[Tensor] = []

    def traced(self, types: Sequence[TensorType], name: str) -> Graph:
        """The graph, whose outputs are called as in the module where that gives them names."""
        built = trace(self.network(len(types)), *types, name=name)
        names = output_names(self.program)
        if not names:
            return built
        try:
            graph = with_outputs_called(built, names)
        except AdderGraphError as error:
            raise UnsupportedError(
                f"from_torch: the outputs of {type(self.module).__name__} cannot be called as in "
                f"the dict that it returns: {error}"
            ) from None
        new = dict(zip((v.name for v in built.outputs), names, strict=True))
        self.momentum = {new.get(key, key): value for key, value in self.momentum.items()}
        self.dropouts = {
            key: replace(left, of=new.get(left.of, left.of)) for key, left in self.dropouts.items()
        }
        return graph

    def network(self, count: int) -> Any:
        """A function of so many symbolic tensors, for `trace`."""

        def net(*inputs: Tensor) -> list[Tensor]:
            self._inputs = list(inputs)
            self._place(inputs)
            for node in self.program.graph.nodes:
                if node.op == "call_function" and "val" in node.meta:
                    self.known[node] = self._value(node)
                elif node.op == "call_function" and not node.users:
                    continue  # an assertion about the example, which held
                elif node.op not in ("placeholder", "output"):
                    Site(self, node).refuse("is no call of an op")
            return self._outputs()

        return net

    def _place(self, inputs: Sequence[Tensor]) -> None:
        """The values of placeholders: inputs, and constants for all the module has."""
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        left = list(inputs)
        for node, spec in zip(nodes, self.program.graph_signature.input_specs, strict=True):
            if spec.kind == _PLACEHOLDERS.USER_INPUT:
                if not left:
                    raise UnsupportedError(
                        f'from_torch: the module takes "{node.name}", which the example lacks'
                    )
                self.known[node] = left.pop(0)
            elif spec.target is not None:
                self.known[node] = self._constant(spec)

    def _constant(self, spec: Any) -> Constant:
        held = self.program.state_dict.get(spec.target)
        if held is None:
            held = self.program.constants[spec.target]
        trains = spec.kind == _PLACEHOLDERS.PARAMETER
        return Constant(held.detach(), word(spec.target), trains, trains and not held.requires_grad)

    def _value(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self.known[node.args[0]][node.args[1]]
        site = Site(self, node)
        if site.is_constant():
            return site.folded()
        rule = RULES.get(site.op)
        if rule is None:
            site.refuse("is not known; docs/torch.md lists what is")
        try:
            made = rule(site)
        except UnsupportedError:
            raise
        except AdderGraphError as error:
            site.refuse(f"has no equivalent here: {error}")
        for tensor, expected in site.results(made):
            if tensor.shape != self.shape_of(expected):
                site.refuse(
                    f"gives {list(expected)}, with N = {self.batch} of the example; that is not "
                    f"{tensor.type}, which its equivalent here gives for any N"
                )
        return made

    def _outputs(self) -> list[Tensor]:
        (node,) = (n for n in self.program.graph.nodes if n.op == "output")
        found = [self.known.get(n) for n in node.args[0]]
        if not found or not all(isinstance(value, Tensor) for value in found):
            raise UnsupportedError(
                f"from_torch: {type(self.module).__name__} does not return tensors that depend on "
                "its inputs: a tensor, a tuple or a dict of them"
            )
        return [value for value in found if isinstance(value, Tensor)]

    def trains(self) -> bool:
        """Whether what is known says how the training form differs: no dropout leaves out whole
        channels, or adds noise."""
        parts = [p for p in self.module.modules() if isinstance(p, _DropoutNd)]
        return all(_is_plain(part) or part.p == 0.0 for part in parts)

    # --- for `Site` -------------------------------------------------------------------------------

    def shape_of(self, shape: Sequence[int]) -> Shape:
        """A shape there, whose first axis is the batch, as it is here."""
        if not shape or shape[0] != self.batch:
            return tuple(shape)
        return ("N", *ours(tuple(shape))[1:])

    def parameter(
        self, constant: Constant, role: str, name: str, array: Array, init: Init, eta: float | None
    ) -> Tensor | None:
        """Its one parameter here; None where it was made for another role."""
        known = self._made.get(constant.name)
        if known is None:
            tensor = new_parameter(
                self._inputs[0], free_name(name, self.weights), TensorType(f32, array.shape), init,
                trainable=constant.trains, eta=eta, frozen=constant.frozen,
            )  # fmt: skip
            known = self._made[constant.name] = _Made(role, tensor)
            self.weights[tensor.name] = np.ascontiguousarray(array, np.float32)
        return known.tensor if known.role == role else None

    def leave_out(self, x: Tensor, rate: float, name: str, alone: bool) -> Tensor:
        """`x` behind a dropout of this rate, which the training form has. Where it is not `alone`
        in reading x, the others have to see x itself."""
        seen = x if alone else ops.mul(x, 1.0, name=f"{name}.in")
        name = free_name(name, self.dropouts)
        seed = zlib.crc32(name.encode()) % MOST_SEED
        self.dropouts[name] = Left(seen.name, rate, seed)
        return seen
