"""Instruction sets as plain data: what instructions there are. A `Machine` says what they cost.

One file of this folder each; `lookup.py` finds them by name. Kernels and schedules ask a target for
what they need and know no instruction set by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .machine import Machine, Rates
from .machines import GENERIC, MACHINES


@dataclass(frozen=True)
class WholeSums:
    """Primitives that add up all terms of a register of bytes, of one channel, in 32 bits.

    width      bytes of the register: a general one of 4, or a vector
    numbers    sums that registers have room for, beside pointers and counters
    distances  u8 x u8: LLVM's intrinsic, and its arguments in order: "x", "f", "sum" or a number
    products   i16 x i16: the same
    widened    u8 and i8 -> 16 bits, of the even bytes of a general register; LLVM finds it of a
               vector
    """

    width: int
    numbers: int
    distances: tuple[str | int, ...]
    products: tuple[str | int, ...]
    widened: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Target:
    """What code generation needs to know of an instruction set.

    name      as users write it, and as kernel names end
    triple, cpu, features   as LLVM takes them
    lanes     f32 elements of one vector register
    registers vector registers
    fma       whether multiply-add is one instruction (and one rounding)
    max_tile  an upper bound on (pixels, vectors) of a register tile, None for no bound
    multiplier  whether code may multiply and divide; without, it shifts and adds
    negates_by_product  whether LLVM makes -n a product with -1 where that is no immediate
    word      bits of a pointer and of an index
    floats    whether there are float instructions
    doubles   whether these have f64, too
    loses_nans  whether LLVM compares vectors with numbers as if NaN were less (`codegen/nans.py`)
    atomics   whether there are atomic ones; without, programs have one thread
    broadcasts_compute  whether a broadcast from memory takes an arithmetic port beside its load
    spare_registers  those that LLVM takes in kernels of bytes, beside filters and sums
    several_steps  steps that a loop takes at a time where each has several vectors
    bytes_unrolled  whether loops of bytes take several steps at a time: else LLVM would spill sums
    lane_shifts  whether each lane of a vector can be shifted by a count of its own
    register_class  of vectors, as LLVM's inline assembly names it; empty where we know none

    Primitives, as LLVM's intrinsics for one whole vector; empty where there are none:

    byte_distances  u8 x u8 -> u64: sums of eight distances
    pair_products   i16 x i16 -> i32: sums of two products
    pair_sums       u8 -> u16, and u16 -> u32: sums of neighbours; both types follow the name. With
                    it goes an instruction for distances of bytes, which LLVM finds
    added_pair_sums  u32 + sums of neighbours of u16, where LLVM does not find it
    signed_pair_sums  i16 -> i32: the same of signed numbers
    byte_dot        i32 + u8 x u8 -> i32: a number and the sum of four products; both types follow
    signed_byte_dot i32 + i8 x i8 -> i32: the same of signed bytes
    short_sums      steps of four distances whose sums are added in 16 bits; 0 for none
    least_magnitude f32 x f32 -> f32: min(|a|, |b|) with the sign of a, or b where a is NaN; it
                    clips by magnitude. Arguments as those of AVX-512's vrangeps
    broadcast_run   loads 2 or 4 neighbours of 32 bits, each into all lanes of a register of its
                    own; {} in the name stands for how many
    variable_shift  i32 x i32 -> i32: a << b in each lane, 0 where b is 32
    whole_sums      of bytes, where there are some: see WholeSums
    pause           what a thread executes that polls

    above     higher levels, the lowest first, for which its libraries have code, too
    beside_others  whether it is one of those: its functions then name their CPU
    decoded   whether the certificate's decoder reads its instructions: else there is no strict code
    baseline  the CPU, as LLVM names it, whose code asks whether this one has what the rest `needs`
    needs     what a CPU has to have beyond: (LLVM's name, where to ask, bit), see `export/cpu.py`
    states    bits of XCR0 that the system has to have set, of x86

    machine   the core that schedules are made for; code runs on every one of the instruction set
    ordered   whether LLVM orders instructions for that core, too: cores that do so themselves, in
              long windows, run the tiles as they are made
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool
    max_tile: tuple[int, int] | None = None
    multiplier: bool = True
    negates_by_product: bool = False
    word: int = 64
    floats: bool = True
    doubles: bool = True
    loses_nans: bool = False
    atomics: bool = True
    broadcasts_compute: bool = False
    spare_registers: int = 2
    several_steps: int = 2
    bytes_unrolled: bool = True
    lane_shifts: bool = True
    register_class: str = ""
    byte_distances: str = ""
    pair_products: str = ""
    pair_sums: str = ""
    added_pair_sums: str = ""
    signed_pair_sums: str = ""
    byte_dot: str = ""
    signed_byte_dot: str = ""
    short_sums: int = 0
    least_magnitude: str = ""
    broadcast_run: str = ""
    variable_shift: str = ""
    whole_sums: WholeSums | None = None
    pause: str = ""
    cpus: str = ""
    above: tuple[Target, ...] = ()
    beside_others: bool = False
    decoded: bool = True
    baseline: str = ""
    needs: tuple[tuple[str, int, int], ...] = ()
    states: int = 0
    machine: Machine = GENERIC
    ordered: bool = False

    @property
    def pointer_bytes(self) -> int:
        return self.word // 8

    @property
    def vector_bytes(self) -> int:
        return 4 * self.lanes

    @property
    def rates(self) -> Rates:
        """Of the machine, for whole vectors."""
        return self.machine.at(self.vector_bytes)

    @property
    def tuned(self) -> str:
        """The CPU, as LLVM names it, that LLVM orders instructions for; empty for none."""
        known = self.ordered and self.machine.name in MACHINES
        return self.machine.order or self.machine.name if known else ""

    @property
    def hosted(self) -> bool:
        """Whether there is Linux, whose shared libraries are linked here."""
        return "-linux-" in self.triple

    @property
    def format(self) -> str:
        """Of its objects: "elf", "coff", "macho" or "wasm"."""
        known = {"-windows-": "coff", "-apple-": "macho", "wasm": "wasm"}
        return next((name for part, name in known.items() if part in self.triple), "elf")

    @property
    def c_prefix(self) -> str:
        """What stands before the name of a C function in its objects."""
        return "_" if self.format == "macho" else ""

    @property
    def in_engine(self) -> bool:
        """Whether its code is WebAssembly, which a script loads into an engine."""
        return self.triple.startswith("wasm")

    def subtracts_by_fma(self, number: int) -> bool:
        """Whether subtraction `number` of a run before clips is best a * 1 - b.

        Adder pipes also do min, max and vrangeps: what they have too much goes to the multipliers.
        """
        return self.fma and (not self.least_magnitude or number % 2 == 0)

    @property
    def isa(self) -> str:
        """The last part of kernel names."""
        return self.name.replace("-", "_")


def scalar_core(
    name: str, triple: str, cpu: str, registers: int, *, cpus: str, **more: Any
) -> Target:
    """A core of 32 bits that multiplies nothing, without an operating system: scalars in general
    registers. `more`: fields of its own."""
    return Target(
        name, triple, cpu, "", lanes=1, registers=registers, fma=False, multiplier=False,
        word=32, floats=False, atomics=False, cpus=cpus, **more,
    )  # fmt: skip
