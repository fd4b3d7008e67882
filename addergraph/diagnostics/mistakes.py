"""Which classes a network confuses, and the samples that it is most wrong about."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import border, display
from ..errors import DataError
from ..ir import Array
from ..tables import Table, printable, shortened

MOST_CLASSES = 4096  # whose counts are in memory
LISTED = 20  # classes in a table
SQUARE = 12  # classes up to which the whole matrix is shown
WIDTH = 80  # columns of a terminal
_NAME = 24  # columns of a class' name in a table
_LEAST_NAME = 6


class Mistake(NamedTuple):
    """A sample, the number of its class and of the predicted one, and what the network gave for
    the probability of the latter."""

    sample: int
    true: int
    predicted: int
    probability: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many samples of each class are predicted as which.

    counts   i64[T,T]: of true class (row) t, how many were taken for class (column) p
    classes  the names of the T classes
    """

    counts: Array
    classes: tuple[str, ...]

    @property
    def images(self) -> Array:
        """i64[T]: samples of each class."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def right(self) -> Array:
        """i64[T]: those that are predicted as what they are."""
        return self.counts.diagonal()

    @property
    def shares(self) -> Array:
        """f64[T,T]: `counts` as shares of the true class; NaN for a class without samples."""
        with np.errstate(invalid="ignore"):
            return self.counts / self.images[:, None]

    @property
    def accuracy(self) -> float:
        """The share of all samples that are right; NaN without samples."""
        total = self.images.sum()
        return float(self.right.sum() / total) if total else float("nan")

    def __add__(self, other: Confusion) -> Confusion:
        """Of the samples of both."""
        if self.classes != other.classes:
            raise DataError("confusions of other classes cannot be added")
        return Confusion(self.counts + other.counts, self.classes)

    def pairs(self) -> list[tuple[int, int, int]]:
        """True class, predicted class and how many samples, of all that are confused; the most
        first, then in the order of the classes."""
        wrong = self.counts - np.diag(self.right)
        true, predicted = np.nonzero(wrong)
        counts = wrong[true, predicted]
        order = np.argsort(-counts, kind="stable")
        return [(int(true[i]), int(predicted[i]), int(counts[i])) for i in order]

    def labels(self) -> list[str]:
        """Number and name of each class, or the number where that is the name."""
        return [
            name if name == str(i) else f"{i} {printable(name)}"
            for i, name in enumerate(self.classes)
        ]

    def numbers(self) -> dict[str, Any]:
        """For JSON: of each class its name, index, images, right and share (None without images),
        and the counts."""
        rows = zip(self.classes, self.images.tolist(), self.right.tolist(), strict=True)
        classes = [
            {"class": name, "index": i, "images": n, "right": r, "share": r / n if n else None}
            for i, (name, n, r) in enumerate(rows)
        ]
        return {"classes": classes, "confusion": self.counts.tolist()}

    def __repr__(self) -> str:
        right, images = (int(n.sum()) for n in (self.right, self.images))
        return f"<Confusion of {len(self.classes)} classes: {right:,} of {images:,} images right>"

    def _repr_html_(self) -> str:
        """The matrix of up to 20 classes; of more, what `str` says."""
        if len(self.classes) > LISTED:
            return display.head(self) + display.text(str(self))
        heads = ("is / taken for", *self.labels(), "right")
        rows = [
            (label, *(f"{n:,}" if n else "" for n in row), f"{share:.4f}")
            for label, row, share in zip(
                self.labels(), self.counts, self.shares.diagonal(), strict=True
            )
        ]
        return display.head(self) + display.table(Table(heads, rows, heads[:1]))

    def __str__(self) -> str:
        """The accuracy of each class, and what is confused: all of it for up to 12 classes."""
        return "\n".join([*self._of_classes(), "", *(self._matrix() or self._pairs())])

    def _of_classes(self) -> list[str]:
        images, right = self.images, self.right
        share = self.shares.diagonal()
        seen = np.flatnonzero(images)
        shown = seen[np.argsort(share[seen], kind="stable")][:LISTED]
        if len(seen) <= LISTED:
            shown = seen
        rows = [
            (self._name(i), f"{images[i]:,}", f"{right[i]:,}", f"{share[i]:.4f}") for i in shown
        ]
        lines = Table(("class", "images", "right", "share"), rows, ("class",)).lines()
        if len(seen) > LISTED:
            least = np.sort(share[seen])[LISTED]
            lines.append(
                f"the worst {LISTED} of {len(seen)} classes; of each of the others at least "
                f"{least:.4f} are right"
            )
        if len(seen) < len(images):
            lines.append(f"{len(images) - len(seen)} of {len(images)} classes have no images here")
        return lines

    def _matrix(self) -> list[str]:
        """The whole matrix; nothing where it is too wide for a terminal."""
        count, cell = len(self.classes), max(2, len(str(int(self.counts.max(initial=0)))))
        room = WIDTH - count * (cell + 2)
        if count > SQUARE or room < _LEAST_NAME:
            return []
        rows = [
            (shortened(label, min(room, _NAME)), *(str(n or ".") for n in row))
            for label, row in zip(self.labels(), self.counts.tolist(), strict=True)
        ]
        heads = ("true", *map(str, range(count)))
        return [
            "images of each true class (row) by predicted class (column):",
            *Table(heads, rows, ("true",)).lines(),
        ]

    def _pairs(self) -> list[str]:
        pairs, images = self.pairs(), self.images
        if not pairs:
            return ["no classes are confused"]
        rows = [
            (self._name(true), self._name(predicted), f"{n:,}", f"{n / images[true]:.4f}")
            for true, predicted, n in pairs[:LISTED]
        ]
        heads = ("true", "taken for", "images", "share of class")
        lines = ["most confused:", *Table(heads, rows, heads[:2]).lines()]
        more = sum(n for *_, n in pairs[LISTED:])
        return (
            [*lines, f"{more:,} more mistakes among {len(pairs) - LISTED} pairs"] if more else lines
        )

    def _name(self, index: int) -> str:
        return shortened(printable(self.classes[index]), _NAME)


def confusion(y: object, answers: object, classes: Sequence[str] | None = None) -> Confusion:
    """Counts which classes are predicted as which.

        y        the true classes, integers [N] from 0
        answers  scores or probabilities [N,T], of which the largest is the prediction (of equal
                 ones the first), or the predicted classes, integers [N]
        classes  T names; numbers unless given

    T is the number of scores, of names, or one more than the largest number. DataError for other
    shapes, numbers that are no classes, or more than MOST_CLASSES.
    """
    labels, predicted = border.array("y", y), border.array("answers", answers)
    known = border.plain(Sequence[str] | None, "classes", classes)
    count = predicted.shape[1] if predicted.ndim == 2 else None if known is None else len(known)
    if predicted.ndim == 2 and predicted.shape[1]:
        predicted = predicted.argmax(axis=1)
    if labels.ndim != 1 or predicted.shape != labels.shape:
        raise DataError(
            f"expected y [N] and answers [N] or [N,T], found {labels.shape} and {predicted.shape}"
        )
    for what, array in (("y", labels), ("answers", predicted)):
        _require_classes(what, array, count)
    if count is None:
        count = 1 + int(max(labels.max(initial=-1), predicted.max(initial=-1)))
        _require_classes("y", labels, count)
    if known is not None and len(known) != count:
        raise DataError(f"{len(known)} names of classes for {count} classes")
    flat = labels.astype(np.int64) * count + predicted.astype(np.int64)
    counts = np.bincount(flat, minlength=count * count).reshape(count, count)
    return Confusion(counts, tuple(map(str, range(count))) if known is None else tuple(known))


def worst_mistakes(
    y: object, predicted: object, probabilities: object, count: int, first: int = 0
) -> list[Mistake]:
    """The `count` samples whose wrong prediction has the highest probability, the worst first.

    True and predicted classes [N], and the probabilities [N] of the latter; samples are counted
    from `first`. DataError for other shapes.
    """
    true, found, given = (
        border.array(what, x)
        for what, x in (("y", y), ("predicted", predicted), ("probabilities", probabilities))
    )
    count, first = border.integer("count", count), border.integer("first", first)
    if true.ndim != 1 or not true.shape == found.shape == given.shape:
        raise DataError(
            f"expected three arrays [N], found {true.shape}, {found.shape}, {given.shape}"
        )
    rows = np.flatnonzero(found != true)
    return [
        Mistake(first + int(i), int(true[i]), int(found[i]), float(given[i]))
        for i in rows[np.argsort(-given[rows], kind="stable")][: max(count, 0)]
    ]


def worst_of(mistakes: Iterable[Mistake], count: int) -> list[Mistake]:
    """The `count` worst of all, of equal ones those that stand first."""
    return heapq.nsmallest(count, mistakes, key=lambda one: -one.probability)


def _require_classes(what: str, array: Array, count: int | None) -> None:
    most = MOST_CLASSES if count is None else count
    if most > MOST_CLASSES:
        raise DataError(f"{most} classes; at most {MOST_CLASSES} are counted")
    wrong = (array.dtype.kind not in "iu") | (array < 0) | (array >= most)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{what}: {array[at]} at {at} is no class; expected integers from 0 to {most - 1}"
        )
