"""Adder layers in PyTorch, and networks from one to the other (extra `torch`; docs/torch.md).

    from addergraph.torch import Adder2d            # a torch.nn.Module
    from addergraph import torch as adder           # `adder.adder2d`: the name in the authors' code
    model = ag.from_torch(module, example)          # a Model that computes what the module does
    module = ag.to_torch(model)                     # and back

PyTorch is imported on the first use of one of these names. UnsupportedError where it is missing or
too old.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .front import from_torch, to_torch
from .version import require_torch

if TYPE_CHECKING:
    from .layer import Adder2d
    from .layer import Adder2d as adder2d

__all__ = ["Adder2d", "adder2d", "from_torch", "to_torch"]

if not TYPE_CHECKING:  # type checkers see the imports above and must refuse any other name

    def __getattr__(name: str) -> object:
        if name not in ("Adder2d", "adder2d"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        require_torch()
        found = import_module(".layer", __name__).Adder2d
        globals().update(Adder2d=found, adder2d=found)
        return found
