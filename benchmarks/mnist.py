"""MNIST by the command line: LeNet-5 of adders in f32, int8 and without a multiplication, and in C.

    python -m benchmarks.mnist FOLDER                    # the four published files; three seeds

For each seed `train` twice with the default recipe for ten epochs: `lenet5_bn`, whose first and
last layer multiply, and the same with adders there, which alone can be compiled without a
multiplication. Both are quantized; the second is compiled as a strict library, certified, and its
C program answers for all test images, with the bits of the NumPy reference. Models that are in the
output folder are not trained again. Prints a markdown table of test accuracies; ends with status 1
where a mean misses what is REQUIRED.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import Model
from addergraph.data import Dataset, load
from addergraph.quantization import load_quantized

REQUIRED = 0.990  # of the mean over the seeds, f32
LOST, LOST_STRICT = 0.001, 0.003  # at most, by int8, and by int8 of adders alone without products
NAMES = ("lenet5_bn", "int8", "adders alone", "int8, no multiplication, in C")


def command(*words: object) -> None:
    """Runs `addergraph ...`, whose progress is seen."""
    given = [sys.executable, "-m", "addergraph", *map(str, words)]
    subprocess.run(given, check=True, stdout=sys.stderr)


def trained(data: str, output: Path, seed: int, *options: str) -> tuple[Path, Path]:
    """Model file and int8 file."""
    model, integers = output.with_suffix(".safetensors"), output.with_suffix(".int8.safetensors")
    if not model.exists():
        network = ("--model", "lenet5_bn", *options, "--epochs", 10, "--seed", seed)
        command("train", "--data", data, *network, "-o", model)
    command("quantize", model, "--data", data, "-o", integers, "--force")
    return model, integers


def in_c(integers: Path, x: np.ndarray) -> np.ndarray:
    """The classes that the strict library's own example program prints the scores of."""
    library = integers.with_suffix("")
    command("compile", integers, "-o", library, "--name", "net", "--multiplication-free")
    command("certify", library / "libnet.a")
    subprocess.run(["make", "-s", "-C", library / "example", "main"], check=True)
    (library / "x.bin").write_bytes(x.tobytes())
    main = (library / "example" / "main").resolve()
    subprocess.run([main, "--raw", "x.bin", "y.bin"], cwd=library, check=True, capture_output=True)
    return np.frombuffer((library / "y.bin").read_bytes(), np.int32).reshape(len(x), -1)


def accuracies(folder: str, data: Dataset, output: Path, seed: int) -> list[float]:
    """In the order of NAMES. AssertionError where the C program and NumPy differ in a bit."""
    source = f"mnist:{folder}"
    x, y = data.x_test, data.y_test
    model, integers = trained(source, output / f"seed{seed}", seed)
    ends = ("--first", "adder", "--last", "adder")
    adders, strict = trained(source, output / f"adders{seed}", seed, *ends)
    known = load_quantized(strict)
    expected = np.asarray(ag.interpret(known.graph, x, weights=known.weights))
    found = in_c(strict, x)
    assert np.array_equal(found, expected), "the C program and NumPy differ"
    (scores,) = ag.compile(load_quantized(integers)).run([x])
    return [
        Model.load(model).evaluate(x, y)["accuracy"],
        float(np.mean(scores.argmax(1) == y)),
        Model.load(adders).evaluate(x, y)["accuracy"],
        float(np.mean(found.argmax(1) == y)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--output", type=Path, default=Path("build/mnist"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = load(f"mnist:{options.folder}")
    rows = [accuracies(options.folder, data, options.output, seed) for seed in range(options.seeds)]
    print(f"| seed | {' | '.join(NAMES)} |\n|---|{'---:|' * len(NAMES)}")
    for seed, row in enumerate(rows):
        print(f"| {seed} | {' | '.join(f'{value:.4f}' for value in row)} |")
    f32, int8, adders, strict = np.mean(rows, axis=0)
    print(f"| mean | {f32:.4f} | {int8:.4f} | {adders:.4f} | {strict:.4f} |")
    return int(f32 < REQUIRED or f32 - int8 > LOST or f32 - strict > LOST_STRICT)


if __name__ == "__main__":
    sys.exit(main())
