"""`addergraph.torch.Adder2d` against the published formulas, and in all that PyTorch does with
layers."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from addergraph.errors import DataError, ShapeError, UnsupportedError

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

from addergraph.torch import Adder2d, adder2d, programs  # noqa: E402
from addergraph.torch.custom_ops import require_reachable  # noqa: E402
from tests.addergraph.torch.published import Published  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.usefixtures("quick_objects")

GEOMETRIES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((3, 8, 3), {"padding": 1}),
    ((4, 8, 3, 2, 1, True), {"groups": 2}),
    ((4, 6, 3), {"padding": 2, "dilation": 2, "bias": True}),
    ((6, 6, 1, 2), {"groups": 6}),
    ((1, 5, 5), {"eta": None}),
    ((2, 3, 3, 3, 2, True), {"eta": 0.7}),
]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def image(*shape: int, least: float = -3.0) -> Any:
    return torch.empty(shape).uniform_(least, 3.0)


def gradients(layer: Any, x: Any, upstream: Any) -> dict[str, Any]:
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(upstream.to(y.dtype))
    found = {name: p.grad for name, p in layer.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **found}


def require_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert found[name].shape == one.shape, name
        error = float((found[name].double() - one).norm() / one.norm())
        assert error < tolerance, (name, error)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [-3.0, 0.0], ids=["any sign", "behind a relu"])
@pytest.mark.parametrize(("given", "named"), GEOMETRIES)
def test_the_layer_and_its_gradients_are_the_published_ones(
    given: tuple[int, ...], named: dict[str, Any], least: float
) -> None:
    ours, theirs = Adder2d(*given, **named), Published(*given, **named)  # type: ignore[arg-type]
    theirs.load_state_dict(ours.state_dict())
    x = image(5, given[0], 9, 9, least=least)
    upstream = torch.randn(ours(x).shape)
    expected = gradients(theirs.double(), x.double(), upstream)
    require_close(gradients(ours, x, upstream), expected, 2e-6)
    ours.zero_grad()
    last = x.contiguous(memory_format=torch.channels_last)
    require_close(gradients(ours, last, upstream), expected, 2e-6)


def test_rectangles() -> None:
    layer = Adder2d(2, 3, (1, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    x = image(2, 2, 4, 8)
    y = layer(x)
    assert tuple(y.shape) == (2, 3, 2, 6)
    padded = nn.functional.pad(x, (1, 1))[:, :, ::2]
    taps = torch.stack([padded[..., j : j + 6] for j in (0, 2, 4)], -1)
    expected = -(taps[:, None] - layer.adder[:, :, 0][None, :, :, None, None]).abs().sum((2, -1))
    torch.testing.assert_close(y, expected)


def test_bits_do_not_depend_on_threads_or_on_the_batch() -> None:
    layer, x = Adder2d(4, 8, 3, padding=1), image(6, 4, 7, 7)
    one = gradients(layer, x, torch.ones(6, 8, 7, 7))
    torch.set_num_threads(3)
    layer.zero_grad()
    three = gradients(layer, x, torch.ones(6, 8, 7, 7))
    assert all(torch.equal(one[name], three[name]) for name in one)
    for batch in (1, 2, 5):
        assert torch.equal(layer(x[:batch]), one["y"][:batch])


def test_a_seed_gives_the_filters_of_the_authors_layer() -> None:
    """Which draws them, and draws them again."""
    torch.manual_seed(5)
    layer = Adder2d(2, 3, 3, bias=True)
    torch.manual_seed(5)
    torch.randn(3, 2, 3, 3)
    assert torch.equal(layer.adder, torch.randn(3, 2, 3, 3))
    assert torch.equal(layer.b, torch.rand(3))
    assert [*layer.state_dict()] == ["adder", "b"]
    assert adder2d is Adder2d


@pytest.mark.slow
def test_a_training_step_of_resnet20() -> None:
    """Gradients of every parameter, in f32, against the published formulas in f64."""
    from benchmarks.torch_layer import images, resnet20

    ours, theirs = resnet20(Adder2d), resnet20(Published)
    theirs.load_state_dict(ours.state_dict())
    x, targets = images(16)
    inputs, labels = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(targets.argmax(1))
    for network, dtype in ((ours, torch.float32), (theirs.double(), torch.float64)):
        loss = nn.functional.cross_entropy(network(inputs.to(dtype).contiguous()), labels)
        loss.backward()
    found = {name: p.grad for name, p in ours.named_parameters()}
    require_close(found, {name: p.grad for name, p in theirs.named_parameters()}, 1e-4)


# --- memory ---------------------------------------------------------------------------------------


def addresses(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Where the operands of each call are, from now on, and last its result."""
    seen: list[list[int]] = []
    run = programs.run

    def record(kind: str, window: Any, inputs: Any, output: Any, threads: int) -> None:
        seen.append([a.ctypes.data for a in (*inputs, output)])
        run(kind, window, inputs, output, threads)

    monkeypatch.setattr(programs, "run", record)
    return seen


