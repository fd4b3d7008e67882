"""LOWERING: its order, its meaning behind the pipeline, what it checks and what it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

import addergraph as ag
from addergraph import compiler, zoo
from addergraph.codegen.emit.lowered import Kernels
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.errors import CodegenError, PassError, ShapeError, VerificationError
from addergraph.ir import Graph, Init, Parameter
from addergraph.ir.taps import Taps
from addergraph.ir.text import parse
from addergraph.passes import lowering
from addergraph.passes.lowering import LOWERING, Lowering
from addergraph.passes.pipeline import PIPELINE, advance, lower, step_name
from addergraph.passes.train_step import train_step
from addergraph.training.losses import CatCrossEntropy
from addergraph.training.optimizers import SGD
from tests.passes.compare import Compare
from tests.passes.test_pipeline import NETWORK

KERNELS = Kernels(BASELINE)
STEPS = [
    "bind_batch", "normalize_outputs", "hoist", "keep_parameters", "share_kept", "workspaces",
    "plan_memory",
]  # fmt: skip
TWICE = parse(
    """graph g(%x: f32[N,3]) params(%p: f32[3] init=ones) {
         %q = sqrt(%p) : f32[3]
         %y = mul(%x, %q) : f32[N,3]
         return %y, %x, %y }"""
)


def through(graph: Graph, count: int) -> Lowering:
    """A graph after so many steps of LOWERING alone."""
    return advance(Lowering(graph, graph, KERNELS), LOWERING[:count])


def test_the_order_is_explicit() -> None:
    assert [step_name(step) for step in LOWERING] == STEPS
    assert LOWERING[-2:] == lowering.PLANNING


def test_observers_see_the_whole_road() -> None:
    seen: list[str] = []
    points: list[Lowering] = []

    def observe(name: str, before: Lowering, after: Lowering, seconds: float) -> None:
        assert seconds >= 0 and (not points or before is points[-1])
        seen.append(name)
        points.append(after)

    lowered = compiler.lower(NETWORK, BASELINE, [observe])
    assert seen == [*map(step_name, PIPELINE), *STEPS]
    assert (points[-1].main, points[-1].plan) == (lowered.main, lowered.plan)


@pytest.mark.parametrize("graph", [NETWORK, NETWORK.bind(2), TWICE, TWICE.bind(1)])
def test_inference_keeps_its_meaning(graph: Graph) -> None:
    done = lower(graph, KERNELS, [Compare()])
    assert not done.main.is_open and (done.batched is None) == (not graph.is_open)
    assert done.setup is not None and done.setup.outputs


def test_a_bound_batch_keeps_its_meaning_in_blocks() -> None:
    done = lower(NETWORK, KERNELS, [Compare(batch=4)], blocks=(2,), batch=4)
    assert done.main.inputs[0].type.sizes[0] == done.samples == 2
    assert "blocks of 2 of 4 samples" in str(done)


def test_a_training_step_keeps_its_meaning_and_its_parameters() -> None:
    step = train_step(NETWORK.bind(4), CatCrossEntropy(), SGD())
    unread = Parameter("unread", step.parameters[0].type, Init("zeros"), trainable=False)
    step = dataclasses.replace(step, parameters=(*step.parameters, unread))
    done = lower(step, KERNELS, [Compare()])
    assert done.main.parameters == step.parameters
    assert done.setup is not None and not done.setup.outputs


def loses_output(at: Lowering) -> Lowering:
    return dataclasses.replace(at, main=dataclasses.replace(at.main, outputs=at.main.outputs[:1]))


def invents_parameter(at: Lowering) -> Lowering:
    made = Parameter("made", at.main.inputs[0].type.bind(1), Init("zeros"))
    parameters = (*at.main.parameters, made)
    return dataclasses.replace(at, main=dataclasses.replace(at.main, parameters=parameters))


def breaks_setup(at: Lowering) -> Lowering:
    assert at.setup is not None
    setup = dataclasses.replace(at.setup, nodes=())
    return dataclasses.replace(
        at, setup=setup, main=dataclasses.replace(at.main, name=f"{at.main.name}_too")
    )


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (loses_output, "changed the output types"),
        (invents_parameter, "made new parameters: made"),
        (breaks_setup, "g_setup.*not a value of this graph"),
    ],
)
def test_a_step_that_does_wrong_is_named(step: lowering.Step, message: str) -> None:
    with pytest.raises(PassError, match=message) as caught:
        advance(through(TWICE, 4), [step])
    assert f'pass "{step_name(step)}"' in str(caught.value)
    assert "before:\ngraph g(" in str(caught.value) and "after:\n" in str(caught.value)


def test_compare_sees_a_wrong_setup() -> None:
    def squares(at: Lowering) -> Lowering:
        text = str(at.setup).replace("sqrt", "neg")
        return dataclasses.replace(at, setup=parse(text), main=parse(str(at.main)))

    with pytest.raises(VerificationError, match='pass "squares" changed output'):
        advance(through(TWICE, 4), [squares], [Compare()])


def test_what_code_generation_says_is_not_wrapped() -> None:
    class Refuses(Kernels):
        def workspaces(self, graph: Graph, kept: Mapping[str, Taps]) -> dict[str, int]:
            raise CodegenError("no kernel")

    with pytest.raises(CodegenError, match="^no kernel$"):
        lower(NETWORK, Refuses(BASELINE))


def test_each_step_is_shown() -> None:
    model = zoo.build("small-adder")
    graph = model.graph(training=False)
    texts = {
        name: str(compiler.points_after(graph, name, weights=model.weights)[-1]) for name in STEPS
    }
    assert "advance with the sample: %x" in texts["bind_batch"]
    assert f"graph {graph.name}_setup(" in texts["hoist"]
    assert "elements above zero: %" in texts["share_kept"]
    assert "elements above zero" not in texts["keep_parameters"]
    assert "bytes of scratch memory: " in texts["workspaces"]
    assert "lower bound" in texts["plan_memory"]
    assert all(ag.parse(text.split("\n\n")[0]).name == graph.name for text in texts.values())


def test_a_batch_that_mixes_samples_is_refused_before_any_pass() -> None:
    mixing = parse(
        """graph g(%x: f32[N,3]) {
             %y = reduce_sum(%x) axes=(0) : f32[3]
             return %y }"""
    )
    seen: list[object] = []
    with pytest.raises(ShapeError, match=r"bind the batch: ag.compile\(graph, batch=64\)"):
        compiler.lower(mixing, BASELINE, [lambda *call: seen.append(call)])
    assert not seen
    assert compiler.points_after(mixing, "plan_memory", batch=2)[0].plan is not None
