"""Every op, and the function that applies it to symbolic tensors: `ops.relu(x)`.

Importing this package defines all ops and so closes the registry. An op's
folder is its kind: `ops.conv2d` is the function, `addergraph.ops.contraction.conv2d` its module.
"""

from typing import TYPE_CHECKING, NoReturn

from ..errors import UnknownNameError, nearest
from .contraction.adder2d import adder2d
from .contraction.adder_dense import adder_dense
from .contraction.conv2d import conv2d
from .contraction.dense import dense, matmul
from .fused import Fused
from .movement.broadcast_to import broadcast_to
from .movement.concat import concat
from .movement.pad import pad
from .movement.reshape import flatten, reshape
from .movement.slice import slice
from .movement.transpose import transpose
from .pointwise.batch_norm import batch_norm, batch_norm_statistics
from .pointwise.binary import add, div, maximum, minimum, mul, sub
from .pointwise.cast import cast
from .pointwise.clip import clip
from .pointwise.fake_quantize import fake_quantize, fake_quantize_filter
from .pointwise.full import constant, full
from .pointwise.greater import greater
from .pointwise.relu import relu
from .pointwise.requantize import requantize_multiply, requantize_shift
from .pointwise.select import select
from .pointwise.unary import abs, exp, log, neg, sqrt
from .reduction.argmax import argmax
from .reduction.avg_pool2d import avg_pool2d
from .reduction.global_avg_pool import global_avg_pool
from .reduction.max_pool2d import max_pool2d
from .reduction.mean_squared_error import mean_squared_error
from .reduction.reduce import reduce_max, reduce_mean, reduce_sum
from .reduction.softmax import softmax
from .reduction.softmax_cross_entropy import softmax_cross_entropy
from .reduction.sum_pool2d import sum_pool2d

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
