"""Libraries of networks that take images: what header, metadata and example say of them."""

from __future__ import annotations

import pickle
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler, layers
from addergraph.cli.commands import native
from addergraph.codegen.export.example import program
from addergraph.codegen.export.header import header
from addergraph.codegen.export.interface import Interface, interface_of
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.data import Normalize, Preprocessing
from addergraph.errors import UnsupportedError
from addergraph.ir import Array
from addergraph.quantization import load_quantized
from tests.codegen.libraries import NET, SHARED, built_c

RNG = np.random.default_rng(0)
IMAGES: Array = RNG.integers(0, 256, (24, 6, 5, 3), np.uint8)
NAMES = ('a "cat"\\', "日本??/\n", "*/ // %s")
WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror")
OWN = Normalize((0.49, 0.48, 0.45), (0.2, 0.19, 0.21))


def network(order: str) -> Model:
    """One that tells the images apart: each class is the answer for some."""
    resize = "pad" if order == "bgr" else None
    known = Preprocessing(OWN, channels=order, classes=NAMES, resize=resize)
    model = Model(input_shape=(6, 5, 3), name="net", preprocessing=known)
    model.add(layers.Adder(4, kernel_size=3, padding=1, name="first"))
    model.add(layers.BatchNorm(name="bn"))
    model.add(layers.Activation("relu"))
    model.add(layers.Flatten())
    model.add(layers.AdderDense(3, name="last"))
    model.add(layers.BatchNorm(name="scores"))
    model.weights["bn.mean"][...] = -20
    raw = model.predict(IMAGES, engine="reference")
    model.weights["scores.mean"][...], model.weights["scores.variance"][...] = (
        raw.mean(0),
        raw.var(0),
    )
    return model


def netpbm(image: Array) -> bytes:
    """The picture of pixels that are grey or red, green, blue."""
    kind = {1: 5, 3: 6}[image.shape[-1]]
    start = f"P{kind}\n# made by a test\n{image.shape[1]} {image.shape[0]}\n255\n"
    return start.encode() + image.tobytes()


# -- real networks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """A library, what it computes in this process, and its scores as real numbers."""

    folder: Path
    run: Callable[[Array], Array]
    scores: Callable[[Array], Array]
    order: str


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, model = tmp_path_factory.mktemp("f32"), network("rgb")
    compiled = ag.compile(model)
    pickle.loads(pickle.dumps(compiled)).export(folder)
    return Exported(folder, lambda x: np.asarray(compiled(x)), model.predict, "rgb")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """In integers, by the command line, without multiplications; NumPy says what it computes."""
    folder = tmp_path_factory.mktemp("int8")
    q = ag.quantize(network("bgr"), IMAGES, terms=2)
    q.save(folder / "q.safetensors")
    native.compile_library(
        native.Library(
            file=str(folder / "q.safetensors"), folder=str(folder), multiplication_free=True
        )
    )

    def run(images: Array) -> Array:
        return np.asarray(ag.interpret(q.graph, images, weights=q.weights))

    return Exported(folder, run, lambda images: q.outputs(run(images)), "bgr")


