"""The border: what users hand in becomes plain numbers, words, paths and arrays, or one error.

Behind it there are Python's own int, float, bool and str, tuples, and arrays of real numbers in
this machine's byte order. NumPy's scalars and arrays without axes are numbers; a masked array is
none, since nothing here would read its mask. `plain` asks the annotation of an argument what it may
be, `settle` does so for the fields of a record, `checked` for the arguments of a function.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import itertools
import numbers
import operator
import os
import reprlib
import sys
import types
import typing
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from .errors import (
    AdderGraphError,
    DataError,
    DataWarning,
    GraphError,
    MemoryLimitError,
    StorageError,
    nearest,
)

Array = np.ndarray[Any, np.dtype[Any]]
Error = type[AdderGraphError]
F = TypeVar("F", bound=Callable[..., Any])

MOST_ITEMS = 1 << 20  # of a list of numbers or words; arrays may have more elements
MOST_BITS = 128  # of an integer: seeds of NumPy may be as long
_UNFIT: Any = object()
_SHOWN = 80  # characters of a value in a message
_WORDS: dict[object, tuple[str, str]] = {
    int: ("an integer", "integers"), float: ("a number", "numbers"),
    bool: ("True or False", "truth values"), str: ("a word", "words"),
    np.ndarray: ("an array of real numbers", "arrays"), type(None): ("None", "None"),
    os.PathLike: ("a path", "paths"),
}  # fmt: skip


# --- what messages say ----------------------------------------------------------------------------


def shown(value: object) -> str:
    """A value in a message: its repr, or of a large one what it is."""
    if isinstance(value, np.ndarray) and value.size > 4:
        masked = "a masked" if _is_masked_array(value) else "an"
        return f"{masked} array of {value.dtype} {value.shape}"
    limited = reprlib.Repr()
    limited.maxstring = limited.maxother = limited.maxlong = _SHOWN
    try:
        text = " ".join(limited.repr(value).split())
    except Exception:  # a repr of the user's own; integers of more than 4300 digits have none
        return f"a {type(value).__name__}"
    return text if len(text) <= 4 * _SHOWN else f"{text[: 4 * _SHOWN]}..."


def _expected(hint: Any, several: bool = False) -> str:
    """What an annotation takes, in words."""
    origin = typing.get_origin(hint) or hint
    if origin in _WORDS:
        return _WORDS[origin][several]
    options = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_expected(o, several) for o in options))
    if origin is Literal:
        return " or ".join(f'"{o}"' for o in options)
    if _is_listed(origin):
        if origin is tuple and options[-1:] != (...,):
            return f"{len(options)} {_expected(options[0], True)}"
        return f"a list of {_expected(options[0], True)}"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is collections.abc.Mapping:
        return "a dict"
    return f"a {getattr(origin, '__name__', origin)}"


# --- numbers and words ----------------------------------------------------------------------------


def integer(what: str, value: object, error: Error = DataError) -> int:
    """An int; neither a truth value nor a real number is one."""
    return _fit(int, what, value, error)  # type: ignore[no-any-return]


def number(what: str, value: object, error: Error = DataError) -> float:
    """A float, of any real number that one holds; it may be infinite or NaN."""
    return _fit(float, what, value, error)  # type: ignore[no-any-return]


def flag(what: str, value: object, error: Error = DataError) -> bool:
    return _fit(bool, what, value, error)  # type: ignore[no-any-return]


def word(what: str, value: object, error: Error = DataError) -> str:
    return _fit(str, what, value, error)  # type: ignore[no-any-return]


def _fit(hint: Any, what: str, value: object, error: Error) -> Any:
    found = _plain(hint, value)
    if found is _UNFIT:
        raise error(f"{what}={shown(value)} must be {_expected(hint)}")
    return found


def _is_masked_array(value: object) -> Any:
    # Where there is one, its module is there; importing it here would take time of every process,
    # and of a fork that meets the import.
    module = sys.modules.get("numpy.ma")
    return isinstance(value, np.ndarray) and module and isinstance(value, module.MaskedArray)


def _hides(value: Any) -> bool:
    """Whether a masked array hides an element."""
    return bool(np.any(value.mask))


def _scalar(value: Any) -> object:
    """The number in an array without axes; of anything else itself."""
    if _is_masked_array(value):
        return value if _hides(value) or value.ndim else value.data[()]
    return value[()] if isinstance(value, np.ndarray) and not value.ndim else value


def _integer(value: object) -> Any:
    value = _scalar(value)
    if isinstance(value, bool | np.bool_ | np.ndarray):
        return _UNFIT
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return _UNFIT
    return found if found.bit_length() <= MOST_BITS else _UNFIT


def _number(value: object) -> Any:
    value = _scalar(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_ | np.ndarray):
        return _UNFIT
    try:
        return float(value)
    except OverflowError:
        return _UNFIT


def _flag(value: object) -> Any:
    value = _scalar(value)
    return bool(value) if isinstance(value, bool | np.bool_) else _UNFIT


def _word(value: object) -> Any:
    return str(value) if isinstance(value, str) else _UNFIT


def _path(value: object) -> Any:
    """A path as text: nothing that no file can be called."""
    try:
        text = os.fsdecode(value)  # type: ignore[arg-type]
        os.fsencode(text)
    except (TypeError, ValueError, UnicodeError):
        return _UNFIT
    return _UNFIT if "\0" in text or not text else text


def path(what: str, value: object) -> str:
    """A path as text, a leading `~` or `~user` replaced by that home folder, where there is one.

    StorageError for what is no path.
    """
    found = _path(value)
    if found is _UNFIT:
        raise StorageError(f"{what}={shown(value)} must be a path: words that a file can be called")
    return os.path.expanduser(str(found))


# --- arrays ---------------------------------------------------------------------------------------


def array(what: str, value: object, error: Error = DataError) -> Array:
    """Real numbers as a plain array in this machine's byte order; not copied where it is one.

    `error` for a masked array, rows of different lengths, and anything that is no array of real
    numbers; MemoryLimitError for one that no memory could hold as f32.
    """
    if _masks(value):
        raise error(
            f"{what} is a masked array, and no mask is read here: fill what it hides, as "
            "x.filled(0), or leave those samples out"
        )
    try:
        found = np.asarray(value)
    except MemoryError:
        raise MemoryLimitError(f"{what}: there is no memory for the array") from None
    except Exception as refusal:  # NumPy runs what the object itself defines (__array__, __len__)
        ragged = "inhomogeneous" in str(refusal)
        hint = "its rows have different lengths; cut or pad them to one shape" if ragged else ""
        rows = _shapes(value) if ragged else shown(value)
        raise error(
            f"{what}: expected an array of real numbers, found {rows} ({hint or refusal})"
        ) from None
    if found.dtype.kind not in "biuf":
        kind = f"an array of {found.dtype}" if found.ndim else shown(value)
        hint = "; where they are numbers: .astype(np.float32)" if found.dtype == object else ""
        raise error(f"{what}: expected real numbers, found {kind}{hint if found.ndim else ''}")
    if found.dtype != np.uint8:  # bytes are converted a batch at a time
        require_memory(what, 4 * found.size)
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def _shapes(value: object) -> str:
    """What is in a list of arrays: their shapes; of another object its repr."""
    rows = value if isinstance(value, list | tuple) else ()
    shapes = list(dict.fromkeys(str(row.shape) for row in rows if isinstance(row, np.ndarray)))
    return f"arrays {', '.join(shapes[:3])}" if shapes else shown(value)


def _masks(value: object, depth: int = 0) -> bool:
    """Whether an element is masked, in arrays inside lists, too: NumPy would take its number."""
    if _is_masked_array(value):
        return _hides(value)
    if isinstance(value, list | tuple) and depth < 64:
        return any(_masks(item, depth + 1) for item in value)
    return False


def require_memory(what: str, nbytes: int) -> None:
    """MemoryLimitError for more bytes than this machine has at all."""
    most = memory_of_machine()
    if nbytes > most:
        raise MemoryLimitError(
            f"{what} would take {nbytes:.3g} bytes, this machine has {most:.3g}; use fewer or "
            "smaller samples, or layers"
        )


@functools.cache
def memory_of_machine() -> int:
    """Bytes; where the system does not tell, what 47 bits of address space reach."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 47


