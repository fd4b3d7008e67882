"""The JavaScript that all scripts of WebAssembly modules share: what loads a module, what knows
that it is the right one, what puts arrays into its memory and calls it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

from .interface import Described

ARRAYS = {
    "f32": "Float32Array", "i32": "Int32Array", "u8": "Uint8Array", "i8": "Int8Array",
    "bool": "Uint8Array",
}  # fmt: skip
# The smallest module with a vector: (func (drop (v128.const i32x4 0 0 0 0))).
SIMD = b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\x0a\x17\1\x15\0\xfd\x0c" + bytes(16) + b"\x1a\x0b"

_CONSTANTS = Template("""\
export const outputs = $outputs;
export const classes = $classes; // their names, in the order of the scores
const IDENTITY = $identity;
const CODES = $codes;
const ARRAYS = $arrays;
const SIMD = new Uint8Array([$simd]);""")
_LOADS = Template("""\
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
""")
# Of the class: its memory, and the beginning; `begins` ends the constructor.
_OPENS = Template("""\
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
$begins  }""")
# `memory` is what functions take behind their tensors.
_RUNS = Template("""\
  run(given) {
    const places = outputs.map((_, i) => `output_$${i}`);
    const ends = [...this.#put("input", inputs, given, 1), ...places];
    this.#call("run", ...ends, $memory);
    const made = outputs.map((end, i) => [end.name, this.#view(`output_$${i}`, end, 1).slice()]);
    return made.length === 1 ? made[0][1] : Object.fromEntries(made);
  }""")
_CALLS = Template("""\
  #put(kind, ends, given, count) {
    const bare = ends.length === 1;
    if (!bare && (typeof given !== "object" || given === null)) {
      throw new TypeError(`expected an object with $${ends.map((end) => end.name).join(", ")}`);
    }
    const arrays = ends.map((end) => {
      const shape = count === 1 ? end.shape : [count, ...end.shape];
      const whole = { ...end, elements: count * end.elements, shape };
      return checked(bare ? given : given[end.name], whole);
    });
    return arrays.map((array, i) => {
      this.#view(`$${kind}_$${i}`, ends[i], count).set(array);
      return `$${kind}_$${i}`;
    });
  }

  #view(name, { dtype, elements }, count) {
    return new ARRAYS[dtype](this.#exports.memory.buffer, this.#address(name), count * elements);
  }

  #address(name) {
    return this.#exports[`${p}_$${name}`].value;
  }

  #call(name, ...ends) {
    const code = this.#exports[`${p}_$${name}`](...ends.map((end) => this.#address(end)));
    if (code !== 0) throw new Error(`${p}_$${name}: $${CODES[code] ?? `status $${code}`}`);
  }
}
""")
_CHECKS = Template("""\
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
""")
_TYPES_END = """\
export declare const outputs: readonly End[];
/** Names of the classes, in the order of the scores. */
export declare const classes: readonly string[];
/** The network of $p.wasm: beside $p.js, or its URL, bytes, or a response. */
export declare function load(
  source?: string | URL | ArrayBuffer | ArrayBufferView | Response,
): Promise<Network>;
"""


def shared_text(
    interface: Described, outputs: list[Any], identity: Mapping[str, object],
    codes: Mapping[int, tuple[str, str]], memory: Sequence[str], begins: str = "",
) -> dict[str, str]:  # fmt: skip
    """What the template of a script names: `p` and `graph`, and the texts of this file.

    identity  what the metadata of the module have to say
    codes     of the functions, with their names and meanings
    memory    what functions take behind their tensors
    begins    a statement at the end of the constructor
    """
    p = interface.prefix
    constants = _CONSTANTS.substitute(
        outputs=dumped(outputs),
        classes=json.dumps(interface.classes),
        identity=dumped(identity),
        codes=dumped({code: meaning for code, (_, meaning) in sorted(codes.items()) if code}),
        arrays="{ " + ", ".join(f"{dtype}: {name}" for dtype, name in ARRAYS.items()) + " }",
        simd=", ".join(map(str, SIMD)),
    )
    return {
        "p": p,
        "graph": json.dumps(interface.graph),
        "constants": constants,
        "loads": _LOADS.substitute(p=p),
        "opens": _OPENS.substitute(p=p, begins=f"    {begins}\n" if begins else ""),
        "runs": _RUNS.substitute(memory=", ".join(map(json.dumps, memory))),
        "calls": _CALLS.substitute(p=p),
        "checks": _CHECKS.substitute(),
    }


def shared_types(prefix: str) -> str:
    """The end of the types of a script."""
    return Template(_TYPES_END).substitute(p=prefix)


def named(names: Sequence[str]) -> str:
    """One name, or several as the members of an object."""
    return names[0] if len(names) == 1 else f"{{ {', '.join(names)} }}"


def typed(ends: Iterable[tuple[str, str]]) -> str:
    """The type of tensors (name, dtype): one array bare, of several an object."""
    arrays = [(json.dumps(name), ARRAYS[dtype]) for name, dtype in ends]
    if len(arrays) == 1:
        return arrays[0][1]
    return "{ " + "; ".join(f"{name}: {array}" for name, array in arrays) + " }"


def dumped(values: Mapping[Any, Any] | list[Any]) -> str:
    """JSON, a line for each value."""
    if isinstance(values, list):
        return "\n".join(["[", *(f"  {json.dumps(value)}," for value in values), "]"])
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in values.items())
    return "\n".join(["{", *lines, "}"])
