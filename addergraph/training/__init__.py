"""What `Model.fit` is made of: optimizers, schedules, losses, labels, the loop and its history."""

from .history import History
from .optimizers import SGD
from .schedules import cosine

__all__ = ["SGD", "History", "cosine"]
