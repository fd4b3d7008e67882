"""What a library that learns has for WebAssembly: the script of its module, and its types.

    net.wasm    code, first state and memory, linked where there is wasm-ld; it imports nothing
    net.js      an ES module that loads it, for browsers and Node: see its head
    net.d.ts    its types

Beside the functions of C, the module exports as globals the addresses of what these take:
`net_input_0` and so on, a batch of each, `net_answer_0`, `net_rate`, `net_loss`, `net_output_0`,
`net_state`, `net_saved` and `net_arena`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Any

from .training_interface import TRAINING_CODES, TrainingInterface
from .web import ARRAYS, SCRIPT_LOADS, SIMD, dumped

IDENTITY = "graph_sha256", "weights_sha256"  # of a module's metadata

_SCRIPT = Template("""\
// $p.js: the network $graph and a step of its training, compiled by AdderGraph. An ES module.
//
//     import { load } from "./$p.js";
//     const net = await load();   // $p.wasm beside this file; or its URL, its bytes, a Response
//     net.selftest();             // throws unless a step gives what it gave at the export
//     const loss = net.train($x, $labels, 0.05);   // $batch samples
//     const $y = net.run($one);   // of one sample
//     const bytes = net.save();   // Uint8Array; net.load(bytes) takes it back
//
// Tensors are dense and row-major (images: height, width, channel); results are copies.

export const batch = $batch;
export const inputs = $inputs; // of one sample
export const answers = $answers; // of a batch; classes: labels are below this number
export const outputs = $outputs;
export const classes = $classes; // their names, in the order of the scores
const IDENTITY = $identity;
const CODES = $codes;
const ARRAYS = $arrays;
const SIMD = new Uint8Array([$simd]);
const SCALAR = { dtype: "f32", elements: 1 };

$loads
class Network {
  #exports;

  constructor(exports) {
    if (!exports.${p}_train) throw new Error("these bytes are not those of $p.wasm");
    this.#exports = exports;
    const text = new Uint8Array(exports.memory.buffer, exports.${p}_metadata_json());
    this.metadata = JSON.parse(new TextDecoder().decode(text.subarray(0, text.indexOf(0))));
    for (const [key, value] of Object.entries(IDENTITY)) {
      if (this.metadata[key] !== value) {
        throw new Error(`$p.wasm is of another export than $p.js ($${key}); copy both again`);
      }
    }
    this.init();
  }

  /** The state before the first step. */
  init() {
    this.#call("init", "state");
  }

  /** One step on a batch; the mean loss before it. One input or answer is given bare, of several
   *  an object by name. Throws for arrays that do not fit, wrong labels, or a rate below 0. */
  train(given, expected, rate) {
    const ends = [
      ...this.#put("input", inputs, given, batch), ...this.#put("answer", answers, expected, 1),
    ];
    this.#view("rate", SCALAR, 1)[0] = rate;
    this.#call("train", ...ends, "rate", "loss", "state", "arena");
    return this.#view("loss", SCALAR, 1)[0];
  }

