/** Talks to the server: every request of the page is one of these. */

const PATIENCE = 15_000; // ms

/** An answer that is not the one asked for; `status` is 0 where there was none. */
export class Failure extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * @typedef {{id: number, name: string, version: string, height: number, width: number, sampling: number,
 *   columns: number, voted: number, closed: boolean}} Picture
 * @typedef {{name: string, role: string, classes: string[], colours: string[], images: Picture[]}} Me
 * @typedef {{size: number, patch: number[][], reconstruction: number[][],
 *   means: Object<string, number[][]>}} Patch
 * @typedef {{client: string, sequence: number, items: object[]}} Batch
 */

async function ask(path, options = {}) {
  const signal = AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(options.signal ? [options.signal] : [])]);
  let answer;
  try {
    answer = await fetch(path, { ...options, signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure(0, "the server does not answer");
  }
  if (!answer.ok) throw new Failure(answer.status, await sentence(answer));
  return answer;
}

async function sentence(answer) {
  try {
    const { detail } = await answer.json();
    return typeof detail === "string" ? detail : `the server answered ${answer.status}`;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

const json = async (path, options) => (await ask(path, options)).json();
const bytes = async (path) => (await ask(path)).arrayBuffer();
const send = (path, body) =>
  json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** @returns {Promise<Me>} */
export const me = () => json("/api/me");

/** @param {number} image @returns {Promise<ArrayBuffer>} as `Columns.read` takes it */
export const columns = (image) => bytes(`/api/images/${image}/columns`);

/** @param {number} image @returns {Promise<Uint32Array>} column ids */
export const order = async (image) => new Uint32Array(await bytes(`/api/images/${image}/order`));

/** @param {number} image @param {number} column @param {AbortSignal} signal @returns {Promise<Patch>} */
export const patch = (image, column, signal) => json(`/api/images/${image}/columns/${column}/patch`, { signal });

/** @param {Picture} image @param {number} level @param {number} row @param {number} column @returns {Promise<Blob>} */
export const tile = async ({ id, version }, level, row, column) =>
  (await ask(`/api/images/${id}/tiles/${level}/${row}/${column}.png?v=${version}`)).blob();

/** @param {number} image @param {Batch} batch @returns {Promise<{sequence: number, results: object[]}>} */
export const act = (image, batch) => send(`/api/images/${image}/actions`, batch);

/**
 * @typedef {{number: number[], row: number[], column: number[], class: string[], votes: number[],
 *   agreement: (number | null)[], status: string[], [shares: string]: any[]}} Labels
 * @typedef {{value: number | null, interval_95: (number | null)[]}} Estimate
 * @typedef {{experts: {id: number, name: string, quality?: number | null, votes?: number}[],
 *   confusion?: number[][][][], krippendorff_alpha?: Estimate, fleiss_kappa?: Estimate}} Agreement
 */

// The chair's:

/** @param {number} image @param {string} rule @returns {Promise<Labels>} */
export const consensus = (image, rule) => json(`/api/images/${image}/consensus?rule=${rule}`);

/** @param {number} image @returns {Promise<Agreement>} */
export const agreement = (image) => json(`/api/images/${image}/agreement`);

/** @returns {Promise<{id: number, name: string, role: string, voted: Object<string, number>}[]>} */
export const experts = () => json("/api/experts");

/** @param {string} name @param {boolean} renew @returns {Promise<{link: string}>} */
export const invite = (name, renew) => send("/api/experts", { name, role: "expert", renew });

/** @param {number} image @param {number} column @param {number | null} label null leaves it to the votes */
export const decide = (image, column, label) => send(`/api/images/${image}/adjudicate`, { column, class: label });

/** @param {number} image @param {object} settings kept with the votes */
export const close = (image, settings) => send(`/api/images/${image}/close`, settings);

/** @param {number} image @param {string} rule @returns {string} address of the labels as CSV */
export const exported = (image, rule) => `/api/images/${image}/export.csv?rule=${rule}`;
