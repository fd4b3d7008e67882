"""ResNet-20 as a whole, held against ONNX Runtime's with convolutions, f32.

    taskset -c 1 python -m benchmarks.network               # one image, one thread
    python -m benchmarks.network --scaling                  # 16 images, two threads against one
    taskset -c 1 python -m benchmarks.network --weights resnet20.safetensors

Adder filters are drawn from N(0,1), or those of a trained model (`--weights`), which have another
share of taps at or below zero. Batch norms are folded, statistics keep activations alive. The two
networks take turns, each at the best of many calls from Python, with its own call overhead. The
first ends with status 1 below 1.25 times ONNX Runtime's speed, the second below 1.8 times one
thread's. It also compiles the network anew, outside the cache, and says how long that took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.ops.pointwise.batch_norm import BatchNorm

REQUIRED, REQUIRED_SCALING = 1.25, 1.8
TURNS = 400


def best(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each call, the best of turns."""
    found = [np.inf] * len(calls)
    for _ in range(TURNS):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            found[number] = min(found[number], time.perf_counter() - start)
    return found


def compiled(batch: int | None, threads: int, trained: str | None = None) -> Any:
    """The adder network of a model file, or with statistics that fit sums of distances."""
    if trained is not None:
        model = ag.Model.load(trained)
        weights, graph = dict(model.weights), model.graph(training=False)
        return ag.compile(graph, weights=weights, batch=batch, threads=threads, cache=False)
    model = zoo.build("resnet20")
    weights = dict(model.weights)
    graph = model.graph(training=False)
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            _, mean, variance, *_ = (v.name for v in node.inputs)
            weights[mean] = np.full_like(weights[mean], -100.0)
            weights[variance] = np.full_like(weights[variance], 1e4)
    return ag.compile(graph, weights=weights, batch=batch, threads=threads, cache=False)


def onnx_resnet20() -> bytes:
    """Convolutions with biases, as folding batch norms leaves them."""
    from onnx import TensorProto, helper, numpy_helper

    rng, weights, nodes = np.random.default_rng(0), [], []

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        return str(weights[-1].name)

    def conv(x: str, inputs: int, outputs: int, size: int, stride: int) -> str:
        f = constant(rng.normal(size=(outputs, inputs, size, size)) / (size * inputs**0.5))
        return node(
            "Conv", x, f, constant(np.zeros(outputs)), kernel_shape=[size, size],
            pads=[size // 2] * 4, strides=[stride, stride],
        )  # fmt: skip

    x, inputs = node("Relu", conv("x", 3, 16, 3, 1)), 16
    for stage in range(3):
        for block in range(3):
            outputs, stride = 16 << stage, 2 if stage and not block else 1
            y = conv(node("Relu", conv(x, inputs, outputs, 3, stride)), outputs, outputs, 3, 1)
            x = conv(x, inputs, outputs, 1, stride) if stride > 1 else x
            x, inputs = node("Relu", node("Add", y, x)), outputs
    x = node("Flatten", node("GlobalAveragePool", x))
    x = node("Gemm", x, constant(rng.normal(size=(64, 10))), constant(np.zeros(10)))
    graph = helper.make_graph(
        nodes, "resnet20",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 10])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def onnx_call(model: bytes) -> Callable[[np.ndarray], object]:
    """A model of one input "x", on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"x": images})


def against_onnx(trained: str | None) -> bool:
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    start = time.perf_counter()
    ours = compiled(None, 1, trained)
    seconds = time.perf_counter() - start
    theirs = onnx_call(onnx_resnet20())
    mine, other = best([lambda: ours(x), lambda: theirs(planes)])
    print(
        f"ResNet-20, one image, one thread: ours {mine * 1e6:.0f} us, ONNX Runtime (conv) "
        f"{other * 1e6:.0f} us: {other / mine:.2f} times as fast; compiled in {seconds:.2f} s"
    )
    return other / mine >= REQUIRED


def scaling() -> bool:
    x = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32)
    programs = [compiled(16, threads) for threads in (1, 2)]
    one, two = best([lambda p=p: p(x) for p in programs])  # type: ignore[misc]
    print(
        f"ResNet-20, 16 images: one thread {one * 1e3:.2f} ms, two {two * 1e3:.2f} ms: "
        f"{one / two:.2f} times as fast"
    )
    return one / two >= REQUIRED_SCALING


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--weights", metavar="MODEL", help="a trained resnet20")
    given = parser.parse_args()
    return 0 if (scaling() if given.scaling else against_onnx(given.weights)) else 1


if __name__ == "__main__":
    sys.exit(main())
