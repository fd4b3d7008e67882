"""What notebooks show of objects: HTML in the colours of the page, without scripts; all text is
escaped. Pictures are `data:` addresses, so that nothing of theirs gets into the page."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from .tables import Table, printable

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
IMAGE = 56  # pixels of a shown image's height


def text(*lines: str) -> str:
    """Lines of text, in a type where columns stand below each other."""
    shown = "\n".join(escape(printable(line)) for one in lines for line in one.splitlines())
    return f'<pre style="margin:.3em 0;white-space:pre-wrap">{shown}</pre>'


def head(thing: object) -> str:
    """What `repr` says, without its brackets."""
    return f"<div><b>{escape(printable(repr(thing).strip('<>')))}</b></div>"


def table(made: Table) -> str:
    """The table; spaces before a word stay, by which parts stand below their block."""
    sides = ["left" if name in made.words else "right" for name in made.heads]

    def row(cells: Sequence[str], tag: str, style: str = "") -> str:
        shown = zip(sides, cells, strict=False)  # a row may be shorter
        parts = (
            f'<{tag} style="white-space:pre;text-align:{side}{style}">'
            f"{escape(printable(cell))}</{tag}>"
            for side, cell in shown
        )
        return f"<tr>{''.join(parts)}</tr>"

    line = ";border-top:1px solid #808890"
    rows = [row(made.titles(), "th"), *(row(cells, "td") for cells in made.rows)]
    rows += [row(made.footer, "td", line)] if made.footer else []
    return f"<table>{''.join(rows)}</table>"


def folded(title: str, content: str) -> str:
    """Content that a click on the title shows."""
    return f"<details><summary>{escape(printable(title))}</summary>{content}</details>"


def drawing(svg: str) -> str:
    """A picture of any size, in a window that scrolls."""
    return (
        '<div style="max-height:640px;max-width:100%;overflow:auto">'
        f'<img style="max-width:none" src="{_address("image/svg+xml", svg.encode())}"></div>'
    )


def image(pixels: Pixels, title: str) -> str:
    """u8[H,W,1 or 3], grey or red, green, blue."""
    return (
        f'<img style="height:{IMAGE}px;image-rendering:pixelated;margin:1px" '
        f'title="{escape(printable(title))}" src="{_address("image/png", png(pixels))}">'
    )


def png(pixels: Pixels) -> bytes:
    """u8[H,W,1 or 3] as a PNG file: each row behind a 0 (no filter), deflated."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    kind = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
