"""Which kernels compute the gradients of contractions: those of depthwise layers, or of all."""

from __future__ import annotations

from addergraph.ops.contraction.adder2d import Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.adder_dense import AdderDenseGradFilter, AdderDenseGradInput
from addergraph.ops.contraction.conv2d import Conv2dGradFilter, Conv2dGradInput

from .. import Call, Kernel, kernel
from ..forward.depthwise import serves
from .depthwise import DepthwiseFilterGradient, DepthwiseInputGradient
from .filter import FilterGradientKernel
from .input import InputGradientKernel


@kernel(Adder2dGradInput, AdderDenseGradInput, Conv2dGradInput)
def input_gradient(call: Call) -> Kernel:
    every = InputGradientKernel(call)
    return DepthwiseInputGradient(call) if serves(every.s, call.target) else every


@kernel(Adder2dGradFilter, AdderDenseGradFilter, Conv2dGradFilter)
def filter_gradient(call: Call) -> Kernel:
    every = FilterGradientKernel(call)
    return DepthwiseFilterGradient(call) if serves(every.s, call.target) else every
