"""The rules of quantization: every op has one or is refused; settings are declared once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.errors import UnsupportedError
from addergraph.ir import Graph, Node, Parameter, Value
from addergraph.ir.op import registry
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.model.quantization import Quantizing
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.dropout import Dropout
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.softmax import Softmax
from addergraph.passes.quantize.integers import IntegerEmitter
from addergraph.passes.quantize.rounded import RoundedEmitter
from addergraph.passes.quantize.rules import HINTS, RULES
from tests.addergraph.op_samples import SAMPLES


def test_rules_are_of_the_ops_that_state_an_integer_form() -> None:
    """An op that states none is refused, by the message below; training adds what it reads."""
    stated = {op for op in registry().values() if op.integer_form}
    assert IntegerEmitter.rules.keys() == stated
    assert RoundedEmitter.rules.keys() == stated - {Argmax} | {
        BatchNormStatistics,
        Dropout,
        Softmax,
    }
    assert RULES.keys() == IntegerEmitter.rules.keys() & RoundedEmitter.rules.keys()


@pytest.mark.parametrize(
    ("emitter", "message"),
    [
        (
            IntegerEmitter,
            "cannot become integers; quantize knows add, adder2d, adder_dense, argmax",
        ),
        (RoundedEmitter, "cannot be trained for integers; quantization_aware knows add, adder2d, "),
    ],
)
@pytest.mark.parametrize("name", registry())
def test_every_op_has_a_rule_or_is_refused(
    name: str, emitter: type[IntegerEmitter | RoundedEmitter], message: str
) -> None:
    node = Node(SAMPLES[name][0].op, (), (Value("y", TensorType(f32, ("N",))),))
    if type(node.op) in emitter.rules:
        assert callable(emitter.rule(node))
        return
    with pytest.raises(UnsupportedError) as error:
        emitter.rule(node)
    hint = HINTS.get(name)
    assert str(error.value).startswith(f'{name} "y" {f"({hint}) " if hint else ""}{message}')
    assert str(error.value).endswith(max(op.name for op in emitter.rules))
    assert "statistics" not in str(error.value).partition("knows")[2]


@pytest.mark.parametrize("ask", [ag.quantize, ag.quantization_aware])
def test_all_layers_without_integers_are_named_and_what_to_use(ask: Callable[..., object]) -> None:
    def net(x: Tensor) -> Tensor:
        y = layers.Adder(1, 3, padding=1, name="edges")(x)
        y = ops.exp(layers.Softmax(name="hidden")(y), name="odd")
        return layers.Dense(2)(layers.Flatten()(ops.sqrt(y, name="root")))

    x = np.random.default_rng(0).normal(size=(4, 4, 4, 1))
    with pytest.raises(UnsupportedError) as error:
        ask(Model(net, input_shape=(4, 4, 1)), x)
    named, _, known = str(error.value).rpartition("; ")
    expected = ['exp "odd"', 'sqrt "root"']
    if ask is ag.quantize:  # in training a softmax may stand at the end
        expected.append('softmax "hidden" (hidden: use relu; a softmax before an output')
    for said in expected:
        assert said in named
    assert "edges" not in named and "knows add, adder2d" in known


def test_a_parameter_is_no_output() -> None:
    x, p = Value("x", TensorType(f32, ("N", 3))), Parameter("p", TensorType(f32, (3,)))
    graph = Graph("net", (x,), (p,), (), (p,))
    with pytest.raises(UnsupportedError, match="output %p does not depend on the image"):
        ag.quantize(graph, np.ones((2, 3)), weights={"p": np.ones(3, np.float32)})


def test_keywords_are_the_settings() -> None:
    keywords = inspect.signature(ag.quantize).parameters
    for field in dataclasses.fields(Quantizing):
        assert keywords[field.name].default == field.default, field.name
        assert keywords[field.name].annotation == field.type, field.name
    assert len(keywords) == 3 + len(dataclasses.fields(Quantizing))
