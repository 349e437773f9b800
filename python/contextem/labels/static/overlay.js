/** What lies over the marks: the ring of the current column, the box or lasso that is being drawn, the scale bar. */

import { INK, PAPER } from "./marks.js";

const LENGTHS = [1, 2, 5];

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./view.js").View} view
 * @param {{ring: [number, number, number] | null, outline?: [number, number][] | null,
 *   aim?: [number, number] | null}} what
 *   ring: x, y, radius in device px; outline: corners in the image; aim: where a column would be added, device px
 */
export function draw(context, view, { ring, outline, aim }) {
  const ratio = devicePixelRatio;
  if (outline?.length > 1) {
    trace(
      context,
      outline.map(([x, y]) => view.toScreen(x, y)),
    );
    context.fillStyle = "rgb(244 246 248 / 0.1)";
    context.fill();
    both(context, 1.5 * ratio, [6 * ratio, 4 * ratio]);
  }
  if (ring) {
    const [x, y, radius] = ring;
    context.beginPath();
    for (const turn of [0, 1, 2, 3]) {
      const middle = (turn + 0.5) * (Math.PI / 2);
      context.moveTo(x + radius * Math.cos(middle - 0.5), y + radius * Math.sin(middle - 0.5));
      context.arc(x, y, radius, middle - 0.5, middle + 0.5);
    }
    both(context, 2.4 * ratio);
  }
  if (aim) {
    const [x, y] = aim;
    const [near, far] = [4 * ratio, 12 * ratio];
    context.beginPath();
    for (const [across, down] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      context.moveTo(x + near * across, y + near * down);
      context.lineTo(x + far * across, y + far * down);
    }
    both(context, 2 * ratio);
  }
}

/** Length of a scale bar. @returns {{text: string, pixels: number}} a round length, at most `longest` device px */
export function scaleBar(view, sampling, longest) {
  const most = ((longest / view.scale) * sampling) / 10; // nm
  const decade = 10 ** Math.floor(Math.log10(most));
  const length = decade * Math.max(...LENGTHS.filter((factor) => factor * decade <= most));
  const text = length >= 1 ? `${length} nm` : `${Number((10 * length).toPrecision(1))} Å`;
  return { text, pixels: ((10 * length) / sampling) * view.scale };
}

function trace(context, points) {
  context.beginPath();
  points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

function both(context, width, dashes = []) {
  context.lineCap = "round";
  context.strokeStyle = INK;
  context.lineWidth = 2.2 * width;
  context.stroke();
  context.strokeStyle = PAPER;
  context.lineWidth = width;
  context.setLineDash(dashes);
  context.stroke();
  context.setLineDash([]);
}
