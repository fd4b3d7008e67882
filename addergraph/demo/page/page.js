// The page: a drawing, what the network says of it, and what its layers give.
//
// A drawing can stand in the address, which links to it, and by which tests draw:
//   #strokes=30,20 60,20 40,80;35,50 60,50     strokes of points, in percent of the board
//   #keys=ArrowUp*5 Space ArrowDown*10         keys, pressed so many times
// They become the events that a hand makes, so all of the page takes part.

import { counts } from "./pixels.js";
import * as classifier from "./net.js";
import * as observed from "./layers.js";

const CALLS = 32; // in a burst that is timed: clocks of browsers tick every 5 to 100 us
const FRAMES = 30; // that show a change: engines make code faster while it runs, the time falls
const NEAR = 1 / 128, MOVE = 1 / 24; // of the board: points to leave out, a step of the cursor
const COLUMNS = 16; // maps side by side
const TAUGHT = "Answered by the network that was taught. It computes in f32 and multiplies; the " +
  "certificate is that of net.wasm, which reads digits alone.";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const at = (id) => document.getElementById(id);
const board = at("board");

let strokes = [], pen = null; // `pen` is the stroke that grows
let cursor = null; // of the keyboard
let left = 0, least = Infinity; // frames to show, microseconds

try {
  await start();
  at("problem").hidden = true;
} catch (error) {
  at("problem").textContent = `The network cannot run here: ${error.message}`;
}

