"""Regenerates addergraph/data/digits.npz. Needs scikit-learn; nothing else in the project does.

The images are scikit-learn's copy of the test set of the UCI "Optical Recognition of Handwritten
Digits" data (CC BY 4.0; see addergraph/data/ATTRIBUTION.md). The split is stored as indices, so
that no other version of scikit-learn can change it. The file's bytes are reproducible.

    python examples/make_digits_data.py [path]
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def arrays() -> dict[str, np.ndarray]:
    """images u8[1797,8,8] of 0..16, labels u8[1797], and the split as i16 indices."""
    digits = load_digits()
    labels = digits.target.astype("u1")
    train, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=0
    )
    return {
        "images": digits.images.astype("u1"),
        "labels": labels,
        "train": train.astype("<i2"),
        "test": test.astype("<i2"),
    }


def write(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays().items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data.getvalue())


if __name__ == "__main__":
    here = Path(__file__).parent.parent / "addergraph" / "data" / "digits.npz"
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else here)
