"""`torch.ops.addergraph.*`: the adder layer and its two gradients as PyTorch's own custom ops.

That is what autograd, `torch.compile` and `torch.export` know of it: a schema, code for the CPU,
shapes without data, and what the gradient is. Tensors are passed by address: activations in NHWC
memory (`torch.channels_last`) as they are, others are copied into it, filters always.

Equations: `addergraph/ops/contraction/adder2d.py`. Chen et al., CVPR 2020, arXiv:1912.13200, eq. 2,
5, 6 and 13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import ShapeError, UnsupportedError
from ..ir import Array
from ..training.optimizers import SMALLEST_NORM
from . import programs
from .programs import BY_FILTER, BY_INPUT, FORWARD, Window

_WINDOW = "int[] stride, int[] padding, int[] dilation, int groups"
Ints = Sequence[int]


def _window(stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Window:
    one, two, three = ((int(a), int(b)) for a, b in (stride, padding, dilation))
    return Window(one, two, three, int(groups))


# --- what tensors may be --------------------------------------------------------------------------


def require_reachable(name: str, tensor: Tensor) -> None:
    """UnsupportedError for another device than the CPU, and for tensors without strides: of these
    PyTorch would say only that it finds no kernel."""
    if tensor.device.type not in ("cpu", "meta"):
        raise UnsupportedError(
            f"Adder2d: {name} is on {tensor.device}; the compiled kernels run on the CPU: .cpu()"
        )
    if tensor.layout != torch.strided:
        raise UnsupportedError(
            f"Adder2d: {name} is {tensor.layout}; the compiled kernels take dense tensors: "
            ".to_dense()"
        )


def require_reverse_mode(*tensors: Tensor) -> None:
    """UnsupportedError inside `torch.func` transforms and for forward-mode differentiation, in
    which PyTorch takes an op of others for one without a derivative, and gives zeros."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if any(wrapped(t) or forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise UnsupportedError(
            "Adder2d: its gradients (Chen et al. 2020, eq. 5 and 6) are those of backward() alone; "
            "torch.func (grad, jvp, vmap and others) and forward-mode differentiation do not work"
        )


def require_operands(x: Tensor, adder: Tensor, b: Tensor | None, window: Window) -> None:
    """ShapeError for shapes and dtypes that do not fit."""
    operands = {"input": x, "adder": adder} | ({} if b is None else {"b": b})
    for name, tensor in operands.items():
        if tensor.dtype != torch.float32:
            raise ShapeError(
                f"Adder2d: {name} is {_told(tensor)}; expected float32: .float(), and for a whole "
                "network module.float()"
            )
    if x.dim() != 4 or adder.dim() != 4:
        raise ShapeError(
            f"Adder2d: input is {_told(x)} and adder {_told(adder)}; expected four axes each, "
            "[N, C, H, W] and [T, C/groups, I, J]"
        )
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"Adder2d: input {_told(x)} has no pixels; only its batch may be empty")
    outputs, channels, rows, columns = adder.shape
    if x.shape[1] != channels * window.groups or outputs % window.groups:
        raise ShapeError(
            f"Adder2d: input {_told(x)} has {x.shape[1]} channels; a filter {_told(adder)} in "
            f"{window.groups} groups takes {channels * window.groups}, and its outputs have to "
            "divide into the groups"
        )
    if b is not None and tuple(b.shape) != (outputs,):
        raise ShapeError(f"Adder2d: b is {_told(b)}; expected [{outputs}], one for each filter")
    made = window.output_size(x.shape[2:], (rows, columns))
    if made[0] < 1 or made[1] < 1:
        raise ShapeError(
            f"Adder2d: a kernel of {rows}x{columns} with dilation {window.dilation} and padding "
            f"{window.padding} does not fit into an input {_told(x)}"
        )


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _nhwc(tensor: Tensor) -> Array:
    """NHWC of an NCHW tensor: its own memory where that is so laid out."""
    array: Array = tensor.detach().permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _hwio(adder: Tensor) -> Array:
    array: Array = adder.detach().permute(2, 3, 1, 0).contiguous().numpy()
    return array


def _image(like: Tensor, size: Sequence[Any], last: bool) -> Tensor:
    """An empty tensor [N, C, H, W]: channels `last`, in NHWC memory, or in NCHW memory."""
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=form)


# --- the layer ------------------------------------------------------------------------------------


@torch.library.custom_op(
    "addergraph::adder2d",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor adder, Tensor? b, {_WINDOW}, float? eta, bool last) -> Tensor",
)
def adder2d(
    x: Tensor, adder: Tensor, b: Tensor | None, stride: Ints, padding: Ints, dilation: Ints,
    groups: int, eta: float | None, last: bool,
) -> Tensor:  # fmt: skip
    """-sum |X - F| + b, [N,T,OH,OW]. `eta` is for the gradient of `adder`; `last` says what memory
    the result has, and the gradient of x."""
    y = _adder2d_shape(x, adder, b, stride, padding, dilation, groups, eta, True)
    if not y.numel():
        return y if last else y.contiguous()
    operands = [_nhwc(x), _hwio(adder)]
    if b is not None:
        operands.append(b.detach().contiguous().numpy())
    _run(FORWARD, _window(stride, padding, dilation, groups), operands, _nhwc(y))
    return y if last else y.contiguous()