def require_nhwc(what: str, x: Array, *, stated: bool = False) -> None:
    """DataError for bytes that look like images in NCHW, as u8[N,3,32,32]; a DataWarning for real
    numbers, and for bytes where the user has `stated` this shape. Stated real numbers may be
    sequences as well: of them, 1 or 3 squares of at least 8 by 8 look like images."""
    if x.ndim != 4:
        return
    channels, height, width = x.shape[1:]
    if channels not in (1, 3, 4) or min(height, width) <= 4:
        return
    square = channels != 4 and height == width >= 8
    if stated and x.dtype != np.uint8 and not square:
        return
    message = (
        f"{what}: {x.dtype} {x.shape} looks like {channels} channels of {height}x{width} pixels; "
        f"images are NHWC here, so these are {channels}x{height} pixels of {width} channels: use "
        f"{what}.transpose(0, 2, 3, 1)"
    )
    if x.dtype == np.uint8 and not stated:
        raise DataError(f"{message}, or state input_shape={x.shape[1:]} if they are meant so")
    warnings.warn(message, DataWarning, stacklevel=4)


def nhwc_hint(what: str, x: Array, expected: Sequence[Any]) -> str:
    """What to do with images in NCHW, where samples [..., H, W, C] are expected; else nothing."""
    if x.ndim == 4 and (*x.shape[2:], x.shape[1]) == tuple(expected[-3:]):
        return f"; images are NHWC: {what}.transpose(0, 2, 3, 1)"
    return ""


