"""The public functions with arguments that work, and the odd ones that each argument is given.

`cases()` has every public name of `ag`, and of its packages of layers, ops (`borders_ops.py`),
data, training and the zoo, classes with their methods; `test_border.py` puts each of `odd()` in
place of each argument.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Model, data, layers, ops, training, zoo
from addergraph.data.images import bring, read_image
from addergraph.ir.trace import Tensor
from addergraph.training.recipes import find
from tests.borders_ops import op_cases
from tests.odd import Case, image

MODULES: dict[str, ModuleType] = {
    "ag": ag, "layers": layers, "ops": ops, "data": data, "training": training, "zoo": zoo,
}  # fmt: skip
NOT_CALLED = {  # what they have beside functions and classes; and what stands for others
    "ag.errors", "ag.layers", "ag.ops", "ag.__version__", "ag.AdderGraphError",
    "layers.ACTIVATIONS", "layers.LAYERS", "data.digits", "zoo.NETWORKS", "layers.Layer",
    "layers.unknown_layer",
}  # fmt: skip

# --- what works -----------------------------------------------------------------------------------

TYPE = ag.tensor("f32", ("N", 6, 6, 2))
X, Y = image() / np.float32(7), np.arange(5) % 3
META = X[:, 0, 0, :1] + np.arange(3, dtype=np.float32)


@cache
def folder() -> Path:
    """What is written here goes when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="borders"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def net() -> Model:
    model = Model(input_shape=(6, 6, 2), name="net")
    model.add(layers.Conv(2, kernel_size=3))
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    return model


def two_ends(image: Tensor, meta: Tensor) -> dict[str, Tensor]:
    joined = ops.concat([layers.Dense(2)(ops.flatten(image)), meta])
    return {"size": layers.Dense(2)(joined), "a": layers.Dense(3)(joined)}


def several(**options: Any) -> Model:
    given = {"input_shape": ((6, 6, 2), (3,)), "loss": ("huber", "cat_cross_entropy")}
    return Model(two_ends, **given | options)


@cache
def built() -> Model:
    model = net()
    model.build((6, 6, 2))
    return model


@cache
def with_relu() -> Model:
    model = Model(input_shape=(6, 6, 2), name="net")
    for layer in (layers.Conv(2, kernel_size=3), layers.Activation("relu"), layers.Flatten()):
        model.add(layer)
    model.build((6, 6, 2))
    return model


@cache
def program() -> Any:
    return ag.compile(built())


@cache
def by_layers() -> Any:
    return ag.compile_layers(built())


@cache
def graph() -> ag.Graph:
    return ag.trace(lambda x, f: ops.relu(ops.adder2d(x, f)), TYPE, ag.tensor("f32", (3, 3, 2, 4)))


@cache
def quantized() -> Any:
    return ag.quantize(built(), X)


@cache
def has_torch() -> bool:
    return find_spec("torch") is not None


def _module() -> Any:
    """A module of PyTorch's, where that is installed."""
    return ag.to_torch(built()) if has_torch() else None


def _tensor() -> Any:
    return import_module("torch").zeros(2, 2, 6, 6) if has_torch() else None


@cache
def stored() -> Path:
    path = folder() / "m.safetensors"
    built().save(path)
    return path


@cache
def exported() -> Path:
    path = folder() / "library"
    program().export(path, shared=False)
    return path


@cache
def archive() -> Path:
    path = folder() / "xy.npz"
    np.savez(path, x=X, y=Y)
    return path


def _fit(**given: object) -> object:
    return net().fit(given.pop("x"), given.pop("y"), **given)  # type: ignore[arg-type]