@pytest.mark.slow
@pytest.mark.needs("cc")
@pytest.mark.parametrize("kind", ["f32", "strict"])
def test_pictures_and_their_bytes_have_the_class_of_predict(
    kind: str, request: pytest.FixtureRequest
) -> None:
    made: Exported = request.getfixturevalue(kind)
    main, files = built_c(made.folder / "example" / "main.c", made.folder, "net"), []
    for number, image in enumerate(IMAGES):
        files += [made.folder / f"{number}.bin", made.folder / f"{number}.ppm"]
        files[-2].write_bytes(image.tobytes())
        files[-1].write_bytes(netpbm(image if made.order == "rgb" else image[..., ::-1]))
    done = subprocess.run([main, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^.*\.(?:bin|ppm): class (\d) \(([^)]*)\), score (\S+)$", done.stdout, re.M)
    scores = np.repeat(made.scores(IMAGES), 2, axis=0)
    expected = scores.argmax(1)
    assert [int(number) for number, _, _ in found] == expected.tolist()
    assert len(set(expected)) > 1
    assert [name for _, name, _ in found] == [NAMES[c] for c in expected]
    assert np.allclose([float(s) for _, _, s in found], scores.max(1), rtol=1e-6)

    IMAGES.tofile(made.folder / "all.bin")
    raw = [made.folder / "all.bin", made.folder / "out.bin"]
    subprocess.run([main, "--raw", *raw], capture_output=True, check=True)
    logits = made.run(IMAGES)
    assert raw[1].read_bytes() == logits.tobytes()
    printed = subprocess.run([main, "--raw", raw[0]], capture_output=True, text=True, check=True)
    first = printed.stdout.splitlines()[0].split()
    assert first[0] == "scores:" and [float(n) for n in first[1:]] == pytest.approx(logits[0])


@pytest.mark.needs("cc")
def test_metadata_has_the_same_as_data(strict: Exported) -> None:
    library = ag.load_native(strict.folder)
    assert np.array_equal(library(IMAGES), strict.run(IMAGES))
    assert library.metadata["image"] == {
        "dtype": "u8", "height": 6, "width": 5, "channels": 3, "order": "bgr",
        "resize": "pad",
    }  # fmt: skip
    assert library.metadata["classes"] == list(NAMES)
    data = (strict.folder / "net_data.o").read_bytes()
    assert b'"order": "bgr"' in data and b"u65e5" not in data, "names would cost flash"


def test_the_same_network_gives_the_same_bytes(strict: Exported, tmp_path: Path) -> None:
    q = load_quantized(strict.folder / "q.safetensors")
    ag.export(q, tmp_path, multiplication_free=True)
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (strict.folder / path.relative_to(tmp_path)).read_bytes(), path


# -- programs around a library that gives the bytes back -------------------------------------------

ECHO = """graph echo(%x: u8[N,2,3,CHANNELS]) {
  %flat = flatten(%x) : u8[N,COUNT]
  %y = cast(%flat) dtype=f32 : f32[N,COUNT]
  return %y
}"""
LIBRARY = """
#include "echo.h"
int32_t echo_selftest(void *arena) { return arena ? ECHO_OK : ECHO_ERROR_NULL; }
int32_t echo_run(const uint8_t *x, float *y, void *arena)
{
    unsigned i;
    for (i = 0; i < ECHO_INPUT_ELEMENTS; i++)
        y[i] = x[i];
    return echo_selftest(arena);
}
"""


def echo(
    order: str,
    classes: tuple[str, ...] | None = None,
    channels: int = 3,
    resize: str | None = None,
) -> Interface:
    text = ECHO.replace("CHANNELS", str(channels)).replace("COUNT", str(6 * channels))
    own = Normalize((0.0,) * channels, (1.0,) * channels)
    known = Preprocessing(own, channels=order, classes=classes, resize=resize)
    return interface_of(compiler.lower(ag.parse(text), BASELINE), preprocessing=known)


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Programs by the order of channels, which stop where they leave their memory."""
    made = {}
    for order, channels in (("grey", 1), ("rgb", 3), ("bgr", 3), ("other", 3)):
        folder, interface = tmp_path_factory.mktemp(order), echo(order, channels=channels)
        (folder / "example").mkdir()
        (folder / "echo.h").write_text(header(interface, exact=True))
        (folder / "echo.c").write_text(LIBRARY)
        (folder / "example" / "main.c").write_text(program(interface))
        made[order] = folder / "main"
        flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        sources: list[str | Path] = [folder / "echo.c", folder / "example" / "main.c"]
        command: list[str | Path] = [
            "cc",
            "-std=c99",
            *WARNINGS,
            *flags,
            "-o",
            made[order],
            *sources,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return made


def answer(main: Path, data: bytes, *options: str) -> tuple[int, str]:
    (main.parent / "image").write_bytes(data)
    command: list[str | Path] = [main, *options, "image"]
    done = subprocess.run(command, cwd=main.parent, capture_output=True, text=True, timeout=60)
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr.replace("self-test passed\n", "")


PIXELS = bytes(range(18))
GOOD = {
    "plain": b"P6\n3 2\n255\n",
    "blanks": b"P6\t  3\r\n\v2\f255 ",
    "comments": b"P6#one\n#two\n\n3#three\n#\n 2 # four\r255\n",
    "a comment behind the last number": b"P6 3 2 255#end\n",
    "zeros before": b"P6 000000000000000000003 2 0255 ",
}


@pytest.mark.needs("cc")
@pytest.mark.parametrize("start", GOOD.values(), ids=GOOD.keys())
def test_headers_of_pictures(start: bytes, echoes: dict[str, Path]) -> None:
    assert answer(echoes["rgb"], start + PIXELS) == (0, "image: class 17, score 17\n")
    assert answer(echoes["bgr"], start + PIXELS) == (0, "image: class 15, score 17\n")
    assert "y: 0 1 2" in answer(echoes["rgb"], PIXELS, "--raw")[1]


@pytest.mark.needs("cc")
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_grey_picture_has_three_equal_channels(order: str, echoes: dict[str, Path]) -> None:
    """As for `predict`: pixel n of the largest grey is the class 3 n, the first of its channels."""
    for n in range(6):
        grey = bytes(100 + 50 * (i == n) for i in range(6))
        said = f"image: class {3 * n}, score 150\n"
        assert answer(echoes[order], b"P5 3 2 255 " + grey) == (0, said)


@pytest.mark.needs("cc")
def test_raw_bytes_are_in_the_order_of_the_network(echoes: dict[str, Path]) -> None:
    for order in ("rgb", "bgr", "other"):
        assert answer(echoes[order], PIXELS) == (0, "image: class 17, score 17\n")
    assert answer(echoes["grey"], b"P5 3 2 255 " + PIXELS[:6])[1] == "image: class 5, score 5\n"
    assert answer(echoes["grey"], PIXELS[:6])[1] == "image: class 5, score 5\n"


EXPECTED = "expected a binary PPM (P6) or PGM (P5) of 3 x 2 pixels of 0..255, or 18 raw bytes"
DAMAGED = "its header is damaged; expected width, height, maximum"
REFUSED = {
    "size": (b"P6 2 3 255 " + PIXELS, f"2 x 3 pixels of 0..255; {EXPECTED}"),
    "height": (b"P6 3 3 255 " + PIXELS, f"3 x 3 pixels of 0..255; {EXPECTED}"),
    "maximum": (b"P6 3 2 65535 " + 2 * PIXELS, f"3 x 2 pixels of 0..65535; {EXPECTED}"),
    "no pixel": (b"P6 0 0 255 ", f"0 x 0 pixels of 0..255; {EXPECTED}"),
    "overflow": (b"P6 65536 65536 255 " + PIXELS, "65536 x 65536 pixels of 0..255"),
    "the largest": (b"P6 999999999 999999999 255 ", "999999999 x 999999999 pixels"),
    "too large": (b"P6 4294967299 2 255 " + PIXELS, DAMAGED),
    "2^64 + 3": (b"P6 18446744073709551619 2 255 " + PIXELS, DAMAGED),
    "negative": (b"P6 -3 2 255 " + PIXELS, DAMAGED),
    "letters": (b"P6 3x2 255 " + PIXELS, DAMAGED),
    "no numbers": (b"P6\n", DAMAGED),
    "endless comment": (b"P6 #" + b"3" * 100_000, DAMAGED),
    "no blank at the end": (b"P6 3 2 255", DAMAGED),
    "short": (b"P6 3 2 255 " + PIXELS[1:], "ends after 17 of 18 bytes of pixels"),
    "long": (b"P6 3 2 255 " + PIXELS + b"P", "goes on behind the pixels; expected one picture"),
    "grey": (b"P5 3 2 255 " + PIXELS, "goes on behind the pixels; expected one picture"),
    "short grey": (b"P5 3 2 255 " + PIXELS[:5], "ends after 5 of 6 bytes of pixels"),
    "bits": (b"P4 3 2 " + PIXELS, f"a picture of the kind P4; {EXPECTED}"),
    "text": (b"P3 3 2 255 1 2 3", f"a picture of the kind P3; {EXPECTED}"),
    "pam": (b"P7\nWIDTH 3\n", f"a picture of the kind P7; {EXPECTED}"),
    "png": (b"\x89PNG\r\n\x1a\n0123456789", f"a PNG or JPEG file; {EXPECTED}"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(14), f"a PNG or JPEG file; {EXPECTED}"),
    "empty": (b"", f"has 0 bytes; {EXPECTED}"),
    "one byte": (b"P", f"has 1 bytes; {EXPECTED}"),
    "a byte less": (PIXELS[1:], f"has 17 bytes; {EXPECTED}"),
    "a byte more": (PIXELS + b"x", f"has more than 18 bytes; {EXPECTED}"),
}


@pytest.mark.needs("cc")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_of_this_size_is_refused(case: str, echoes: dict[str, Path]) -> None:
    data, said = REFUSED[case]
    code, text = answer(echoes["rgb"], data)
    assert code == 1 and text.startswith("image: ") and said in text and "class" not in text


@pytest.mark.needs("cc")
def test_the_other_images_are_read_all_the_same(echoes: dict[str, Path]) -> None:
    code, text = answer(echoes["rgb"], PIXELS, "missing")
    assert code == 1 and "missing: cannot be opened" in text and "image: class 17" in text
    assert (
        "18 raw bytes (what their channels are was not declared)"
        in answer(echoes["other"], b"P6 3 2 255 " + PIXELS)[1]
    )


# -- names -----------------------------------------------------------------------------------------

ODD = (*NAMES, "", "\\", "??(", "\x7f\x01" + "7", "é" * 2047, "\udcff", "\N{GRINNING FACE}")
SHOW = """
#include <stdio.h>
#include "echo.h"
#include "echo.h"
int main(void)
{
    static const char *const names[] = ECHO_CLASSES;
    unsigned i;
    for (i = 0; i < ECHO_CLASS_COUNT; i++)
        printf("%s%c", names[i], 0);
    return sizeof names / sizeof names[0] != ECHO_CLASS_COUNT;
}
"""


@pytest.mark.parametrize(
    "compiler_",
    [
        pytest.param(command, marks=pytest.mark.needs(command.split()[0]))
        for command in ("cc -std=c99", "clang -std=c99", "c++ -std=c++98 -x c++")
    ],
)
def test_names_of_any_kind_reach_the_program(compiler_: str, tmp_path: Path) -> None:
    names = (*ODD, *(f"class {n}" for n in range(1002 - len(ODD))))
    text = header(echo("other", names, 167), exact=True)
    assert text.isascii() and "#define ECHO_CLASS_COUNT 1002" in text
    (tmp_path / "echo.h").write_text(text)
    (tmp_path / "show.c").write_text(SHOW)
    command = [*compiler_.split(), *WARNINGS, "-Wtrigraphs", "-o", "show", "show.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([tmp_path / "show"], capture_output=True, check=True).stdout
    assert shown.split(b"\0")[:-1] == [n.encode("utf-8", "backslashreplace") for n in names]


MANY = tuple("abcdefghijklmnopq")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (MANY, "names 17 classes, %y has 18 scores; declare"),
        ((*MANY, "b\0"), r"class 17 is no string for C compilers.*'b\\x00'"),
        (("é" * 2048, *MANY), "class 0 .* at most 4,095 bytes"),
    ],
)
def test_names_that_do_not_fit_are_refused(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        echo("rgb", classes)


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "channels", "format", "said"),
    [
        ("grey", 1, "GREY8", "3 pixels of 1 byte, top left first"),
        ("rgb", 3, "RGB888", "are red, green, blue"),
        ("bgr", 3, "BGR888", "are blue, green, red"),
        ("other", 4, "U8X4", "was not declared"),
    ],
)
def test_the_header_says_what_an_image_is(
    order: str, channels: int, format: str, said: str
) -> None:
    text = header(echo(order, channels=channels), exact=True)
    for what, value in (("HEIGHT", 2), ("WIDTH", 3), ("CHANNELS", channels)):
        assert f"#define ECHO_IMAGE_{what} {value}\n" in text
    assert f'#define ECHO_IMAGE_FORMAT "{format}"\n' in text
    assert said in text and "CLASS" not in text
    assert max(map(len, text.partition("#ifndef")[0].splitlines())) <= 100


@pytest.mark.parametrize(
    ("resize", "said"),
    [
        (None, ""),
        ("stretch", "height and width are scaled, each by its own factor."),
        ("crop", "the largest part in the middle that has this shape is scaled."),
        ("pad", "the whole is scaled to fit, in the middle of black."),
    ],
)
def test_the_header_says_how_images_came_to_size(resize: str | None, said: str) -> None:
    text = header(echo("rgb", resize=resize), exact=True)
    assert ("bring them to it in the same way:\n * " + said in text) == (resize is not None)
    assert text.count("_IMAGE_RESIZE") == (resize is not None)
    assert resize is None or f'#define ECHO_IMAGE_RESIZE "{resize}"\n' in text
    assert max(map(len, text.partition("#ifndef")[0].splitlines())) <= 100


@pytest.mark.needs("cc")
def test_metadata_without_resize_is_as_before_and_loads(f32: Exported) -> None:
    library = ag.load_native(f32.folder)
    assert list(library.metadata["image"]) == ["channels", "dtype", "height", "order", "width"]
    assert np.array_equal(library(IMAGES[:2]), f32.run(IMAGES[:2]))


def test_without_images_nothing_is_said_of_them() -> None:
    several = Preprocessing(OWN, dtype="f32", channels="rgb")
    for text, known in ((NET, None), (SHARED, None), (SHARED, several)):
        made = interface_of(compiler.lower(ag.parse(text), BASELINE), preprocessing=known)
        texts = header(made, exact=True), program(made)
        assert "IMAGE_H" not in texts[0] + texts[1] and "--raw" not in texts[1]


def test_real_pixels_are_described_and_not_read_from_pictures() -> None:
    text = ECHO.replace("CHANNELS", "1").replace("COUNT", "6").replace("u8", "f32")
    known = Preprocessing(Normalize((0.0,), (1.0,)), dtype="f32", channels="grey")
    graph = ag.parse(text.replace("cast(%flat) dtype=f32", "neg(%flat)"))
    lowered = compiler.lower(graph, BASELINE)
    made = interface_of(lowered, preprocessing=known)
    assert '_FORMAT "GREYF32"' in header(made, exact=True) and "--raw" not in program(made)
    assert "3 pixels of 1 float" in header(made, exact=True)
    bytes_ = interface_of(lowered, preprocessing=Preprocessing(known.normalize, channels="grey"))
    assert bytes_.image is None, "the input are no bytes"


# -- names that stay -------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [("x", "bn5"), ("input", "y"), ("x", "output")])
def test_sizes_have_names_that_no_layer_changes(x: str, y: str) -> None:
    text = f"graph pair(%{x}: f32[N,2]) {{ %{y} = neg(%{x}) : f32[N,2] return %{y} }}"
    made = header(interface_of(compiler.lower(ag.parse(text), BASELINE)), exact=True)
    for what in ("INPUT", "OUTPUT"):
        assert made.count(f"#define PAIR_{what}_ELEMENTS ") == 1
    assert "#define PAIR_OUTPUT_ELEMENTS PAIR_BN5_ELEMENTS\n" in made or y != "bn5"


@pytest.mark.parametrize(("x", "y"), [("output", "y"), ("x", "Input")])
def test_an_input_called_output_is_refused(x: str, y: str) -> None:
    text = f"graph pair(%{x}: f32[N,2]) {{ %{y} = neg(%{x}) : f32[N,2] return %{y} }}"
    with pytest.raises(UnsupportedError, match="in C PAIR_.*_ELEMENTS.* would be that of the"):
        interface_of(compiler.lower(ag.parse(text), BASELINE))
