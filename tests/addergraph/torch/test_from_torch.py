"""`ag.from_torch`: what a module computes, its Model computes; what has no equivalent is named."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import DataError, UnsupportedError

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

from addergraph.torch import Adder2d  # noqa: E402

nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("quick_objects")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Of(torch.nn.Module):
    """A function as a module, with what it needs."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def trained(module: Any) -> Any:
    """With batch norms that are not as they begin."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.uniform_(part.weight, -1.5, 1.5)
                nn.init.normal_(part.bias)
    return module


def nhwc(tensor: Any) -> Any:
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).numpy()


def compare(module: Any, *inputs: Any) -> ag.Model:
    """The model, after its answers for twice the example's batch are those of the module."""
    model = ag.from_torch(trained(module), inputs if len(inputs) > 1 else inputs[0])
    twice = [torch.cat([x, torch.randn_like(x)]) for x in inputs]
    with torch.no_grad():
        expected = module.eval()(*twice)
    found = ag.compile(model)(*map(nhwc, twice))
    several = (found, expected) if isinstance(found, tuple) else ((found,), (expected,))
    for y, wanted in zip(*several, strict=True):
        np.testing.assert_allclose(y, nhwc(wanted), rtol=1e-5, atol=1e-5)
    return model


# --- ops ------------------------------------------------------------------------------------------

IMAGE = (2, 4, 8, 8)
ROWS = (3, 6)
MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "adder2d": (lambda: Adder2d(4, 6, 3, 2, 1, True), IMAGE),
    "adder2d groups": (lambda: Adder2d(4, 4, 3, padding=2, dilation=2, groups=2, eta=None), IMAGE),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, 2, 1), IMAGE),
    "conv2d groups": (lambda: nn.Conv2d(4, 8, (1, 3), dilation=2, groups=4, bias=False), IMAGE),
    "conv2d same": (lambda: nn.Conv2d(4, 2, (2, 3), padding="same"), IMAGE),
    "linear": (lambda: nn.Linear(6, 5), ROWS),
    "linear of images": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 5)), IMAGE),
    "batch_norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch_norm alone": (lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    "batch_norm of rows": (lambda: nn.BatchNorm1d(6), ROWS),
    "relu": (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)), IMAGE),
    "leaky_relu": (lambda: nn.LeakyReLU(0.3), IMAGE),
    "relu6": (nn.ReLU6, IMAGE),
    "hardtanh": (lambda: nn.Hardtanh(-0.5, 0.25), IMAGE),
    "clamp": (lambda: Of(lambda m, x: x.clamp(-1, 1) + x.clamp(min=0.5) - x.clamp(max=0.1)), IMAGE),
    "sigmoid": (nn.Sigmoid, ROWS),
    "tanh": (nn.Tanh, ROWS),
    "hardswish": (nn.Hardswish, IMAGE),
    "hardsigmoid": (nn.Hardsigmoid, IMAGE),
    "silu": (nn.SiLU, IMAGE),
    "max_pool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "max_pool2d of pairs": (lambda: nn.MaxPool2d((2, 3)), IMAGE),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "adaptive_avg_pool2d": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive_avg_pool2d 4x2": (lambda: nn.AdaptiveAvgPool2d((4, 2)), IMAGE),
    "add": (lambda: Of(lambda m, x: torch.add(x, x * 2, alpha=0.5) + 1), IMAGE),
    "sub": (lambda: Of(lambda m, x: 1 - x - x * x), IMAGE),
    "mul": (lambda: Of(lambda m, x: x * m.scale, scale=nn.Parameter(torch.randn(4, 1, 1))), IMAGE),
    "mul by columns": (lambda: Of(lambda m, x: m.scale * x, scale=torch.randn(8)), IMAGE),
    "mul of rows": (lambda: Of(lambda m, x: x * m.scale, scale=torch.randn(1, 6)), ROWS),
    "div": (lambda: Of(lambda m, x: x / (x.abs() + 1) / 3), IMAGE),
    "maximum": (lambda: Of(lambda m, x: torch.maximum(x, -x) + torch.minimum(x, x * x)), IMAGE),
    "exp": (lambda: Of(lambda m, x: (-x).exp() + (x.abs() + 1).log() + x.abs().sqrt()), ROWS),
    "pow": (lambda: Of(lambda m, x: x**2 + x.square() + (x * x + 1).rsqrt()), ROWS),
    "cat": (lambda: Of(lambda m, x: torch.cat([x, x * 2], 1)), IMAGE),
    "cat of columns": (lambda: Of(lambda m, x: torch.cat([x, x * 2], -1)), IMAGE),
    "flatten": (nn.Flatten, IMAGE),
    "flatten of pixels": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGE),
    "view": (lambda: Of(lambda m, x: x.view(x.size(0), 2, 2, 64)[:, :, 1].reshape(-1, 128)), IMAGE),
    "unsqueeze": (lambda: Of(lambda m, x: x[:, :, None, None].squeeze(-1).unsqueeze(-1)), ROWS),
    "permute": (lambda: Of(lambda m, x: x.permute(0, 2, 1, 3).transpose(2, 3)), IMAGE),
    "mean": (lambda: Of(lambda m, x: x.mean((2, 3)) + x.mean((-2, -1), True)[..., 0, 0]), IMAGE),
    "mean of rows": (lambda: Of(lambda m, x: x.mean(2) * x.sum(3) + x.amax(1)[:, :4]), IMAGE),
    "softmax": (lambda: nn.Softmax(1), IMAGE),
    "softmax of rows": (lambda: nn.Softmax(-1), ROWS),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.5)), IMAGE),
    "slice": (lambda: Of(lambda m, x: x[:, 1:3, :-1, 2:] + x[:, -2:, 1:, :6]), IMAGE),
    "pad": (lambda: nn.ConstantPad2d((1, 2, 0, 3), 0.5), IMAGE),
    "upsample_nearest2d": (lambda: nn.Upsample(scale_factor=(2, 3)), IMAGE),
}  # fmt: skip