def _model_cases() -> Iterator[Case]:
    labels = {"x": X, "y": Y}
    yield Case("ag.Model", Model, {
        "net": None, "input_shape": (6, 6, 2), "loss": None, "loss_name": "mean_squared_error",
        "name": "m", "seed": 1, "loss_weights": None,
    })  # fmt: skip
    yield Case("ag.Model, several", several, {
        "input_shape": {"image": (6, 6, 2), "meta": (3,)}, "loss": {"size": "huber", "a": "huber"},
        "loss_weights": {"size": 0.5}, "preprocessing": None,
    })  # fmt: skip
    yield Case("ag.Model.add", net().add, {"layer": layers.Flatten()})
    yield Case("ag.Model.build", lambda **k: net().build(**k), {"input_shape": (6, 6, 2)})
    yield Case("ag.Model.graph", built().graph, {"training": False, "batch": 2})
    yield Case("ag.Model.weights", _set_weights, {"weights": built().weights})
    yield Case("ag.Model.weights, one", _set_one, {"array": built().weights["dense1.b"]})
    yield Case("ag.Model.restore", lambda **k: net().restore(**k), {"graph": built().graph(False)})
    yield Case("ag.Model.attach", lambda **k: net().attach(**k), {"views": built().weights})
    yield Case("ag.Model.rounded", lambda **k: net().rounded(**k), {"rounding": {}})
    yield Case("ag.Model.freeze", lambda name: net().freeze(name), {"name": "dense1"})
    yield Case("ag.Model.unfreeze", lambda name: net().unfreeze(name), {"name": "d*"})
    yield Case("ag.Model.holding", lambda **k: net().holding(**k), {"frozen": ["dense1.f"]})
    yield Case("ag.Model.with_classes", lambda **k: net().with_classes(**k), {
        "count": 2, "names": None, "seed": 1,
    })  # fmt: skip
    yield Case("ag.Model.derived", lambda **k: built().derived(**k), {
        "network": built().layers, "replay": None,
    })  # fmt: skip
    yield Case("ag.Model.fit", _fit, {
        **labels, "x_val": X, "y_val": Y, "epochs": 1, "batch_size": 2, "learning_rate": 0.1,
        "optimizer": training.SGD(), "label_smoothing": 0.1, "gradient": "sign",
        "augment": data.Augment(1), "normalize": data.Normalize((0, 0), (1, 1)), "shuffle": True,
        "seed": 0, "patience": 1, "keep_best": True, "checkpoint": None, "checkpoint_steps": 0,
        "resume": False, "engine": "reference", "threads": 1, "verbose": 0,
        "callbacks": [training.Callback()], "sparsity": 0.0, "sparsity_end": 0.5,
    }, slow=True)  # fmt: skip
    yield Case("ag.Model.train_step", lambda **k: net().train_step(**k), {
        "batch": 2, "optimizer": training.SGD(), "label_smoothing": 0.1, "gradient": "sign",
        "engine": "reference", "threads": 1,
    })  # fmt: skip
    step = net().train_step(5, engine="reference")
    yield Case("training step", step, {**labels, "learning_rate": 0.1})
    engine = {"engine": "native", "threads": 1}
    both = {"x": {"image": X, "meta": META}, "y": {"size": META[:, :2], "a": Y}}
    yield Case("ag.Model.fit, several", lambda **k: several().fit(**k), {
        **both, "x_val": (X, META), "y_val": (META[:, :2], Y), "epochs": 1, "verbose": 0,
        "engine": "reference", "augment": data.Augment(1),
    }, slow=True)  # fmt: skip
    yield Case("ag.Model.evaluate, several", several().evaluate, {**both, "engine": "reference"})
    yield Case("ag.Model.predict, several", several().predict, {"x": (X, META)})
    yield Case("ag.Model.inputs", several().inputs, {"x": (X, META), "known": True})
    yield Case("ag.Model.evaluate", built().evaluate, {**labels, **engine})
    yield Case("ag.Model.predict", built().predict, {"x": X, **engine})
    yield Case("ag.Model.prepare", built().prepare, {"samples": 5, "threads": 1})
    yield Case("ag.Model.save", built().save, {"path": folder() / "saved.safetensors"})
    yield Case("ag.Model.load", Model.load, {"path": stored(), "loss": "huber"})


def _set_weights(weights: Any) -> None:
    net().weights = weights


def _set_one(array: Any) -> None:
    net().weights = built().weights | {"dense1.b": array}


