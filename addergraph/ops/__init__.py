"""Every op, and the function that applies it to symbolic tensors: `ops.relu(x)`.

Importing this package defines all ops and so closes the registry. The functions stand in for the
modules of the same name: `ops.conv2d` is the function, `addergraph.ops.conv2d` the module to
import from.
"""

from typing import TYPE_CHECKING, NoReturn

from ..errors import UnknownNameError, nearest
from .adder2d import adder2d
from .adder_dense import adder_dense
from .argmax import argmax
from .avg_pool2d import avg_pool2d
from .batch_norm import batch_norm, batch_norm_statistics
from .binary import add, div, maximum, minimum, mul, sub
from .broadcast_to import broadcast_to
from .cast import cast
from .clip import clip
from .concat import concat
from .conv2d import conv2d
from .dense import dense, matmul
from .fake_quantize import fake_quantize, fake_quantize_filter
from .full import constant, full
from .fused import Fused
from .global_avg_pool import global_avg_pool
from .greater import greater
from .max_pool2d import max_pool2d
from .mean_squared_error import mean_squared_error
from .pad import pad
from .reduce import reduce_max, reduce_mean, reduce_sum
from .relu import relu
from .requantize import requantize_multiply, requantize_shift
from .reshape import flatten, reshape
from .select import select
from .slice import slice
from .softmax import softmax
from .softmax_cross_entropy import softmax_cross_entropy
from .sum_pool2d import sum_pool2d
from .transpose import transpose
from .unary import abs, exp, log, neg, sqrt

__all__ = [
    "Fused",
    "abs",
    "add",
    "adder2d",
    "adder_dense",
    "argmax",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_statistics",
    "broadcast_to",
    "cast",
    "clip",
    "concat",
    "constant",
    "conv2d",
    "dense",
    "div",
    "exp",
    "fake_quantize",
    "fake_quantize_filter",
    "flatten",
    "full",
    "global_avg_pool",
    "greater",
    "log",
    "matmul",
    "max_pool2d",
    "maximum",
    "mean_squared_error",
    "minimum",
    "mul",
    "neg",
    "pad",
    "reduce_max",
    "reduce_mean",
    "reduce_sum",
    "relu",
    "requantize_multiply",
    "requantize_shift",
    "reshape",
    "select",
    "slice",
    "softmax",
    "softmax_cross_entropy",
    "sqrt",
    "sub",
    "sum_pool2d",
    "transpose",
]

if not TYPE_CHECKING:  # a type checker shall still see misspelled names itself

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnknownNameError(
            f'unknown op "{name}"{nearest(name, __all__)}; docs/ops.md lists them'
        )
