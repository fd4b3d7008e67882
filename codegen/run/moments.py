"""Mean and variance of every channel of an array, in this process, in f64 and in one fixed order.

    s[c] = X[0,c],  D[c] = sum over m of (X[m,c] - s[c]),  E[c] = sum over m of (X[m,c] - s[c])^2
    mean = s + D / M,  variance = (E - D^2 / M) / M

as batch statistics have them (`kernels/reduction/channel_sums.py`), but unrounded: no tensor of a
graph is f64. Rows m follow in order, lanes run over the channels, so the bits are those of NumPy's
sums in that order, on every target.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from addergraph.ir import Array

from .. import llvm
from ..emit.builder import F32, F64, I32, I64, POINTER, Emitter, Index, constant, vector
from ..emit.module import ModuleEmitter
from ..targets.lookup import host
from ..targets.target import Target

GROUP = 4  # vectors that pass over the rows together
_ELEMENTS = {"float32": F32, "float64": F64, "int32": I32}
_CALL = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)


def channel_moments(values: Array) -> tuple[Array, Array]:
    """Mean and biased variance, f64[C], of f32, f64 or i32 [...,C] that has rows."""
    channels = values.shape[-1]
    rows = np.ascontiguousarray(values).reshape(-1, channels)
    mean, variance = np.empty(channels), np.empty(channels)
    run, _ = _loaded(str(values.dtype))
    run(rows.ctypes.data, len(rows), channels, mean.ctypes.data, variance.ctypes.data)
    return mean, variance


@functools.cache
def _loaded(dtype: str) -> tuple[Any, llvm.LoadedObject]:
    """The function for arrays of a dtype, and what it lives in."""
    target = host()
    loaded = llvm.LoadedObject(llvm.compile_object(module(dtype, target), target), target)
    return _CALL(loaded.address("moments")), loaded


def module(dtype: str, target: Target) -> str:
    """`moments(x, rows, channels, mean, variance)`."""
    made = ModuleEmitter("moments", target)
    function = made.function("moments", [POINTER, I64, I64, POINTER, POINTER], exported=True)
    x, rows, channels, mean, variance = function.args
    e = Emitter(function, target, made.wait)
    lanes = max(1, target.lanes // 2)
    first: Index = 0
    for width in (GROUP * lanes, lanes, 1):  # some vectors together, one, and channels alone
        last = e.mul(e.div(channels, width), width)
        with e.loop(first, last, width) as column:
            columns = _Columns(e, dtype, (x, rows, channels), column, width, lanes)
            columns.emit(mean, variance)
        first = last
    e.b.ret_void()
    return str(made.module)


class _Columns:
    """Some channels of all rows, in vectors."""

    def __init__(
        self, e: Emitter, dtype: str, of: tuple[Any, Any, Any], first: Index, width: int, lanes: int
    ) -> None:
        self.e, (self.x, self.rows, self.channels) = e, of
        self.element = _ELEMENTS[dtype]
        self.width = min(width, lanes)
        self.columns = [e.add(first, start) for start in range(0, width, self.width)]

    def emit(self, mean: Any, variance: Any) -> None:
        e, count = self.e, len(self.columns)
        first = [self._row(0, column) for column in self.columns]

        def add(row: Index, totals: list[Any]) -> list[Any]:
            away = [
                e.b.fsub(self._row(row, column), f)
                for column, f in zip(self.columns, first, strict=True)
            ]
            terms = [*away, *(e.b.fmul(d, d) for d in away)]
            return [e.b.fadd(total, term) for total, term in zip(totals, terms, strict=True)]

        zero = constant(vector(F64, self.width), 0.0)
        totals = e.carry(0, self.rows, 1, [zero] * (2 * count), add)
        rows = e.splat(e.b.sitofp(self.rows, F64), self.width)
        for k, column in enumerate(self.columns):
            d, squares = totals[k], totals[k + count]
            rest = e.b.fsub(squares, e.b.fdiv(e.b.fmul(d, d), rows))
            there = e.mul(column, 8)
            e.b.store(e.b.fadd(first[k], e.b.fdiv(d, rows)), e.at(mean, there), align=8)
            e.b.store(e.b.fdiv(rest, rows), e.at(variance, there), align=8)

    def _row(self, row: Index, column: Index) -> Any:
        """These channels of a row, as f64."""
        e, size = self.e, 8 if self.element == F64 else 4
        at = e.at(self.x, e.mul(e.add(e.mul(row, self.channels), column), size))
        found = e.b.load(at, typ=vector(self.element, self.width), align=size)
        if self.element == I32:
            return e.b.sitofp(found, vector(F64, self.width))
        return found if self.element == F64 else e.widen(found)
