"""What `Model.fit` is made of: optimizers, schedules, losses, labels, the loop, checkpoints."""

from typing import TYPE_CHECKING, NoReturn

from ..habits import refuse
from .callbacks import Callback, TensorBoard
from .logs import History
from .optimizers import SGD, Adam
from .schedules import Constant, Cosine, Polynomial, Step, cosine

__all__ = [
    "SGD", "Adam", "Callback", "Constant", "Cosine", "History", "Polynomial", "Step", "TensorBoard",
    "cosine",
]  # fmt: skip

if not TYPE_CHECKING:  # a type checker shall still see misspelled names itself

    def __getattr__(name: str) -> NoReturn:
        refuse(__name__, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
