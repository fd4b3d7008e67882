"""What a library for WebAssembly has beside its objects: a linked module, and its script.

    net.wasm    code, weights and memory, linked where there is wasm-ld; it imports nothing
    net.js      an ES module that loads it, for browsers and Node: see its head
    net.d.ts    its types

The module exports its memory, functions of C (`net_run`, `net_selftest`, `net_metadata_json`: see
`entry.py`) and, as globals, the addresses of what these take: `net_input_0`, `net_output_0` and so
on, in the order of the arguments, and `net_arena`. All of it has its place when the module is
linked: the stack of 64 KiB first, so that one that overflows ends in a trap, then weights, then
buffers. A host that is no script does as the script does: write the inputs, call `net_run` with
the addresses, read the outputs.

The script and the module know each other by the digests in the module's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Any

from addergraph.ir.plan import ALIGNMENT

from .interface import CODES, Argument, Interface, Linkable
from .script import ARRAYS, dumped, named, shared_text, shared_types, typed

STACK_BYTES = 1 << 16
IDENTITY = "graph_sha256", "weights_sha256", "multiplication_free"  # of a module's metadata
_SCRIPT = Template("""\
// $p.js: the graph $graph, compiled by AdderGraph. An ES module, for browsers and Node 18.
//
//     import { load } from "./$p.js";
//     const net = await load();   // $p.wasm beside this file; or its URL, its bytes, a Response
//     net.selftest();             // throws unless weights and results are those of the export
//     const $y = net.run($x);
//
$takes
// Tensors are dense and row-major (images: height, width, channel); a result is a copy.

export const inputs = $inputs;
$constants

$loads
class Network {
$opens

  /** The outputs of one call. One input is given bare, one output comes bare; of several there is
   *  an object by name. TypeError and RangeError for what is not as \\`inputs\\` says. */
$runs

  /** Compares the weights with their checksum, and the outputs of built-in inputs with those that
   *  were expected when the library was written. Throws unless all is right. */
  selftest() {
    this.#call("selftest", "arena");
  }

$calls
$checks""")

_TYPES = Template("""\
// Types of $p.js.

export interface End {
  readonly name: string;
  readonly dtype: "f32" | "i32" | "u8" | "i8" | "bool";
  readonly shape: readonly number[];
  readonly elements: number;
  /** Of quantized tensors: value = scale * (q - zeroPoint). */
  readonly scale?: number;
  readonly zeroPoint?: number;
}

export interface Network {
  /** What the library says of itself: tensors, target, versions, digests. */
  readonly metadata: Readonly<Record<string, unknown>>;
$takes
  run(input: $given): $made;
  /** Throws unless weights and results are those of the export. */
  selftest(): void;
}

export declare const inputs: readonly End[];
$end""")


def memory_module(interface: Linkable) -> str:
    """The buffers of a call as LLVM IR: zeros, which take nothing of the file."""
    return "".join(
        f"@{symbol} = global [{max(1, size)} x i8] zeroinitializer, align {ALIGNMENT}\n"
        for symbol, size in interface.buffers.items()
    )


def exports(interface: Linkable) -> tuple[str, ...]:
    """What the linked module shows, beside its memory."""
    return (*interface.functions, *interface.buffers)


def script(interface: Interface, identity: Mapping[str, object]) -> str:
    """The text of `<prefix>.js`; `identity`: what the metadata of its module have to say."""
    shared = shared_text(
        interface, [_described(a) for a in interface.outputs], identity, CODES, ["arena"]
    )
    return _SCRIPT.substitute(
        shared,
        x=named([a.c_name for a in interface.inputs]),
        y=named([a.c_name for a in interface.outputs]),
        takes="\n".join(f"// {line}" for line in _said(interface)),
        inputs=dumped([_described(a) for a in interface.inputs]),
    )


def declarations(interface: Interface) -> str:
    """The text of `<prefix>.d.ts`."""
    takes = "\n".join(f"   *  {line}" for line in _said(interface))
    return _TYPES.substitute(
        p=interface.prefix,
        takes=f"  /** The outputs of one call.\n{takes} */",
        given=typed((a.name, a.type.dtype.name) for a in interface.inputs),
        made=typed((a.name, a.type.dtype.name) for a in interface.outputs),
        end=shared_types(interface.prefix),
    )


def _said(interface: Interface) -> list[str]:
    """A line for each tensor."""
    kinds = [("Takes", a) for a in interface.inputs] + [("Gives", a) for a in interface.outputs]
    return [
        f"{kind} {json.dumps(a.name)}: {_array(a)} of {a.type.elements}, "
        f"shape {' x '.join(map(str, a.type.sizes)) or '1'}."
        for kind, a in kinds
    ]


def _array(argument: Argument) -> str:
    return ARRAYS[argument.type.dtype.name]


def _described(argument: Argument) -> dict[str, Any]:
    known = argument.meaning
    meaning = {} if known is None else {"scale": known.scale, "zeroPoint": known.zero_point}
    type = argument.type
    return {
        "name": argument.name, "dtype": type.dtype.name, "shape": list(type.sizes),
        "elements": type.elements, **meaning,
    }  # fmt: skip
