"""`addergraph train` and `addergraph recipe`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...border import shown
from ...data import Dataset
from ...errors import DataError, StorageError
from ...files.storage import user_path
from ...ir import Graph
from ...model import Model
from ...model.file import require_writable_model
from ...model.quantization import quantization_aware
from ...quantization.settings import QuantizationSettings
from ...settings import like, setting, settings_of
from ...training import launched
from ...training.checkpoint import NAME
from ...training.optimizers import OPTIMIZERS
from ...training.recipes import BUILT_IN, Recipe, find
from ...training.replicas import Replicas
from ...training.schedules import SCHEDULES
from ...training.settings import Fit, Learning
from .. import options as shared
from .images import HeldOut, held_out, load_like, load_to_train, matched
from .source import model_for, model_in_file, of_model

OUTPUT = "model.safetensors"
CALIBRATION = 256  # training images that fix the scales of activations


@dataclass(frozen=True, kw_only=True)
class Training:
    """The options of `train`; None keeps what the recipe says."""

    data: str = shared.data()
    validation: str | None = setting(
        None,
        "Held-out images: the training part of this.",
        metavar="NAME[:PATH]",
        unset="the validation part of --data, or its test part, by which nothing is chosen",
    )
    validation_split: float | None = setting(
        None,
        "Hold out this share of the training images, of each class, to validate on.",
        kind=float,
        above=0,
        below=1,
        metavar="SHARE",
        unset="none",
    )
    network: str = setting(
        "small-adder",
        "A built-in network, as small-adder or resnet20; or a model file, to train on.",
        name="model",
        metavar="NAME|FILE",
    )
    first: str | None = shared.first()
    last: str | None = shared.last()
    recipe: str = setting(
        "digits",
        "cvpr2020, digits, integers or quick; or a file as `addergraph recipe` prints it.",
        metavar="NAME|FILE.toml",
    )
    transfer: bool = setting(
        False, "Train the model file on other classes: its last dense layer begins again."
    )
    freeze: Sequence[str] = setting(
        (),
        "Do not train these layers or parameters, as conv1 or 'block*'; may be given again.",
        kind=str,
        many=True,
        metavar="PATTERN",
        unset="what the model file or its layers say",
    )
    learning: Mapping[str, Any] = shared.group(Learning, unset="the recipe's")
    learning_rate: float | None = setting(
        None, "Rate at the start of the schedule.", kind=float, unset="the recipe's"
    )
    quantize_bits: int | None = like(
        QuantizationSettings,
        "bits",
        help="Quantization-aware training of a model file for this many bits.",
        metavar="BITS",
        unset="train in f32",
    )
    run: Mapping[str, Any] = shared.group(
        Fit,
        without=settings_of(Learning),
        help={
            "seed": "Of the weights at the start, the split, the order of the samples, their "
            "augmentation, and dropouts.",
            "checkpoint": "Checkpoints after each epoch, log.csv and log.jsonl.  [default: none; "
            "with --resume or --checkpoint-steps, OUTPUT with .run for .safetensors]",
        },
    )
    named_output: str | None = setting(
        None,
        "The model file to write.",
        name="output",
        kind=str,
        unset=f"{OUTPUT}, where there is none yet",
        short="-o",
        metavar="FILE.safetensors",
    )
    force: bool = setting(False, f"Replace {OUTPUT} although --output does not name it.")
    allow_chance: bool = setting(
        False, "End with status 0 although the network has learned nothing."
    )

    @property
    def output(self) -> str:
        """The model file."""
        return self.named_output or OUTPUT

    @property
    def folder(self) -> str | None:
        """For checkpoints: beside the output where none is named and they are asked for."""
        named: str | None = self.run["checkpoint"]
        if named is None and (self.run["resume"] or self.run["checkpoint_steps"]):
            return str(Path(self.output).with_suffix(".run"))
        return named

    def chosen_recipe(self) -> Recipe:
        """The recipe with what other options change of it."""
        recipe = find(self.recipe)
        if self.learning_rate is not None:
            schedule = dataclasses.replace(recipe.schedule, base=self.learning_rate)
            recipe = dataclasses.replace(recipe, schedule=schedule)
        given = {name: value for name, value in self.learning.items() if value is not None}
        return dataclasses.replace(recipe, **given)


def train(options: Training) -> None:
    """Trains, evaluates and saves; refuses an output that cannot be written before it starts.

    Of the processes that `mpirun` starts the first one prints and writes.
    """
    with Replicas(launched.communicator()) as processes, ExitStack() as stack:
        if not processes.is_first:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        _train(options, processes)


def _train(options: Training, processes: Replicas) -> None:
    if processes.is_first:
        require_writable_model(options.output)
        _require_unused(options)
    _require_trained(options)
    _require_transferable(options)
    trained = model_in_file(options.network)
    recipe = options.chosen_recipe()
    data = _with_validation(options, trained)
    _require_nothing_chosen_by_test(recipe, data)
    x_val, y_val = held_out(data)
    model = _network(options, trained, data, recipe)
    data = _matched(options.network, model, data)
    _announce(options, model, data)
    if options.quantize_bits is not None:
        model = _rounding(model, data, options.quantize_bits)
    if processes.size > 1:
        print(
            f"{processes.size} processes share each batch; the statistics of batch norms are "
            f"{options.run['batch_statistics']}",
            flush=True,
        )
    start = time.perf_counter()
    try:
        history = model.fit(
            data.x_train,
            data.y_train,
            x_val,
            y_val,
            **recipe.arguments(),
            **{**options.run, "checkpoint": options.folder},
            communicator=processes.communicator,
        )
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            print(_how_to_go_on(options), flush=True)
        raise
    if not processes.is_first:
        return
    print(f"trained in {time.perf_counter() - start:.1f} s")
    _show("validation", model, (x_val, y_val), options.run)
    if len(data.x_val):
        _show("test", model, (data.x_test, data.y_test), options.run)
    _save(model, options.output)
    print(f"wrote {options.output} ({user_path(options.output).stat().st_size:,} bytes)")
    if history.findings and not options.allow_chance:
        raise DataError(
            f"{history.findings[0].message}. The model file is written all the same; "
            "--allow-chance takes that for a success"
        )


def _network(options: Training, trained: Model | None, data: Dataset, recipe: Recipe) -> Model:
    """The network that training begins with, which knows how its pixels enter."""
    seed = options.run["seed"]
    model = model_for(options.network, trained, data, seed, options.first, options.last)
    if options.transfer:
        model = model.with_classes(data.class_count, names=data.classes, seed=seed)
    if options.freeze:
        model.freeze(*options.freeze)
    if model.preprocessing is None:
        model.preprocessing = data.preprocessing(recipe.data.normalization(data))
    return model


def _announce(options: Training, model: Model, data: Dataset) -> None:
    """Prints what is trained on what, and where it is kept."""
    samples = f"{len(data.x_train)} samples of {data.shape}"
    print(f"{options.network} on {options.data}: {samples}{_told(data)}", flush=True)
    print(f"{model.preprocessing}; the model file keeps it", flush=True)
    if model.frozen:
        print(_how_frozen(model.graph(training=False)), flush=True)
    if options.folder is not None:
        print(f'checkpoints and logs in "{options.folder}"', flush=True)


def _how_frozen(graph: Graph) -> str:
    """In numbers, as the summary counts them; statistics of batch norms are none of either."""
    counts = [(p.type.elements, p.frozen) for p in graph.parameters if p.learns]
    frozen = sum(count for count, held in counts if held)
    return f"{frozen:,} of {sum(count for count, _ in counts):,} numbers to train are frozen"


def _how_to_go_on(options: Training) -> str:
    """What an interrupted run leaves behind."""
    if options.folder is None:
        return "nothing was written: runs with --resume have checkpoints to go on from"
    if not (user_path(options.folder) / NAME).exists():
        return f'interrupted before the first checkpoint in "{options.folder}"'
    again = "the same command" + ("" if options.run["resume"] else " with --resume")
    return f'the last checkpoint is in "{options.folder}": {again} goes on from it'


def _save(model: Model, output: str) -> None:
    """Writes the model file; what was trained is not lost where its disk is full by now."""
    try:
        model.save(output)
    except StorageError as error:
        raise StorageError(f"{error}. {_rescued(model)}") from None


def _rescued(model: Model) -> str:
    """Where the model is instead."""
    try:
        path = Path(tempfile.mkdtemp(prefix="addergraph-")) / "model.safetensors"
        model.save(path)
    except (OSError, StorageError) as error:
        return f"The trained model could not be kept elsewhere either: {error}"
    return f'The trained model is in "{path}" instead'


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The options of `recipe`."""

    name: str | None = setting(None, place=True)


