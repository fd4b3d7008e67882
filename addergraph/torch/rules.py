"""What each op of ours is in PyTorch: RULES, by the op's name.

A rule makes of a node a function of whether the module trains, and of the operands: tensors in the
order of axes that the graph has, NHWC and HWIO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UnsupportedError
from ..ir import Node, Parameter
from ..ir.attributes import FULL_PRECISION
from .custom_ops import adder2d
from .site import BACK, ORDER

Step = Callable[[bool, list[Tensor]], Tensor]
Rule = Callable[[Node, "float | None"], Step]
_OIHW = (3, 2, 0, 1)


def _apply(function: Callable[..., Tensor]) -> Rule:
    """An op without attributes that matter: a function of its operands."""
    return lambda node, momentum: lambda training, xs: function(*xs)


def _with(function: Callable[..., Tensor]) -> Rule:
    """An op with attributes: a function of the op and its operands."""

    def rule(node: Node, momentum: float | None) -> Step:
        op: Any = node.op
        return lambda training, xs: function(op, *xs)

    return rule


def _shape(shape: Sequence[Any], like: Tensor) -> list[int]:
    """A shape whose N is the batch of `like`."""
    return [like.shape[0] if n == "N" else int(n) for n in shape]


# --- contractions ---------------------------------------------------------------------------------


def _adder2d(node: Node, momentum: float | None) -> Step:
    op: Any = node.op
    eta = _eta(node)

    def step(training: bool, xs: list[Tensor]) -> Tensor:
        x, f, *b = xs
        x, padding = _padded(x, op.padding)
        y: Tensor = adder2d(
            x.permute(BACK), f.permute(_OIHW), b[0] if b else None, op.stride, padding,
            op.dilation, op.groups, eta, True,
        )  # fmt: skip
        return y.permute(ORDER)

    return step


def _eta(node: Node) -> float | None:
    """The layer-adaptive rate of a layer of distances, whose gradients are the layer's there."""
    gradient, f = getattr(node.op, "gradient", FULL_PRECISION), node.inputs[1]
    if gradient != FULL_PRECISION:
        raise UnsupportedError(
            f"to_torch: {node.label} has {gradient} gradients, expected {FULL_PRECISION}"
        )
    return f.eta if isinstance(f, Parameter) else None


