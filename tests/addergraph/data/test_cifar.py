"""CIFAR-10 and CIFAR-100 in both versions from files in the true formats, whole and broken."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from addergraph.data import Dataset, cifar, load
from addergraph.errors import DataError, DataWarning, StorageError
from tests.addergraph.data.published import (
    CIFAR10,
    cifar_batches,
    cifar_binary,
    cifar_files,
    images,
    labels,
    planes,
    python2_pickle,
    write_archive,
    write_folder,
)

pytestmark = pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")

ARCHIVES = {
    (10, "bin"): "cifar-10-binary.tar.gz",
    (10, "py"): "cifar-10-python.tar.gz",
    (100, "bin"): "cifar-100-binary.tar.gz",
    (100, "py"): "cifar-100-python.tar.gz",
}
EVERY = pytest.mark.parametrize(("classes", "version"), list(ARCHIVES))


def _assert_whole(d: Dataset, classes: int) -> None:
    *train, (x_test, y_test) = cifar_batches(classes)
    assert (d.name, d.shape, d.class_count) == (f"cifar{classes}", (32, 32, 3), classes)
    assert np.array_equal(d.x_train, np.concatenate([x for x, _ in train]))
    assert np.array_equal(d.y_train, np.concatenate([y for _, y in train]))
    assert np.array_equal(d.x_test, x_test) and np.array_equal(d.y_test, y_test)
    assert d.x_train.dtype == np.uint8 and d.y_train.dtype == np.int64
    assert d.x_train.flags.c_contiguous


@EVERY
def test_archives_and_folders_give_the_same(tmp_path: Path, classes: int, version: str) -> None:
    files = cifar_files(classes, version)
    archive = write_archive(tmp_path / ARCHIVES[classes, version], files)
    renamed = write_archive(tmp_path / "copy.tgz", {f"./{name}": d for name, d in files.items()})
    outer = write_folder(tmp_path / "outer", files)
    inner = outer / next(iter(files)).split("/")[0]
    for path in (archive, renamed, tmp_path, outer, inner):
        _assert_whole(load(f"cifar{classes}:{path}"), classes)


@EVERY
def test_archives_that_were_packed_again(tmp_path: Path, classes: int, version: str) -> None:
    """Unpacked to a .tar, beside the packed one or alone; without their folder; with other
    headers."""
    files = cifar_files(classes, version)
    packed = tmp_path / ARCHIVES[classes, version]
    plain = tmp_path / packed.name.removesuffix(".gz")
    bare = {f"./{name.split('/')[1]}": data for name, data in files.items()}
    for content, form in ((files, tarfile.PAX_FORMAT), (files, tarfile.USTAR_FORMAT), (bare, None)):
        with tarfile.open(plain, "w", format=form) as archive:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.pax_headers = {"comment": "packed again"}
                archive.addfile(member, io.BytesIO(data))
        _assert_whole(load(f"cifar{classes}:{tmp_path}"), classes)
        _assert_whole(load(f"cifar{classes}:{plain}"), classes)
    plain.write_bytes(b"another file, beside the published one")
    write_archive(packed, files)
    _assert_whole(load(f"cifar{classes}:{tmp_path}"), classes)


def test_the_class_names_are_the_published_ones(tmp_path: Path) -> None:
    small = load(f"cifar10:{write_folder(tmp_path / 'a', cifar_files(10, 'bin'))}").classes
    large = load(f"cifar100:{write_folder(tmp_path / 'b', cifar_files(100, 'py'))}").classes
    assert small is not None and small[0] == "airplane" and small[9] == "truck"
    assert large is not None and list(large) == sorted(set(large)) and len(large) == 100


def test_a_record_is_label_then_red_green_and_blue_rows(tmp_path: Path) -> None:
    files = cifar_files(10, "bin")
    record = bytes([7]) + bytes([1] * 1024) + bytes([2] * 1024) + bytes([3] * 1023) + b"\x09"
    files["cifar-10-batches-bin/test_batch.bin"] = record
    d = load(f"cifar10:{write_folder(tmp_path, files)}")
    assert d.y_test.tolist() == [7] and d.x_test[0, 0, 0].tolist() == [1, 2, 3]
    assert d.x_test[0, 31, 31].tolist() == [1, 2, 9] and d.x_test[0, 31, 30].tolist() == [1, 2, 3]


@EVERY
def test_missing_files_are_named(tmp_path: Path, classes: int, version: str) -> None:
    with pytest.raises(StorageError) as caught:
        load(f"cifar{classes}:{tmp_path}")
    for expected in (str(tmp_path), ARCHIVES[classes, version], "cs.toronto.edu/~kriz/cifar.html"):
        assert expected in str(caught.value)
    assert "is a folder without them" in str(caught.value)
    with pytest.raises(StorageError, match=r'nowhere\.tar\.gz" does not exist\. Get one'):
        load(f"cifar{classes}:{tmp_path}/nowhere.tar.gz")
    files = cifar_files(classes, version)
    last = list(files)[-1]
    del files[last]
    name = last.split("/")[1]
    with pytest.raises(StorageError, match=rf"lacks {name}; .*{ARCHIVES[classes, version]}"):
        load(f"cifar{classes}:{write_folder(tmp_path / 'part', files)}")
    archive = write_archive(tmp_path / "part.tar.gz", files)
    with pytest.raises(StorageError, match=rf"lacks the members {last}"):
        load(f"cifar{classes}:{archive}")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", cifar_files(100, "py"))
    with pytest.raises(DataError, match=r"no archive of cifar10: expected members cifar-10-"):
        load(f"cifar10:{path}")
    path.write_bytes(b"not an archive at all")
    with pytest.raises(StorageError, match=r"a\.tar\.gz\" is a damaged \.tar\.gz archive"):
        load(f"cifar10:{path}")


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", cifar_files(10, "bin"))
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:size])
        with pytest.raises(StorageError, match=r"a\.tar\.gz\" (is a damaged|lacks the members)"):
            load(f"cifar10:{path}")
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 16]) + whole[9001:])
    with pytest.raises(StorageError, match=r"damaged"):
        load(f"cifar10:{path}")


def test_members_that_are_no_plain_files_or_come_twice(tmp_path: Path) -> None:
    files, path = cifar_files(10, "bin"), tmp_path / "a.tar.gz"
    name = "cifar-10-batches-bin/test_batch.bin"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"test_batch\.bin\" is no plain file"):
        load(f"cifar10:{path}")
    write_archive(path, {**files, f"./{name}": files[name]})
    with pytest.raises(DataError, match=r"test_batch\.bin\" comes twice"):
        load(f"cifar10:{path}")


def test_paths_that_leave_the_archive_are_passed_over(tmp_path: Path) -> None:
    files = cifar_files(10, "bin")
    evil = {"../evil": b"x", "/tmp/evil-addergraph": b"x", "a/../cifar-10-batches-bin/x": b"x"}
    inside = tmp_path / "inside"
    inside.mkdir()
    path = write_archive(inside / "a.tar.gz", {**evil, **files})
    _assert_whole(load(f"cifar10:{path}"), 10)
    assert os.listdir(tmp_path) == ["inside"] and os.listdir(inside) == ["a.tar.gz"]


def _changed(tmp_path: Path, classes: int, version: str, data: bytes) -> str:
    """The spec of a folder whose test file is `data`."""
    files = cifar_files(classes, version)
    files[list(files)[-1]] = data
    return f"cifar{classes}:{write_folder(tmp_path, files)}"


@pytest.mark.parametrize(
    ("classes", "data", "error", "message"),
    [
        (10, b"", StorageError, r"test_batch\.bin\" has 0 bytes; expected records of 3073"),
        (10, bytes(3073 * 10 - 1), StorageError, r"has 30729 bytes; .*\(9 are whole\)"),
        (100, bytes(3073), StorageError, r"test\.bin\" has 3073 bytes; .*records of 3074"),
    ],
)
def test_binary_files_of_another_size(
    tmp_path: Path, classes: int, data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(_changed(tmp_path, classes, "bin", data))


def test_binary_labels_out_of_range(tmp_path: Path) -> None:
    x, y = images(10, (32, 32, 3)), labels(10, 10)
    y[4] = 10
    with pytest.raises(DataError, match=r"test_batch\.bin\": label 10 of sample 4 .*0 to 9"):
        load(_changed(tmp_path, 10, "bin", cifar_binary(x, y, 10)))
    for column, label in ((0, 20), (1, 100)):
        records = np.frombuffer(cifar_files(100, "bin")["cifar-100-binary/test.bin"], np.uint8)
        records = records.reshape(10, -1).copy()
        records[6, column] = label
        with pytest.raises(DataError, match=rf"test\.bin\": label {label} of sample 6"):
            load(_changed(tmp_path, 100, "bin", records.tobytes()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"labels": None}, r'lacks "labels"; it has data, other'),
        ({b"data": None}, r'lacks "data"; it has labels, other'),
        ({b"labels": [1] * 9}, r'test_batch", "labels": 9 labels for 10 images'),
        ({b"labels": [1] * 9 + [10]}, r"label 10 of sample 9 is out of range; expected 0 to 9"),
        ({b"labels": [-1] * 10}, r"label -1 of sample 0"),
        ({b"labels": [b"1"] * 10}, r'"labels" is no list of integers'),
        ({b"labels": [True] * 10}, r"no list of integers"),
        ({b"labels": (1,)}, r"no list of integers"),
        ({b"data": [1, 2]}, r'"data" is list; expected u8 \[N,3072\]'),
        ({b"data": np.zeros((10, 3071), np.uint8)}, r"an array \(10, 3071\); expected u8"),
        ({b"data": np.zeros((0, 3072), np.uint8)}, r"an array \(0, 3072\)"),
        ({b"data": np.zeros((10, 3072), np.float32)}, r'of dtype "f4"; expected unsigned bytes'),
    ],
)
def test_python_files_of_another_content(
    tmp_path: Path, changes: dict[bytes, object], message: str
) -> None:
    content = {b"data": planes(images(10, (32, 32, 3))), b"labels": [1] * 10, b"other": 0}
    content = {k: v for k, v in {**content, **changes}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        load(_changed(tmp_path, 10, "py", python2_pickle(content)))


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil = pickle.dumps({"data": _Evil(made), "labels": [1]}, protocol=2)
    spec = _changed(tmp_path / "set", 10, "py", evil)
    with pytest.raises(DataError, match=r'test_batch" holds the global "posix\.system".*not run'):
        load(spec)
    assert not made.exists()
    pickle.loads(evil)  # Python's own does run it: the test would notice
    assert made.exists()


def test_sums_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", cifar_files(10, "bin"))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.warns(DataWarning) as caught:
        load(f"cifar10:{path}")
    both = f"has md5 {found}; the published file has c32a1d4ab5d03f1284b67883e8d87530"
    assert both in str(caught[0].message)
    assert "50 images to train on and 10 to test on" in str(caught[1].message)
    with pytest.raises(DataError, match=both):
        load(f"cifar10:{path}", verify=True)
    source, _ = cifar._SETS["cifar10"]
    monkeypatch.setitem(source.md5, path.name, found)
    _assert_whole(load(f"cifar10:{path}", verify=True), 10)
    folder = write_folder(tmp_path / "plain", cifar_files(10, "bin"))
    with pytest.raises(DataError, match=r"cannot be verified: sums are published for cifar-10-b"):
        load(f"cifar10:{folder}", verify=True)


def test_published_names_are_what_the_reader_looks_for() -> None:
    """The folder and file names of the generator are those of https://www.cs.toronto.edu/~kriz."""
    _, versions = cifar._SETS["cifar10"]
    assert [(v.folder, list(v.train), v.test) for v in versions] == [*CIFAR10.values()]
