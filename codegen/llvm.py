"""The only file that calls llvmlite.binding: IR text to objects, objects into the process.

Memory: a module is compiled in a context of its own, with which its types and constants go. What
stays is 1.5 KB a compilation, whatever its size: llvmlite (0.50) makes a
`PassInstrumentationCallbacks` for each pass builder, never deletes it, and has no function that
would. A builder cannot serve twice: `run` leaves callbacks in it that point into its stack frame.
A loaded object leaves nothing.

Forks and the end of the process wait for a compilation that is under way on another thread: a
child would have LLVM's locks as they were in its middle, and never get them; at the end of the
process, LLVM's own data go while it uses them.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from addergraph.errors import CodegenError

from . import doubles, nans
from .targets.target import Target

SPEED, EMISSION = 2, 3  # how hard LLVM works: its passes, and instruction selection
_lock = threading.RLock()


@functools.cache
def _binding() -> Any:
    with _lock:
        import llvmlite.binding as llvm

        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm


@contextmanager
def no_compilation() -> Iterator[None]:
    """LLVM does nothing meanwhile; a fork is made in here."""
    with _lock, ExitStack() as held:
        if _binding.cache_info().currsize:
            # llvmlite's own, which every call of it holds: objects are freed on any thread.
            held.enter_context(_binding().ffi.lib._lock)
        yield


atexit.register(_lock.acquire)  # for good: whoever comes later waits until the process is gone


def version() -> str:
    """The LLVM version, part of every cache key."""
    return ".".join(map(str, _binding().llvm_version_info))


@functools.cache
def host_cpu() -> str:
    """This machine's CPU as LLVM names it."""
    return str(_binding().get_host_cpu_name())


@functools.cache
def host_features() -> frozenset[str]:
    return frozenset(k for k, v in _binding().get_host_cpu_features().items() if v)


def _machine(target: Target) -> Any:
    # Position-independent code in the small model: the same object serves MCJIT, archives and
    # shared libraries. WebAssembly's would add a base to every address, which is 0 in a module.
    return (
        _binding()
        .Target.from_triple(target.triple)
        .create_target_machine(
            cpu=target.cpu,
            features=target.features,
            opt=EMISSION,
            reloc="static" if target.in_engine else "pic",
            codemodel="small",
        )
    )


def _optimized(ir_text: str, target: Target) -> tuple[Any, Any]:
    llvm = _binding()
    module = _parsed(ir_text if target.doubles else doubles.defined(ir_text))
    machine = _machine(target)
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    options = llvm.PipelineTuningOptions(speed_level=SPEED)
    # Vectors are explicit; LLVM's own vectorizers could only change tiles that were chosen.
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getModulePassManager()
    passes.run(module, builder)
    _free(passes)
    return (_parsed(nans.told_apart(str(module))) if target.loses_nans else module), machine


def _parsed(ir_text: str) -> Any:
    llvm = _binding()
    try:
        module = llvm.parse_assembly(ir_text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise CodegenError(
            f"the emitted code is not valid (a bug in AdderGraph): {error}"
        ) from None
    return module


def _free(passes: Any) -> None:
    """Frees a pass manager, which its own `close` does not.

    Its class inherits ObjectRef's `_dispose`, which does nothing, before the one that frees
    (llvmlite 0.50): 48 KB stayed of an empty module, 160 KB of `small-adder`.
    """
    nothing = _binding().ffi.ObjectRef
    kinds = (vars(k) for k in type(passes).__mro__ if k is not nothing)
    next(k["_dispose"] for k in kinds if "_dispose" in k)(passes)
    passes.detach()  # an llvmlite that frees it must not do so again


def compile_object(ir_text: str, target: Target) -> bytes:
    """A relocatable object. Raises CodegenError when the IR is not valid."""
    with _lock:
        return _object(*_optimized(ir_text, target))


def compile_assembly(ir_text: str, target: Target) -> str:
    """The same code as assembly text, in the syntax that `census` reads."""
    with _lock:
        return _assembly(*_optimized(ir_text, target))


def compile_both(ir_text: str, target: Target) -> tuple[bytes, str]:
    """`compile_object` and `compile_assembly` of one module, optimized once."""
    with _lock:
        return _both(*_optimized(ir_text, target))


# Modules die inside these functions, while the lock is held.


def _object(module: Any, machine: Any) -> bytes:
    return bytes(machine.emit_object(module))


def _assembly(module: Any, machine: Any) -> str:
    return str(machine.emit_assembly(module))


def _both(module: Any, machine: Any) -> tuple[bytes, str]:
    same = module.clone()  # emission changes a module
    return _object(module, machine), _assembly(same, machine)


class LoadedObject:
    """An object file mapped into this process; alive as long as this Python object."""

    def __init__(self, data: bytes, target: Target) -> None:
        llvm = _binding()
        with _lock:
            # In the global context: the engine disposes of the module after llvmlite has dropped
            # what keeps a context of its own alive.
            module = llvm.parse_assembly("")
            module.triple = target.triple
            self._engine = llvm.create_mcjit_compiler(module, _machine(target))
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
            self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        found = int(self._engine.get_function_address(symbol))
        if not found:
            raise CodegenError(f'the object has no symbol "{symbol}"')
        return found
