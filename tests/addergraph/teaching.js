// Teaches the page in a frame, by the events that a hand makes. `given`: { lessons, fresh, digits },
// each a list of drawings, texts of strokes in percent of the board; the page says what it answers.
const given = GIVEN;
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const frame = Object.assign(document.createElement("iframe"), { src: "index.html", width: 900, height: 1700 });
frame.style.border = "0";
document.body.replaceChildren(frame);
const at = (id) => frame.contentDocument?.getElementById(id);
const until = async (holds, what) => {
  for (let i = 0; i < 600; i++) {
    if (holds()) return;
    await later(100);
  }
  throw new Error(`waited in vain: ${what}; ${at("lesson")?.textContent} ${at("problem")?.textContent}`);
};

async function draw(text) {
  at("clear").click();
  const board = at("board"), box = board.getBoundingClientRect();
  const send = (type, [x, y]) => board.dispatchEvent(new frame.contentWindow.PointerEvent(type, {
    isPrimary: true, pointerId: 1, button: type === "pointermove" ? -1 : 0, bubbles: true,
    clientX: box.left + (x / 100) * box.width, clientY: box.top + (y / 100) * box.height,
  }));
  for (const stroke of text.split(";")) {
    const points = stroke.split(" ").map((point) => point.split(",").map(Number));
    send("pointerdown", points[0]);
    points.slice(1).forEach((point) => send("pointermove", point));
    send("pointerup", points.at(-1));
  }
  at("answer").textContent = "";
  await until(() => at("answer").textContent !== "", "an answer");
  return at("answer").textContent;
}

async function answers(texts) {
  const said = [];
  for (const text of texts) said.push(await draw(text));
  return said;
}

async function take(text, name = "signs.json") {
  const files = new frame.contentWindow.DataTransfer();
  files.items.add(new frame.contentWindow.File([text], name));
  at("file").files = files.files;
  at("lesson").textContent = "";
  at("file").dispatchEvent(new frame.contentWindow.Event("change"));
  await until(() => at("lesson").textContent !== "", "the file");
  return at("lesson").textContent;
}

async function main() {
  await until(() => at("teach") && !at("teach").hidden && at("problem").hidden, "the page");
  const found = { before: await answers(given.fresh.slice(0, 2)) };
  at("sign").value = "★";
  at("sign").dispatchEvent(new frame.contentWindow.Event("input"));
  for (const text of given.lessons) {
    await draw(text);
    await until(() => !at("keep").disabled, "the button");
    at("keep").click();
  }
  found.kept = at("signs").querySelectorAll("canvas").length;
  at("learn").click();
  await until(() => at("lesson").textContent.startsWith("learned"), "the lesson");
  found.lesson = at("lesson").textContent;
  found.fresh = await answers(given.fresh);
  found.by = at("by").textContent;
  found.digits = await answers(given.digits);
  // The file that it saves, read off the link that it makes.
  let saved = null;
  const link = frame.contentWindow.HTMLAnchorElement.prototype, click = link.click;
  link.click = function () { saved = this.href; };
  at("save").click();
  link.click = click;
  const text = await (await frame.contentWindow.fetch(saved).catch(() => null))?.text()
    ?? await (await fetch(saved)).text();
  at("forget").click();
  found.forgotten = await answers(given.fresh.slice(0, 2));
  const other = JSON.parse(text);
  const bytes = Uint8Array.from(atob(other.state), (letter) => letter.charCodeAt(0));
  bytes[20] ^= 1;
  const refused = [
    "text", "{}", JSON.stringify({ ...other, version: 2 }), JSON.stringify({ ...other, signs: [] }),
    JSON.stringify({ ...other, state: other.state.slice(4) }),
    JSON.stringify({ ...other, state: other.state.slice(0, -4) }),
    JSON.stringify({ ...other, state: btoa(String.fromCharCode(...bytes)) }),
    JSON.stringify({ ...other, signs: [{ name: "7", drawings: other.signs[0].drawings }] }),
  ];
  found.refused = [];
  for (const one of refused) found.refused.push(await take(one));
  found.still = await answers(given.fresh.slice(0, 2));
  found.loaded = await take(text);
  found.again = await answers(given.fresh);
  return found;
}

try {
  report(JSON.stringify(await main()));
} catch (error) {
  report(JSON.stringify({ error: `${error}` }));
}
