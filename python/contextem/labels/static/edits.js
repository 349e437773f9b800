/** What an expert does to columns: seen at once, sent by the queue, and undone in the same order. */

import { NONE } from "./columns.js";

export class Edits {
  /**
   * @param {import("./columns.js").Columns} columns
   * @param {(item: import("./actions.js").Action) => void} send
   */
  constructor(columns, send) {
    this.columns = columns;
    this.send = send;
    /** @type {import("./columns.js").State[][]} states that were replaced */
    this.history = [];
    this.added = 0;
  }

  /** Vote on columns, as one action. @param {number[]} indices @param {number} label */
  vote(indices, label) {
    this.#change(indices, (state) => ({ ...state, label }));
    this.send({ do: "vote", columns: this.#numbers(indices), class: label === NONE ? null : label });
  }

  /** Delete columns, as one action. @param {number[]} indices */
  remove(indices) {
    const numbers = this.#numbers(indices);
    this.#change(indices, (state) => ({ ...state, present: 0 }));
    this.send({ do: "delete", columns: numbers });
  }

  /** @returns {number} index of the new column */
  add(x, y) {
    this.added += 1;
    const index = this.columns.add(-this.added, x, y);
    this.history.push([{ ...this.columns.state(index), present: 0 }]);
    this.send({ do: "add", row: y, col: x, as: -this.added });
    return index;
  }

  move(index, x, y) {
    this.#change([index], (state) => ({ ...state, x, y }));
    this.send({ do: "move", column: this.columns.ids[index], row: y, col: x });
  }

  /**
   * Undo the last action that is not undone.
   *
   * @returns {number[] | null} indices of what changed; null if it was done before the columns were loaded: what it
   *   was, the server knows
   */
  undo() {
    this.send({ do: "undo", unseen: this.history.length === 0 });
    const states = this.history.pop();
    states?.forEach((state) => this.columns.set(state));
    return states?.map(({ index }) => index) ?? null;
  }

  #numbers(indices) {
    return indices.map((index) => this.columns.ids[index]);
  }

  #change(indices, next) {
    const before = indices.map((index) => this.columns.state(index));
    before.forEach((state) => this.columns.set(next(state)));
    this.history.push(before);
  }
}
