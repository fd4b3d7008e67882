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

STACK_BYTES = 1 << 16
IDENTITY = "graph_sha256", "weights_sha256", "multiplication_free"  # of a module's metadata
ARRAYS = {
    "f32": "Float32Array", "i32": "Int32Array", "u8": "Uint8Array", "i8": "Int8Array",
    "bool": "Uint8Array",
}  # fmt: skip
# The smallest module with a vector: (func (drop (v128.const i32x4 0 0 0 0))).
SIMD = b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\x0a\x17\1\x15\0\xfd\x0c" + bytes(16) + b"\x1a\x0b"

SCRIPT_LOADS = (  # of every script: what loads a module, what checks an array
    """\
/** The network, of $p.wasm. Throws where the engine lacks WebAssembly or its vectors, for bytes
 *  that are no module, and for a module of another export. */
export async function load(source = new URL("./$p.wasm", import.meta.url)) {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Error(
      "this engine has no WebAssembly with SIMD, which $p.wasm needs; " +
        "Chrome has it from 91 on, Firefox from 89, Safari from 16.4, Node from 16.4",
    );
  }
  const { instance } = await WebAssembly.instantiate(await bytesOf(source), {});
  return new Network(instance.exports);
}

async function bytesOf(source) {
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return source;
  if (typeof source === "string" || source instanceof URL) {
    const url = new URL(source, import.meta.url);
    if (url.protocol === "file:" && typeof process === "object") {
      return (await import("node:fs/promises")).readFile(url);
    }
    source = await fetch(url);
  }
  if (typeof source?.arrayBuffer !== "function") {
    throw new TypeError(`load takes a URL, bytes or a Response, not $${kindOf(source)}`);
  }
  if (source.ok === false) throw new Error(`$${source.url} answered with status $${source.status}`);
  return source.arrayBuffer();
}
""",
    """\
function checked(given, { name, dtype, shape, elements }) {
  const kind = kindOf(given);
  const expected = `$${ARRAYS[dtype].name} of $${elements} (shape $${shape.join(" x ")})`;
  if (kind !== ARRAYS[dtype].name && !(dtype === "u8" && kind === "Uint8ClampedArray")) {
    throw new TypeError(`input $${name}: got $${kind}, expected $${expected}`);
  }
  if (given.length !== elements) {
    throw new RangeError(`input $${name}: got $${given.length} elements, expected $${expected}`);
  }
  return given;
}

function kindOf(given) {
  if (given === null) return "null";
  return given?.[Symbol.toStringTag] ?? (Array.isArray(given) ? "Array" : typeof given);
}
""",
)
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
export const outputs = $outputs;
export const classes = $classes; // their names, in the order of the scores
const IDENTITY = $identity;
const CODES = $codes;
const ARRAYS = $arrays;
const SIMD = new Uint8Array([$simd]);

$loads
class Network {
  #exports;

  constructor(exports) {
    if (!exports.${p}_metadata_json) {
      const other = Object.keys(exports).find((name) => name.endsWith("_metadata_json"));
      const name = other?.slice(0, -"_metadata_json".length);
      throw new Error(
        name === undefined
          ? "these bytes are not those of $p.wasm"
          : `this module was compiled under the name $${name}: $${name}.js loads it, not $p.js`,
      );
    }
    this.#exports = exports;
    const text = new Uint8Array(exports.memory.buffer, exports.${p}_metadata_json());
    this.metadata = JSON.parse(new TextDecoder().decode(text.subarray(0, text.indexOf(0))));
    for (const [key, value] of Object.entries(IDENTITY)) {
      if (this.metadata[key] !== value) {
        throw new Error(`$p.wasm is of another export than $p.js ($${key}); copy both again`);
      }
    }
  }

