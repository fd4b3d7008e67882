"""Reading one image: modes, orientation, damage, size, and bringing it to another."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph.data.images import MOST_PIXELS, bring, read_header, read_image
from addergraph.errors import AdderGraphError, DataError, StorageError, UnsupportedError
from addergraph.ir import Array
from tests.addergraph.data.published import images

PIL = pytest.importorskip("PIL.Image")
RGB = images(1, (5, 7, 3))[0]
GREY = RGB[..., 0]


def _saved(path: Path, pixels: Array, mode: str | None = None, **how: Any) -> Path:
    image = PIL.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **how)
    return path


def _oriented(number: int) -> Any:
    exif = PIL.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.PNG"])
def test_colours_come_as_they_are_stored(tmp_path: Path, name: str) -> None:
    path = _saved(tmp_path / name, RGB)
    assert np.array_equal(read_image(path), RGB) and read_image(path).dtype == np.uint8
    assert read_header(path) == (5, 7, 3, False)
    grey = read_image(path, 1)[..., 0]
    assert np.abs(grey - RGB @ [0.299, 0.587, 0.114]).max() <= 0.51


def test_a_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(24)).astype(np.uint8)[..., None].repeat(3, 2)
    found = read_image(_saved(tmp_path / "a.jpg", smooth, quality=95))
    assert found.shape == (32, 24, 3) and np.abs(found.astype(int) - smooth).max() <= 4


def test_grey_images_have_one_channel_and_three_when_asked(tmp_path: Path) -> None:
    for name in ("a.png", "a.pgm", "a.bmp"):
        path = _saved(tmp_path / name, GREY)
        assert np.array_equal(read_image(path), GREY[..., None])
        assert np.array_equal(read_image(path, 3), GREY[..., None].repeat(3, 2))
        assert read_header(path) == (5, 7, 1, False)
    bits = (GREY > 127).astype(np.uint8) * 255
    for name in ("b.png", "b.pbm"):
        path = tmp_path / name
        PIL.fromarray(bits).convert("1").save(path)
        assert np.array_equal(read_image(path)[..., 0], bits)


def test_sixteen_bits_become_their_upper_eight(tmp_path: Path) -> None:
    deep = (GREY.astype(np.uint16) << 8) + GREY[::-1]
    path = _saved(tmp_path / "a.png", deep)
    assert np.array_equal(read_image(path)[..., 0], GREY) and read_header(path).channels == 1
    assert np.array_equal(read_image(path, 3)[..., 2], GREY)
    (tmp_path / "a.pgm").write_bytes(b"P5 7 5 65535\n" + deep.astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / "a.pgm")[..., 0], GREY)


def test_other_modes_become_grey_or_rgb(tmp_path: Path) -> None:
    few = RGB // 128 * 255  # eight colours
    assert np.array_equal(read_image(_saved(tmp_path / "p.png", few, "P")), few)
    cmyk = read_image(_saved(tmp_path / "c.jpg", np.full((8, 8, 3), 200, np.uint8), "CMYK"))
    assert cmyk.shape == (8, 8, 3) and np.abs(cmyk.astype(int) - 200).max() <= 3


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    alpha = np.zeros((5, 7, 1), np.uint8)
    alpha[1], alpha[2] = 255, 128
    both = read_image(_saved(tmp_path / "a.png", np.concatenate([RGB, alpha], 2)))
    assert not both[[0, 3, 4]].any() and np.array_equal(both[1], RGB[1])
    assert np.abs(both[2] - RGB[2] * (128 / 255)).max() <= 1
    grey = read_image(_saved(tmp_path / "b.png", np.concatenate([RGB[..., :1], alpha], 2)))
    assert grey.shape == (5, 7, 1) and not grey[0].any() and np.array_equal(grey[1, :, 0], GREY[1])
    black_is_clear = np.array([[[9, 9, 9], [200, 3, 3]]], np.uint8)
    key = _saved(tmp_path / "c.png", black_is_clear, transparency=(200, 3, 3))
    assert read_image(key)[0].tolist() == [[9, 9, 9], [0, 0, 0]]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_images_are_turned_upright(tmp_path: Path, name: str, number: int) -> None:
    """As EXIF numbers it: what the stored rows and columns are of the upright image."""
    shown = np.zeros((16, 32), np.uint8)
    shown[:8, :8] = 255  # its upper left corner
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.T,
        6: shown.T[::-1], 7: shown.T[::-1, ::-1], 8: shown.T[:, ::-1],
    }[number]  # fmt: skip
    path = _saved(tmp_path / name, np.ascontiguousarray(stored), exif=_oriented(number))
    assert read_header(path)[:2] == (16, 32)
    assert np.abs(read_image(path)[..., 0].astype(int) - shown).max() <= 8


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    others = [PIL.fromarray(RGB[::-1])]
    path = _saved(tmp_path / "a.png", RGB, save_all=True, append_images=others)
    assert read_header(path).animated and np.array_equal(read_image(path), RGB)


def test_what_is_broken_or_no_image_is_named(tmp_path: Path) -> None:
    whole = _saved(tmp_path / "whole.png", images(1, (40, 40, 3))[0]).read_bytes()
    flipped = whole[:900] + bytes([whole[900] ^ 1]) + whole[901:]
    for data, message in [
        (whole[:800], r"x\.png\" is damaged: .*truncated"),
        (flipped, r"x\.png\" is damaged"),
        (whole[:20], r"x\.png\" is (damaged|no image)"),
        (b"", r"x\.png\" is no image of PNG, JPEG, BMP or PPM"),
        (b"GIF89a" + bytes(40), r"is no image of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"is no image of PNG"),
    ]:
        (tmp_path / "x.png").write_bytes(data)
        with pytest.raises(StorageError, match=message):
            read_image(tmp_path / "x.png")
    with pytest.raises(StorageError, match=r"cannot read .*no\.png\": No such file"):
        read_image(tmp_path / "no.png")
    with pytest.raises(StorageError, match=r"it is no plain file"):
        read_header(tmp_path)
    (tmp_path / "f.ppm").write_bytes(b"Pf\n2 2\n-1.0\n" + bytes(16))
    with pytest.raises(DataError, match=r"real numbers as pixels"):
        read_image(tmp_path / "f.ppm")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(StorageError, match=r"it is no plain file"):
        read_image(tmp_path / "a.png")


def _claiming(width: int, height: int) -> bytes:
    """A PNG of so many pixels, without them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        ends = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
        return ends[0] + kind + data + ends[1]

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_001, 10_000)])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(_claiming(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_header, read_image):
            with pytest.raises(DataError, match=rf"a\.png\" has .*{MOST_PIXELS}"):
                read(tmp_path / "a.png")


def test_damage_anywhere_is_an_error_or_other_pixels(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "x"
    whole = [
        _saved(tmp_path / "a.png", RGB, exif=_oriented(6)).read_bytes(),
        _saved(tmp_path / "a.jpg", RGB, exif=_oriented(6)).read_bytes(),
        _saved(tmp_path / "a.bmp", RGB, "P").read_bytes(),
        _saved(tmp_path / "a.ppm", RGB).read_bytes(),
    ]
    for number in range(400):
        data = bytearray(whole[number % 4])
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(256)
        path.write_bytes(data[: len(data) if number % 3 else random.integers(len(data))])
        found = _read(path)
        if isinstance(found, str):
            assert str(path) in found
        else:
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] in (1, 3)


def _read(path: Path) -> Array | str:
    """The image, or the message of the error."""
    try:
        return read_image(path)
    except AdderGraphError as error:
        return str(error)


def test_without_pillow_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for read in (read_image, read_header):
        with pytest.raises(UnsupportedError, match=r"pip install 'addergraph\[images\]'"):
            read(tmp_path / "a.png")


# --- sizes ----------------------------------------------------------------------------------------


def test_stretch_takes_all_of_the_image() -> None:
    wide = np.zeros((4, 8, 1), np.uint8)
    wide[:, 4:] = 200
    found = bring(wide, (4, 4))
    assert found.shape == (4, 4, 1) and found.dtype == np.uint8
    assert found[0, :, 0].tolist()[::3] == [0, 200]
    assert bring(wide, (8, 16))[:, [0, 15], 0].tolist() == [[0, 200]] * 8


def test_crop_takes_the_middle() -> None:
    for axis in (0, 1):
        stripes = np.zeros((8, 8, 3), np.uint8)
        stripes[2:6] = 90
        stripes = stripes.swapaxes(0, axis)
        middle = stripes[2:6] if axis == 0 else stripes[:, 2:6]
        size = (4, 8) if axis == 0 else (8, 4)
        assert np.array_equal(bring(stripes, size, "crop"), middle)
        assert np.unique(bring(stripes, (size[0] * 2, size[1] * 2), "crop")).max() == 90


def test_pad_leaves_black_around() -> None:
    bright = np.full((4, 8, 3), 90, np.uint8)
    found = bring(bright, (8, 8), "pad")
    assert (found[2:6] == 90).all() and not found[[0, 1, 6, 7]].any()
    tall = bring(bright.swapaxes(0, 1), (9, 9), "pad")
    assert (tall[:, 2:6] == 90).all() and tall.sum() == 9 * 4 * 3 * 90
    assert bring(np.full((1, 500, 1), 90, np.uint8), (3, 3), "pad")[1].all()


def test_an_image_of_the_size_stays() -> None:
    for how in ("stretch", "crop", "pad"):
        assert np.array_equal(bring(RGB, (5, 7), how), RGB)
    assert bring(RGB[:1, :1], (9, 9)).tolist() == [[RGB[0, 0].tolist()] * 9] * 9


@pytest.mark.parametrize(
    ("image", "size", "how", "message"),
    [
        (GREY, (4, 4), "stretch", r"expected u8 \[H,W,1\] or \[H,W,3\], found uint8 \(5, 7\)"),
        (RGB / 255, (4, 4), "stretch", r"found float64"),
        (RGB[:0], (4, 4), "stretch", r"found uint8 \(0, 7, 3\)"),
        (RGB, (0, 4), "stretch", r"size=\(0, 4\): expected height and width of at least 1"),
        (RGB, (1 << 20, 1 << 20), "stretch", r"100,000,000 pixels"),
        (RGB, (4, 4, 3), "stretch", r"size=.*must be 2 integers"),
        (RGB, (4, 4), "cropp", r"unknown how 'cropp' \(did you mean \"crop\"\?\)"),
    ],
)
def test_sizes_that_nothing_can_be_brought_to(
    image: object, size: Any, how: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        bring(image, size, how)


def test_channels_are_one_or_three(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"channels=2 must be 1 \(grey\), 3 \(RGB\)"):
        read_image(_saved(tmp_path / "a.png", RGB), 2)
