"""Whether a CPU has what the code needs, asked by code that every CPU of its kind runs.

x86-64 answers by CPUID and XGETBV. LLVM has no intrinsic for the two, and llvmlite reads assembly
for the host's machine only; so the functions that use them are bytes, LLVM's "prologue" of a
function. AArch64 has registers that say it, which Linux lets programs read. The functions that ask
are compiled for the baseline.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ..emit.builder import I32, Emitter
from ..emit.module import ModuleEmitter
from ..targets.target import Target
from ..targets.x86 import OSXSAVE

_I64 = ir.IntType(64)
# The leaf in %edi. EBX and ECX of it as halves of %rax, the low one ECX; 0 for what the CPU lacks.
CPUID = bytes.fromhex(
    "4989d8"  # movq %rbx, %r8: the caller's
    "89f8"  # movl %edi, %eax
    "2500000080"  # andl $0x80000000, %eax: the leaf that has the number of the last one
    "0fa2"  # cpuid
    "39f8"  # cmpl %edi, %eax
    "7213"  # jb to the second xorl
    "89f8"  # movl %edi, %eax
    "31c9"  # xorl %ecx, %ecx
    "0fa2"  # cpuid
    "89c8"  # movl %ecx, %eax
    "48c1e320"  # shlq $32, %rbx
    "4809d8"  # orq %rbx, %rax
    "4c89c3"  # movq %r8, %rbx
    "c3"  # retq
    "31c0"  # xorl %eax, %eax
    "4c89c3"  # movq %r8, %rbx
    "c3"  # retq
)
# XCR0, its low half, in %rax.
XGETBV = bytes.fromhex(
    "31c9"  # xorl %ecx, %ecx
    "0f01d0"  # xgetbv
    "c3"  # retq
)


def runs_everywhere(made: ModuleEmitter, function: Any) -> None:
    """Compiles a function for the baseline of its machine."""
    if made.target.baseline:
        set.add(function.attributes, f'"target-cpu"="{made.target.baseline}"')
        set.add(function.attributes, '"target-features"=""')


def emit_supported(made: ModuleEmitter, name: str) -> Any:
    """The exported function `int32_t name(void)`: 1 where this CPU runs the code, 0 where not.

    1 always where the code needs nothing beyond the baseline, or the CPU cannot be asked. Else
    gives the internal function that asks: a shared library calls no exported one directly.
    """
    asks = emit_asking(made, made.target) if made.target.needs else None
    function = made.function(name, [], exported=True, result=I32)
    function.return_value.add_attribute("signext")
    runs_everywhere(made, function)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(b.call(asks, []) if asks else ir.Constant(I32, 1))
    return asks


def emit_asking(made: ModuleEmitter, target: Target) -> Any:
    """An internal function: 1 where this CPU has all that `target` needs, else 0."""
    function = made.function(made.unique("asks_cpu"), [], result=I32)
    runs_everywhere(made, function)
    e = Emitter(function, made.target, made.wait)
    (_ask_cpuid if target.triple.startswith("x86_64-") else _ask_register)(made, e, target)
    e.b.ret(ir.Constant(I32, 1))
    return function


def _ask_cpuid(made: ModuleEmitter, e: Emitter, target: Target) -> None:
    """Returns 0 where a bit of CPUID is missing, or registers that the system does not keep."""
    cpuid, xgetbv = _raw(made, "cpuid", CPUID), _raw(made, "xgetbv", XGETBV)
    leaves: dict[int, int] = {}
    for _, leaf, bit in target.needs:
        leaves[leaf] = leaves.get(leaf, 0) | 1 << bit
    _require(e, cpuid, OSXSAVE[0], 1 << OSXSAVE[1])
    _require(e, xgetbv, 0, target.states)
    for leaf, bits in leaves.items():
        _require(e, cpuid, leaf, bits)


def _ask_register(made: ModuleEmitter, e: Emitter, target: Target) -> None:
    """Returns 0 where a field of ID_AA64ISAR0_EL1, of four bits, is 0."""
    read = e.intrinsic("llvm.read_volatile_register.i64", _I64, [ir.MetaDataType()])
    register = e.b.call(read, [made.module.add_metadata(["ID_AA64ISAR0_EL1"])])
    for _, _, bit in target.needs:
        field = e.b.and_(register, ir.Constant(_I64, 15 << bit))
        with e.b.if_then(e.b.icmp_unsigned("==", field, ir.Constant(_I64, 0))):
            e.b.ret(ir.Constant(I32, 0))


def _raw(made: ModuleEmitter, name: str, code: bytes) -> Any:
    """A function (i32) -> i64 of these bytes.

    What LLVM sees of it, behind them, is never reached: a result that it can know nothing of.
    """
    function = made.function(made.unique(name), [I32], result=_I64)
    if made.target.format == "coff":
        function.calling_convention = "x86_64_sysvcc"  # as the bytes are; Windows has another
        function.attributes.discard("uwtable")  # they move no stack pointer
    function.attributes.add("optnone")
    text = "".join(f"\\{byte:02x}" for byte in code)
    set.add(function.attributes, f'prologue [{len(code)} x i8] c"{text}"')  # the last, as sorted
    runs_everywhere(made, function)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    opaque = ir.FunctionType(_I64, [I32])
    b.ret(b.asm(opaque, "", "=r,r,~{memory}", list(function.args), True))
    return function


def _require(e: Emitter, ask: Any, leaf: int, bits: int) -> None:
    """Returns 0 unless all `bits` of the answer are set."""
    wanted = ir.Constant(_I64, bits)
    answer = e.b.call(ask, [ir.Constant(I32, leaf)], cconv=ask.calling_convention)
    with e.b.if_then(e.b.icmp_unsigned("!=", e.b.and_(answer, wanted), wanted)):
        e.b.ret(ir.Constant(I32, 0))
