"""Every network of the zoo in ONNX Runtime, f32 and int8, held against ours.

    taskset -c 1 python -m benchmarks.onnx_zoo                  # all; an hour, most of it in NumPy
    taskset -c 1 python -m benchmarks.onnx_zoo --only resnet20 deck
    python -m benchmarks.onnx_zoo --bounds 0                    # without the proven bounds: minutes

Networks of the digits are trained on them for a few epochs and answer all 360 test images, bytes as
they are. The others have random filters, batch norms with the statistics of seeded images, which
keep activations alive, and answer seeded images. Compared are the class of every image; of f32
networks the outputs of the first images (`--bounds`), whose errors are shares of what `ag.verify`
proves possible; of int8 networks every output, to the bit. Times are of the processor, of one image
on one thread, the best of turns that both take. Prints a markdown table; ends with status 1 where
anything differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Model, zoo
from addergraph.data import Normalize, Preprocessing, digits
from addergraph.errors import QuantizationWarning, RangeWarning
from addergraph.ir import Array, Builder, Graph, Parameter, Value
from addergraph.ir.network import graph_and_weights
from addergraph.ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.quantization import Quantized
from addergraph.tables import Table
from addergraph.zoo.networks import DIGITS, IMAGENET

EPOCHS = 3
IMAGES, LARGE_IMAGES = 64, 4  # seeded ones; of 224x224
SECONDS = 2.0  # of turns, at least
HEADS = (
    "network", "numbers", "file KiB", "ours KiB", "images", "classes equal", "outputs",
    "ONNX Runtime ms", "ours ms", "ratio",
)  # fmt: skip


class OnnxProgram:
    """An exported network in ONNX Runtime, as `ag.verify` takes programs."""

    def __init__(self, network: Any, threads: int = 1, **options: Any) -> None:
        import onnxruntime

        graph, weights = graph_and_weights(network, options.get("weights"))
        self.graph: Graph = graph
        self.weights: Mapping[str, Array] = weights or {}
        self.bytes: bytes = ag.to_onnx(network, **options).SerializeToString(deterministic=True)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(
            self.bytes, settings, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Sequence[Any]) -> tuple[Array, ...]:
        names = [v.name for v in self.graph.inputs]
        feed = {n: np.array(a, order="C") for n, a in zip(names, inputs, strict=True)}
        return tuple(self._session.run(None, feed))


def awake(model: Model, x: Array, seed: int = 0) -> None:
    """Gives batch norms the statistics of `x`, and random scales and offsets, so that no relu of
    the untrained network has died."""
    rng = np.random.default_rng(seed)
    for name, array in model.weights.items():
        if name.endswith(".gamma"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        if name.endswith(".beta"):
            array[...] = rng.normal(0, 0.5, array.shape)
    graph, names = _with_statistics(model.graph(training=False).bind(len(x)))
    program = ag.compile(graph, weights={p.name: model.weights[p.name] for p in graph.parameters})
    for name, found in zip(names, program.run([x]), strict=True):
        model.weights[name][...] = found


def _with_statistics(graph: Graph) -> tuple[Graph, list[str]]:
    """`graph` normalizing by the batch's own statistics, its outputs; and whose they are."""
    builder, names, outputs = Builder("statistics"), list[str](), list[Value]()
    new: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in graph.inputs}
    new.update((p, p) for p in graph.parameters)
    for node in graph.nodes:
        operands = [new[v] for v in node.inputs]
        if isinstance(node.op, BatchNorm):
            found = builder.add(BatchNormStatistics(), operands[:1], f"{node.name}.statistics")
            names += [v.name for v in node.inputs[1:3]]
            outputs += found
            operands[1:3] = found
        for v in operands:
            if isinstance(v, Parameter):
                builder.parameter(v)
        new.update(zip(node.outputs, builder.add(node.op, operands, node.outputs), strict=True))
    return builder.finish(outputs), names