def _graph_cases() -> Iterator[Case]:
    weights = {"f": np.ones((3, 3, 2, 4), np.float32)}
    g = ag.parse(PARAMETERS)
    yield Case("ag.compile", ag.compile, {
        "graph": g, "weights": weights, "batch": 2, "target": "host", "tune_for": "generic",
        "threads": 1, "state": None, "cache": True, "tune": False, "multiplication_free": False,
        "observers": (),
    })  # fmt: skip
    yield Case("ag.compile, weights", lambda f: ag.compile(g, weights={"f": f}), weights)
    yield Case("ag.compile_layers", ag.compile_layers, {
        "graph": g, "weights": weights, "target": "host", "threads": 1
    })  # fmt: skip
    learning = ag.DeviceTraining(batch=4)
    yield Case("ag.DeviceTraining", ag.DeviceTraining, {
        "batch": 4, "optimizer": training.SGD(), "label_smoothing": 0.1, "gradient": "sign",
        "seed": 0,
    })  # fmt: skip
    yield Case("ag.DeviceTraining.of_recipe", ag.DeviceTraining.of_recipe, {
        "recipe": find("quick"), "batch": 4
    })  # fmt: skip
    yield Case("ag.DeviceTraining.step_of", learning.step_of, {"network": built()})
    yield Case("ag.grad", ag.grad, {"graph": graph(), "wrt": ["f"]})
    yield Case("ag.interpret", lambda graph, x, weights: ag.interpret(graph, x, weights=weights), {
        "graph": g, "x": X, "weights": weights
    })  # fmt: skip
    yield Case("ag.load_native", ag.load_native, {"folder": exported()})
    yield Case("ag.parse", ag.parse, {"text": str(graph())})
    yield Case("ag.quantize", ag.quantize, {
        "graph": built(), "calibration": X, "weights": None, "bits": 8, "requantize": "shift",
        "terms": 2, "quantile": 0.99, "reestimate": True, "engine": "native", "threads": 1,
        "verbose": 0,
    })  # fmt: skip
    yield Case("ag.activation_bounds", ag.activation_bounds, {
        "model": with_relu(), "x": X, "quantile": 0.99, "engine": "native", "threads": 1,
        "verbose": 0,
    })  # fmt: skip
    found = ag.activation_bounds(with_relu(), X)
    yield Case("activation_bounds.clip", found.clip, {"model": with_relu()})
    yield Case("ag.Model.bounded", with_relu().bounded, {"bounds": {"act1": 1.0}})
    q = quantized()
    answers = ag.interpret(q.graph, q.inputs(X), weights=q.weights)
    yield Case("quantized.inputs", q.inputs, {"x": X})
    yield Case("quantized.outputs", q.outputs, {"y": answers})
    yield Case("quantized.save", q.save, {"path": folder() / "q.safetensors"})
    yield Case("ag.quantization_aware", ag.quantization_aware, {
        "model": built(), "calibration": X, "bits": 8, "quantile": 0.99
    })  # fmt: skip
    yield Case("ag.tensor", ag.tensor, {"dtype": "f32", "shape": (2, 3), "quantization": None})
    yield Case("ag.trace", lambda function, type, name, training: ag.trace(
        function, type, name=name, training=training
    ), {"function": ops.relu, "type": TYPE, "name": "g", "training": False})  # fmt: skip
    shared = {"samples": 2, "seed": 0, "inputs": [X], "verbose": 0}
    yield Case("ag.verify", ag.verify, {"graph": built(), "program": program(), **shared})
    yield Case("ag.verify_layers", ag.verify_layers, {
        "graph": built(), "program": by_layers(), **shared
    })  # fmt: skip
    yield Case("ag.Graph", ag.Graph, {
        "name": "g", "inputs": (), "parameters": (), "nodes": (), "outputs": (), "updates": ()
    })  # fmt: skip
    yield Case("ag.Graph.bind", graph().bind, {"batch": 2})


def _exchange_cases() -> Iterator[Case]:
    g, weights = ag.parse(PARAMETERS), {"f": np.ones((3, 3, 2, 4), np.float32)}
    yield Case("ag.to_torch", ag.to_torch, {"model": built(), "weights": None}, slow=True)
    yield Case("ag.from_torch", ag.from_torch, {
        "module": _module(), "example": _tensor(), "name": "net", "loss": None
    }, slow=True)  # fmt: skip
    yield Case("ag.to_onnx", ag.to_onnx, {
        "network": g, "path": folder() / "g.onnx", "weights": weights, "batch": 2, "inline": False,
    })  # fmt: skip
    ag.to_onnx(built(), folder() / "net.onnx")
    yield Case("ag.from_onnx", ag.from_onnx, {
        "path": folder() / "net.onnx", "adders": ("*",), "dimensions": {}, "seed": 0,
    })  # fmt: skip
    yield Case("ag.graph_from_onnx", ag.graph_from_onnx, {
        "path": folder() / "net.onnx", "dimensions": {}, "layout": "NHWC",
    })  # fmt: skip


def _program_cases() -> Iterator[Case]:
    g, weights = ag.parse(PARAMETERS), {"f": np.ones((3, 3, 2, 4), np.float32)}
    yield Case("program", lambda x: program()(x), {"x": X})
    yield Case("program.run", program().run, {"inputs": [X]})
    yield Case("program.run_into", program().run_into, {"inputs": [X], "outputs": None})
    yield Case("program.set_weights", program().set_weights, {"weights": built().weights})
    yield Case("program.export", program().export, {
        "folder": folder() / "out", "name": "net", "seed": 0, "shared": False,
        "overwrite": True,
    }, slow=True)  # fmt: skip
    yield Case("ag.export", ag.export, {
        "graph": g, "folder": folder() / "alone", "weights": weights, "batch": 2,
        "target": "host", "tune_for": "generic", "name": "net",
        "multiplication_free": False, "overwrite": True, "package": "cmake",
        "board": None, "flash": 1 << 20, "ram": 1 << 20, "train": None,
    }, slow=True)  # fmt: skip


