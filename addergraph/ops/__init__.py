"""Every op, and the function that applies it to symbolic tensors: `ops.relu(x)`.

What an op means, with shapes, gradients and attributes: docs/ops.md.

Importing this package defines all ops and so closes the registry. An op's folder is its kind:
`ops.conv2d` is the function, `addergraph.ops.contraction.conv2d` its module. Nobody lists them: the
functions of this package are the public ones of those modules that return tensors. For type
checkers `__init__.pyi` has their names: `python -m addergraph.report.reference_docs stub` makes it.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, ModuleType
from typing import NoReturn

from ..border import checked
from ..errors import ShapeError, UnknownNameError, nearest
from ..ir import KINDS
from ..ir.attributes import Pair
from ..ir.trace import Operand
from .fused import Fused


def _modules() -> Iterator[ModuleType]:
    """The modules of ops, by kind and name."""
    for kind in sorted(KINDS):
        folder = import_module(f"{__name__}.{kind}")
        for found in sorted(iter_modules(folder.__path__)):
            if not found.name.startswith("_"):
                yield import_module(f"{folder.__name__}.{found.name}")


def _applies(name: str, item: object, module: ModuleType) -> bool:
    """Whether this is a public function of `module` that returns tensors."""
    if not isinstance(item, FunctionType) or item.__module__ != module.__name__:
        return False
    returns = item.__annotations__["return"]
    return name[0] != "_" and returns in ("Tensor", "tuple[Tensor, Tensor]")


# What these may be is said by `trace.apply` and by `ir/attributes.py`.
_LEFT = (Operand, int | Pair, int | Sequence[int])
_FUNCTIONS = {
    name: checked(item, ShapeError, leave=_LEFT)
    for module in _modules()
    for name, item in vars(module).items()
    if _applies(name, item, module)
}
globals().update(_FUNCTIONS)
__all__ = ["Fused", *sorted(_FUNCTIONS)]


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnknownNameError(f'unknown op "{name}"{nearest(name, __all__)}; docs/ops.md lists them')
