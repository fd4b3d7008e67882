"""Counts the instructions that were emitted, by kind: the evidence for "no multiplications".

The counts are of LLVM's assembly text of the very module that becomes the object, x86-64 in AT&T
syntax, function by function. They are static: an instruction in a loop counts once.

Data is computed in vector registers, scalars included; integers in general registers are addresses
and loop counters, so their arithmetic is listed apart. (Integer tensors may be computed there too.
Whether a node multiplies integers is therefore asked of the op, not of the instructions.)
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from addergraph.errors import UnsupportedError
from addergraph.ir import Node
from addergraph.ops.fused import Fused
from addergraph.types import f32

from . import llvm
from .module import emit_program
from .target import Target

if TYPE_CHECKING:
    from .jit import Built

ADD, LOGIC, SHIFT, MOVE = "add/sub", "min/max/logic", "shift", "move"
MULTIPLY, FMA, DOT, DIVIDE = "multiply", "fma", "dot product", "divide/sqrt"
CONVERT, CONTROL, UNKNOWN = "convert", "control", "unknown"
ADDRESS, ADDRESS_MULTIPLY = "address", "address mul/div"
KINDS = (
    ADD, LOGIC, SHIFT, CONVERT, MULTIPLY, FMA, DOT, DIVIDE, MOVE, CONTROL, ADDRESS,
    ADDRESS_MULTIPLY, UNKNOWN,
)  # fmt: skip
PRODUCTS = (MULTIPLY, FMA, DOT, DIVIDE)

# Mnemonic patterns in order: the first that matches all of a mnemonic gives its kind. F stands for
# the four float suffixes, B for integer sizes, V for the optional v of three-operand forms.
_TABLE: tuple[tuple[str, str], ...] = (
    (FMA, r"V fn?m(add|sub|addsub|subadd)(132|213|231)?F"),
    (DOT, r"V dpp[sd] | vpdp\w+ | V pmadd\w+ | vdpbf16ps"),
    (MULTIPLY, r"V mulF | V pmul\w+ | vgetmant\w+ | vscalef\w+"),
    (DIVIDE, r"V (div|sqrt|rcp|rsqrt)(14|28)?F"),
    (CONVERT, r"V cvt\w+ | V round\w+ | vrndscale\w+ | V pack[us]s\w+ | V pmov[sz]x\w+"),
    (CONVERT, r"vpmov(us|s)?[wdq][bwd]"),
    (ADD, r"V (add|sub|addsub|hadd|hsub)F | V ph?(add|sub)u?s?B | V psadbw | vdbpsadbw"),
    (LOGIC, r"V (min|max)F | V cmp\w*F | V u?comi(ss|sd) | V (and|andn|or|xor)p[sd] | vrange\w+"),
    (LOGIC, r"V p(min|max)[us]B | V pcmp\w+ | V p(and|andn|or|xor)[dq]? | vpternlog[dq]"),
    (LOGIC, r"V pabsB | V psignB | V ptest | vptestn?mB | vtestp[sd] | vfpclass\w+"),
    (LOGIC, r"k(and|andn|or|xor|xnor|not|ortest|test)B"),
    (SHIFT, r"V ps(ll|rl|ra)v?[wdq] | vpro[lr]v?[dq] | kshift[lr]B"),
    (MOVE, r"V movabs[lq]? | V mov\w* | V lddqu | V(p?broadcast|(p|mask)mov|pmaskmov|p?gather)\w+"),
    (MOVE, r"V (p?shuf|p?unpck|p?insert|pinsr|p?extract|pextr|p?blend|palign|ps[lr]ldq)\w*"),
    (MOVE, r"v(perm|align|p?expand|p?compress|p?scatter)\w*"),
    (MOVE, r"kmovB | kunpck\w+ | push[lq]? | pop[lq]? | xchgB | cltq | cqto | cltd | bswap[lq]"),
    (MOVE, r"prefetch\w+"),
    (CONTROL, r"j\w+ | callq? | retq? | pause | nop[lqw]? | vzeroupper | ud2 | [ml]fence"),
    (ADDRESS_MULTIPLY, r"i?mulB | mulx[lq] | i?divB"),
    (ADDRESS, r"leaB | (add|sub|adc|sbb|and|or|xor|andn|cmp|test|inc|dec|neg|not)B"),
    (ADDRESS, r"(sh[lr]d?|sa[lr]|ro[lr])B | (shlx|shrx|sarx|rorx)[lq] | cmov\w+ | set\w+"),
    (ADDRESS, r"bt[src]?B? | bextr[lq] | bzhi[lq] | bls\w+ | (tz|lz|pop)cnt\w? | bs[fr]B | xaddB"),
)  # fmt: skip
_PREFIXES = frozenset({"lock", "rep", "notrack", "data16", "{vex}", "{evex}"})


@dataclass(frozen=True)
class FunctionCensus:
    """One emitted function.

    nodes   the nodes that it computes; none for entries, barriers and the like
    ops     their ops, those of fused bodies included
    causes  the ops among them that multiply or divide by definition
    counts  kind -> instructions
    """

    symbol: str
    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    causes: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def products(self) -> int:
        """Instructions that multiply or divide data."""
        return sum(self.counts.get(kind, 0) for kind in PRODUCTS)


@dataclass(frozen=True)
class Census:
    """The instructions of one compiled graph.

    integer_products  nodes that multiply or divide integers, which instructions cannot show
    """

    target: str
    functions: tuple[FunctionCensus, ...]
    integer_products: tuple[str, ...]

    @property
    def total(self) -> Mapping[str, int]:
        """Kind -> instructions of all functions."""
        return sum((Counter(f.counts) for f in self.functions), Counter())

    @property
    def multiplication_free(self) -> bool:
        """Whether nothing in the whole network multiplies or divides data."""
        unknown = any(f.counts.get(UNKNOWN) for f in self.functions)
        return not (unknown or self.integer_products or any(f.products for f in self.functions))

    def of_op(self, op: str) -> tuple[FunctionCensus, ...]:
        """The functions that compute nodes of `op`, fused ones included."""
        return tuple(f for f in self.functions if op in f.ops)

    def render(self) -> str:
        """The counts as a table, and what remains of multiplications and why."""
        lines = [f"instructions emitted for {self.target}", "", table(self.functions), ""]
        if self.multiplication_free:
            return "\n".join([*lines, "multiplication-free: yes, all of it"])
        lines.append("multiplication-free: no")
        lines += [f"  {_remaining(f)}" for f in self.functions if f.products]
        lines += [f"  {name}: multiplies integers" for name in self.integer_products]
        lines += [
            f"  {f.symbol}: {count} instructions of unknown kind"
            for f in self.functions
            if (count := f.counts.get(UNKNOWN))
        ]
        return "\n".join(lines)


def census(built: Built) -> Census:
    """Counts the instructions of a built graph. UnsupportedError if they are not x86-64."""
    lowered = built.lowered
    target = lowered.target
    require_x86(target)
    module, facts = emit_program(lowered)
    counts = count_instructions(llvm.compile_assembly(str(module), target))
    computed: dict[str, list[Node]] = {symbol: [] for symbol in counts}
    for node in lowered.main.nodes:
        if node.name in facts.kernels:
            # LLVM drops kernels that do nothing, those of tensors without elements.
            computed.setdefault(facts.kernels[node.name], []).append(node)
    functions = tuple(
        _function(symbol, nodes, counts.get(symbol, Counter()))
        for symbol, nodes in computed.items()
    )
    integers = tuple(
        node.label for node in lowered.main.nodes if any(map(_integer_product, _atoms([node])))
    )
    return Census(target.name, functions, integers)


def require_x86(target: Target) -> None:
    """UnsupportedError for a target whose instructions the census cannot read."""
    if not target.triple.startswith("x86_64"):
        raise UnsupportedError(
            f'the census reads x86-64 instructions, not those of "{target.name}"; '
            "compile for an x86-64 target"
        )


def count_instructions(assembly: str) -> dict[str, Counter[str]]:
    """Function -> kind -> instructions, in assembly text of x86-64 (AT&T syntax)."""
    known = frozenset(re.findall(r"^\s*\.type\s+([^\s,]+),@function", assembly, re.MULTILINE))
    found: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for line in assembly.splitlines():
        text = line.split("#", 1)[0].strip()
        label, colon, _ = text.partition(":")
        if colon and label in known:
            current = found.setdefault(label, Counter())
        if not text or text.startswith(".") or text.endswith(":"):
            continue
        words = [word for word in text.split() if word not in _PREFIXES]
        current[kind_of(words[0]) if words else CONTROL] += 1
    return found


@functools.cache
def kind_of(mnemonic: str) -> str:
    """The kind of an instruction."""
    return next((kind for kind, p in _patterns() if p.fullmatch(mnemonic)), UNKNOWN)


def table(functions: Sequence[FunctionCensus]) -> str:
    """The counts of `functions` as text, with a total; kinds that do not occur are left out."""
    total = sum((Counter(f.counts) for f in functions), Counter[str]())
    kinds = [kind for kind in KINDS if total[kind] or kind in PRODUCTS]
    rows = [["function", *kinds, "nodes"]]
    for f in functions:
        counts = [str(f.counts.get(kind, 0)) for kind in kinds]
        rows.append([f.symbol, *counts, " ".join(f.nodes)])
    rows.append(["total", *(str(total[kind]) for kind in kinds), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(kinds) + 1)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [c.rjust(w) for c, w in zip(row[1:-1], widths[1:], strict=True)]
            + [row[-1]]
        ).rstrip()
        for row in rows
    )


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    def compiled(pattern: str) -> re.Pattern[str]:
        plain = pattern.replace("V", "v?").replace("F", "(ps|pd|ss|sd)").replace("B", "[bwlqd]")
        return re.compile(plain.replace(" ", ""))

    return tuple((kind, compiled(pattern)) for kind, pattern in _TABLE)


def _function(symbol: str, nodes: Sequence[Node], counts: Counter[str]) -> FunctionCensus:
    atoms = _atoms(nodes)
    causes = (n.op.name for n in atoms if _multiplies(n))
    return FunctionCensus(
        symbol,
        tuple(n.name for n in nodes),
        tuple(dict.fromkeys(n.op.name for n in atoms)),
        tuple(dict.fromkeys(causes)),
        counts,
    )


def _atoms(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, those of fused bodies in place of the fused ones."""
    return [atom for n in nodes for atom in (n.op.body.nodes if isinstance(n.op, Fused) else (n,))]


def _multiplies(node: Node) -> bool:
    cost = node.op.cost([v.type for v in node.inputs])
    return bool(cost.multiplications or cost.transcendentals)


def _integer_product(node: Node) -> bool:
    return _multiplies(node) and all(v.type.dtype != f32 for v in node.outputs)


def _remaining(f: FunctionCensus) -> str:
    counts = ", ".join(f"{f.counts[kind]} {kind}" for kind in PRODUCTS if f.counts.get(kind))
    why = ", ".join(f.causes) or "not explained by its ops"
    return f"{f.symbol}: {counts}, by definition of {why} ({', '.join(f.nodes) or 'no node'})"
