"""Strict mode: a program that multiplies and divides nothing, address arithmetic included.

Two questions, in this order: does a layer multiply by definition, and is there a product among the
instructions that were emitted. Each layer that stands in the way is named, with what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from addergraph.errors import UnsupportedError
from addergraph.ir import Graph, Node
from addergraph.ir.types import f32

from .. import llvm
from ..targets.target import Target
from . import limits
from .census import count_instructions
from .instructions import ADDRESS_MULTIPLY, PRODUCTS, UNKNOWN, machine_for

_ADDERS = (
    'an adder layer in its place (zoo.build(name, first="adder", last="adder"), or in `addergraph '
    "train` --first adder --last adder)"
)
_HINTS = {
    "conv2d": _ADDERS,
    "dense": _ADDERS,
    "matmul": "an adder layer in its place",
    "softmax": "logits instead: the largest is at the same place (ag.quantize leaves softmax out)",
    "batch_norm": "ag.quantize, which makes it shifts",
    "leaky_relu": "ag.quantize, which takes the larger of two shifted numbers",
    "sigmoid": "ag.quantize, which looks it up in a table",
    "tanh": "ag.quantize, which looks it up in a table",
    "requantize_multiply": 'ag.quantize(..., requantize="shift")',
    "avg_pool2d": "ag.quantize, which sums and shifts",
    "global_avg_pool": "ag.quantize, which sums and shifts",
}
_FORMATS = {"coff": "Windows' objects (COFF)", "macho": "macOS' objects (Mach-O)"}
_OTHERWISE = "leave it out, or compute it outside"


def without_multiplier(target: Target) -> Target:
    """`target` for code that has to do without products: those by 1, of dot products that add
    distances up, included. UnsupportedError where no certificate could show that it has none."""
    if target.format in ("coff", "macho"):
        linux = "a target of Linux with the same instructions"
        raise UnsupportedError(
            f"{target.name} has no strict code: certificates are made of ELF and WebAssembly, and "
            f"nothing here reads the code of {_FORMATS[target.format]}; compile without "
            f"multiplication_free, and certify {linux}, which differs in how functions are called"
        )
    if not target.decoded:
        raise UnsupportedError(
            f"{target.name} has no strict code: nothing here decodes its vector instructions to "
            "certify it; compile for the target without them"
        )
    return dataclasses.replace(target, multiplier=False, byte_dot="", signed_byte_dot="")


def require_layers(graph: Graph, target: Target) -> None:
    """UnsupportedError that names every node of a graph as declared that multiplies or divides."""
    why = "" if target.multiplier else f", as {target.name} needs it"
    found = [f"  {n.label}: {_hint(n)}" for n in graph.nodes if n.op.multiplies]
    if found:
        raise UnsupportedError(
            f'graph "{graph.name}" is not multiplication-free{why}; what multiplies or divides, '
            "and what to use:\n" + "\n".join(found)
        )


def compile_object(
    text: str,
    target: Target,
    nodes: Mapping[str, Iterable[str]],
    provided: Sequence[str] = (),
) -> bytes:
    """As `compile_both`, the object alone."""
    return compile_both(text, target, nodes, provided)[0]


def compile_both(
    text: str,
    target: Target,
    nodes: Mapping[str, Iterable[str]],
    provided: Sequence[str] = (),
) -> tuple[bytes, str]:
    """The object of a module whose code has no product, quotient or unknown instruction, no calls;
    and its assembly.

    text      LLVM IR
    nodes     function -> the nodes that it computes, for messages
    provided  symbols that another object of the library defines

    Raises UnsupportedError, naming function and nodes.
    """
    code, assembly = llvm.compile_both(text, target)
    _require_instructions(assembly, target, nodes)
    limits.require_no_calls(code, target, nodes, provided)
    return code, assembly


def _require_instructions(
    assembly: str, target: Target, nodes: Mapping[str, Iterable[str]]
) -> None:
    found = []
    for symbol, counts in count_instructions(assembly, machine_for(target.triple)).items():
        wrong = [
            f"{counts[kind]} {kind}"
            for kind in (*PRODUCTS, ADDRESS_MULTIPLY, UNKNOWN)
            if counts[kind]
        ]
        if wrong:
            names = ", ".join(nodes.get(symbol, ())) or "no node"
            found.append(f"  {symbol} ({names}): {', '.join(wrong)}")
    if found:
        raise UnsupportedError(
            f"the code for {target.name} multiplies, although no layer does; please report it:\n"
            + "\n".join(found)
        )


def _hint(node: Node) -> str:
    known = _HINTS.get(node.op.name, _OTHERWISE)
    if node.op.name == "mul" and node.outputs[0].type.dtype == f32:
        known = "ag.quantize, which makes a batch norm's factor shifts"
    return known
