/** An image with marks on its columns, that can be looked around in: what the pages of experts and chair share. */

import { Columns } from "./columns.js";
import { Marks } from "./marks.js";
import { Minimap } from "./minimap.js";
import { draw as drawOver, scaleBar } from "./overlay.js";
import { element } from "./panel.js";
import { Tiles } from "./tiles.js";
import { plain } from "./tones.js";
import { View } from "./view.js";

const STEP = 1.4; // of a zoom by key or button
const TOOLS = 60; // CSS px that the tools take of the left
const SCALE_BAR = 180; // CSS px, at most

export class Stage {
  /**
   * @param {string[]} colours of the classes
   * @param {() => {ring?: number | null, outline?: [number, number][] | null, aim?: [number, number] | null}} over
   *   tells what lies over the marks: index of the column that has the ring, and the rest as `overlay.draw` takes it
   */
  constructor(colours, over = () => ({})) {
    this.over = over;
    this.view = new View();
    this.columns = new Columns();
    this.marks = new Marks(colours);
    this.tones = plain;
    /** @type {Tiles | null} */
    this.tiles = null;
    this.image = null;
    this.waiting = false;
    this.picture = element("picture").getContext("2d", { alpha: false });
    this.ink = element("marks").getContext("2d");
    this.minimap = new Minimap(element("minimap"), (x, y) => this.look(() => this.view.centre(x, y)));
    new ResizeObserver(() => this.#resize()).observe(element("stage"));
    this.#resize();
  }

  /** Show another image, from edge to edge. @param {import("./api.js").Picture} image */
  open(image) {
    this.tiles?.close();
    this.image = image;
    this.tiles = new Tiles(image, () => this.redraw());
    this.tiles.tone(this.tones);
    this.view.show(image.width, image.height);
    this.redraw();
  }

  /** @param {import("./tones.js").Tones} tones */
  tone(tones) {
    this.tones = tones;
    this.tiles?.tone(tones);
  }

  /** Change the view, and draw. @param {() => void} change */
  look(change) {
    change();
    this.redraw();
  }

  /** Zoom by key, about the column with the ring if it is in sight. @param {boolean} closer */
  step(closer) {
    const { ring } = this.over();
    const [x, y] = ring === null || ring === undefined ? [-1, -1] : this.#place(ring);
    const inside = x >= 0 && y >= 0 && x <= this.view.width && y <= this.view.height;
    this.look(() => this.view.zoom(closer ? STEP : 1 / STEP, ...(inside ? [x, y] : [])));
  }

  /** Draw before the next frame. */
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    if (!this.tiles) return;
    const { view, picture, ink } = this;
    picture.fillStyle = "#08090b";
    picture.fillRect(0, 0, view.width, view.height);
    this.tiles.draw(picture, view);
    this.marks.draw(ink, view, this.columns);
    const over = this.over();
    drawOver(ink, view, { ...over, ring: this.#ring(over.ring) });
    this.minimap.draw(view, this.tiles);
    this.#scaleBar();
  }

  #place(index) {
    return this.view.toScreen(this.columns.x[index], this.columns.y[index]).map(Math.round);
  }

  #ring(index) {
    if (index === null || index === undefined) return null;
    return [...this.#place(index), Math.max(1.9 * this.marks.radius(this.view, this.columns), 9 * devicePixelRatio)];
  }

  #scaleBar() {
    const { text, pixels } = scaleBar(this.view, this.image.sampling, SCALE_BAR * devicePixelRatio);
    element("scale-text").textContent = text;
    element("scale-line").style.width = `${pixels / devicePixelRatio}px`;
  }

  #resize() {
    const { clientWidth, clientHeight } = element("stage");
    const [width, height] = [clientWidth, clientHeight].map((length) =>
      Math.max(1, Math.round(length * devicePixelRatio)),
    );
    for (const id of ["picture", "marks"]) Object.assign(element(id), { width, height });
    this.view.resize(width, height, TOOLS * devicePixelRatio);
    this.draw();
  }
}
