"""`addergraph train`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import zoo
from ..data import digits, load_npz
from ..errors import DataError
from ..ir import Array
from ..model import Model
from ..model_file import require_writable_model
from ..training.schedules import cosine


@dataclass(frozen=True)
class Training:
    """The options of the command."""

    data: str
    validation: str | None
    network: str
    epochs: int
    batch: int
    learning_rate: float
    seed: int
    threads: int | None
    engine: str
    output: str


@dataclass(frozen=True)
class _Data:
    x: Array
    y: Array
    x_val: Array | None
    y_val: Array | None


def train(options: Training) -> None:
    """Trains, evaluates and saves; refuses an output that cannot be written before it starts."""
    require_writable_model(options.output)
    data = _read(options.data, options.validation)
    model = _network(options, data)
    held_out = 0 if data.x_val is None else len(data.x_val)
    print(
        f"{options.network} on {options.data}: {len(data.x)} samples of {data.x.shape[1:]}", end=""
    )
    print(f", {held_out} to validate" if held_out else "", flush=True)
    start = time.perf_counter()
    model.fit(
        data.x,
        data.y,
        data.x_val,
        data.y_val,
        epochs=options.epochs,
        batch_size=options.batch,
        learning_rate=cosine(options.learning_rate, options.epochs),
        seed=options.seed,
        threads=options.threads,
        engine=options.engine,
    )
    print(f"trained in {time.perf_counter() - start:.1f} s")
    if data.x_val is not None:
        found = model.evaluate(data.x_val, data.y_val, threads=options.threads)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"validation: {numbers}")
    model.save(options.output)
    print(f"wrote {options.output} ({os.path.getsize(options.output):,} bytes)")


def _read(data: str, validation: str | None) -> _Data:
    """The samples; those of the digits come with their own test images to validate on."""
    x_val = y_val = None
    if validation is not None:
        x_val, y_val = _images(*load_npz(validation))
    if data == "digits":
        d = digits.load()
        if validation is None:
            x_val, y_val = d.x_test, d.y_test
        return _Data(d.x_train, d.y_train, x_val, y_val)
    if Path(data).suffix != ".npz":
        raise DataError(f'--data "{data}": expected digits, or an .npz file with arrays x and y')
    return _Data(*_images(*load_npz(data)), x_val, y_val)


def _images(x: Array, y: Array) -> tuple[Array, Array]:
    """Grey images without a channel axis get one."""
    return (x[..., None] if x.ndim == 3 else x), y


def _network(options: Training, data: _Data) -> Model:
    """A new network of the data's shape, or the one in a model file, to train on."""
    if Path(options.network).suffix == ".safetensors":
        return Model.load(options.network)
    if data.x.ndim != 4 or not len(data.x):
        raise DataError(
            f'--data "{options.data}": x has shape {data.x.shape}; the built-in networks take '
            "images, [N,H,W] or [N,H,W,C], at least one"
        )
    return zoo.build(options.network, data.x.shape[1:], _classes(options, data.y), options.seed)


def _classes(options: Training, y: Array) -> int:
    if y.ndim == 2 and y.shape[1] > 1:
        return int(y.shape[1])
    if y.dtype.kind not in "iu" or not y.size or y.min() < 0:
        raise DataError(
            f'--data "{options.data}": y has dtype {y.dtype}; expected class numbers from 0, or '
            "one-hot rows"
        )
    return int(np.max(y)) + 1
