"""What a core's instructions and caches cost, as plain data: all that cost models read of a CPU.
And which of two forms of a loop is the faster there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Vector instructions that a core executes in a cycle, at one width.

    width     bytes of a vector
    loads     from L1
    terms     pairs of a minimum of non-negative f32 and an addition: they may share ports
    distances pairs of a sum of distances of bytes (psadbw) and an addition
    minima    pairs of a minimum and an addition of bytes
    latency   cycles that an f32 addition waits for the one before it, as loops see it
    shuffles  of two vectors, as transpositions want them
    listed    times `loads` that lists of bytes reach, those of their entries included
    dense     share of `terms` that the loops of dense f32 kernels reach
    load_cost terms in whose time such a loop issues a load: little, where loads have ports to spare
    float_minima  whether those minima are best of floats: else they are of 32-bit integers
    saturating_sums  whether sums of distances are best added with saturation, of 16 bits: these
              additions then do not have the port of the distances
    finish    cycles in which a dense f32 kernel begins and ends one vector of outputs
    listed_finish  cycles more than the model's in which lists of bytes end one vector of outputs
    """

    width: int
    loads: float
    terms: float
    distances: float
    minima: float
    shuffles: float
    latency: float = 4
    listed: float = 1.2
    dense: float = 0.95
    load_cost: float = 0.2
    float_minima: bool = False
    saturating_sums: bool = False
    finish: float = 0
    listed_finish: float = 0

    @property
    def under_way(self) -> float:
        """Sums that hide the latency of adding."""
        return self.latency * self.terms


@dataclass(frozen=True)
class Machine:
    """One core and its caches.

    name        as LLVM names the CPU, or "generic"
    l1, l1_ways bytes of the first data cache, and ways of its sets
    l2          bytes of the second, as far as it is one core's own
    l2_line     cycles of a cache line that comes from L2, where many follow each other
    l3_line     the same from beyond
    in_order    whether it executes instructions in the order of the code: kernels then put others
                between a term and its sum, which wait for neither
    order       the core by whose model LLVM orders instructions, where that of this one makes it
                keep registers on the stack; empty for its own
    rates       at each width of vectors, the narrowest first
    """

    name: str
    l1: int
    l1_ways: int
    l2: int
    l2_line: float
    l3_line: float
    rates: tuple[Rates, ...]
    in_order: bool = False
    order: str = ""

    def at(self, width: int) -> Rates:
        """The rates of vectors of `width` bytes: those of the next wider ones where it has none."""
        return next((rates for rates in self.rates if rates.width >= width), self.rates[-1])
