"""What a small machine cannot do, said before and after its code is emitted.

A core without float instructions, or with addresses of 32 bits, is asked about before: of the
planned graph. What LLVM then calls for want of an instruction (`__mulsi3`, `memcpy`) is read off
the object: an exported object calls nothing, so it links without any library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from addergraph.errors import UnsupportedError
from addergraph.ir import Graph, Node, Value
from addergraph.ir.types import f32

from ..emit.lowered import Lowered
from ..targets.target import Target
from . import elf, symbols, wasm

_SHOWN = 8


def require_target(lowered: Lowered) -> None:
    """UnsupportedError where the target has no floats but the program, or too few addresses."""
    _require_integers(lowered)
    _require_addresses(lowered)


def require_no_calls(
    code: bytes,
    target: Target,
    nodes: Mapping[str, Iterable[str]],
    provided: Sequence[str] = (),
) -> None:
    """UnsupportedError that names the functions of an object that need a symbol of elsewhere.

    nodes     function -> the nodes that it computes, for the message
    provided  what the library's other object defines
    """
    if target.format in ("coff", "macho"):
        defined = {target.c_prefix + name for name in provided}
        lines = {f"  {name}": None for name in symbols.undefined(code) if name not in defined}
    elif target.in_engine:
        called = wasm.calls(wasm.read_module(code, f"code for {target.name}")).items()
        lines = dict.fromkeys((f"  {', '.join(by)}: {name}" for name, by in called), None)
    else:
        read = elf.read_elf(code, f"code for {target.name}")
        used = read.relocations
        missing = [r for r in used if r.symbol.undefined and r.symbol.name not in provided]
        lines = dict.fromkeys((_described(read, r, nodes) for r in missing), None)
    if lines:
        raise UnsupportedError(
            f"the code for {target.name} calls functions that no library provides there; "
            "please report it:\n" + "\n".join(list(lines)[:_SHOWN])
        )


def _described(read: elf.Elf, use: elf.Relocation, nodes: Mapping[str, Iterable[str]]) -> str:
    inside = [
        s.name
        for s in read.symbols
        if s.kind == elf.FUNCTION
        and s.section == use.section
        and s.value & ~1 <= use.offset < (s.value & ~1) + s.size  # bit 0 says Thumb
    ]
    function = inside[0] if inside else read.sections[use.section].name
    names = ", ".join(nodes.get(function, ())) or "no node"
    return f"  {function} ({names}): {use.symbol.name}"


def _require_integers(lowered: Lowered) -> None:
    target, graph = lowered.target, lowered.main
    found = [] if target.floats else floats_of(graph)
    if found:
        more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise UnsupportedError(
            f'{target.name} has no float instructions, and graph "{graph.name}" has floats; '
            "quantize it (ag.quantize, addergraph quantize):\n" + "\n".join(found[:_SHOWN] + more)
        )


def floats_of(graph: Graph) -> list[str]:
    """The inputs and nodes of a graph that are floats or compute with some."""
    found = [f"  input %{v.name}: {v.type}" for v in graph.inputs if _is_float(v)]
    return found + [f"  {node.label}" for node in graph.nodes if any(map(_is_float, _values(node)))]


def _values(node: Node) -> list[Value]:
    """What a node reads and writes, inside a fused body, too."""
    return [v for atom in node.atoms for v in (*atom.inputs, *atom.outputs)]


def _is_float(value: Value) -> bool:
    return value.type.dtype == f32


def _require_addresses(lowered: Lowered) -> None:
    target, graph, plan = lowered.target, lowered.main, lowered.plan
    most = 1 << (target.word - 1)
    whole = lowered.declared  # what a call reads and writes
    values = (*graph.values(), *whole.inputs, *whole.outputs)
    sizes = {f"%{v.name}": v.type.bind(lowered.samples).nbytes for v in values}
    sizes |= {"the arena": plan.arena_bytes}
    sizes |= {"all parameters": sum(p.type.nbytes for p in graph.parameters)}
    name = max(sizes, key=lambda k: sizes[k])
    if sizes[name] >= most:
        raise UnsupportedError(
            f'graph "{graph.name}": {name} has {sizes[name]} bytes; '
            f"indices of {target.name} have {target.word} bits and reach {most - 1}"
        )
