"""Training on the device: the step of a model, as `ag.export` compiles it to C.

    ag.export(model, "build", train=ag.DeviceTraining(batch=16))

docs/device_training.md has the library that this makes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .. import border, compiler
from ..errors import DataError, GraphError, UnsupportedError
from ..ir.attributes import FULL_PRECISION, GRADIENTS
from ..ir.state import initial_weights
from ..ir.steps import LearningStep
from ..settings import require_valid, setting
from ..training.objective import objective_of
from ..training.optimizers import Optimizer, average_name
from ..training.recipes import Recipe
from ..training.settings import DEFAULT_OPTIMIZER, require_optimizer
from ..training.step import first_steps
from .model import Model
from .pixels import with_preprocessing


def learned(model: Model, folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Gives `model` the weights that a device learned: those in a state that the library in
    `folder`, an export of this model, saved as `file`. With averages, these.

    Raises StorageError for a file that is no state of this library, is damaged, or of which bytes
    are missing; DataError or ShapeError where it is that of another model, which stays as it is.
    """
    state, weights = compiler.saved_state(folder, file), model.weights
    kept = {name for name in state if name in weights}
    if not kept:
        raise DataError(
            f'"{border.shown(file)}" is a state of another network: "{model.name}" has no '
            f'parameter "{next(iter(state))}"'
        )
    averages = {name: state.get(average_name(name), state[name]) for name in kept}
    model.weights = {name: averages.get(name, array) for name, array in weights.items()}


@dataclass(frozen=True, kw_only=True)
class DeviceTraining:
    """What a step on the device does: that of `Model.fit` with these settings, to the bit.

        batch            samples of a step, fixed in the code
        optimizer        its rule; what it keeps is a part of the state
        label_smoothing  share of a label that is spread over all classes
        gradient         rule of adder layers, "full_precision" or "sign"
        seed             of dropouts

    The learning rate is an argument of each step. Schedules, augmentation and the statistics that
    `fit` estimates again behind its epochs are no part of a step: batch norms have the running
    ones. Parameters that the model has frozen are constants, and have no gradient, no place in the
    state and nothing kept by the optimizer. With an `average` of the optimizer, the averages
    answer; they begin as the weights, and their last bits may differ from those of `fit`.

    Raises DataError or ShapeError for settings out of range.
    """

    batch: int = setting(16, "Samples of a step.", least=1)
    optimizer: Optimizer = DEFAULT_OPTIMIZER
    label_smoothing: float = setting(
        0.0, "Share of a label that is spread over all classes.", least=0, below=1
    )
    gradient: str = setting(
        FULL_PRECISION, "Rule of adder layers.", choices=tuple(GRADIENTS), error=GraphError
    )
    seed: int = setting(0, "Of dropouts.", least=0)

    def __post_init__(self) -> None:
        require_valid(self)
        require_optimizer(self.optimizer)

    @classmethod
    def of_recipe(cls, recipe: Recipe, batch: int | None = None) -> DeviceTraining:
        """What a recipe says of a step; UnsupportedError for one that leaves taps out, which `fit`
        does between the steps."""
        recipe = border.plain(Recipe, "recipe", recipe)
        if recipe.sparsity:
            raise UnsupportedError(
                f"the recipe has sparsity={recipe.sparsity}, by which fit leaves taps out between "
                "steps; a step on the device does not: take a recipe with sparsity 0"
            )
        return cls(
            batch=recipe.batch_size if batch is None else batch, optimizer=recipe.optimizer,
            label_smoothing=recipe.label_smoothing, gradient=recipe.gradient,
        )  # fmt: skip

    def step_of(self, network: object) -> LearningStep:
        """The step of a model, and the graph that predicts; both take pixels where the model knows
        what they are.

        Raises UnsupportedError for what is no model (an integer network, a graph), and whatever
        `Model.fit` raises for a model that cannot be trained in batches of this size.
        """
        if not isinstance(network, Model):
            raise UnsupportedError(
                f"a {type(network).__name__} cannot learn: an integer network has no gradients, "
                "and a graph says nothing of its loss and batch statistics. Export the float "
                "model, and quantize what was learned"
            )
        objective = objective_of(network, self.label_smoothing)
        graph = compiler.train_step_graph(
            network.graph(training=True, batch=self.batch), objective, self.optimizer,
            gradient=self.gradient,
        )  # fmt: skip
        numbers = initial_weights(graph) | network.inference_weights()
        numbers |= first_steps(graph, network.weights, self.seed)
        known = network.preprocessing
        if known is not None:
            image = known.input_of(network.input_shapes)
            graph, entry = with_preprocessing(graph, known, image)
            numbers |= entry
        shapes = network.output_shapes
        labelled = [
            loss.of_classes and len(shapes[n]) == 1 and shapes[n][0] > 1
            for n, loss in objective.losses.items()
        ]
        forward = network.inference_graph()
        names = {p.name for p in graph.parameters}
        averages = {p.name: average_name(p.name) for p in forward.parameters}
        stands = {name: other for name, other in averages.items() if other in names}
        for name, other in stands.items():
            numbers[other] = numbers[name]
        return LearningStep(graph, forward, numbers, labelled, stands)
