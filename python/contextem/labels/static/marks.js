/**
 * The columns as marks: colour and shape tell the vote.
 *
 * Each mark is drawn once as a stamp, and the stamps are copied into the pixels of the canvas: this takes a few
 * milliseconds for 10^5 columns whatever draws the canvas.  Votes are batches, drawn one after the other, so that what
 * is rare lies on top.
 */

import { NONE } from "./columns.js";

/** Colours of marks that are no class. */
export const PAPER = "#f4f6f8";
export const INK = "#0b0d10";

/**
 * Shapes on the unit circle: paths of SVG, and whether they are filled.  In the order of the classes, then unsure.
 * Two of the classes are circles to the figures of the package; here, one of them is a disc and the other a ring.
 */
export const SHAPES = [
  { path: "M.62 0A.62.62 0 1 1-.62 0A.62.62 0 1 1 .62 0Z", filled: true },
  { path: "M0-1.12L1.12 0L0 1.12L-1.12 0Z", filled: false },
  { path: "M.8 0A.8.8 0 1 1-.8 0A.8.8 0 1 1 .8 0Z", filled: false },
  { path: "M0-1.1L1.08.78L-1.08.78Z", filled: false },
  { path: "M-.86-.86H.86V.86H-.86Z", filled: false },
  { path: "M-.75-.75L.75.75M.75-.75L-.75.75", filled: false },
];
const UNVOTED = { path: "M.3 0A.3.3 0 1 1-.3 0A.3.3 0 1 1 .3 0Z", filled: true };
const SELECTED = { path: "M1.55 0A1.55 1.55 0 1 1-1.55 0A1.55 1.55 0 1 1 1.55 0Z", filled: false };

const OF_SPACING = 0.27; // radius of a mark
const RADIUS = [1.3, 9]; // CSS px
const DOTS_BELOW = 2.6; // CSS px: smaller marks are dots, since no shape is seen
const MARGIN = 32; // px around the canvas, so that stamps need not be cut

export class Marks {
  /** @param {string[]} colours of the classes @param {boolean} discs whether colours alone tell, as on a scale */
  constructor(colours, discs = false) {
    this.colours = [...colours, PAPER];
    this.shapes = discs ? this.colours.map(() => SHAPES[0]) : SHAPES;
    this.stamps = new Map();
    this.votesSeen = true;
    this.visible = 0;
  }

  /**
   * Draw the columns in sight; what was on the canvas goes.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {import("./view.js").View} view
   * @param {import("./columns.js").Columns} columns
   */
  draw(context, view, columns) {
    const { pixels, wide } = this.#paper(view);
    pixels.fill(0);
    const radius = this.radius(view, columns);
    const batches = this.#batches(view, columns);
    this.visible = batches.reduce((sum, batch) => sum + batch.length, 0);
    const stamp = (name, indices) => print(pixels, wide, this.#stamp(name, radius), indices, view, columns);
    stamp("selected", batches.pop());
    batches.forEach((indices, at) => stamp(at + NONE, indices));
    context.putImageData(this.image, -MARGIN, -MARGIN);
  }

  /** Radius of a mark, device px. */
  radius(view, columns) {
    const [least, most] = RADIUS.map((length) => length * devicePixelRatio);
    return Math.min(Math.max(OF_SPACING * columns.spacing * view.scale, least), most);
  }

  /** Indices of the columns in sight by vote, none first, and last those that are selected. */
  #batches(view, columns) {
    const batches = Array.from({ length: this.colours.length + 2 }, () => []);
    const selected = batches[batches.length - 1];
    const { label, selected: chosen } = columns;
    columns.each(view.box(MARGIN - 1), (index) => {
      batches[this.votesSeen ? label[index] - NONE : 0].push(index);
      if (chosen[index]) selected.push(index);
    });
    return batches;
  }

  #paper({ width, height }) {
    const [wide, high] = [width + 2 * MARGIN, height + 2 * MARGIN];
    if (this.image?.width !== wide || this.image.height !== high) {
      this.image = new ImageData(wide, high);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    return { pixels: this.pixels, wide };
  }

  #stamp(name, radius) {
    const size = Math.round(4 * radius) / 4;
    const key = `${name} ${size} ${devicePixelRatio}`;
    if (!this.stamps.has(key)) this.stamps.set(key, this.#make(name, size));
    return this.stamps.get(key);
  }

  #make(name, radius) {
    if (name === "selected") return stampOf(SELECTED, PAPER, radius, 1.4, 0.95);
    if (name === NONE)
      return stampOf(
        UNVOTED,
        PAPER,
        Math.max(radius, 2.4 * devicePixelRatio),
        1,
        radius < 5 * devicePixelRatio ? 0.6 : 0.85,
      );
    if (radius < DOTS_BELOW * devicePixelRatio)
      return stampOf({ ...SHAPES[0] }, this.colours[name], 1.5 * radius, 0.6, 1);
    return stampOf(this.shapes[name], this.colours[name], radius, 2, 1);
  }
}

/** Draw a shape with a dark rim, on which it is seen in the brightest parts of an image. */
function stampOf({ path, filled }, colour, radius, line, opacity) {
  const ratio = devicePixelRatio;
  const half = Math.min(Math.ceil(1.7 * radius + 2 * ratio), MARGIN - 1);
  const side = 2 * half + 1;
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  const outline = new Path2D();
  outline.addPath(new Path2D(path), new DOMMatrix([radius, 0, 0, radius, half + 0.5, half + 0.5]));
  context.globalAlpha = opacity;
  context.lineJoin = context.lineCap = "round";
  const thickness = (filled ? 0 : Math.max(line, 0.16 * (radius / ratio))) * ratio;
  context.strokeStyle = INK;
  context.lineWidth = thickness + (filled ? 1.6 : 1.8) * ratio;
  context.stroke(outline);
  context.fillStyle = context.strokeStyle = colour;
  context.lineWidth = thickness;
  if (filled) context.fill(outline);
  else context.stroke(outline);
  const pixels = new Uint32Array(context.getImageData(0, 0, side, side).data.buffer);
  const used = [...pixels.keys()].filter((k) => pixels[k] >>> 24 > 8);
  return {
    across: Int32Array.from(used, (k) => (k % side) - half),
    down: Int32Array.from(used, (k) => Math.floor(k / side) - half),
    colours: Uint32Array.from(used, (k) => pixels[k]),
  };
}

function print(pixels, wide, { across, down, colours }, indices, view, columns) {
  const offsets = Int32Array.from(across, (x, k) => x + down[k] * wide);
  const { x, y } = columns;
  const { scale, shiftX, shiftY } = view;
  for (const index of indices) {
    const at =
      (Math.round(y[index] * scale) + shiftY + MARGIN) * wide + Math.round(x[index] * scale) + shiftX + MARGIN;
    for (let k = 0; k < offsets.length; k++) {
      const place = at + offsets[k];
      const under = pixels[place];
      pixels[place] = under === 0 || colours[k] >>> 24 === 255 ? colours[k] : over(colours[k], under);
    }
  }
}

/** One colour on another, neither of them opaque of necessity. */
function over(top, under) {
  const a = top >>> 24;
  const b = ((under >>> 24) * (255 - a)) / 255;
  const mixed = (shift) => Math.round((((top >>> shift) & 255) * a + ((under >>> shift) & 255) * b) / (a + b));
  return ((Math.round(a + b) << 24) | (mixed(16) << 16) | (mixed(8) << 8) | mixed(0)) >>> 0;
}
