"""The C entry points of an exported library, and its data, as LLVM IR.

    int32_t net_run(inputs..., outputs..., void *arena)
    int32_t net_run_part(inputs..., outputs..., void *arena, int32_t thread, int32_t threads)
    int32_t net_selftest(void *arena)
    int32_t net_supported(void)
    const char *net_metadata_json(void)

The code object holds these and the kernels. What they read stands in a second, data-only object:

    net_data_weights    the packed weights
    net_data_golden     checksum of the weights | golden inputs | golden outputs | unless these are
                        exact, what their elements may be off; each aligned
    net_data_metadata   JSON, ended by a NUL

Those symbols are hidden: a program links them, a shared library does not show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import ALIGNMENT, align
from addergraph.ir.types import f32, i32, u8

from ..emit.builder import I8, POINTER, Emitter, Index
from ..emit.hidden import hidden
from ..emit.lowered import Lowered
from ..emit.module import ModuleEmitter
from ..targets.target import Target
from .cpu import emit_supported, runs_everywhere
from .entry_parts import Entries, checksum, code, near, require, visibility, widened
from .interface import (
    BAD_THREAD,
    DAMAGED_WEIGHTS,
    OK,
    WRONG_BITS,
    WRONG_CPU,
    Argument,
    Interface,
)
from .levels import Level, emit_levels

CHECKSUM_BYTES = ALIGNMENT  # two 32-bit words, padded


def api_symbols(prefix: str) -> tuple[str, ...]:
    names = ("run", "run_part", "selftest", "metadata_json", "supported")
    return tuple(f"{prefix}_{name}" for name in names)


def data_symbols(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_data_{name}" for name in ("weights", "golden", "metadata"))


def emit_library(
    forms: Sequence[Lowered], interface: Interface, *, exact: bool
) -> tuple[str, tuple[Level, ...]]:
    """The code object as IR text, and its program at each level that the target has.

    `forms`: the same graph for each level, the lowest first; most targets have one.
    `exact`: whether the golden outputs are the very bits that the code gives.
    """
    # A certificate follows no pointer: code without products calls nothing through one.
    made = ModuleEmitter(interface.prefix, forms[0].target, callbacks=interface.relaxes)
    names = [made.unique(name) for name in api_symbols(interface.prefix)]
    asks = emit_supported(made, names[4])
    body, levels = emit_levels(made, forms)
    last = levels[-1]
    entries = _Entries(made, interface, body, last.offset + last.facts.weights_bytes)
    entries.run(names[0])
    entries.run_part(names[1])
    entries.selftest(names[2], asks, exact)
    entries.metadata(names[3])
    return str(made.module), levels


def data_module(prefix: str, target: Target, weights: Array, golden: bytes, metadata: bytes) -> str:
    """The data object as IR text."""
    contents = (weights.tobytes() or bytes(1), golden, metadata + b"\0")
    return "".join(
        f'@{symbol} = {visibility(target)} constant [{len(data)} x i8] c"\\{data.hex(chr(92))}", '
        f"align {ALIGNMENT}\n"
        for symbol, data in zip(data_symbols(prefix), contents, strict=True)
    )


def golden_block(
    weights: Array, inputs: Sequence[Array], outputs: Sequence[Array], allowed: Sequence[Array]
) -> bytes:
    """The bytes of `net_data_golden`; `allowed` are those of `tolerances`, none for exact bits."""
    parts = [checksum(weights), *(a.tobytes() for a in (*inputs, *outputs, *allowed))]
    return b"".join(part.ljust(align(len(part)), b"\0") for part in parts)


def golden_bytes(interface: Interface) -> int:
    """How many these are, where the bits are exact."""
    return CHECKSUM_BYTES + sum(align(a.type.nbytes) for a in interface.arguments)


def tolerances(outputs: Sequence[Array], allowed: Sequence[Array]) -> tuple[Array, ...]:
    """What the self-test allows, for each output in as many bytes: how far an f32 may be off,
    rounded up; of other types the bits that have to be right, none where `allowed` is inf."""
    return tuple(
        np.where(off == 0, 0, np.nextafter(off, np.inf, dtype=np.float32))
        if y.dtype == np.float32
        else np.repeat(np.where(off == 0, 255, 0).astype(np.uint8).reshape(-1), y.itemsize)
        for y, off in zip(outputs, allowed, strict=True)
    )


class _Entries(Entries):
    """Emits the entry points of one library around its `body`."""

    def __init__(
        self, made: ModuleEmitter, interface: Interface, body: Any, weights_bytes: int
    ) -> None:
        super().__init__(made)
        self.interface, self.body = interface, body
        self.weights_bytes = weights_bytes
        self.weights, self.golden, self.described = map(
            self.external, data_symbols(interface.prefix)
        )

    def run(self, name: str) -> None:
        e, arguments = self.function(name, len(self.interface.arguments) + 1)
        *pointers, arena = arguments
        self.check_pointers(e, pointers, [arena])
        self._call(e, pointers, arena, e.index(0), e.index(1))
        e.b.ret(code(OK))

    def run_part(self, name: str) -> None:
        e, arguments = self.function(name, len(self.interface.arguments) + 1, integers=2)
        *pointers, arena, thread, threads = arguments
        self.check_pointers(e, pointers, [arena])
        require(e, e.b.icmp_signed(">=", thread, code(0)), BAD_THREAD)
        require(e, e.b.icmp_signed("<", thread, threads), BAD_THREAD)
        if self.made.target.atomics:
            self._call(e, pointers, arena, widened(e, thread), widened(e, threads))
        else:
            require(e, e.b.icmp_signed("==", threads, code(1)), BAD_THREAD)
            self._call(e, pointers, arena, e.index(0), e.index(1))
        e.b.ret(code(OK))

    def selftest(self, name: str, asks: Any, exact: bool) -> None:
        """The CPU; the weights against their checksum; a run on the golden inputs against its
        outputs."""
        e, (arena,) = self.function(name, 1)
        runs_everywhere(self.made, e.function)
        self.check_pointers(e, [], [arena])
        if asks is not None:
            require(e, e.b.icmp_signed("!=", e.b.call(asks, []), code(0)), WRONG_CPU)
        for word, found in enumerate(self.sums(e, self.weights, self.weights_bytes)):
            stored = e.load(e.at(self.golden, 4 * word), i32)
            require(e, e.b.icmp_signed("==", found, stored), DAMAGED_WEIGHTS)
        offset, outputs = CHECKSUM_BYTES, self.interface.run_bytes
        pointers = []
        for argument in self.interface.inputs:
            pointers.append(e.at(self.golden, offset))
            offset += align(argument.type.nbytes)
        for argument in self.interface.outputs:
            pointers.append(e.at(arena, outputs))
            outputs += align(argument.type.nbytes)
        self._call(e, pointers, arena, e.index(0), e.index(1))
        given = pointers[len(self.interface.inputs) :]
        for argument, found in zip(self.interface.outputs, given, strict=True):
            expected = e.at(self.golden, offset)
            allowed = None if exact else e.at(self.golden, offset + self.interface.golden_bytes)
            require(e, self._right(e, argument, found, expected, allowed), WRONG_BITS)
            offset += align(argument.type.nbytes)
        e.b.ret(code(OK))

    def metadata(self, name: str) -> None:
        function = self.made.function(name, [], exported=True, result=POINTER)
        ir.IRBuilder(function.append_basic_block("entry")).ret(self.described)

    def _call(
        self, e: Emitter, pointers: Sequence[Any], arena: Any, thread: Any, threads: Any
    ) -> None:
        # Not known to LLVM, so that kernels are the very instructions that the census counts.
        weights = hidden(e.b, self.weights)
        self.call(e, self.body, pointers, weights, arena, thread, threads)

    def _right(
        self, e: Emitter, argument: Argument, found: Any, expected: Any, allowed: Any
    ) -> Any:
        """An i1: whether all elements of an output are what they have to be; to the bit where
        nothing is `allowed`."""
        off = allowed is not None and argument.type.dtype == f32
        one, wrong = (4, near) if off else (1, _differing)

        def step(offset: Index, seen: list[Any]) -> list[Any]:
            blocks = (b if b is None else e.at(b, offset) for b in (found, expected, allowed))
            return [e.b.or_(seen[0], wrong(e, *blocks))]

        zero = ir.Constant(I8, 0)
        (difference,) = e.carry(0, argument.type.nbytes, one, [zero], step)
        return e.b.icmp_signed("==", difference, zero)


def _differing(e: Emitter, found: Any, expected: Any, mask: Any) -> Any:
    """The bits of a byte that differ, as far as they count."""
    bits = e.b.xor(e.load(found, u8), e.load(expected, u8))
    return bits if mask is None else e.b.and_(bits, e.load(mask, u8))
