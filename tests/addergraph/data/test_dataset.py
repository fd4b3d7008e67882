"""What a data set promises, and the front door with archives of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph.data import Dataset, digits, load
from addergraph.errors import DataError, DataWarning, StorageError
from tests.addergraph.data.published import images, labels

X, Y = images(6, (4, 5, 3)), labels(6, 4)


def _set(**changes: object) -> Dataset:
    fields = {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2], "classes": None}
    return Dataset("mine", **{**fields, **changes})  # type: ignore[arg-type]


def test_digits_are_a_data_set_of_bytes() -> None:
    d, old = load("digits"), digits.load()
    assert (d.name, d.shape, d.class_count, d.scale) == ("digits", (8, 8, 1), 10, 1 / 16)
    assert d.x_train.dtype == np.uint8 and d.classes == tuple("0123456789")
    assert np.array_equal(d.x_train * np.float32(d.scale), old.x_train)
    assert np.array_equal(d.x_test * np.float32(d.scale), old.x_test)
    assert np.array_equal(d.y_train, old.y_train) and np.array_equal(d.y_test, old.y_test)


def test_statistics_are_those_of_the_scaled_training_images() -> None:
    x = images(2500, (2, 3, 3))  # more than one block
    d = _set(x_train=x, y_train=labels(2500, 4), x_test=x[:0], y_test=Y[:0])
    mean, std = d.statistics()
    assert np.allclose(mean, (x / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    assert np.allclose(std, (x / 255).std(axis=(0, 1, 2)), rtol=1e-12)
    y = d.normalize().apply(x)
    assert np.abs(y.mean(axis=(0, 1, 2))).max() < 1e-5
    assert np.abs(y.std(axis=(0, 1, 2)) - 1).max() < 1e-5


def test_a_channel_of_one_value_cannot_be_normalised() -> None:
    x = X.copy()
    x[..., 1] = 9
    with pytest.raises(DataError, match=r"channel 1 has the same value everywhere"):
        _set(x_train=x).normalize()


def test_class_count_without_names_is_that_of_both_parts() -> None:
    assert _set(y_train=np.zeros(6, np.int64), y_test=np.array([1, 5])).class_count == 6
    assert _set(x_test=X[:0], y_test=Y[:0]).class_count == int(Y.max()) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": X.astype(np.float64)}, r"train part: .*found float64 \(6, 4, 5, 3\)"),
        ({"x_train": X[0]}, r"train part: .*\[N,H,W,C\], found uint8 \(4, 5, 3\)"),
        ({"x_train": X[:5]}, r"expected labels int64 \(5,\), found int64 \(6,\)"),
        ({"y_test": Y[:2].astype(np.int32)}, r"test part: .*found int32"),
        ({"x_test": X[:2, :3]}, r"train on are uint8 \(4, 5, 3\), .*uint8 \(3, 5, 3\)"),
        ({"x_test": X[:2].astype(np.float32)}, r"those to test on float32"),
        ({"x_val": X[:2, :3], "y_val": Y[:2]}, r"those to validate on uint8 \(3, 5, 3\)"),
        ({"x_val": X[:2]}, r"validation part: expected labels int64 \(2,\), found int64 \(0,\)"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"no images to train on"),
        ({"y_train": np.array([0, 1, -2, 3, 4, 5])}, r"label -2 of sample 2 .*at least 0"),
        ({"classes": ("a", "b"), "y_test": np.array([1, 2])}, r"label .* expected 0 to 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _set(**changes)


def test_own_archives_with_and_without_a_test_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    a = load(str(tmp_path / "a.npz"))
    assert np.array_equal(a.x_train, X) and np.array_equal(a.y_train, Y) and a.scale == 1 / 255
    assert a.x_test.shape == (0, 4, 5, 3) and a.name == "a.npz" and a.classes is None
    grey = X[..., 0] / 255
    y = Y[:, None].astype(np.uint8)
    np.savez(tmp_path / "b.npz", x_train=grey, y_train=y, x_test=grey[:2], y_test=Y[:2])
    b = load(f"npz:{tmp_path / 'b.npz'}")
    assert b.shape == (4, 5, 1) and b.x_train.dtype == np.float32 and b.scale == 1.0
    assert np.array_equal(b.x_test[..., 0], grey[:2].astype(np.float32))
    assert np.array_equal(b.y_train, Y) and b.y_train.dtype == np.int64


@pytest.mark.parametrize("end", ["val", "validation"])
def test_own_archives_have_any_parts_and_names_of_classes(tmp_path: Path, end: str) -> None:
    held_out: dict[str, Any] = {
        f"x_{end}": X[:3],
        f"y_{end}": Y[:3],
        "x_test": X[3:],
        "y_test": Y[3:],
    }
    names = ("käfer", "b", "c", "d")
    arrays: dict[str, Any] = {"x": X, "y": Y, "classes": np.array(names), **held_out}
    np.savez(tmp_path / "a.npz", **arrays)
    a = load(f"{tmp_path / 'a.npz'}")
    assert np.array_equal(a.x_val, X[:3]) and np.array_equal(a.y_val, Y[:3])
    assert np.array_equal(a.x_test, X[3:]) and np.array_equal(a.y_test, Y[3:])
    assert np.array_equal(a.x_train, X) and a.classes == names
    for other in (np.array([n.encode() for n in names]), np.arange(10, 14)):
        np.savez(tmp_path / "b.npz", x_train=X, y_train=Y, classes=other)
        b = load(f"{tmp_path / 'b.npz'}")
        assert b.classes == (names if other.dtype.kind == "S" else ("10", "11", "12", "13"))
        assert b.x_val.shape == (0, 4, 5, 3) and b.y_val.shape == (0,)


def test_a_split_holds_out_a_share_of_each_class() -> None:
    counts = [1, 2, 3, 14, 15, 16, 100]
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(7), counts))
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1, 1)
    whole = Dataset("mine", x, y, x[:3], y[:3], tuple("abcdefg"))
    made = whole.split(validation=0.1, seed=3)
    assert np.bincount(made.y_val, minlength=7).tolist() == [0, 1, 1, 1, 2, 2, 10]
    assert (np.bincount(made.y_train) + np.bincount(made.y_val, minlength=7)).tolist() == counts
    for x, classes in ((made.x_train, made.y_train), (made.x_val, made.y_val)):
        at = x.ravel().astype(int)
        assert (np.diff(at) > 0).all() and np.array_equal(y[at], classes)
    assert not np.intersect1d(made.x_train, made.x_val).size
    assert made.x_test is whole.x_test and made.classes == whole.classes
    most = np.bincount(whole.split(0.99).y_val, minlength=7)
    assert most.tolist() == [0, *(count - 1 for count in counts[1:])]


def test_a_split_follows_its_seed_and_no_other_class() -> None:
    y = np.repeat(np.arange(3), 40)
    x = np.arange(120, dtype=np.float32).reshape(-1, 1, 1, 1)

    def held_out(count: int, seed: int) -> list[float]:
        made = Dataset("mine", x[:count], y[:count], x[:0], y[:0], None).split(0.2, seed)
        return made.x_val.ravel().tolist()

    assert held_out(120, 0) == held_out(120, 0) != held_out(120, 1)
    assert held_out(120, 0)[:16] == held_out(80, 0)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"x_val": X[:2], "y_val": Y[:2]}, (), r"has 2 images to validate on already"),
        ({"x_train": X[:1], "y_train": np.array([0])}, (), r"one image of each class"),
        ({}, (0.0,), r"validation=0 must be a share above 0"),
        ({}, (1,), r"validation=1 must be a share"),
        ({}, (float("nan"),), r"validation=nan must be a share"),
        ({}, (0.1, -1), r"seed=-1 must be"),
    ],
)
def test_splits_that_cannot_be_made(
    changes: dict[str, object], arguments: tuple[float, ...], message: str
) -> None:
    whole = _set(**changes)
    with pytest.raises(DataError, match=message):
        whole.split(*arguments)  # type: ignore[arg-type]


def test_a_class_that_the_validation_part_alone_has() -> None:
    with pytest.warns(DataWarning, match=r'class "d" has images to validate on and none to train'):
        _set(
            y_train=Y % 3, y_test=Y[:2] % 3, x_val=X[:1], y_val=np.array([3]), classes=tuple("abcd")
        )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X}, r'no array "y_train"'),
        ({"x_train": X, "y_train": Y, "x_test": X}, r"x_test alone"),
        ({"x_train": X, "y_train": Y, "y_val": Y}, r"y_val alone"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, r"has x_train and x; expected one"),
        (
            {"x": X, "y": Y, "x_val": X, "x_validation": X},
            r"has x_val and x_validation; expected one",
        ),
        ({"x": X, "y": Y, "classes": np.array([0.5])}, r"classes is float64 \(1,\); expected the"),
        ({"x": X, "y": Y, "classes": np.array(["a"])}, r"label \d of sample .* expected 0 to 0"),
        ({"x": X, "y": Y, "classes": np.array(list("abca"))}, r"classes has 'a' 2 times"),
        ({"x": X, "y": Y, "classes": np.array([b"\xff"])}, r"a name that is no text"),
        ({"x_test": X, "y_test": Y}, r'no array "x_train"'),
        ({"x": X[:, 0, 0], "y": Y}, r"x is uint8 \(6, 3\); expected numbers \[N,H,W\]"),
        ({"x": X.astype("U3"), "y": Y}, r"x is <U3"),
        ({"x": X, "y": Y.astype(float)}, r"y is float64 \(6,\); expected class numbers"),
        ({"x": X, "y": np.eye(6)}, r"y is float64 \(6, 6\)"),
        ({"x": X, "y": Y[:3]}, r"expected labels int64 \(6,\)"),
    ],
)
def test_own_archives_of_another_content(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    assert len(load("npz:~/a.npz").x_train) == len(load("~/a.npz").x_train) == 6


def test_specs_that_name_nothing() -> None:
    for spec, message in [
        ("", r'data "": expected digits, mnist:PATH, .*npz:PATH, folder:PATH, or the path of'),
        ("cifar-10:/data", r'data "cifar-10:/data" \(did you mean "cifar10"\?\)'),
        ("mnist", r'data "mnist": expected'),
        ("folder:", r"expected digits"),
        ("cifar10:", r"expected digits"),
        ("digits:x", r"expected digits"),
    ]:
        with pytest.raises(DataError, match=message):
            load(spec)
    with pytest.raises(StorageError, match=r"cannot read .*nowhere\.npz"):
        load("npz:/nowhere.npz")
    with pytest.raises(DataError, match=r"cannot be verified"):
        load("npz:/nowhere.npz", verify=True)


def test_calibration_sees_all_classes_also_where_these_stand_together() -> None:
    x = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    together, mixed = np.repeat([2, 0, 1], 20), np.tile([2, 0, 1], 20)
    one = Dataset("one", x, together, x[:0], together[:0], None)
    assert one.calibration(6).ravel().tolist() == [0, 10, 20, 30, 40, 50]
    assert (
        one.calibration(60).ravel().tolist() == one.calibration(99).ravel().tolist() == [*range(60)]
    )
    other = Dataset("other", x, mixed, x[:0], mixed[:0], None)
    assert other.calibration(6).ravel().tolist() == [*range(6)]
    with pytest.raises(DataError, match="count"):
        one.calibration(0)
