"""A server for the labelling page alone: random columns, a random image, votes in memory."""

from __future__ import annotations

import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from contextem.columns import CLASSES
from contextem.views import COLOURS

STATIC = Path(__file__).resolve().parents[1] / "python" / "contextem" / "labels" / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "default-src 'self'; frame-ancestors 'none'"
SIDE = 512
UNSURE = len(CLASSES)


def lattice(count, height, width, seed):
    """Columns of a honeycomb lattice with jitter, (N, 2), N about `count`."""
    bond = np.sqrt(height * width / count / 1.3)
    rows = np.arange(0.7 * bond, height - 0.3 * bond, 0.866 * bond)
    places = []
    for k, row in enumerate(rows):
        x = np.arange((0.5 + 0.5 * (k % 2)) * bond, width - 0.3 * bond, bond)
        keep = (np.arange(len(x)) + 2 * (k % 2) + k // 2) % 3 != 2
        places.append(np.stack([np.full(len(x), row), x], axis=1)[keep | (count > 0)])
    found = np.concatenate(places)
    return (found + np.random.default_rng(seed).normal(0, 0.04 * bond, found.shape)).astype(np.float32)


class Room:
    """What one image has: pixels, columns, and per expert the states and the actions, in order."""

    def __init__(self, count, height, width, seed=0):
        rng = np.random.default_rng(seed)
        self.found = lattice(count, height, width, seed)
        self.pixels = _picture(self.found, height, width, rng)
        self.log = {}
        self.seen = {}
        self.down = False
        self.lock = threading.Lock()

    def states(self, expert):
        """Replay of the expert's actions: number -> [row, column, vote], and the log without what was undone."""
        done = []
        for item in self.log.get(expert, []):
            if item["do"] == "undo":
                done = done[:-1]
            else:
                done.append(item)
        states = {k: [*map(float, place), -1] for k, place in enumerate(self.found)}
        for item in done:
            if item["do"] == "add":
                states[item["number"]] = [item["row"], item["col"], -1]
            for number in item.get("columns", [item["column"]] if "column" in item else []):
                if item["do"] == "vote":
                    states[number][2] = -1 if item["class"] is None else item["class"]
                elif item["do"] == "move":
                    states[number][:2] = item["row"], item["col"]
                elif item["do"] == "delete":
                    del states[number]
        return states

    def act(self, expert, body):
        """Answer of a batch; a repeated one gets the answer it got."""
        with self.lock:
            answers = self.seen.setdefault((expert, body["client"]), [])
            if body["sequence"] <= len(answers):
                return 200, answers[body["sequence"] - 1]
            if body["sequence"] != len(answers) + 1:
                return 409, {"detail": f"sequence: expected sequence {len(answers) + 1}, got {body['sequence']}"}
            log = self.log.setdefault(expert, [])
            results = []
            for item in body["items"]:
                if item["do"] == "add":
                    added = sum(other["do"] == "add" for other in log)
                    item["number"] = len(self.found) + added
                log.append(item)
                results.append({"do": item["do"]} | ({"column": item["number"]} if item["do"] == "add" else {}))
            answers.append({"sequence": body["sequence"], "results": results})
            return 200, answers[-1]


def _picture(places, height, width, rng):
    """Blurred dots on noise, 8 bit."""
    from scipy.ndimage import gaussian_filter

    spacing = np.sqrt(height * width / len(places))
    image = np.zeros((height, width), np.float32)
    rows, columns = np.rint(places).astype(int).clip(0, np.array([height, width]) - 1).T
    np.add.at(image, (rows, columns), rng.choice([0.55, 1.0], len(places)) * rng.normal(1, 0.06, len(places)))
    image = gaussian_filter(image, 0.2 * spacing) * (0.2 * spacing) ** 2 * 6.3
    image += gaussian_filter(rng.normal(0, 0.1, image.shape).astype(np.float32), 0.6)
    return np.clip(40 + 180 * image, 0, 255).astype(np.uint8)


def serve(rooms):
    """Serve rooms, by image number, on a free port; return the server, to shut down."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, body, kind="application/json", **headers):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            fields = {"Content-Type": kind, "Content-Length": str(len(data)), "Content-Security-Policy": POLICY}
            for name, value in (fields | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        @property
        def expert(self):
            found = re.search(r"contextem=(\w+)", self.headers.get("Cookie", ""))
            return found and found[1]

        def do_GET(self):
            path = self.path.split("?")[0]
            if path.startswith("/join/"):
                name = path.split("/")[-1]
                return self.reply(303, b"", Location="/", Set_Cookie=f"contextem={name}; HttpOnly; SameSite=Strict; Path=/")
            if path in ("/", "/chair") or path.startswith("/static/"):
                name = {"/": "index.html", "/chair": "chair.html"}.get(path, path.removeprefix("/static/"))
                file = STATIC / name
                return self.reply(200, file.read_bytes(), TYPES[file.suffix]) if file.is_file() else self.reply(404, {})
            if self.expert is None:
                return self.reply(401, {"detail": "expert: expected an invitation, got none"})
            if path == "/api/me":
                return self.reply(200, self.me())
            image, what = re.fullmatch(r"/api/images/(\d+)/(.+)", path).groups()
            room = rooms[int(image)]
            if room.down:
                return self.reply(503, {"detail": "down"})
            if what == "columns":
                states = room.states(self.expert)
                ids = np.array(list(states), "<u4")
                values = np.array(list(states.values())).reshape(-1, 3)
                parts = [np.array([len(ids)], "<u4"), ids, values[:, :2].astype("<f4"), values[:, 2].astype("i1")]
                return self.reply(200, b"".join(part.tobytes() for part in parts), "application/octet-stream")
            if what == "order":
                order = np.random.default_rng(abs(hash(self.expert)) % 1000).permutation(len(room.found)).astype("<u4")
                return self.reply(200, order.tobytes(), "application/octet-stream")
            if found := re.fullmatch(r"tiles/(\d+)/(\d+)/(\d+)\.png", what):
                level, row, column = map(int, found.groups())
                step = 2**level
                part = room.pixels[::step, ::step][row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
                file = io.BytesIO()
                Image.fromarray(part).save(file, "PNG", compress_level=1)
                return self.reply(200, file.getvalue(), "image/png")
            if found := re.fullmatch(r"columns/(\d+)/patch", what):
                return self.reply(200, self.patch(room, int(found[1])))
            return self.reply(404, {"detail": "no such page"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            room = rooms[int(self.path.split("/")[3])]
            if room.down:
                return self.reply(503, {"detail": "down"})
            return self.reply(*room.act(self.expert, body))

        def me(self):
            images = [
                {"id": k, "name": f"lattice {k}", "height": room.pixels.shape[0], "width": room.pixels.shape[1],
                 "sampling": 0.12, "columns": len(room.found), "voted": 0}
                for k, room in rooms.items()
            ]  # fmt: skip
            return {"name": self.expert, "role": "expert", "classes": CLASSES, "colours": COLOURS, "images": images}

        def patch(self, room, number):
            row, column = np.rint(room.states(self.expert)[number][:2]).astype(int)
            size = 33
            padded = np.pad(room.pixels, size)[row + size // 2 + 1 :, column + size // 2 + 1 :][:size, :size]
            smooth = np.asarray(Image.fromarray(padded).resize((9, 9)).resize((size, size), 3))
            means = {name: np.roll(smooth, k, axis=0).ravel().tolist() for k, name in enumerate(CLASSES)}
            return {"size": size, "patch": padded.ravel().tolist(), "reconstruction": smooth.ravel().tolist(), "means": means}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