async function start() {
  const got = async (name) => {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name}: status ${response.status}`);
    return response;
  };
  const bytes = await (await got("net.wasm")).arrayBuffer();
  const certificate = await (await got("certificate.json")).json();
  const { white, teach } = await (await got("demo.json")).json();
  const net = await classifier.load(bytes), layers = await observed.load();
  net.selftest();
  layers.selftest();
  at("multiplications").replaceChildren(...(await certified(certificate, bytes)));
  let lessons = null; // what can be taught
  const show = shown(net, layers, white, () => lessons);
  const tick = () => { draw(); show(); if (--left > 0) requestAnimationFrame(tick); };
  const change = () => { if (left <= 0) requestAnimationFrame(tick); left = FRAMES; };
  const clear = listen(change);
  if (teach) {
    const { teaching } = await import("./teach.js");
    lessons = await teaching({
      known: teach, digits: namesOf(observed.outputs[0]), white, drawing: () => strokes, clear, change,
    });
  }
  change();
  replay(new URLSearchParams(location.hash.slice(1)));
}

/** What the certificate says of these bytes, which it names by their digest. */
async function certified({ multiplication_free: free, sha256, decoder }, bytes) {
  const link = Object.assign(document.createElement("a"), { href: "certificate.json" });
  link.textContent = "the certificate";
  if (!free) return ["refused by ", link];
  if (!crypto.subtle) return ["0, by ", link, ` (${decoder})`]; // digests need https, or localhost
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error("certificate.json is that of another net.wasm");
  return ["0, by ", link, ` of these very bytes (${decoder})`];
}

// -- drawing ---------------------------------------------------------------------------------------

function listen(change) {
  const clear = () => { strokes = []; lift(); change(); };
  const set = (event) => {
    const box = board.getBoundingClientRect();
    for (const one of event.getCoalescedEvents?.().concat(event) ?? [event]) {
      add([(one.clientX - box.left) / box.width, (one.clientY - box.top) / box.height]);
    }
    change();
  };
  board.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button > 0) return;
    if (event.isTrusted) board.setPointerCapture(event.pointerId);
    cursor = null;
    lower();
    set(event);
  });
  board.addEventListener("pointermove", (event) => pen && event.isPrimary && !cursor && set(event));
  for (const end of ["pointerup", "pointercancel"]) {
    board.addEventListener(end, (event) => event.isPrimary && !cursor && lift());
  }
  board.addEventListener("keydown", (event) => press(event, change, clear));
  board.addEventListener("focus", () => {
    if (!board.matches(":focus-visible")) return; // by a pointer
    cursor = [0.5, 0.5];
    change();
  });
  board.addEventListener("blur", () => { lift(); cursor = null; change(); });
  at("clear").addEventListener("click", clear);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", change);
  return clear;
}

function press(event, change, clear) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.toLowerCase() === "c") return clear();
  const step = ARROWS[event.key];
  if (!step && event.key !== " ") return;
  event.preventDefault(); // the page shall not scroll
  cursor ??= [0.5, 0.5];
  if (step) cursor = cursor.map((p, axis) => Math.max(0, Math.min(1, p + MOVE * step[axis])));
  else if (pen) lift();
  else lower();
  at("pen").textContent = pen ? "pen down" : "pen up";
  if (pen) add(cursor);
  change();
}

function lower() {
  strokes.push((pen = []));
}

function lift() {
  pen = null;
  at("pen").textContent = "";
}

function add([x, y]) {
  const last = pen.at(-1);
  if (!last || Math.hypot(x - last[0], y - last[1]) >= NEAR) pen.push([x, y]);
}

function draw() {
  const paint = board.getContext("2d"), size = board.width;
  paint.clearRect(0, 0, size, size);
  paint.strokeStyle = getComputedStyle(board).color;
  Object.assign(paint, { lineWidth: size / 14, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    paint.beginPath();
    for (const [x, y] of [stroke[0], ...stroke]) paint.lineTo(x * size, y * size);
    paint.stroke();
  }
  if (!cursor) return;
  paint.lineWidth = size / 100;
  paint.strokeStyle = getComputedStyle(at("seen")).color;
  paint.beginPath();
  paint.arc(cursor[0] * size, cursor[1] * size, size / (pen ? 40 : 22), 0, 2 * Math.PI);
  paint.stroke();
}

// -- the answer ------------------------------------------------------------------------------------

/** Makes what answers: a function that shows what the network says of the strokes; the one that was
 *  taught, where it has learned something. */
function shown(net, layers, white, lessons) {
  const [scores, ...ends] = observed.outputs, [, height, width] = observed.inputs[0].shape;
  const digits = namesOf(scores), canvases = ends.map(figure), rows = [];
  return () => {
    const image = strokes.length ? counts(strokes) : new Uint8Array(height * width);
    const x = image.map((count) => Math.round((count * white) / 16));
    const made = timed(net, x), taught = lessons()?.answer(x);
    const { names, chances: found } = taught ?? { names: digits, chances: softmax(made, scores.scale) };
    const chances = strokes.length ? found : names.map(() => 0);
    const best = chances.indexOf(Math.max(...chances));
    while (rows.length < names.length) rows.push(row());
    rows.forEach((show, i) => show(names[i], chances[i], strokes.length > 0 && i === best));
    at("by").textContent = taught ? TAUGHT : "";
    at("scores").classList.toggle("taught", Boolean(taught));
    say(strokes.length ? names[best] : "");
    lessons()?.refresh();
    maps(at("seen"), x, [1, height, width, 1], white);
    const given = layers.run(x);
    ends.forEach(({ name, shape }, i) => {
      maps(canvases[i], given[name], shape, Math.max(1, ...given[name]));
    });
  };
}

function namesOf({ elements }) {
  return Array.from({ length: elements }, (_, i) => classifier.classes[i] ?? `${i}`);
}

function say(text) {
  if (at("answer").textContent === text) return;
  at("answer").textContent = text;
  at("answer").classList.toggle("long", [...text].length > 2);
}

function timed(net, x) {
  const before = performance.now();
  let scores;
  for (let i = 0; i < CALLS; i++) scores = net.run(x);
  const time = ((performance.now() - before) * 1000) / CALLS;
  if (time > 0) least = Math.min(least, time);
  if (least < Infinity) at("time").textContent = `${least.toFixed(1)} µs an image, the least so far`;
  return scores;
}

function softmax(scores, scale = 1) {
  const most = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp((score - most) * scale));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function row() {
  const item = document.createElement("li");
  const [label, bar, percent] = ["span", "div", "span"].map((tag) => document.createElement(tag));
  bar.className = "bar";
  percent.className = "percent";
  const fill = bar.appendChild(document.createElement("span"));
  item.append(label, bar, percent);
  at("scores").append(item);
  return (name, chance, best) => {
    item.hidden = name === undefined;
    if (item.hidden) return;
    if (label.textContent !== name) label.textContent = name;
    item.classList.toggle("best", best);
    fill.style.width = `${100 * chance}%`;
    percent.textContent = `${(100 * chance).toFixed(1)} %`;
  };
}

function figure({ name, shape: [, height, width, channels] }) {
  const made = document.createElement("figure"), canvas = document.createElement("canvas");
  const text = document.createElement("figcaption");
  text.textContent = `${name}: ${channels} maps of ${height} × ${width}`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text.textContent);
  made.append(text, canvas);
  at("layers").append(made);
  return canvas;
}

/** Paints values [1,H,W,C] as C maps, the stronger the larger, up to `most`. */
function maps(canvas, values, [, height, width, channels], most) {
  const columns = Math.min(COLUMNS, channels), gap = channels > 1 ? 1 : 0;
  const rows = Math.ceil(channels / columns);
  const wide = columns * (width + gap) - gap, high = rows * (height + gap) - gap;
  Object.assign(canvas, { width: wide, height: high });
  const paint = canvas.getContext("2d"), image = paint.createImageData(wide, high);
  const colour = getComputedStyle(canvas).color.match(/\d+/g).slice(0, 3).map(Number);
  values.forEach((value, i) => {
    const channel = i % channels, pixel = (i - channel) / channels, column = pixel % width;
    const x = (channel % columns) * (width + gap) + column;
    const y = Math.floor(channel / columns) * (height + gap) + (pixel - column) / width;
    image.data.set([...colour, 24 + (231 * value) / most], 4 * (y * wide + x));
  });
  paint.putImageData(image, 0, 0);
}

// -- a drawing in the address ----------------------------------------------------------------------

function replay(given) {
  const box = board.getBoundingClientRect();
  const send = (type, [x, y]) => board.dispatchEvent(new PointerEvent(type, {
    isPrimary: true, pointerId: 1, button: type === "pointermove" ? -1 : 0,
    clientX: box.left + (x / 100) * box.width, clientY: box.top + (y / 100) * box.height,
  }));
  for (const stroke of given.get("strokes")?.split(";") ?? []) {
    const points = stroke.trim().split(" ").map((point) => point.split(",").map(Number));
    if (points.flat().length !== 2 * points.length || points.flat().some(Number.isNaN)) continue;
    send("pointerdown", points[0]);
    points.slice(1).forEach((point) => send("pointermove", point));
    send("pointerup", points.at(-1));
  }
  for (const text of given.get("keys")?.split(" ") ?? []) {
    const [name, times = "1"] = text.split("*");
    const key = name === "Space" ? " " : name;
    for (let i = 0; i < Math.min(100, Number(times)); i++) {
      board.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
    }
  }
}