def show_recipe(options: Shown) -> None:
    """Prints a recipe as a TOML file, or the list of built-in ones."""
    name = options.name
    if name is None:
        for known, (description, _) in BUILT_IN.items():
            print(f"{known:<10} {description}")
        return
    if name in BUILT_IN:
        print(f"# {name}: {BUILT_IN[name][0]}")
        print(f"# optimizers: {', '.join(OPTIMIZERS)}; schedules: {', '.join(SCHEDULES)}")
    print(find(name).text(), end="")


def _require_unused(options: Training) -> None:
    """DataError where nobody named the output and there is one, which may be hours of work."""
    if options.named_output or options.force or options.run["resume"]:
        return
    if Path(OUTPUT).exists():
        raise DataError(
            f'"{OUTPUT}" exists: name it (-o {OUTPUT}) or another file, or give --force'
        )


def _matched(network: str, model: Model, data: Dataset) -> Dataset:
    """The data in the channel order and by the class numbers of the model. DataError where it tells
    other classes: the file would give what it learns here the old names."""
    if len(model.output_shape) == 1 and 1 < model.output_shape[0] < data.class_count:
        raise DataError(
            f'"{network}" tells {model.output_shape[0]} classes, "{data.name}" has '
            f"{data.class_count}: let the network begin again for these (--transfer), or train "
            "another (--model NAME)"
        )
    assert model.preprocessing is not None
    known = model.preprocessing
    data, ours = data.like(known), known.classes
    if ours and data.classes and ours != data.classes:
        raise DataError(
            f'"{network}" tells the classes {shown(ours)}, "{data.name}" has '
            f"{shown(data.classes)}: train a network for these (--model NAME), let this one begin "
            "again for them (--transfer), or name them as the model does"
        )
    data = matched(of_model(network, model), data)
    model.preprocessing = dataclasses.replace(
        known, classes=ours or data.classes, resize=known.resize or data.resize
    )
    return data


