"""Small files in the true formats of MNIST and CIFAR, as their publishers write them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from addergraph.ir import Array

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR10 = {
    "bin": ("cifar-10-batches-bin", [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"),
    "py": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
}
CIFAR100 = {
    "bin": ("cifar-100-binary", ["train.bin"], "test.bin"),
    "py": ("cifar-100-python", ["train"], "test"),
}


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, classes, count)


def idx(array: Array) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, packed: bool = True) -> dict[str, Array]:
    """The four files, of 20 and 8 images; the arrays by name."""
    arrays = {
        IDX[0]: images(20, (28, 28)),
        IDX[1]: labels(20, 10),
        IDX[2]: images(8, (28, 28), seed=2),
        IDX[3]: labels(8, 10, seed=3),
    }
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        data = idx(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return arrays


def planes(x: Array) -> Array:
    """Images [N,32,32,3] as CIFAR stores them: [N,3072], all red, all green, all blue bytes."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def cifar_batches(classes: int, count: int = 10) -> list[tuple[Array, Array]]:
    """Five (CIFAR-10) or one batch to train on, and one to test on, of `count` images each."""
    batches = 6 if classes == 10 else 2
    return [
        (images(count, (32, 32, 3), seed), labels(count, classes, seed)) for seed in range(batches)
    ]


def cifar_binary(x: Array, y: Array, classes: int) -> bytes:
    columns = [y] if classes == 10 else [y // 5, y]
    return np.concatenate([np.stack(columns, axis=1).astype(np.uint8), planes(x)], axis=1).tobytes()


def cifar_python(x: Array, y: Array, classes: int) -> bytes:
    key = b"labels" if classes == 10 else b"fine_labels"
    content = {
        b"batch_label": b"a batch",
        key: y.tolist(),
        b"data": planes(x),
        b"filenames": [b"image_%d.png" % i for i in range(len(x))],
    }
    if classes == 100:
        content[b"coarse_labels"] = (y // 5).tolist()
    return python2_pickle(content)


def cifar_files(classes: int, version: str, count: int = 10) -> dict[str, bytes]:
    """The files of a version ("bin" or "py"), by their names inside the archive."""
    folder, train, test = (CIFAR10 if classes == 10 else CIFAR100)[version]
    write = cifar_binary if version == "bin" else cifar_python
    contents = cifar_batches(classes, count)
    return {
        f"{folder}/{name}": write(x, y, classes)
        for name, (x, y) in zip([*train, test], contents, strict=True)
    }


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2's cPickle writes it: text as byte strings, arrays by their state."""
    out = io.BytesIO()
    memo = iter(range(1, 1 << 30))
    out.write(b"\x80\x02")
    _write(out, value, memo)
    out.write(b".")
    return out.getvalue()


def _write(out: io.BytesIO, value: Any, memo: Any) -> None:
    match value:
        case None:
            out.write(b"N")
        case bool():
            out.write(b"\x88" if value else b"\x89")
        case int():
            out.write(_integer(value))
        case bytes():
            short = len(value) < 256
            size = bytes([len(value)]) if short else struct.pack("<i", len(value))
            out.write((b"U" if short else b"T") + size + value + _put(memo))
        case list():
            out.write(b"]" + _put(memo) + b"(")
            for item in value:
                _write(out, item, memo)
            out.write(b"e")
        case dict():
            out.write(b"}" + _put(memo) + b"(")
            for key, item in value.items():
                _write(out, key, memo)
                _write(out, item, memo)
            out.write(b"u")
        case tuple():
            out.write(b"(")
            for item in value:
                _write(out, item, memo)
            out.write(b"t" + _put(memo))
        case np.ndarray():
            _write_array(out, value, memo)
        case _:
            raise TypeError(type(value))


def _write_array(out: io.BytesIO, array: Array, memo: Any) -> None:
    fortran = array.flags.fnc
    out.write(b"cnumpy.core.multiarray\n_reconstruct\n" + _put(memo))
    out.write(b"cnumpy\nndarray\n" + _put(memo) + b"K\x00\x85" + _put(memo))
    _write(out, b"b", memo)
    out.write(b"\x87" + _put(memo) + b"R" + _put(memo) + b"(K\x01")
    _write(out, array.shape, memo)
    out.write(b"cnumpy\ndtype\n" + _put(memo))
    _write(out, array.dtype.str[1:].encode(), memo)
    out.write(b"K\x00K\x01\x87" + _put(memo) + b"R" + _put(memo))
    _write(out, (3, b"|", None, None, None, -1, -1, 0), memo)
    out.write(b"b")
    _write(out, fortran, memo)
    _write(out, array.tobytes(order="F" if fortran else "C"), memo)
    out.write(b"t" + _put(memo) + b"b")


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if 0 <= value < 65536:
        return b"M" + struct.pack("<H", value)
    return b"J" + struct.pack("<i", value)


def _put(memo: Any) -> bytes:
    index = next(memo)
    return b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)
