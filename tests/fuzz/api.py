"""Requests to the label server: paths, headers, cookies and bodies, as browsers, scripts and strangers send them."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from contextem.columns import Columns
from contextem.labels import server
from contextem.labels.server import create_app
from contextem.labels.votes import VoteStore
from contextem.micrograph import Micrograph
from fuzz.draw import Broken, Draw

INSTRUMENTED = (
    *("contextem.labels.server", "contextem.labels.guard", "contextem.labels.votes", "contextem.labels.actions"),
    *("contextem.labels.views", "contextem.labels.tiles", "contextem.labels.consensus"),
)

server.PATIENCE = 0.0
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
LOOP = asyncio.new_event_loop()
LASTING = 200  # requests to one store

PATHS = (
    *("/", "/chair", "/static/main.js", "/static/../server.py", "/static/%2e%2e/server.py", "/join/{token}", "/join/x"),
    *("/api/me", "/api/images/1/tiles/0/0/0.png", "/api/images/1/columns", "/api/images/1/order", "/api/experts"),
    *("/api/images/1/columns/2/patch", "/api/images/1/progress", "/api/images/1/consensus", "/api/images/1/export.csv"),
    *("/api/images/1/agreement", "/api/images/1/actions", "/api/images/1/adjudicate", "/api/images/1/close"),
    *("/api/images/{number}/columns", "/api/images/1/tiles/{number}/{number}/{number}.png", "{text}"),
    "/api/images/1/columns/{number}/patch",
)
ITEMS: tuple[dict[str, Any], ...] = (
    {"do": "vote", "column": 1, "class": 2},
    {"do": "vote", "columns": [0, 2], "class": None},
    {"do": "undo"},
    {"do": "add", "row": 3.5, "col": 4.0},
    {"do": "move", "column": 1, "row": 9.0, "col": 20.5},
    {"do": "delete", "columns": [2]},
)
BODIES: tuple[Any, ...] = (
    {"name": "Dora", "role": "expert", "renew": False},
    {"column": 1, "class": 3},
    {"rule": "majority"},
)


class Served:
    """A store that is served, and who asks."""

    def __init__(self) -> None:
        path = FOLDER / "labels.db"
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        pixels = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
        with VoteStore(path) as store:
            store.add_image(Micrograph(pixels, 0.2), Columns([[5.0, 5.0], [9.0, 20.0], [30.0, 9.0]]), name="a")
            self.tokens = (store.add_expert("Ada"), store.add_expert("Bob"), store.add_expert("Cleo", "chair"))
        self.app, self.requests = create_app(path), 0


SERVED: list[Served] = []


def _served() -> Served:
    if not SERVED or SERVED[-1].requests >= LASTING:
        for old in SERVED:
            old.app.state.served.store.close()
        SERVED[:] = [Served()]
    SERVED[-1].requests += 1
    return SERVED[-1]


def _with_another(draw: Draw, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, draw.choice((*sorted(body), draw.text())): draw.value()} if draw.chance(4) else body


def _body(draw: Draw, path: str) -> bytes:
    if draw.chance(16):
        return draw.rest()
    if path.endswith(("adjudicate", "close", "experts")):
        told = _with_another(draw, dict(BODIES[("experts", "adjudicate", "close").index(path.rpartition("/")[2])]))
    else:
        items = [_with_another(draw, dict(draw.choice(ITEMS))) for _ in range(1 + draw.below(4))]
        told = {"client": draw.choice((f"page{draw.below(256)}", draw.text())), "sequence": 1, "items": items}
        if draw.chance(4):
            told["sequence"] = draw.integer()
        told = _with_another(draw, told) if draw.chance(4) else told
    return json.dumps(told).encode("utf-8", "surrogatepass")


async def _answer(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def target(data: bytes) -> None:
    draw, served = Draw(data), _served()
    path = str(draw.choice(PATHS))
    posted = path.endswith(("actions", "adjudicate", "close", "experts"))
    chair = path.endswith(("adjudicate", "close", "experts", "consensus", "agreement", "csv"))
    token = draw.text() if draw.chance(16) else served.tokens[2 if chair ^ draw.chance(16) else draw.below(2)]
    path = path.format(token=token, number=draw.integer(), text="/" + draw.text())
    method = draw.choice(("GET", "HEAD", "PUT", "DELETE", "POST")) if draw.chance(16) else "POST" if posted else "GET"
    query = draw.choice(("", "rule=dawid-skene", "rule=unanimity", f"rule={draw.text()}", "v=x", draw.text()))
    host = draw.choice((b"127.0.0.1", b"[::1]:1", b"evil.example", draw.take(8))) if draw.chance(16) else b"localhost"
    kind = draw.choice((b"text/plain", draw.take(8))) if draw.chance(16) else b"application/json"
    cookie = b"contextem=" + token.encode("utf-8", "surrogateescape")
    headers = [(b"host", host), (b"content-type", kind), (b"cookie", cookie)]
    if draw.chance(16):
        headers.append((b"origin", draw.choice((b"http://localhost", b"http://evil.example", draw.take(8)))))
    if draw.chance(16):
        headers.append((b"content-length", draw.choice((b"0", b"99999999999", b"-1", draw.take(8)))))
    raw = path.encode("utf-8", "surrogateescape")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(raw).decode("utf-8", "replace"),  # as uvicorn has it
        "raw_path": raw,
        "query_string": query.encode("utf-8", "surrogateescape"),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8763),
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        status, answered, content = LOOP.run_until_complete(_answer(served.app, scope, _body(draw, path)))
    if not 200 <= status < 500 or answered.get("x-content-type-options") != "nosniff":
        raise Broken(f"{method} {path!r}: status {status}, {content[:200]!r}")
    if status >= 400 and method != "HEAD":
        detail = json.loads(content)["detail"]
        if not isinstance(detail, str) or len(detail.splitlines()) != 1:
            raise Broken(f"{method} {path!r}: expected one sentence, got {detail!r}")


def seeds() -> Iterator[bytes]:
    for place in range(len(PATHS)):
        for length in (2, 24, 60, 90):
            yield bytes([place]) + bytes((7 * i * (place + length)) % 251 for i in range(length))