def mapping(what: str, value: object, error: Error = DataError) -> Mapping[str, Any]:
    """A dict whose keys are words."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise error(f"{what}={shown(value)} must be a dict whose keys are names")
    return value


def by_name(
    what: str, value: object, names: Sequence[str], error: Error = DataError
) -> dict[str, Any]:
    """What is given for each of `names`: in a dict by name, or in a tuple or list in this order,
    for a single name also the value itself. `error` for a missing or unknown name, and another
    number of them."""
    if isinstance(value, Mapping):
        missing = [name for name in names if name not in value]
        unknown = [key for key in value if key not in names]
        if unknown:
            hint = nearest(str(unknown[0]), names)
            raise error(
                f"{what}: there is no {shown(unknown[0])} here{hint}; expected {', '.join(names)}"
            )
        if missing:
            raise error(f'{what} lacks "{missing[0]}"; expected {", ".join(names)}')
        return {name: value[name] for name in names}
    if len(names) == 1:
        return {names[0]: value}
    if not isinstance(value, tuple | list) or len(value) != len(names):
        several = isinstance(value, tuple | list)
        found = f"a {type(value).__name__} of {len(value)}" if several else shown(value)  # type: ignore[arg-type]
        raise error(
            f"{what}: expected a dict with {', '.join(names)}, or a tuple of {len(names)} in this "
            f"order; found {found}"
        )
    return dict(zip(names, value, strict=True))


def called(what: str, name: str, names: Collection[str]) -> str:
    """How messages speak of one of several: x["image"]; of the only one: x."""
    return what if len(names) == 1 else f'{what}["{name}"]'


def bare(named: dict[str, Any]) -> Any:
    """How what has names goes out to users: where there is one, without its name."""
    return next(iter(named.values())) if len(named) == 1 else named


# --- by annotation --------------------------------------------------------------------------------


def plain(hint: Any, what: str, value: object, error: Error = DataError) -> Any:
    """The value as the annotation `hint` says, of Python's own types; `error` where it does not."""
    return _fit(hint, what, value, error)


