/** The current column enlarged: its patch, the reconstruction from its Zernike moments, and the mean of each class. */

import * as api from "./api.js";
import { element, glyph, make, spoken } from "./panel.js";

const WAIT = 70; // ms, so that holding an arrow key does not ask for every column on the way

export class Closeup {
  /** @param {string[]} classes @param {string[]} colours */
  constructor(classes, colours) {
    this.classes = classes;
    this.asked = new AbortController();
    this.means = classes.map((name, label) => {
      const canvas = make("canvas", { role: "img", "aria-label": `mean of my votes for ${spoken(name)}` });
      const caption = make("figcaption", { title: spoken(name) }, glyph(label, colours[label], 13));
      element("means").append(make("figure", {}, canvas, caption));
      return canvas;
    });
    this.clear();
  }

  /** @param {number} image @param {number} column its number at the server, below zero if it has none yet */
  async show(image, column) {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    if (column < 0) return this.clear();
    await new Promise((resolve) => setTimeout(resolve, WAIT));
    if (signal.aborted) return;
    try {
      this.#draw(await api.patch(image, column, signal));
    } catch {
      if (!signal.aborted) this.clear();
    }
  }

  clear() {
    element("closeup").dataset.state = "empty";
  }

  #draw({ size, patch, reconstruction, means }) {
    element("closeup").dataset.state = "shown";
    paint(element("patch"), size, patch);
    paint(element("reconstruction"), size, reconstruction);
    this.means.forEach((canvas, label) => paint(canvas, size, means?.[this.classes[label]]));
    element("means").hidden = !means || Object.keys(means).length === 0;
  }
}

/** Show rows of grey levels 0..255; an empty frame if there are none. */
function paint(canvas, size, levels) {
  canvas.classList.toggle("empty", !levels);
  canvas.width = canvas.height = size;
  if (!levels) return;
  const pixels = new ImageData(size, size);
  const out = new Uint32Array(pixels.data.buffer);
  levels.flat().forEach((level, k) => {
    out[k] = (255 << 24) | (level * 0x010101);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
