"""`addergraph check`, `addergraph diagnose` and `addergraph plot`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import compiler
from ...diagnostics import Diagnosis, Recording, pictures, plots, read_log
from ...diagnostics.diagnosis import diagnose as examine
from ...errors import UnsupportedError
from ...files import storage
from ...report.lints import lint
from ...report.summary import size_text
from ...settings import NOTHING, setting
from ...training.memory import available_memory, require_memory, training_need
from ...training.objective import objective_of
from ...training.recipes import BRIGHTNESS, Images
from ...training.settings import DEFAULT_OPTIMIZER
from .. import options as shared
from .images import entering, load_to_train, matched, normalize_option
from .source import Source, model_for, model_in_file, of_model, open_source

NUMBERS = "diagnosis.json"


@dataclass(frozen=True, kw_only=True)
class Checking:
    """The options of `check`."""

    file: str = shared.file()
    batch: int | None = setting(
        None,
        "Also the memory that a training run with this batch size needs, and whether it is "
        "available.",
        kind=int,
        least=1,
        unset="findings alone",
    )


def check(options: Checking) -> bool:
    """Prints the findings, and with `batch` the memory of a training run; whether all is well.

    MemoryLimitError where the run does not fit.
    """
    file, batch = options.file, options.batch
    source = open_source(file)
    findings = lint(source.graph)
    for finding in findings:
        print(f"{finding.node}: {finding}")
    count = len(findings)
    print(f"{file}: {count or 'no'} {'finding' if count == 1 else 'findings'}")
    if batch is not None:
        _check_memory(source, batch)
    return not findings


def _check_memory(source: Source, batch: int) -> None:
    if source.model is None:
        raise UnsupportedError(
            f'"{source.file}" is the text of a graph; a model file or a network can be trained'
        )
    forward = source.model.graph(training=True, batch=batch)
    step = compiler.train_step_graph(forward, objective_of(source.model), DEFAULT_OPTIMIZER)
    need, available = training_need([step]), available_memory()
    print(f"training with batches of {batch} needs {need}")
    if available is not None:
        print(f"available: {size_text(available.nbytes)} ({available.limit})")
    require_memory(need, available)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `diagnose`."""

    network: str = shared.file("MODEL")
    data: str = shared.data()
    normalize: str | None = normalize_option()
    recording: Mapping[str, Any] = shared.group(Recording)
    output: str | None = setting(
        None,
        "Write pictures and diagnosis.json there.",
        short="-o",
        metavar="FOLDER",
        unset="print only",
    )


def diagnose(options: Options) -> None:
    """Prints the diagnosis, and writes pictures and numbers; refuses a bad folder before."""
    folder = None if options.output is None else pictures.folder_for(options.output)
    trained = model_in_file(options.network)
    data = load_to_train(trained, options.data)
    settings = Recording(**options.recording, verbose=1)
    model = model_for(options.network, trained, data, settings.seed)
    source = of_model(options.network, model)
    data = matched(source, data)
    if model.preprocessing is None and trained is None:
        how = Images(normalize=options.normalize or BRIGHTNESS)
        model.preprocessing = data.preprocessing(how.normalization(data))
    images = entering(source, data.x_train, data, options.normalize)
    found = examine(model, images, data.y_train, settings)
    print(found.text())
    if folder is not None:
        for file in _written(found, folder, f"{options.network} on {options.data}"):
            print(f"wrote {file}")


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The options of `plot`."""

    logs: Sequence[str] = setting(NOTHING, place=True, many=True, metavar="LOG...")
    output: str = setting(NOTHING, "The picture to write.", short="-o", metavar="FILE.png|svg|pdf")


def plot(options: Curves) -> None:
    """Writes the curves of all logs into one picture."""
    logs, output = options.logs, options.output
    pictures.require_picture(output)
    names = [_run_name(Path(log)) for log in logs]
    if len(set(names)) < len(names):
        names = list(logs)
    runs = {name: read_log(log) for name, log in zip(names, logs, strict=True)}
    pictures.save(plots.plot_curves(runs), output)
    print(f"wrote {output}")


def _run_name(log: Path) -> str:
    """A run is called as its folder; a log that is not called `log` as itself."""
    return log.absolute().parent.name if log.stem == "log" else log.stem


def _written(found: Diagnosis, folder: Path, of: str) -> list[Path]:
    figures: dict[str, Any] = {
        "gradients.png": plots.plot_gradients(found.gradients, of),
        "gradient-sizes.png": plots.plot_gradient_norms(found.gradients, of),
        "filters.png": plots.plot_filters(found.filters, found.kinds, of),
        "activations.png": plots.plot_activations(found.activations, of),
    }
    if any(one.dead is not None for one in found.activations):
        figures["relus.png"] = plots.plot_dead(found.activations, of)
    for name, figure in figures.items():
        pictures.save(figure, folder / name)
    numbers = json.dumps(found.numbers(), indent=1).encode()
    storage.atomic_write(folder / NUMBERS, numbers)
    return [folder / name for name in (*figures, NUMBERS)]
