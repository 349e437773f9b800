"""The server of votes: blind, guarded, and alive after everything that is thrown at it and after kill -9."""

import csv
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pytest
import uvicorn
from click.testing import CliRunner
from numpy.polynomial.legendre import legval
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from contextem._options import RULE_NAMES
from contextem.cli import main
from contextem.columns import CLASSES, Columns
from contextem.examples import demo_micrograph
from contextem.labels import server
from contextem.labels.guard import BODY
from contextem.labels.server import create_app
from contextem.labels.tiles import SIDE
from contextem.labels.votes import RULES, VoteStore
from contextem.micrograph import Micrograph

FOUND = np.stack(np.meshgrid(np.arange(10, 90, 8), np.arange(10, 110, 9), indexing="ij"), -1).reshape(-1, 2) + 0.25
DATA = np.random.default_rng(0).normal(100.0, 2.0, (100, 120))
DATA[tuple(np.rint(FOUND).astype(int).T)] += 4000.0
DATA = gaussian_filter(DATA, 2.5).astype(np.float32)
ROLES = {"Ada": "expert", "Bob": "expert", "Cleo": "chair"}


class Answer:
    """What the server answered."""

    def __init__(self, answer):
        self.status, self.headers, self.content = answer.status, answer.headers, answer.read()

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Browser:
    """One connection, that is kept open till the end of the test, of somebody with a token."""

    opened: ClassVar[list] = []

    def __init__(self, port, token=None):
        self.port, self.token = port, token
        Browser.opened.append(self)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.cookie = {} if token is None else {"cookie": f"contextem={token}"}

    def request(self, method, path, body=None, headers=(), json_type="application/json"):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        kind = {} if body is None else {"content-type": json_type}
        self.connection.request(method, path, body, {**self.cookie, **kind, **dict(headers)})
        return Answer(self.connection.getresponse())

    def get(self, path, headers=()):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, headers=()):
        return self.request("POST", path, body, headers)


