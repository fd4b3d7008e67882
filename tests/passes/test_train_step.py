"""train_step: the graph's text, the authors' recipe against plain NumPy, and errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from addergraph import compiler, layers
from addergraph.errors import DataError, GraphError, ShapeError
from addergraph.ir import Array
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import State
from addergraph.ir.text import parse
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import TensorType, f32
from addergraph.passes.train_step import train_step
from addergraph.training.losses import CatCrossEntropy, Loss, MeanSquared, loss_of
from addergraph.training.optimizers import SGD

pytestmark = pytest.mark.usefixtures("quick_objects")

PLAIN = SGD(momentum=0.0, weight_decay=0.0)
DENSE = """graph net(%x: f32[2,3]) params(%w: f32[3,4] init=normal(0,1)) {
    %y = dense(%x, %w) : f32[2,4]
    return %y }"""
SOFTMAX = """graph net(%x: f32[2,3]) params(%w: f32[3,4] init=normal(0,1)) {
    %z = dense(%x, %w) : f32[2,4]
    %y = softmax(%z) : f32[2,4]
    return %y }"""


def test_text_of_a_plain_step() -> None:
    made = train_step(parse(DENSE), MeanSquared(), PLAIN)
    check(made)
    assert str(made) == (
        """\
graph net_train(%x: f32[2,3], %targets: f32[2,4], %learning_rate: f32[]) params(
  %w: f32[3,4] init=normal(0,1)
) {
  %y = dense(%x, %w) : f32[2,4]
  %losses = mean_squared_error(%y, %targets) : f32[2]
  %loss = reduce_mean(%losses) axes=(0) : f32[]
  %loss.grad = full() value=1 : f32[]
  %loss.grad.const = full() value=2 : f32[]
  %loss.grad.div = div(%loss.grad, %loss.grad.const) : f32[]
  %loss.grad.reshape = reshape(%loss.grad.div) shape=(1) : f32[1]
  %losses.grad = broadcast_to(%loss.grad.reshape) shape=(2) : f32[2]
  %losses.grad.const = full() value=0.5 : f32[]
  %losses.grad.mul = mul(%losses.grad, %losses.grad.const) : f32[2]
  %losses.grad.reshape = reshape(%losses.grad.mul) shape=(2,1) : f32[2,1]
  %losses.grad.sub = sub(%y, %targets) : f32[2,4]
  %y.grad = mul(%losses.grad.reshape, %losses.grad.sub) : f32[2,4]
  %y.grad.transpose_1 = transpose(%x) permutation=(1,0) : f32[3,2]
  %w.grad = matmul(%y.grad.transpose_1, %y.grad) : f32[3,4]
  %w.step = mul(%learning_rate, %w.grad) : f32[3,4]
  %w.new = sub(%w, %w.step) : f32[3,4]
  update %w <- %w.new
  return %loss, %y
}"""
    )


def test_the_authors_recipe_over_three_steps() -> None:
    step = train_step(
        parse(
            """graph net(%x: f32[5,3]) params(
                 %f: f32[3,4] init=zeros eta=0.2, %h: f32[4,2] init=zeros,
                 %k: f32[2] init=zeros fixed) {
                 %a = adder_dense(%x, %f) : f32[5,4]
                 %b = adder_dense(%a, %h) : f32[5,2]
                 %y = add(%b, %k) : f32[5,2]
                 return %y }"""
        ),
        MeanSquared(),
        SGD(momentum=0.9, weight_decay=0.01),
    )
    check(step)
    rng = np.random.default_rng(4)
    x, targets = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    f, h, k = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)) - 3, rng.normal(size=2)
    weights = {name: a.astype("f4") for name, a in (("f", f), ("h", h), ("k", k))}
    weights |= {"f.velocity": np.zeros((3, 4), "f4"), "h.velocity": np.zeros((4, 2), "f4")}
    vf, vh = np.zeros((3, 4)), np.zeros((4, 2))
    for rate in (0.1, 0.1, 0.05):
        (loss, prediction), updates = run_reference(step, (x, targets, rate), weights)
        weights |= updates

        a = -np.abs(x[:, :, None] - f).sum(1)
        y = -np.abs(a[:, :, None] - h).sum(1) + k
        dy = 2 * (y - targets) / y.size
        da = (dy[:, None, :] * np.clip(h - a[:, :, None], -1, 1)).sum(2)
        df = (da[:, None, :] * (x[:, :, None] - f)).sum(0)
        dh = (dy[:, None, :] * (a[:, :, None] - h)).sum(0)
        df *= 0.2 * np.sqrt(12) / max(float(np.linalg.norm(df)), 1e-12)
        vf, vh = 0.9 * vf + df + 0.01 * f, 0.9 * vh + dh + 0.01 * h
        f, h = f - rate * vf, h - rate * vh

        assert loss == pytest.approx(np.square(y - targets).mean(), rel=1e-5)
        np.testing.assert_allclose(prediction, y, rtol=1e-5, atol=1e-5)
        for name, expected in (("f", f), ("h", h), ("f.velocity", vf), ("h.velocity", vh)):
            np.testing.assert_allclose(updates[name], expected, rtol=1e-4, atol=1e-5)
    assert "k" not in updates


def test_a_zero_gradient_stays_zero_under_the_adaptive_rate() -> None:
    text = DENSE.replace("init=normal(0,1)", "init=normal(0,1) eta=0.2")
    step = train_step(parse(text), MeanSquared(), PLAIN)
    w, zeros = np.ones((3, 4), "f4"), np.zeros((2, 3), "f4")
    _, updates = run_reference(step, (zeros, np.ones((2, 4)), 0.1), {"w": w})
    np.testing.assert_array_equal(updates["w"], w)


def test_optimizer_state_and_running_statistics() -> None:
    graph = parse(
        """graph net(%x: f32[2,3]) params(%w: f32[3,4] init=ones, %m: f32[4] init=zeros fixed) {
             %y = dense(%x, %w) : f32[2,4]
             %s.mean, %s.variance = batch_norm_statistics(%y) : f32[4], f32[4]
             update %m <- %s.mean
             return %y }"""
    )
    step = train_step(graph, CatCrossEntropy(), SGD())
    check(step)
    assert [u.parameter.name for u in step.updates] == ["m", "w.velocity", "w"]
    velocity = next(p for p in step.parameters if p.name == "w.velocity")
    assert (velocity.init.kind, velocity.trainable) == ("zeros", False)
    assert step.parameters[:2] == graph.parameters  # by identity


def run_softmax(text: str, x: Array) -> tuple[float, Array, Array]:
    step = train_step(parse(text), CatCrossEntropy(), PLAIN)
    w = np.zeros((3, 4), "f4")
    w[0] = [1, -1, 0, 0]
    targets = np.eye(4)[[1, 2]]
    (loss, prediction), updates = run_reference(step, (x, targets, 1.0), {"w": w})
    return float(loss), prediction, w - updates["w"]


def test_a_final_softmax_is_left_out_of_the_loss() -> None:
    x = np.array([[500, 1, 0], [500, 0, 1]], "f4")
    loss, prediction, gradient = run_softmax(SOFTMAX, x)
    np.testing.assert_array_equal(prediction, [[1, 0, 0, 0], [1, 0, 0, 0]])
    assert loss == (1000 + 500) / 2  # a log of the softmax would be infinite, its gradient 0
    expected = x.T @ (prediction - np.eye(4)[[1, 2]]) / 2
    np.testing.assert_array_equal(gradient, expected)
    # Without a softmax the same numbers are logits, and what is predicted.
    same_loss, logits, same_gradient = run_softmax(DENSE, x)
    assert same_loss == loss
    np.testing.assert_array_equal(same_gradient, gradient)
    np.testing.assert_array_equal(logits[:, :2], [[500, -500], [500, -500]])


def test_mean_squared_error_keeps_the_softmax() -> None:
    step = train_step(parse(SOFTMAX), MeanSquared(), PLAIN)
    losses = next(n for n in step.nodes if n.name == "losses")
    assert losses.inputs[0].name == "y"


def test_label_smoothing_against_its_equation() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    step = train_step(parse(SOFTMAX), CatCrossEntropy(label_smoothing=0.2), PLAIN)
    check(step)
    inputs = (x, np.eye(4)[[1, 2]], 1.0)
    (loss, _), updates = run_reference(step, inputs, {"w": w.astype("f4")})

    targets = 0.8 * np.eye(4)[[1, 2]] + 0.05
    probabilities = np.exp(x @ w) / np.exp(x @ w).sum(1, keepdims=True)
    assert loss == pytest.approx(-(targets * np.log(probabilities)).sum() / 2, rel=1e-5)
    expected = x.T @ (probabilities - targets) / 2
    np.testing.assert_allclose(w - updates["w"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("native", [False, True])
def test_sign_gradients_of_every_adder_layer(native: bool) -> None:
    text = """graph net(%x: f32[2,3,3,2]) params(
        %f: f32[2,2,2,3] init=zeros, %h: f32[12,2] init=zeros) {
        %a = adder2d(%x, %f) : f32[2,2,2,3]
        %b = flatten(%a) : f32[2,12]
        %y = adder_dense(%b, %h) : f32[2,2]
        return %y }"""
    step = train_step(parse(text), MeanSquared(), PLAIN, gradient="sign")
    check(step)
    assert "adder2d(%x, %f) gradient=sign" in str(step) and "grad_filter" not in str(step)
    rng = np.random.default_rng(6)
    x, targets = rng.normal(size=(2, 3, 3, 2)), rng.normal(size=(2, 2))
    f, h = rng.normal(size=(2, 2, 2, 3)), rng.normal(size=(12, 2)) - 8
    weights = {"f": f.astype("f4"), "h": h.astype("f4")}
    if native:
        state = State(step.parameters)
        state.load(weights)
        compiler.compile(step, state=state)(x, targets, np.float32(1.0))
        found = state.views
    else:
        _, found = run_reference(step, (x, targets, 1.0), weights)

    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))
    taps = windows.transpose(0, 1, 2, 4, 5, 3)[..., None]  # n h w i j k 1
    a = -np.abs(taps - f).sum((3, 4, 5))
    b = a.reshape(2, 12)
    dy = 2 * (-np.abs(b[:, :, None] - h).sum(1) - targets) / 4
    dh = (dy[:, None, :] * np.sign(b[:, :, None] - h)).sum(0)
    da = (dy[:, None, :] * np.sign(h - b[:, :, None])).sum(2).reshape(a.shape)
    df = (da[:, :, :, None, None, None, :] * np.sign(taps - f)).sum((0, 1, 2))
    np.testing.assert_allclose(f - found["f"], df, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(h - found["h"], dh, rtol=1e-4, atol=1e-5)


def test_batch_statistics_of_one_value_are_refused() -> None:
    def net(x: Tensor) -> Tensor:
        return layers.BatchNorm(name="norm")(layers.Dense(3)(x))

    one, two = (trace(net, TensorType(f32, (n, 2)), name="net", training=True) for n in (1, 2))
    train_step(two, MeanSquared(), SGD())
    with pytest.raises(ShapeError, match=r'batch_norm "norm" gets one value.*at least 2 samples'):
        train_step(one, MeanSquared(), SGD())


@pytest.mark.parametrize(
    ("smoothing", "message"),
    [
        (0.1, "mean_squared_error has none"),
        (1.0, "label_smoothing=1.0 must be"),
        (math.nan, "label_smoothing=nan must be"),
    ],
)
def test_losses_refuse_a_wrong_smoothing(smoothing: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MeanSquared(label_smoothing=smoothing)


def test_unknown_names() -> None:
    with pytest.raises(ShapeError, match="unknown gradient 'signs' .did you mean \"sign\""):
        train_step(parse(DENSE), MeanSquared(), SGD(), gradient="signs")
    with pytest.raises(GraphError, match='here it is "cat_cross_entropy"'):
        loss_of("cross_entropy")


@pytest.mark.parametrize(
    ("text", "loss", "error", "message"),
    [
        (DENSE.replace("2,", "N,"), MeanSquared(), GraphError, r"open batch.*bind\(64\)"),
        (DENSE.replace("return %y", "return %y, %x"), MeanSquared(), GraphError,
         "one output.*%y, %x"),
        (DENSE.replace(") {", ", %dead: f32[] init=ones) {"), MeanSquared(), GraphError,
         "does not depend on the trainable parameters dead"),
        ("""graph g(%x: f32[2,3]) params(%w: f32[3] init=ones) {
              %y = mul(%x, %w) : f32[2,3]
              %z = reshape(%y) shape=(6) : f32[6]
              return %z }""", CatCrossEntropy(), ShapeError, "logits must be"),
    ],
)  # fmt: skip
def test_errors(text: str, loss: Loss, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train_step(parse(text), loss, SGD())


@pytest.mark.parametrize(
    "options",
    [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}, {"weight_decay": float("nan")}],
)
def test_optimizers_refuse_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(options))):
        SGD(**options)