def _padded(x: Tensor, sides: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """An image NHWC, and what its layer pads: both sides alike, or x has them already."""
    top, bottom, left, right = sides
    if (top, left) == (bottom, right):
        return x, (top, left)
    return _framed(x, sides), (0, 0)


def _framed(x: Tensor, sides: Sequence[int], value: float = 0.0) -> Tensor:
    """An image NHWC with so many more rows and columns on its sides."""
    top, bottom, left, right = sides
    if not any(sides):
        return x
    return functional.pad(x, (0, 0, left, right, top, bottom), value=value)


def _adder_dense(node: Node, momentum: float | None) -> Step:
    eta = _eta(node)

    def step(training: bool, xs: list[Tensor]) -> Tensor:
        x, f, *b = xs
        one = (1, 1)
        y: Tensor = adder2d(
            x[:, :, None, None], f.t()[:, :, None, None], b[0] if b else None, one, (0, 0), one, 1,
            eta, False,
        )  # fmt: skip
        return y.flatten(1)

    return step


def _conv2d(op: Any, x: Tensor, f: Tensor, b: Tensor | None = None) -> Tensor:
    x, padding = _padded(x, op.padding)
    y = functional.conv2d(
        x.permute(BACK), f.permute(_OIHW), b, op.stride, padding, op.dilation, op.groups
    )
    return y.permute(ORDER)


def _dense(x: Tensor, f: Tensor, b: Tensor | None = None) -> Tensor:
    return functional.linear(x, f.t(), b)


def _batch_norm(node: Node, momentum: float | None) -> Step:
    op: Any = node.op

    def step(training: bool, xs: list[Tensor]) -> Tensor:
        x, mean, variance, gamma, beta = xs
        moves = training and momentum is not None
        held = isinstance(gamma, torch.nn.Parameter) and isinstance(beta, torch.nn.Parameter)
        if held and not (gamma.requires_grad or beta.requires_grad):
            moves = False  # frozen: as in evaluation
        channels_second = x.movedim(-1, 1)
        y = functional.batch_norm(
            channels_second, mean, variance, gamma, beta, moves, momentum or 0.0, op.epsilon
        )
        return y.movedim(1, -1)

    return step


# --- reductions -----------------------------------------------------------------------------------


def _max_pool2d(op: Any, x: Tensor) -> Tensor:
    x = _framed(x, op.padding, -torch.inf)
    return functional.max_pool2d(x.permute(BACK), op.window, op.stride).permute(ORDER)


def _avg_pool2d(op: Any, x: Tensor) -> Tensor:
    x = _framed(x, op.padding)
    return functional.avg_pool2d(x.permute(BACK), op.window, op.stride).permute(ORDER)


def _over_axes(function: Callable[..., Tensor]) -> Rule:
    def over(op: Any, x: Tensor) -> Tensor:
        return function(x, op.axes, keepdim=op.keepdims) if op.axes else x

    return _with(over)


# --- movement -------------------------------------------------------------------------------------


def _pad(op: Any, x: Tensor) -> Tensor:
    sides = [n for pair in zip(op.before, op.after, strict=True) for n in pair]
    last_first = [sides[2 * i + j] for i in reversed(range(x.dim())) for j in (0, 1)]
    return functional.pad(x, last_first, value=op.value)


def _slice(op: Any, x: Tensor) -> Tensor:
    ends = zip(op.start, _shape(op.stop, x), strict=True)
    return x[tuple(slice(first, last) for first, last in ends)]


def _resize_nearest(op: Any, x: Tensor) -> Tensor:
    rows, columns = op.factors
    return x.repeat_interleave(rows, 1).repeat_interleave(columns, 2)


def _full(node: Node, momentum: float | None) -> Step:
    op: Any = node.op
    if "N" in op.shape:
        raise UnsupportedError(f"to_torch: {node.label} is as long as the batch; bind it before")
    return lambda training, xs: torch.full(tuple(op.shape), op.value, dtype=torch.float32)


RULES: dict[str, Rule] = {
    "adder2d": _adder2d,
    "adder_dense": _adder_dense,
    "conv2d": _with(_conv2d),
    "dense": _apply(_dense),
    "matmul": _apply(torch.matmul),
    "batch_norm": _batch_norm,
    "relu": _apply(functional.relu),
    "relu6": _apply(functional.relu6),
    "leaky_relu": _with(lambda op, x: functional.leaky_relu(x, op.slope)),
    "clip": _with(lambda op, x: torch.clamp(x, op.lo, op.hi)),
    "sigmoid": _apply(torch.sigmoid),
    "tanh": _apply(torch.tanh),
    "neg": _apply(torch.neg),
    "abs": _apply(torch.abs),
    "exp": _apply(torch.exp),
    "log": _apply(torch.log),
    "sqrt": _apply(torch.sqrt),
    "add": _apply(torch.add),
    "sub": _apply(torch.sub),
    "mul": _apply(torch.mul),
    "div": _apply(torch.div),
    "maximum": _apply(torch.maximum),
    "minimum": _apply(torch.minimum),
    "full": _full,
    "reduce_sum": _over_axes(torch.sum),
    "reduce_mean": _over_axes(torch.mean),
    "reduce_max": _over_axes(torch.amax),
    "softmax": _apply(lambda x: torch.softmax(x, -1)),
    "max_pool2d": _with(_max_pool2d),
    "avg_pool2d": _with(_avg_pool2d),
    "global_avg_pool": _apply(lambda x: x.mean((1, 2))),
    "pad": _with(_pad),
    "slice": _with(_slice),
    "flatten": _apply(lambda x: x.reshape(x.shape[0], -1)),
    "reshape": _with(lambda op, x: x.reshape(_shape(op.shape, x))),
    "transpose": _with(lambda op, x: x.permute(op.permutation)),
    "broadcast_to": _with(lambda op, x: x.expand(_shape(op.shape, x))),
    "concat": _with(lambda op, *xs: torch.cat(xs, op.axis)),
    "resize_nearest": _with(_resize_nearest),
}
