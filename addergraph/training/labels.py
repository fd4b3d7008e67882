"""Training data, checked before any work: images to f32, labels to targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import border
from ..errors import DataError
from ..ir import Array
from .objective import objective_of
from .trainee import Trainee

if TYPE_CHECKING:
    from ..data import Normalize

Index = Array | slice
LOOKED_AT = 1024  # samples whose scale is measured
LARGE = 10.0  # their root mean square as they enter, from which on they are out of scale


def inputs_of(
    x: object, names: Sequence[str], shapes: Mapping[str, Sequence[int]] | None, what: str = "x"
) -> dict[str, Array]:
    """`as_samples` of every input, in a dict or in order (`border.by_name`); DataError also where
    they are of different numbers of samples."""
    found = {
        name: as_samples(
            given, None if shapes is None else shapes[name], border.called(what, name, names)
        )
        for name, given in border.by_name(what, x, names).items()
    }
    counts = {name: len(array) for name, array in found.items()}
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{what}: expected a row a sample in every input, found rows: {told}")
    return found


def count_of(inputs: Mapping[str, Array]) -> int:
    """How many samples these are."""
    return len(next(iter(inputs.values())))


def as_samples(x: object, shape: Sequence[int] | None, what: str = "x") -> Array:
    """`x` as an array of one sample a row: u8 stays (converted batch by batch), the rest is f32.

    `shape` is that of one sample, None where the model does not know it yet. Raises DataError
    for anything but real numbers, and for a wrong shape.
    """
    array = border.array(what, x)
    if array.ndim < 2:
        raise DataError(
            f"{what}: expected one sample a row, found shape {array.shape}; "
            f"a single sample is {what}[None]"
        )
    if shape is not None and array.shape[1:] != tuple(shape):
        raise DataError(
            f"{what}: samples have shape {array.shape[1:]}, the model takes {tuple(shape)}"
            f"{_shape_hint(array, tuple(shape), what)}"
        )
    border.require_nhwc(what, array, stated=shape is not None)
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def _shape_hint(array: Array, shape: tuple[int, ...], what: str) -> str:
    if (*array.shape[1:], 1) == shape:
        return f"; add the channel axis: {what}[..., None]"
    if array.shape == shape:
        return f"; a single sample is {what}[None]"
    hint = border.nhwc_hint(what, array, shape)
    if hint or array.dtype != np.uint8 or len(shape) != 3 or array.shape[3:] != shape[2:]:
        return hint
    return (
        f"; addergraph.data.images.bring(image, {shape[:2]}, how) brings an image to this size: "
        'how="stretch", "crop" or "pad", as for training'
    )


def require_trainable(inputs: Mapping[str, Array], what: str = "x") -> None:
    """DataError for no samples at all, and for NaN or Inf."""
    for name, samples in inputs.items():
        _require_finite(samples, border.called(what, name, inputs))


def _require_finite(x: Array, what: str) -> None:
    if not len(x):
        raise DataError(f"{what} is empty (shape {x.shape}); expected at least one sample")
    if x.dtype.kind != "f" or np.isfinite(x).all():
        return
    row = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
    value = x[row][~np.isfinite(x[row])].flat[0]
    raise DataError(
        f"{what}: sample {row} holds {value}; expected finite f32 numbers: remove or repair it"
    )


@dataclass(frozen=True)
class Targets:
    """What a model shall answer: `labels` i64[N] where these are classes, `values` f32[N,...] else.

    Both where the classes came one-hot or as probabilities: `labels` are then the largest.
    """

    labels: Array | None
    values: Array | None
    shape: tuple[int, ...]  # of one answer

    def __len__(self) -> int:
        array = self.values if self.labels is None else self.labels
        assert array is not None
        return len(array)

    def rows(self, index: Index) -> Array:
        """The f32 targets of some samples; labels become one-hot here, a batch at a time."""
        if self.values is not None:
            return np.ascontiguousarray(self.values[index])
        assert self.labels is not None
        labels = self.labels[index]
        one_hot = np.zeros((len(labels), *self.shape), np.float32)
        one_hot[np.arange(len(labels)), labels] = 1.0
        return one_hot

    def correct(self, index: Index, prediction: Array) -> int | None:
        """How many predictions have their largest value at the label; None without labels."""
        if self.labels is None:
            return None
        return int(np.count_nonzero(prediction.argmax(axis=-1) == self.labels[index]))


def as_targets(
    y: object, count: int, shape: Sequence[int], classes: bool, what: str = "y"
) -> Targets:
    """Targets from labels [N] or [N,1], one-hot rows [N,T], or (not `classes`) any values.

    `shape` is that of one answer of the model; `classes` says that the loss wants classes.
    Raises DataError that names the row and value: labels out of range, rows that are no
    probabilities, NaN or Inf, a length other than `count`, or another shape.
    """
    array, shape = border.array(what, y), tuple(shape)
    if not array.ndim or len(array) != count:
        raise DataError(f"{what}: expected {count} rows, one a sample, found shape {array.shape}")
    if classes and len(shape) != 1:
        raise DataError(f"this loss needs one score a class from the model, its answer is {shape}")
    scores = shape[0] if len(shape) == 1 else 1
    single = array.shape in ((count,), (count, 1))
    if single and scores > 1 and (classes or array.dtype.kind in "iu"):
        return Targets(_labels(array.reshape(count), scores, what), None, shape)
    if single and shape == (1,):
        array = array.reshape(count, 1)
    if array.shape != (count, *shape):
        labels = f"labels of shape ({count},) or " if scores > 1 else ""
        raise DataError(
            f"{what}: expected {labels}values of shape {(count, *shape)}, found {array.shape}"
        )
    values = array.astype(np.float32)
    require_finite_rows(values, what)
    if classes:
        _require_probabilities(values, what)
    one_hot = scores > 1 and bool(((values == 0) | (values == 1)).all())
    labelled = classes or (one_hot and bool((values.sum(axis=-1) == 1).all()))
    return Targets(values.argmax(axis=-1) if labelled else None, values, shape)


def targets_for(model: Trainee, y: object, count: int, what: str = "y") -> dict[str, Targets]:
    """`as_targets` for `count` answers of each output of `model` and its loss, by name."""
    losses, shapes = objective_of(model).losses, model.output_shapes
    found = {}
    for name, given in border.by_name(what, y, [*shapes]).items():
        called = border.called(what, name, shapes)
        made = as_targets(given, count, shapes[name], losses[name].of_classes, called)
        if made.values is not None:
            losses[name].require_targets(made.values, called)
        found[name] = made
    return found


def rows_of(targets: Mapping[str, Targets], index: Index) -> list[Array]:
    """The f32 targets of some samples, for each output."""
    return [one.rows(index) for one in targets.values()]


def hits_of(
    targets: Mapping[str, Targets],
    index: Array,
    predictions: Sequence[Array],
) -> dict[str, int]:
    """Of some samples the right answers, `accuracy`; of several outputs `<output>_accuracy`. They
    are of classes alone."""
    several, sums = len(targets) > 1, {}
    for (name, one), prediction in zip(targets.items(), predictions, strict=True):
        if (correct := one.correct(index, prediction)) is not None:
            sums[f"{name}_accuracy" if several else "accuracy"] = correct
    return sums


def require_finite_rows(values: Array, what: str) -> None:
    """DataError that names the first row with NaN or Inf."""
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        raise DataError(f"{what}: row {row} holds NaN or Inf; expected finite numbers")


def _labels(array: Array, classes: int, what: str) -> Array:
    fits = (array >= 0) & (array < classes) & (np.floor(array) == array)
    if not fits.all():
        row = int(np.argmin(fits))
        raise DataError(
            f"{what}: label {array[row]} in row {row} is out of range; the model has "
            f"{classes} classes, labels are 0 to {classes - 1}{_label_hint(array, classes, what)}"
        )
    return array.astype(np.int64)


def _label_hint(array: Array, classes: int, what: str) -> str:
    least, most = array.min(), array.max()
    if least == 1 and most == classes:
        return f"; these count from 1: use {what} - 1"
    if least >= 0 and most >= 2 * classes:
        return f"; if they are ids: np.unique({what}, return_inverse=True)[1] numbers them"
    return ""


def _require_probabilities(values: Array, what: str) -> None:
    fits = (values >= 0).all(axis=-1) & (np.abs(values.sum(axis=-1) - 1.0) <= 1e-3)
    if not fits.all():
        row = int(np.argmin(fits))
        raise DataError(
            f"{what}: row {row} is neither one-hot nor probabilities (its sum is "
            f"{values[row].sum():g}); expected values of at least 0 whose sum is 1"
        )


def out_of_scale(samples: Array, normalize: Normalize | None) -> str | None:
    """What to say of samples that enter far beyond the scale of the filters; None where they fit.

    An adder's result is a sum of |x - f|: where x is much larger than f, it is one of |x|.
    """
    some = samples[:LOOKED_AT]
    entering = some if normalize is None else normalize.apply(some)
    rms = float(np.sqrt(np.mean(np.square(entering, dtype=np.float64))))
    if rms <= LARGE:
        return None
    return (
        f"samples enter with numbers up to {float(np.abs(entering.astype('f8')).max()):.6g} (root "
        f"mean square {rms:.3g}), and filters begin at about 1, beside which they hardly count: "
        "pass fit a normalize=, such as Normalize(mean, std, scale) or, of a Dataset, "
        'data.normalize() (of a recipe, normalize = "statistics"), or divide pixels by their '
        "largest value (255 of 8 bits, 65535 of 16)"
    )