def test_channels_last_is_passed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, seen = Adder2d(3, 4, 3, padding=1), addresses(monkeypatch)
    x = image(2, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    upstream = torch.ones_like(y)
    y.backward(upstream)
    forward, by_input, by_filter = seen
    assert (forward[0], forward[-1]) == (x.data_ptr(), y.data_ptr())
    assert by_input[:2] == by_filter[:2] == [upstream.data_ptr(), x.data_ptr()]
    assert by_input[-1] == x.grad.data_ptr()


def test_results_are_laid_out_as_the_input() -> None:
    """As of PyTorch's own layers: what views the results of one network works in another."""
    for bias in (False, True):
        layer, x = Adder2d(3, 4, 3, padding=1, bias=bias), image(2, 3, 5, 5).requires_grad_()
        y = layer(x)
        y.view(2, -1).sum().backward()
        assert x.grad.is_contiguous()
    sliced = image(2, 6, 5, 5)[:, ::2]
    assert layer(sliced).is_contiguous()
    assert torch.equal(layer(sliced), layer(sliced.contiguous()))


def test_other_tensors_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, seen = Adder2d(3, 4, 3, padding=1), addresses(monkeypatch)
    x = image(2, 3, 5, 5).requires_grad_()
    layer(x).sum().backward()
    forward, by_input, by_filter = seen
    assert forward[0] == by_input[1] == by_filter[1] != x.data_ptr()
    assert by_input[0] == by_filter[0]


def test_one_program_serves_every_batch_and_few_are_kept() -> None:
    layer = Adder2d(3, 4, 3, padding=1)
    programs.program.cache_clear()
    for batch in range(1, 9):
        layer(image(batch, 3, 6, 5))
    assert programs.program.cache_info().currsize == 1
    assert programs.program.cache_info().maxsize == programs.MOST_PROGRAMS
    layer(image(2, 3, 6, 5, least=0.0))
    layer(image(2, 3, 6, 6))
    assert programs.program.cache_info().currsize == 3


def test_an_empty_batch() -> None:
    layer, x = Adder2d(3, 4, 3, bias=True), torch.empty(0, 3, 5, 5, requires_grad=True)
    y = layer(x)
    assert tuple(y.shape) == (0, 4, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not layer.adder.grad.any() and not layer.b.grad.any()


# --- autograd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [*itertools.product((False, True), repeat=3)], ids=str)
def test_any_of_the_gradients(wanted: tuple[bool, bool, bool]) -> None:
    layer, x = Adder2d(2, 3, 3, bias=True), image(2, 2, 5, 5)
    tensors = (x, layer.adder, layer.b)
    for tensor, wants in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(wants)
    y = layer(x)
    assert y.requires_grad == any(wanted)
    if any(wanted):
        y.sum().backward()
    assert tuple(t.grad is not None for t in tensors) == wanted


def test_without_gradients() -> None:
    layer, x = Adder2d(2, 3, 3), image(2, 2, 5, 5)
    expected = layer(x).detach()
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            y = layer.eval()(x)
        assert not y.requires_grad and torch.equal(y, expected)


def test_a_second_derivative_is_refused() -> None:
    layer, x = Adder2d(2, 3, 3), image(2, 2, 5, 5).requires_grad_()
    for wrt in (x, layer.adder):
        (g,) = torch.autograd.grad(layer(x).sum(), wrt, create_graph=True)
        with pytest.raises(UnsupportedError, match="no second derivative"):
            g.sum().backward()


@pytest.mark.parametrize(
    "transform",
    [
        lambda layer, x: torch.func.jvp(layer, (x,), (x,)),
        lambda layer, x: torch.func.grad(lambda a: layer(a).sum())(x),
        lambda layer, x: torch.func.vmap(layer)(x[None]),
        lambda layer, x: torch.func.functional_call(layer, dict(layer.named_parameters()), (x,)),
    ],
    ids=["jvp", "grad", "vmap", "functional_call"],
)
def test_transforms_are_refused_but_for_calls(
    transform: Callable[[Adder2d, Any], Any], request: pytest.FixtureRequest
) -> None:
    layer, x = Adder2d(2, 3, 3), image(2, 2, 5, 5)
    if "functional_call" in request.node.name:
        assert torch.equal(transform(layer, x), layer(x))
        return
    with pytest.raises(UnsupportedError, match=r"torch\.func .* do not work"):
        transform(layer, x)


def test_forward_mode_is_refused() -> None:
    from torch.autograd import forward_ad

    layer, x = Adder2d(2, 3, 3), image(2, 2, 5, 5)
    with forward_ad.dual_level(), pytest.raises(UnsupportedError, match="forward-mode"):
        layer(forward_ad.make_dual(x, x))


def test_backward_inside_backward() -> None:
    """Checkpoints run a forward and a backward pass within one; so does a gradient of a hook's."""
    from torch.utils.checkpoint import checkpoint

    net = nn.Sequential(Adder2d(2, 3, 3), nn.ReLU(), Adder2d(3, 3, 3))
    x = image(2, 2, 7, 7).requires_grad_()
    net(x).sum().backward()
    expected = x.grad.clone()
    for reentrant in (True, False):
        x.grad = None
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
        assert torch.equal(x.grad, expected)


def test_changed_in_place() -> None:
    layer = Adder2d(2, 2, 1)
    x = image(1, 2, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    z = x * 1
    y = layer(z)
    y += 1  # the result may be changed
    z.add_(1)  # what backward reads may not
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_autocast_computes_in_f32() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), Adder2d(2, 3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(image(2, 2, 5, 5))
    assert y.dtype == torch.float32
    y.sum().backward()
    assert net[0].weight.grad.isfinite().all()


# --- processes and threads ------------------------------------------------------------------------


def test_many_threads_at_once() -> None:
    layer, x = Adder2d(3, 4, 3, padding=1), image(4, 3, 6, 6)
    upstream = torch.ones(4, 4, 6, 6)
    expected, found = gradients(layer, x, upstream), []
    torch.set_num_threads(2)

    def work() -> None:
        own = copy.deepcopy(layer)
        for _ in range(10):
            own.zero_grad()
            found.append(gradients(own, x, upstream))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 40
    assert all(torch.equal(one[name], expected[name]) for one in found for name in expected)


class Filtered(torch.utils.data.Dataset):
    """Samples that went through a layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 8

    def __getitem__(self, at: int) -> Any:
        with torch.no_grad():
            return self.layer(torch.full((1, 2, 4, 4), float(at)))[0]


@pytest.mark.slow
def test_workers_of_a_loader() -> None:
    """Forked while this process has worker threads of ours, and of PyTorch's."""
    layer = Adder2d(2, 3, 3)
    torch.set_num_threads(2)
    layer(image(4, 2, 6, 6))
    samples = Filtered(layer)
    loader = torch.utils.data.DataLoader(samples, batch_size=4, num_workers=2, timeout=60)
    found = torch.cat([*loader])
    assert torch.equal(found, torch.stack([samples[at] for at in range(8)]))


def test_copies() -> None:
    layer, x = Adder2d(2, 3, 3, bias=True, eta=None), image(2, 2, 5, 5)
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(made(x), layer(x))
        assert repr(made) == repr(layer)
    assert repr(layer) == "Adder2d(2, 3, kernel_size=(3, 3), bias=True, eta=None)"


# --- compilers ------------------------------------------------------------------------------------


def mixed() -> Any:
    return nn.Sequential(
        Adder2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Adder2d(4, 2, 1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_torch_compile(backend: str) -> None:
    """Without a break of the graph, and for batches of another size."""
    net = mixed()
    eager = copy.deepcopy(net)
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for batch in (3, 5):
        x = image(batch, 2, 6, 6)
        upstream = torch.randn(batch, 2, 6, 6)
        for one in (net, eager):
            one.zero_grad()
        expected = {n: g.double() for n, g in gradients(eager, x, upstream).items()}
        y = compiled(given := x.clone().requires_grad_())
        y.backward(upstream)
        found = {name: p.grad for name, p in net.named_parameters()}
        require_close({"y": y.detach(), "x": given.grad, **found}, expected, 1e-5)
    torch.compiler.reset()


@pytest.mark.slow
def test_the_custom_ops_keep_what_they_promise() -> None:
    layer, x = Adder2d(2, 4, 3, padding=1, bias=True), image(2, 2, 5, 5)
    ops, window = torch.ops.addergraph, ([1, 1], [1, 1], [1, 1], 1)
    g = torch.randn(2, 4, 5, 5)
    f = layer.adder.detach()
    torch.library.opcheck(
        ops.adder2d.default, (x.requires_grad_(), layer.adder, layer.b, *window, 0.2, False)
    )
    x = x.detach()
    for last in (False, True):
        torch.library.opcheck(ops.adder2d_grad_input.default, (g, x, f, *window, last))
    torch.library.opcheck(ops.adder2d_grad_filter.default, (g, x, f, *window))
    torch.library.opcheck(ops.dropout.default, (x, 0.5))


def test_shapes_without_data() -> None:
    with torch.device("meta"):
        layer = Adder2d(2, 4, 3, 2)
        assert tuple(layer(torch.empty(5, 2, 9, 7)).shape) == (5, 4, 4, 3)


# --- what is refused ------------------------------------------------------------------------------


def call(x: Any, *given: Any, **named: Any) -> Callable[[], object]:
    return lambda: Adder2d(*(given or (2, 3, 3)), **named)(x)


X = torch.zeros(2, 2, 5, 5)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (call(X.double()), ShapeError, r"float64 \[2, 2, 5, 5\]; expected float32: \.float"),
        (call(X.half()), ShapeError, "float16"),
        (call(X.to_sparse()), UnsupportedError, "sparse_coo; the compiled kernels take dense"),
        (call(X[0]), ShapeError, "expected four axes"),
        (call(X[:, :1]), ShapeError, "has 1 channels; a filter .* takes 2"),
        (call(X, 2, 3, 7), ShapeError, "kernel of 7x7 .* does not fit"),
        (call(X[:, :, :0], padding=2), ShapeError, r"\[2, 2, 0, 5\] has no pixels"),
        (call(np.zeros((2, 2, 5, 5))), DataError, "expected a torch.Tensor, found an array"),
        (call(None), DataError, "expected a torch.Tensor, found None"),
        (call(X, 2, 3, (1, 2, 3)), ShapeError, "kernel_size"),
        (call(X, 2, 3, 3, 0), ShapeError, "stride"),
        (call(X, 2, 3, 3, padding=-1), ShapeError, "padding"),
        (call(X, 2, 3, 3, groups=2), ShapeError, "do not divide into 2 groups"),
        (call(X, 2, 3, 3, bias=1), ShapeError, "bias"),
        (call(X, 2, 3, 3, eta=-1), ShapeError, "eta"),
        (call(X, 0, 3, 3), ShapeError, "input_channel"),
        (lambda: Adder2d(2, 3, 3).double()(X.double()), ShapeError, "float64"),
        (lambda: Adder2d(2, 3, 3).double()(X), ShapeError, "adder is float64"),
    ],
)
def test_what_is_refused(use: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()


def test_another_device_is_refused() -> None:
    class Elsewhere:
        device = torch.device("cuda", 0)

    with pytest.raises(UnsupportedError, match="input is on cuda:0; the compiled kernels run on"):
        require_reachable("input", Elsewhere())
