/** What a click and a drag do, tool by tool.  Shift drags a box and alt a lasso whatever the tool. */

const NEAR = 0.75; // of the spacing: a click farther from all columns means none
const FINGER = 22; // CSS px that a click may be off

/**
 * @typedef {import("./pointer.js").Spot} Spot
 * @typedef {{view: import("./view.js").View, columns: import("./columns.js").Columns, redraw: () => void,
 *   outline: [number, number][] | null, aim: [number, number] | null, focus: (index: number) => void,
 *   select: (indices: number[], add: boolean) => void, paint: (index: number) => void,
 *   add: (x: number, y: number) => void, move: (index: number, x: number, y: number) => void}} Desk
 */

export class Tools {
  /** @param {Desk} desk */
  constructor(desk) {
    this.desk = desk;
    this.name = "select";
    this.drawing = null;
    this.carried = -1;
  }

  /** @param {Spot} spot */
  click(spot) {
    const [x, y] = this.desk.view.toImage(spot.x, spot.y);
    if (this.name === "add") return this.desk.add(x, y);
    const index = this.#columnAt(spot);
    if (index < 0) return this.name === "paint" ? undefined : this.desk.select([], false);
    if (this.name === "paint") return this.desk.paint(index);
    if (spot.shift || spot.control) return this.desk.select([index], true);
    this.desk.focus(index);
  }

  /** @param {Spot | null} spot */
  hover(spot) {
    const before = this.desk.aim;
    this.desk.aim = spot && this.name === "add" ? [spot.x, spot.y] : null;
    if (before || this.desk.aim) this.desk.redraw();
  }

  /** @param {Spot} spot */
  start(spot) {
    this.drawing = this.#shape(spot);
    this.carried = !this.drawing && this.name === "move" ? this.#columnAt(spot) : -1;
    if (this.drawing) this.desk.outline = [this.desk.view.toImage(spot.x, spot.y)];
    else if (this.carried >= 0) this.desk.focus(this.carried);
  }

  /** @param {Spot} spot @param {Spot} before */
  drag(spot, before) {
    const { view } = this.desk;
    const at = view.toImage(spot.x, spot.y);
    if (this.drawing === "lasso") this.desk.outline.push(at);
    else if (this.drawing === "box") this.desk.outline = corners(this.desk.outline[0], at);
    else if (this.carried >= 0) this.desk.aim = [spot.x, spot.y];
    else view.pan(spot.x - before.x, spot.y - before.y);
    this.desk.redraw();
  }

  /** @param {Spot} spot @param {boolean} cancelled */
  end(spot, cancelled) {
    const { outline, view, columns } = this.desk;
    if (this.drawing && !cancelled) this.desk.select(columns.inOutline(outline), spot.control);
    if (this.carried >= 0 && !cancelled) this.desk.move(this.carried, ...view.toImage(spot.x, spot.y));
    this.stop();
  }

  /** Let go of what is being drawn or carried. */
  stop() {
    this.drawing = null;
    this.carried = -1;
    this.desk.outline = this.desk.aim = null;
    this.desk.redraw();
  }

  #shape({ shift, alt }) {
    if (this.name === "box" || shift) return "box";
    return this.name === "lasso" || alt ? "lasso" : null;
  }

  #columnAt({ x, y, touch }) {
    const { view, columns } = this.desk;
    const finger = ((touch ? FINGER : FINGER / 2) * devicePixelRatio) / view.scale;
    return columns.nearest(...view.toImage(x, y), Math.max(NEAR * columns.spacing, finger));
  }
}

const corners = ([left, top], [right, bottom]) => [
  [left, top],
  [right, top],
  [right, bottom],
  [left, bottom],
];
