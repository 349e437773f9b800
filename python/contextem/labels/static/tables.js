/** What the chair reads: experts, how far they agree, where two of them differ, and the columns in dispute. */

import { element, glyph, make, spoken } from "./panel.js";

const MOST = 300; // disputed columns that are listed at once
const number = new Intl.NumberFormat("en");
const digits = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

/**
 * @param {{id: number, name: string, role: string, voted: Object<string, number>}[]} experts
 * @param {import("./api.js").Agreement} agreement
 * @param {import("./api.js").Picture} image
 */
export function showExperts(experts, agreement, image) {
  const quality = new Map(agreement.experts.map((expert) => [expert.id, expert.quality]));
  const rows = experts
    .filter(({ role }) => role === "expert")
    .map(({ id, name, voted }) => {
      const done = voted[image.id] ?? 0;
      const bar = make("progress", {
        max: Math.max(image.columns, 1),
        value: done,
        "aria-label": `progress of ${name}`,
      });
      const cells = [
        make("td", {}, bar),
        make("td", {}, number.format(done)),
        make("td", {}, digits(quality.get(id))),
      ];
      return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
    });
  const heads = ["expert", "", "votes", "quality"].map((text) => make("th", { scope: "col" }, text));
  const body = rows.length
    ? rows
    : [make("tr", {}, make("td", { colspan: "4", class: "hint" }, "Nobody is invited yet."))];
  element("experts").replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
}

/** @param {import("./api.js").Agreement} agreement */
export function showAgreement({ krippendorff_alpha, fleiss_kappa }) {
  const told = (name, estimate) => {
    const interval = estimate ? `${digits(estimate.interval_95[0])} to ${digits(estimate.interval_95[1])}` : "";
    return [make("dt", {}, name), make("dd", {}, make("strong", {}, digits(estimate?.value)), ` ${interval}`)];
  };
  const entries = [...told("Krippendorff α", krippendorff_alpha), ...told("Fleiss κ", fleiss_kappa)];
  element("agreement").replaceChildren(...entries);
}

/**
 * Show what two experts call the same columns.
 *
 * @param {import("./api.js").Agreement} agreement
 * @param {[number, number]} pair indices into its experts
 * @param {string[]} classes
 * @param {string[]} colours
 */
export function showConfusion({ experts, confusion }, [one, other], classes, colours) {
  const table = element("confusion");
  table.hidden = !confusion || experts.length < 2;
  if (table.hidden) return;
  const counts = confusion[one][other];
  const most = Math.max(1, ...counts.flat());
  const head = (label) => {
    const cell = make("th", { scope: "col", title: spoken(classes[label]) }, glyph(label, colours[label], 14));
    cell.append(make("span", { class: "unseen" }, spoken(classes[label])));
    return cell;
  };
  const rows = counts.map((row, label) => {
    const first = head(label);
    first.scope = "row";
    const cells = row.map((count, column) => {
      const cell = make("td", { class: column === label ? "same" : "other" }, count ? number.format(count) : "·");
      cell.style.setProperty("--share", String(Math.sqrt(count / most)));
      return cell;
    });
    return make("tr", {}, first, ...cells);
  });
  const corner = make("td", {});
  table.replaceChildren(
    make("thead", {}, make("tr", {}, corner, ...classes.map((_, k) => head(k)))),
    make("tbody", {}, ...rows),
  );
}

/**
 * List columns, each with the shares of its votes.
 *
 * @param {number[]} indices
 * @param {import("./api.js").Labels} labels
 * @param {{classes: string[], colours: string[], current: number, choose: (index: number) => void}} how
 */
export function showDisputed(indices, labels, { classes, colours, current, choose }) {
  element("disputed-title").textContent = `Disputed · ${number.format(indices.length)}`;
  const items = indices.slice(0, MOST).map((index) => {
    const shares = classes
      .map((name, label) => ({ label, share: labels[name][index] }))
      .filter(({ share }) => share > 0);
    const told = shares
      .map(({ label, share }) => `${spoken(classes[label])} ${Math.round(100 * share)} %`)
      .join(", ");
    const bar = make("span", { class: "shares", "aria-hidden": "true" });
    for (const { label, share } of shares) {
      const part = make("i", {}, glyph(label, "#0b0d10", 12));
      part.style.flexGrow = String(share);
      part.style.background = colours[label];
      bar.append(part);
    }
    const name = `column ${labels.number[index]}: ${told}`;
    const button = make("button", { type: "button", "aria-label": name, "aria-pressed": String(index === current) });
    button.append(
      make("span", {}, String(labels.number[index])),
      bar,
      make("span", { class: "count" }, `${labels.votes[index]}`),
    );
    button.addEventListener("click", () => choose(index));
    return make("li", {}, button);
  });
  const list = element("disputed");
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...items);
  const chosen = list.querySelector("[aria-pressed=true]");
  chosen?.scrollIntoView({ block: "nearest" });
  if (focused) (chosen ?? list.querySelector("button"))?.focus();
  element("disputed-rest").hidden = indices.length <= MOST;
  element("disputed-rest").textContent = `and ${number.format(indices.length - MOST)} more`;
}
