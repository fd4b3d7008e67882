"""The pictures of `addergraph evaluate`; each returns a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..border import array
from ..errors import DataError
from ..ir import Array
from ..tables import printable, shortened
from .mistakes import Confusion, Mistake
from .pictures import drawable, new_figure

FEW = 20  # classes up to which each cell has its number
MANY = 200  # from which on classes have numbers and no names
SHORT = 2  # letters of names that stand upright below the columns, as digits do
COLUMNS = 6  # of the sheet
_NAME = 22  # columns of text
_FILE = 26  # letters of a file's name


def plot_confusion(found: Confusion, of: str) -> Any:
    """The confusion matrix: a cell is the share of the true class (row) that is predicted as the
    class of the column. `of` is the title's end: the network, the data.
    """
    count = len(found.classes)
    few, many = count <= FEW, count > MANY
    cell = 0.5 if few else 0.115
    side = max(3.5, 8.0 if many else cell * count)
    figure = new_figure(side + 3, side + 2)
    axis = figure.subplots()
    drawn = _drawn(axis, found)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(drawable(f"Confusion of {of}"), fontsize=11, wrap=True)
    if not many:
        size = 9 if few else 72 * cell / 1.25
        names = [drawable(shortened(name, _NAME)) for name in found.labels()]
        upright = max(map(len, names)) <= SHORT
        axis.set_xticks(range(count), names, fontsize=size, rotation=0 if upright else 90)
        axis.set_yticks(range(count), names, fontsize=size)
    if few:
        _write_counts(axis, found)
    bar = figure.colorbar(drawn, ax=axis, shrink=0.6, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"])
    white = "" if found.images.all() else " (white: no images)"
    bar.set_label(f"share of the true class{white}")
    return figure


def _drawn(axis: Any, found: Confusion) -> Any:
    """The cells; the root of the share is what is coloured, so that single mistakes are seen."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    colors = colormaps["cividis"].with_extremes(bad="white")
    return axis.imshow(
        np.ma.masked_invalid(found.shares), cmap=colors, norm=PowerNorm(0.4, 0, 1),
        interpolation="nearest",
    )  # fmt: skip


def _write_counts(axis: Any, found: Confusion) -> None:
    for (row, column), number in np.ndenumerate(found.counts):
        if number:
            bright = found.shares[row, column] > 0.2
            axis.text(
                column, row, f"{number}", ha="center", va="center",
                fontsize=8 if number < 10_000 else 6, color="black" if bright else "white",
            )  # fmt: skip


def plot_mistakes(
    images: object,
    mistakes: Sequence[Mistake],
    names: Sequence[str],
    of: str,
    brightest: float,
    files: Sequence[str] = (),
) -> Any:
    """A sheet of images [M,H,W,C], one for each mistake, with the true and the predicted class.

    Three channels are red, green and blue; of others the mean is shown. `brightest` is the pixel
    that shows white; black is 0, or the least pixel where that is below. `files`: those of the
    images, whose names are shown in the place of their numbers. DataError where there are not as
    many images, or files, as mistakes.
    """
    pixels = array("images", images)
    if pixels.ndim != 4 or len(pixels) != len(mistakes):
        raise DataError(f"expected images [{len(mistakes)},H,W,C], found {pixels.shape}")
    if files and len(files) != len(mistakes):
        raise DataError(f"{len(files)} files for {len(mistakes)} mistakes")
    columns, rows = COLUMNS, max(1, math.ceil(len(mistakes) / COLUMNS))
    figure = new_figure(1.8 * columns, (2.3 if files else 2.2) * rows + 0.6)
    figure.suptitle(drawable(f"Worst mistakes of {of}"), fontsize=11, wrap=True)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    if not mistakes:
        figure.text(0.5, 0.5, "no mistakes", ha="center", fontsize=11)
    called = [f"{_file_name(file)}\n" for file in files] or [f"no. {m.sample}: " for m in mistakes]
    for axis, one, image, which in zip(grid.flat, mistakes, pixels, called, strict=False):
        axis.imshow(_shown(image, brightest), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        true, predicted = (
            drawable(shortened(names[number], _NAME)) for number in (one.true, one.predicted)
        )
        axis.set_title(
            f"{which}{true}\ntaken for {predicted}\n{100 * one.probability:.1f} %",
            fontsize=7,
        )
    return figure


def _file_name(file: str) -> str:
    """The name of a file without its folder; of a long one its end, which tells numbers apart."""
    name = printable(Path(file).name)
    return drawable(name if len(name) <= _FILE else f"..{name[2 - _FILE :]}")


def _shown(image: Array, brightest: float) -> Array:
    """An image as shares of white, f64[H,W,3] or f64[H,W]."""
    values = image.astype(np.float64)
    least = min(0.0, float(values.min()))
    shares = np.clip((values - least) / max(brightest - least, 1e-30), 0, 1)
    return shares if shares.shape[2] == 3 else shares.mean(axis=2)
