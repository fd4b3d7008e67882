"""One image: from a file to bytes, and to a size.

    image = bring(read_image("cat.png"), (32, 32), "crop")  # u8[32,32,3]

Needs Pillow, the extra `addergraph[images]`, which is asked for the four formats below alone.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import border
from ..errors import DataError, StorageError, UnsupportedError
from ..ir import Array
from ..settings import Setting

if TYPE_CHECKING:
    from PIL import Image

STRETCH, CROP, PAD = "stretch", "crop", "pad"
WAYS = (STRETCH, CROP, PAD)
MOST_PIXELS = 100_000_000  # of one image; Pillow itself refuses 179 million
FORMATS = ("PNG", "JPEG", "BMP", "PPM")  # PPM: also PGM and PBM
_NOT_READ = (".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".jp2", ".tga")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # a tag of EXIF: 1 to 8, from 5 on with width and height exchanged
# What Pillow raises on damage depends on where it is.
_DAMAGED = (
    SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, ArithmeticError,
    zlib.error, AttributeError, RuntimeError,
)  # fmt: skip


class Header(NamedTuple):
    """What a file says of its image, without its pixels: the size is that of the upright image,
    `channels` is 1 for grey and 3 for colours; an animation is read as its first frame."""

    height: int
    width: int
    channels: int
    animated: bool


def require_pillow() -> None:
    """UnsupportedError without Pillow."""
    try:
        import PIL.Image
    except ImportError:
        raise UnsupportedError(
            "reading images needs Pillow: pip install 'addergraph[images]', or pip install Pillow"
        ) from None
    assert PIL.Image


def not_read(names: Iterable[str]) -> str:
    """What to do with pictures of formats that are not read, where there are some of them."""
    kinds = sorted({end for name in names for end in _NOT_READ if name.lower().endswith(end)})
    return f"; {', '.join(kinds)} is not read: convert such files to PNG" if kinds else ""


def read_header(path: str | os.PathLike[str]) -> Header:
    """As `read_image`, but what the file says alone."""
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:
            width, height = height, width
        animated = image.format == "PNG" and getattr(image, "is_animated", False)
        return Header(height, width, 1 if image.mode in _GREY else 3, animated)


def read_image(path: str | os.PathLike[str], channels: int | None = None) -> Array:
    """The image u8[H,W,C] of a PNG, JPEG, BMP, PPM, PGM or PBM file, whatever it is called.

    C is 1 for grey images, else 3 (red, green, blue), or `channels`: grey of colours is
    0.299 r + 0.587 g + 0.114 b. Palettes and CMYK become RGB, without colour profiles; what is
    transparent shows black; of 16 bits the upper 8 are taken; of an animation the first frame. The
    image is turned upright as its EXIF orientation says; an EXIF block that is damaged says
    nothing. StorageError for a file that cannot be read, is damaged or no such image; DataError for
    more than MOST_PIXELS, before any is decoded, and for pixels that are real numbers;
    UnsupportedError without Pillow.
    """
    channels = border.plain(int | None, "channels", channels)
    if channels not in (None, 1, 3):
        raise DataError(f"channels={border.shown(channels)} must be 1 (grey), 3 (RGB) or None")
    with _opened(path) as image:
        count = channels or (1 if image.mode in _GREY else 3)
        image.load()
        turned = _upright(image)
        pixels = np.array(_plain(turned, "L" if count == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], count)


def bring(image: object, size: tuple[int, int], how: str = STRETCH) -> Array:
    """The image u8[H,W,C], of 1 or 3 channels, as u8[h,w,C] with `size` = (h, w).

    "stretch"  height and width each by its own factor
    "crop"     the largest part in the middle that has the shape of (h, w)
    "pad"      all of it, as large as fits, in the middle of black

    Interpolated linearly, with a support that grows with the factor where an image gets smaller
    (Pillow's BILINEAR). An image of this size stays as it is. DataError for another image, size or
    way.
    """
    x = border.array("image", image)
    if x.dtype != np.uint8 or x.ndim != 3 or x.shape[2] not in (1, 3) or not x.size:
        raise DataError(f"image: expected u8 [H,W,1] or [H,W,3], found {x.dtype} {x.shape}")
    height, width = require_size(size)
    how = Setting(choices=WAYS).require("how", how)
    if x.shape[:2] == (height, width):
        return x
    own_height, own_width, channels = x.shape
    down, right = height / own_height, width / own_width
    if how == STRETCH:
        return _resized(x, height, width, (0.0, 0.0, own_width, own_height))
    if how == CROP:
        factor = max(down, right)
        left = max(0.0, (own_width - width / factor) / 2)
        top = max(0.0, (own_height - height / factor) / 2)
        return _resized(x, height, width, (left, top, own_width - left, own_height - top))
    factor = min(down, right)
    inner = (max(1, round(own_height * factor)), max(1, round(own_width * factor)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    padded = np.zeros((height, width, channels), np.uint8)
    padded[top : top + inner[0], left : left + inner[1]] = bring(x, inner)
    return padded


def require_size(size: object) -> tuple[int, int]:
    """(h, w), both at least 1 and together at most MOST_PIXELS; DataError otherwise."""
    found = border.plain(tuple[int, int], "size", size)
    if min(found) < 1 or found[0] * found[1] > MOST_PIXELS:
        most = f"together at most {MOST_PIXELS:,} pixels"
        raise DataError(f"size={found}: expected height and width of at least 1, {most}")
    return found  # type: ignore[no-any-return]


def _resized(x: Array, height: int, width: int, box: tuple[float, float, float, float]) -> Array:
    """The part of `x` in `box` (left, top, right, bottom)."""
    require_pillow()
    from PIL import Image

    image = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    made = np.array(image.resize((width, height), Image.Resampling.BILINEAR, box))
    return made.reshape(height, width, x.shape[2])


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image before it is decoded; what goes wrong then and later names the file."""
    require_pillow()
    from PIL import Image, UnidentifiedImageError

    text = border.path("path", path)
    try:
        if not stat.S_ISREG(os.stat(text).st_mode):
            raise StorageError(f'cannot read "{path}": it is no plain file')
        with warnings.catch_warnings():  # Pillow's, of what we bound ourselves or do not read
            warnings.simplefilter("ignore")
            with Image.open(text, formats=FORMATS) as image:
                _require_bounded(path, image)
                yield image
    except UnidentifiedImageError:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise StorageError(
            f'"{path}" is no image of {kinds}, or its header is damaged{not_read([text])}'
        ) from None
    except Image.DecompressionBombError:
        raise DataError(f'"{path}" has more than the {MOST_PIXELS} pixels that are read') from None
    except OSError as error:  # Pillow's own have no number
        if error.errno is not None:
            raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None
        raise StorageError(f'"{path}" is damaged: {error}') from None
    except _DAMAGED as error:
        raise StorageError(f'"{path}" is damaged: {error}') from None


def _require_bounded(path: str | os.PathLike[str], image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(
            f'"{path}" has {width} x {height} pixels; at most {MOST_PIXELS} are read: make it '
            "smaller"
        )
    if image.mode == "F":
        raise DataError(f'"{path}" has real numbers as pixels; expected bytes')


def _orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF says; 1 where nothing does. Decodes nothing."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # before it is decoded: asking a PNG for it would decode it
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (OSError, *_DAMAGED):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    from PIL.Image import Transpose

    turns = (
        None, Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90,
    )  # fmt: skip
    turn = turns[_orientation(image) - 1]
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in `mode` "L" or "RGB", without transparency."""
    from PIL import Image

    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image), 0, 65535) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert(mode)
    if not image.has_transparency_data:
        return image.convert(mode)
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert(mode)