@pytest.mark.thinned(16)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_and_its_model_agree(name: str) -> None:
    make, shape = MODULES[name]
    compare(make(), torch.randn(shape))


def small() -> Any:
    return nn.Sequential(
        Adder2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(16, 10),
    )  # fmt: skip


def test_a_network() -> None:
    model = compare(small(), torch.randn(2, 1, 8, 8))
    assert [*model.weights] == [
        "layer0.f", "layer1.gamma", "layer1.beta", "layer1.mean", "layer1.variance", "layer6.f",
        "layer6.b",
    ]  # fmt: skip
    eta = {p.name: p.eta for p in model.graph(training=False).parameters}
    assert (eta["layer0.f"], eta["layer6.f"]) == (0.2, None)


@pytest.mark.slow
def test_resnet20() -> None:
    from benchmarks.torch_layer import resnet20

    compare(resnet20(Adder2d), torch.randn(2, 3, 32, 32))


def test_several_inputs_and_outputs() -> None:
    def both(module: Any, image: Any, meta: Any) -> tuple[Any, Any]:
        rows = torch.cat([image.mean((2, 3)), meta], 1)
        return module.size(rows), image * 2

    compare(Of(both, size=nn.Linear(7, 2)), torch.randn(2, 4, 3, 3), torch.randn(2, 3))


class Two(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (lambda a, b: {"size": a, "kind": b}, ["size", "kind"]),
        (lambda a, b: {"all": [a, b]}, ["all.0", "all.1"]),
        (lambda a, b: {0: a, "a b": b}, ["layer0", "a_b"]), (Two, ["first", "second"]),
        (lambda a, b: [a, {"kind": b}], ["one", "two"]),  # of a list: those of the layers
    ],
)  # fmt: skip
def test_outputs_keep_their_names(made: Callable[[Any, Any], Any], names: list[str]) -> None:
    module = Of(lambda m, x: made(m.one(x), m.two(x)), one=nn.Linear(6, 2), two=nn.Linear(6, 3))
    x = torch.randn(ROWS)
    model = ag.from_torch(module.eval(), x)
    assert [v.name for v in model.inference_graph().outputs] == names
    found = model.predict(x.numpy(), engine="reference")
    for name, layer in zip(names, (module.one, module.two), strict=True):
        np.testing.assert_allclose(found[name], layer(x).detach(), rtol=1e-5, atol=1e-6)


def test_named_outputs_train_as_the_others() -> None:
    """Norms and dropouts are known by the names of values, which outputs change."""
    module = Of(
        lambda m, x: {"norms": m.norm(x), "rows": m.drop(y := m.last(x)), "whole": y},
        norm=nn.BatchNorm1d(6, momentum=0.25), drop=nn.Dropout(0.5), last=nn.Linear(6, 2),
    )  # fmt: skip
    graph = ag.from_torch(module, torch.randn(ROWS)).graph(training=True, batch=2)
    assert {"norm.mean", "norm.variance"} < {u.parameter.name for u in graph.updates}
    assert [n.op.name for n in graph.nodes].count("dropout") == 1


