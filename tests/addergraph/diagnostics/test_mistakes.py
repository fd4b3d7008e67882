"""What a network confuses: the numbers, their text, and the pictures."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from addergraph.diagnostics import Mistake, confusion, worst_mistakes
from addergraph.diagnostics.mistakes import MOST_CLASSES, worst_of
from addergraph.errors import DataError
from addergraph.ir import Array

Y: Array = np.array([0, 0, 0, 1, 1, 2])
SCORES: Array = np.eye(3)[[0, 1, 0, 1, 0, 2]]


def guesses(count: int, images: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, count, images)
    return y, np.where(rng.random(images) < 0.8, y, rng.integers(0, count, images))


def test_counts_are_of_true_by_predicted_class() -> None:
    found = confusion(Y, SCORES, ("cat", "dog", "cow"))
    assert found.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert found.images.tolist() == [3, 2, 1] and found.right.tolist() == [2, 1, 1]
    assert found.accuracy == 4 / 6
    assert found.pairs() == [(0, 1, 1), (1, 0, 1)]
    assert (found + found).counts.sum() == 12
    assert confusion(Y, SCORES.argmax(1)).classes == ("0", "1", "2")
    assert found.numbers()["classes"][1] == {
        "class": "dog", "index": 1, "images": 2, "right": 1, "share": 0.5
    }  # fmt: skip


def test_every_count_is_that_of_a_loop() -> None:
    y, predicted = guesses(5, 300)
    expected = np.zeros((5, 5), int)
    for true, taken in zip(y, predicted, strict=True):
        expected[true, taken] += 1
    assert (confusion(y, predicted).counts == expected).all()


@pytest.mark.parametrize(
    ("y", "answers", "classes", "message"),
    [
        ([0, 3], SCORES[:2], None, "y: 3 at 1 is no class; expected integers from 0 to 2"),
        ([0, -1], SCORES[:2], None, "y: -1 at 1 is no class"),
        ([0.0, 0.5], SCORES[:2], None, "y: 0.0 at 0 is no class"),
        ([0, 1], SCORES, None, r"expected y \[N\] and answers .*, found \(2,\) and \(6,\)"),
        ([0, 1], SCORES[:2], ("a", "b"), "2 names of classes for 3 classes"),
        ([0, MOST_CLASSES], [0, 1], None, f"y: {MOST_CLASSES} at 1 is no class"),
        ([[0]], [[[0]]], None, r"found \(1, 1\)"),
    ],
)
def test_what_are_no_classes(y: Any, answers: Any, classes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        confusion(y, answers, classes)


def test_the_worst_mistakes_come_first_and_of_equal_ones_the_first() -> None:
    p = np.array([0.9, 0.5, 0.8, 0.7, 0.5, 0.6])
    found = worst_mistakes(Y, SCORES.argmax(1), p, 9, first=10)
    assert found == [Mistake(11, 0, 1, 0.5), Mistake(14, 1, 0, 0.5)]
    p[4] = 0.6
    assert worst_mistakes(Y, SCORES.argmax(1), p, 1)[0].sample == 4
    halves = [worst_mistakes(Y[s], SCORES[s].argmax(1), p[s], 9, s.start) for s in
              (slice(0, 3), slice(3, 6))]  # fmt: skip
    assert worst_of([*halves[0], *halves[1]], 9) == worst_mistakes(Y, SCORES.argmax(1), p, 9)
    with pytest.raises(DataError, match=r"expected three arrays \[N\]"):
        worst_mistakes(Y, SCORES, p, 1)


def test_the_matrix_of_few_classes_is_text() -> None:
    found = confusion(Y, SCORES, ("cat", "[dog]", "a\x1b[1mb"))
    lines = str(found).splitlines()
    assert lines[2].split() == ["cat", "3", "2", "0.6667"]
    assert "images of each true class (row) by predicted class (column):" in lines
    assert [line.split() for line in lines[-3:]] == [
        ["0", "cat", "2", "1", "."], ["1", "[dog]", "1", "1", "."],
        ["2", "a\\x1b[1mb", ".", ".", "1"],
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "images"), [(10, 1_000_000), (12, 9000), (100, 9000), (3, 0)])
def test_the_text_fits_a_terminal(count: int, images: int) -> None:
    y, predicted = guesses(count, images)
    text = str(confusion(y, predicted, [f"a name of class {i}, too long" for i in range(count)]))
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 52


def test_of_many_classes_the_worst_and_most_confused_are_shown() -> None:
    y, predicted = guesses(100, 9000)
    y[y == 7] = 8
    found = confusion(y, predicted)
    lines = str(found).splitlines()
    share = found.right / np.maximum(found.images, 1)
    worst = np.argsort(np.where(found.images, share, 2), kind="stable")[:21]
    assert [int(line.split()[0]) for line in lines[2:22]] == worst[:20].tolist()
    assert lines[22].startswith("the worst 20 of 99 classes; of each of the others at least ")
    assert lines[22].endswith(f"{share[worst[20]]:.4f} are right")
    assert lines[23] == "1 of 100 classes have no images here"
    true, taken, number = found.pairs()[0]
    assert lines[28].split()[:3] == [str(true), str(taken), str(number)]
    rest = sum(n for *_, n in found.pairs()[20:])
    assert lines[-1].startswith(f"{rest:,} more mistakes among ")


def test_no_mistakes() -> None:
    y = np.arange(30)
    assert str(confusion(y, y)).endswith("no classes are confused")
    assert worst_mistakes(y, y, y / 30, 5) == []


# --- pictures -------------------------------------------------------------------------------------


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text)]


@pytest.mark.parametrize("count", [3, 100, 250])
def test_the_picture_of_a_confusion(count: int) -> None:
    pytest.importorskip("matplotlib")
    from addergraph.diagnostics.mistake_plots import plot_confusion

    y, predicted = guesses(count, 3000)
    y[y == 0] = 1
    found = confusion(y, predicted, ["$a$ 日本", *(f"class {i}" for i in range(1, count))])
    figure = plot_confusion(found, "m on data, 3,000 test images")
    axis = figure.axes[0]
    assert axis.get_title() == "Confusion of m on data, 3,000 test images"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    shown = axis.images[0].get_array()
    assert shown.mask[0].all() and np.allclose(shown[1], found.shares[1])
    if count > 200:
        return
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[0] == r"0 \$a\$ ??" and labels[2] == "2 class 2" and len(labels) == count
    if count == 3:
        assert str(found.counts[2, 1]) in texts(figure)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.get_yticklabels()]
    for upper, lower in itertools.pairwise(boxes):
        assert lower.y1 <= upper.y0 + 1  # no name covers another


@pytest.mark.parametrize(
    ("classes", "empty", "rotation", "label"),
    [
        (("0", "1", "2"), False, 0, "share of the true class"),
        (("0", "1", "2"), True, 0, "share of the true class (white: no images)"),
        (("cat", "dog", "cow"), False, 90, "share of the true class"),
    ],
)
def test_digits_stand_upright_and_white_is_told_where_it_is(
    classes: tuple[str, ...], empty: bool, rotation: int, label: str
) -> None:
    pytest.importorskip("matplotlib")
    from addergraph.diagnostics.mistake_plots import plot_confusion

    shown = slice(5) if empty else slice(None)
    figure = plot_confusion(confusion(Y[shown], SCORES[shown], classes), "m on d")
    assert {text.get_rotation() for text in figure.axes[0].get_xticklabels()} == {rotation}
    assert figure.axes[1].get_ylabel() == label


def test_the_sheet_of_mistakes() -> None:
    pytest.importorskip("matplotlib")
    from addergraph.diagnostics.mistake_plots import plot_mistakes

    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, 0, 0, 0] = 16
    mistakes = [Mistake(5, 0, 1, 0.9), Mistake(2, 1, 0, 0.75)]
    figure = plot_mistakes(images, mistakes, ("cat", "dog"), "m on d", 16)
    assert figure.axes[0].get_title() == "no. 5: cat\ntaken for dog\n90.0 %"
    assert figure.axes[1].get_title() == "no. 2: dog\ntaken for cat\n75.0 %"
    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert "Worst mistakes of m on d" in texts(figure)
    assert not figure.axes[2].images
    assert "no mistakes" in texts(plot_mistakes(images[:0], [], ("cat",), "m on d", 255))
    with pytest.raises(DataError, match=r"expected images \[2,H,W,C\]"):
        plot_mistakes(images[:1], mistakes, ("cat", "dog"), "m on d", 255)
    files = ["pets/cat/7.png", f"pets/dog/{'IMG_' * 9}0042.jpg"]
    figure = plot_mistakes(images, mistakes, ("cat", "dog"), "m on d", 16, files)
    assert figure.axes[0].get_title() == "7.png\ncat\ntaken for dog\n90.0 %"
    assert figure.axes[1].get_title().splitlines()[0] == "..IMG_IMG_IMG_IMG_0042.jpg"
    with pytest.raises(DataError, match="1 files for 2 mistakes"):
        plot_mistakes(images, mistakes, ("cat", "dog"), "m on d", 16, files[:1])
