/** The labelling page: an image, its columns, and what one expert says of them. */

import * as api from "./api.js";
import { Queue, sendLeftovers } from "./actions.js";
import { Closeup } from "./closeup.js";
import { Columns, NONE } from "./columns.js";
import { Edits } from "./edits.js";
import { HELP, listen } from "./keys.js";
import { PAPER } from "./marks.js";
import { classButtons, element, make, showProgress, showSaved, spoken, toneControls } from "./panel.js";
import { follow } from "./pointer.js";
import { Stage } from "./stage.js";
import { Tools } from "./tools.js";

const CLOSE = 34; // CSS px between neighbours, to which a column is zoomed that is to be judged
const HINTS = {
  none: "Click a column, or press space, to see it enlarged.",
  many: "A class is a vote on all of them.",
};
const SETTINGS = "contextem.settings";

class Page {
  /** @param {import("./api.js").Me} me */
  constructor(me) {
    this.me = me;
    this.unsure = me.classes.length;
    this.classes = [...me.classes, "unsure"];
    this.tools = new Tools(this);
    this.current = -1;
    this.armed = 0;
    this.order = [];
    this.turn = 0;
    this.outline = this.aim = null;
    this.stale = false;
    this.stage = new Stage(me.colours, () => this.#over());
    this.closeup = new Closeup(me.classes, me.colours);
    this.ends = {
      act: api.act,
      answered: (image, item, result) => this.#answered(image, item, result),
      changed: (state) => showSaved(state),
    };
  }

  get view() {
    return this.stage.view;
  }

  get columns() {
    return this.stage.columns;
  }

  async start() {
    this.#controls();
    await sendLeftovers(this.me.name, this.ends);
    this.queue = new Queue(this.me.name, this.ends);
    showSaved({ pending: 0, trouble: null });
    const wanted = Number(location.hash.slice(1));
    await this.open(this.me.images.find(({ id }) => id === wanted) ?? this.me.images[0]);
  }

  /** Show an image. @param {import("./api.js").Picture | undefined} image */
  async open(image) {
    if (!image) return this.say("There is no image to label yet.");
    await this.queue.idle();
    this.image = image;
    [this.order] = await Promise.all([api.order(image.id), this.#load()]);
    this.turn = 0;
    this.#focusNone();
    this.stage.open(image);
    element("image").value = String(image.id);
    history.replaceState(null, "", `#${image.id}`);
    if (image.closed) return this.say(`Voting on ${image.name} has ended.`);
    this.say(`${image.name}: ${this.columns.total} columns to label.`);
  }

  /** Read the columns as the server knows them; called when all actions have an answer. */
  async #load() {
    const number = this.columns.ids[this.current];
    this.stage.columns = Columns.read(await api.columns(this.image.id));
    this.edits = new Edits(this.columns, (item) => this.queue.push(this.image.id, item));
    this.current = this.columns.byId.get(number) ?? -1;
    this.stale = false;
    this.#refresh();
  }

  /** Vote on what is selected, or on the current column. */
  vote(label) {
    if (label !== NONE) this.armed = label;
    const chosen = this.#chosen();
    this.#refresh();
    if (!chosen.length) return this.say(`${this.#name(label)}: no column is chosen. Click one, or press space.`);
    this.edits.vote(chosen, label);
    this.say(`${this.#name(label)}: ${this.#which(chosen)}`);
    this.#refresh();
    if (element("advance").checked && chosen.length === 1 && label !== NONE) this.next();
  }

  withdraw() {
    this.vote(NONE);
  }

  /** Vote on a column for the class that was last voted for. */
  paint(index) {
    this.edits.vote([index], this.armed);
    this.#go(index);
    this.say(`${this.#name(this.armed)}: ${this.#which([index])}`);
    this.#refresh();
  }

  undo() {
    const changed = this.edits.undo();
    if (changed?.length) {
      this.#reveal(changed[0]);
      this.#go(changed[0]);
    }
    this.say(changed ? `Undone: ${this.#which(changed)}${this.#state(changed)}` : "Undoing what was done before …");
    this.#refresh();
  }

  add(x, y) {
    if (x < -0.5 || y < -0.5 || x > this.image.width - 0.5 || y > this.image.height - 0.5) {
      return this.say("A column can be added inside the image only.");
    }
    const index = this.edits.add(x, y);
    this.columns.select([]);
    this.#go(index);
    this.say(`Added a column at row ${y.toFixed(1)}, column ${x.toFixed(1)}.`);
    this.#refresh();
  }

  move(index, x, y) {
    this.edits.move(index, x, y);
    this.#go(index);
    this.say(`Moved ${this.#which([index])}.`);
    this.#refresh();
  }

  remove() {
    const chosen = this.#chosen();
    if (!chosen.length) return this.say("No column is chosen to delete.");
    this.say(`Deleted ${this.#which(chosen)}. U brings it back.`);
    this.edits.remove(chosen);
    if (!this.columns.present[this.current]) this.#focusNone();
    this.#refresh();
  }

  /** Go to the next column of the order that has no vote. */
  next() {
    for (let k = 0; k < this.order.length; k++) {
      const turn = (this.turn + k) % this.order.length;
      const index = this.columns.byId.get(this.order[turn]);
      if (index === undefined || !this.columns.present[index] || this.columns.label[index] !== NONE) continue;
      if (index === this.current) continue;
      this.turn = turn + 1;
      this.columns.select([]);
      this.#approach(index);
      return this.say(`${this.#which([index])}${this.#state([index])}`, true);
    }
    this.say(
      this.columns.voted === this.columns.total ? "Every column has a vote. Thank you!" : "No other column is left.",
    );
  }

  /** Go to the nearest column in a direction, or to the one in the middle if there is no current one. */
  step(x, y) {
    const middle = this.view.toImage(this.view.width / 2, this.view.height / 2);
    const index = this.current < 0 ? this.columns.nearest(...middle) : this.columns.towards(this.current, x, y);
    if (index < 0) return this.say("There is no column in this direction.");
    this.#reveal(index);
    this.focus(index);
  }

  /** Make a column the current one. */
  focus(index) {
    this.columns.select([]);
    this.#go(index);
    this.say(`${this.#which([index])}${this.#state([index])}`, true);
  }

  select(indices, add) {
    if (add && this.current >= 0) this.columns.selected[this.current] = 1;
    this.columns.select(indices, add);
    const { selection } = this.columns;
    if (selection.length !== 1) this.#focusNone();
    else this.#go(selection[0]);
    this.say(selection.length ? `${this.#which(selection)} selected.` : "Nothing is selected.");
    this.#refresh();
  }

  /** Take up a tool. @param {string} name */
  tool(name) {
    this.tools.stop();
    this.tools.name = name;
    element("stage").dataset.tool = name;
    for (const button of document.querySelectorAll("[data-tool-button]")) {
      button.setAttribute("aria-pressed", String(button.dataset.toolButton === name));
    }
    const chosen = document.querySelector(`[data-tool-button=${name}]`);
    this.say(
      name === "paint" ? `Paint: each click votes ${this.#name(this.armed)}.` : `${chosen.title.split(" (")[0]}.`,
    );
    this.#refresh();
  }

  enter() {
    if (this.tools.name === "add") this.add(...this.view.toImage(this.view.width / 2, this.view.height / 2));
  }

  stop() {
    this.gestures.cancel();
    this.columns.select([]);
    if (this.tools.name === "select") this.#focusNone();
    else this.tool("select");
    this.#refresh();
  }

  toggleVotes() {
    element("votes-seen").click();
  }

  zoomIn() {
    this.stage.step(true);
  }

  zoomOut() {
    this.stage.step(false);
  }

  fit() {
    this.stage.look(() => this.view.fit());
  }

  help() {
    element("help").showModal();
  }

  /** Say what happened, to eyes and ears. @param {string} text @param {boolean} quiet whether eyes see it anyway */
  say(text, quiet = false) {
    const said = element("said");
    said.textContent = text;
    said.classList.toggle("quiet", quiet);
    said.getAnimations().forEach((animation) => animation.cancel());
    if (!quiet)
      said.animate([{ opacity: 1 }, { opacity: 1, offset: 0.85 }, { opacity: 0 }], {
        duration: 3500,
        fill: "forwards",
      });
  }

  redraw() {
    this.stage.redraw();
  }

  #over() {
    return { ring: this.current < 0 ? null : this.current, outline: this.outline, aim: this.aim };
  }

  #answered(image, item, result) {
    if (item.do === "add" && result.column !== undefined) this.columns.rename(item.as, result.column);
    const number = this.columns.ids[this.current];
    if (this.current >= 0 && number === (item.do === "add" ? result.column : item.column))
      this.closeup.show(image, number);
    if (result.refused) this.say(`Not done: ${result.refused}`);
    this.stale ||= Boolean(result.refused || item.unseen);
    if (this.stale && this.queue) this.#reload(result.refused ? null : "Undone.");
  }

