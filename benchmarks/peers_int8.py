"""Convolutions of u8 activations with s8 filters, in the peers' process of `peers.py`.

Activations are u8 with one scale, filters s8 with one scale per channel, sums i32, and what comes
out is u8 again: static quantization, NHWC throughout. Side by side, no peer adds up its results,
which both would do in a pass of its own. PyTorch runs the quantized convolution with relu on
oneDNN and on FBGEMM, ONNX Runtime QLinearConv in the form that its optimizer gives it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from addergraph.cli.bench.timing import Layer
from addergraph.ir import Array

Programs = dict[str, dict[int, Callable[[], object]]]
DEVIATION = 73.0  # of uniform bytes, positive and negative


def torch_int8_programs(layer: Layer, batch: int, held: bool) -> Programs:
    """By engine. FBGEMM obeys no ONEDNN_MAX_CPU_ISA: it is left out where that holds oneDNN."""
    import torch

    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")  # to be removed one day
    known = [e for e in torch.backends.quantized.supported_engines if e in ("onednn", "fbgemm")]
    engines = [e for e in known if not (held and e == "fbgemm")]
    return {f"torch {engine}": _torch_engine(engine, layer, batch) for engine in engines}


def _torch_engine(engine: str, layer: Layer, batch: int) -> dict[int, Callable[[], object]]:
    import torch

    torch.backends.quantized.engine = engine
    image, numbers = _numbers(layer, batch)
    x = torch._make_per_tensor_quantized_tensor(torch.from_numpy(image).permute(0, 3, 1, 2), 1.0, 0)
    scales = torch.ones(layer.outputs, dtype=torch.double)
    zeros = torch.zeros(layer.outputs, dtype=torch.int64)
    filters = [
        torch.ops.quantized.conv2d_prepack(
            torch._make_per_channel_quantized_tensor(torch.from_numpy(f), scales, zeros, 0),
            torch.zeros(layer.outputs), [layer.stride] * 2, [layer.padding] * 2, [1, 1], 1,
        )
        for f in numbers
    ]  # fmt: skip
    filters *= max(layer.counts) // len(filters)

    def program(count: int) -> Callable[[], object]:
        def run() -> object:
            y = x
            with torch.inference_mode():
                for f in filters[:count]:
                    y = torch.ops.quantized.conv2d_relu(
                        y if layer.chains else x, f, _scale(layer), 0
                    )
            return y

        return run

    return {count: program(count) for count in layer.counts}


def onnx_int8_programs(layer: Layer, batch: int, threads: int) -> Programs:
    """Outputs are bound beforehand: several of them would else be allocated by each call."""
    import onnxruntime

    image, filters = _numbers(layer, batch)

    def program(count: int) -> Callable[[], object]:
        session = onnx_session(_onnx_model(layer, batch, filters, count), threads)
        binding = session.io_binding()
        binding.bind_cpu_input("x", image)
        shape = [batch, layer.made, layer.made, layer.outputs]
        for output in session.get_outputs():
            made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8)
            binding.bind_ortvalue_output(output.name, made)
        return lambda: session.run_with_iobinding(binding)

    return {"onnxruntime": {count: program(count) for count in layer.counts}}


def onnx_session(model: bytes, threads: int) -> Any:
    """A session on the CPU that keeps its warnings to itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnx_model(layer: Layer, batch: int, filters: Array, count: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    channels = layer.outputs
    shared: dict[str, Any] = {
        "one": np.float32(1), "zero": np.uint8(0), "scale": np.float32(_scale(layer)),
        "ones": np.ones(channels, np.float32), "zeros": np.zeros(channels, np.int8),
        "bias": np.zeros(channels, np.int32),
    }  # fmt: skip
    numbers = shared | {f"f{i}": f for i, f in enumerate(filters[:count])}
    attributes: dict[str, Any] = {
        "kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4, "channels_last": 1, "domain": "com.microsoft",
    }  # fmt: skip
    nodes = []
    for i in range(count):
        image, f = ("x" if i == 0 or not layer.chains else f"y{i - 1}"), i % layer.filters
        operands = [image, "one", "zero", f"f{f}", "ones", "zeros", "scale", "zero", "bias"]
        nodes.append(helper.make_node("QLinearConv", operands, [f"y{i}"], **attributes))
    last = [f"y{count - 1}"] if layer.chains else [f"y{i}" for i in range(count)]
    graph = helper.make_graph(
        nodes, "layers",
        [_image(helper, TensorProto, "x", batch, layer.size, layer.inputs)],
        [_image(helper, TensorProto, y, batch, layer.made, channels) for y in last],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in numbers.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def _image(helper: Any, types: Any, name: str, batch: int, size: int, channels: int) -> Any:
    return helper.make_tensor_value_info(name, types.UINT8, [batch, size, size, channels])


def _scale(layer: Layer) -> float:
    """Of the results: it brings their deviation near that of the input."""
    return DEVIATION * math.sqrt(layer.window)


def _numbers(layer: Layer, batch: int) -> tuple[Array, Array]:
    """The input, NHWC, and the filters, OIHW: bytes of all values."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch, layer.size, layer.size, layer.inputs), np.uint8)
    shape = (layer.filters, layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    return x, rng.integers(-127, 128, shape, np.int8)
