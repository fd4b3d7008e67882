"""The layer Dropout: what trains with it, what resumes with it, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers
from addergraph.errors import DataError, ShapeError, StorageError, UnsupportedError
from addergraph.files import storage
from addergraph.ir.trace import Tensor
from addergraph.ops.pointwise.dropout import Dropout
from addergraph.training import SGD
from tests.addergraph.shell import Shell

X = np.random.default_rng(0).random((24, 4, 4, 2), np.float32)
Y = np.arange(24) % 3

pytestmark = pytest.mark.usefixtures("quick_objects")


def listed(rate: float = 0.4, seed: int = 0) -> Model:
    model = Model(input_shape=(4, 4, 2))
    body = [layers.Adder(2, 3, padding="same"), layers.BatchNorm(), layers.Dropout(rate, seed)]
    model.add(layers.Residual(body))
    model.add(layers.Activation("relu"))
    model.add(layers.Flatten())
    model.add(layers.Dropout(rate, seed))
    model.add(layers.Dense(3))
    return model


def function(x: Tensor) -> Tensor:
    y = layers.Dropout(0.2, name="at_entry")(x)
    y = layers.Dropout(0.3)(layers.BatchNorm(1.0)(layers.Adder(4, 3)(y)))
    y = layers.GlobalAvgPool()(layers.Activation("relu")(y))
    return layers.Dense(3)(layers.Dropout(0.1)(layers.Dropout(0.5)(y)))


def looking(x: Tensor) -> Tensor:
    """One reader sees the dropout, the other does not: no graph says that."""
    return layers.Dense(3)(layers.Flatten()(layers.Add()(layers.Dropout(0.5)(x), x)))


def fit(model: Model, epochs: int = 2, **given: object) -> Model:
    settings = {"engine": "reference", "batch_size": 10, "learning_rate": 0.01, "verbose": 0}
    model.fit(X, Y, epochs=epochs, **settings | given)  # type: ignore[arg-type]
    return model


def bits(model: Model) -> bytes:
    return b"".join(w.tobytes() for w in model.weights.values())


def test_inference_has_no_trace_of_it() -> None:
    graph = listed().graph(training=False)
    assert "dropout" not in str(graph)
    assert not [name for name in listed().weights if "dropout" in name]
    trained = listed().graph(training=True, batch=2)
    keys, others = (
        [n.op.seed for n in graph.nodes if isinstance(n.op, Dropout)]
        for graph in (trained, listed(seed=1).graph(training=True, batch=2))
    )
    assert len(set(keys)) == 2, "each layer leaves out other elements"
    assert not set(keys) & set(others)


@pytest.mark.parametrize("make", [listed, lambda: Model(function, input_shape=(4, 4, 2))])
def test_summaries_say_what_training_alone_has(make: Callable[[], Model], shell: Shell) -> None:
    model = make()
    graph = model.graph(training=True, batch=2)
    said = ", ".join(
        f"{n.name} (rate {n.op.rate:g}) behind {n.inputs[0].name}"
        for n in graph.nodes
        if isinstance(n.op, Dropout)
    )
    assert said and model.training_only() == [f"training only: {said}"]
    assert f"\ntraining only: {said}\n" in model.summary_text()
    assert f"training only: {said}</pre>" in model._repr_html_()
    model.save("m.safetensors")
    for options in (["summary"], ["inspect", "--svg", "m.svg"], ["inspect"]):
        assert f"training only: {said}\n" in shell.ok(options[0], "m.safetensors", *options[1:])


def test_a_network_without_dropout_says_nothing_of_training() -> None:
    model = Model(layers.Dense(3), input_shape=(4,))
    assert model.training_only() == [] and "training only" not in model.summary_text()
    shared = layers.Dropout(0.5)
    twice = Model(lambda x: shared(layers.Dense(3)(shared(x))), input_shape=(4,))
    (said,) = twice.training_only()
    assert "dropout1 (rate 0.5) behind x, dropout1_1 (rate 0.5) behind dense1" in said


def test_the_bits_depend_on_no_number_of_threads_and_on_the_seed() -> None:
    one, three = (fit(listed(), engine="native", threads=n) for n in (1, 3))
    assert bits(one) == bits(three)
    others = [fit(listed(*given)) for given in ((), (0.4, 1), (0.0,))]
    assert len(set(map(bits, others))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_another_seed_of_a_run_leaves_out_others(engine: str) -> None:
    """The order of the samples aside."""

    def after_a_step(seed: int) -> bytes:
        model = listed()
        model.train_step(24, engine=engine, seed=seed)(X, Y, 0.1)
        return bits(model)

    first, *others = map(after_a_step, (0, 1, 1023, 1024))
    assert len({first, *others}) == 3 and others[-1] == first
    runs = [bits(fit(listed(), 1, engine=engine, shuffle=False, seed=seed)) for seed in (0, 0, 5)]
    assert runs[0] == runs[1] != runs[2]


def test_a_function_may_count_steps_as_it_likes() -> None:
    def net(x: Tensor) -> Tensor:
        flat = layers.Flatten()(x)
        return layers.Dense(3)(ag.ops.dropout(flat, ag.ops.full(x, 7, (), dtype="i32"), 0.5))

    fit(Model(net, input_shape=(4, 4, 2)), 1, seed=3)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, steps: int, seed: int
) -> None:
    whole = fit(listed(), 3, optimizer=SGD(average=0.5), seed=seed)
    given = {"checkpoint": tmp_path / "run", "optimizer": SGD(average=0.5), "seed": seed}
    fit(listed(), 1, **given)
    resumed = fit(listed(), 3, resume=True, checkpoint_steps=steps, **given)
    assert bits(whole) == bits(resumed)
    with pytest.raises(DataError, match="dropout"):
        fit(listed(0.3), 3, resume=True, **given)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_statistics_of_batch_norms_are_those_of_inference(engine: str) -> None:
    """Behind a dropout the deviation of a channel is larger in training than in inference."""
    model = Model(input_shape=(2,))
    for layer in (layers.Dropout(0.5), layers.BatchNorm(), layers.Dense(3)):
        model.add(layer)
    x = np.ones((24, 2), np.float32) + X[:, 0, 0]
    model.fit(x, Y, epochs=1, batch_size=8, learning_rate=1e-6, engine=engine, verbose=0)
    np.testing.assert_allclose(model.weights["bn1.mean"], x.mean(0), rtol=1e-3)
    assert (model.weights["bn1.variance"] < 2 * x.var(0)).all()


def test_a_file_keeps_it(tmp_path: Path) -> None:
    makers: list[Callable[[], Model]] = [listed, lambda: Model(function, input_shape=(4, 4, 2))]
    for make in makers:
        make().save(tmp_path / "m")
        again, first = Model.load(tmp_path / "m"), make()
        assert again.graph(training=False) == first.graph(training=False)
        assert bits(fit(again)) == bits(fit(first))
        again.save(tmp_path / "twice")
        assert bits(fit(Model.load(tmp_path / "twice"))) == bits(fit(again))


def test_what_a_file_cannot_say_is_not_guessed(tmp_path: Path) -> None:
    Model(looking, input_shape=(4, 4, 2)).save(tmp_path / "m")
    assert Model.load(tmp_path / "m").predict(X).shape == (24, 3)
    with pytest.raises(UnsupportedError, match="Python function"):
        fit(Model.load(tmp_path / "m"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"dropout1": 3}', "does not describe a dropout"),
        ('{"a b": {"of": "x", "rate": 0.5, "seed": 1}}', "does not describe a dropout"),
        ('{"dropout1": {"of": "x", "rate": 0.5}}', "seed is missing"),
        ('{"dropout1": {"of": "x", "rate": "y", "seed": 0}}', "expected a number"),
        ("[]", "no JSON object"),
    ],
)
def test_damaged_descriptions_are_refused(tmp_path: Path, entry: str, message: str) -> None:
    Model(function, input_shape=(4, 4, 2)).save(tmp_path / "m")
    tensors, metadata = storage.load(tmp_path / "m")
    storage.save(tmp_path / "m", tensors, metadata | {"dropout": entry})
    with pytest.raises(StorageError, match=message):
        Model.load(tmp_path / "m")


def test_networks_with_it_train_for_integers() -> None:
    """As dropouts are in training alone, the rounded forms differ in them alone."""
    model = Model(function, input_shape=(4, 4, 2))
    aware = ag.quantization_aware(fit(model), X)
    training = aware.graph(training=True, batch=2)
    rounded = [n.inputs[0].name for n in training.nodes if n.op.name == "fake_quantize"]
    graph = aware.graph(training=False)
    assert rounded == [n.inputs[0].name for n in graph.nodes if n.op.name == "fake_quantize"]
    assert not any(name.startswith("dropout") for name in rounded)
    before = bits(aware)
    assert bits(fit(aware, 1)) != before


def test_gradients_are_those_of_the_elements_that_stay() -> None:
    def net(x: Tensor) -> Tensor:
        return layers.Dropout(0.5)(layers.Dense(64, bias=False)(x))

    model = Model(net, input_shape=(3,), loss_name="mean_squared_error")
    step = model.train_step(8, optimizer=SGD(momentum=0, weight_decay=0), engine="reference")
    before, x = model.weights["dense1.f"].copy(), np.ones((8, 3), np.float32)
    _, y = step(x, np.zeros((8, 64), np.float32), 1.0)
    assert 0.3 < (y == 0).mean() < 0.7
    # d loss / d f[k,t] = sum over n of 2 y[n,t] / (8 * 64) * dropped[n,t], each twice as large
    expected = (2 * y * 2 * (y != 0) / (8 * 64)).sum(0)
    np.testing.assert_allclose(before[0] - model.weights["dense1.f"][0], expected, rtol=1e-4)
    _, later = step(x, np.zeros((8, 64), np.float32), 0.0)
    assert ((later == 0) != (y == 0)).mean() > 0.3, "the next step leaves out others"
    assert step.state.views["dropout1.steps"] == 2


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1 - 1e-9, float("nan"), "half", None])
def test_rates(rate: object) -> None:
    with pytest.raises(ShapeError, match="rate"):
        layers.Dropout(rate)  # type: ignore[arg-type]


def test_one_dropout_in_two_places_leaves_out_others_in_each(tmp_path: Path) -> None:
    shared = layers.Dropout(0.5)

    def net(x: Tensor) -> Tensor:
        return layers.Dense(3)(layers.Flatten()(shared(layers.Activation("relu")(shared(x)))))

    model = Model(net, input_shape=(4, 4, 2))
    assert model.predict(X, engine="reference").shape == (24, 3)
    seeds = [
        n.op.seed for n in model.graph(training=True, batch=2).nodes if isinstance(n.op, Dropout)
    ]
    assert len(set(seeds)) == 2
    model.save(tmp_path / "m")
    assert bits(fit(Model.load(tmp_path / "m"))) == bits(fit(model))
