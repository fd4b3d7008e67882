"""Targets by name, and the one of this machine.

LLVM ends the process on an unknown CPU name and ignores unknown feature strings, so every name is
looked up here first.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import replace

from addergraph.border import shown
from addergraph.errors import TargetError, nearest

from .. import llvm
from .aarch64 import AARCH64, ANDROID, ANDROID_DOTPROD, ARM_LEVELS, DOTPROD
from .armv7 import ARMV7
from .desktop import DESKTOP
from .machine import Machine
from .machines import MACHINES, machine_named
from .riscv import RISCV32I, RISCV32IMC, RISCV64, RISCV64I, RISCV64V
from .target import Target
from .thumb import THUMBV6M, THUMBV7EM, THUMBV7EM_F32, THUMBV8M_MVE
from .toy import TOY
from .wasm import WASM32
from .x86 import AVX2, AVX512, EVERY, X86_LEVELS

_MICRO = (THUMBV6M, THUMBV7EM, THUMBV7EM_F32, THUMBV8M_MVE)
_PORTABLE = (
    ANDROID, ANDROID_DOTPROD, ARMV7, RISCV64, RISCV64V, RISCV32I, RISCV32IMC, RISCV64I, *_MICRO,
    WASM32,
)  # fmt: skip
_KNOWN = (*X86_LEVELS, EVERY, TOY, *ARM_LEVELS, *_PORTABLE, *DESKTOP)
TARGETS: dict[str, Target] = {t.name: t for t in _KNOWN}

_V3 = "haswell broadwell skylake alderlake raptorlake znver1 znver2 znver3"
_V4 = (
    "skylake-avx512 cascadelake icelake-client icelake-server tigerlake sapphirerapids "
    "emeraldrapids graniterapids znver4 znver5"
)
CPUS: dict[str, Target] = {
    name: replace(level, machine=MACHINES[name])
    for level, names in (
        (AVX2, _V3),
        (AVX512, _V4),
        (AARCH64, "cortex-a53 cortex-a72"),
        (DOTPROD, "cortex-a55 cortex-a76 neoverse-n1 apple-m1"),
    )
    for name in names.split()
}
LEVELS = X86_LEVELS, ARM_LEVELS  # of one architecture each, the baseline first
CORES: dict[str, Target] = {  # of boards; nothing is known of what their instructions cost
    f"cortex-{name}": target
    for target, names in (
        (THUMBV6M, "m0 m0plus m1 m3 m23"),
        (THUMBV7EM, "m4 m7 m33 m35p"),
        (THUMBV7EM_F32, "m4f m7f m33f m35pf"),
        (THUMBV8M_MVE, "m55 m85"),
    )
    for name in names.split()
}

_OTHERS = (  # what CPUs and boards are called that are no target by this name
    (
        "cortex-m.*|thumb.*|rp2040|rp2350|stm32.*|nrf5.*",
        "every Cortex-M runs the code of thumbv6m, those with DSP instructions that of thumbv7em",
    ),
    (
        r"cortex-(a7[5-9]|a[57]10|a[57]\d0|x\d)|neoverse.*|apple-.*|rpi5",
        "64-bit ARM CPUs of 2017 and later run the code of aarch64-linux-gnu-dotprod",
    ),
    (
        r"arm64.*|armv[89].*|cortex-(a3[45]|a[5-7]\d|a\d{3})|rpi[34]",
        "64-bit ARM CPUs run the code of aarch64-linux-gnu",
    ),
    (
        "esp32-?[chp].*|(rv|riscv)32.*",
        "32-bit RISC-V CPUs run the code of riscv32i, those with M and C that of riscv32imc",
    ),
    ("(rv|riscv)64.*", "64-bit RISC-V CPUs run riscv64-linux-gnu, without a system riscv64i"),
    ("armv7.*|armhf|cortex-a.*|rpi2", "32-bit ARM CPUs with NEON run armv7-linux-gnueabihf"),
    ("armv6.*|rpi[01]?|rpizero", "Armv6 with an operating system is not supported"),
    (
        ".*darwin.*|macos.*|osx.*|mach-?o|.*-apple-.*",
        "Macs with a processor of Apple's run the code of arm64-macos",
    ),
    (
        "win(dows|32|64)?|.*-windows-.*|coff|mingw.*|msvc",
        "Windows of 64 bits runs the code of x86-64-windows, x86-64-v3-windows and "
        "x86-64-v4-windows; x86-64-every-windows has all three",
    ),
    (
        "wasm.*|webassembly.*|emscripten|node.*",
        "browsers, Node and wasmtime run the code of wasm32",
    ),
    (
        "esp32.*|xtensa.*",
        "LLVM makes no code for Xtensa here: take an ESP32 of RISC-V, as C3, C6 or H2, which runs "
        "the code of riscv32imc",
    ),
)


def target_named(name: str, tune_for: str | None = None) -> Target:
    """The target called `name`: "host", a name of TARGETS, or that of a CPU or of a board's core.

    tune_for  the machine that kernels are chosen for: "host", "generic" or a CPU name; by
              default this machine where the target is "host", a CPU where one is named, else
              "generic". Code runs on every machine of the target, whatever it is tuned for.

    Raises TargetError with the nearest known name.
    """
    found = host() if isinstance(name, str) and name == "host" else _known(name)
    if tune_for is None and name != "host":
        return found
    if not isinstance(tune_for, str | None):
        raise TargetError(f"tune_for={shown(tune_for)} must be a name, or None")
    if tune_for in (None, "host"):
        return replace(found, machine=_this_machine(found))
    if tune_for not in MACHINES and tune_for in {**TARGETS, **CORES}:
        raise TargetError(
            f'tune_for="{tune_for}": nothing is known of what instructions cost there, so that '
            f"kernels cannot be chosen for it; leave out tune_for (--tune-for), or name one of "
            f"{', '.join(MACHINES)}, generic and host"
        )
    machine = machine_named(str(tune_for))
    of_cpu = CPUS.get(machine.name, found).triple
    if _architecture(of_cpu) != _architecture(found.triple):
        raise TargetError(
            f'the CPU "{tune_for}" runs no code for "{found.name}": it is of another architecture '
            f"({_architecture(of_cpu)}); tune for one that does, or for generic"
        )
    return replace(found, machine=machine)


def _architecture(triple: str) -> str:
    return triple.partition("-")[0]


def _this_machine(target: Target) -> Machine:
    from ..measure.host import host_machine

    if not runnable(target):
        raise TargetError(
            f'this machine does not run code for "{target.name}", so that it cannot be tuned for it'
        )
    return host_machine(target)


def _known(name: str) -> Target:
    known = {**TARGETS, **CPUS, **CORES}
    if not isinstance(name, str) or name not in known:
        lowered = str(name).lower()
        runs = (text for pattern, text in _OTHERS if re.fullmatch(pattern, lowered))
        hint = next((f" ({text})" for text in runs), "") if lowered not in known else ""
        hint = hint or nearest(str(name), known)
        own = ", ".join(t for t in TARGETS if t != TOY.name)  # which the tests have
        raise TargetError(
            f'unknown target or CPU "{name}"{hint}; '
            f"known: host, {own}, the CPUs {', '.join(CPUS)}, and the cores {', '.join(CORES)}"
        )
    return known[name]


def host() -> Target:
    """The best x86 level that this machine runs, or the portable target of its architecture.

    Raises TargetError, which says what is supported, on other systems and architectures: code is
    made for Linux, and loading it elsewhere would end the process at best.
    """
    import platform

    machine, bits = platform.machine().lower(), 8 * struct.calcsize("P")
    if sys.platform == "linux" and bits == 64:
        if machine in ("aarch64", "arm64"):
            return level_of(ARM_LEVELS, llvm.host_features())
        if machine in ("x86_64", "amd64"):
            return level_of(X86_LEVELS, llvm.host_features())
    raise TargetError(
        "AdderGraph runs native code on 64-bit Linux, on x86-64 and AArch64; this is a "
        f'{bits}-bit process on "{sys.platform}", "{machine}". Here, train and run with '
        f'engine="reference" (NumPy), and compile for a target: {", ".join(TARGETS)}'
    )


def level_of(levels: tuple[Target, ...], features: frozenset[str]) -> Target:
    """The best level of a CPU with these features, as LLVM reports them."""
    has_all = (t for t in levels if features.issuperset(name for name, _, _ in t.needs))
    return max(has_all, key=levels.index)


def has_native_code() -> bool:
    """Whether there is a target whose code runs in this process."""
    try:
        host()
    except TargetError:
        return False
    return True


def runnable(target: Target) -> bool:
    """Whether this machine executes code made for `target`."""
    if not has_native_code():
        return False
    best = host()
    if target.triple != best.triple:
        return False
    levels = [level.name for of_one in LEVELS for level in of_one]
    if target.name not in levels:
        return True  # toy runs wherever the baseline does
    return levels.index(target.name) <= levels.index(best.name)


def require_runnable(target: Target, otherwise: str) -> None:
    """TargetError unless this machine executes code made for `target`: `otherwise`, or, where it
    runs none at all, what is supported."""
    if not runnable(target):
        host()
        raise TargetError(otherwise)
