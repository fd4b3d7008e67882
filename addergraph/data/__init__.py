"""Data sets as NumPy arrays, and batches of them for training: docs/data.md."""

from . import digits
from .augment import Augment, Normalize
from .dataset import Dataset
from .loader import Loader
from .npz import load_npz
from .preprocessing import Preprocessing
from .sources import load

__all__ = [
    "Augment",
    "Dataset",
    "Loader",
    "Normalize",
    "Preprocessing",
    "digits",
    "load",
    "load_npz",
]