def accept(hint: Any, value: object) -> Any:
    """As `plain`, but None for a value that does not fit."""
    found = _plain(hint, value)
    return None if found is _UNFIT else found


def _is_listed(origin: object) -> bool:
    return origin in (tuple, list, collections.abc.Sequence, collections.abc.Iterable)


def _plain(hint: Any, value: object) -> Any:
    """The value, or _UNFIT."""
    if (convert := _SIMPLE.get(hint)) is not None:
        return convert(value)
    origin, options = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return next((f for o in options if (f := _plain(o, value)) is not _UNFIT), _UNFIT)
    if origin is Literal:
        return next((o for o in options if isinstance(value, str) and value == o), _UNFIT)
    if _is_listed(origin):
        return _listed(origin, options, value)
    if origin is collections.abc.Callable:
        return value if callable(value) else _UNFIT
    if origin is os.PathLike:
        return value if _path(value) is not _UNFIT else _UNFIT
    if not isinstance(origin, type) or getattr(origin, "_is_protocol", False):
        return value
    return value if isinstance(value, origin) else _UNFIT


def _listed(origin: object, options: tuple[Any, ...], value: object) -> Any:
    """Items of a list, tuple, range or array of one axis, as a tuple."""
    if _is_masked_array(value) and _hides(value):
        return _UNFIT
    if isinstance(value, np.ndarray):
        value = list(value) if value.ndim == 1 else None
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
        return _UNFIT
    fixed = origin is tuple and options[-1:] != (...,)
    if len(value) > MOST_ITEMS or (fixed and len(value) != len(options)):
        return _UNFIT
    hints = options if fixed else itertools.repeat(options[0])
    made = tuple(_plain(hint, item) for hint, item in zip(hints, value))  # noqa: B905
    return _UNFIT if any(item is _UNFIT for item in made) else made


_SIMPLE: dict[Any, Callable[[object], Any]] = {
    int: _integer, float: _number, bool: _flag, str: _word,
    type(None): lambda value: None if value is None else _UNFIT,
    object: lambda value: value, Any: lambda value: value,
}  # fmt: skip


def settle(record: Any, error: Error = DataError, *, where: str = "") -> None:
    """Puts the fields of a frozen dataclass in plain form, or raises `error` that names one."""
    kind: Any = type(record)
    hints = hints_of(kind)
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        found = plain(hints[field.name], f"{where}{field.name}", value, error)
        if found is not value:
            object.__setattr__(record, field.name, found)


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The annotations of a class or function, evaluated once."""
    return typing.get_type_hints(kind)


def checked(function: F, error: Error, strange: Error = GraphError, leave: Sequence[Any] = ()) -> F:
    """`function`, whose arguments are in plain form when it is called.

    `error` for a number or word that does not fit, `strange` where an object of ours is expected;
    arguments of the annotations in `leave` are left to the function. TypeError, as everywhere in
    Python, for a call with other arguments than those of the function.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(*args, **named)
        except TypeError as other:  # it does not say of which function
            raise TypeError(f"{function.__name__}: {other}; {_usage(function)}") from None
        hints = hints_of(function)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            hint = hints[name]
            if hint in leave:
                continue
            ours = any(isinstance(o, type) and o not in _SIMPLE for o in _options(hint))
            bound.arguments[name] = _fit(
                hint, f"{function.__name__}: {name}", value, strange if ours else error
            )
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def _usage(function: Any) -> str:
    """How a function is called, without types."""
    signature = inspect.signature(function)
    names = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return f"it is {function.__name__}{inspect.Signature(names)}"


def _options(hint: Any) -> Sequence[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)