def test_a_layer_that_is_called_twice_shares_its_filter() -> None:
    layer = nn.Linear(6, 6)
    model = compare(
        Of(lambda m, x: m.layer(torch.relu(m.layer(x))), layer=layer), torch.randn(ROWS)
    )
    assert len(model.weights) == 2


# --- training -------------------------------------------------------------------------------------


def test_the_model_trains_as_the_module_would(tmp_path: Path) -> None:
    """Also once it was saved and loaded: dropouts, batch norms, what is frozen."""
    module = small()
    module[0].adder.requires_grad_(False)
    model = ag.from_torch(module, torch.randn(2, 1, 8, 8), name="small", loss="cat_cross_entropy")
    model.save(tmp_path / "m.safetensors")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8, 8, 1)).astype(np.float32), rng.integers(10, size=32)
    for one in (model, ag.Model.load(tmp_path / "m.safetensors")):
        before = {name: array.copy() for name, array in one.weights.items()}
        graph = one.graph(training=True, batch=16)
        (left,) = (n.op.rate for n in graph.nodes if n.op.training_only)  # type: ignore[attr-defined]
        assert left == 0.25
        one.fit(x, y, epochs=1, batch_size=16, verbose=0, batch_norm_samples=0)
        moved = {name for name, array in one.weights.items() if (array != before[name]).any()}
        assert moved == set(before) - {"layer0.f"}


@pytest.mark.parametrize("eta", [0.3, None])
def test_adder_layers_keep_their_rate(eta: float | None) -> None:
    model = ag.from_torch(Adder2d(4, 2, 1, eta=eta), torch.randn(2, 4, 3, 3))
    (f,) = model.graph(training=False).parameters
    assert f.eta == eta


def test_batch_norms_move_by_their_momentum() -> None:
    module = nn.Sequential(nn.BatchNorm1d(6, momentum=0.3), nn.Linear(6, 3))
    x = torch.randn(8, 6)
    model = ag.from_torch(module, x)
    model.train_step(8)(x.numpy(), np.arange(8) % 3, 0.0)
    module.train()(x)
    for ours, theirs in (("mean", "running_mean"), ("variance", "running_var")):
        expected = getattr(module[0], theirs).numpy()
        np.testing.assert_allclose(model.weights[f"layer0.{ours}"], expected, rtol=1e-5, atol=1e-6)


def test_readers_beside_a_dropout_see_its_operand() -> None:
    """x + dropout(x): in training, the first x is whole."""
    module = Of(lambda m, x: m.last(x * 1.5 + m.drop(x)), drop=nn.Dropout(0.9), last=nn.Identity())
    graph = compare(module, torch.randn(ROWS)).graph(training=True, batch=4)
    (dropped,) = (n for n in graph.nodes if n.op.training_only)
    readers = [n for n in graph.nodes if dropped.outputs[0] in n.inputs]
    assert [n.op.name for n in readers] == ["add"]


def test_a_dropout_of_channels_has_no_training_form() -> None:
    model = ag.from_torch(nn.Sequential(nn.Dropout2d(0.5), nn.Flatten()), torch.randn(IMAGE))
    with pytest.raises(UnsupportedError, match="training form"):
        model.graph(training=True, batch=2)


def test_the_module_is_left_as_it_was() -> None:
    module = small()
    module[1].eval()
    ag.from_torch(module, torch.randn(2, 1, 8, 8))
    assert [part.training for part in module] == [part is not module[1] for part in module]


