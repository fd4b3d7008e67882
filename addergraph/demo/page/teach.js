// Teaching: drawings of new signs, a lesson, and what it learned as a file.
//
// The network that learns is compiled with a step of its training (learn.js): a body that stays as it
// is, and a last layer in f32 that moves, which has places for some signs beside the digits. Once it
// has learned one, it answers for the page.

import * as learner from "./learn.js";
import { image, lesson } from "./lesson.js";

const FORMAT = "addergraph.signs", VERSION = 1;
const LONGEST = 12, MOST = 40; // letters of a name; drawings of a sign
const at = (id) => document.getElementById(id);

/** Makes the section work. `known`: places, images and labels to rehearse; `digits`: their names;
 *  `drawing()`: the strokes on the board; `clear()` takes them away; `change()`: answer anew. */
export async function teaching({ known, digits, white, drawing, clear, change }) {
  const net = await learner.load();
  net.selftest();
  Object.assign(net, { batch: learner.batch, pixels: learner.inputs[0].elements });
  let signs = [], taught = 0, busy = false; // signs: { name, drawings }; the first `taught` are known
  const say = (text) => { at("lesson").textContent = text; };

  function buttons() {
    at("keep").disabled = busy || !drawing().length || at("sign").value.trim() === "";
    at("learn").disabled = at("forget").disabled = busy || !signs.length;
    at("save").disabled = busy || !taught;
    at("open").disabled = busy;
  }

  function show() {
    buttons();
    at("signs").replaceChildren(...signs.map(card));
  }

  function keep() {
    const name = at("sign").value.trim().slice(0, LONGEST), strokes = drawing();
    if (!strokes.length || !name) return;
    if (digits.includes(name)) return say(`“${name}” is a digit, which it knows: name it otherwise.`);
    let sign = signs.find((one) => one.name === name);
    if (!sign && signs.length === known.places) {
      return say(`There are places for ${known.places} signs: forget them to teach others.`);
    }
    if (!sign) signs.push((sign = { name, drawings: [] }));
    if (sign.drawings.length === MOST) return say(`${MOST} drawings of “${name}” are enough.`);
    sign.drawings.push(structuredClone(strokes));
    clear();
    const count = sign.drawings.length;
    say(`${count} ${count === 1 ? "drawing" : "drawings"} of “${name}”` +
        (count < 5 ? `, five make a good lesson.` : `: let it learn.`));
    show();
  }

  async function learn() {
    busy = true;
    show();
    net.init();
    try {
      const told = (share) => say(`learning: ${Math.round(100 * share)} %`);
      const drawings = signs.map((sign) => sign.drawings), first = digits.length;
      const before = performance.now();
      const loss = await lesson(net, drawings, known, first, white, told);
      taught = signs.length;
      const seconds = ((performance.now() - before) / 1000).toFixed(1);
      say(`learned ${named()} in ${seconds} s (loss ${loss.toFixed(3)}): draw one`);
    } catch (error) {
      net.init();
      taught = 0;
      say(`It cannot learn this: ${error.message}`);
    }
    busy = false;
    show();
    change();
  }

  const named = () => signs.slice(0, taught).map(({ name }) => `“${name}”`).join(", ");

  function forget() {
    net.init();
    [signs, taught] = [[], 0];
    say("It has forgotten all signs.");
    show();
    change();
  }

  function save() {
    const content = {
      format: FORMAT, version: VERSION, signs: signs.slice(0, taught), state: encoded(net.save()),
    };
    const url = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
    const link = Object.assign(document.createElement("a"), { href: url, download: "signs.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    say(`saved ${named()} as signs.json`);
  }

  async function open(file) {
    try {
      const content = read(await file.text(), known.places, digits);
      net.load(decoded(content.state)); // a state of another network is refused here
      [signs, taught] = [content.signs, content.signs.length];
      say(`loaded ${named()}: draw one`);
    } catch (error) {
      say(`This file is refused: ${error.message}`);
    }
    show();
    change();
  }

  function card({ name, drawings }) {
    const item = document.createElement("li"), label = document.createElement("b");
    label.textContent = name;
    item.append(label, ...drawings.map(thumbnail));
    return item;
  }

  at("teach").hidden = false;
  at("sign").maxLength = LONGEST;
  at("sign").addEventListener("input", buttons);
  at("keep").addEventListener("click", keep);
  at("learn").addEventListener("click", learn);
  at("forget").addEventListener("click", forget);
  at("save").addEventListener("click", save);
  at("open").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", async ({ target }) => {
    if (target.files.length) await open(target.files[0]);
    target.value = ""; // the same file may be taken again
  });
  show();
  return {
    refresh: buttons,
    /** What it says of a drawing: names and chances; null while it has learned nothing. */
    answer(x) {
      if (!taught || busy) return null;
      const names = [...digits, ...signs.slice(0, taught).map(({ name }) => name)];
      const chances = [...net.run(x)].slice(0, names.length);
      const sum = chances.reduce((a, b) => a + b);
      return { names, chances: chances.map((chance) => chance / sum) };
    },
  };
}

/** The content of a file that `save` wrote; throws, with the reason, for any other text. */
export function read(text, places, digits) {
  if (text.length > 1 << 24) throw new Error("it is larger than any that this page writes");
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Error("it is no file that this page wrote");
  }
  if (content?.format !== FORMAT) throw new Error("it is no file that this page wrote");
  if (content.version !== VERSION) throw new Error(`its version is ${content.version}, not ${VERSION}`);
  const { signs, state } = content;
  const isPoint = (p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite);
  const isStroke = (s) => Array.isArray(s) && s.length > 0 && s.length < 10_000 && s.every(isPoint);
  const isDrawing = (d) => Array.isArray(d) && d.length > 0 && d.every(isStroke);
  const isSign = (s) => typeof s?.name === "string" && s.name && s.name.length <= LONGEST
    && !digits.includes(s.name) && Array.isArray(s.drawings) && s.drawings.length > 0
    && s.drawings.length <= MOST && s.drawings.every(isDrawing);
  const names = Array.isArray(signs) ? new Set(signs.map((s) => s?.name)) : new Set();
  if (!names.size || names.size !== signs.length || signs.length > places || !signs.every(isSign)) {
    throw new Error("its signs are damaged");
  }
  if (typeof state !== "string") throw new Error("it has no state");
  return { signs: signs.map(({ name, drawings }) => ({ name, drawings })), state };
}

function encoded(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function decoded(text) {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("its state is damaged");
  }
}

/** A picture of strokes as the network takes them. */
function thumbnail(strokes) {
  const size = 8, canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const paint = canvas.getContext("2d"), pixels = paint.createImageData(size, size);
  image(strokes, 16).forEach((value, i) => pixels.data.set([128, 128, 128, 16 * value], 4 * i));
  paint.putImageData(pixels, 0, 0);
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}
