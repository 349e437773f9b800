"""Labelling over HTTP: a page for every expert, and one for the chair.

Who asks is told by a cookie, and nothing is told of anybody else: the paths that speak of all are the chair's.  Paths
name images, tiles and columns by numbers, and the files of the pages by names that were read when the server started;
no file is opened by a name that comes from outside.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from contextem._extras import needs_extra
from contextem.columns import CLASSES
from contextem.labels.actions import Add, Delete, Item, Move, Undo, Vote
from contextem.labels.consensus import bootstrap, dawid_skene, expert_confusion, fleiss_kappa, krippendorff_alpha
from contextem.labels.guard import Guard
from contextem.labels.tiles import Cache, grey, png
from contextem.labels.views import Views
from contextem.labels.votes import RULES, Expert, Missing, OutOfOrder, Refused, VoteStore, labels_text
from contextem.views import COLOURS, MARKERS

with needs_extra("label"):
    import uvicorn
    from fastapi import APIRouter, Cookie, Depends, FastAPI, HTTPException, Request, Response
    from fastapi import Path as InPath
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, RedirectResponse
    from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException as AnyHTTPException

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""How long a request that came too early waits for the ones before it, s."""

TILES = 64 << 20
"""Bytes of tiles that are kept."""

COOKIE = "contextem"

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a page on this machine calls it."""

_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "json": "application/json",
}
_WAITING = 64  # requests at once that may wait for the ones before them
_REPEATS = 200  # of the bootstrap

Index = Annotated[int, InPath(ge=0, lt=1 << 31)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VoteItem(_Strict):
    """A vote on one or several columns."""

    do: Literal["vote"]
    column: int | None = None
    columns: list[int] | None = None
    label: int | None = Field(alias="class")


class UndoItem(_Strict):
    """Take back the last action."""

    do: Literal["undo"]


class AddItem(_Strict):
    """A column that was not found."""

    do: Literal["add"]
    row: FiniteFloat
    col: FiniteFloat


class MoveItem(_Strict):
    """Another position of a column."""

    do: Literal["move"]
    column: int
    row: FiniteFloat
    col: FiniteFloat


class DeleteItem(_Strict):
    """One or several columns that are none."""

    do: Literal["delete"]
    column: int | None = None
    columns: list[int] | None = None


class Actions(_Strict):
    """What an expert did on one image, in order."""

    client: str
    sequence: int
    items: list[Annotated[VoteItem | UndoItem | AddItem | MoveItem | DeleteItem, Field(discriminator="do")]]


class NewExpert(_Strict):
    """Somebody to invite."""

    name: str
    role: Literal["expert", "chair"] = "expert"
    renew: bool = False


class Decision(_Strict):
    """What the chair makes of a column; no class leaves it to the votes."""

    column: int
    label: int | None = Field(alias="class")


@dataclass
class _Served:
    """What the paths have in common."""

    store: VoteStore
    tiles: Cache
    views: Views
    files: dict[str, bytes]
    waiting: int = 0


def _served(request: Request) -> _Served:
    served: _Served = request.app.state.served
    return served


Served = Annotated[_Served, Depends(_served)]


def _voter(served: Served, token: Annotated[str, Cookie(alias=COOKIE)] = "") -> Expert:
    found = served.store.expert_of(token)
    if found is None:
        raise HTTPException(401, "cookie: expected an invitation; open the link that the chair gave you")
    return found


Voter = Annotated[Expert, Depends(_voter)]


def _chair(who: Voter) -> Expert:
    if who.role != "chair":
        raise HTTPException(403, "role: this is the chair's, who sees the votes of all")
    return who


Chair = Annotated[Expert, Depends(_chair)]


_routes = APIRouter()


def _page(served: _Served, name: str) -> Response:
    if name not in served.files:
        raise HTTPException(404, "path: there is nothing of this name")
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(served.files[name], media_type=kind, headers={"cache-control": "no-cache"})


@_routes.get("/")
def index(served: Served) -> Response:
    """Return the page of an expert."""
    return _page(served, "index.html")


@_routes.get("/chair")
def chair_page(served: Served) -> Response:
    """Return the page of the chair."""
    return _page(served, "chair.html" if "chair.html" in served.files else "index.html")


@_routes.get("/static/{name}")
def static(served: Served, name: str) -> Response:
    """Return a file of the pages."""
    return _page(served, name)


@_routes.get("/join/{token}")
def join(served: Served, token: str) -> Response:
    """Take an invitation: whoever has the cookie is this expert."""
    who = served.store.expert_of(token)
    if who is None:
        raise HTTPException(404, "link: expected an invitation, got one that is wrong or replaced; ask the chair")
    answer = RedirectResponse("/chair" if who.role == "chair" else "/", 303)
    answer.set_cookie(COOKIE, token, max_age=365 * 86400, httponly=True, samesite="strict")
    return answer


@_routes.get("/api/me")
def me(served: Served, who: Voter) -> dict[str, Any]:
    """Return who asks, and the images with the progress of whom that is."""
    return {
        "name": who.name,
        "role": who.role,
        "classes": CLASSES,
        "colours": COLOURS,
        "markers": MARKERS,
        "images": [
            {
                "id": info.id,
                "name": info.name,
                "version": info.sha256[:16],
                "height": info.height,
                "width": info.width,
                "sampling": info.sampling,
                "closed": info.closed,
                **progress(served, info.id, who),
            }
            for info in served.store.images()
        ],
    }


@_routes.get("/api/images/{image}/tiles/{level}/{row}/{column}.png")
def tile(served: Served, image: Index, level: Index, row: Index, column: Index, who: Voter, v: str = "") -> Response:
    """Return a tile as PNG."""

    def make() -> bytes:
        pixels = served.store.tile(image, level, row, column)
        return png(pixels if level else grey(pixels, info.black, info.white))

    info = served.store.image(image)
    content = served.tiles.get((image, level, row, column), make, len)
    lasting = v == info.sha256[:16]  # the number of an image is another image's in another store
    caching = {"cache-control": "private, max-age=31536000, immutable" if lasting else "no-store"}
    return Response(content, media_type="image/png", headers=caching)


@_routes.get("/api/images/{image}/columns")
def columns(served: Served, image: Index, who: Voter) -> Response:
    """Return columns with own votes: count and numbers, uint32; row and column, float32; votes, int8; little endian."""
    seen = served.store.columns(image, who)
    parts = (
        np.array([len(seen)], "<u4"),
        seen.ids.astype("<u4"),
        seen.positions.astype("<f4"),
        seen.own.astype("i1"),
    )
    return Response(b"".join(part.tobytes() for part in parts), media_type="application/octet-stream")


@_routes.get("/api/images/{image}/order")
def order(served: Served, image: Index, who: Voter) -> Response:
    """Return the numbers of the columns in the order of work, uint32."""
    return Response(served.store.order(image, who).astype("<u4").tobytes(), media_type="application/octet-stream")


@_routes.get("/api/images/{image}/columns/{column}/patch")
def patch(served: Served, image: Index, column: Index, who: Voter) -> Response:
    """Return what is shown of one column."""
    return _json(served.views.view(image, who, column))


@_routes.get("/api/images/{image}/progress")
def progress(served: Served, image: Index, who: Voter) -> dict[str, int]:
    """Return how far the expert is."""
    voted, count = served.store.progress(image, who)
    return {"voted": voted, "columns": count}


@_routes.post("/api/images/{image}/actions")
async def act(served: Served, image: Index, actions: Actions, who: Voter) -> Response:
    """Do what an expert did on the page, in the order of its sequence numbers."""
    items = [_item(item) for item in actions.items]
    until = time.monotonic() + PATIENCE
    waits = False
    try:
        while True:
            try:
                done = await run_in_threadpool(served.store.cast, image, who, actions.client, actions.sequence, items)
                return _json({"sequence": done.sequence, "results": done.results})
            except OutOfOrder:
                if time.monotonic() > until or (not waits and served.waiting >= _WAITING):
                    raise
                served.waiting += not waits
                waits = True
                await asyncio.sleep(0.02)
    finally:
        served.waiting -= waits


@_routes.get("/api/images/{image}/consensus")
def consensus(served: Served, image: Index, who: Chair, rule: str = "majority") -> Response:
    """Return the columns with their labels."""
    labels = served.store.labels(image, _rule(rule))
    return _json({name: _plain(values) for name, values in labels.items()})


@_routes.get("/api/images/{image}/agreement")
def agreement(served: Served, image: Index, who: Chair) -> Response:
    """Return how far the experts agree, and how often each is right."""
    votes = served.store.vote_table(image)
    names = {each.id: each.name for each in served.store.experts()}
    told: dict[str, Any] = {"experts": [{"id": k, "name": names[k]} for k in votes.experts.tolist()]}
    if len(votes):
        quality = dawid_skene(votes, votes.columns).quality
        for each, value in zip(told["experts"], [] if quality is None else _plain(quality), strict=True):
            each |= {"quality": value, "votes": int((votes.expert == each["id"]).sum())}
        for name, statistic in (("krippendorff_alpha", krippendorff_alpha), ("fleiss_kappa", fleiss_kappa)):
            estimate = bootstrap(votes, statistic, _REPEATS)
            told[name] = {"value": _plain(estimate.value), "interval_95": _plain(estimate.interval_95)}
        told["confusion"] = _plain(expert_confusion(votes))
    return _json(told)


@_routes.get("/api/experts")
def experts(served: Served, who: Chair) -> list[dict[str, Any]]:
    """Return everybody, and how far they are."""
    images = [info.id for info in served.store.images()]
    return [
        {
            "id": each.id,
            "name": each.name,
            "role": each.role,
            "voted": {str(image): served.store.progress(image, each)[0] for image in images},
        }
        for each in served.store.experts()
    ]


@_routes.post("/api/experts")
def invite(served: Served, new: NewExpert, who: Chair) -> dict[str, str]:
    """Add an expert, or renew a link."""
    return {"link": f"/join/{served.store.add_expert(new.name, new.role, renew=new.renew)}"}


@_routes.post("/api/images/{image}/adjudicate")
def adjudicate(served: Served, image: Index, decision: Decision, who: Chair) -> dict[str, Any]:
    """Decide a column."""
    served.store.decide(image, who, decision.column, decision.label)
    return {"column": decision.column, "class": decision.label}


@_routes.post("/api/images/{image}/close")
def close(served: Served, image: Index, who: Chair, settings: dict[str, Any]) -> dict[str, bool]:
    """End the voting on an image."""
    served.store.close_round(image, settings)
    return {"closed": True}


@_routes.get("/api/images/{image}/export.csv")
def export(served: Served, image: Index, who: Chair, rule: str = "majority") -> Response:
    """Return the labels as text."""
    return Response(labels_text(served.store.labels(image, _rule(rule))), media_type="text/csv")


def create_app(store_path: str | Path, *, hosts: Iterable[str] = LOCAL) -> FastAPI:
    """Return the application that serves a store.

    Parameters
    ----------
    store_path : path-like
        The store; made where there is none.  It is closed when the application ends.
    hosts : iterable of str
        Names by which browsers may call it, see `Guard`.

    Raises
    ------
    ValueError, OSError
        As for `VoteStore`.
    """
    store = VoteStore(store_path)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.served = _Served(store, Cache(TILES), Views(store), _static_files())
    app.add_middleware(Guard, hosts=tuple(hosts))
    _add_refusals(app)
    app.include_router(_routes)
    return app


def serve(
    store_path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8763,
    names: Iterable[str] = (),
    started: Callable[[str], None] = print,
) -> None:
    """Serve a store until it is interrupted.

    Parameters
    ----------
    store_path : path-like
        The store.
    host : str
        Address that is listened on.
    port : int
        Its port; 0 for any that is free.
    names : iterable of str
        More names by which browsers call this machine.
    started : callable
        Told the address, once connections are taken.

    Raises
    ------
    OSError
        If the address or the port can't be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise OSError(f"--host: {host}, port {port} can't be listened on ({error}); choose another --port") from error
    # Inherited by the connections; without it, answers wait for the browser to confirm their first half.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        known = {*LOCAL, *names, f"[{host}]" if ":" in host else host}
        if everywhere := host in ("0.0.0.0", "::"):  # noqa: S104 - asked for with --host
            known |= {"*", socket.gethostname(), socket.getfqdn()}
        app = create_app(store_path, hosts=known)
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, server_header=False, ws="none")
        called = socket.gethostname() if everywhere else host
        started(f"http://{f'[{called}]' if ':' in called else called}:{listening.getsockname()[1]}")
        logger.info("serving %s", store_path)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _item(item: VoteItem | UndoItem | AddItem | MoveItem | DeleteItem) -> Item:
    """Return what the store calls it."""
    if isinstance(item, UndoItem):
        return Undo()
    if isinstance(item, AddItem):
        return Add(item.row, item.col)
    if isinstance(item, MoveItem):
        return Move(item.column, item.row, item.col)
    if (item.column is None) == (item.columns is None):
        raise ValueError("items: expected either column or columns, got both or none")
    numbers = (item.column,) if item.column is not None else tuple(item.columns or ())
    return Vote(numbers, item.label) if isinstance(item, VoteItem) else Delete(numbers)


