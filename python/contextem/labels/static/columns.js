/**
 * The columns of an image: positions and own votes in typed arrays, and a grid to find them by place.
 *
 * A column is known by its index here, which never changes, and by its number at the server; one that was just added
 * has a number below zero until the server has given it one.
 */

/** Vote of a column that has none. */
export const NONE = -1;

const PER_CELL = 4; // columns, about

export class Columns {
  /** @param {ArrayBuffer} buffer n, n numbers (uint32), n times row and column (float32), n votes (int8) */
  static read(buffer) {
    const count = new DataView(buffer).getUint32(0, true);
    const columns = new Columns(count);
    columns.count = count;
    columns.ids.set(new Uint32Array(buffer, 4, count));
    const places = new Float32Array(buffer, 4 + 4 * count, 2 * count);
    for (let k = 0; k < count; k++) {
      columns.y[k] = places[2 * k];
      columns.x[k] = places[2 * k + 1];
    }
    columns.label.set(new Int8Array(buffer, 4 + 12 * count, count));
    columns.present.fill(1, 0, count);
    for (let k = 0; k < count; k++) columns.byId.set(columns.ids[k], k);
    columns.#recount();
    return columns;
  }

  /** @param {number} capacity columns that there is room for */
  constructor(capacity = 16) {
    this.count = 0;
    this.ids = new Int32Array(capacity);
    this.x = new Float32Array(capacity);
    this.y = new Float32Array(capacity);
    this.label = new Int8Array(capacity);
    this.present = new Uint8Array(capacity);
    this.selected = new Uint8Array(capacity);
    /** @type {Map<number, number>} */
    this.byId = new Map();
    /** Columns by vote, none first. */
    this.tally = new Uint32Array(8);
    this.grid = null;
  }

  /** Columns there are. */
  get total() {
    return this.tally.reduce((sum, count) => sum + count, 0);
  }

  /** Columns with a vote. */
  get voted() {
    return this.total - this.tally[0];
  }

  /** Distance of neighbours, px, about: that of a square lattice as dense. */
  get spacing() {
    return this.#index().spacing;
  }

  /** @returns {State} */
  state(index) {
    const { x, y, label, present } = this;
    return { index, x: x[index], y: y[index], label: label[index], present: present[index] };
  }

  /**
   * @typedef {{index: number, x: number, y: number, label: number, present: number}} State
   * @param {State} state
   */
  set({ index, x, y, label, present }) {
    if (this.present[index]) this.tally[this.label[index] + 1] -= 1;
    if (this.x[index] !== x || this.y[index] !== y || this.present[index] !== Number(present)) this.grid = null;
    this.x[index] = x;
    this.y[index] = y;
    this.label[index] = label;
    this.present[index] = Number(present);
    if (present) this.tally[label + 1] += 1;
    else this.selected[index] = 0;
  }

  /** @returns {number} index of a new column */
  add(id, x, y) {
    if (this.count === this.ids.length) this.#grow();
    const index = this.count++;
    this.ids[index] = id;
    this.byId.set(id, index);
    this.present[index] = 0;
    this.set({ index, x, y, label: NONE, present: 1 });
    return index;
  }

  /** Give a column the number that the server knows it by. */
  rename(from, to) {
    const index = this.byId.get(from);
    if (index === undefined) return;
    this.byId.delete(from);
    this.byId.set(to, index);
    this.ids[index] = to;
  }

  /** @returns {number} index of the column nearest to a point, -1 where none is near enough */
  nearest(x, y, within = Infinity) {
    const { spacing, extent, originX, originY } = this.#index();
    const farthest = Math.min(within, extent + Math.hypot(x - originX, y - originY));
    let best = -1;
    let least = within;
    for (let reach = spacing; ; reach *= 2) {
      this.each({ left: x - reach, top: y - reach, right: x + reach, bottom: y + reach }, (index) => {
        const distance = Math.hypot(this.x[index] - x, this.y[index] - y);
        if (distance > least) return;
        best = index;
        least = distance;
      });
      if ((best >= 0 && least <= reach) || reach > farthest) return best;
    }
  }

  /** @returns {number} the nearest column to one in a direction, along an axis; -1 where there is none */
  towards(index, stepX, stepY) {
    const [fromX, fromY] = [this.x[index], this.y[index]];
    const grid = this.#index();
    for (let reach = 2 * grid.spacing; ; reach *= 2) {
      let best = -1;
      let least = Infinity;
      this.each({ left: fromX - reach, top: fromY - reach, right: fromX + reach, bottom: fromY + reach }, (other) => {
        const [x, y] = [this.x[other] - fromX, this.y[other] - fromY];
        const along = x * stepX + y * stepY;
        const across = Math.abs(x * stepY) + Math.abs(y * stepX);
        const cost = along + 2 * across; // straight ahead is preferred to somewhat nearer but aside
        if (other === index || along <= 0 || across > 1.2 * along || cost >= least) return;
        best = other;
        least = cost;
      });
      if ((best >= 0 && least <= reach) || reach > 2 * grid.extent) return best;
    }
  }

