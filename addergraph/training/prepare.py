"""What `Model.fit` does before any work: settings and data are checked, the step is compiled."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import __version__, compiler
from ..data.preprocessing import of_images
from ..errors import DataError, DataWarning, RangeWarning, ShapeError
from ..ir import Array
from ..ir.text_attributes import shown_attributes
from .checkpoint import Identity, digest_of_data, digest_of_network
from .feed import Feed, image_of
from .labels import Targets, out_of_scale
from .memory import require_memory
from .objective import objective_of
from .parallel import ParallelStep
from .replicas import Replicas
from .settings import NATIVE, SYNCHRONIZED, Fit
from .statistics import Statistics
from .step import TrainStep
from .trainee import Trainee
from .validation import Validation


def compiled(
    model: Trainee, samples: int, settings: Fit, thinned: Sequence[str], replicas: Replicas
) -> TrainStep:
    """The training step: one program, or where batches have parts one that exchanges gradients."""
    shown = settings.verbose and settings.engine == NATIVE
    common: dict[str, Any] = {
        "label_smoothing": settings.label_smoothing,
        "gradient": settings.gradient,
        "engine": settings.engine,
        "threads": replicas.threads(settings.threads),
        "seed": settings.seed,
        "thinned": thinned,
        "before_compiling": _say_that_it_compiles if shown else None,
    }
    batch = min(settings.batch_size, samples)
    if replicas.parts == 1:
        return TrainStep(model, batch, settings.optimizer, **common)
    synchronize = settings.batch_statistics == SYNCHRONIZED
    common |= {"replicas": replicas, "synchronize": synchronize}
    return ParallelStep(model, batch, settings.optimizer, **common)


def _say_that_it_compiles() -> None:
    print("compiling the training step: a while the first time, then it is cached", flush=True)


def preprocessed(model: Trainee, inputs: Mapping[str, Array], settings: Fit) -> Fit:
    """The settings with the normalization of the model's preprocessing, which is filled in where
    the model has none; DataError where the two contradict each other."""
    known, given = model.preprocessing, settings.normalize
    if known is not None and given is not None and not known.is_close(given):
        raise DataError(
            f"normalize={given} contradicts the model's preprocessing, {known.normalize}: leave "
            "normalize out, or assign model.preprocessing"
        )
    image = image_of(inputs, known)
    if known is None and image and (given is not None or inputs[image].dtype == np.uint8):
        made = of_images(inputs[image], given)
        model.preprocessing = known = replace(made, input=image if len(inputs) > 1 else None)
    if known is None or given == known.normalize:
        return settings
    return replace(settings, normalize=known.normalize)


def warn(model: Trainee, feed: Feed, settings: Fit) -> None:
    for proven in compiler.findings(model.graph(training=False)):
        warnings.warn(str(proven), RangeWarning, stacklevel=5)
    for name, samples in feed.inputs.items():
        normalize = settings.normalize if name == feed.image else None
        if (large := out_of_scale(samples, normalize)) is not None:
            where = f"{name}: " if len(feed.inputs) > 1 else ""
            warnings.warn(f"{where}{large}", DataWarning, stacklevel=5)


def check_steps(
    step: TrainStep, samples: int, settings: Fit, statistics: Statistics, start: float
) -> None:
    """Refuses what cannot be trained, or not within the memory that there is; shows the need. What
    the reference takes is NumPy's affair."""
    size = settings.batch_size
    batches = sorted({samples % size, min(size, samples)} - {0})
    try:
        for batch in batches:
            step.graph(batch)
    except ShapeError as error:
        if batches[0] != 1 or samples < 3:
            raise
        others = range(2, max(samples, size) + 1)
        fits = min((n for n in others if samples % n != 1), key=lambda n: (abs(n - size), n))
        raise ShapeError(f"{error}; of {samples} samples a batch size of {fits} does") from None
    if step.engine != NATIVE:
        return
    need = step.need(batches)
    need = replace(need, arena=need.arena + statistics.arena_bytes)
    if settings.verbose:
        print(f"compiled in {time.perf_counter() - start:.1f} s\nmemory {need}", flush=True)
    require_memory(need)


def identity_of(
    model: Trainee, inputs: Mapping[str, Array], targets: Mapping[str, Targets], settings: Fit,
    validation: Validation | None,
) -> Identity:  # fmt: skip
    loss = objective_of(model).identity(model.output_shapes)
    decided = {"loss": loss, "engine": settings.engine, "validation": "none"}
    if validation is not None:  # the history and the best epoch are of these data
        decided["validation"] = _digest(validation.inputs, validation.targets)
    graph = model.graph(training=False)
    forms = model.graph(training=True, batch=2).nodes
    left = [f"{n.name} {' '.join(shown_attributes(n.op))}" for n in forms if n.op.training_only]
    decided["dropout"] = ", ".join(left) or "none"
    return Identity(
        digest_of_network(graph),
        _digest(inputs, targets),
        {**settings.description(), **decided},
        [p.name for p in graph.parameters if p.frozen],
    )


def facts_of(identity: Identity, inputs: Mapping[str, Array], settings: Fit) -> dict[str, str]:
    """What the processes of a run have to agree on, by what messages call it."""
    same = ("epochs", "patience", "checkpoint_steps", "resume")
    return {
        "the version of AdderGraph": __version__,
        "the network": identity.network,
        "the shapes of the samples": ", ".join(f"{a.dtype} {a.shape}" for a in inputs.values()),
        "the data": identity.data,
        "the frozen parameters": ", ".join(identity.frozen) or "none",
        **{f"the setting {name}": text for name, text in identity.settings.items()},
        **{f"the setting {name}": repr(getattr(settings, name)) for name in same},
        "the setting checkpoint": "a folder" if settings.checkpoint is not None else "none",
        "the number of callbacks": str(len(settings.callbacks)),
    }


def _digest(inputs: Mapping[str, Array], targets: Mapping[str, Targets]) -> str:
    wanted = (array for one in targets.values() for array in (one.labels, one.values))
    return digest_of_data(*wanted, *inputs.values())
