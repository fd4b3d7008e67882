"""A network that PyTorch's own exporter wrote gives PyTorch's logits."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.model import Model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
MOST = 1e-5  # of a logit


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Batch norms, a residual sum, grouped and dilated convolutions, pools, upsampling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.c1, self.b1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), nn.BatchNorm2d(8)
        self.p = nn.MaxPool2d(3, 2, 1)
        self.a = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
        self.g, self.d, self.l = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Linear(8, 10)
        self.flat = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Any) -> Any:
        f = torch.nn.functional
        x = torch.relu(self.b1(self.c1(x)))
        x = self.p(x + f.hardswish(self.b2(self.c2(x))))
        x = f.leaky_relu(f.interpolate(self.a(x), scale_factor=2), 0.1)
        pooled = self.g(x).flatten(1)
        return self.l(self.d(pooled)) + self.flat(x[:, :, 1:5, 1:5].reshape(x.size(0), -1))


def trained() -> Any:
    torch.manual_seed(0)
    net = Net().eval()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.uniform_(0.5, 2)
            m.bias.data.normal_()
    return net


DYNAMO = pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None,
    reason="PyTorch's newer exporter needs onnxscript",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=DYNAMO)])
@pytest.mark.parametrize("fixed", [False, True])
def test_logits_of_pytorch(tmp_path: Path, dynamo: bool, fixed: bool) -> None:
    net, path = trained(), tmp_path / "net.onnx"
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
    if not fixed and dynamo:
        options["dynamic_shapes"] = {"x": {0: torch.export.Dim("batch")}}
    elif not fixed:
        options["dynamic_axes"] = {"x": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x[: 2 if dynamo else 1],), str(path), dynamo=dynamo, **options)
    model = ag.from_onnx(path)
    assert isinstance(model, Model)
    found = model.predict(x.permute(0, 2, 3, 1).contiguous().numpy())
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=0, atol=MOST)
    assert "transpose" not in str(model.graph(training=False))
