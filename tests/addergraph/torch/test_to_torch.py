"""`ag.to_torch`: the module computes what the graph does, and trains as the model."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Graph, Model, layers, ops, zoo
from addergraph.errors import DataError, GraphError, UnsupportedError
from addergraph.ir import Array
from addergraph.ir.attributes import FULL_PRECISION
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor, apply, trace
from addergraph.ir.types import f32
from addergraph.ops.contraction.adder_dense import AdderDense
from tests.addergraph.op_samples import SAMPLES, Sample, identify

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

from addergraph.torch.rules import RULES  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_objects")


def is_float(sample: Sample) -> bool:
    """Of f32, and what stands in a graph before the passes: with the paper's gradients."""
    types = (*sample.types, *sample.op.infer(*sample.types))
    proven = getattr(sample.op, "input_nonnegative", False)
    sign = getattr(sample.op, "gradient", FULL_PRECISION) != FULL_PRECISION
    return not proven and not sign and all(t.dtype == f32 for t in types)


KNOWN = [s for name in RULES for s in (one.bound() for one in SAMPLES[name]) if is_float(s)]


def nchw(array: Array) -> Any:
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor


def nhwc(tensor: Any) -> Array:
    tensor = tensor.detach()
    made: Array = (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).numpy()
    return made


@pytest.mark.thinned(4)
@pytest.mark.parametrize("sample", KNOWN, ids=identify)
def test_an_op_is_the_same_there(sample: Sample) -> None:
    rng, (low, high) = np.random.default_rng(0), sample.domain
    arrays = [rng.uniform(low, high, t.sizes).astype(np.float32) for t in sample.types]
    if not arrays or any(0 in a.shape for a in arrays):
        return  # `full` alone is no network; PyTorch's pools take no empty images

    def net(*xs: Tensor) -> Tensor:
        return apply(sample.op, *xs)

    graph = trace(net, *sample.types)
    expected = interpret(graph, *arrays)
    found = ag.to_torch(graph)(*map(nchw, arrays))
    np.testing.assert_allclose(nhwc(found), expected, rtol=2e-5, atol=2e-5)


def test_every_rule_is_of_an_op() -> None:
    assert {s.op.name for s in KNOWN} == RULES.keys()


def network() -> Model:
    def net(x: Tensor) -> Tensor:
        y = layers.Activation("relu")(layers.BatchNorm(0.3)(layers.Adder(4, 3, padding=1)(x)))
        y = ops.flatten(ops.max_pool2d(y, 4))
        return layers.Dense(5)(layers.Dropout(0.5)(y))

    model = Model(net, input_shape=(8, 8, 2), name="net")
    rng = np.random.default_rng(0)
    for name, array in model.weights.items():
        array[...] = rng.uniform(0.5, 1.5, array.shape) - name.endswith((".f", ".mean"))
    return model


X = np.random.default_rng(1).normal(size=(6, 8, 8, 2)).astype(np.float32)


def test_a_model_and_its_module_agree() -> None:
    model = network()
    module, expected = ag.to_torch(model), ag.compile(model)(X)
    np.testing.assert_allclose(nhwc(module(nchw(X))), expected, rtol=1e-5, atol=1e-5)
    for made in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(made(nchw(X)), module(nchw(X)))


def test_parameters_have_the_models_names() -> None:
    """And are copies."""
    model = network()
    module = ag.to_torch(model)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    assert state.keys() == model.weights.keys()
    assert all((state[name] == array).all() for name, array in model.weights.items())
    assert {name for name, _ in module.named_buffers()} == {"bn1.mean", "bn1.variance"}
    with torch.no_grad():
        module.dense1.b += 1
    assert (model.weights["dense1.b"] != nhwc(module.dense1.b)).all()
    model.weights = {name: t.numpy() for name, t in module.state_dict().items()}
    assert (model.weights["dense1.b"] == nhwc(module.dense1.b)).all()