@contextmanager
def served(path, **options):
    """Serve a store on a port of this machine; yield the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(create_app(path, **options), http="h11", log_level="critical", ws="none"))
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        while not running.started:
            time.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(autouse=True)
def closed():
    yield
    for browser in Browser.opened:
        browser.connection.close()


def filled(path):
    """Make a store with an image, two experts and a chair; return their tokens."""
    with VoteStore(path) as store:
        store.add_image(Micrograph(DATA, 0.2), Columns(FOUND), name="field")
        return {name: store.add_expert(name, role) for name, role in ROLES.items()}


def browsers_of(port, tokens):
    return {"nobody": Browser(port), **{name: Browser(port, token) for name, token in tokens.items()}}


@pytest.fixture
def place(tmp_path):
    """A store with an image, two experts and a chair: its path and their tokens."""
    return tmp_path / "labels.db", filled(tmp_path / "labels.db")


@pytest.fixture
def clients(place):
    """A browser for each of them, and one of nobody."""
    with served(place[0]) as port:
        yield browsers_of(port, place[1])


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """The same for all that is refused: what one test does to the server, the next one would notice."""
    path = tmp_path_factory.mktemp("lasting") / "labels.db"
    tokens = filled(path)
    with served(path) as port:
        yield browsers_of(port, tokens)


def send(browser, sequence, *items, client="page", image=1):
    return browser.post(f"/api/images/{image}/actions", {"client": client, "sequence": sequence, "items": list(items)})


def vote(column, label):
    return {"do": "vote", "column": column, "class": label}


def columns_of(browser, image=1):
    content = browser.get(f"/api/images/{image}/columns").content
    n = int(np.frombuffer(content, "<u4", 1)[0])
    assert len(content) == 4 + 13 * n
    ids = np.frombuffer(content, "<u4", n, 4)
    return (
        ids,
        np.frombuffer(content, "<f4", 2 * n, 4 + 4 * n).reshape(n, 2),
        np.frombuffer(content, "i1", n, 4 + 12 * n),
    )


def sentence(answer, status):
    assert answer.status == status, answer.text
    text = answer.json()["detail"]
    assert re.match(r"[\w.\-]+: ", text) and "\n" not in text and "Traceback" not in text
    return text


def test_a_link_gives_a_cookie_that_scripts_and_other_sites_do_not_get(place):
    with served(place[0]) as port:
        for name, token in place[1].items():
            answer = Browser(port).get(f"/join/{token}")
            assert answer.status == 303 and answer.headers["location"] == ("/chair" if name == "Cleo" else "/")
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith(f"contextem={token};")
            assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.lower().split("; "))
            assert Browser(port, token).get("/api/me").json()["name"] == name


def test_an_expert_sees_images_columns_and_own_votes(clients):
    ada = clients["Ada"]
    me = ada.get("/api/me").json()
    assert (me["name"], me["role"], me["classes"]) == ("Ada", "expert", list(CLASSES))
    assert len(me["colours"]) == len(me["markers"]) == len(CLASSES)
    (image,) = me["images"]
    assert {key: image[key] for key in ("name", "height", "width", "sampling", "columns", "voted", "closed")} == {
        "name": "field",
        "height": 100,
        "width": 120,
        "sampling": 0.2,
        "columns": len(FOUND),
        "voted": 0,
        "closed": False,
    }
    ids, positions, own = columns_of(ada)
    assert (ids == np.arange(len(FOUND))).all() and (positions == FOUND.astype("f4")).all() and (own == -1).all()
    answer = send(
        ada, 1, vote(3, 1), {"do": "vote", "columns": [4, 5], "class": 5}, {"do": "add", "row": 50.0, "col": 61.5}
    )
    assert answer.json() == {
        "sequence": 1,
        "results": [{"do": "vote", "columns": 1}, {"do": "vote", "columns": 2}, {"do": "add", "column": len(FOUND)}],
    }
    send(ada, 2, {"do": "move", "column": 0, "row": 11.0, "col": 10}, {"do": "delete", "column": 1}, vote(6, None))
    ids, positions, own = columns_of(ada)
    assert 1 not in ids and positions[0].tolist() == [11.0, 10.0] and positions[-1].tolist() == [50.0, 61.5]
    assert dict(zip(ids[own >= 0].tolist(), own[own >= 0].tolist(), strict=True)) == {3: 1, 4: 5, 5: 5}
    assert ada.get("/api/images/1/progress").json() == {"voted": 3, "columns": len(FOUND)}
    order = np.frombuffer(ada.get("/api/images/1/order").content, "<u4")
    assert sorted(order) == sorted(ids) and order.tolist() != ids.tolist()


def test_nobody_learns_what_others_did(clients):
    ada, bob = clients["Ada"], clients["Bob"]
    asked = [
        "/api/me",
        "/api/images/1/columns",
        "/api/images/1/order",
        "/api/images/1/progress",
        "/api/images/1/columns/3/patch",
        "/api/images/1/columns/109/patch",
        f"/api/images/1/columns/{len(FOUND)}/patch",
        "/api/images/1/tiles/0/0/0.png",
    ]
    before = [bob.get(path).content for path in asked]
    send(
        ada,
        1,
        *(vote(k, k % 6) for k in range(100)),
        {"do": "add", "row": 1, "col": 1},
        {"do": "delete", "column": 109},
    )
    send(ada, 2, {"do": "move", "column": 3, "row": 2, "col": 2}, {"do": "undo"})
    assert [bob.get(path).content for path in asked] == before
    # the same numbers, sequences and results as if he were alone
    assert send(bob, 1, {"do": "add", "row": 7, "col": 7}).json()["results"] == [{"do": "add", "column": len(FOUND)}]
    assert send(bob, 2, {"do": "undo"}, {"do": "undo"}).json()["results"][1] == {
        "refused": "undo: there is nothing to undo"
    }


CHAIRS = [
    ("GET", "/api/images/1/consensus"),
    ("GET", "/api/images/1/agreement"),
    ("GET", "/api/experts"),
    ("GET", "/api/images/1/export.csv"),
    ("POST", "/api/experts"),
    ("POST", "/api/images/1/adjudicate"),
    ("POST", "/api/images/1/close"),
]


@pytest.mark.parametrize(("method", "path"), CHAIRS)
def test_what_is_the_chairs_is_nobody_elses(lasting, method, path):
    body = {"name": "Eve", "column": 1, "class": 1} if method == "POST" else None
    assert "role: " in sentence(lasting["Ada"].request(method, path, body), 403)
    assert "cookie: expected an invitation" in sentence(lasting["nobody"].request(method, path, body), 401)
    assert [each["name"] for each in lasting["Cleo"].get("/api/experts").json()] == ["Ada", "Bob", "Cleo"]
    assert not lasting["Ada"].get("/api/me").json()["images"][0]["closed"]


def test_every_path_of_the_server_is_tried_by_someone_who_may_not(lasting):
    """No path of the application answers without an invitation, save the pages and the invitation itself."""
    free = {"/", "/chair", "/static/{name}", "/join/{token}"}
    guarded = [route for route in server._routes.routes if route.path not in free]
    paths = {(method, re.sub(r"\{\w+\}", "1", route.path)) for route in guarded for method in route.methods}
    assert paths >= set(CHAIRS) and len(paths) >= 14
    for method, path in paths:
        answer = lasting["nobody"].request(method, path, {} if method == "POST" else None)
        assert "cookie: " in sentence(answer, 401), path


def test_the_chair_sees_tallies_decides_and_exports(clients):
    ada, bob, cleo = clients["Ada"], clients["Bob"], clients["Cleo"]
    send(ada, 1, vote(0, 2), vote(1, 0), vote(2, 0), vote(3, 1))
    send(bob, 1, vote(0, 2), vote(1, 0), vote(2, 3), vote(4, 5))
    assert "expert: expected somebody who votes" in sentence(send(cleo, 1, vote(0, 1)), 409)
    consensus = cleo.get("/api/images/1/consensus").json()
    assert consensus["status"][:5] == ["agreed", "agreed", "disputed", "disputed", "unlabelled"]
    assert consensus["class"][:5] == ["X2", "metal", "", "", ""] and consensus["agreement"][4] is None
    assert cleo.get("/api/images/1/consensus?rule=unanimity").json()["status"] == consensus["status"]
    assert "rule: expected one of" in sentence(cleo.get("/api/images/1/consensus?rule=mine"), 422)
    agreement = cleo.get("/api/images/1/agreement").json()
    assert [(each["name"], each["votes"]) for each in agreement["experts"]] == [("Ada", 4), ("Bob", 4)]
    assert all(np.isfinite(agreement[name]["value"]) for name in ("krippendorff_alpha", "fleiss_kappa"))
    assert np.array(agreement["confusion"]).shape == (2, 2, 5, 5)
    assert cleo.post("/api/images/1/adjudicate", {"column": 2, "class": 3}).json() == {"column": 2, "class": 3}
    assert "label: expected 0 to 4" in sentence(cleo.post("/api/images/1/adjudicate", {"column": 2, "class": 5}), 422)
    rows = list(csv.DictReader(io.StringIO(cleo.get("/api/images/1/export.csv").text)))
    assert len(rows) == len(FOUND)
    assert [row["class"] for row in rows[:5]] == ["X2", "metal", "single_vacancy", "", ""]
    assert rows[2]["status"] == "decided"
    assert cleo.get("/api/experts").json()[0] == {"id": 1, "name": "Ada", "role": "expert", "voted": {"1": 4}}
    link = cleo.post("/api/experts", {"name": "Eve"}).json()["link"]
    assert clients["nobody"].get(link).status == 303
    assert "name: Eve is in the store already" in sentence(cleo.post("/api/experts", {"name": "Eve"}), 409)
    assert cleo.post("/api/images/1/close", {"rule": "majority"}).json() == {"closed": True}
    assert "voting on field has ended" in sentence(send(ada, 2, vote(0, 1)), 409)


def test_an_empty_image_has_an_agreement_of_nobody(clients):
    assert clients["Cleo"].get("/api/images/1/agreement").json() == {"experts": []}


def test_requests_that_overtake_each_other_are_done_in_order(clients):
    ada = clients["Ada"]
    answers = {}

    def later(sequence):
        page = Browser(ada.port, ada.token)
        answers[sequence] = send(page, sequence, vote(0, sequence % 6)).json()

    threads = [threading.Thread(target=later, args=(sequence,)) for sequence in (4, 3, 2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    assert not answers
    later(1)
    for thread in threads:
        thread.join()
    assert all(
        answers[sequence] == {"sequence": sequence, "results": [{"do": "vote", "columns": 1}]}
        for sequence in range(1, 5)
    )
    assert columns_of(ada)[2][0] == 4


def test_a_request_waits_in_vain_and_is_told_what_is_missing(clients, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    ada = clients["Ada"]
    assert sentence(send(ada, 3, vote(0, 1)), 409) == "sequence: expected sequence 1 next from this client, got 3"
    first = send(ada, 1, vote(0, 1), {"do": "add", "row": 1, "col": 2})
    assert send(ada, 1, vote(0, 1), {"do": "add", "row": 1, "col": 2}).json() == first.json()
    assert "something else as 1" in sentence(send(ada, 1, vote(0, 2)), 409)
    assert (columns_of(ada)[2] >= 0).sum() == 1


MALFORMED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"client": "page", "sequence": 1, "items": NaN}',
    b"[" * 200_000,
    b'{"client": "page", "sequence": ' + b"9" * 5000 + b', "items": []}',
    b'{"client": "page", "sequence": 1}',
    b'{"client": "page", "sequence": 1, "items": []}',
    b'{"client": "page", "sequence": "1", "items": [{"do": "undo"}]}',
    b'{"client": "page", "sequence": 1.5, "items": [{"do": "undo"}]}',
    b'{"client": "page", "sequence": -1, "items": [{"do": "undo"}]}',
    b'{"client": "page", "sequence": 99999999999999999999, "items": [{"do": "undo"}]}',
    b'{"client": "\\ud800", "sequence": 1, "items": [{"do": "undo"}]}',
    b'{"client": 7, "sequence": 1, "items": [{"do": "undo"}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "undo", "more": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "fly"}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "\\ud800"}]}',
    b'{"client": "page", "sequence": 1, "items": ["undo"]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": 1, "class": 6}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": 1, "class": true}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": -1, "class": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": 1e3, "class": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "class": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "column": 1, "columns": [2], "class": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "vote", "columns": [2, 2], "class": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "add", "row": NaN, "col": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "add", "row": 1e999, "col": 1}]}',
    b'{"client": "page", "sequence": 1, "items": [{"do": "add", "row": "1", "col": 1}]}',
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_bodies_are_refused_with_a_sentence(lasting, body):
    ada = lasting["Ada"]
    answer = ada.post("/api/images/1/actions", body)
    assert answer.status in (400, 422)
    sentence(answer, answer.status)
    assert ada.get("/api/images/1/progress").json()["voted"] == 0


def test_other_content_and_too_much_of_it_is_refused(clients):
    ada, path = clients["Ada"], "/api/images/1/actions"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert "Content-Type: " in sentence(ada.request("POST", path, b"{}", json_type=kind), 415)
    claimed = {"content-length": str(BODY + 1), "content-type": "application/json"}
    assert "body: expected at most" in sentence(ada.request("POST", path, headers=claimed), 413)
    parts = (b" " * 65536 for _ in range(BODY // 65536 + 1))
    chunked = {**ada.cookie, "content-type": "application/json", "transfer-encoding": "chunked"}
    ada.connection.request("POST", path, parts, chunked, encode_chunked=True)
    assert "body: expected at most" in sentence(Answer(ada.connection.getresponse()), 413)
    lasso = {"do": "vote", "columns": list(range(len(FOUND))), "class": 2}
    assert send(ada, 1, lasso).json()["results"] == [{"do": "vote", "columns": len(FOUND)}]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "192.168.0.9", "", "localhost:x"]
)
def test_other_names_of_the_host_are_refused(lasting, host):
    for path in ("/", "/api/me", "/join/x"):
        assert "Host: " in sentence(lasting["Ada"].get(path, {"host": host}), 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8763"])
def test_names_of_this_machine_are_known(lasting, host):
    assert lasting["nobody"].get("/", {"host": host}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", ""]
)
def test_pages_of_others_can_not_vote(lasting, origin):
    body = {"client": f"page-{origin}", "sequence": 1, "items": [{"do": "undo"}]}
    ada = lasting["Ada"]
    assert "Origin: " in sentence(ada.post("/api/images/1/actions", body, {"origin": origin}), 403)
    crossing = {"sec-fetch-site": "cross-site"}
    assert "Sec-Fetch-Site: " in sentence(ada.post("/api/images/1/actions", body, crossing), 403)
    assert ada.post("/api/images/1/actions", body, {"origin": f"http://127.0.0.1:{ada.port}"}).status == 200


def test_any_address_in_numbers_is_known_where_all_are_listened_on(place):
    with served(place[0], hosts=("*", "lab-pc")) as port:
        client = Browser(port)
        for host, status in (("192.168.0.9:8763", 200), ("[fe80::1]:1", 200), ("lab-pc", 200), ("evil.example", 403)):
            assert client.get("/", {"host": host}).status == status


@pytest.mark.parametrize("token", ["", "x", "../../labels.db", "' OR 1=1 --", "\u00e9", "a" * 5000])
def test_foreign_tokens_are_nobody(lasting, token):
    nobody = lasting["nobody"]
    assert "cookie: expected an invitation" in sentence(nobody.get("/api/me", {"cookie": f"contextem={token}"}), 401)
    sentence(nobody.get(f"/join/{quote(token)}"), 404)


def test_a_new_link_ends_the_old_one(place, clients):
    with VoteStore(place[0]) as store:
        new = store.add_expert("Ada", renew=True)
    assert "link: expected an invitation" in sentence(clients["nobody"].get(f"/join/{place[1]['Ada']}"), 404)
    assert "cookie: " in sentence(clients["Ada"].get("/api/me"), 401)
    assert clients["nobody"].get(f"/join/{new}").status == 303


PATHS = [
    "/static/../votes.py",
    "/static/..%2fvotes.py",
    "/static/%2e%2e/%2e%2e/cli.py",
    "/static//etc/passwd",
    "/static/%00",
    "/static/page.js%00.html",
    "/..%2f..%2fetc/passwd",
    "/labels.db",
    "/docs",
    "/openapi.json",
    "/api/images/1/tiles/0/0/..%2f..%2fpage.js",
    "/api/images/../../etc/passwd/columns",
    "/api/images/1/tiles/0/0/1.png",
    "/api/images/1/tiles/1/0/0.png",
    "/api/images/1/tiles/-1/0/0.png",
    "/api/images/1/tiles/0/0/99999999999999999999.png",
    "/api/images/2/columns",
    "/api/images/99999999999999999999/columns",
    "/api/images/1e0/columns",
    "/api/images/1;DROP%20TABLE%20action/columns",
    "/api/images/1/columns/9999/patch",
    "/api/images/1/columns/-1/patch",
    "/api/images/2/order",
    "/api/images/2/progress",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_reach_no_file_and_no_other_thing(lasting, path):
    answer = lasting["Ada"].get(path)
    assert answer.status in (404, 422)
    sentence(answer, answer.status)
    assert lasting["Ada"].get("/api/me").status == 200


def test_other_methods_are_refused(lasting):
    for method, path in (
        ("DELETE", "/api/me"),
        ("PUT", "/"),
        ("GET", "/api/images/1/actions"),
        ("PATCH", "/api/experts"),
    ):
        answer = lasting["Cleo"].request(method, path)
        assert answer.status == 405
        sentence(answer, 405)


def test_the_page_loads_nothing_from_elsewhere(lasting):
    nobody = lasting["nobody"]
    answer = nobody.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    named = re.findall(r'<(?:link|script) [^>]*(?:src|href)="([^"]+)"', answer.text)
    assert named and all(name.startswith("/static/") for name in named)
    for name in named:
        file = nobody.get(name)
        assert file.status == 200 and file.headers["content-type"].startswith(
            ("text/javascript", "text/css", "image/svg+xml")
        )
        assert "http" not in file.text.replace("http://www.w3.org/2000/svg", "")
    assert nobody.get("/chair").status == 200


def test_tiles_show_the_pixels(place):
    path, tokens = place
    data = np.random.default_rng(1).integers(0, 256, (700, 900)).astype(np.uint8)
    data[0, :2], data[1::2, 1::2] = (0, 255), data[::2, ::2][: data[1::2, 1::2].shape[0]]
    with VoteStore(path) as store:
        image = store.add_image(Micrograph(data, 0.2), Columns(FOUND), name="large")
        info = store.image(image)
    with served(path) as port:
        client = Browser(port, tokens["Ada"])
        tile = client.get(f"/api/images/{image}/tiles/0/1/1.png?v={info.sha256[:16]}")
        assert tile.headers["content-type"] == "image/png" and "immutable" in tile.headers["cache-control"]
        got = np.asarray(Image.open(io.BytesIO(tile.content)), float)
        expected = np.clip((data[SIDE:, SIDE:] - info.black) * 255 / (info.white - info.black), 0, 255)
        assert got.shape == (188, 388) and np.abs(got - expected).max() <= 0.51
        other = client.get(f"/api/images/{image}/tiles/0/1/1.png?v=other")
        assert other.headers["cache-control"] == "no-store" and other.content == tile.content
        whole = np.asarray(Image.open(io.BytesIO(client.get(f"/api/images/{image}/tiles/1/0/0.png").content)))
        assert whole.shape == (350, 450)


def test_the_patch_of_a_column_its_reconstruction_and_own_means(clients):
    ada = clients["Ada"]
    send(ada, 1, vote(3, 0), vote(4, 0), vote(5, 2))
    told = ada.get("/api/images/1/columns/40/patch").json()
    size = told["size"]
    patch, again = np.array(told["patch"], float), np.array(told["reconstruction"], float)
    assert patch.shape == again.shape == (size, size)
    grid = np.mgrid[:size, :size] - (size - 1) / 2
    there = map_coordinates(DATA, FOUND[40][:, None, None] + grid * 6.6 / size / 0.2, order=1)
    black, white = np.percentile(DATA, (0.5, 99.7))
    assert np.abs(patch - np.clip((there - black) * 255 / (white - black), 0, 255)).max() <= 1.0
    # Zernike polynomials up to degree 10 span the same as all polynomials of that degree
    inside = np.hypot(*grid) < size / 2
    y, x = grid[:, inside] * 2 / size
    powers = [legval(y, np.eye(11)[a]) * legval(x, np.eye(11)[b]) for a in range(11) for b in range(11 - a)]
    fitted = np.array(powers).T @ np.linalg.lstsq(np.array(powers).T, there[inside], rcond=None)[0]
    expected = np.clip((fitted - black) * 255 / (white - black), 0, 255)
    well = np.hypot(y, x) < 0.9
    assert np.abs(again[inside] - expected)[well].max() <= 5.0
    assert (again[np.hypot(*grid) > size / 2 + 1] == 0).all()
    assert sorted(told["means"]) == ["X2", "metal"]
    assert (np.array(told["means"]["X2"]) == np.array(ada.get("/api/images/1/columns/5/patch").json()["patch"])).all()


def test_a_full_disk_is_told_and_survived(clients, monkeypatch):
    def full(*_):
        raise OSError("labels.db: the store could not be used (database or disk is full)")

    with monkeypatch.context() as broken:
        broken.setattr(VoteStore, "cast", full)
        assert "disk is full" in sentence(send(clients["Ada"], 1, vote(0, 1)), 503)
    assert send(clients["Ada"], 1, vote(0, 1)).status == 200


# A real server, in a process of its own.


@contextmanager
def running(path, *more, port=0):
    """Start `contextem label serve`; yield the process, its port and the links it prints."""
    command = [sys.executable, "-W", "error", "-m", "contextem.cli", "label", "serve", "--store", path, "--port", port]
    process = subprocess.Popen(
        [str(each) for each in (*command, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines = []
    try:
        while not lines or "end with Ctrl-C" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line)
        yield process, int(re.search(r":(\d+) serves", lines[-1])[1])
    finally:
        process.kill()
        process.communicate()


def own(browser):
    return columns_of(browser)[2].tolist()


def test_kill_9_loses_and_invents_no_vote(place):
    path, tokens = place
    acknowledged = []
    for goal in (120, 260, 410, 500):
        with running(path) as (process, port):
            browser = Browser(port, tokens["Ada"])

            def kill(process=process, goal=goal):
                while len(acknowledged) < goal:
                    time.sleep(0.0002)
                process.kill()

            killer = threading.Thread(target=kill)
            killer.start()
            with suppress(ConnectionError, http.client.HTTPException):
                while len(acknowledged) < 500:
                    sequence = len(acknowledged) + 1  # after a kill that of the request left unanswered
                    request = (sequence % len(FOUND), sequence % 6)
                    assert send(browser, sequence, vote(*request)).status == 200
                    acknowledged.append(request)
            killer.join()
            assert process.wait(10) == -signal.SIGKILL
        with VoteStore(path) as store:
            rows = store._database.read("SELECT column, class FROM action ORDER BY id")
        assert rows[: len(acknowledged)] == acknowledged
        assert len(rows) - len(acknowledged) in (0, 1)  # the one that was written and not answered
    with running(path) as (_, port):
        expected = dict(acknowledged)
        assert own(Browser(port, tokens["Ada"])) == [expected.get(k, -1) for k in range(len(FOUND))]
        assert own(Browser(port, tokens["Bob"])) == [-1] * len(FOUND)
    with VoteStore(path) as store:
        assert store._database.read("SELECT column, class FROM action ORDER BY id") == acknowledged


def test_eight_browsers_at_once(place):
    path, tokens = place
    each, failures = 625, []
    with running(path) as (_, port):

        def write(number):
            try:
                browser = Browser(port, tokens["Ada" if number % 2 else "Bob"])
                for sequence in range(1, each + 1):
                    answer = send(browser, sequence, vote(sequence % 50, sequence % 6), client=f"page-{number}")
                    assert answer.status == 200
            except BaseException as error:  # noqa: BLE001 - raised by none of the threads, asserted below
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"5000 votes of 8 browsers: {5000 / (time.perf_counter() - start):.0f} votes/s")
        assert not failures
    with VoteStore(path) as store:
        rows = store._database.read(
            "SELECT client, column, class FROM action JOIN request r ON r.id = request ORDER BY action.id"
        )
    for number in range(8):
        mine = [(column, label) for client, column, label in rows if client == f"page-{number}"]
        assert mine == [(sequence % 50, sequence % 6) for sequence in range(1, each + 1)]


def test_raw_bytes_leave_the_server_alive(place):
    path, tokens = place
    with running(path) as (process, port):
        host = f"Host: 127.0.0.1:{port}\r\n".encode()
        for raw in (
            b"\x00\xff\x16\x03\x01garbage\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + host + host + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
            b"GET http://evil.example/../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n",
            b"POST /api/experts HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n",
            b"POST /api/experts HTTP/1.1\r\n"
            + host
            + b"Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n",
            b"POST /api/experts HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
            b"GET / HTTP/1.1\r\n" + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            status = answer.split(b" ", 2)[1:2]
            assert not status or status[0][:1] == b"4" or raw.startswith(b"GET / HTTP/1.1\r\nHost"), answer
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(
                b"POST /api/images/1/actions HTTP/1.1\r\n"
                + host
                + b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
        assert Browser(port, tokens["Ada"]).get("/api/me").json()["name"] == "Ada"
        assert process.poll() is None


# From the shell.


def run(*arguments):
    return CliRunner().invoke(main, ["label", *map(str, arguments)])


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    example = demo_micrograph()
    np.save(folder / "field.npy", example.micrograph.data)
    (folder / "field.yaml").write_text(f"host: WSe2\nsampling: {example.micrograph.sampling}\n")
    return folder, example


def test_serve_finds_columns_and_prints_links_once(demo, tmp_path):
    folder, example = demo
    path = tmp_path / "labels.db"
    given = (folder / "field.npy", "--expert", "Ada")
    with running(path, *given) as (process, port):
        links = [process.stdout.readline() for _ in range(2)]
        assert [line.split(",")[0].strip() for line in links] == ["link of Ada", "link of chair"]
        token = re.search(r"/join/(\S+)", links[0])[1]
        browser = Browser(port, token)
        me = browser.get("/api/me").json()
        assert me["images"][0]["columns"] > 500 and me["images"][0]["name"] == "field"
        assert send(browser, 1, vote(0, 1)).status == 200
    with running(path, *given) as (process, port):
        assert own(Browser(port, token))[0] == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0 and "/join/" not in out + err
    with VoteStore(path) as store:
        (info,) = store.images()
        assert info.context["host"] == "WSe2" and store.micrograph(1).data.shape == example.micrograph.data.shape


def test_columns_come_from_a_classification_or_a_table(demo, tmp_path, monkeypatch):
    import contextem as ctm

    folder, example = demo
    result = ctm.classify(example.micrograph, example.context)
    result.to_hdf5(tmp_path / "field.h5")
    (tmp_path / "field.csv").write_text("row,column,class\n10,12.5,X2\n20,22,metal\n")
    monkeypatch.setattr(server, "serve", lambda path, *, started, **_: started("http://127.0.0.1:1"))
    for table, count, order in (("field.h5", len(result), "uncertain"), ("field.csv", 2, "random")):
        path = tmp_path / f"{table}.db"
        done = run("serve", folder / "field.npy", "--columns", tmp_path / table, "--order", order, "--store", path)
        assert done.exit_code == 0 and f"field.npy: {count} columns" in done.output, done.output
        with VoteStore(path) as store:
            assert len(store.columns(1, store.expert_of(store.add_expert("Ada")))) == count
    done = run("serve", "--store", path, "--listen", "0.0.0.0", "--expert", "Ada")
    assert "Warning: what is sent to and from 0.0.0.0" in done.stderr and "Ada was invited before" in done.stdout


def test_votes_from_tables_and_labels_into_tables(place, tmp_path):
    path, _ = place
    for name, shift, words in (("Ada", 0.5, ("X2", "metal", "unsure")), ("Dan", -0.5, ("X2", "dopant", "X2"))):
        rows = [f"{row + shift},{column},{word}" for (row, column), word in zip(FOUND[:3], words, strict=True)]
        (tmp_path / f"{name}.csv").write_text(
            "\n".join(["row,column,class", *rows, "95.0,115.0,single_vacancy"]) + "\n"
        )
        done = run("import", tmp_path / f"{name}.csv", "--store", path, "--image", "field", "--expert", name)
        assert done.exit_code == 0, done.output
        assert done.output.strip() == f"4 votes of {name} on field, 1 of them on columns that were not found"
        again = run("import", tmp_path / f"{name}.csv", "--store", path, "--image", "field", "--expert", name)
        assert again.exit_code == 2 and "its votes were taken before" in again.output
    done = run("export", "--store", path, "-o", tmp_path / "out", "--quorum", "2")
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "field.labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["status"], row["votes"]) for row in rows[:4]] == [
        ("X2", "agreed", "2"),
        ("", "disputed", "2"),
        ("", "disputed", "1"),
        ("", "unlabelled", "0"),
    ]
    assert (rows[-1]["class"], float(rows[-1]["row"]), rows[-1]["single_vacancy"]) == (
        "single_vacancy",
        95.0,
        "1.00000",
    )
    refused = run("export", "--store", path, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "exists already" in refused.output


@pytest.mark.experimental
def test_labels_of_a_real_micrograph_come_out_as_they_went_in(experimental_data, tmp_path, monkeypatch):
    name, path = "ti_wse2_field2_haadf", tmp_path / "labels.db"
    table = experimental_data / "ti_wse2_field2_columns.csv"
    monkeypatch.setattr(server, "serve", lambda path, **_: None)
    done = run("serve", experimental_data / f"{name}.dm4", "--host", "WSe2", "--dopant", "Ti", "--store", path)
    assert done.exit_code == 0, done.output
    done = run("import", table, "--store", path, "--image", name, "--expert", "Ada")
    assert "7708 votes of Ada" in done.output and ", 0 of them" in done.output
    done = run("export", "--store", path, "--quorum", "1", "-o", tmp_path)
    assert done.exit_code == 0, done.output

    def read(path):
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["class"]]
        return np.array([(row["row"], row["column"]) for row in rows], float), np.array([row["class"] for row in rows])

    (given, classes), (written, labels) = read(table), read(tmp_path / f"{name}.labels.csv")
    distance, nearest = cKDTree(written).query(given)
    assert len(labels) == len(classes) and distance.max() * 0.4 < 0.8
    assert (labels[nearest] == classes).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "--store", "none.db"), "--store: expected a store of votes, found no file none.db"),
        (("serve", "--store", "new.db"), "FILES: expected at least one micrograph"),
        (
            ("serve", "--store", "new.db", "a.npy", "--columns", "a.csv", "--columns", "b.csv"),
            "--columns: expected one for each",
        ),
        (
            ("serve", "--store", "new.db", "a.npy", "--sampling", "1", "--estimate-sampling"),
            "--estimate-sampling: expected",
        ),
        (("serve", "--store", "{place}", "--inner", "70"), "--inner: expected together with --outer"),
        (("add-expert", "Ada", "--store", "{place}"), "name: Ada is in the store already"),
        (("export", "--store", "{place}", "--image", "other"), "--image: expected an image in"),
        (
            ("import", "votes.csv", "--store", "{place}", "--image", "other", "--expert", "Ada"),
            "--image: expected an image in",
        ),
        (("import", "votes.csv", "--store", "{place}", "--image", "field", "--expert", "Ada"), "got 'gold' in line 3"),
        (("import", "twice.csv", "--store", "{place}", "--image", "field", "--expert", "Ada"), "got lines 2 and 3"),
        (
            ("import", "words.csv", "--store", "{place}", "--image", "field", "--expert", "Ada"),
            "expected numbers as row",
        ),
        (
            ("import", "bare.csv", "--store", "{place}", "--image", "field", "--expert", "Ada"),
            "expected a CSV with the columns",
        ),
        (("import", "none.csv", "--store", "{place}", "--image", "field", "--expert", "Ada"), "no such file"),
    ],
)
def test_wrong_commands_end_with_one_sentence(place, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "votes.csv").write_text("row,column,class\n10.25,10.25,X2\n10.25,19.25,gold\n")
    (tmp_path / "twice.csv").write_text("row,column,class\n10.25,10.25,X2\n10.75,10.25,X2\n")
    (tmp_path / "words.csv").write_text("row,column,class\nten,10,X2\n")
    (tmp_path / "bare.csv").write_text("x,y\n1,2\n")
    done = run(*(str(place[0]) if each == "{place}" else each for each in arguments))
    assert done.exit_code == 2 and words in done.output and done.output.strip().startswith("Error: "), done.output
    assert done.output.strip().count("\n") == 0


def test_a_port_in_use_is_told(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--store", place[0], "--port", taken.getsockname()[1])
    assert done.exit_code == 2 and "can't be listened on" in done.output


def test_help_needs_no_server():
    program = "from contextem.cli import main\nmain(['label', 'export', '--help'], standalone_mode=False)\n"
    before = "import sys\nbefore = set(sys.modules)\n"  # what counts the lines that run loads sqlite3
    heavy = "print([*{'fastapi', 'uvicorn', 'scipy', 'numpy', 'sqlite3'} & (set(sys.modules) - before)])"
    done = subprocess.run([sys.executable, "-c", before + program + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert set(RULE_NAMES) == set(RULES)
