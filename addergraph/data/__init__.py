"""Data sets as NumPy arrays, and batches of them for training."""

from . import digits
from .augment import Augment, Normalize
from .dataset import Dataset
from .loader import Loader
from .npz import load_npz

__all__ = ["Augment", "Dataset", "Loader", "Normalize", "digits", "load_npz"]
