/**
 * Mouse, pen and fingers on the canvas, as gestures: wheel and pinch zoom, two fingers pan, one drags or clicks.
 *
 * What a drag or a click is for, the tool says that is told of it.
 */

const STILL = 5; // CSS px that a click may wander
const WHEEL = 0.0016;
const LINE = 16; // px, of a wheel that counts lines

/**
 * @typedef {{x: number, y: number, shift: boolean, alt: boolean, control: boolean, touch: boolean}} Spot
 *   Place on the canvas, device px, and what is held down.
 * @typedef {{click: (spot: Spot) => void, hover: (spot: Spot | null) => void, start: (spot: Spot) => void,
 *   drag: (spot: Spot, from: Spot) => void, end: (spot: Spot, cancelled: boolean) => void,
 *   zoom: (factor: number, x: number, y: number) => void, pan: (x: number, y: number) => void}} Gestures
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Gestures} gestures
 */
export function follow(canvas, gestures) {
  /** @type {Map<number, Spot>} */
  const down = new Map();
  let first = null; // spot where a press began; null from the moment on that it is a pinch
  let last = null;
  let dragging = false;

  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const held = { shift: event.shiftKey, alt: event.altKey, control: event.ctrlKey || event.metaKey };
    const touch = event.pointerType === "touch";
    return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio, ...held, touch };
  };
  const wandered = (at) => Math.hypot(at.x - first.x, at.y - first.y) > STILL * devicePixelRatio * (at.touch ? 2 : 1);

  const cancel = () => {
    if (dragging) gestures.end(last, true);
    first = null;
    dragging = false;
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    const at = spot(event);
    down.set(event.pointerId, at);
    if (down.size > 1) cancel();
    else first = last = at;
  });

  canvas.addEventListener("pointermove", (event) => {
    const at = spot(event);
    if (!down.has(event.pointerId)) return gestures.hover(at);
    if (down.size === 2) pinch(down, event.pointerId, at, gestures);
    down.set(event.pointerId, at);
    if (!first) return;
    if (!dragging && wandered(at)) {
      dragging = true;
      gestures.start(first);
    }
    if (dragging) gestures.drag(at, last);
    last = dragging ? at : last;
  });

  const up = (event) => {
    if (!down.delete(event.pointerId) || !first) return;
    const at = spot(event);
    if (event.type === "pointercancel") return cancel();
    if (dragging) gestures.end(at, false);
    else gestures.click(at);
    first = null;
    dragging = false;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => gestures.hover(null));

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = spot(event);
      const step = event.deltaY * (event.deltaMode === 1 ? LINE : 1) * (event.ctrlKey ? 6 : 1);
      gestures.zoom(Math.exp(-WHEEL * Math.max(-400, Math.min(400, step))), x, y);
    },
    { passive: false },
  );

  return { cancel };
}

/** Scale by how far the fingers went apart, about their middle, and follow it. */
function pinch(down, moved, at, gestures) {
  const other = [...down].find(([id]) => id !== moved)[1];
  const before = down.get(moved);
  const apart = (one) => Math.max(Math.hypot(one.x - other.x, one.y - other.y), 1);
  gestures.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
  gestures.zoom(apart(at) / apart(before), (at.x + other.x) / 2, (at.y + other.y) / 2);
}
