/** The current column enlarged: its patch, the reconstruction from its Zernike moments, and the mean of each class. */

import * as api from "./api.js";
import { element, glyph, make, spoken } from "./panel.js";

const WAIT = 70; // ms, so that holding an arrow key does not ask for every column on the way
const KEPT = 300; // patches

export class Closeup {
  /** @param {string[]} classes @param {string[]} colours */
  constructor(classes, colours) {
    this.classes = classes;
    this.seen = new Map();
    this.asked = new AbortController();
    this.means = classes.map((name, label) => {
      const canvas = make("canvas", { role: "img", "aria-label": `mean of ${spoken(name)}` });
      const caption = make("figcaption", { title: spoken(name) }, glyph(label, colours[label], 13));
      return { canvas, figure: make("figure", {}, canvas, caption) };
    });
    element("means").replaceChildren(...this.means.map(({ figure }) => figure));
    this.clear();
  }

  /** @param {number} image @param {number} column its number at the server, below zero if it has none yet */
  async show(image, column) {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    if (column < 0) return this.clear();
    const key = `${image}/${column}`;
    try {
      if (!this.seen.has(key)) {
        await new Promise((resolve) => setTimeout(resolve, WAIT));
        if (signal.aborted) return;
        this.seen.set(key, await api.patch(image, column, signal));
        if (this.seen.size > KEPT) this.seen.delete(this.seen.keys().next().value);
      }
      if (!signal.aborted) this.#draw(this.seen.get(key));
    } catch {
      if (!signal.aborted) this.clear();
    }
  }

  /** Forget a patch, of a column that was moved. */
  forget(image, column) {
    this.seen.delete(`${image}/${column}`);
  }

  clear() {
    element("closeup").dataset.state = "empty";
  }

  #draw({ size, patch, reconstruction, means }) {
    element("closeup").dataset.state = "shown";
    paint(element("patch"), size, patch);
    paint(element("reconstruction"), size, reconstruction);
    this.means.forEach(({ canvas, figure }, label) => {
      const mean = means?.[this.classes[label]];
      figure.hidden = !mean;
      paint(canvas, size, mean);
    });
    element("means").hidden = this.means.every(({ figure }) => figure.hidden);
  }
}

/** Show grey levels 0..255, row by row; nothing if there are none. */
function paint(canvas, size, levels) {
  canvas.parentElement.hidden = !levels;
  if (!levels) return;
  canvas.width = canvas.height = size;
  const pixels = new ImageData(size, size);
  const out = new Uint32Array(pixels.data.buffer);
  levels.forEach((level, k) => {
    out[k] = (255 << 24) | (level * 0x010101);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
