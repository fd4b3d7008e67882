"""What a model's training minimizes."""

from __future__ import annotations

from collections.abc import Mapping

from ..training.losses import CUSTOM
from ..training.objective import require_losses, the_one
from ..training.trainee import Losses, Weights
from .freezing import Freezable


class Minimizing(Freezable):
    """The part of `Model` that has a loss; `objective_of` says what it stands for."""

    def __init__(
        self, loss: Losses | None, loss_name: str | None, loss_weights: Weights | None
    ) -> None:
        self.loss, self.loss_weights = the_one(loss, loss_name), loss_weights

    @property
    def loss(self) -> Losses:
        """What `fit` minimizes. Assigning raises GraphError for an unknown name, with the nearest
        one, for what is no function of two tensors, and while a `fit` runs."""
        return self._loss

    @loss.setter
    def loss(self, value: Losses) -> None:
        self._require_no_fit("model.loss = ...")
        require_losses(value)
        self._loss = value

    @property
    def loss_name(self) -> str:
        """The name of `loss`; "custom" of a function, and of several losses."""
        return self.loss if isinstance(self.loss, str) else CUSTOM

    @property
    def loss_weights(self) -> Weights | None:
        """The factors of the losses of several outputs; see `Model`. Assigning raises GraphError
        while a `fit` runs; `fit` itself does for what are none."""
        return self._loss_weights

    @loss_weights.setter
    def loss_weights(self, value: Weights | None) -> None:
        self._require_no_fit("model.loss_weights = ...")
        self._loss_weights = value

    def _loss_text(self) -> str:
        several = self.loss.values() if isinstance(self.loss, Mapping) else self.loss
        losses = several if not isinstance(several, str) and not callable(several) else [several]
        return " + ".join(str(getattr(loss, "__name__", loss)) for loss in losses)
