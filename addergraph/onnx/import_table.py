"""The operators of ONNX that are read, and what each becomes here.

An entry says what makes the outputs of a node (`make`), what that is for the documentation, which
inputs have to be numbers of the file, and what is computed at once where all of them are.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..ir.types import f32, i32
from . import import_constants as constants
from . import import_integers as integers
from . import import_movement as movement
from . import import_pointwise as pointwise
from . import import_products as products
from . import import_reductions as reductions
from . import import_resize as resize
from . import import_windows as windows
from .import_call import Operator
from .import_pointwise import binary, several, unary

OPERATORS: dict[str, Operator] = {
    # windows
    "Conv": Operator(windows.conv, "`conv2d`; of sequences on images of one row"),
    "MaxPool": Operator(windows.max_pool, "`max_pool2d`; with dilations `maximum` of slices"),
    "AveragePool": Operator(
        windows.average_pool, "`avg_pool2d`, and `mul` where padding does not count"
    ),
    "GlobalAveragePool": Operator(windows.global_average_pool, "`global_avg_pool`"),
    "GlobalMaxPool": Operator(windows.global_max_pool, "`reduce_max`"),
    # products
    "Gemm": Operator(products.gemm, "`dense`; alpha and beta as `mul`"),
    "MatMul": Operator(
        products.matmul, "`dense`; `conv2d` of one pixel; of several matrices `mul`, `reduce_sum`"
    ),
    # integers
    "QuantizeLinear": Operator(
        integers.quantize_linear, "`div`, `clip`, `add`, `sub`, `cast`", (1, 2)
    ),
    "DequantizeLinear": Operator(
        integers.dequantize_linear, "`cast`, `sub`, `mul`", (1, 2), integers.dequantized
    ),
    "ConvInteger": Operator(integers.conv_integer, "`conv2d` of bytes", (1, 2, 3)),
    "MatMulInteger": Operator(integers.matmul_integer, "`dense` of bytes", (1, 2, 3)),
    "QLinearConv": Operator(
        integers.q_linear_conv, "`conv2d` of bytes, then as QuantizeLinear", tuple(range(1, 9))
    ),
    "QLinearMatMul": Operator(
        integers.q_linear_matmul, "`dense` of bytes, then as QuantizeLinear", tuple(range(1, 8))
    ),
    # layers
    "BatchNormalization": Operator(pointwise.batch_normalization, "`batch_norm`"),
    "Dropout": Operator(pointwise.dropout, "what enters; in training `dropout`", (1, 2)),
    # pointwise
    "Relu": Operator(unary(ops.relu), "`relu`"),
    "LeakyRelu": Operator(pointwise.leaky_relu, "`leaky_relu`"),
    "PRelu": Operator(pointwise.prelu, "`mul`, `greater`, `select`"),
    "Clip": Operator(pointwise.clip, "`clip`, `relu`, `relu6`, or `maximum` and `minimum`"),
    "Sigmoid": Operator(unary(ops.sigmoid), "`sigmoid`"),
    "HardSigmoid": Operator(pointwise.hard_sigmoid, "`mul`, `add`, `clip`"),
    "HardSwish": Operator(pointwise.hard_swish, "`mul`, `add`, `clip`, `mul`"),
    "Swish": Operator(pointwise.swish, "`sigmoid`, `mul`"),
    "Tanh": Operator(unary(ops.tanh), "`tanh`"),
    "Abs": Operator(unary(ops.abs, f32, i32), "`abs`"),
    "Neg": Operator(unary(ops.neg, f32, i32), "`neg`", fold=constants.negative),
    "Exp": Operator(unary(ops.exp), "`exp`"),
    "Log": Operator(unary(ops.log), "`log`"),
    "Sqrt": Operator(unary(ops.sqrt), "`sqrt`"),
    "Reciprocal": Operator(pointwise.reciprocal, "`div`"),
    "Add": Operator(
        binary(ops.add, f32, i32, bytes_as=i32), "`add`", fold=constants.arithmetic(np.add)
    ),
    "Sub": Operator(
        binary(ops.sub, f32, i32, bytes_as=i32), "`sub`", fold=constants.arithmetic(np.subtract)
    ),
    "Mul": Operator(
        binary(ops.mul, f32, i32, bytes_as=i32), "`mul`", fold=constants.arithmetic(np.multiply)
    ),
    "Div": Operator(
        binary(ops.div, f32, bytes_as=f32), "`div`", fold=constants.arithmetic(constants.quotient)
    ),
    "Max": Operator(several(ops.maximum, f32, i32), "`maximum`"),
    "Min": Operator(several(ops.minimum, f32, i32), "`minimum`"),
    "Sum": Operator(several(ops.add, f32), "`add`"),
    "Greater": Operator(binary(ops.greater, f32, i32, bytes_as=i32), "`greater`"),
    "Less": Operator(pointwise.less, "`greater`"),
    "Where": Operator(movement.where, "`select`"),
    "Cast": Operator(pointwise.cast, "`cast`", fold=constants.cast),
    "CastLike": Operator(pointwise.cast_like, "`cast`", fold=constants.cast_like),
    "Pow": Operator(pointwise.power, "`mul`, `sqrt`", (1,)),
    # reductions
    "Softmax": Operator(reductions.softmax, "`softmax`"),
    "ArgMax": Operator(reductions.argmax, "`argmax`, whose result is i32"),
    "ReduceMean": Operator(reductions.reduction(ops.reduce_mean, f32), "`reduce_mean`", (1,)),
    "ReduceSum": Operator(reductions.reduction(ops.reduce_sum, f32, i32), "`reduce_sum`", (1,)),
    "ReduceMax": Operator(reductions.reduce_max, "`reduce_max`", (1,)),
    # movement
    "Concat": Operator(movement.concat, "`concat`", fold=constants.concat),
    "Split": Operator(movement.split, "`slice`", (1,)),
    "Slice": Operator(movement.slice_, "`slice`, `concat`", (1, 2, 3, 4), constants.slice_),
    "Gather": Operator(movement.gather, "`slice`, `concat`", (1,), constants.gather),
    "Flatten": Operator(movement.flatten, "`flatten`, `reshape`", fold=constants.flatten),
    "Reshape": Operator(movement.reshape, "`reshape`, `flatten`", (1,), constants.reshape),
    "Squeeze": Operator(movement.squeeze, "`reshape`", (1,), constants.squeeze),
    "Unsqueeze": Operator(movement.unsqueeze, "`reshape`", (1,), constants.unsqueeze),
    "Expand": Operator(movement.expand, "`broadcast_to`", (1,), constants.expand),
    "Transpose": Operator(
        movement.transpose, "another layout; `transpose`", (), constants.transpose
    ),
    "Pad": Operator(movement.pad, "`pad`; other modes `slice`, `concat`", (1, 2, 3)),
    "Resize": Operator(resize.resize, "`resize_nearest`; `slice`, `concat`", (1, 2, 3)),
    "Upsample": Operator(resize.upsample, "`resize_nearest`; `slice`, `concat`", (1,)),
    "Identity": Operator(movement.identity, "what enters", (), constants.identity),
    # numbers of the file
    "Constant": Operator(constants.constant, "numbers"),
    "ConstantOfShape": Operator(constants.constant_of_shape, "numbers", (0,)),
    "Shape": Operator(constants.shape, "numbers"),
    "Size": Operator(constants.size, "numbers"),
    "Range": Operator(constants.range_, "numbers", (0, 1, 2)),
    "Floor": Operator(constants.floor, "numbers", (0,)),
}  # fmt: skip

INSTEAD = {  # of operators that are not read: what would do
    "ConvTranspose": "Resize (nearest) and a Conv, which upsample as well",
    "InstanceNormalization": "BatchNormalization",
    "LayerNormalization": "BatchNormalization",
    "GroupNormalization": "BatchNormalization",
    "Gelu": "Relu, HardSwish or Sigmoid",
    "Elu": "LeakyRelu", "Selu": "LeakyRelu", "Celu": "LeakyRelu", "Softplus": "Relu",
    "Mish": "HardSwish", "LogSoftmax": "Softmax", "LpPool": "AveragePool",
    "If": "a network without branches: fold its condition before it is exported",
    "Loop": "a network without loops: unroll it before it is exported",
    "Scan": "a network without loops: unroll it before it is exported",
    "LSTM": "a network without recurrence", "GRU": "a network without recurrence",
    "RNN": "a network without recurrence",
    "DynamicQuantizeLinear": "QuantizeLinear, whose scale is calibrated before",
    "BatchNorm": "BatchNormalization",
}  # fmt: skip
