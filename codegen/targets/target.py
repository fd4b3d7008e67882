"""Machine descriptions as data, and the detection of the host.

A target fixes vector width, register count and what the instruction set can do; schedules read
nothing else. LLVM ends the process on an unknown CPU name and ignores unknown feature strings, so
every name is looked up here first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from addergraph.errors import TargetError, nearest


@dataclass(frozen=True)
class Target:
    """What code generation needs to know of a machine.

    name      as users write it, and as kernel names end
    triple, cpu, features   as LLVM takes them
    lanes     f32 elements of one vector register
    registers vector registers
    fma       whether multiply-add is one instruction (and one rounding)
    range     whether clipping by magnitude is one instruction (vrangeps)
    max_tile  an upper bound on (pixels, vectors) of a register tile, None for no bound
    multiplier  whether code may multiply and divide; without, it shifts and adds
    word      bits of a pointer and of an index
    floats    whether there are float instructions
    atomics   whether there are atomic ones; without, programs have one thread
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool
    range: bool = False
    max_tile: tuple[int, int] | None = None
    multiplier: bool = True
    word: int = 64
    floats: bool = True
    atomics: bool = True

    @property
    def pointer_bytes(self) -> int:
        return self.word // 8

    @property
    def hosted(self) -> bool:
        """Whether there is an operating system, which loads shared libraries."""
        return "-linux-" in self.triple

    @property
    def x86(self) -> bool:
        return self.triple.startswith("x86_64")

    def subtracts_by_fma(self, number: int) -> bool:
        """Whether subtraction `number` of a run before clips is best a * 1 - b.

        Adder pipes also do min, max and vrangeps: what they have too much goes to the multipliers.
        """
        return self.fma and (not self.range or number % 2 == 0)

    @property
    def shifts_by_multiplying(self) -> bool:
        """Whether lanes of a vector can be shifted by different counts only by a product."""
        return self.x86 and self.cpu == "x86-64"

    @property
    def isa(self) -> str:
        """The last part of kernel names."""
        return self.name.replace("-", "_")


_LINUX = "x86_64-unknown-linux-gnu"
BASELINE = Target("x86-64", _LINUX, "x86-64", "", 4, 16, False)
AVX2 = Target("x86-64-v3", _LINUX, "x86-64-v3", "", 8, 16, True)
# LLVM prefers 256-bit vectors on some AVX-512 CPUs; the tiles are made for the full width.
AVX512 = Target("x86-64-v4", _LINUX, "x86-64-v4", "-prefer-256-bit", 16, 32, True, True)
X86_LEVELS = (BASELINE, AVX2, AVX512)


def _bare(name: str, triple: str, cpu: str, registers: int, word: int) -> Target:
    return Target(
        name, triple, cpu, "", 1, registers, False, multiplier=False, word=word, floats=False,
        atomics=False,
    )  # fmt: skip


TARGETS: dict[str, Target] = {
    **{t.name: t for t in X86_LEVELS},
    # Odd sizes on purpose: every tail and edge of a kernel runs on small tensors. For tests.
    "toy": Target("toy", _LINUX, "x86-64", "", 2, 16, False, max_tile=(3, 2)),
    # The portable lowering: plain vector IR on machines nobody has tuned for.
    "aarch64-linux-gnu": Target(
        "aarch64-linux-gnu", "aarch64-unknown-linux-gnu", "generic", "", 4, 32, True
    ),
    "riscv64-linux-gnu": Target(
        "riscv64-linux-gnu",
        "riscv64-unknown-linux-gnu",
        "generic-rv64",
        "+m,+a,+f,+d",
        4,
        16,
        False,
    ),
    # Cores without a multiplier, and without an operating system: scalars in general registers.
    "riscv32i": _bare("riscv32i", "riscv32-unknown-none-elf", "generic-rv32", 16, 32),
    "riscv64i": _bare("riscv64i", "riscv64-unknown-none-elf", "generic-rv64", 16, 64),
    # Cortex-M0: `muls` takes 1 or 32 cycles, by the maker's choice, and nothing divides.
    "thumbv6m": _bare("thumbv6m", "thumbv6m-none-eabi", "cortex-m0", 8, 32),
}

_V3 = "haswell broadwell skylake alderlake raptorlake znver1 znver2 znver3"
_V4 = (
    "skylake-avx512 cascadelake icelake-client icelake-server tigerlake sapphirerapids "
    "emeraldrapids graniterapids znver4 znver5"
)
CPUS: dict[str, Target] = {
    **dict.fromkeys(_V3.split(), AVX2),
    **dict.fromkeys(_V4.split(), AVX512),
}


def target_named(name: str) -> Target:
    """The target called `name`: "host", a name of TARGETS, or an x86 CPU name.

    Raises TargetError with the nearest known name.
    """
    if name == "host":
        return host()
    known = {**TARGETS, **CPUS}
    if not isinstance(name, str) or name not in known:
        hint = nearest(str(name), known)
        if str(name).lower().startswith(("cortex-m", "thumb")):
            hint = " (every Cortex-M runs the code of thumbv6m)"
        raise TargetError(
            f'unknown target or CPU "{name}"{hint}; '
            f"known: host, {', '.join(TARGETS)}, and the x86 CPUs {', '.join(CPUS)}"
        )
    return known[name]


def host() -> Target:
    """The best x86 level that this machine runs, or the portable target of its architecture."""
    import platform

    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return TARGETS["aarch64-linux-gnu"]
    if machine not in ("x86_64", "amd64"):
        raise TargetError(
            f'no in-process target for this machine ("{machine}"); '
            f"name one to cross-compile for: {', '.join(TARGETS)}"
        )
    from ..llvm import host_features

    features = host_features()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"} <= features:
        return AVX512
    return AVX2 if {"avx2", "fma", "bmi2", "f16c", "lzcnt", "movbe"} <= features else BASELINE


def runnable(target: Target) -> bool:
    """Whether this machine executes code made for `target`."""
    best = host()
    if target.triple != best.triple:
        return False
    target = replace(target, multiplier=True)  # instructions decide, not what code may use
    if target not in X86_LEVELS:
        return True  # toy runs wherever the baseline does; portable triples matched above
    return X86_LEVELS.index(target) <= X86_LEVELS.index(best)
