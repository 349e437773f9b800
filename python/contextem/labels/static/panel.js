/** The panel beside the image: progress, the classes with their shapes, keys and counts, and how the image is shown. */

import { SHAPES } from "./marks.js";
import { maps, plain } from "./tones.js";

const SVG = "http://www.w3.org/2000/svg";
const number = new Intl.NumberFormat("en");

/** @param {string} id @returns {any} */
export const element = (id) => document.getElementById(id);

/** Make an element. @param {string} tag @param {object} attributes @param {...(Node | string)} children */
export function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Name of a class as it is read. */
export const spoken = (name) => name.replaceAll("_", " ");

/** The shape of a class, as an image. @returns {SVGElement} */
export function glyph(label, colour, size = 18) {
  const picture = document.createElementNS(SVG, "svg");
  const shape = document.createElementNS(SVG, "path");
  const { path, filled } = SHAPES[label];
  const set = (target, attributes) =>
    Object.entries(attributes).forEach(([name, value]) => target.setAttribute(name, value));
  set(picture, { viewBox: "-1.5 -1.5 3 3", width: size, height: size, "aria-hidden": "true" });
  set(shape, { d: path, fill: filled ? colour : "none", stroke: filled ? "none" : colour, "stroke-width": 0.34 });
  set(shape, { "stroke-linejoin": "round", "stroke-linecap": "round" });
  picture.append(shape);
  return picture;
}

/**
 * Buttons of the classes.
 *
 * @param {{name: string, colour: string, key: string}[]} classes unsure is the last
 * @param {(label: number) => void} vote
 * @returns {(tally: Uint32Array, armed: number, current: number) => void} shows counts, the class that is painted with,
 *   and the vote of the current column
 */
export function classButtons(classes, vote) {
  const buttons = classes.map(({ name, colour, key }, label) => {
    const count = make("span", { class: "count" });
    const button = make("button", { type: "button", class: "class", "aria-keyshortcuts": key });
    button.append(
      make("kbd", { "aria-hidden": "true" }, key),
      glyph(label, colour),
      make("span", {}, spoken(name)),
      count,
    );
    button.addEventListener("click", () => vote(label));
    return { button, count };
  });
  element("classes").replaceChildren(...buttons.map(({ button }) => button));
  return (tally, armed, current) =>
    buttons.forEach(({ button, count }, label) => {
      count.textContent = tally[label + 1] ? number.format(tally[label + 1]) : "";
      button.classList.toggle("armed", label === armed);
      button.setAttribute("aria-pressed", String(label === current));
    });
}

/** @param {number} voted @param {number} total */
export function showProgress(voted, total) {
  element("progress").max = Math.max(total, 1);
  element("progress").value = voted;
  const share = total ? Math.floor((100 * voted) / total) : 0;
  element("progress-text").textContent = `${number.format(voted)} of ${number.format(total)} · ${share} %`;
}

/** @param {{pending: number, trouble: string | null}} state of the queue */
export function showSaved({ pending, trouble }) {
  const saved = element("saved");
  saved.dataset.state = trouble ? "trouble" : pending ? "pending" : "saved";
  saved.textContent = trouble ? `${number.format(pending)} kept here` : pending ? "Saving …" : "All saved";
  const notice = element("notice");
  if (notice.textContent !== (trouble ?? "")) notice.textContent = trouble ?? "";
  notice.hidden = !trouble;
}

/** Controls of the grey levels. @param {(tones: import("./tones.js").Tones) => void} changed */
export function toneControls(changed) {
  const controls = ["black", "white", "gamma", "map"].map((name) => element(name));
  const [black, white, gamma, map] = controls;
  map.replaceChildren(...maps.map((name) => make("option", { value: name }, name)));
  const tell = () => {
    if (Number(white.value) <= Number(black.value)) white.value = Math.min(255, Number(black.value) + 1);
    const tones = {
      black: Number(black.value),
      white: Number(white.value),
      gamma: 2 ** Number(gamma.value),
      map: map.value,
    };
    element("gamma-value").textContent = tones.gamma.toFixed(2);
    element("black-value").textContent = black.value;
    element("white-value").textContent = white.value;
    changed(tones);
  };
  const reset = () => {
    [black.value, white.value, gamma.value, map.value] = [
      plain.black,
      plain.white,
      Math.log2(plain.gamma),
      plain.map,
    ];
    tell();
  };
  controls.forEach((control) => control.addEventListener("input", tell));
  element("tones-reset").addEventListener("click", reset);
  reset();
}
