"""From the arguments of `Model.fit` to its last epoch: everything is checked before any work."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from typing import NoReturn

import numpy as np

from ..errors import AdderGraphError, DataError, DataWarning, ProcessError, StorageError
from ..files.storage import user_path
from ..ir import Array
from ..ir.check import require_something_to_train
from ..ir.state import bind_weights
from .checkpoint import BEST, Checkpoint, Position, RunFolder
from .feed import Feed
from .labels import Targets, count_of, hits_of, require_trainable, rows_of, targets_for
from .logs import History, Logs, log_row, score
from .objective import objective_of
from .prepare import check_steps, compiled, facts_of, identity_of, preprocessed, warn
from .progress import Progress
from .replicas import Replicas
from .settings import Fit, rate_at
from .sparsity import is_thinned, thin, thinned_of
from .stalled import constant_loss, watches_of
from .statistics import Statistics
from .step import TrainStep
from .trainee import Trainee
from .validation import HeldOut, Validation, validation_of


def fit(
    model: Trainee, inputs: Mapping[str, Array], y: object, held_out: HeldOut, settings: Fit
) -> History:
    """As `Model.fit`, which alone calls it: warnings point at the line that called that.

    The model ends with the weights of the best epoch where `keep_best` asks for it, otherwise with
    the running averages where the optimizer keeps them, otherwise with the last ones. Data and
    settings that do not fit, and a checkpoint of another run, are refused before the training step
    is compiled.

    Raises DataError when a loss or a weight is no longer finite; the weights are then those of
    the end of the last good epoch, or of the checkpoint that the run went on from. MemoryLimitError
    before the first step where the run needs more memory than there is.
    """
    with Replicas(settings.communicator, settings.deterministic) as replicas:
        if not replicas.is_first:
            settings = replace(settings, verbose=0)
        return _fit(model, inputs, y, held_out, settings, replicas)


def _fit(
    model: Trainee, inputs: Mapping[str, Array], y: object, held_out: HeldOut, settings: Fit,
    replicas: Replicas,
) -> History:  # fmt: skip
    require_trainable(inputs)
    model.build({name: samples.shape[1:] for name, samples in inputs.items()})
    require_something_to_train(model.graph(training=False))
    targets = targets_for(model, y, count_of(inputs))
    thinned, before = thinned_of(model, settings), model.preprocessing
    with ExitStack() as stack:
        try:
            settings = preprocessed(model, inputs, settings)
            feed = Feed(inputs, model.preprocessing, settings, replicas.rows)
            validation = validation_of(model, held_out, settings, replicas)
            folder = checkpoint = None
            if settings.checkpoint is not None or replicas.size > 1:
                identity = identity_of(model, inputs, targets, settings, validation)
                replicas.agree(facts_of(identity, inputs, settings))
                if settings.checkpoint is not None and replicas.is_first:
                    path = user_path(settings.checkpoint)
                    folder = RunFolder(path, identity, resume=settings.resume)
                    checkpoint = stack.enter_context(folder).load()
            warn(model, feed, settings)
            start = time.perf_counter()
            step = compiled(model, count_of(inputs), settings, thinned, replicas)
        except BaseException:
            model.preprocessing = before
            raise
        statistics = Statistics(step, feed, settings.batch_norm_samples, replicas)
        check_steps(step, count_of(inputs), settings, statistics, start)
        run = _Run(
            step, feed, targets, settings, validation, folder, checkpoint, statistics, replicas
        )
        return run.all_epochs()


class _Run:
    """One `Model.fit` between its beginning, or its checkpoint, and its end."""

    def __init__(
        self,
        step: TrainStep,
        feed: Feed,
        targets: Mapping[str, Targets],
        settings: Fit,
        validation: Validation | None,
        folder: RunFolder | None,
        checkpoint: Checkpoint | None,
        statistics: Statistics,
        replicas: Replicas,
    ) -> None:
        self.step, self.feed, self.targets = step, feed, targets
        self.samples = count_of(feed.inputs)
        self.settings, self.validation, self.folder = settings, validation, folder
        self.statistics, self.replicas = statistics, replicas
        self.best: dict[str, Array] | None = None
        self.at = Position()
        if checkpoint is not None:
            self._go_on_from(checkpoint)
        self._share()
        self.history = History(self.at.history)
        self.good, self.good_at = step.state.blob.copy(), (self.at.epoch, self.at.step)
        self.before = np.empty_like(step.state.blob)  # the last step
        self.before_is = (-1, -1)  # epoch and step
        self.logs: Logs | None = None
        self.last: dict[str, float] = {}  # of the last step
        self.objective = objective_of(step.model, settings.label_smoothing)
        losses = self.objective.losses
        self.constants = {n: constant_loss(one, losses[n]) for n, one in targets.items()}

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        assert self.folder is not None
        file, wanted = self.folder.file, self.step.model.graph(training=False).parameters
        try:
            self.step.state.load(checkpoint.state)
            if checkpoint.best is not None:
                self.best = bind_weights("the best weights", wanted, checkpoint.best)
        except AdderGraphError as error:
            raise StorageError(f'"{file}" is damaged: {error}') from None
        self.at = checkpoint.position
        if self.settings.verbose and self.folder is not None:
            print(f'from "{self.folder.file}": {self._done()}', flush=True)

    def _share(self) -> None:
        """Begins where process 1 begins."""
        self.at = Position(**self.replicas.shared(asdict(self.at)))
        self.replicas.share(self.step.state.blob)
        if self.replicas.shared(self.best is not None):
            self.best = self.best or {n: a.copy() for n, a in self.step.model.weights.items()}
            for array in self.best.values():
                self.replicas.share(array)

    def _done(self) -> str:
        at, epochs = self.at, self.settings.epochs
        if at.epoch >= epochs or self._is_stale():
            return f"the run is complete, {at.epoch} of {epochs} epochs"
        where = f"epoch {at.epoch + 1} of {epochs}"
        if not at.step:
            return f"going on with {where}"
        return f"going on in {where}, after step {at.step} of {len(self.feed)}"

    def all_epochs(self) -> History:
        settings, at = self.settings, self.at
        if self.folder is not None:
            self.logs = Logs(self.folder.path, [self._row(e) for e in range(at.epoch)])
        self._begin()
        with Progress(settings.epochs, len(self.feed), self.samples, settings.verbose) as progress:
            progress.start(at.epoch * len(self.feed) + at.step)
            while self.at.epoch < settings.epochs and not self._is_stale() and not self._stopped():
                self._epoch(progress)
        self._finish()
        self._tell("on_train_end", {})
        return self.history

    def _epoch(self, progress: Progress) -> None:
        number, start = self.at.epoch, time.perf_counter() - self.at.seconds
        inputs = None
        self._tell("on_epoch_begin", {}, number)
        with closing(self.feed.epoch(number, self.at.step)) as batches:
            try:
                for inputs, index in batches:
                    # All of it at once: Ctrl-C may come here.
                    self.at = self._one_step(inputs, index)
                    self.at.seconds = time.perf_counter() - start
                    progress.step(number, self.at.loss / self._samples_seen())
                    if self._is_due():
                        self._save()
                    self._tell_step("on_train_batch_end", self.last, self.at.step - 1)
                    if self._stopped() and self.at.step < len(self.feed):
                        self._require_finite_weights(self.at.step)
                        self._save_if_kept()
                        return
            except (KeyboardInterrupt, SystemExit, ProcessError):
                self._save_interrupted(time.perf_counter() - start)
                raise
        at = self.at
        self._require_finite_weights(at.step)
        self._thin()
        if self._looks_each_epoch:
            self.statistics(number)
        record = self._record()
        record["seconds"] = time.perf_counter() - start
        self.history.append(record)
        self._keep_best(record)
        at.epoch, at.step, at.loss, at.correct, at.seconds = number + 1, 0, 0.0, 0, 0.0
        at.parts = {}
        self.good, self.good_at = self.step.state.blob.copy(), (at.epoch, at.step)
        self._save_if_kept()
        if self.logs is not None:
            self.logs.append(self._row(number))
        progress.epoch(number, record)
        self._watch(inputs)
        rate = rate_at(self.settings.learning_rate, number)
        self._tell("on_epoch_end", {**record, "learning_rate": rate}, number)

    @property
    def _looks_each_epoch(self) -> bool:
        """Whether the weights of every epoch are used as they would be in the end."""
        return self.validation is not None or self.settings.keep_best

    def _settle(self, epoch: int, step: int) -> None:
        """Gives the weights after so many epochs, and steps of the next one, the statistics that
        they were not given on the way, by the samples of the epoch that moved them last."""
        if step:
            self.statistics(epoch)
        elif epoch and not self._looks_each_epoch:
            self.statistics(epoch - 1)

    def _watch(self, inputs: Sequence[Array] | None) -> None:
        """Says it, once, where an output learns nothing, or nothing of it shows on other samples;
        `inputs` are the last batch of this process."""
        history, held_out = self.history, None
        if self.validation is not None:
            held_out = self.validation.targets
        columns = history.history
        watches = watches_of(self.objective, self.constants, self.targets, columns, held_out)
        if history.findings and all(watch.is_well for watch in watches):  # it is no longer true
            history.findings.clear()
        if inputs is None or history.findings or not self.replicas.is_first:
            return
        epoch = self.at.epoch
        rate = functools.partial(rate_at, self.settings.learning_rate, epoch - 1)
        probe = functools.partial(self.step.probe, inputs)
        found = [watch.finding(epoch, epoch * len(self.feed), probe, rate) for watch in watches]
        if (first := next(filter(None, found), None)) is not None:
            history.findings.append(first)
            warnings.warn(str(first), DataWarning, stacklevel=7)

    def _one_step(self, inputs: Sequence[Array], index: Array) -> Position:
        """Where the run is after this batch."""
        at = self.at
        rate = rate_at(self.settings.learning_rate, at.epoch, at.step / len(self.feed))
        self._tell_step("on_train_batch_begin", {"learning_rate": rate}, at.step)
        np.copyto(self.before, self.step.state.blob)
        self.before_is = at.epoch, at.step
        self._thin()
        start = at.step * self.settings.batch_size
        count = min(self.settings.batch_size, self.samples - start)
        rows = rows_of(self.targets, index)
        (loss, *each), predictions = self.step.run(inputs, rows, rate, count)
        if not math.isfinite(loss):
            self._diverged(at.step + 1, f"the loss is {loss}: {self._culprit(inputs)}", rate)
        self.last = {"loss": loss, "learning_rate": rate}
        hits = self.replicas.total(hits_of(self.targets, index, predictions))
        correct = at.correct + hits.pop("accuracy", 0)
        columns = (self.objective.column(name, "loss") for name in self.targets)
        sums = {n: one * count for n, one in zip(columns, each, strict=bool(each))} | hits
        parts = {name: at.parts.get(name, 0.0) + number for name, number in sums.items()}
        summed = at.loss + loss * count
        return replace(at, step=at.step + 1, loss=summed, correct=correct, parts=parts)

    def _thin(self) -> None:
        thin(self.step.state.views, self.step.thinned, self.settings, self.at, len(self.feed))

    def _record(self) -> dict[str, float]:
        """The numbers of the epoch that has just ended, seconds aside."""
        at, parts = self.at, dict(self.at.parts)
        of_classes = [one.labels is not None for one in self.targets.values()]
        if of_classes == [True]:  # those of several outputs are among the parts
            parts["accuracy"] = at.correct
        record = {name: total / self.samples for name, total in {"loss": at.loss, **parts}.items()}
        if self.validation is not None:
            with self.step.evaluating():
                record |= self.validation.measure()
        return record

    def _samples_seen(self) -> int:
        return min(self.at.step * self.settings.batch_size, self.samples)

    def _row(self, epoch: int) -> dict[str, float]:
        rate = rate_at(self.settings.learning_rate, epoch)
        return log_row(self.history, epoch, rate, self.samples)

    # --- callbacks --------------------------------------------------------------------------------

    def _begin(self) -> None:
        for callback in self.settings.callbacks:
            callback.model, callback.stop_training = self.step.model, False
        self._tell("on_train_begin", {"steps": self.at.epoch * len(self.feed) + self.at.step})

    def _tell(self, hook: str, logs: Mapping[str, float], *where: int) -> None:
        """Calls a method of every callback; what one raises comes out."""
        for callback in self.settings.callbacks:
            getattr(callback, hook)(*where, logs)

    def _tell_step(self, hook: str, logs: Mapping[str, float], step: int) -> None:
        """As `_tell` within an epoch, which has no checkpoint of its own yet."""
        try:
            self._tell(hook, logs, step)
        except Exception:  # of the user's own code; exits and Ctrl-C are met around the epoch
            self._save_interrupted(self.at.seconds)
            raise

    def _stopped(self) -> bool:
        callbacks = self.settings.callbacks
        return bool(callbacks) and self.replicas.any(any(c.stop_training for c in callbacks))

    # --- checkpoints, the best weights, the end ---------------------------------------------------

    def _is_due(self) -> bool:
        """Whether a checkpoint is due after this step; the end of an epoch has its own."""
        every, step = self.settings.checkpoint_steps, self.at.step
        due = every > 0 and (self.at.epoch * len(self.feed) + step) % every == 0
        return due and step < len(self.feed)

    def _save(self) -> None:
        self._require_finite_weights(self.at.step)
        if self.folder is not None:  # of process 1 alone
            self.folder.save(Checkpoint(self.step.state.views, self.best, self.at))

    def _save_if_kept(self) -> None:
        if self.settings.checkpoint is not None:
            self._save()

    def _save_interrupted(self, seconds: float) -> None:
        """A checkpoint of the last whole step; where that cannot be written, the one before it
        stays. What ends the run is not hidden."""
        at = self.at
        if self.folder is None or (at.epoch, at.step) == (0, 0):
            return
        if self.before_is == (at.epoch, at.step):  # in the middle of the next one
            self.step.state.blob[...] = self.before
        views = self.step.state.views.values()
        if self.replicas.size > 1 and not all(np.isfinite(array).all() for array in views):
            return  # what follows would ask the others, who may have gone
        at.seconds = seconds
        with suppress(AdderGraphError):
            self._save()

    def _keep_best(self, record: Mapping[str, float]) -> None:
        at, found = self.at, score(record)
        if not is_thinned(self.settings, at.epoch + 1):
            return  # an earlier one computes more
        if at.best_epoch and found <= at.best_score:
            return
        at.best_epoch, at.best_score = at.epoch + 1, found
        if not self.settings.keep_best:
            return
        self.best = {name: array.copy() for name, array in self.step.evaluated.items()}
        if self.folder is not None:
            with self.step.evaluating():
                self.step.model.save(self.folder.path / BEST)

    def _is_stale(self) -> bool:
        """Whether the best epoch is `patience` epochs ago."""
        patience, at = self.settings.patience, self.at
        return at.best_epoch > 0 < patience <= at.epoch - at.best_epoch and not at.step

    def _finish(self) -> None:
        at, settings = self.at, self.settings
        if self.best is None:
            self._settle(at.epoch, at.step)
        final = self.step.evaluated if self.best is None else self.best
        stopped = self._stopped()  # asked by all processes, those that print nothing too
        if settings.verbose and stopped:
            print("stopped by a callback", flush=True)
        elif settings.verbose and at.epoch < settings.epochs:
            print(f"stopped: no epoch since {at.best_epoch} was better", flush=True)
        if settings.verbose and self.best is not None:
            print(f"the weights are those of epoch {at.best_epoch}, the best one", flush=True)
        for name, view in self.step.model.weights.items():
            view[...] = final[name]

    # --- divergence -------------------------------------------------------------------------------

    def _where(self) -> str:
        """How messages speak of the weights that are good."""
        epoch, step = self.good_at
        if step:
            return f"those of the checkpoint in epoch {epoch + 1}, step {step}"
        return f"those of the end of epoch {epoch}" if epoch else "those before training"

    def _culprit(self, inputs: Sequence[Array]) -> str:
        """What was not finite first in the last step."""
        after = self.step.state.blob.copy()
        self.step.state.blob[...] = self.before
        try:
            for name, array in self.step.model.weights.items():
                if not np.isfinite(array).all():
                    return f'parameter "{name}" had become NaN or Inf in the step before'
            for label, array in self.step.probe(inputs):
                if not np.isfinite(array).all():
                    return f"{label} is the first whose result is NaN or Inf"
        finally:
            self.step.state.blob[...] = after
        return "every layer's result is finite, the loss itself overflows"

    def _require_finite_weights(self, steps: int) -> None:
        for name, array in self.step.state.views.items():
            if not np.isfinite(array).all():
                rate = rate_at(self.settings.learning_rate, self.at.epoch)
                self._diverged(steps, f'parameter "{name}" holds NaN or Inf after it', rate)

    def _diverged(self, number: int, what: str, rate: float) -> NoReturn:
        self.step.state.blob[...] = self.good
        self._settle(*self.good_at)
        kept = ""
        if self.folder is not None and self.folder.file.exists():
            kept = f'; "{self.folder.file}" is kept'
        raise DataError(
            f"training diverged in epoch {self.at.epoch + 1}, step {number}: {what}; the weights "
            f"are {self._where()}{kept}. Lower the learning rate (it was {rate:g}), or scale the "
            "data to about 0..1"
        )