PARAMETERS = """graph g(%x: f32[N,6,6,2]) params(%f: f32[3,3,2,4] init=normal(0,1)) {
  %y = adder2d(%x, %f) : f32[N,4,4,4]
  return %y
}"""


# --- layers, data, training, the zoo --------------------------------------------------------------


def _layer_cases() -> Iterator[Case]:
    window = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "bias": True}
    adder = {"output_channels": 4, **window, "eta": 0.2, "name": "a"}
    deep = {**{k: v for k, v in window.items() if k != "groups"}, "multiplier": 2, "name": "a"}
    images: dict[str, dict[str, object]] = {
        "Activation": {"function": "relu"},
        "Adder": adder,
        "Conv": {k: v for k, v in adder.items() if k != "eta"},
        "AvgPool": {"pool_size": 2, "stride": 2, "padding": 0},
        "MaxPool": {"pool_size": 2, "stride": 2, "padding": 0},
        "BatchNorm": {"momentum": 0.1, "epsilon": 1e-5},
        "batch_norm_layer": {"momentum": 0.1, "epsilon": 1e-5},
        "Flatten": {"name": "a"},
        "GlobalAvgPool": {"name": "a"},
        "Residual": {"body": [layers.Activation("relu")], "shortcut": (), "name": "a"},
        **{name: {"output_channels": 3, **deep} for name in ("SeparableAdder", "SeparableConv")},
        **dict.fromkeys(("DepthwiseAdder", "DepthwiseConv"), deep),
        "Dropout": {"rate": 0.5, "seed": 1, "name": "a"},
        "Reshape": {"shape": (6, -1), "name": "a"},
        "Softmax": {"name": "a"},
        "UpSampling": {"size": 2, "name": "a"},
        "ZeroPadding": {"padding": 1, "name": "a"},
        "adder_layer": {"adaptive_eta": 0.1, "output_channels": 2, "kernel_size": 3},
    }
    dense = {"output_channels": 3, "bias": True, "name": "a"}
    vectors: dict[str, dict[str, object]] = {
        "Dense": dense, "FullyConnected": dense, "AdderDense": {**dense, "eta": 0.2},
    }  # fmt: skip
    rows = {"Adder1d": adder, "Conv1d": images["Conv"]}
    joins: dict[str, dict[str, object]] = {"Add": {"name": "a"}, "Concatenate": {"axis": 1}}
    for name, arguments in joins.items():
        kind = getattr(layers, name)
        yield Case(f"layers.{name}", _in_function(kind), arguments)
        yield Case(f"layers.{name}, called", lambda x, k=kind: k()(x), {"x": X})
    for group, shape in ((images, (6, 6, 2)), (vectors, (6,)), (rows, (6, 2))):
        for name, arguments in group.items():
            yield Case(f"layers.{name}", _in_model(getattr(layers, name), shape), arguments)
            yield Case(f"layers.{name}, called", getattr(layers, name)(**arguments), {"x": X})


def _in_model(kind: Callable[..., Any], shape: tuple[int, ...]) -> Callable[..., object]:
    def made(**arguments: object) -> object:
        model = Model(input_shape=shape)
        model.add(kind(**arguments))
        return str(model.graph(False))

    return made


def _in_function(kind: Callable[..., Any]) -> Callable[..., object]:
    def made(**arguments: object) -> object:
        return str(ag.trace(lambda x: kind(**arguments)(x, x), ag.tensor("f32", (2, 3))))

    return made