  /** What the network answers for one sample, by the weights as they are now. */
  run(given) {
    const places = outputs.map((_, i) => `output_$${i}`);
    const ends = [...this.#put("input", inputs, given, 1), ...places];
    this.#call("run", ...ends, "state", "arena");
    const made = outputs.map((end, i) => [end.name, this.#view(`output_$${i}`, end, 1).slice()]);
    return made.length === 1 ? made[0][1] : Object.fromEntries(made);
  }

  /** The state as bytes, which load reads back, here or on another machine. */
  save() {
    this.#call("save", "state", "saved");
    return this.#saved().slice();
  }

  /** Takes a saved state. Throws, and changes nothing, for bytes of another network or version,
   *  and for damaged ones. */
  load(bytes) {
    if (!(bytes instanceof Uint8Array)) throw new TypeError("load takes a Uint8Array");
    const room = this.#saved(), size = bytes.length;
    room.fill(0);
    room.set(bytes.subarray(0, room.length));
    const code = this.#exports.${p}_load(this.#address("state"), this.#address("saved"), size);
    if (code !== 0) throw new Error(`${p}_load: $${CODES[code] ?? `status $${code}`}`);
  }

  /** Throws unless a step on built-in samples gives what it gave at the export. The state begins
   *  anew. */
  selftest() {
    this.#call("selftest", "state", "arena");
  }

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

  #saved() {
    return new Uint8Array(this.#exports.memory.buffer, this.#address("saved"), $saved);
  }

  #address(name) {
    return this.#exports[`${p}_$${name}`].value;
  }

  #call(name, ...ends) {
    const code = this.#exports[`${p}_$${name}`](...ends.map((end) => this.#address(end)));
    if (code !== 0) throw new Error(`${p}_$${name}: $${CODES[code] ?? `status $${code}`}`);
  }
}

$checks""")

_TYPES = Template("""\
// Types of $p.js.

export interface End {
  readonly name: string;
  readonly dtype: "f32" | "i32" | "u8";
  readonly shape: readonly number[];
  readonly elements: number;
  /** Of labels: they are below this number. */
  readonly classes?: number;
}

export interface Network {
  /** What the library says of itself: tensors, state, target, versions, digests. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The state before the first step. */
  init(): void;
  /** One step on a batch; the mean loss before it. */
  train(given: $given, expected: $expected, rate: number): number;
  /** What the network answers for one sample. */
  run(given: $given): $made;
  /** The state as bytes. */
  save(): Uint8Array;
  /** Takes a saved state; throws, and changes nothing, for any other bytes. */
  load(bytes: Uint8Array): void;
  /** Throws unless a step gives what it gave at the export. The state begins anew. */
  selftest(): void;
}

/** Samples of a step. */
export declare const batch: number;
/** Of one sample. */
export declare const inputs: readonly End[];
/** What a step is told of a batch. */
export declare const answers: readonly End[];
export declare const outputs: readonly End[];
/** Names of the classes, in the order of the scores. */
export declare const classes: readonly string[];
/** The network of $p.wasm: beside $p.js, or its URL, bytes, or a response. */
export declare function load(
  source?: string | URL | ArrayBuffer | ArrayBufferView | Response,
): Promise<Network>;
""")


def script(interface: TrainingInterface, identity: Mapping[str, object]) -> str:
    """The text of `<prefix>.js`; `identity`: what the metadata of its module have to say."""
    loads, checks = SCRIPT_LOADS
    return _SCRIPT.substitute(
        p=interface.prefix,
        graph=json.dumps(interface.graph),
        batch=interface.batch,
        x=_names([a.c_name for a in interface.samples]),
        one=_names([a.c_name for a in interface.samples]),
        labels=_names([a.c_name for a in interface.answers]),
        y=_names([a.c_name for a in interface.outputs]),
        inputs=dumped([_end(a.name, a.type, skip=1) for a in interface.samples]),
        answers=dumped([
            _end(a.c_name, a.given) | ({"classes": a.classes} if a.labelled else {})
            for a in interface.answers
        ]),
        outputs=dumped([_end(a.name, a.type, skip=1) for a in interface.outputs]),
        classes=json.dumps(interface.classes),
        identity=dumped(identity),
        codes=dumped({code: told for code, (_, told) in sorted(TRAINING_CODES.items()) if code}),
        arrays="{ " + ", ".join(f"{dtype}: {name}" for dtype, name in ARRAYS.items()) + " }",
        simd=", ".join(map(str, SIMD)),
        saved=interface.saved_bytes,
        loads=Template(loads).substitute(p=interface.prefix),
        checks=Template(checks).substitute(),
    )  # fmt: skip


def declarations(interface: TrainingInterface) -> str:
    """The text of `<prefix>.d.ts`."""
    return _TYPES.substitute(
        p=interface.prefix,
        given=_typed({a.name: a.type.dtype.name for a in interface.samples}),
        expected=_typed({a.c_name: a.given.dtype.name for a in interface.answers}),
        made=_typed({a.name: a.type.dtype.name for a in interface.outputs}),
    )


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{{ {', '.join(names)} }}"


def _typed(ends: Mapping[str, str]) -> str:
    if len(ends) == 1:
        return ARRAYS[next(iter(ends.values()))]
    return "{ " + "; ".join(f"{json.dumps(n)}: {ARRAYS[dtype]}" for n, dtype in ends.items()) + " }"


def _end(name: str, type: Any, skip: int = 0) -> dict[str, Any]:
    shape = list(type.sizes[skip:])
    return {"name": name, "dtype": type.dtype.name, "shape": shape, "elements": type.elements}
