/** The chair's page: the votes of all as labels, how far the experts agree, the disputed columns to decide. */

import * as api from "./api.js";
import { Closeup } from "./closeup.js";
import { Columns, NONE } from "./columns.js";
import { listen } from "./keys.js";
import { Marks } from "./marks.js";
import { classButtons, element, make, showProgress, spoken, toneControls } from "./panel.js";
import { follow } from "./pointer.js";
import { Stage } from "./stage.js";
import { showAgreement, showConfusion, showDisputed, showExperts } from "./tables.js";

const EVERY = 20_000; // ms between looks at the votes
const CLOSE = 34; // CSS px between neighbours
// Agreement, from half of the votes to all of them: from bright to dark, and safe for the colour-blind.
const SHADES = ["#fde725", "#a0da39", "#4ac16d", "#1fa187", "#365c8d"];

class Chair {
  /** @param {import("./api.js").Me} me */
  constructor(me) {
    this.me = me;
    this.rule = "majority";
    this.current = -1;
    this.turn = 0; // place in the list of what is next, once the current column is not disputed any more
    this.pair = [0, 1];
    this.stage = new Stage(me.colours, () => ({ ring: this.current < 0 ? null : this.current }));
    this.byClass = this.stage.marks;
    this.byAgreement = new Marks(SHADES, true);
    this.closeup = new Closeup(me.classes, me.colours);
  }

  async start() {
    this.#controls();
    const wanted = Number(location.hash.slice(1));
    await this.open(this.me.images.find(({ id }) => id === wanted) ?? this.me.images[0]);
    setInterval(() => document.visibilityState === "visible" && this.refresh(), EVERY);
  }

  /** @param {import("./api.js").Picture | undefined} image */
  async open(image) {
    if (!image) return this.say("There is no image yet.");
    this.image = image;
    this.#go(-1);
    this.stage.open(image);
    element("image").value = String(image.id);
    history.replaceState(null, "", `#${image.id}`);
    await this.refresh();
  }

  /** Read the votes again. */
  async refresh() {
    const { image, rule } = this;
    try {
      const asked = [api.consensus(image.id, rule), api.agreement(image.id), api.experts()];
      const [labels, agreement, experts] = await Promise.all(asked);
      if (image !== this.image || rule !== this.rule) return;
      Object.assign(this, { labels, agreement, experts });
      this.#show();
      element("notice").hidden = true;
    } catch (failure) {
      if (!(failure instanceof api.Failure)) throw failure;
      element("notice").textContent = `What you see is not the latest: ${failure.message}.`;
      element("notice").hidden = false;
    }
  }

  /** Decide the class of the current column; NONE leaves it to the votes. */
  async vote(label) {
    if (this.current < 0) return this.say("No column is chosen. Click one, or press space.");
    const { current } = this;
    const number = this.labels.number[current];
    try {
      await api.decide(this.image.id, number, label === NONE ? null : label);
    } catch (failure) {
      return this.say(`Not done: ${failure.message}`);
    }
    const name = label === NONE ? "left to the votes" : spoken(this.me.classes[label]);
    await this.refresh();
    this.say(`Column ${number}: ${name}.`);
  }

  withdraw() {
    return this.vote(NONE);
  }

  /** Go to the next disputed column. */
  next() {
    const { disputed } = this;
    const at = disputed.indexOf(this.current);
    const next = disputed[(at < 0 ? this.turn : at + 1) % disputed.length];
    if (next === undefined) return this.say("Nothing is disputed.");
    this.choose(next);
  }

  step(x, y) {
    const { view, columns } = this.stage;
    const middle = view.toImage(view.width / 2, view.height / 2);
    const index = this.current < 0 ? columns.nearest(...middle) : columns.towards(this.current, x, y);
    if (index < 0) return;
    view.reveal(columns.x[index], columns.y[index]);
    this.#go(index);
  }

  /** Go to a column of the list. */
  choose(index) {
    const { view, columns } = this.stage;
    const close = (CLOSE * devicePixelRatio) / columns.spacing;
    if (view.scale < close) view.zoom(close / view.scale);
    if (!view.whole) view.centre(columns.x[index], columns.y[index]);
    this.turn = this.disputed.indexOf(index);
    this.#go(index);
  }

  zoomIn() {
    this.stage.step(true);
  }

  zoomOut() {
    this.stage.step(false);
  }

  fit() {
    this.stage.look(() => this.stage.view.fit());
  }

  stop() {
    this.#go(-1);
  }

  /** @param {string} text */
  say(text) {
    const said = element("said");
    said.textContent = text;
    said.classList.remove("quiet");
    said.getAnimations().forEach((animation) => animation.cancel());
    said.animate([{ opacity: 1 }, { opacity: 1, offset: 0.85 }, { opacity: 0 }], {
      duration: 3500,
      fill: "forwards",
    });
  }

