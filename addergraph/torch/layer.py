"""The adder layer as a PyTorch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import border
from ..errors import DataError, ShapeError
from ..ir.attributes import Pair, flag, integer, pair, real
from .custom_ops import adder2d, require_reachable, require_reverse_mode

_WHERE = "Adder2d"


class Adder2d(nn.Module):
    """Y[n,t,h,w] = - sum_{c,i,j} |X[n,c, s*h + d*i - p, s*w + d*j - p] - F[t,c,i,j]|  (+ b[t]).

    Constructor and state as of the authors' `adder2d`, which it replaces:

        input_channel, output_channel  C and T
        kernel_size, stride, padding   integers, or pairs (rows, columns); padding is zeros on both
                                       sides, and a padded tap contributes -|F|
        bias                           a parameter `b` f32[T], which starts as U(0, 1)
        dilation, groups               as of torch.nn.Conv2d
        eta                            the layer-adaptive learning rate; None for the plain gradient

    The filter is the parameter `adder`, f32[T, C/groups, I, J] ~ N(0, 1). x f32[N,C,H,W] ->
    f32[N,T,OH,OW], in memory laid out as that of x: `torch.channels_last` is passed to the kernels
    as it is, anything else is copied into that form once, and results are copied back.

    Gradients are the paper's: dF = sum g (X - F), dX = sum g clip(F - X, -1, 1). As in the authors'
    layer, backward scales dF by eta sqrt(numel F) / max(norm2(dF), 1e-12), unless eta is None. They
    have no derivatives: a second backward is an UnsupportedError.

    Calls use as many threads as `torch.get_num_threads()` says; results do not depend on it. Under
    `torch.autocast` inputs are taken as f32. Raises ShapeError for inputs of another rank or dtype
    or other channels, UnsupportedError for tensors that are not on the CPU or not dense, DataError
    for what is no tensor. Source: Chen et al., CVPR 2020, arXiv:1912.13200, eq. 2, 5, 6 and 13.
    """

    def __init__(
        self,
        input_channel: int,
        output_channel: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = False,
        *,
        dilation: int | Pair = 1,
        groups: int = 1,
        eta: float | None = 0.2,
    ) -> None:
        super().__init__()
        self.input_channel = integer(_WHERE, "input_channel", input_channel, 1)
        self.output_channel = integer(_WHERE, "output_channel", output_channel, 1)
        self.kernel_size = pair(_WHERE, "kernel_size", kernel_size)
        self.stride, self.dilation = (
            pair(_WHERE, name, value)
            for name, value in (("stride", stride), ("dilation", dilation))
        )
        self.padding = pair(_WHERE, "padding", padding, 0)
        self.groups = integer(_WHERE, "groups", groups, 1)
        self.eta = None if eta is None else real(_WHERE, "eta", eta, 0.0)
        self.bias = flag(_WHERE, "bias", bias)
        if self.input_channel % self.groups or self.output_channel % self.groups:
            raise ShapeError(
                f"Adder2d: {self.input_channel} and {self.output_channel} channels do not divide "
                f"into {self.groups} groups"
            )
        taken = self.input_channel // self.groups
        shape = (self.output_channel, taken, *self.kernel_size)
        self.adder = nn.Parameter(torch.empty(shape, dtype=torch.float32))
        if self.bias:
            self.b = nn.Parameter(torch.empty(self.output_channel, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew. The filter takes two draws of the generator, as in the
        authors' layer, so that a seed gives the same network."""
        with torch.no_grad():
            self.adder.normal_().normal_()
            if self.bias:
                self.b.uniform_()

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise DataError(f"Adder2d: expected a torch.Tensor, found {border.shown(x)}")
        require_reachable("input", x)
        require_reachable("adder", self.adder)
        if not torch.compiler.is_compiling():
            require_reverse_mode(x, self.adder)
        if torch.is_autocast_enabled("cpu"):
            x = x.float()
        last = False
        if x.dim() == 4:  # converted once, for the layer and its gradients
            last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            x = x.contiguous(memory_format=torch.channels_last)
        made: Tensor = adder2d(
            x, self.adder, self.b if self.bias else None, self.stride, self.padding,
            self.dilation, self.groups, self.eta, last,
        )  # fmt: skip
        return made

    def extra_repr(self) -> str:
        shown = [f"{self.input_channel}, {self.output_channel}, kernel_size={self.kernel_size}"]
        plain: dict[str, object] = {
            "stride": (1, 1), "padding": (0, 0), "bias": False, "dilation": (1, 1), "groups": 1,
            "eta": 0.2,
        }  # fmt: skip
        for name, usual in plain.items():
            if (found := getattr(self, name)) != usual:
                shown.append(f"{name}={found}")
        return ", ".join(shown)