  /** The outputs of one call. One input is given bare, one output comes bare; of several there is
   *  an object by name. TypeError and RangeError for what is not as \\`inputs\\` says. */
  run(given) {
    const bare = inputs.length === 1;
    if (!bare && (typeof given !== "object" || given === null)) {
      throw new TypeError(`run takes an object with $${inputs.map((i) => i.name).join(", ")}`);
    }
    const arrays = inputs.map((end) => checked(bare ? given : given[end.name], end));
    inputs.forEach((end, i) => this.#at("input", i, end).set(arrays[i]));
    const ends = [...inputs.map((_, i) => `input_$${i}`), ...outputs.map((_, i) => `output_$${i}`)];
    this.#call("run", ...ends);
    const made = outputs.map((end, i) => [end.name, this.#at("output", i, end).slice()]);
    return made.length === 1 ? made[0][1] : Object.fromEntries(made);
  }

  /** Compares the weights with their checksum, and the outputs of built-in inputs with those that
   *  were expected when the library was written. Throws unless all is right. */
  selftest() {
    this.#call("selftest");
  }

  #at(kind, number, { dtype, elements }) {
    const address = this.#exports[`${p}_$${kind}_$${number}`].value;
    return new ARRAYS[dtype](this.#exports.memory.buffer, address, elements);
  }

  #call(name, ...ends) {
    const code = this.#exports[`${p}_$${name}`](
      ...[...ends, "arena"].map((end) => this.#exports[`${p}_$${end}`].value),
    );
    if (code !== 0) throw new Error(`${p}_$${name}: $${CODES[code] ?? `status $${code}`}`);
  }
}

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
export declare const outputs: readonly End[];
/** Names of the classes, in the order of the scores. */
export declare const classes: readonly string[];
/** The network of $p.wasm: beside $p.js, or its URL, bytes, or a response. */
export declare function load(
  source?: string | URL | ArrayBuffer | ArrayBufferView | Response,
): Promise<Network>;
""")


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
    loads, checks = SCRIPT_LOADS
    given = [a.c_name for a in interface.inputs]
    made = [a.c_name for a in interface.outputs]
    return _SCRIPT.substitute(
        p=interface.prefix,
        graph=json.dumps(interface.graph),
        x=given[0] if len(given) == 1 else f"{{ {', '.join(given)} }}",
        y=made[0] if len(made) == 1 else f"{{ {', '.join(made)} }}",
        takes="\n".join(f"// {line}" for line in _said(interface)),
        inputs=dumped([_described(a) for a in interface.inputs]),
        outputs=dumped([_described(a) for a in interface.outputs]),
        classes=json.dumps(interface.classes),
        identity=dumped(identity),
        codes=dumped({code: meaning for code, (_, meaning) in CODES.items() if code}),
        arrays="{ " + ", ".join(f"{dtype}: {name}" for dtype, name in ARRAYS.items()) + " }",
        simd=", ".join(map(str, SIMD)),
        loads=Template(loads).substitute(p=interface.prefix),
        checks=Template(checks).substitute(),
    )


def declarations(interface: Interface) -> str:
    """The text of `<prefix>.d.ts`."""
    takes = "\n".join(f"   *  {line}" for line in _said(interface))
    return _TYPES.substitute(
        p=interface.prefix,
        takes=f"  /** The outputs of one call.\n{takes} */",
        given=_typed(interface.inputs),
        made=_typed(interface.outputs),
    )


def _said(interface: Interface) -> list[str]:
    """A line for each tensor."""
    kinds = [("Takes", a) for a in interface.inputs] + [("Gives", a) for a in interface.outputs]
    return [
        f"{kind} {json.dumps(a.name)}: {_array(a)} of {a.type.elements}, "
        f"shape {' x '.join(map(str, a.type.sizes)) or '1'}."
        for kind, a in kinds
    ]


def _typed(arguments: tuple[Argument, ...]) -> str:
    if len(arguments) == 1:
        return _array(arguments[0])
    return "{ " + "; ".join(f"{json.dumps(a.name)}: {_array(a)}" for a in arguments) + " }"


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


def dumped(values: Mapping[Any, Any] | list[Any]) -> str:
    """JSON, a line for each value."""
    if isinstance(values, list):
        return "\n".join(["[", *(f"  {json.dumps(value)}," for value in values), "]"])
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in values.items())
    return "\n".join(["{", *lines, "}"])
