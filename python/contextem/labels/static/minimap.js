/** The whole image, small, with a frame around what is seen; a press or drag on it goes there. */

import { PAPER } from "./marks.js";

const LONGEST = 168; // CSS px

export class Minimap {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(x: number, y: number) => void} go to a point of the image
   */
  constructor(canvas, go) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.scale = 1;
    const there = (event) => {
      if (event.buttons !== 1) return;
      canvas.setPointerCapture(event.pointerId);
      const box = canvas.getBoundingClientRect();
      const ratio = canvas.width / box.width / this.scale;
      go((event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
    };
    canvas.addEventListener("pointerdown", there);
    canvas.addEventListener("pointermove", there);
  }

  /** @param {import("./view.js").View} view @param {import("./tiles.js").Tiles} tiles */
  draw(view, tiles) {
    this.canvas.hidden = view.whole;
    if (view.whole) return;
    const { imageWidth, imageHeight } = view;
    const ratio = devicePixelRatio;
    this.scale = (LONGEST * ratio) / Math.max(imageWidth, imageHeight);
    const [width, height] = [imageWidth, imageHeight].map((length) => Math.max(1, Math.round(length * this.scale)));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      Object.assign(this.canvas.style, { width: `${width / ratio}px`, height: `${height / ratio}px` });
    }
    const { context } = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (tiles.overview) context.drawImage(tiles.overview, 0, 0, width, height);
    this.#frame(view, width, height, ratio);
  }

  #frame(view, width, height, ratio) {
    const { left, top, right, bottom } = view.box();
    const within = (at, most) => Math.min(Math.max(at * this.scale, 0), most);
    const [x, y, endX, endY] = [
      within(left, width),
      within(top, height),
      within(right, width),
      within(bottom, height),
    ];
    const { context } = this;
    context.fillStyle = "rgb(11 13 16 / 0.55)";
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(x, y, endX - x, endY - y);
    context.fill("evenodd");
    context.strokeStyle = PAPER;
    context.lineWidth = 1.5 * ratio;
    context.strokeRect(x + ratio, y + ratio, Math.max(endX - x - 2 * ratio, 2), Math.max(endY - y - 2 * ratio, 2));
  }
}
