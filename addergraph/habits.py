"""Names that people bring along from Keras, PyTorch and NumPy, each with what does it here: those
for which the nearest name is not the right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Self

from .errors import DataError, GraphError, UnknownNameError, nearest

_EARLY = "fit(..., patience=3, keep_best=True) stops early and ends with the best weights"
_RATE = "fit(learning_rate=...) takes a number, a schedule or a function of the epoch"
_HELD_OUT = "fit(x, y, x_val, y_val) takes the samples to validate on"
MODULES: Mapping[str, Mapping[str, str]] = {
    "addergraph": {
        "Sequential": "Model() is a network, model.add(layer) appends to it",
        "Input": "a function of tensors is a network: Model(net), and its arguments the inputs",
        "load_model": "Model.load(path) reads what model.save(path) wrote",
    },
    "addergraph.training": {
        "EarlyStopping": _EARLY,
        "ModelCheckpoint": 'fit(..., checkpoint="run", resume=True) writes and reads checkpoints',
        "LearningRateScheduler": _RATE,
        "ReduceLROnPlateau": _RATE,
    },
}
FIT = {
    "validation_data": _HELD_OUT,
    "validation_split": f"{_HELD_OUT}, and addergraph train has --validation-split",
    "early_stopping": _EARLY,
    "loss": 'the loss is one of the model: model.loss = "mean_squared_error"',
    "loss_weights": "they are the model's: model.loss_weights = {...}",
    "lr": "learning_rate= is its name",
}

ATTRIBUTES = {  # of layers
    "filters": "output_channels", "units": "output_channels", "out_channels": "output_channels",
    "out_features": "output_channels", "use_bias": "bias", "dilation_rate": "dilation",
    "strides": "stride", "eps": "epsilon", "p": "rate", "alpha": "slope",
    "negative_slope": "slope", "scale_factor": "size", "factors": "size", "activation": "function",
    "depth_multiplier": "multiplier", "adaptive_eta": "eta", "target_shape": "shape", "dim": "axis",
}  # fmt: skip
_START = "weights start as docs/networks.md says; for others assign model.weights"
_PENALTY = "for a penalty of weights give the optimizer weight_decay"
_CHANNELS = "leave it out: the input says its channels"
ELSEWHERE = {  # what is no attribute of a layer here, and where it is said instead
    "activation": 'put layers.Activation("relu") behind this layer',
    "input_shape": "give it to Model(input_shape=...)", "data_format": "images are NHWC",
    "padding_mode": "padding is zeros", "dtype": "layers compute in f32",
    "kernel_initializer": _START, "bias_initializer": _START, "depthwise_initializer": _START,
    "kernel_regularizer": _PENALTY, "bias_regularizer": _PENALTY,
    "in_channels": _CHANNELS, "in_features": _CHANNELS, "num_features": _CHANNELS,
}  # fmt: skip
LAYERS = {
    "ReLU": 'Activation("relu")', "ReLU6": 'Activation("relu6")',
    "LeakyReLU": 'Activation("leaky_relu")', "Sigmoid": 'Activation("sigmoid")',
    "Tanh": 'Activation("tanh")', "Linear": "Dense", "Upsample": "UpSampling",
    "GlobalAveragePooling2D": "GlobalAvgPool", "AdaptiveAvgPool2d": "GlobalAvgPool",
    "Input": "an argument of the function: Model(net)",
    "AveragePooling2D": "AvgPool", "MaxPooling2D": "MaxPool", "BatchNormalization": "BatchNorm",
}  # fmt: skip
LOSSES = {
    "mse": "mean_squared_error", "l2": "mean_squared_error", "mae": "mean_absolute_error",
    "l1": "mean_absolute_error", "bce": "binary_cross_entropy",
    "binary_crossentropy": "binary_cross_entropy", "cross_entropy": "cat_cross_entropy",
    "categorical_crossentropy": "cat_cross_entropy",
    "sparse_categorical_crossentropy": "cat_cross_entropy",
}  # fmt: skip
OPS = {  # of NumPy, PyTorch and Python
    "mean": "ops.reduce_mean", "sum": "ops.reduce_sum", "max": "ops.reduce_max",
    "amax": "ops.reduce_max", "where": "ops.select", "concatenate": "ops.concat",
    "stack": "ops.concat", "T": "ops.transpose", "permute": "ops.transpose", "astype": "ops.cast",
    "view": "ops.reshape", "ravel": "ops.flatten", "absolute": "ops.abs", "negative": "ops.neg",
    "square": "x * x", "power": "x ** 2", "pow": "x ** 2", "size": "x.shape", "ndim": "x.shape",
    "len": "x.shape", "getitem": "ops.slice", "iter": "ops.slice", "floordiv": "ops.div",
    "ge": "ops.greater", "le": "ops.greater", "rpow": "ops.exp", "and": "ops.mul",
    "rand": "ops.mul", "or": "ops.maximum", "ror": "ops.maximum", "invert": "ops.select",
    "eq": "x > y, or x is y for one and the same", "ne": "x > y, or x is not y",
    "setitem": "ops.concat, or ops.select: tensors do not change",
}  # fmt: skip


def refuse(module: str, name: str) -> None:
    """GraphError, which an import passes on as it is, for a habit of this module."""
    if name in MODULES[module]:
        raise GraphError(f"{module} has no {name}: {MODULES[module][name]}")


def require_none(others: Iterable[str], known: Iterable[str]) -> None:
    """DataError for arguments that `fit` does not have, `known` being those that it has."""
    for name in others:
        hint = f": {FIT[name]}" if name in FIT else nearest(name, known)
        raise DataError(f'fit has no argument "{name}"{hint}')


class Missing:
    """An attribute that there is not: to read it and to assign it are both an UnknownNameError,
    which says what there is instead."""

    def __init__(self, instead: str) -> None:
        self._instead, self._name = instead, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__} has no {name}"

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        return self if instance is None else self._refuse()

    def __set__(self, instance: object, value: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnknownNameError(f"{self._name}: {self._instead}")
