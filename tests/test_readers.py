"""Files from outside: each reader turns damage and malice into the project's errors, within bounds
on bytes, time and depth that grow with the file. What damage to one format is, its own tests say.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import data
from addergraph.data.npz import read_npz
from addergraph.errors import (
    GraphError,
    MemoryLimitError,
    ParseError,
    StorageError,
)
from tests import borders
from tests.addergraph.data import published
from tests.damage import flipped, ours, within

# --- NumPy archives -------------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(12.0).reshape(3, 4), y=np.arange(3))
    return path


def test_a_damaged_archive_is_refused_or_read(npz: Path) -> None:
    refused = 0
    for content in flipped(npz.read_bytes()):
        npz.write_bytes(content)
        refused += ours(lambda: data.load_npz(npz))
    assert refused > 150


def member(header: bytes, content: bytes = bytes(24), version: bytes = b"\1\0") -> bytes:
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + content


HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n"


def archive(path: Path, content: bytes, **change: int) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", content)
    if change:  # in both headers of the member
        raw = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
            at = raw.index(mark) + offset
            for field, value in change.items():
                raw[at + (6 if field == "flags" else 8)] = value
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace(b"(3,)", b"(10**9,)"), HEADER.replace(b"(3,)", b"(99999999999999999999,)"),
        HEADER.replace(b"(3,)", b"(-3,)"), HEADER.replace(b"(3,)", b"(3L,)"),
        HEADER.replace(b"(3,)", b"(3.0,)"), HEADER.replace(b"(3,)", b"(0, 281474976710655)"),
        HEADER.replace(b"(3,)", b"(" * 3000 + b")" * 3000), HEADER.replace(b"<f8", b"|O"),
        HEADER.replace(b"'<f8'", b"[('a', '<f8')]"), HEADER.replace(b"<f8", b"<M8[ns]"),
        HEADER.replace(b"<f8", b"<f999999999999"), HEADER.replace(b"<f8", b"<f5"),
        HEADER.replace(b"}", b""), b"\xff\xfe", b"[]",
        HEADER.replace(b"descr", b"discr"), b"'''", HEADER.replace(b"(3,)", b"9" * 6000), b" " * 60,
    ],
)  # fmt: skip
def test_crafted_headers(tmp_path: Path, header: bytes) -> None:
    path = archive(tmp_path / "a.npz", member(header))
    if b"(0, 2" in header:  # an honest nothing
        path = archive(path, member(header, b""))
    with within(1 << 20, 5.0):
        assert ours(lambda: read_npz(path, "x")) or b"(0, 2" in header


def test_a_crafted_header_is_read_where_it_is_right(tmp_path: Path) -> None:
    for version in (b"\1\0", b"\2\0", b"\3\0"):
        path = archive(tmp_path / "a.npz", member(HEADER, version=version))
        assert read_npz(path, "x")[0].tolist() == [0.0, 0.0, 0.0]
    np.savez(path, x=np.asfortranarray(np.arange(6.0).reshape(2, 3)), y=np.array("word"))
    x, y = read_npz(path, "x", "y")
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and y == "word" and x.flags.writeable


@pytest.mark.parametrize("change", [{"flags": 1}, {"packing": 12}, {"packing": 14}, {"packing": 9}])
def test_encrypted_and_otherwise_packed_members(tmp_path: Path, change: dict[str, int]) -> None:
    path = archive(tmp_path / "a.npz", member(HEADER), **change)
    with pytest.raises(StorageError, match="encrypted or packed otherwise|damaged"):
        read_npz(path, "x")


def test_an_archive_that_unpacks_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addergraph.data.files.BYTES_ANYWAY", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1, 3 << 20), np.uint8), y=np.zeros(1))
    with within(2 << 20, 5.0), pytest.raises(StorageError, match="more than the 1048576 bytes"):
        data.load_npz(path)
    parts = {f"{part}_{half}": np.zeros(400_000, np.uint8) for part in "xy" for half in "ab"}
    np.savez_compressed(path, **parts)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="more than the 1048576 bytes"):
        read_npz(path, *parts)


# --- published data sets --------------------------------------------------------------------------


def test_an_idx_file_of_nothing(tmp_path: Path) -> None:
    arrays = published.write_mnist(tmp_path, packed=False)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 2**32 - 1, 2**32 - 1)
    (tmp_path / next(iter(arrays))).write_bytes(header)
    with pytest.raises(StorageError, match=r"which is nothing"):
        data.load(f"mnist:{tmp_path}")


@pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")
def test_images_of_mnist_under_their_other_name(tmp_path: Path) -> None:
    published.write_mnist(tmp_path, packed=False)
    expected = data.load(f"mnist:{tmp_path}")
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    assert (data.load(f"mnist:{tmp_path}").x_train == expected.x_train).all()


@pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")
def test_an_unpacked_archive_of_cifar(tmp_path: Path) -> None:
    expected = cifar(tmp_path / "cifar-10-binary.tar.gz")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "cifar-10-binary.tar").write_bytes(gzip.decompress(expected.read_bytes()))
    whole = data.load(f"cifar10:{expected}")
    for path in (plain, plain / "cifar-10-binary.tar"):
        assert (data.load(f"cifar10:{path}").x_train == whole.x_train).all()


def cifar(path: Path, *before: tarfile.TarInfo) -> Path:
    folder, train, test = published.CIFAR10["bin"]
    batches = published.cifar_batches(10, 2)
    with tarfile.open(path, "w:gz") as made:
        for name, (x, y) in zip([*train, test], batches, strict=True):
            content = published.cifar_binary(x, y, 10)
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")
def test_extended_headers_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.decompress(cifar(tmp_path / "a.tar.gz").read_bytes())
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("pax")
        info.type, info.size = kind, 64 << 20
        path = tmp_path / "bomb.tar.gz"
        with gzip.open(path, "wb", compresslevel=1) as out:
            out.write(info.tobuf(tarfile.USTAR_FORMAT))
            for _ in range(64):
                out.write(bytes(1 << 20))
            out.write(whole)
        with within(8 << 20, 20.0):
            assert len(data.load(f"cifar10:{path}").x_train) == 10
    monkeypatch.setattr("addergraph.data.files.BYTES_LIMIT", 32 << 20)
    with pytest.raises(StorageError, match="more than the 33554432 bytes"):
        data.load(f"cifar10:{path}")


@pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")
def test_a_damaged_archive_of_cifar(tmp_path: Path) -> None:
    whole = gzip.decompress(cifar(tmp_path / "a.tar.gz").read_bytes())
    path = tmp_path / "b.tar"
    for changed in flipped(whole[:2048], 200):
        path.write_bytes(changed + whole[2048:])
        ours(lambda: data.load(f"cifar10:{path}"))


# --- graphs as text -------------------------------------------------------------------------------


def test_blanks_take_no_memory() -> None:
    for text in (" " * (1 << 22), "#\n" * (1 << 21), "\n \t" * (1 << 20)):
        with within(1 << 20, 20.0), pytest.raises(ParseError, match="the end of the text"):
            ag.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "graph g(%x: f32[2]) {\n  return %" + "a" * 120_000 + "\n}",
        "graph g(%" + "b" * 120_000 + ": f32[2]) {\n  return %" + "a" * 120_000 + "\n}",
        "graph g(%x: f32[2]) {\n  %y = " + "r" * 120_000 + "(%x) : f32[2]\n  return %y\n}",
        "graph " + "g" * 300 + "(%x: f32[2]) {\n  return %x\n}",
        "graph g(%x: f32[99999999999999,99999]) {\n  return %x\n}",
        "graph g(%x: f32[2]) {\n  %y = clip(%x) " + "a" * 120_000 + "=1 : f32[2]\n  return %y\n}",
        "graph g(%x: f32[" + "1," * 5000 + "1]) {\n  return %x\n}",
    ],
)
def test_names_and_sizes_of_graphs_are_bounded(text: str) -> None:
    with within(16 << 20, 5.0), pytest.raises((ParseError, GraphError)) as caught:
        ag.parse(text)
    assert len(str(caught.value)) < 3000


def test_damaged_text_of_a_graph() -> None:
    text = str(borders.built().graph(training=False)).encode()
    for changed in flipped(text, 400):
        ours(ag.parse, changed.decode("latin-1"))


PADS = """graph g(%x: f32[N,4]) params(%f: f32[1,4]) {
  %p = pad(%f) before=(0,0) after=(500000000,0) : f32[500000001,4]
  %q = slice(%p) start=(0,0) stop=(1,4) : f32[1,4]
  %y = add(%x, %q) : f32[N,4]
  return %y
}"""


def test_a_parameter_that_pads_to_gigabytes() -> None:
    with within(64 << 20, 20.0), pytest.raises(MemoryLimitError, match="8,000,000,032 bytes from"):
        ag.compile(ag.parse(PADS), weights={"f": np.ones((1, 4), np.float32)})