@adder2d.register_fake
def _adder2d_shape(
    x: Tensor, adder: Tensor, b: Tensor | None, stride: Ints, padding: Ints, dilation: Ints,
    groups: int, eta: float | None, last: bool,
) -> Tensor:  # fmt: skip
    window = _window(stride, padding, dilation, groups)
    require_operands(x, adder, b, window)
    rows, columns = window.output_size(x.shape[2:], adder.shape[2:])
    return _image(x, (x.shape[0], adder.shape[0], rows, columns), last)


# --- its gradients --------------------------------------------------------------------------------


@torch.library.custom_op(
    "addergraph::adder2d_grad_input",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor g, Tensor x, Tensor adder, {_WINDOW}, bool last) -> Tensor",
)
def adder2d_grad_input(
    g: Tensor, x: Tensor, adder: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    last: bool,
) -> Tensor:  # fmt: skip
    """sum g clip(F - X, -1, 1), [N,C,H,W]."""
    dx = _image(x, x.shape, True)
    if not dx.numel() or not g.numel():
        return _image(x, x.shape, last).zero_()
    window = _window(stride, padding, dilation, groups)
    _run(BY_INPUT, window, [_nhwc(g), _nhwc(x), _hwio(adder)], _nhwc(dx))
    return dx if last else dx.contiguous()


@adder2d_grad_input.register_fake
def _grad_input_shape(
    g: Tensor, x: Tensor, adder: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    last: bool,
) -> Tensor:  # fmt: skip
    return _image(x, x.shape, last)


@torch.library.custom_op(
    "addergraph::adder2d_grad_filter",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor g, Tensor x, Tensor adder, {_WINDOW}) -> Tensor",
)
def adder2d_grad_filter(
    g: Tensor, x: Tensor, adder: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """sum g (X - F), [T,C/groups,I,J], contiguous."""
    if not g.numel():
        return torch.zeros(adder.shape)
    outputs, channels, rows, columns = adder.shape
    df = torch.empty((rows, columns, channels, outputs))
    window = _window(stride, padding, dilation, groups)
    _run(BY_FILTER, window, [_nhwc(g), _nhwc(x), _hwio(adder)], df.numpy())
    return df.permute(3, 2, 0, 1).contiguous()


@adder2d_grad_filter.register_fake
def _grad_filter_shape(
    g: Tensor, x: Tensor, adder: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    return torch.empty(adder.shape, dtype=adder.dtype, device=adder.device)


def _run(kind: str, window: Window, inputs: list[Array], output: Array) -> None:
    programs.run(kind, window, inputs, output, torch.get_num_threads())


# --- autograd -------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, adder, _, stride, padding, dilation, groups, ctx.eta, ctx.last = inputs
    ctx.window = (stride, padding, dilation, groups)
    ctx.save_for_backward(x, adder)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, adder = ctx.saved_tensors
    by_x, by_adder, by_b, *_ = ctx.needs_input_grad
    g = g.contiguous(memory_format=torch.channels_last)  # for both gradients at once
    dx = adder2d_grad_input(g, x, adder, *ctx.window, ctx.last) if by_x else None
    df = adder2d_grad_filter(g, x, adder, *ctx.window) if by_adder else None
    if df is not None and ctx.eta is not None:
        df = df / df.norm().clamp(min=SMALLEST_NORM) * (ctx.eta * math.sqrt(adder.numel()))
    db = g.sum((0, 2, 3)) if by_b else None
    return dx, df, db, *[None] * 6


def _refuse_second(ctx: Any, *_: Tensor) -> NoReturn:
    raise UnsupportedError(
        "Adder2d has no second derivative: its gradients (Chen et al. 2020, eq. 5 and 6) are no "
        "derivatives of a function. Leave out create_graph=True, or detach what is behind the layer"
    )


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Nothing is kept for a gradient that there is not."""


adder2d.register_autograd(_backward, setup_context=_keep)
for _gradient in (adder2d_grad_input, adder2d_grad_filter):
    _gradient.register_autograd(_refuse_second, setup_context=_keep_nothing)


# --- what an export shall show --------------------------------------------------------------------


@torch.library.custom_op(
    "addergraph::dropout",
    mutates_args=(),
    schema="(Tensor x, float rate) -> Tensor",
)
def dropout(x: Tensor, rate: float) -> Tensor:
    """x, as a dropout has it in evaluation: exports leave those of PyTorch out."""
    return x.clone()


@dropout.register_fake
def _dropout_shape(x: Tensor, rate: float) -> Tensor:
    return torch.empty_like(x)