def _require_trained(options: Training) -> None:
    """DataError where roundings are asked for and the network's weights are random."""
    if options.quantize_bits is not None and Path(options.network).suffix != ".safetensors":
        raise DataError(
            f"--quantize-bits begins with a trained network, whose activations fix the scales; "
            f'--model "{options.network}" is not: train it first and give the model file'
        )


def _require_transferable(options: Training) -> None:
    """DataError where a transfer has no trained network to begin with, or would leave none."""
    if not options.transfer:
        return
    if Path(options.network).suffix != ".safetensors":
        raise DataError(
            f'--transfer begins with a model file; --model "{options.network}" has random weights'
        )
    if options.quantize_bits is not None:
        raise DataError(
            "--transfer draws new weights and --quantize-bits begins with trained ones: give one "
            "after the other"
        )


def _rounding(model: Model, data: Dataset, bits: int) -> Model:
    """The model with fake quantization, calibrated on some of the images."""
    images = data.calibration(CALIBRATION)
    made = quantization_aware(model, images, bits=bits)
    print(f"quantization-aware training for {bits} bits, calibrated on {len(images)} samples")
    return made


def _with_validation(options: Training, trained: Model | None) -> Dataset:
    """The data set, with the validation part that the options ask for; images of other sizes come
    to that of a `trained` model as its file says."""
    if options.validation is not None and options.validation_split is not None:
        raise DataError(
            "--validation and --validation-split both say what to validate on: give one of them"
        )
    data = load_to_train(trained, options.data)
    if options.validation_split is not None:
        return data.split(options.validation_split, options.run["seed"])
    if options.validation is None:
        return data
    other = load_like(data.resize, data.shape, options.validation)
    for what in ("scale", "classes", "resize"):  # None: nobody said what the classes are
        ours, theirs = getattr(data, what), getattr(other, what)
        if None not in (ours, theirs) and ours != theirs:
            raise DataError(
                f'--validation "{options.validation}" has the {what} {shown(theirs)}, '
                f'--data "{options.data}" {shown(ours)}: expected the same'
            )
    return dataclasses.replace(data, x_val=other.x_train, y_val=other.y_train)


def _require_nothing_chosen_by_test(recipe: Recipe, data: Dataset) -> None:
    """DataError where the best epoch would be that of the test part: what is said of it afterwards
    would be of images that the choice has seen."""
    chooses = recipe.keep_best or recipe.patience
    if not chooses or len(data.x_val) or not len(data.x_test):
        return
    raise DataError(
        f'keep_best and patience choose an epoch; "{data.name}" has a test part alone, and that '
        "chooses nothing: give --validation-split 0.1, or other images by --validation"
    )


def _told(data: Dataset) -> str:
    """Which images are held out, and what for."""
    validating, testing = len(data.x_val), len(data.x_test)
    if testing and not validating:
        return f", {testing} to validate: the test part, by which nothing is chosen"
    told = f", {validating} to validate" if validating else ""
    return told + (f", {testing} to test" if testing else "")


def _show(part: str, model: Model, held_out: HeldOut, run: Mapping[str, Any]) -> None:
    """Prints what the trained network makes of held-out images, where there are any."""
    x, y = held_out
    if x is None or not len(x):
        return
    found = model.evaluate(x, y, engine=run["engine"], threads=run["threads"])
    print(f"{part}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
