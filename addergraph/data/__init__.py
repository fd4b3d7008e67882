"""Data sets as NumPy arrays, and batches of them for training: docs/data.md."""

from . import digits
from .augment import Augment, Normalize
from .dataset import Dataset
from .loader import Loader
from .npz import load_npz
from .seen import Seen
from .sources import load

__all__ = ["Augment", "Dataset", "Loader", "Normalize", "Seen", "digits", "load", "load_npz"]
