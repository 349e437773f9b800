/**
 * The image as a pyramid of tiles: those in sight are loaded, coloured, drawn and, the longest unused first, forgotten.
 *
 * Tile (level, row, column) covers 512 * 2^level px from 512 * 2^level * (row, column) on.  Where one is still to come,
 * a part of a coarser one stands in for it.
 */

import * as api from "./api.js";
import { plain, table } from "./tones.js";

const SIDE = 512;
const KEPT = 220; // tiles: what the largest screens show, and as many again
const AT_ONCE = 6; // requests
const FAILED = 3000; // ms until a tile that did not come is asked for again
const SMOOTH_BELOW = 16; // device px per image px: closer, pixels are shown as such

export class Tiles {
  /**
   * @param {import("./api.js").Picture} image
   * @param {() => void} changed called when there is more to draw
   */
  constructor(image, changed) {
    this.image = image;
    this.changed = changed;
    this.top = Math.max(0, Math.ceil(Math.log2(Math.max(image.height, image.width) / SIDE)));
    this.colours = table(plain);
    this.version = 0;
    /** @type {Map<string, Tile>} in the order of their last use */
    this.kept = new Map();
    this.wanted = [];
    this.loading = 0;
    this.closed = false;
  }

  /** @param {import("./tones.js").Tones} tones */
  tone(tones) {
    this.colours = table(tones);
    this.version += 1;
    this.changed();
  }

  /** Draw what a view shows. @param {CanvasRenderingContext2D} context @param {import("./view.js").View} view */
  draw(context, view) {
    const level = Math.min(this.top, Math.max(0, Math.floor(-Math.log2(view.scale))));
    context.imageSmoothingEnabled = view.scale < SMOOTH_BELOW;
    this.wanted = [];
    this.#get(this.top, 0, 0); // stands in for all others, so it comes first
    for (const [row, column] of this.#inSight(level, view)) {
      const tile = this.#get(level, row, column);
      if (tile.bitmap) put(context, view, tile.bitmap, level, row, column);
      else this.#standIn(context, view, level, row, column);
    }
    this.#load();
    this.#forget();
  }

  /** @returns {ImageBitmap | null} the whole image on one tile */
  get overview() {
    return this.#get(this.top, 0, 0).bitmap;
  }

  /** Whether all in sight is drawn as it should be. */
  get settled() {
    return this.loading === 0 && this.wanted.length === 0;
  }

  close() {
    this.closed = true;
    for (const tile of this.kept.values()) tile.bitmap?.close();
    this.kept.clear();
  }

  *#inSight(level, view) {
    const { left, top, right, bottom } = view.box();
    const side = SIDE * 2 ** level;
    const last = (length, end) => Math.min(Math.ceil(length / side) - 1, Math.floor((end + 0.5) / side));
    const rows = [Math.max(0, Math.floor((top + 0.5) / side)), last(this.image.height, bottom)];
    const columns = [Math.max(0, Math.floor((left + 0.5) / side)), last(this.image.width, right)];
    for (let row = rows[0]; row <= rows[1]; row++)
      for (let column = columns[0]; column <= columns[1]; column++) yield [row, column];
  }

  #get(level, row, column) {
    const name = `${level}/${row}/${column}`;
    const tile = this.kept.get(name) ?? {
      place: [level, row, column],
      grey: null,
      bitmap: null,
      version: -1,
      state: "new",
    };
    this.kept.delete(name);
    this.kept.set(name, tile);
    if (tile.state === "new") this.wanted.push(tile);
    else if (tile.state === "ready" && tile.version !== this.version) this.#colour(tile);
    return tile;
  }

  #standIn(context, view, level, row, column) {
    for (let coarser = level + 1; coarser <= this.top; coarser++) {
      const factor = 2 ** (coarser - level);
      const place = [coarser, Math.floor(row / factor), Math.floor(column / factor)];
      const tile = this.kept.get(place.join("/"));
      if (!tile?.bitmap) continue;
      const side = SIDE / factor;
      const from = { x: (column % factor) * side, y: (row % factor) * side, side };
      put(context, view, tile.bitmap, ...place, from);
      return;
    }
  }

  #load() {
    while (this.loading < AT_ONCE && this.wanted.length && !this.closed) this.#fetch(this.wanted.shift());
  }

  async #fetch(tile) {
    tile.state = "loading";
    this.loading += 1;
    try {
      tile.grey = await greyLevels(await api.tile(this.image, ...tile.place));
      tile.state = "ready";
      await this.#colour(tile);
    } catch {
      tile.state = "failed";
      setTimeout(() => {
        tile.state = "new";
        this.changed();
      }, FAILED);
    }
    this.loading -= 1;
    this.#load();
  }

  async #colour(tile) {
    tile.version = this.version;
    const { width, height, levels } = tile.grey;
    const pixels = new ImageData(width, height);
    const colours = this.colours;
    const out = new Uint32Array(pixels.data.buffer);
    for (let k = 0; k < out.length; k++) out[k] = colours[levels[k]];
    const bitmap = await createImageBitmap(pixels);
    if (this.closed) return bitmap.close();
    tile.bitmap?.close();
    tile.bitmap = bitmap;
    this.changed();
  }

  #forget() {
    for (const [name, tile] of this.kept) {
      if (this.kept.size <= KEPT) return;
      if (tile.state === "loading" || tile.place[0] === this.top) continue;
      tile.bitmap?.close();
      tile.bitmap = null;
      this.kept.delete(name);
    }
  }
}

/**
 * @typedef {{place: number[], grey: {width: number, height: number, levels: Uint8Array} | null,
 *   bitmap: ImageBitmap | null, version: number, state: "new" | "loading" | "ready" | "failed"}} Tile
 */

async function greyLevels(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const levels = new Uint8Array(width * height);
  for (let k = 0; k < levels.length; k++) levels[k] = data[4 * k];
  return { width, height, levels };
}

/** Draw a tile, or a square part of it, where it belongs; edges are whole device px, so that tiles leave no seams. */
function put(context, view, bitmap, level, row, column, part = { x: 0, y: 0, side: SIDE }) {
  const pixel = 2 ** level;
  const width = Math.min(part.side, bitmap.width - part.x);
  const height = Math.min(part.side, bitmap.height - part.y);
  if (width <= 0 || height <= 0) return;
  const start = (index, offset) => (index * SIDE + offset) * pixel - 0.5;
  const [left, top] = view.toScreen(start(column, part.x), start(row, part.y)).map(Math.round);
  const end = view.toScreen(start(column, part.x + width), start(row, part.y + height)).map(Math.round);
  context.drawImage(bitmap, part.x, part.y, width, height, left, top, end[0] - left, end[1] - top);
}
