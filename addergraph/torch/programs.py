"""The compiled programs behind the PyTorch layer: `adder2d` and its two gradients, of fixed shapes.

A filter is an input here, as it changes with each training step. Nor is it known that inputs come
from a relu: a forward call looks at its own, and has a program of the min form, a third faster,
where no element is negative. The two forms differ in rounding (docs/design.md, "Special values").
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import compiler, ops
from ..errors import CodegenError, RangeWarning
from ..ir import Array
from ..ir.attributes import Pair
from ..ir.trace import Tensor, apply, trace
from ..ir.types import Shape, TensorType, f32
from ..ops.contraction.adder2d import Adder2dGradFilter, Adder2dGradInput
from ..settings import MOST_THREADS

FORWARD, BY_INPUT, BY_FILTER = "forward", "grad_input", "grad_filter"
_MIN_FORM = "forward_nonnegative"
MOST_PROGRAMS = 128  # the ones used last; each keeps its code and its arena
_FIRST = 1024  # elements that are looked at before all of them


@dataclass(frozen=True)
class Window:
    """The attributes of a layer: rows first, padding on both sides of an axis."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def output_size(self, size: Sequence[Any], kernel: Sequence[Any]) -> tuple[Any, Any]:
        """Rows and columns of the result; integers, or symbols of a compiler of PyTorch's."""
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                size, kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns

    @property
    def attributes(self) -> dict[str, Any]:
        """As ops of graphs take them."""
        (rows, columns), groups = self.padding, self.groups
        sides = (rows, rows, columns, columns)
        return {
            "stride": self.stride, "padding": sides, "dilation": self.dilation, "groups": groups
        }  # fmt: skip


def run(kind: str, window: Window, inputs: Sequence[Array], output: Array, threads: int) -> None:
    """One call into `output`, f32 and contiguous as the inputs are: NHWC, filters HWIO.

    forward      x, f, and a bias where there is one
    grad_input   g, x, f
    grad_filter  g, x, f
    """
    threads = min(threads, MOST_THREADS)
    if kind == FORWARD and _is_nonnegative(inputs[0]):
        kind = _MIN_FORM
    made = program(kind, window, _shapes(kind, inputs, threads), threads)
    if made.run_into(inputs, (output,))[0] is not output:  # the caller would keep an empty tensor
        found = [a.shape for a in inputs]
        raise CodegenError(f"{kind} of {found} does not give {output.dtype} {output.shape}")


def _is_nonnegative(x: Array) -> bool:
    """Whether no element is negative or NaN."""
    flat = x.reshape(-1)
    return bool(flat[:_FIRST].min() >= 0) and bool(flat.min() >= 0)


def _shapes(kind: str, inputs: Sequence[Array], threads: int) -> tuple[Shape, ...]:
    """What a program is compiled for. Where samples are independent, and there is one for each
    thread, the batch stays open: one program for all batches, whose arena has room for a few."""
    images = 1 if kind in (FORWARD, _MIN_FORM) else 2  # lead the inputs
    open_batch = kind != BY_FILTER and len(inputs[0]) >= threads
    return tuple(
        ("N", *a.shape[1:]) if open_batch and number < images else a.shape
        for number, a in enumerate(inputs)
    )


# No lock of our own, which a fork in the middle of a compilation would leave held in the child: two
# threads that miss at once both compile, and one program is kept.
@functools.lru_cache(MOST_PROGRAMS)
def program(kind: str, window: Window, shapes: tuple[Shape, ...], threads: int) -> Any:
    """The compiled program (`codegen.run.jit.Program`) of a kind for inputs of these shapes."""
    graph = trace(_FUNCTIONS[kind](window), *(TensorType(f32, shape) for shape in shapes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)  # of a layer that is alone nothing is news
        return compiler.compile(graph, threads=threads)


def _forward(window: Window) -> Callable[..., Tensor]:
    def adder2d(*operands: Tensor) -> Tensor:
        return ops.adder2d(*operands, **window.attributes)

    return adder2d


def _min_form(window: Window) -> Callable[..., Tensor]:
    def adder2d(x: Tensor, *others: Tensor) -> Tensor:
        return ops.adder2d(ops.relu(x), *others, **window.attributes)  # which proves it

    return adder2d


def _grad_input(window: Window) -> Callable[..., Tensor]:
    def adder2d_grad_input(g: Tensor, x: Tensor, f: Tensor) -> Tensor:
        return apply(Adder2dGradInput(**window.attributes), g, x, f)

    return adder2d_grad_input


def _grad_filter(window: Window) -> Callable[..., Tensor]:
    def adder2d_grad_filter(g: Tensor, x: Tensor, f: Tensor) -> Tensor:
        return apply(Adder2dGradFilter(**window.attributes), g, x, f)

    return adder2d_grad_filter


_FUNCTIONS = {
    FORWARD: _forward, _MIN_FORM: _min_form, BY_INPUT: _grad_input, BY_FILTER: _grad_filter
}  # fmt: skip