# --- what is refused ------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], tuple[int, ...], str]] = {
    "gelu": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU()), IMAGE,
        r'aten\.gelu\.default \(%gelu\), in module "1": return F\.gelu.* is not known',
    ),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 2, 3), IMAGE, "conv_transpose2d"),
    "conv1d": (lambda: nn.Conv1d(6, 2, 1), (2, 6, 5), "conv1d"),
    "ceil_mode": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE, "rounds its size up"),
    "dilated pool": (lambda: nn.MaxPool2d(2, dilation=2), IMAGE, "dilation"),
    "pad in means": (
        lambda: nn.AvgPool2d(3, padding=1, count_include_pad=False), IMAGE, "count_include_pad",
    ),
    "divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), IMAGE, "divisor of its own"),
    "uneven pool": (lambda: nn.AdaptiveAvgPool2d(3), IMAGE, "windows of different sizes"),
    "batch statistics": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "atch_?[nN]orm",
    ),
    "linear of pixels": (lambda: nn.Linear(8, 2), IMAGE, r"expected \[N, K\]"),
    "softmax of columns": (lambda: nn.Softmax(-1), IMAGE, "not over channels"),
    "view of samples": (lambda: Of(lambda m, x: x.view(-1, 8)), IMAGE, "axis of the batch"),
    "joined samples": (lambda: Of(lambda m, x: torch.cat([x, x])), IMAGE, "joins samples"),
    "mean of samples": (lambda: Of(lambda m, x: x - x.mean()), IMAGE, "takes samples together"),
    "moved batch": (lambda: Of(lambda m, x: x.transpose(0, 1)), IMAGE, "moves the axis"),
    "first sample": (lambda: Of(lambda m, x: x[0]), IMAGE, "takes one sample"),
    "steps": (lambda: Of(lambda m, x: x[:, :, ::2]), IMAGE, "every so many elements"),
    "reflected": (lambda: nn.ReflectionPad2d(1), IMAGE, "reflect"),
    "spread": (lambda: Of(lambda m, x: x + x.mean((1, 2))), (8, 4, 8, 8), "spreads"),
    "for each sample": (
        lambda: Of(lambda m, x: x * m.s, s=torch.randn(2, 4, 1, 1)), IMAGE, "axis for the batch",
    ),
    "integers": (lambda: Of(lambda m, x: x.argmax(1)), IMAGE, "argmax"),
    "floor": (lambda: Of(lambda m, x: torch.div(x, 2, rounding_mode="floor")), IMAGE, "rounds"),
    "random": (lambda: Of(lambda m, x: x + torch.rand(8)), IMAGE, "is random"),
    "a decision": (lambda: Of(lambda m, x: x if x.sum() > 0 else -x), ROWS, "cannot trace"),
    "the name of another": (
        lambda: Of(lambda m, x: {"relu": m.last(torch.relu(x))}, last=nn.Linear(6, 2)), ROWS,
        'output "relu", which is the name of another',
    ),
    "one tensor, two names": (
        lambda: Of(lambda m, x: dict.fromkeys("ab", x + 1)), ROWS, "as two outputs",
    ),
    "no tensor": (lambda: Of(lambda m, x: torch.ones(3)), ROWS, "depend on its inputs"),
    "two places": (
        lambda: Of(lambda m, x: F.linear(x, m.w) * m.w[:1].sum() + x * m.w, w=nn.Parameter(
            torch.randn(1, 6))), ROWS, "another op takes in another place",
    ),
}  # fmt: skip


@pytest.mark.thinned(16)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equivalent_is_named(name: str) -> None:
    make, shape, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        ag.from_torch(make(), torch.randn(shape))


@pytest.mark.filterwarnings("ignore")
def test_a_refusal_comes_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Without what torch.export logs and prints; what the module prints itself is the user's."""

    def decide(module: Any, x: Any) -> Any:
        print("mine", file=sys.stderr)
        logging.getLogger("torch.export").warning("its own")
        return x if x.sum() > 0 else -x

    filters = [*logging.getLogger("torch.export").filters]
    with pytest.raises(UnsupportedError, match="cannot trace"):
        ag.from_torch(Of(decide), torch.zeros(ROWS))
    assert capfd.readouterr() == ("", "mine\n")
    assert logging.getLogger("torch.export").filters == filters


@pytest.mark.filterwarnings("ignore")
def test_what_is_logged_on_the_way_to_a_success_comes(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.of_this_test")

    def tell(module: Any, x: Any) -> Any:
        logger.warning("seen")
        return x + 1

    ag.from_torch(Of(tell), torch.zeros(ROWS))
    assert "seen" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (len, torch.zeros(2, 3), "expected a torch.nn.Module, found <built-in"),
        (nn.Identity, torch.zeros(2, 3), "expected a torch.nn.Module"),
        (nn.ReLU(), np.zeros((2, 3)), "expected tensors, found an array"),
        (nn.ReLU(), (), "same batch, of 1 or more; found none"),
        (nn.ReLU(), torch.zeros(3), r"example is torch.float32 \[3\]"),
        (nn.ReLU(), torch.zeros(2, 3).double(), "torch.float64"),
        (nn.ReLU(), torch.zeros(0, 3), "same batch, of 1 or more"),
        (nn.ReLU(), (torch.zeros(2, 3), torch.zeros(3, 3)), r"found \[2, 3\], \[3, 3\]"),
        (nn.Linear(3, 2).double(), torch.zeros(2, 3), '"weight" is torch.float64 on cpu'),
    ],
)
def test_what_is_no_module_or_example(module: Any, example: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ag.from_torch(module, example)
