/** The keyboard: which key does what. */

/** @typedef {{keys: string, does: string}} Help */

/** What the keys do, in words. @type {Help[]} */
export const HELP = [
  { keys: "1 – 5", does: "vote for a class" },
  { keys: "0", does: "unsure" },
  { keys: "Backspace", does: "take the vote back" },
  { keys: "Space", does: "next column to label" },
  { keys: "↑ ↓ ← →", does: "nearest column in that direction" },
  { keys: "U", does: "undo" },
  { keys: "S B L", does: "select, box or lasso with the pointer" },
  { keys: "P", does: "paint: each click votes for the last class" },
  { keys: "A M D", does: "add, move or delete a column" },
  { keys: "V", does: "show or hide my votes" },
  { keys: "+ − F", does: "zoom in, out, fit" },
  { keys: "Esc", does: "stop, select nothing" },
  { keys: "?", does: "this list" },
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { s: "select", b: "box", l: "lasso", p: "paint", a: "add", m: "move" };
const COMMANDS = {
  " ": "next",
  u: "undo",
  d: "remove",
  Delete: "remove",
  Backspace: "withdraw",
  v: "toggleVotes",
  "+": "zoomIn",
  "=": "zoomIn",
  "-": "zoomOut",
  f: "fit",
  Escape: "stop",
  Enter: "enter",
  "?": "help",
};

/**
 * Let keys do what there are commands for.
 *
 * @param {{vote: (label: number) => void, step: (x: number, y: number) => void, tool?: (name: string) => void,
 *   [command: string]: (...values: any[]) => void}} commands
 * @param {number} unsure label of key 0
 */
export function listen(commands, unsure) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (belongsTo(event.target, event.key)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = actionOf(key, commands, unsure);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function actionOf(key, commands, unsure) {
  if (/^[0-9]$/.test(key)) {
    const label = key === "0" ? unsure : Number(key) - 1;
    return label <= unsure && (key === "0" || label < unsure) ? () => commands.vote(label) : null;
  }
  if (ARROWS[key]) return () => commands.step(...ARROWS[key]);
  if (TOOLS[key] && commands.tool) return () => commands.tool(TOOLS[key]);
  const command = commands[COMMANDS[key]];
  return command ? () => command.call(commands) : null;
}

/** Whether a control needs the key itself. */
function belongsTo(target, key) {
  if (target.matches("select, textarea, input:not([type=range], [type=checkbox])")) return true;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  return target.matches("button, a, input, summary") && (key === " " || key === "Enter");
}
