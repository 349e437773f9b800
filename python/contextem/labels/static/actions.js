/**
 * The queue of an expert's actions: they reach the server once each and in the order in which they were done.
 *
 * Actions wait until the batch before them is acknowledged; a batch has a sequence number, and is sent again under the
 * same one until there is an answer.  What is not acknowledged is kept in the storage of the browser: each load of the
 * page is a client of its own, and first of all sends what the loads before it have left behind.
 */

const PREFIX = "contextem.queue.";
const PAUSES = [300, 600, 1200, 2500, 5000]; // ms between attempts
const LEAVING = 1500; // ms
const BATCH = { items: 200, columns: 100_000 };

const FULL = "The storage of this browser is full: leave the page open until all is saved.";

/**
 * @typedef {{do: string, columns?: number[], class?: number | null, column?: number, row?: number, col?: number,
 *   as?: number, unseen?: boolean}} Action
 *   `as` is the number below zero that a column added goes by until the server gives it one; `unseen` tells of an undo
 *   that the page could not foresee what it does.  Neither is sent.
 * @typedef {{image: number, item: Action}} Waiting
 * @typedef {{expert: string, next: number, sent: {sequence: number, image: number, items: Action[]} | null,
 *   waiting: Waiting[]}} Kept
 * @typedef {{act: typeof import("./api.js").act, answered: (image: number, item: Action, result: object) => void,
 *   changed: (state: {pending: number, trouble: string | null}) => void}} Ends
 */

export class Queue {
  /** @param {string} expert @param {Ends} ends @param {string} [client] @param {Storage} [storage] */
  constructor(expert, ends, client = newClient(), storage = localStorage) {
    this.ends = ends;
    this.client = client;
    this.storage = storage;
    /** @type {Kept} */
    this.kept = JSON.parse(storage.getItem(PREFIX + client)) ?? { expert, next: 1, sent: null, waiting: [] };
    this.busy = null;
    this.full = false;
    this.wake = () => {};
    hold(PREFIX + client);
    addEventListener("online", () => this.wake());
  }

  /** Actions without an answer. */
  get pending() {
    return (this.kept.sent?.items.length ?? 0) + this.kept.waiting.length;
  }

  /** @param {number} image @param {Action} item */
  push(image, item) {
    this.kept.waiting.push({ image, item });
    this.#keep();
    this.#tell(null);
    this.#start();
  }

  /** Resolves when all actions have an answer. */
  async idle() {
    this.#start();
    while (this.busy) await this.busy;
  }

  #start() {
    this.busy ??= this.#drain().finally(() => {
      this.busy = null;
    });
  }

  async #drain() {
    while (this.pending) {
      this.kept.sent ??= this.#batch();
      this.#keep();
      const { image } = this.kept.sent;
      const { items, results } = await this.#deliver();
      this.kept.sent = null;
      items.forEach((item, k) => this.#answer(image, item, results[k] ?? {}));
      this.#keep();
      this.#tell(null);
    }
  }

  /** Take from those that wait what goes in one request: an added column's number must be known to what follows it. */
  #batch() {
    const { waiting, next } = this.kept;
    const { image } = waiting[0];
    const items = [];
    let columns = 0;
    while (waiting.length && waiting[0].image === image && items.length < BATCH.items) {
      columns += waiting[0].item.columns?.length ?? 1;
      if (items.length && columns > BATCH.columns) break;
      items.push(waiting.shift().item);
      if (items.at(-1).do === "add") break;
    }
    this.kept.next = next + 1;
    return { sequence: next, image, items };
  }

  /** Send the batch until there is an answer. */
  async #deliver() {
    for (let attempt = 0; ; attempt++) {
      const { sequence, image, items } = this.kept.sent;
      const bare = items.map(({ as, unseen, ...item }) => item);
      try {
        const { results } = await this.ends.act(image, { client: this.client, sequence, items: bare });
        return { items, results };
      } catch (failure) {
        if (this.#renumber(failure)) continue;
        if (isFinal(failure.status)) return { items, results: items.map(() => ({ refused: failure.message })) };
        this.#tell(reason(failure));
      }
      await this.#pause(PAUSES[Math.min(attempt, PAUSES.length - 1)]);
    }
  }

  /** A server that knows less of this client than it acknowledged goes on where it is. */
  #renumber({ status, message }) {
    const expected = Number(/expected sequence (\d+)/.exec(message)?.[1]);
    if (status !== 409 || !expected || expected === this.kept.sent.sequence) return false;
    this.kept.sent.sequence = expected;
    this.kept.next = expected + 1;
    this.#keep();
    return true;
  }

  #answer(image, item, result) {
    if (item.do === "add" && result.column !== undefined) this.#rename(item.as, result.column);
    if (item.do === "add" && result.refused) {
      this.kept.waiting = this.kept.waiting.filter(({ item: other }) => !namesOf(other).includes(item.as));
    }
    this.ends.answered(image, item, result);
  }

  #rename(from, to) {
    const renamed = (number) => (number === from ? to : number);
    for (const { item } of this.kept.waiting) {
      if (item.columns) item.columns = item.columns.map(renamed);
      if (item.column !== undefined) item.column = renamed(item.column);
    }
  }

  #pause(length) {
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, length);
    });
  }

  #keep() {
    if (!this.pending) return this.storage.removeItem(PREFIX + this.client);
    try {
      this.storage.setItem(PREFIX + this.client, JSON.stringify(this.kept));
      this.full = false;
    } catch {
      this.full = true;
    }
  }

  #tell(trouble) {
    const unkept = this.full && this.pending ? FULL : null;
    this.ends.changed({ pending: this.pending, trouble: unkept ?? trouble });
  }
}

/**
 * Send what earlier loads of the page left behind, if they were this expert's and are gone.
 *
 * @param {string} expert
 * @param {Ends} ends
 */
export async function sendLeftovers(expert, ends, storage = localStorage) {
  const left = Object.keys(storage).filter((key) => key.startsWith(PREFIX));
  for (const key of left) {
    const kept = JSON.parse(storage.getItem(key));
    if (kept?.expert !== expert || !(await isFree(key))) continue;
    await new Queue(expert, ends, key.slice(PREFIX.length), storage).idle();
  }
}

const namesOf = ({ columns = [], column }) => (column === undefined ? columns : [column]);

/** Whether an answer will not change: the request was understood, and refused. */
const isFinal = (status) => status >= 400 && status < 500 && ![401, 403, 408, 425, 429].includes(status);

function reason({ status, message }) {
  if (status === 401 || status === 403) return `Open your invitation link again: ${message}. Your votes are kept.`;
  return status === 0
    ? "No answer from the server. Your votes are kept in this browser."
    : `Not saved yet: ${message}.`;
}

/** Random name of a client (`crypto.randomUUID` is for pages of https and of this machine only). */
function newClient() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("-");
}

/** Tell other tabs that this one lives, as long as it does. */
function hold(name) {
  navigator.locks?.request(name, { ifAvailable: true }, (lock) => lock && new Promise(() => {}));
}

/**
 * Whether no tab lives that holds a queue; a page that is being left may take a moment to let go of it.  Without locks
 * (http on a network) there is taken to be one tab.
 */
async function isFree(name) {
  try {
    await navigator.locks?.request(name, { signal: AbortSignal.timeout(LEAVING) }, () => {});
    return true;
  } catch {
    return false;
  }
}