def _rule(name: str) -> Any:
    if name not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got another one")
    return RULES[name]


def _add_refusals(app: FastAPI) -> None:
    """Answer what is wrong with a request with one sentence."""

    def refuse(status: int) -> Callable[[Request, Exception], Response]:
        return lambda _, error: JSONResponse({"detail": " ".join(str(error).split())}, status)

    def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        sentence = " ".join(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}".split())
        return JSONResponse({"detail": sentence.encode("ascii", "replace").decode()}, 422)

    def told(_: Request, error: Exception) -> Response:
        assert isinstance(error, AnyHTTPException)
        plain = {
            400: "body: expected JSON, got something else",
            404: "path: there is nothing here",
            405: "method: expected another one here",
        }
        known = isinstance(error, HTTPException) and ":" in error.detail
        return JSONResponse(
            {"detail": error.detail if known else plain.get(error.status_code, error.detail)}, error.status_code
        )

    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(AnyHTTPException, told)
    for kind, status in ((Missing, 404), (Refused, 409), (ValueError, 422), (TypeError, 422), (OSError, 503)):
        app.add_exception_handler(kind, refuse(status))


def _static_files() -> dict[str, bytes]:
    """Return the files of the page, by name."""
    folder = resources.files("contextem.labels") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}


def _plain(values: Any) -> Any:
    """Return numbers as JSON has them: without NaN."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(object)
        array[array != array] = None
    return array.tolist()


def _json(value: Any) -> Response:
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")
