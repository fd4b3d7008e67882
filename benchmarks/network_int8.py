"""ResNet-20 in integers as a whole, held against convolutions in int8 and in f32.

    taskset -c 1 python -m benchmarks.network_int8                     # against ONNX Runtime
    taskset -c 1 python -m benchmarks.network_int8 --target x86-64-v3  # in AVX2, against PyTorch
    taskset -c 1 python -m benchmarks.network_int8 --weights integers.safetensors

One image, one thread. Ours is the authors' form: adder layers between a convolution and a dense
layer, filters from N(0,1), batch norms with the statistics of random images, quantized on these; or
what `addergraph quantize` made of a trained model (`--weights`).
ONNX Runtime's network has convolutions throughout, with the same shapes: in f32, and quantized
statically, filters per channel. It cannot be held to an instruction set; PyTorch's quantized
convolutions on oneDNN can, by ONEDNN_MAX_CPU_ISA. All take turns, each at the best of many calls
from Python, with its own call overhead. Ours takes the image as bytes, the others as f32.

Ends with status 1 below 1.3 times the speed of int8 and 2.8 times that of f32, or below 1.8 times
where both are held.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.quantization import Quantized, load_quantized
from benchmarks.network import best, onnx_call, onnx_resnet20

HELD = "x86-64-v3"
REQUIRED_INT8, REQUIRED_F32, REQUIRED_HELD = 1.3, 2.8, 1.8
SAMPLES = 32
Image = np.ndarray
Call = Callable[[], object]


def quantized(requantize: str, images: Image) -> Quantized:
    """The adder network in integers, its batch norms settled on `images`."""
    model = zoo.build("resnet20")
    training = model.graph(training=True, batch=len(images))
    found = [n for n in training.nodes if n.op.name == "batch_norm_statistics"]
    statistics = ag.Graph(
        "statistics", training.inputs, training.parameters, training.nodes,
        tuple(v for node in found for v in node.outputs),
    )  # fmt: skip
    program = ag.compile(statistics, weights=model.weights)
    graph = model.graph(training=False)
    norms = [n for n in graph.nodes if n.op.name == "batch_norm"]
    names = [v.name for node in norms for v in node.inputs[1:3]]
    weights = dict(model.weights) | dict(zip(names, program(images), strict=True))
    return ag.quantize(graph, images, weights=weights, requantize=requantize)


def onnx_int8(images: Image) -> bytes:
    """The convolutions of `network.py`, quantized statically on `images`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Image] = iter(images)

        def get_next(self) -> dict[str, Image] | None:
            image = next(self.left, None)
            return None if image is None else {"x": planes(image[None])}

    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(onnx_resnet20())
        quantization.quantize_static(
            plain, made, Reader(), per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        return made.read_bytes()


def planes(images: Image) -> Image:
    """NCHW."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


class TorchInt8:
    """The same convolutions with PyTorch's quantized ones, sums and relus inside of them."""

    def __init__(self) -> None:
        import torch

        warnings.filterwarnings("ignore", message="torch.quantize_per")  # to be removed one day
        torch.backends.quantized.engine = "onednn"
        torch.set_num_threads(1)
        self.ops, self.rng = torch.ops.quantized, np.random.default_rng(0)
        self.scale = 0.05
        self.first = self._layer(3, 16, 3, 1)
        self.blocks: list[tuple[Any, Any, Any]] = []
        inputs = 16
        for stage in range(3):
            for block in range(3):
                outputs, stride = 16 << stage, 2 if stage and not block else 1
                one = self._layer(inputs, outputs, 3, stride)
                two = self._layer(outputs, outputs, 3, 1)
                skip = self._layer(inputs, outputs, 1, stride) if stride > 1 else None
                self.blocks.append((one, two, skip))
                inputs = outputs
        made = torch.quantize_per_tensor(
            torch.from_numpy(self._normal(10, 64)), 0.02, 0, torch.qint8
        )
        self.last = self.ops.linear_prepack(made, torch.zeros(10))

    def _normal(self, *shape: int) -> Image:
        return self.rng.normal(size=shape).astype(np.float32)

    def _layer(self, inputs: int, outputs: int, size: int, stride: int) -> Any:
        import torch

        f = torch.from_numpy(self._normal(outputs, inputs, size, size) / (size * inputs**0.5))
        scales = f.abs().amax((1, 2, 3)).double() / 127
        zeros = torch.zeros(outputs, dtype=torch.int64)
        f = torch.quantize_per_channel(f, scales, zeros, 0, torch.qint8)
        return self.ops.conv2d_prepack(
            f, torch.zeros(outputs), [stride] * 2, [size // 2] * 2, [1, 1], 1
        )

    def call(self, image: Image) -> Call:
        """What runs the network on one image, NHWC."""
        import torch

        ops, scale = self.ops, self.scale
        x = torch.from_numpy(image).permute(0, 3, 1, 2)
        x = torch.quantize_per_tensor(x, scale, 128, torch.quint8)

        def run() -> object:
            with torch.inference_mode():
                y = ops.conv2d_relu(x, self.first, scale, 0)
                for one, two, skip in self.blocks:
                    kept = y if skip is None else ops.conv2d(y, skip, scale, 128)
                    y = ops.conv2d_relu(y, one, scale, 0)
                    y = ops.conv2d_add_relu(y, kept, two, scale, 0)
                y = torch.nn.functional.adaptive_avg_pool2d(y, 1).flatten(1)
                return ops.linear(y, self.last, scale, 128)

        return run


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--target", default="host", help=f"host, or {HELD} to hold both to AVX2")
    parser.add_argument("--requantize", default="shift", choices=("shift", "multiply"))
    parser.add_argument("--weights", metavar="MODEL", help="an int8 resnet20")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(SAMPLES, 32, 32, 3)).astype(np.float32)
    trained = chosen.weights
    made = load_quantized(trained) if trained else quantized(chosen.requantize, images)
    program = ag.compile(made.graph, weights=made.weights, target=chosen.target, cache=False)
    one = images[:1]
    pixels = rng.integers(0, 256, one.shape, np.uint8)
    bytes_in = made.inputs(pixels if made.preprocessing else one)
    calls: dict[str, tuple[float, Call]] = {}
    if chosen.target == HELD:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"  # read when PyTorch loads
        calls["PyTorch int8 (oneDNN, AVX2)"] = REQUIRED_HELD, TorchInt8().call(one)
    else:
        whole = planes(one)
        f32, int8 = onnx_call(onnx_resnet20()), onnx_call(onnx_int8(images))
        calls["ONNX Runtime int8"] = REQUIRED_INT8, lambda: int8(whole)
        calls["ONNX Runtime f32"] = REQUIRED_F32, lambda: f32(whole)
    mine, *others = best([lambda: program(bytes_in), *[call for _, call in calls.values()]])
    print(
        f"ResNet-20 in integers ({made.chosen}, {chosen.target}), one image, one thread: "
        f"{mine * 1e6:.0f} us"
    )
    good = True
    for (name, (required, _)), other in zip(calls.items(), others, strict=True):
        good &= other / mine >= required
        print(
            f"  {name}: {other * 1e6:.0f} us: ours is {other / mine:.2f} times as fast "
            f"(required: {required})"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
