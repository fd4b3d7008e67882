// What a lesson is: steps of training on new drawings, moved a little each time, and on digits that
// the network knows, so that it does not forget them. No page is needed: Node runs it, too.

import { counts } from "./pixels.js";

const STEPS = 240, RATE = 0.03; // of the last layer; the rate falls to 0
const NEW = 0.5; // share of a batch
const TURN = 0.2, STRETCH = 0.2, SHAKE = 0.03; // of a drawing: radians, shares of its size
const AT_ONCE = 8; // steps before the page may paint

/** Teaches `net` the `signs`, arrays of drawings; `first` is the class of the first sign. Gives the
 *  mean loss of the last steps. `told` hears the share that is done. */
export async function lesson(net, signs, { images, labels }, first, white, told, random = Math.random) {
  const pixels = net.pixels, x = new Uint8Array(net.batch * pixels), y = new Int32Array(net.batch);
  const below = (count) => Math.floor(random() * count);
  const put = (row, values, label) => { x.set(values, row * pixels); y[row] = label; };
  let loss = 0;
  for (let step = 0; step < STEPS; step++) {
    for (let row = 0; row < net.batch; row++) {
      if (row < NEW * net.batch) {
        const sign = (row + step) % signs.length, drawings = signs[sign];
        put(row, image(moved(drawings[below(drawings.length)], random), white), first + sign);
      } else {
        const known = below(images.length);
        put(row, images[known], labels[known]);
      }
    }
    const now = net.train(x, y, RATE * (1 - step / STEPS));
    loss += (now - loss) / Math.min(step + 1, 20);
    if (step % AT_ONCE === AT_ONCE - 1) {
      told((step + 1) / STEPS);
      await new Promise((done) => setTimeout(done));
    }
  }
  if (!Number.isFinite(loss)) throw new Error("the loss is no number; forget, and teach it again");
  return loss;
}

/** The bytes that the network takes for strokes. */
export function image(strokes, white) {
  return counts(strokes).map((count) => Math.round((count * white) / 16));
}

/** Strokes turned and stretched a little, their points shaken. */
export function moved(strokes, random = Math.random) {
  const about = (most) => (2 * random() - 1) * most;
  const points = strokes.flat(), axes = [0, 1];
  const middle = axes.map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);
  const size = Math.max(...axes.map((axis) => Math.max(...points.map((p) => Math.abs(p[axis] - middle[axis])))));
  const angle = about(TURN), [wide, high] = [1 + about(STRETCH), 1 + about(STRETCH)];
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  return strokes.map((stroke) => {
    // A stroke is shaken as a whole, so that its lines stay as smooth as they are.
    const [right, down] = axes.map(() => about(SHAKE) * size);
    return stroke.map(([px, py]) => {
      const dx = (px - middle[0]) * wide, dy = (py - middle[1]) * high;
      return [middle[0] + cosine * dx - sine * dy + right, middle[1] + sine * dx + cosine * dy + down];
    });
  });
}
