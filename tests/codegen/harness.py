"""Runs one kernel where nothing can go wrong unseen.

Every buffer lies between pages that may not be touched, once against the page behind it and once
against the page before it. Operands are read-only, results and the parts of halos that the op may
not read start as garbage, the workspace has its exact size. Both placements must give the same
bits, and halos of results must be untouched. A stray access ends the process with SIGSEGV; pytest's
faulthandler then shows the test."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from addergraph.codegen.emit.module import standalone
from addergraph.codegen.kernels import Call, Family, Operand, kernel_for
from addergraph.codegen.llvm import LoadedObject, compile_object
from addergraph.codegen.targets.lookup import TARGETS, runnable, target_named
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.ir import Array, Halo, Op
from addergraph.ir.plan import ALIGNMENT, Layout, align
from addergraph.ir.types import DTYPES, TensorType
from tests import quick

HERE: tuple[str, ...] = tuple(t.name for t in (*X86_LEVELS, TARGETS["toy"]) if runnable(t))
# LLVM's optimizer sees the kernels of the best level of this machine; those of the others, which
# differ in the length of their vectors, it only translates, but for `make fuzz`.
TRANSLATED = frozenset[str]() if os.environ.get("AG_FUZZ") else {*HERE[:-2], *HERE[-1:]}
# Each with 1 to 3 threads, taking turns.
RUNS: tuple[tuple[str, int], ...] = tuple((t, 1 + i % 3) for i, t in enumerate(HERE))
GARBAGE = 0xA5  # as f32 a small negative number, as bool neither 0 nor 1
BARRIER_BYTES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE = mmap.PAGESIZE
_PROT_NONE, _PROT_READ = 0, 1
_SYMBOL_TABLE = 2  # a section type of ELF


def run_call(
    op: Op,
    arrays: Sequence[Array],
    *,
    target: str | Target = "host",
    threads: int = 1,
    halos: Mapping[int, Halo] | None = None,
    constant: Iterable[int] = (),
    in_place: int | None = None,
    family: Family = kernel_for,
) -> list[Array]:
    """The results of the native kernel of `op` on `arrays`.

    `halos` gives buffers (operands, then results, counted through) halos beyond what the op itself
    reads, and a gap after each pixel, as `plan.layout_with_halo` may. Operands in `constant` are
    packed as the kernel wants them. Operand number `in_place` shares its buffer with result 0.
    `family` makes the kernel where it is not the one chosen.
    """
    call = make_call(op, arrays, target=target, halos=halos, constant=constant)
    placements = [_run(call, family, arrays, threads, right, in_place) for right in (True, False)]
    for first, second in zip(*placements, strict=True):
        assert first.tobytes() == second.tobytes(), "the bits depend on where the buffers stand"
    return placements[0]


def make_call(
    op: Op,
    arrays: Sequence[Array],
    *,
    target: str | Target = "host",
    halos: Mapping[int, Halo] | None = None,
    constant: Iterable[int] = (),
) -> Call:
    """The call of `op` on operands like `arrays`."""
    types = [TensorType(_dtype(a), a.shape) for a in arrays]
    results = op.infer(*types)
    wanted = [*op.halo(types), *(Halo() for _ in results)]
    for number, halo in (halos or {}).items():
        wanted[number] = wanted[number].union(halo)
    gapped = [number in (halos or {}) for number in range(len(wanted))]
    operands = [
        Operand(t, Layout(t.sizes, h, ALIGNMENT // t.dtype.itemsize if gap and h != Halo() else 0))
        for t, h, gap in zip((*types, *results), wanted, gapped, strict=True)
    ]
    count = len(arrays)
    made = target if isinstance(target, Target) else target_named(target)
    return Call(op, tuple(operands[:count]), tuple(operands[count:]), made, frozenset(constant))


def require_equal(
    op: Op,
    arrays: Sequence[Array],
    target: str = "host",
    threads: int = 1,
    *,
    halos: Mapping[int, Halo] | None = None,
    in_place: int | None = None,
) -> None:
    """Fails unless the native results have the bits of the reference."""
    found = run_call(op, arrays, target=target, threads=threads, halos=halos, in_place=in_place)
    for one, other in zip(found, op.reference(*arrays), strict=True):
        assert same_bits(one, other), f"{op} on {[a.shape for a in arrays]}: {one} is not {other}"


def same_bits(found: Array, expected: Array) -> bool:
    """Whether two arrays agree in every bit; any NaN is as good as another."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype != np.float32:
        return bool((found == expected).all())
    nan = np.isnan(found) & np.isnan(expected)
    return bool((nan | (found.view("i4") == expected.view("i4"))).all())


