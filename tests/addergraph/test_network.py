"""What brings a graph and its weights stands for them: `Model`, `Quantized`, one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler
from addergraph.errors import DataError, GraphError
from addergraph.ir import Array, Graph
from addergraph.ir.network import Network
from addergraph.quantization import Quantized
from tests.addergraph.models import small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

SAMPLES = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)


class Pair:
    """Neither a Model nor a Quantized."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array]) -> None:
        self.graph, self.weights = graph, weights

    def inference_graph(self) -> Graph:
        return self.graph

    def inference_weights(self) -> Mapping[str, Array]:
        return self.weights


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model(input_shape=(8, 8, 1))


@pytest.fixture(scope="module")
def quantized(model: Model) -> Quantized:
    return ag.quantize(model, SAMPLES, terms=1)


def networks(model: Model, quantized: Quantized) -> list[tuple[Network, Array]]:
    pair = Pair(model.graph(training=False), model.weights)
    return [(model, SAMPLES), (pair, SAMPLES), (quantized, quantized.inputs(SAMPLES))]


def test_networks_compile_and_verify(model: Model, quantized: Quantized) -> None:
    for network, x in networks(model, quantized):
        program = ag.compile(network)
        expected = ag.interpret(network.inference_graph(), x, weights=network.inference_weights())
        np.testing.assert_allclose(program(x), expected, rtol=1e-4, atol=1e-4)
        assert ag.verify(network, program, 2).ok
        assert ag.verify_layers(network, ag.compile_layers(network), 2).ok


@pytest.mark.slow
def test_networks_are_exported_and_counted(
    model: Model, quantized: Quantized, tmp_path: Path
) -> None:
    for number, (network, _) in enumerate(networks(model, quantized)):
        made = compiler.export(network, tmp_path / str(number), name="net")
        assert made.header.exists()
        assert compiler.census(network).total == compiler.census(network.inference_graph()).total


def test_a_network_of_ones_own_is_quantized_as_the_model_is(
    model: Model, quantized: Quantized
) -> None:
    made = ag.quantize(Pair(model.graph(training=False), model.weights), SAMPLES, terms=1)
    assert made.graph == quantized.graph and made.errors == quantized.errors


@pytest.mark.parametrize("function", [ag.compile, ag.compile_layers])
def test_a_network_brings_its_own_weights(
    function: object, model: Model, quantized: Quantized
) -> None:
    for network, _ in networks(model, quantized):
        with pytest.raises(DataError, match="brings its own weights"):
            function(network, weights=network.inference_weights())  # type: ignore[operator]


@pytest.mark.parametrize("given", [None, "net", SAMPLES, Model])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(GraphError, match=f"or a model, found {type(given).__name__}"):
        ag.compile(given)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="or a model, found"):
        ag.verify(given, given)  # type: ignore[arg-type]
