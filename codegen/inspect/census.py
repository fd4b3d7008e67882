"""Counts the instructions that were emitted, by kind: the evidence for "no multiplications".

The counts are of LLVM's assembly text of the very module that becomes the object (x86-64 in AT&T
syntax), function by function. They are static: an instruction in a loop counts once.

Integers in general registers may be addresses or data: whether a node multiplies integers is
therefore asked of the op, not of the instructions. Machines other than x86-64 have one instruction
for both: there a product of indices counts as one of data. What each instruction does: see
`instructions.py`.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from addergraph.ir import Node
from addergraph.ir.types import f32

from .. import llvm
from ..emit.module import emit_program
from . import limits
from .instructions import KINDS, PRODUCTS, SHORT, UNKNOWN, X86_64, Machine, machine_for

if TYPE_CHECKING:
    from ..emit.lowered import Lowered

WIDTH = 80  # columns of text


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
        for f in self.functions:
            lines += _wrapped(_remaining(f), "  ") if f.products else []
        lines += [f"  {name}: multiplies integers" for name in self.integer_products]
        lines += [
            f"  {f.symbol}: {count} instructions of unknown kind"
            for f in self.functions
            if (count := f.counts.get(UNKNOWN))
        ]
        return "\n".join(lines)


def census(lowered: Lowered) -> Census:
    """Counts the instructions of a lowered graph; UnsupportedError as `limits.require_target`, for
    products of floats would be calls there, which no count shows."""
    target = lowered.target
    limits.require_target(lowered)
    module, facts = emit_program(lowered)
    assembly = llvm.compile_assembly(str(module), target)
    emitted = [function.name for function in module.functions]
    counts = count_instructions(assembly, machine_for(target.triple), emitted, target.c_prefix)
    computed: dict[str, list[Node]] = {symbol: [] for symbol in counts}
    for node in lowered.main.nodes:
        if node.name in facts.kernels:
            # LLVM drops kernels that do nothing, those of tensors without elements.
            computed.setdefault(facts.kernels[node.name].symbol, []).append(node)
    functions = tuple(
        _function(symbol, nodes, counts.get(symbol, Counter()))
        for symbol, nodes in computed.items()
    )
    integers = tuple(
        node.label for node in lowered.main.nodes if any(map(_integer_product, _atoms([node])))
    )
    return Census(target.name, functions, integers)


# How assembly text declares functions: of ELF, and of COFF. That of Mach-O does not.
_FUNCTIONS = r"^\s*\.type\s+([^\s,]+),[@%]function", r"^\s*\.def\s+([^\s;]+);"

_ARRANGEMENT = re.compile(r"^(\w+)\.\d*[bhsdq]\b")  # of lanes, which Apple's syntax has in the name


def count_instructions(
    assembly: str, machine: Machine = X86_64, emitted: Iterable[str] = (), prefix: str = ""
) -> dict[str, Counter[str]]:
    """Function -> kind -> instructions, in LLVM's assembly text (x86-64: AT&T syntax).

    emitted  the functions of the module, where the text does not declare them; those that it
             declares are counted, too, also one of LLVM's own
    prefix   stands before the names of functions, and not in the result
    """
    known = {name for p in _FUNCTIONS for name in re.findall(p, assembly, re.MULTILINE)}
    known |= {prefix + name for name in emitted}
    found: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for line in assembly.splitlines():
        text = line.split(machine.comment, 1)[0].strip()
        label, colon, _ = text.partition(":")
        if colon and label in known:
            current = found.setdefault(label.removeprefix(prefix), Counter())
        if not text or text.startswith(".") or text.endswith(":"):
            continue
        current[machine.kind_of(_ARRANGEMENT.sub(r"\1", text))] += 1
    return found


def table(functions: Sequence[FunctionCensus]) -> str:
    """The counts of `functions` as text, with a total: a line of numbers under each one's name.

    Kinds that do not occur are left out, but for those of products.
    """
    total = sum((Counter(f.counts) for f in functions), Counter[str]())
    kinds = [kind for kind in KINDS if total[kind] or kind in PRODUCTS]
    heads = {kind: SHORT.get(kind, kind) for kind in kinds}
    wide = {kind: 1 + max(len(head), len(str(total[kind]))) for kind, head in heads.items()}
    if sum(wide.values()) + len(kinds) <= WIDTH:
        wide = {kind: 1 + width for kind, width in wide.items()}

    def row(cells: Mapping[str, object]) -> str:
        return "".join(f"{cells.get(kind, 0):>{wide[kind]}}" for kind in kinds)

    lines = [row(heads), "─" * sum(wide.values())]
    for f in functions:
        nodes = f" ({', '.join(f.nodes)})" if f.nodes else ""
        lines += [*_wrapped(f"{f.symbol}{nodes}", ""), row(f.counts)]
    said = (f"{head}: {kind}" for kind, head in heads.items() if head != kind)
    return "\n".join([*lines, "total", row(total), "", *_wrapped(", ".join(said), "")])


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines of at most WIDTH columns, the second and later ones indented by more."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "    ")


def _function(symbol: str, nodes: Sequence[Node], counts: Counter[str]) -> FunctionCensus:
    atoms = _atoms(nodes)
    causes = (n.op.name for n in atoms if n.op.multiplies)
    return FunctionCensus(
        symbol,
        tuple(n.name for n in nodes),
        tuple(dict.fromkeys(n.op.name for n in atoms)),
        tuple(dict.fromkeys(causes)),
        counts,
    )


def _atoms(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, those of fused bodies in place of the fused ones."""
    return [atom for n in nodes for atom in n.atoms]


def _integer_product(node: Node) -> bool:
    return node.op.multiplies and all(v.type.dtype != f32 for v in node.outputs)


def _remaining(f: FunctionCensus) -> str:
    counts = ", ".join(f"{f.counts[kind]} {kind}" for kind in PRODUCTS if f.counts.get(kind))
    why = ", ".join(f.causes) or "not explained by its ops"
    return f"{f.symbol}: {counts}, by definition of {why} ({', '.join(f.nodes) or 'no node'})"