def ulps(found: Array, expected: Array) -> float:
    """The largest distance in f32 steps; infinite where only one is NaN."""
    if (np.isnan(found) != np.isnan(expected)).any():
        return float("inf")
    number = ~np.isnan(found)
    steps = [
        np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
        for bits in (a[number].view("i4").astype("i8") for a in (found, expected))
    ]
    return float(np.abs(steps[0] - steps[1]).max(initial=0))


# -- memory --------------------------------------------------------------------------------------


@contextmanager
def guarded(nbytes: int, right: bool, fill: int = GARBAGE) -> Iterator[_Buffer]:
    """`nbytes` between untouchable pages, against the one behind (`right`) or before them."""
    pages = -(-nbytes // _PAGE)
    area = mmap.mmap(-1, (pages + 2) * _PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    _protect(base, _PAGE, _PROT_NONE)
    _protect(base + (pages + 1) * _PAGE, _PAGE, _PROT_NONE)
    address = base + _PAGE + (pages * _PAGE - nbytes if right else 0)
    memory = (ctypes.c_uint8 * nbytes).from_address(address)
    buffer = _Buffer(address, np.ctypeslib.as_array(memory), base + _PAGE, pages * _PAGE)
    buffer.bytes[:] = fill
    yield buffer  # the mapping lives as long as someone refers to it


@dataclass(frozen=True)
class _Buffer:
    address: int
    bytes: Array
    first_page: int
    span: int

    def freeze(self) -> None:
        """Writing to it is an error from here on."""
        if self.span:
            _protect(self.first_page, self.span, _PROT_READ)


def _protect(address: int, nbytes: int, mode: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), mode):
        raise OSError(ctypes.get_errno(), "mprotect")


def _elements(buffer: _Buffer, operand: Operand) -> Array:
    """The buffer as an array with the halo around the tensor."""
    return buffer.bytes.view(operand.type.dtype.numpy).reshape(operand.layout.padded)


def _inside(padded: Array, halo: Halo, gap: int = 0) -> Array:
    """The part of a padded array that `halo` surrounds, without the gap after each pixel."""
    if halo == Halo() and not gap:
        return padded
    _, h, w, c = padded.shape
    return padded[:, halo.top : h - halo.bottom, halo.left : w - halo.right, : c - gap]


def _place(buffer: _Buffer, operand: Operand, read: Halo, value: Array) -> None:
    """Writes a tensor, and zeros into that part of its halo that the op reads."""
    padded, halo = _elements(buffer, operand), operand.layout.halo
    beyond = Halo(
        halo.top - read.top, halo.bottom - read.bottom,
        halo.left - read.left, halo.right - read.right,
    )  # fmt: skip
    zeroed = _inside(padded, beyond, operand.layout.gap)
    zeroed[...] = 0
    _inside(zeroed, read)[...] = value


# -- the call ------------------------------------------------------------------------------------


@functools.cache
def _compiled(call: Call, family: Family) -> tuple[LoadedObject, int]:
    make = quick.compile_object if call.target.name in TRANSLATED else compile_object
    code = make(standalone(call, family(call)), call.target)
    assert not undefined_symbols(code), "emitted code calls a library"
    loaded = LoadedObject(code, call.target)
    return loaded, loaded.address("kernel")


def undefined_symbols(code: bytes) -> set[str]:
    """What a 64-bit little-endian ELF object expects others to define."""
    table, size, count = (
        int.from_bytes(code[at : at + width], "little") for at, width in ((40, 8), (58, 2), (60, 2))
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    missing = set()
    for _, kind, _, _, offset, nbytes, link, _, _, entry in headers:
        if kind != _SYMBOL_TABLE:
            continue
        names = headers[link][4]
        for at in range(offset + entry, offset + nbytes, entry):
            name, _, _, section = struct.unpack_from("<IBBH", code, at)
            if section == 0:
                missing.add(code[names + name :].split(b"\0", 1)[0].decode())
    return missing


def _run(
    call: Call,
    family: Family,
    arrays: Sequence[Array],
    threads: int,
    right: bool,
    in_place: int | None,
) -> list[Array]:
    made = family(call)
    halos = call.op.halo([o.type for o in call.inputs])
    with ExitStack() as stack:
        pointers = []
        for i, (operand, array) in enumerate(zip(call.inputs, arrays, strict=True)):
            if i in made.packs:
                buffer = stack.enter_context(guarded(made.packs[i].nbytes, right))
                made.packs[i].pack(np.ascontiguousarray(array), buffer.bytes)
                pointers.append(buffer.address)
            else:
                buffer = stack.enter_context(guarded(operand.layout.nbytes(operand.type), right))
                _place(buffer, operand, halos[i], array)
                pointers.append(buffer.address + _origin(operand))
            if i == in_place:
                shared = buffer
            else:
                buffer.freeze()
        results = [
            stack.enter_context(guarded(o.layout.nbytes(o.type), right)) for o in call.outputs
        ]
        if in_place is not None:
            assert made.in_place and call.inputs[in_place].layout == call.outputs[0].layout
            results[0] = shared
        pointers += [b.address + _origin(o) for b, o in zip(results, call.outputs, strict=True)]
        workspace = stack.enter_context(guarded(align(made.workspace), right))
        pointers.append(workspace.address)
        _execute(_compiled(call, family)[1], pointers, threads)
        return [_taken(b, o) for b, o in zip(results, call.outputs, strict=True)]


def _origin(operand: Operand) -> int:
    return operand.layout.origin * operand.type.dtype.itemsize


def _taken(buffer: _Buffer, operand: Operand) -> Array:
    """A copy of the tensor in a result buffer, whose halo must still be garbage."""
    padded = _elements(buffer, operand)
    inside = _inside(padded, operand.layout.halo, operand.layout.gap)
    tensor: Array = inside.copy()
    size = operand.type.dtype.itemsize
    raw = buffer.bytes.view(f"u{size}").reshape(padded.shape)
    garbage = int.from_bytes(bytes([GARBAGE]) * size, "little")
    _inside(raw, operand.layout.halo, operand.layout.gap)[...] = garbage
    assert (buffer.bytes == GARBAGE).all(), "the kernel wrote into the halo or a gap"
    if operand.type.dtype.name == "bool":
        numbers = np.frombuffer(tensor.tobytes(), np.uint8)
        assert (numbers <= 1).all(), "a bool is neither 0 nor 1"
    return tensor


def _execute(address: int, pointers: Sequence[int], threads: int) -> None:
    signature: Any = ctypes.CFUNCTYPE(
        None, *[ctypes.c_void_p] * (len(pointers) + 1), ctypes.c_int64, ctypes.c_int64
    )
    function = signature(address)
    barrier = np.zeros(BARRIER_BYTES, np.uint8)
    relax = ctypes.cast(_libc.sched_yield, ctypes.c_void_p).value
    barrier[8:16].view("u8")[0] = relax

    def work(thread: int) -> None:
        function(*pointers, barrier.ctypes.data, thread, threads)

    others = [threading.Thread(target=work, args=(t,)) for t in range(1, threads)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()


def _dtype(array: Array) -> Any:
    return next(d for d in DTYPES.values() if d.numpy == array.dtype)