def prepared(name: str) -> tuple[Model, Array, Array]:
    """A network that tells images apart, with its preprocessing; calibration and test images."""
    model = zoo.build(name, seed=1)
    shape = zoo.NETWORKS[name].input_shape
    if shape == DIGITS:
        data = digits.dataset()
        model.preprocessing = data.preprocessing()
        model.fit(
            data.x_train, data.y_train, epochs=EPOCHS, batch_size=64, learning_rate=0.1, verbose=0
        )
        return model, data.x_train[:256], data.x_test
    count, depth = LARGE_IMAGES if shape == IMAGENET else IMAGES, shape[-1]
    normalize = Normalize((0.45,) * depth, (0.25,) * depth, 1 / 255)
    model.preprocessing = Preprocessing(normalize, "u8", "rgb" if depth == 3 else "grey")
    images = smooth(np.random.default_rng(2), count, shape)
    awake(model, model.preprocessing.apply(images))
    return model, images, images


def smooth(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> Array:
    """Seeded images, bytes: blocks of 4x4 pixels of random colours, with noise."""
    height, width, depth = shape
    blocks = rng.integers(32, 224, (count, -(-height // 4), -(-width // 4), depth))
    large = blocks.repeat(4, 1).repeat(4, 2)[:, :height, :width]
    return np.asarray(large + rng.integers(-32, 32, (count, *shape)), np.uint8)


def best(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call, the best of turns."""
    found, start = [np.inf] * len(calls), time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for number, call in enumerate(calls):
            began = time.process_time()
            call()
            found[number] = min(found[number], 1e3 * (time.process_time() - began))
    return found


@dataclass(frozen=True)
class Row:
    """What was found of one network with one kind of numbers."""

    cells: tuple[str, ...]
    ok: bool


def compared(name: str, network: Model | Quantized, images: Array, bounds: int) -> Row:
    """One network, in ONNX Runtime and natively, on `images` (bytes)."""
    theirs, ours = OnnxProgram(network), ag.compile(network, threads=1)
    a, b = (np.concatenate([p.run([x])[0] for x in _parts(images)]) for p in (theirs, ours))
    classes = a.argmax(-1) == b.argmax(-1)
    ok, outputs = bool(classes.all()), "not compared"
    if isinstance(network, Quantized):
        same = np.array_equal(a, b)
        ok, outputs = ok and same, "equal" if same else "DIFFERENT"
    elif bounds:
        program: Any = theirs  # of it, `verify` asks for `run` alone
        report = ag.verify(network, program, inputs=[images[:bounds]], layers=False)
        ok &= report.ok
        share = max(o.share for o in report.outputs)
        outputs = f"{share:.1%} of the bound" if report.ok else "BEYOND THE BOUND"
    image = [images[:1]]
    times = best([lambda: theirs.run(image), lambda: ours.run(image)])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.safetensors"
        network.save(file)
        size = file.stat().st_size
    kind = "int8" if isinstance(network, Quantized) else "f32"
    cells = (
        name, kind, f"{len(theirs.bytes) / 1024:,.0f}", f"{size / 1024:,.0f}", f"{len(images)}",
        f"{classes.sum()}", outputs, f"{times[0]:.3g}", f"{times[1]:.3g}",
        f"{times[0] / times[1]:.3g}",
    )  # fmt: skip
    return Row(cells, ok)


def _parts(images: Array, size: int = 32) -> list[Array]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def rows_of(name: str, bounds: int) -> list[Row]:
    """Both kinds of numbers of a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        warnings.simplefilter("ignore", QuantizationWarning)  # random weights answer as they do
        model, calibration, images = prepared(name)
        large = images.shape[1:] == IMAGENET
        found = [compared(name, model, images, min(bounds, 1) if large else bounds)]
        made = ag.quantize(model, calibration, threads=1)
        return [*found, compared(name, made, images, bounds)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NETWORK", default=list(zoo.NETWORKS))
    parser.add_argument("--bounds", type=int, default=4, metavar="IMAGES")
    options = parser.parse_args()
    found = []
    for name in options.only:
        for row in rows_of(name, options.bounds):
            found.append(row)
            print(" | ".join(row.cells), file=sys.stderr, flush=True)
    table = Table(HEADS, [row.cells for row in found], HEADS[:2])
    print("\n".join(table.markdown()))
    return int(not all(row.ok for row in found))


if __name__ == "__main__":
    sys.exit(main())
