"""What `Model.fit` is made of: optimizers, schedules, losses, labels, the loop, checkpoints."""

from .callbacks import Callback, TensorBoard
from .logs import History
from .optimizers import SGD, Adam
from .schedules import Constant, Cosine, Polynomial, Step, cosine

__all__ = [
    "SGD", "Adam", "Callback", "Constant", "Cosine", "History", "Polynomial", "Step", "TensorBoard",
    "cosine",
]  # fmt: skip