def _data_cases() -> Iterator[Case]:
    whole = dict.fromkeys(("x_train", "x_test"), X) | dict.fromkeys(("y_train", "y_test"), Y)
    yield Case("data.Dataset", data.Dataset, {
        "name": "d", **whole, "classes": ("a", "b", "c"), "scale": 1.0, "x_val": X, "y_val": Y
    })  # fmt: skip
    split = data.Dataset("d", X, Y, X, Y, None).split
    yield Case("data.Dataset.split", split, {"validation": 0.5, "seed": 0})
    augment = data.Augment(1, 0.5)
    yield Case("data.Augment", data.Augment, {"padding": 1, "flip": 0.5})
    yield Case("data.Augment.apply", augment.apply, {"x": X, "random": np.random.default_rng(0)})
    normalize = data.Normalize((0.0, 0.0), (1.0, 1.0))
    yield Case("data.Normalize", data.Normalize, {"mean": (0.0,), "std": (1.0,), "scale": 1.0})
    yield Case("data.Preprocessing", data.Preprocessing, {
        "normalize": normalize, "dtype": "u8", "channels": "other", "classes": ("a", "b"),
    })  # fmt: skip
    yield Case("data.Normalize.apply", normalize.apply, {"x": X})
    yield Case("data.Loader", lambda **k: list(data.Loader(**k).epoch(0)), {
        "x": X, "batch_size": 2, "seed": 0, "shuffle": True, "augment": augment,
        "normalize": normalize, "prefetch": 1,
    })  # fmt: skip
    loader = data.Loader(X, batch_size=2)
    yield Case("data.Loader.order", loader.order, {"number": 0})
    yield Case("data.Loader.epoch", lambda **k: list(loader.epoch(**k)), {
        "number": 0, "first_step": 1
    })  # fmt: skip
    yield Case("data.images.bring", bring, {
        "image": np.zeros((4, 5, 3), np.uint8), "size": (2, 3), "how": "crop"
    })  # fmt: skip
    (folder() / "a.ppm").write_bytes(b"P6 1 1 255\n\0\0\0")
    yield Case("data.images.read_image", read_image, {
        "path": str(folder() / "a.ppm"), "channels": 1
    })  # fmt: skip
    yield Case("data.load", data.load, {"spec": "digits", "verify": False})
    yield Case("data.load, npz", lambda path: data.load(f"npz:{path}"), {"path": archive()})
    yield Case("data.load_npz", data.load_npz, {"path": archive()})


def _training_cases() -> Iterator[Case]:
    every = {"weight_decay": 0.1, "clip_norm": 1.0, "average": 0.9, "fan_in": 64.0}
    yield Case("training.SGD", _optimizer(training.SGD), {
        **every, "momentum": 0.5, "nesterov": True
    })  # fmt: skip
    yield Case("training.Adam", _optimizer(training.Adam), {
        **every, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "decoupled": True
    })  # fmt: skip
    shared = {"base": 0.1, "epochs": 3, "warmup": 0.5, "by_step": True}
    own: dict[str, dict[str, object]] = {
        "Constant": {}, "Cosine": {}, "Step": {"milestones": (0.5,), "factor": 0.1},
        "Polynomial": {"power": 0.9},
    }  # fmt: skip
    for name, more in own.items():
        kind = getattr(training, name)
        yield Case(f"training.{name}", lambda kind=kind, **k: kind(**k)(0.5), {**shared, **more})
        yield Case(f"training.{name}, called", kind(0.1, 3), {"time": 0.5})
    yield Case("training.cosine", training.cosine, {"base": 0.1, "epochs": 3})
    looks = training.Callback().on_epoch_end
    yield Case("training.Callback", looks, {"epoch": 0, "logs": {"loss": 1.0}})
    yield Case("training.TensorBoard", training.TensorBoard, {"folder": folder(), "every": 3})
    yield Case("training.History", training.History, {"history": {}})
    history = training.History({"loss": [1.0]})
    yield Case("training.History.append", lambda **k: training.History().append(**k), {
        "record": {"loss": 1.0}
    })  # fmt: skip
    yield Case("training.History.record", history.record, {"epoch": 0})


def _optimizer(kind: Any) -> Callable[..., object]:
    def made(**settings: object) -> object:
        return net().train_step(2, optimizer=kind(**settings), engine="reference")

    return made


def _zoo_cases() -> Iterator[Case]:
    yield Case("zoo.Form", zoo.Form, {
        "classes": 3, "body": "adder", "first": "conv", "last": "conv"
    })  # fmt: skip
    yield Case("zoo.Network", zoo.Network, {
        "description": "a", "layers": list, "input_shape": (8, 8, 1), "classes": 10,
        "body": "adder", "first": "conv", "last": "conv", "fixed": False,
    })  # fmt: skip
    yield Case("zoo.build", zoo.build, {
        "name": "small-adder", "input_shape": (8, 8, 1), "classes": 3, "seed": 0, "first": "conv",
        "last": "conv",
    })  # fmt: skip


@cache
def cases() -> list[Case]:
    return [
        *_model_cases(), *_graph_cases(), *_program_cases(), *_exchange_cases(), *_layer_cases(),
        *_data_cases(), *_training_cases(), *_zoo_cases(), *op_cases(graph),
    ]  # fmt: skip


def public_names() -> set[str]:
    """`layers.Adder` and so on, of every public name."""
    return {f"{prefix}.{name}" for prefix, module in MODULES.items() for name in module.__all__}
