"""What a library that learns has for WebAssembly: the script of its module, and its types.

    net.wasm    code, first state and memory, linked where there is wasm-ld; it imports nothing
    net.js      an ES module that loads it, for browsers and Node: see its head
    net.d.ts    its types

Beside the functions of C, the module exports as globals the addresses of what these take:
`net_input_0` and so on, a batch of each, `net_answer_0`, `net_rate`, `net_loss`, `net_output_0`,
`net_state`, `net_saved` and `net_arena`.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from .script import dumped, named, shared_text, shared_types, typed
from .training_interface import TRAINING_CODES, TrainingInterface

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
$constants
const SCALAR = { dtype: "f32", elements: 1 };

$loads
class Network {
$opens

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
$runs

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

  #saved() {
    return new Uint8Array(this.#exports.memory.buffer, this.#address("saved"), $saved);
  }

$calls
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
$end""")


def script(interface: TrainingInterface, identity: Mapping[str, object]) -> str:
    """The text of `<prefix>.js`; `identity`: what the metadata of its module have to say."""
    outputs = [_end(a.name, a.type, skip=1) for a in interface.outputs]
    given = named([a.c_name for a in interface.samples])
    shared = shared_text(
        interface, outputs, identity, TRAINING_CODES, ["state", "arena"], "this.init();"
    )
    return _SCRIPT.substitute(
        shared,
        batch=interface.batch,
        x=given,
        one=given,
        labels=named([a.c_name for a in interface.answers]),
        y=named([a.c_name for a in interface.outputs]),
        inputs=dumped([_end(a.name, a.type, skip=1) for a in interface.samples]),
        answers=dumped([
            _end(a.c_name, a.given) | ({"classes": a.classes} if a.labelled else {})
            for a in interface.answers
        ]),
        saved=interface.saved_bytes,
    )  # fmt: skip


def declarations(interface: TrainingInterface) -> str:
    """The text of `<prefix>.d.ts`."""
    return _TYPES.substitute(
        p=interface.prefix,
        given=typed((a.name, a.type.dtype.name) for a in interface.samples),
        expected=typed((a.c_name, a.given.dtype.name) for a in interface.answers),
        made=typed((a.name, a.type.dtype.name) for a in interface.outputs),
        end=shared_types(interface.prefix),
    )


def _end(name: str, type: Any, skip: int = 0) -> dict[str, Any]:
    shape = list(type.sizes[skip:])
    return {"name": name, "dtype": type.dtype.name, "shape": shape, "elements": type.elements}
