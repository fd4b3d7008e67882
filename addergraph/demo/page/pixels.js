// A drawing as the data set has its digits: black and white at 32 x 32, then counts of 4 x 4.
//
// The digits were scaled to the full height, and thickened or thinned until 0.2 to 0.4 of the pixels
// were ink (means of the 1,437 images: 8.0 of 8 rows, 5.7 of 8 columns). So is a drawing here: its
// lines are fitted into a box of HEIGHT x WIDTH in the middle, and are as wide as it takes for INK.

const SIZE = 32, BLOCK = 4, HEIGHT = 32, WIDTH = 24, INK = 0.25;
const THINNEST = 1.5, THICKEST = 4, STEP = 0.25; // half the width of a line, in pixels

/** Uint8Array of 8 x 8 counts, 0..16, of strokes, each an array of points [x, y]. */
export function counts(strokes) {
  const found = new Uint8Array((SIZE / BLOCK) ** 2);
  thickened(strokes).forEach((ink, i) => {
    const row = Math.floor(i / SIZE / BLOCK), column = Math.floor((i % SIZE) / BLOCK);
    found[(row * SIZE) / BLOCK + column] += ink;
  });
  return found;
}

function thickened(strokes) {
  for (let radius = THINNEST; ; radius += STEP) {
    const pixels = bitmap(strokes, radius);
    const ink = pixels.reduce((sum, one) => sum + one, 0);
    if (ink >= INK * pixels.length || radius >= THICKEST) return pixels;
  }
}

/** SIZE x SIZE zeros and ones: what is within `radius` of a line. */
function bitmap(strokes, radius) {
  const points = strokes.flat(), pixels = new Uint8Array(SIZE * SIZE);
  const ends = [0, 1].map((axis) => {
    const all = points.map((point) => point[axis]);
    return [Math.min(...all), Math.max(...all)];
  });
  const room = [WIDTH, HEIGHT].map((pixel) => pixel - 2 * radius);
  const fitting = Math.min(...ends.map(([low, high], axis) => room[axis] / (high - low)));
  const scale = Number.isFinite(fitting) ? fitting : 0; // a dot stays one
  const place = (point) => point.map((p, axis) => {
    const [low, high] = ends[axis];
    return SIZE / 2 + (p - (low + high) / 2) * scale;
  });
  for (const stroke of strokes) {
    const line = stroke.map(place);
    line.forEach((end, i) => mark(pixels, line[Math.max(0, i - 1)], end, radius));
  }
  return pixels;
}

function mark(pixels, [ax, ay], [bx, by], radius) {
  const clamp = (p) => Math.max(0, Math.min(SIZE - 1, p));
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy || 1;
  const [left, right] = [Math.min(ax, bx) - radius, Math.max(ax, bx) + radius].map(clamp);
  const [top, bottom] = [Math.min(ay, by) - radius, Math.max(ay, by) + radius].map(clamp);
  for (let y = Math.floor(top); y <= bottom; y++) {
    for (let x = Math.floor(left); x <= right; x++) {
      const px = x + 0.5 - ax, py = y + 0.5 - ay;
      const along = Math.max(0, Math.min(1, (px * dx + py * dy) / length));
      if (Math.hypot(px - along * dx, py - along * dy) <= radius) pixels[y * SIZE + x] = 1;
    }
  }
}
