"""`ag.from_torch` and `ag.to_torch`: there without PyTorch, so that the error says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..ir import Array, Graph
from ..ir.network import Network
from ..model import Model
from ..training.trainee import Losses
from .version import require_torch

if TYPE_CHECKING:
    import torch


def from_torch(
    module: torch.nn.Module,
    example: Any,
    *,
    name: str = "model",
    loss: Losses | None = None,
) -> Model:
    """The network of a PyTorch module as a `Model`, with its weights, ready to train or compile.

        module   f32 on the CPU; exported in evaluation form by `torch.export`
        example  a tensor as the module takes it, f32[N,...], or a tuple of several; N is open in
                 the model, all other sizes are fixed
        name     of the model
        loss     as of `Model`

    Images are NCHW there and NHWC here: `model.predict(x.permute(0, 2, 3, 1).numpy())` is
    `module(x)`; of outputs with four axes likewise. Batch norms and dropouts train as they did
    there; parameters with `requires_grad=False` are frozen. Outputs in a dict have its keys for
    names, `kind.0` for the first of a list under "kind". docs/torch.md lists the ATen ops that
    are known.

    Raises UnsupportedError where PyTorch is missing, the module cannot be exported, has an op that
    is not known, which is named with its place, or names for outputs that other values have;
    DataError for arguments of another kind, and
    for parameters or examples that are not f32 on the CPU.
    """
    require_torch()
    from .importing import imported

    return imported(module, example, name, loss)


def to_torch(
    model: Graph | Network, *, weights: Mapping[str, Array] | None = None
) -> torch.nn.Module:
    """A PyTorch module that computes what the model does; adder layers run on our kernels.

        model    a Model, or a graph without updates and its `weights`

    Images are NCHW there: `module(x)` is `model.predict` of `x.permute(0, 2, 3, 1)`. Parameters
    have the model's names and shapes, so `module.state_dict()` and `model.weights` are one table.
    The module starts in evaluation form. In training form its batch norms and dropouts do what they
    do in the model's training; where that does not follow from the graph, `train()` is an
    UnsupportedError. Its parameters are copies.

    Raises UnsupportedError where PyTorch is missing, and for integer networks and ops that PyTorch
    gets no equivalent of, by name; DataError for missing weights.
    """
    require_torch()
    from .exporting import exported

    return exported(model, weights)
