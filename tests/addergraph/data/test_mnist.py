"""MNIST and Fashion-MNIST from files in the true format, and every way these can be broken."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addergraph.data import Dataset, load, mnist
from addergraph.data.idx import read_idx
from addergraph.errors import AdderGraphError, DataError, DataWarning, StorageError
from addergraph.ir import Array
from tests.addergraph.data.published import IDX, idx, images, labels, write_mnist

SMALL = pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")


def _load(folder: Path, name: str = "mnist") -> Dataset:
    return load(f"{name}:{folder}")


@SMALL
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_four_files_are_read(tmp_path: Path, name: str, packed: bool) -> None:
    arrays = write_mnist(tmp_path, packed)
    d = _load(tmp_path, name)
    assert (d.name, d.shape, d.class_count, d.scale) == (name, (28, 28, 1), 10, 1 / 255)
    for found, file in zip((d.x_train, d.y_train, d.x_test, d.y_test), IDX, strict=True):
        assert np.array_equal(found.squeeze(-1) if found.ndim == 4 else found, arrays[file])
    assert d.x_train.dtype == np.uint8 and d.y_train.dtype == np.int64
    assert d.classes is not None and d.classes[9] == ("9" if name == "mnist" else "Ankle boot")


def test_a_packed_file_may_have_lost_its_packing_but_not_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = images(3, (28, 28))
    (tmp_path / "a.gz").write_bytes(idx(array))
    (tmp_path / "b").write_bytes(gzip.compress(idx(array)))
    assert np.array_equal(read_idx(tmp_path / "a.gz", 3), array)
    assert np.array_equal(read_idx(tmp_path / "b", 3), array)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert np.array_equal(read_idx(Path("~/a.gz"), 3), array)


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"lacks train-images.*t10k-labels.*yann\.lecun\.com"):
        _load(tmp_path / "nowhere")
    write_mnist(tmp_path)
    (tmp_path / f"{IDX[2]}.gz").unlink()
    with pytest.raises(StorageError) as caught:
        _load(tmp_path, "fashion-mnist")
    message = str(caught.value)
    assert f'"{tmp_path}" lacks {IDX[2]}.gz (or the same without .gz)' in message
    assert IDX[0] not in message and "https://github.com/zalandoresearch/fashion-mnist" in message


@SMALL
@pytest.mark.parametrize(
    ("file", "data", "error", "message"),
    [
        (IDX[0], b"", StorageError, r"truncated: 0 bytes, no IDX header"),
        (IDX[0], idx(images(20, (28, 28)))[:9], StorageError, r"9 bytes, its header has 16"),
        (
            IDX[0],
            idx(images(20, (28, 28)))[:-1],
            StorageError,
            r"truncated: .*\(20, 28, 28\), which makes 15696 bytes; it has 15695",
        ),
        (IDX[1], idx(labels(20, 10)) + b"\0", StorageError, r"damaged: .*28 bytes; it has 29"),
        (IDX[1], idx(images(20, (28, 28))), DataError, r"0x00000803; .*with 0x00000801"),
        (IDX[0], b"\0\0\x0d\x03" + bytes(12), DataError, r"begins with 0x00000d03"),
        (IDX[0], idx(images(20, (28, 27))), DataError, r"images are \(28, 27\)"),
        (IDX[1], idx(labels(19, 10)), DataError, r"has 20 images, .* 19 labels"),
        (IDX[3], idx(np.array([0, 1, 10, 3, 4, 5, 6, 7])), DataError, r"label 10 of sample 2"),
        (IDX[0], b"\0\0\x08\x03" + b"\xff" * 12, StorageError, r"truncated: .*4294967295"),
    ],
)
def test_broken_files_are_named(
    tmp_path: Path, file: str, data: bytes, error: type[Exception], message: str
) -> None:
    write_mnist(tmp_path, packed=False)
    (tmp_path / file).write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        _load(tmp_path)
    assert f'{tmp_path / file}"' in str(caught.value)


@SMALL
def test_a_broken_packing_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / f"{IDX[0]}.gz"
    whole = path.read_bytes()
    for data in (whole[:-4], whole[:200], whole[:3], b"\x1f\x8b" + bytes(30)):
        path.write_bytes(data)
        with pytest.raises(StorageError, match=r"train-images.*damaged gzip file"):
            _load(tmp_path)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(StorageError, match=r"damaged"):
        _load(tmp_path)


def test_what_unpacks_to_too_much_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(3 << 20)))
    monkeypatch.setattr("addergraph.data.files.BYTES_LIMIT", 2 << 20)
    with pytest.raises(StorageError, match=r"bomb\" has more than the 2097152 bytes"):
        read_idx(tmp_path / "bomb", 3)


def test_other_sums_and_counts_than_published_are_warned_of(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.warns(DataWarning) as caught:
        _load(tmp_path)
    messages = [str(w.message) for w in caught]
    assert (
        len(messages) == 2 and "published file has f68b3c2dcbeaaa9fbdd348bbdeb94873" in messages[0]
    )
    assert messages[0].endswith("; 3 more of mnist differ")
    assert "20 images to train on and 8 to test on; published are 60000 and 10000" in messages[1]


def test_verify_insists_on_the_published_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, packed=False)
    with pytest.raises(DataError, match=r"has md5 \w{32}; the published file has 6bbc9ace"):
        load(f"mnist:{tmp_path}", verify=True)
    write_mnist(tmp_path)
    with pytest.raises(DataError, match=r"has md5 \w{32}; the published file has f68b3c2d"):
        load(f"mnist:{tmp_path}", verify=True)
    for name in mnist.MNIST.md5:
        found = hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setitem(mnist.MNIST.md5, name, found)
    with pytest.warns(DataWarning, match=r"published are 60000") as caught:
        load(f"mnist:{tmp_path}", verify=True)
    assert len(caught) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_files_packed_again_or_not_at_all_are_those_that_were_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    for name, array in write_mnist(tmp_path, packed).items():
        found = hashlib.md5(idx(array)).hexdigest()
        monkeypatch.setitem(mnist.MNIST.content, name, found)
    for verify in (False, True):
        with pytest.warns(DataWarning, match=r"published are 60000") as caught:
            load(f"mnist:{tmp_path}", verify=verify)
        assert len(caught) == 1
    path = tmp_path / f"{IDX[3]}{'.gz' if packed else ''}"
    path.write_bytes(idx(labels(8, 10, seed=4)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.* has md5 "):
        load(f"mnist:{tmp_path}", verify=True)


@SMALL
@pytest.mark.parametrize("end", ["", ".gz"])
def test_names_with_dots_are_those_with_hyphens(tmp_path: Path, end: str) -> None:
    """As some unpackers and mirrors leave them, here beside folders of the published names."""
    arrays = write_mnist(tmp_path, packed=bool(end))
    for name in IDX:
        (tmp_path / f"{name}{end}").rename(tmp_path / f"{name.replace('-idx', '.idx')}{end}")
        (tmp_path / name).mkdir()
    d = _load(tmp_path)
    assert np.array_equal(d.x_train[..., 0], arrays[IDX[0]])
    assert np.array_equal(d.y_test, arrays[IDX[3]])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_other_pixels(tmp_path: Path, data: st.DataObject) -> None:
    array = images(2, (3, 4))
    whole = idx(array)
    if data.draw(st.booleans()):
        whole = gzip.compress(whole, mtime=0)
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        broken = whole[:place]
    else:
        broken = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    (tmp_path / "x").write_bytes(broken)
    found = _read(tmp_path / "x")
    if isinstance(found, str):
        assert str(tmp_path / "x") in found
    else:
        assert found.size == array.size and found.dtype == np.uint8


def _read(path: Path) -> Array | str:
    """The array, or the message of the error."""
    try:
        return read_idx(path, 3)
    except AdderGraphError as error:
        return str(error)