def test_a_step_there_is_a_step_here() -> None:
    """Gradients with the adaptive rate, and batch norms that move, without dropouts' chance."""

    def net(x: Tensor) -> Tensor:
        y = layers.Activation("relu")(layers.BatchNorm(0.3)(layers.Adder(4, 3)(x)))
        return layers.Dense(5)(ops.flatten(layers.BatchNorm()(layers.Adder(2, 3)(y))))

    model, y = Model(net, input_shape=(8, 8, 2)), np.arange(6) % 5
    module = ag.to_torch(model).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    step = model.train_step(6)
    for _ in range(2):
        loss, _ = step(X, y, 0.1)
        optimizer.zero_grad()
        theirs = torch.nn.functional.cross_entropy(module(nchw(X)), torch.from_numpy(y))
        theirs.backward()
        optimizer.step()
        assert abs(theirs.item() - loss) < 1e-5
    for name, tensor in module.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), model.weights[name], rtol=1e-4, atol=1e-5)


def test_dropouts_work_in_training_alone() -> None:
    module, x = ag.to_torch(network()), nchw(X)
    assert not module.training and torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))


def test_frozen_layers() -> None:
    model = network()
    model.freeze("bn1", "adder1")
    module = ag.to_torch(model).train()
    before = module.bn1.mean.clone()
    module(nchw(X)).sum().backward()
    assert torch.equal(module.bn1.mean, before)
    assert [n for n, p in module.named_parameters() if p.grad is not None] == [
        "dense1.f",
        "dense1.b",
    ]


def test_a_module_comes_back() -> None:
    model = network()
    back = ag.from_torch(ag.to_torch(model), nchw(X))
    np.testing.assert_allclose(ag.compile(back)(X), ag.compile(model)(X), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet20-conv", "mobilenet_small", "lenet5_bn"])
def test_networks_of_the_zoo(name: str) -> None:
    model, rng = zoo.build(name), np.random.default_rng(0)
    for parameter, array in model.weights.items():
        if parameter.rpartition(".")[2] in ("gamma", "beta", "mean", "variance"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    (shape,) = model.input_shapes.values()
    x = rng.random((3, *shape), dtype=np.float32)
    expected = ag.compile(model)(x)
    found = nhwc(ag.to_torch(model)(nchw(x)))
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


# --- what is refused ------------------------------------------------------------------------------


def graph_of(function: Any, *shapes: tuple[Any, ...]) -> Graph:
    return ag.trace(function, *(ag.tensor("f32", shape) for shape in shapes))


def test_what_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r'argmax "argmax" \(i32\[N\]\) has no equivalent'):
        ag.to_torch(graph_of(lambda x: ops.argmax(x, axis=1), ("N", 3)))
    with pytest.raises(UnsupportedError, match="integer networks stay|has no equivalent"):
        ag.to_torch(ag.quantize(network(), X))
    sign = AdderDense(gradient="sign")
    with pytest.raises(UnsupportedError, match="has sign gradients"):
        ag.to_torch(graph_of(lambda x, f: apply(sign, x, f), ("N", 3), (3, 2)))
    with pytest.raises(DataError, match="has parameters"):
        ag.to_torch(network().graph(training=False))
    training = network().graph(training=True, batch=2)
    zeros = {p.name: np.zeros(p.type.sizes) for p in training.parameters}
    with pytest.raises(GraphError, match="updates parameters"):
        ag.to_torch(training, weights=zeros)
    with pytest.raises(GraphError, match="expected a graph"):
        ag.to_torch(torch.nn.ReLU())


def test_a_graph_alone_does_not_say_how_it_trains() -> None:
    model = network()
    module = ag.to_torch(model.graph(training=False), weights=model.weights)
    with pytest.raises(UnsupportedError, match="give ag.to_torch the Model"):
        module.train()
    ag.to_torch(graph_of(ops.relu, ("N", 3))).train()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"takes 1 tensors \(%x\), found 0"),
        ((X,), "expected a torch.Tensor, found an array"),
        (
            (torch.zeros(2, 8, 8, 2),),
            r"expected float32 \[N, 2, 8, 8\], found float32 \[2, 8, 8, 2\]",
        ),
        ((torch.zeros(2, 2, 8, 8).double(),), "found float64"),
        ((torch.zeros(2, 2),), "expected float32"),
    ],
)
def test_inputs_that_do_not_fit(inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ag.to_torch(network())(*inputs)
