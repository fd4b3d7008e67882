"""Pickle files read as data: dicts, lists, text, integers and arrays of bytes, nothing else.

Python's unpickler calls what a file names. This reader calls nothing: the standard library's
`pickletools.genops` splits the file into its instructions, and the few that the python version of
CIFAR needs (pickle protocol 2, as Python 2 or 3 writes it) build plain values. A global may only be
one of `_GLOBALS`; it and its call stay records, of which those that describe a u8 array are
turned into one here. (An allow-list on `pickle.Unpickler.find_class` would still hash whatever a
file makes a dict key, and let its memo indices choose how much memory is taken.)
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..errors import DataError, StorageError
from ..ir import Array

_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_NDARRAY, _DTYPE, _ENCODE = "numpy.ndarray", "numpy.dtype", "_codecs.encode"
_GLOBALS = (*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE)
_KEY_LIMIT = 256
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, eq=False)
class _Global:
    name: str


@dataclass(eq=False)
class _Call:
    """A call that the file asks for, with the state that it gives the result; never made."""

    function: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle file, its keys as text; values that describe u8 arrays are arrays.

    `where` names the file in messages. StorageError for a damaged file; DataError, before anything
    is made of it, for instructions and globals beyond those of arrays, lists, dicts, strings and
    integers (the global is named), and for content that is no dict.
    """
    reader = _Reader(where)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.take(opcode.name, argument)
    except (ValueError, OverflowError, MemoryError) as error:
        raise StorageError(f"{where} is damaged or no pickle file: {error}") from None
    except (IndexError, KeyError):
        raise StorageError(f"{where} is damaged: its instructions do not fit together") from None
    if len(reader.stack) != 1 or reader.marks or not isinstance(reader.stack[0], dict):
        raise DataError(f"{where} does not hold one dict, as files of CIFAR do")
    return {key: _plain(value, f'{where}, "{key}"') for key, value in reader.stack[0].items()}


class _Reader:
    """The stack machine of pickle, for the instructions that are admitted.

    IndexError and KeyError when the instructions do not fit together.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}

    def take(self, name: str, argument: Any) -> None:
        """Does one instruction, by its name in `pickletools`; DataError for others."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("SHORT_BINSTRING", "BINSTRING"):  # Python 2's str: bytes
            stack.append(argument.encode("latin-1"))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _TUPLES:
            self._push_tuple(_TUPLES[name])
        else:
            self._take_rare(name, argument)

    def _take_rare(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO":
                self._require_protocol(argument)
            case "STOP":
                pass
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "MARK":
                self.marks.append(self.stack)
                self.stack = []
            case "TUPLE":
                items = self._pop_mark()
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                self._append(self._pop_mark() if name == "APPENDS" else [self.stack.pop()])
            case "SETITEM" | "SETITEMS":
                self._set_items(self._pop_mark() if name == "SETITEMS" else self._pop(2))
            case "GLOBAL":
                self._push_global(argument)
            case "REDUCE":
                self._push_call(*self._pop(2))
            case "BUILD":
                self._set_state(self.stack.pop())
            case _:
                self._refuse(f"the pickle instruction {name}")

    def _require_protocol(self, protocol: int) -> None:
        if protocol != 2:
            self._refuse(f"pickle protocol {protocol}")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _push_tuple(self, count: int) -> None:
        items = self._pop(count)
        self.stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            self._refuse("items appended to what is no list")
        self.stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict) or len(items) % 2:
            self._refuse("keys given to what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes) or len(key) > _KEY_LIMIT:
                self._refuse("a dict key that is no short text")
            self.stack[-1][_text(key)] = value

    def _push_global(self, argument: str) -> None:
        name = argument.replace(" ", ".", 1)
        if name not in _GLOBALS:
            self._refuse(f'the global "{name}"')
        self.stack.append(_Global(name))

    def _push_call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            self._refuse("a call of what is no function")
        self.stack.append(_Call(function.name, arguments))

    def _set_state(self, state: Any) -> None:
        if not isinstance(self.stack[-1], _Call):
            self._refuse("state given to what is no array")
        self.stack[-1].state = state

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(
            f"{self.where} holds {what}, which the files of CIFAR do not; it was not run. "
            "Only arrays, lists, dicts, text and integers are read from pickle files"
        )


def _plain(value: Any, where: str) -> Any:
    """An array where `value` is the record of one."""
    return _array(value, where) if isinstance(value, _Call) else value


def _array(call: _Call, where: str) -> Array:
    """The array that NumPy would make of `_reconstruct(...)` and its state.

    The state is (version, shape, dtype, in Fortran's order, bytes), see `ndarray.__reduce__`.
    """
    match call.state:
        case (int(), tuple() as shape, _Call() as dtype, bool() as fortran, raw):
            pass
        case _:
            raise DataError(f"{where} is no NumPy array")
    if call.function not in _RECONSTRUCT or dtype.function != _DTYPE or not _is_shape(shape):
        raise DataError(f"{where} is no NumPy array")
    kind = _text(dtype.arguments[0]) if dtype.arguments else ""
    if kind != "u1":
        raise DataError(
            f'{where} is an array of dtype "{kind[:40]}"; expected unsigned bytes, "u1"'
        )
    content = _bytes(raw, where)
    if len(content) != math.prod(shape):
        raise StorageError(
            f"{where}: an array of shape {shape} has {math.prod(shape)} bytes, here are "
            f"{len(content)}"
        )
    array = np.frombuffer(content, np.uint8)
    return array.reshape(shape, order="F" if fortran else "C")


def _is_shape(shape: tuple[Any, ...]) -> bool:
    return len(shape) <= 4 and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)


def _bytes(value: Any, where: str) -> bytes:
    """Bytes, or what Python 3 writes for them in protocol 2: `_codecs.encode(text, "latin1")`."""
    if isinstance(value, bytes):
        return value
    match value:
        case _Call(function=name, arguments=(str() as text, "latin1")) if name == _ENCODE:
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError as error:
                raise StorageError(f"{where} is damaged: {error}") from None
    raise DataError(f"{where} has no bytes as its content")


def _text(value: Any) -> str:
    """Text, also where Python 2 wrote it as bytes; empty for anything else."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