  #show() {
    const { labels, image, agreement } = this;
    const columns = new Columns(labels.number.length);
    const shade = element("shown").value === "agreement";
    labels.number.forEach((number, k) => {
      const index = columns.add(number, labels.column[k], labels.row[k]);
      const label = shade ? shadeOf(labels.agreement[k]) : this.me.classes.indexOf(labels.class[k]);
      columns.set({ ...columns.state(index), label });
    });
    this.disputed = [...labels.number.keys()].filter((k) => labels.status[k] === "disputed");
    this.disputed.sort((one, other) => labels.agreement[one] - labels.agreement[other]);
    columns.select(this.disputed);
    this.stage.columns = columns;
    this.stage.marks = shade ? this.byAgreement : this.byClass;
    element("shades").hidden = !shade;
    showProgress(labels.status.filter((status) => status !== "unlabelled").length, labels.number.length);
    showExperts(this.experts, agreement, image);
    showAgreement(agreement);
    this.#pairs();
    this.#list();
    this.stage.redraw();
    element("close").disabled = image.closed;
    element("close").textContent = image.closed ? "Voting has ended" : "End the voting …";
    element("export").href = api.exported(image.id, this.rule);
  }

  #go(index) {
    this.current = index;
    this.closeup.show(this.image.id, index < 0 ? -1 : this.labels.number[index]);
    if (this.labels) this.#list();
    this.stage.redraw();
  }

  #list() {
    const { labels, current } = this;
    const { classes, colours } = this.me;
    showDisputed(this.disputed, labels, { classes, colours, current, choose: (index) => this.choose(index) });
    const one = current < 0 ? "No column" : `Column ${labels.number[current]} · ${labels.status[current]}`;
    element("column").textContent = one;
    const tally = new Uint32Array(classes.length + 2);
    for (const name of labels.class) tally[classes.indexOf(name) + 1] += 1;
    this.showClasses(tally, -1, current < 0 ? NONE : classes.indexOf(labels.class[current]));
  }

  #pairs() {
    const { experts } = this.agreement;
    const pickers = [element("one"), element("other")];
    pickers.forEach((picker, k) => {
      const names = experts.map(({ name }) => name);
      if (names.join() !== Array.from(picker.options, ({ text }) => text).join()) {
        picker.replaceChildren(...names.map((name, at) => make("option", { value: at }, name)));
      }
      this.pair[k] = Math.min(this.pair[k], Math.max(experts.length - 1, 0));
      picker.value = String(this.pair[k]);
    });
    element("pair").hidden = experts.length < 2;
    showConfusion(this.agreement, this.pair, this.me.classes, this.me.colours);
  }

  async #invite(name) {
    try {
      const { link } = await api.invite(name, element("renew").checked);
      element("link").value = new URL(link, location.href).href;
      element("link").hidden = false;
      element("link").select();
      this.say(`Send this link to ${name}: it is shown once.`);
      await this.refresh();
    } catch (failure) {
      this.say(`Not done: ${failure.message}`);
    }
  }

  async #end() {
    try {
      await api.close(this.image.id, { rule: this.rule });
      this.image.closed = true;
      this.say(`Voting on ${this.image.name} has ended.`);
    } catch (failure) {
      this.say(`Not done: ${failure.message}`);
    }
    await this.refresh();
  }

  #controls() {
    const { me, stage } = this;
    element("who").textContent = me.name;
    element("image").replaceChildren(...me.images.map(({ id, name }) => make("option", { value: id }, name)));
    element("image").addEventListener("change", ({ target }) =>
      this.open(me.images.find(({ id }) => id === Number(target.value))),
    );
    element("rule").addEventListener("change", ({ target }) => {
      this.rule = target.value;
      this.refresh();
    });
    element("shown").addEventListener("change", () => this.#show());
    const classes = me.classes.map((name, at) => ({ name, colour: me.colours[at], key: String(at + 1) }));
    this.showClasses = classButtons(classes, (label) => this.vote(label));
    toneControls((tones) => stage.tone(tones));
    ["one", "other"].forEach((id, k) =>
      element(id).addEventListener("change", ({ target }) => {
        this.pair[k] = Number(target.value);
        this.#pairs();
      }),
    );
    const swatches = SHADES.map((colour) => {
      const swatch = make("i", {});
      swatch.style.background = colour;
      return swatch;
    });
    element("shades").append(...swatches, "all agree");
    element("invite").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#invite(element("name").value.trim());
    });
    element("close").addEventListener("click", () => element("sure").showModal());
    element("sure").addEventListener("close", ({ target }) => target.returnValue === "yes" && this.#end());
    for (const button of document.querySelectorAll("[data-command]")) {
      button.addEventListener("click", () => this[button.dataset.command]());
    }
    listen(this, me.classes.length);
    follow(element("marks"), {
      click: ({ x, y }) => this.#go(stage.columns.nearest(...stage.view.toImage(x, y), stage.columns.spacing)),
      hover: () => {},
      start: () => {},
      drag: (spot, before) => stage.look(() => stage.view.pan(spot.x - before.x, spot.y - before.y)),
      end: () => {},
      zoom: (factor, x, y) => stage.look(() => stage.view.zoom(factor, x, y)),
      pan: (x, y) => stage.look(() => stage.view.pan(x, y)),
    });
  }
}

/** Shade of an agreement; NONE without votes. */
function shadeOf(agreement) {
  if (agreement === null) return NONE;
  return Math.max(0, Math.min(SHADES.length - 1, Math.floor((agreement - 0.5) * 2 * (SHADES.length - 1) + 1e-9)));
}

try {
  const chair = new Chair(await api.me());
  window.contextem = chair; // for tests, and for the curious
  await chair.start();
  document.body.dataset.ready = "true";
} catch (failure) {
  element("notice").hidden = false;
  element("notice").textContent =
    failure.status === 401 ? "Open this page by your invitation link." : failure.message;
  if (!(failure instanceof api.Failure)) throw failure;
}
