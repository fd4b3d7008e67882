"""The adder layer as its paper describes it, in plain PyTorch of any precision: what ours is held
against. Chen et al., CVPR 2020, eq. 2, 5, 6 and 13."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class _Distances(torch.autograd.Function):
    """y[t,p] = - sum_k |x[k,p] - f[t,k]|, filter by filter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor) -> Tensor:
        ctx.save_for_backward(x, f)
        return torch.stack([-(x - row[:, None]).abs().sum(0) for row in f])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, f = ctx.saved_tensors
        df = torch.stack([(x - row[:, None]) @ up for row, up in zip(f, g, strict=True)])
        dx = torch.zeros_like(x)
        for row, up in zip(f, g, strict=True):
            dx += (row[:, None] - x).clamp(-1, 1) * up
        return dx, df


class Published(nn.Module):
    """The arguments and the state of `addergraph.torch.Adder2d`."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0,
        bias: bool = False, *, dilation: int = 1, groups: int = 1, eta: float | None = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window = {"stride": stride, "padding": padding, "dilation": dilation}
        self.groups, self.eta = groups, eta
        self.adder = nn.Parameter(torch.randn(outputs, inputs // groups, size, size))
        self.b = nn.Parameter(torch.rand(outputs)) if bias else None
        if eta is not None:
            self.adder.register_hook(self._adapted)

    def _adapted(self, df: Tensor) -> Tensor:
        assert self.eta is not None
        return df * (self.eta * math.sqrt(df.numel()) / max(float(df.norm()), 1e-12))

    def forward(self, x: Tensor) -> Tensor:
        size = self.adder.shape[-1]
        taps = nn.functional.unfold(x, size, **self.window)  # [N, C I J, P]
        rows = self._rows(x.shape[2])
        columns = taps.transpose(0, 1).flatten(1)  # [C I J, N P]
        parts = zip(columns.chunk(self.groups), self.adder.chunk(self.groups), strict=True)
        y = torch.cat([_Distances.apply(c, f.flatten(1)) for c, f in parts])
        image = y.unflatten(1, (len(x), rows, -1)).transpose(0, 1)
        return image if self.b is None else image + self.b[:, None, None]

    def _rows(self, height: int) -> int:
        w = self.window
        extent = w["dilation"] * (self.adder.shape[-1] - 1) + 1
        return int((height + 2 * w["padding"] - extent) // w["stride"] + 1)