  /** Show what the server knows, once it has answered all. */
  async #reload(sentence) {
    await this.queue.idle();
    if (!this.stale) return;
    await this.#load();
    if (sentence) this.say(sentence);
  }

  #chosen() {
    const { selection } = this.columns;
    return selection.length || this.current < 0 ? selection : [this.current];
  }

  #name(label) {
    return label === NONE ? "No vote" : capital(spoken(this.classes[label]));
  }

  #which(indices) {
    if (indices.length !== 1) return `${indices.length} columns`;
    const number = this.columns.ids[indices[0]];
    return number < 0 ? "the new column" : `column ${number}`;
  }

  #state(indices) {
    if (indices.length !== 1) return "";
    if (!this.columns.present[indices[0]]) return ", gone";
    const label = this.columns.label[indices[0]];
    return label === NONE ? ", no vote" : `, ${spoken(this.classes[label])}`;
  }

  #reveal(index) {
    this.view.reveal(this.columns.x[index], this.columns.y[index]);
  }

  #go(index) {
    this.current = index;
    this.closeup.show(this.image.id, this.columns.ids[index]);
    this.#refresh();
  }

  /** Go to a column from anywhere: into the middle, and near enough to judge it. */
  #approach(index) {
    const close = (CLOSE * devicePixelRatio) / this.columns.spacing;
    if (this.view.scale < close) this.view.zoom(close / this.view.scale);
    if (!this.view.whole) this.view.centre(this.columns.x[index], this.columns.y[index]);
    this.#go(index);
  }

  #focusNone() {
    this.current = -1;
    this.closeup.clear();
    this.closeup.show(this.image.id, -1);
  }

  #refresh() {
    const { tally, voted, total, label } = this.columns;
    this.showClasses(
      tally,
      this.tools.name === "paint" ? this.armed : -1,
      this.current < 0 ? NONE : label[this.current],
    );
    showProgress(voted, total);
    const { selection } = this.columns;
    const one = this.current < 0 ? "No column" : capital(this.#which([this.current]));
    element("column").textContent = selection.length > 1 ? `${selection.length} columns selected` : one;
    element("hint").textContent = selection.length > 1 ? HINTS.many : HINTS.none;
    this.redraw();
  }

  #controls() {
    const { me } = this;
    element("who").textContent = me.name;
    element("chair").hidden = me.role !== "chair";
    element("image").replaceChildren(...me.images.map(({ id, name }) => make("option", { value: id }, name)));
    element("image").addEventListener("change", (event) => {
      this.open(me.images.find(({ id }) => id === Number(event.target.value)));
      element("marks").focus();
    });
    const colours = [...me.colours, PAPER];
    const classes = this.classes.map((name, at) => ({
      name,
      colour: colours[at],
      key: String((at + 1) % this.classes.length),
    }));
    this.showClasses = classButtons(classes, (label) => this.vote(label));
    toneControls((tones) => this.stage.tone(tones));
    element("votes-seen").addEventListener("change", (event) => {
      this.stage.marks.votesSeen = event.target.checked;
      this.say(event.target.checked ? "My votes are shown." : "My votes are hidden.");
      this.redraw();
    });
    for (const button of document.querySelectorAll("[data-tool-button]")) {
      button.addEventListener("click", () => this.tool(button.dataset.toolButton));
    }
    for (const button of document.querySelectorAll("[data-command]")) {
      button.addEventListener("click", () => this[button.dataset.command]());
    }
    element("help-keys").replaceChildren(
      ...HELP.flatMap(({ keys, does }) => [make("dt", {}, ...keys.split(" ").map(keyCap)), make("dd", {}, does)]),
    );
    element("advance").checked = localStorage.getItem(SETTINGS) === "advance";
    element("advance").addEventListener("change", (event) =>
      localStorage.setItem(SETTINGS, event.target.checked ? "advance" : ""),
    );
    addEventListener("click", ({ detail, target }) => {
      // after a press by pointer, the keys are the image's again
      if (detail && target.closest("button, label, [type=checkbox]") && !document.querySelector("dialog[open]")) {
        element("marks").focus({ preventScroll: true });
      }
    });
    listen(this, this.unsure);
    this.gestures = follow(element("marks"), {
      click: (spot) => this.tools.click(spot),
      hover: (spot) => this.tools.hover(spot),
      start: (spot) => this.tools.start(spot),
      drag: (spot, before) => this.tools.drag(spot, before),
      end: (spot, cancelled) => this.tools.end(spot, cancelled),
      zoom: (factor, x, y) => this.stage.look(() => this.view.zoom(factor, x, y)),
      pan: (x, y) => this.stage.look(() => this.view.pan(x, y)),
    });
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const keyCap = (key) => (key === "–" ? " – " : make("kbd", {}, key));

try {
  const page = new Page(await api.me());
  window.contextem = page; // for tests, and for the curious
  await page.start();
  document.body.dataset.ready = "true";
} catch (failure) {
  const welcome = failure.status === 401 || failure.status === 403;
  showSaved({ pending: 0, trouble: welcome ? "Open this page by your invitation link." : failure.message });
  element("saved").textContent = "";
  if (!(failure instanceof api.Failure)) throw failure;
}
