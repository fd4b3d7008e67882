"""Convolutions of PyTorch and ONNX Runtime on the shapes of `layers_against_peers.py`.

They run in a process of their own, because what instructions oneDNN may use is read from the
environment when it loads. The process takes turns with the one that asks: one line of JSON asks for
a layer, one line answers. As for the adder layers, a time is the slope over several layers, so that
no peer pays for its call or for reordering its input: in a chain where the shape chains; elsewhere
side by side on one input, where ONNX Runtime adds up the results in the convolutions, as the adder
layers do, and PyTorch, which would do so in a pass of its own, leaves it. Filters are scaled so
that no value of a chain becomes denormal. `peers_int8.py` has the peers of u8 layers.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from addergraph.cli.bench.timing import Layer, Slope, Timing
from addergraph.errors import AdderGraphError
from addergraph.ir import Array
from benchmarks.peers_int8 import Programs, onnx_int8_programs, onnx_session, torch_int8_programs

Maker = Callable[[Layer, int], Programs]

ROOT = Path(__file__).parent.parent

# oneDNN's name for what a target may use; ONNX Runtime cannot be held to anything.
HELD_TO = {"x86-64": "SSE41", "x86-64-v3": "AVX2"}


class Peers:
    """The convolutions that are installed; a context manager that ends their process.

    hold     the instruction set that oneDNN is held to, as ONEDNN_MAX_CPU_ISA takes it; None for
             all. What cannot be held is left out where it is not None.
    threads  of each call
    """

    def __init__(self, hold: str | None, threads: int) -> None:
        count = str(threads)
        environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        if hold is not None:
            environment["ONEDNN_MAX_CPU_ISA"] = hold
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, "held" if hold else "free", count],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.versions: list[str] = self._answer()

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *error: object) -> None:
        """The process ends with its input."""
        self._process.communicate()

    def measure(self, layer: Layer, batch: int, dtype: str, seconds: float) -> dict[str, Timing]:
        """Seconds of a convolution of the layer's shape, by peer and layout or engine.

        dtype  f32, or u8 with filters of s8

        Asked again for the same layer, batch and dtype, it answers for all runs so far.
        """
        assert self._process.stdin is not None
        asked = {"layer": asdict(layer), "batch": batch, "dtype": dtype, "seconds": seconds}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return {name: Timing(**timing) for name, timing in self._answer().items()}

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AdderGraphError(
                f"the process of the peers ended with status {self._process.wait()}; its message "
                "is above. Run with --no-peers to leave them out"
            )
        return json.loads(line)


# -- in the peers' process -------------------------------------------------------------------------


def _torch_programs(layer: Layer, batch: int) -> Programs:
    """Plain tensors in both layouts, and oneDNN's own with filters that are packed beforehand."""
    import torch
    from torch.utils import mkldnn

    x, filters = (torch.from_numpy(a) for a in _numbers(layer, batch))

    def conv(f: Any) -> Any:
        made = torch.nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding
        )
        made.weight.data.copy_(f)
        made.bias.data.zero_()
        return made.eval()

    def program(convolutions: list[Any], x: Any) -> Callable[[], object]:
        def run() -> object:
            y = x
            with torch.inference_mode():
                for one in convolutions:
                    y = one(y if layer.chains else x)
            return y

        return run

    def programs(change: Callable[[Any], Any], x: Any) -> dict[int, Callable[[], object]]:
        made = [change(conv(f)) for f in filters]
        several = made * (max(layer.counts) // len(made))
        return {n: program(several[:n], x) for n in layer.counts}

    last = torch.channels_last
    made = {
        "torch": programs(lambda c: c, x),
        "torch channels-last": programs(
            lambda c: c.to(memory_format=last), x.contiguous(memory_format=last)
        ),
    }
    if torch.backends.mkldnn.is_available():
        made["torch packed"] = programs(mkldnn.to_mkldnn, x.to_mkldnn())
    return made


def _onnx_programs(layer: Layer, batch: int, threads: int) -> Programs:
    x, filters = _numbers(layer, batch)

    def program(count: int) -> Callable[[], object]:
        session = onnx_session(_onnx_model(layer, batch, filters, count), threads)
        return lambda: session.run(None, {"x": x})

    return {"onnxruntime": {count: program(count) for count in layer.counts}}


def _onnx_model(layer: Layer, batch: int, filters: Array, count: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    attributes: dict[str, Any] = {
        "kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
    }  # fmt: skip
    nodes, last = [], "x"
    for i in range(count):
        image, f = (last, 0) if layer.chains else ("x", i)
        nodes.append(helper.make_node("Conv", [image, f"f{f}"], [f"y{i}"], **attributes))
        if not layer.chains and i:
            nodes.append(helper.make_node("Add", [f"y{i}", last], [f"sum{i}"]))
        last = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes, "layers",
        [_image(helper, TensorProto, "x", batch, layer.inputs, layer.size)],
        [_image(helper, TensorProto, last, batch, layer.outputs, layer.made)],
        [numpy_helper.from_array(f, f"f{i}") for i, f in enumerate(filters[:count])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _image(helper: Any, types: Any, name: str, batch: int, channels: int, size: int) -> Any:
    return helper.make_tensor_value_info(name, types.FLOAT, [batch, channels, size, size])


def _numbers(layer: Layer, batch: int) -> tuple[Array, Array]:
    """The input, NCHW, and the filters, OIHW."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.inputs, layer.size, layer.size), np.float32)
    shape = (layer.filters, layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    return x, rng.standard_normal(shape, np.float32) / np.float32(layer.window**0.5)


def _installed(held: bool, threads: int) -> dict[str, dict[str, Maker]]:
    """The version of each peer -> what makes its programs, by dtype."""
    made: dict[str, dict[str, Maker]] = {}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        int8 = functools.partial(torch_int8_programs, held=held)
        made[f"torch {torch.__version__}"] = {"f32": _torch_programs, "u8": int8}
    if not held and all(map(importlib.util.find_spec, ("onnxruntime", "onnx"))):
        import onnxruntime

        made[f"onnxruntime {onnxruntime.__version__}"] = {
            "f32": functools.partial(_onnx_programs, threads=threads),
            "u8": functools.partial(onnx_int8_programs, threads=threads),
        }
    return made


def _serve(held: bool, threads: int) -> None:
    peers = _installed(held, threads)
    print(json.dumps(list(peers)), flush=True)
    asked_before: tuple[Layer, int, str] | None = None
    slopes: dict[str, Slope] = {}
    for line in sys.stdin:
        asked: Mapping[str, Any] = json.loads(line)
        layer, batch, dtype = Layer(**asked["layer"]), asked["batch"], asked["dtype"]
        if (layer, batch, dtype) != asked_before:
            asked_before, slopes = (layer, batch, dtype), {}
            for makers in peers.values():
                programs = makers[dtype](layer, batch)
                slopes |= {name: Slope(p, threads) for name, p in programs.items()}
        for one in slopes.values():
            one.run(asked["seconds"])
        print(json.dumps({name: asdict(s.timing) for name, s in slopes.items()}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1] == "held", int(sys.argv[2]))
