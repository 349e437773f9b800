/**
 * Where the image lies on the screen:  screen = scale * image + shift.
 *
 * Image coordinates are x = column and y = row, px, with pixel centres at integers; screen coordinates are those of the
 * canvas, device px.  What is drawn is shifted by whole px, so that marks do not tremble against the image when it is
 * dragged; zooming goes by the exact shift.
 */

const CLOSEST = 48; // device px per image px
const MARGIN = 0.15; // of the screen, that what is gone to keeps from its edge
const BEYOND = 0.06; // of the screen, beside the image

export class View {
  constructor() {
    this.scale = 1;
    this.shiftX = 0;
    this.shiftY = 0;
    this.exact = [0, 0];
    this.inset = 0;
    this.width = 1;
    this.height = 1;
    this.imageWidth = 1;
    this.imageHeight = 1;
  }

  /** @param {number} width @param {number} height @param {number} inset device px of the canvas, and left to tools */
  resize(width, height, inset) {
    const middle = this.toImage(this.width / 2, this.height / 2);
    const whole = this.scale === this.fitting;
    this.width = width;
    this.height = height;
    this.inset = inset;
    if (whole) this.fit();
    else this.centre(...middle);
  }

  /** @param {number} width @param {number} height px of the image */
  show(width, height) {
    this.imageWidth = width;
    this.imageHeight = height;
    this.fit();
  }

  /** Scale at which the whole image is seen. */
  get fitting() {
    return 0.96 * Math.min((this.width - this.inset) / this.imageWidth, this.height / this.imageHeight);
  }

  fit() {
    this.scale = this.fitting;
    this.centre((this.imageWidth - 1 - this.inset / this.scale) / 2, (this.imageHeight - 1) / 2);
  }

  /** @returns {[number, number]} */
  toScreen(x, y) {
    return [x * this.scale + this.shiftX, y * this.scale + this.shiftY];
  }

  /** @returns {[number, number]} */
  toImage(x, y) {
    return [(x - this.shiftX) / this.scale, (y - this.shiftY) / this.scale];
  }

  pan(x, y) {
    this.#place(this.exact[0] + x, this.exact[1] + y);
  }

  /** Scale by a factor; what is at (x, y) of the screen stays there. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const [left, top] = [(x - this.exact[0]) / this.scale, (y - this.exact[1]) / this.scale];
    this.scale = Math.min(Math.max(this.scale * factor, this.fitting / 2), Math.max(CLOSEST, this.fitting));
    this.#place(x - left * this.scale, y - top * this.scale);
  }

  /** Put a point of the image into the middle. */
  centre(x, y) {
    this.#place(this.width / 2 - x * this.scale, this.height / 2 - y * this.scale);
  }

  /** Move as far as it takes for a point to be well in sight, but not for the sake of what lies beyond the image. */
  reveal(x, y) {
    const [left, top] = this.toScreen(x, y);
    const move = (at, screen, start, length) => {
      if (at < MARGIN * screen)
        return Math.min(MARGIN * screen - at, Math.max(BEYOND * screen - start, -Math.min(at, 0)));
      const over = at - (1 - MARGIN) * screen;
      return over > 0 ? -Math.min(over, Math.max(start + length - (1 - BEYOND) * screen, at - screen, 0)) : 0;
    };
    const across = move(left, this.width, this.shiftX, this.imageWidth * this.scale);
    const down = move(top, this.height, this.shiftY, this.imageHeight * this.scale);
    if (across || down) this.pan(across, down);
  }

  /** Whether the image is in sight from edge to edge. */
  get whole() {
    const fits = (shift, length, screen) => shift >= -1 && shift + length * this.scale <= screen + 1;
    return fits(this.shiftX, this.imageWidth, this.width) && fits(this.shiftY, this.imageHeight, this.height);
  }

  /** @returns {{left: number, top: number, right: number, bottom: number}} the part of the plane that is seen */
  box(margin = 0) {
    const [left, top] = this.toImage(-margin, -margin);
    const [right, bottom] = this.toImage(this.width + margin, this.height + margin);
    return { left, top, right, bottom };
  }

  /** Some of the image stays in sight wherever it is dragged. */
  #place(x, y) {
    const within = (shift, length, screen) =>
      Math.min(Math.max(shift, 0.3 * screen - length * this.scale), 0.7 * screen);
    this.exact = [within(x, this.imageWidth, this.width), within(y, this.imageHeight, this.height)];
    [this.shiftX, this.shiftY] = this.exact.map(Math.round);
  }
}
