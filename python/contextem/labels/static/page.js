// One image at full size with its columns: a click chooses a column, a key votes. Actions are sent one after another.
const TILE = 512;
const client = crypto.getRandomValues(new Uint32Array(4)).join("-");
const canvas = document.getElementById("canvas");
const select = document.getElementById("image");
const state = document.getElementById("state");
const context = canvas.getContext("2d");
let me, image, columns, chosen = -1, sequence = 0, sending = Promise.resolve();
const tiles = new Map();

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer;
}

async function loadColumns() {
  const bytes = await (await ask(`/api/images/${image.id}/columns`)).arrayBuffer();
  const n = new DataView(bytes).getUint32(0, true);
  columns = {
    ids: new Uint32Array(bytes, 4, n),
    positions: new Float32Array(bytes, 4 + 4 * n, 2 * n),
    own: new Int8Array(bytes, 4 + 12 * n, n),
  };
  draw();
}

function loadTiles() {
  tiles.clear();
  for (let row = 0; row * TILE < image.height; row++) {
    for (let column = 0; column * TILE < image.width; column++) {
      const tile = new Image();
      tile.onload = draw;
      tile.src = `/api/images/${image.id}/tiles/0/${row}/${column}.png?v=${image.version}`;
      tiles.set(tile, [row, column]);
    }
  }
}

function draw() {
  for (const [tile, [row, column]] of tiles) if (tile.complete) context.drawImage(tile, column * TILE, row * TILE);
  if (!columns) return;
  columns.own.forEach((label, k) => {
    context.strokeStyle = label < 0 ? "#ffffff80" : me.colours[label] ?? "#ffffff";
    context.lineWidth = k === chosen ? 3 : 1.5;
    context.beginPath();
    context.arc(columns.positions[2 * k + 1], columns.positions[2 * k], k === chosen ? 6 : 3, 0, 7);
    context.stroke();
  });
  const voted = columns.own.filter((label) => label >= 0).length;
  state.value = `${me.name}: ${voted} of ${columns.ids.length} columns`;
}

// A request is sent again, under the same number, until it is answered: what was done before is not done twice.
function send(items) {
  const body = JSON.stringify({ client, sequence: ++sequence, items });
  const path = `/api/images/${image.id}/actions`;
  sending = sending.then(async () => {
    for (let wait = 200; ; wait = Math.min(2 * wait, 5000)) {
      try {
        return await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      } catch (error) {
        state.value = error.message;
        if (!(error instanceof TypeError)) return;
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  });
  return sending;
}

canvas.addEventListener("click", (event) => {
  let nearest = Infinity;
  for (let k = 0; k < columns.ids.length; k++) {
    const distance = Math.hypot(columns.positions[2 * k] - event.offsetY, columns.positions[2 * k + 1] - event.offsetX);
    if (distance < nearest) [nearest, chosen] = [distance, k];
  }
  draw();
});

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "u") {
    send([{ do: "undo" }]).then(loadColumns);
  } else if (/^[0-5]$/.test(event.key) && chosen >= 0) {
    const label = event.key === "0" ? me.classes.length : Number(event.key) - 1;
    columns.own[chosen] = label;
    send([{ do: "vote", column: columns.ids[chosen], class: label }]);
    draw();
  }
});

async function open() {
  image = me.images.find((each) => String(each.id) === select.value);
  chosen = -1;
  columns = undefined;
  canvas.width = image.width;
  canvas.height = image.height;
  loadTiles();
  await loadColumns();
}

try {
  me = await (await ask("/api/me")).json();
  for (const each of me.images) select.add(new Option(each.name, each.id));
  select.addEventListener("change", open);
  await open();
} catch (error) {
  state.value = error.message;
}
