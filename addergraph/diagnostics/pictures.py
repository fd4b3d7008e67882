"""Pictures: colours that the colour-blind tell apart, panels, and files written atomically.

Needs matplotlib, the extra `addergraph[plot]`. Colours: Okabe and Ito, "Color universal design",
https://jfly.uni-koeln.de/color/ (2008).
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

from ..errors import StorageError, UnsupportedError
from ..files import storage

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
SUFFIXES = (".png", ".svg", ".pdf")
DPI = 100
PANEL = (3.4, 2.5)  # inches
MOST_COLUMNS = 4


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches, which a notebook shows; UnsupportedError
    without matplotlib."""
    try:
        from matplotlib.figure import Figure as Plain
    except ImportError:
        raise UnsupportedError(
            "a picture needs matplotlib: pip install 'addergraph[plot]', or pip install matplotlib"
        ) from None

    class Figure(Plain):
        """Notebooks know how to show plain figures once `pyplot` is set up, and not before."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def panels(count: int, title: str, x: str, y: str) -> tuple[Any, list[Any]]:
    """A figure with a grid of `count` axes, and the axes; `x` and `y` label the outer ones."""
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    # Room for the title and a legend below.
    figure = new_figure(PANEL[0] * max(2, columns), PANEL[1] * rows + 0.8)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    for unused in grid.flat[count:]:
        unused.set_axis_off()
    for number, axis in enumerate(grid.flat[:count]):
        axis.tick_params(which="both", labelsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.25, linewidth=0.6)
        if number + columns >= count:
            axis.set_xlabel(x, fontsize=9)
        if number % columns == 0:
            axis.set_ylabel(y, fontsize=9)
    return figure, list(grid.flat[:count])


def drawable(text: str) -> str:
    """`text` as a picture can show it: a dollar is no formula, and "?" stands for what the font
    lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in text).replace("$", r"\$")


def folder_for(path: str | os.PathLike[str]) -> Path:
    """The folder `path`, made where there is none, before long work: StorageError where no picture
    could be written there, UnsupportedError without matplotlib."""
    folder = storage.user_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f'cannot make the folder "{folder}": {error.strerror or error}'
        ) from None
    require_picture(folder / f"a{SUFFIXES[0]}")
    return folder


def require_picture(path: str | os.PathLike[str]) -> None:
    """Before long work: StorageError where `path` is no picture's name or cannot be written,
    UnsupportedError without matplotlib."""
    if Path(path).suffix not in SUFFIXES:
        raise StorageError(f'"{path}": the name of a picture ends in {", ".join(SUFFIXES)}')
    new_figure(1, 1)
    storage.require_writable(path)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes the figure as its name says; StorageError for another name, or where it cannot."""
    if Path(path).suffix not in SUFFIXES:
        raise StorageError(f'"{path}": the name of a picture ends in {", ".join(SUFFIXES)}')
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:])
    storage.atomic_write(path, content.getvalue())
