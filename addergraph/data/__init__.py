"""Data sets as NumPy arrays: `digits.load()`, and `load_npz(path)` for your own."""

from . import digits
from .npz import load_npz

__all__ = ["digits", "load_npz"]