  /**
   * @param {{left: number, top: number, right: number, bottom: number}} box
   * @param {(index: number) => void} visit called with each column in it
   */
  each({ left, top, right, bottom }, visit) {
    const { cell, rows, columns, starts, items, originX, originY } = this.#index();
    const clamp = (at, most) => Math.min(Math.max(at, 0), most);
    const [first, last] = [left, right].map((at) => clamp(Math.floor((at - originX) / cell), columns - 1));
    const [upper, lower] = [top, bottom].map((at) => clamp(Math.floor((at - originY) / cell), rows - 1));
    for (let row = upper; row <= lower; row++) {
      const end = starts[row * columns + last + 1];
      for (let at = starts[row * columns + first]; at < end; at++) {
        const index = items[at];
        const [x, y] = [this.x[index], this.y[index]];
        if (x >= left && x <= right && y >= top && y <= bottom) visit(index);
      }
    }
  }

  /** @returns {number[]} indices of the columns in a box */
  inBox(box) {
    const inside = [];
    this.each(box, (index) => inside.push(index));
    return inside;
  }

  /** @param {[number, number][]} outline corners (x, y) @returns {number[]} indices of the columns inside */
  inOutline(outline) {
    const [xs, ys] = [outline.map(([x]) => x), outline.map(([, y]) => y)];
    const box = { left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys) };
    return this.inBox(box).filter((index) => encloses(outline, this.x[index], this.y[index]));
  }

  /** @param {number[]} indices @param {boolean} add to those that are selected */
  select(indices, add = false) {
    if (!add) this.selected.fill(0);
    for (const index of indices) this.selected[index] = 1;
  }

  /** @returns {number[]} indices */
  get selection() {
    const found = [];
    for (let at = this.selected.indexOf(1); at >= 0; at = this.selected.indexOf(1, at + 1)) found.push(at);
    return found;
  }

  #recount() {
    this.tally.fill(0);
    for (let k = 0; k < this.count; k++) this.tally[this.label[k] + 1] += this.present[k];
  }

  #grow() {
    const capacity = 2 * this.ids.length + 16;
    for (const name of ["ids", "x", "y", "label", "present", "selected"]) {
      const larger = new this[name].constructor(capacity);
      larger.set(this[name]);
      this[name] = larger;
    }
  }

  /** Sort the columns there are into cells, by counting. */
  #index() {
    if (this.grid) return this.grid;
    const here = [];
    const [low, high] = [
      [Infinity, Infinity],
      [-Infinity, -Infinity],
    ];
    for (let k = 0; k < this.count; k++) {
      if (!this.present[k]) continue;
      here.push(k);
      low[0] = Math.min(low[0], this.x[k]);
      low[1] = Math.min(low[1], this.y[k]);
      high[0] = Math.max(high[0], this.x[k]);
      high[1] = Math.max(high[1], this.y[k]);
    }
    if (!here.length) [low[0], low[1], high[0], high[1]] = [0, 0, 1, 1];
    const [width, height] = [high[0] - low[0] + 1, high[1] - low[1] + 1];
    const spacing = Math.sqrt((width * height) / Math.max(here.length, 1));
    const cell = spacing * Math.sqrt(PER_CELL);
    const [rows, columns] = [Math.ceil(height / cell), Math.ceil(width / cell)];
    const place = (k) => Math.floor((this.y[k] - low[1]) / cell) * columns + Math.floor((this.x[k] - low[0]) / cell);
    const starts = new Uint32Array(rows * columns + 1);
    for (const k of here) starts[place(k) + 1] += 1;
    for (let at = 1; at < starts.length; at++) starts[at] += starts[at - 1];
    const next = starts.slice();
    const items = new Uint32Array(here.length);
    for (const k of here) items[next[place(k)]++] = k;
    const extent = Math.hypot(width, height);
    this.grid = { cell, rows, columns, starts, items, originX: low[0], originY: low[1], spacing, extent };
    return this.grid;
  }
}

/** Whether a ray from (x, y) to the right crosses the outline an odd number of times. */
function encloses(outline, x, y) {
  let inside = false;
  let [lastX, lastY] = outline[outline.length - 1];
  for (const [nextX, nextY] of outline) {
    if (nextY > y !== lastY > y && x < ((lastX - nextX) * (y - nextY)) / (lastY - nextY) + nextX) inside = !inside;
    [lastX, lastY] = [nextX, nextY];
  }
  return inside;
}
