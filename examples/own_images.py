"""From a folder of images to a C program that names them, in f32 and without a multiplication.

    python examples/own_images.py                                     # the digits, as PNG files
    python examples/own_images.py --images "FOLDER?size=32x32"        # FOLDER/CLASS/*.jpg

Behind the folder stand the options of `folder:`. Images in FOLDER/test/CLASS judge the result,
where there are any. Needs Pillow, a C compiler and make. Each step is a command that you can type
yourself; nothing about pixels is said twice: `train` takes what a pixel is from the images, and the
model file, the int8 model and the C library keep it. At the end the C program reads the bytes of
each of these images; its int8 scores have to be those of the NumPy reference, and its f32 scores
those of `predict`, bit for bit.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import Model
from addergraph.data import digits, load
from addergraph.quantization import load_quantized


def write_digits(folder: Path) -> None:
    """The digits as grey PNG files of 8x8 pixels."""
    from PIL import Image

    data, count = digits.dataset(), 0
    parts = {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
    for part, (images, labels) in parts.items():
        for image, label in zip(images * 15, labels, strict=True):  # 0..16 become 0..240
            file = folder / part / f"digit {label}" / f"{count}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(file)
            count += 1


def command(*words: object, by: tuple[object, ...] = ("addergraph",)) -> None:
    """Shows and runs a command, of `addergraph` or of another program."""
    given = [str(word) for word in (*by, *words)]
    print("\n$", shlex.join(given), flush=True)
    start = [sys.executable, "-m"] if given[0] == "addergraph" else []
    if status := subprocess.run([*start, *given]).returncode:
        sys.exit(status)  # the command has said why


def run_in_c(library: Path, images: np.ndarray) -> bytes:
    """What the library's own example program makes of the bytes of all images."""
    command("-s", "-C", library / "example", "main", by=("make",))
    x, y = library / "x.bin", library / "y.bin"
    x.write_bytes(images.tobytes())
    command("--raw", x, y, by=(library / "example" / "main",))
    return y.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", help="a folder of your own, as 'PHOTOS?size=32x32'")
    parser.add_argument("--output", type=Path, default=Path("own-images"))
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    out, data = options.output, f"folder:{options.images or options.output / 'images'}"
    out.mkdir(parents=True, exist_ok=True)
    if options.images is None:
        write_digits(out / "images")
    command(
        "train", "--data", data, "--validation-split", 0.1, "--model", "all-adder",
        "--epochs", options.epochs, "-o", out / "m.safetensors",
    )  # fmt: skip
    command("evaluate", out / "m.safetensors", "--data", data)
    command("quantize", out / "m.safetensors", "--data", data, "-o", out / "q.safetensors")
    folder = Path(data.removeprefix("folder:").partition("?")[0])
    files = [f for f in folder.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg")]
    command("predict", out / "q.safetensors", *sorted(files)[:3])
    strict = ("--multiplication-free", "--name", "net")
    command("compile", out / "q.safetensors", "-o", out / "int8", *strict)
    command("certify", out / "int8" / "libnet.a")
    command("compile", out / "m.safetensors", "-o", out / "f32", "--name", "net")
    known = load(data)
    tested = len(known.x_test) > 0
    x, labels = (known.x_test, known.y_test) if tested else (known.x_train, known.y_train)
    integers, model = load_quantized(out / "q.safetensors"), Model.load(out / "m.safetensors")
    expected = np.asarray(ag.interpret(integers.graph, x, weights=integers.weights))
    found = np.frombuffer(run_in_c(out / "int8", x), np.int32).reshape(expected.shape)
    assert np.array_equal(found, expected), "the C program and NumPy differ"
    scores = np.frombuffer(run_in_c(out / "f32", x), np.float32).reshape(len(x), -1)
    assert np.array_equal(scores, model.predict(x)), "the C program and `predict` differ"
    for name, answers in (("int8, no multiplication", found), ("f32", scores)):
        print(f"C program, {name}: accuracy {np.mean(answers.argmax(1) == labels):.4f}")


if __name__ == "__main__":
    main()
