"""The rules of quantization: every op has one or is refused; settings are declared once."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import UnsupportedError
from addergraph.ir import Graph, Node, Parameter, Value
from addergraph.ir.op import registry
from addergraph.ir.types import TensorType, f32
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.dropout import Dropout
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.softmax import Softmax
from addergraph.passes.quantize.integers import IntegerEmitter
from addergraph.passes.quantize.rounded import RoundedEmitter
from addergraph.passes.quantize.rules import HINTS, RULES
from addergraph.quantization import QuantizationSettings
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
        (IntegerEmitter, "has no integer form; quantize knows add, adder2d, adder_dense, argmax, "),
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
    assert str(error.value).startswith(f'{name} "y" {message}')
    assert str(error.value).endswith(HINTS.get(name, max(op.name for op in emitter.rules)))


def test_a_parameter_is_no_output() -> None:
    x, p = Value("x", TensorType(f32, ("N", 3))), Parameter("p", TensorType(f32, (3,)))
    graph = Graph("net", (x,), (p,), (), (p,))
    with pytest.raises(UnsupportedError, match="output %p is a parameter"):
        ag.quantize(graph, np.ones((2, 3)), weights={"p": np.ones(3, np.float32)})


def test_keywords_are_the_settings() -> None:
    keywords = inspect.signature(ag.quantize).parameters
    for field in dataclasses.fields(QuantizationSettings):
        assert keywords[field.name].default == field.default, field.name
        assert keywords[field.name].annotation == field.type, field.name
    assert len(keywords) == 3 + len(dataclasses.fields(QuantizationSettings))
