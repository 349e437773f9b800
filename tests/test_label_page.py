"""The labelling page in a browser, against the server and what its store says that it was told."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from contextem.columns import CLASSES, Columns, find_columns
from contextem.context import Context
from contextem.examples import demo_micrograph
from contextem.labels.actions import Vote
from contextem.labels.votes import VoteStore
from contextem.micrograph import Micrograph, read

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
ACROSS, DOWN, SPACING = 24, 15, 40  # columns of the small image, and px between them
UNSURE = len(CLASSES)
SMALL, TEN_THOUSAND, HUNDRED_THOUSAND = 1, 2, 3


def grid(across, down, spacing, seed):
    """Columns about a square lattice, row by row: (N, 2)."""
    rows, columns = np.meshgrid(np.arange(down), np.arange(across), indexing="ij")
    places = (np.stack([rows, columns], axis=-1).reshape(-1, 2) + 0.5) * spacing
    return places + np.random.default_rng(seed).uniform(-0.08, 0.08, places.shape) * spacing


def micrograph(places, height, width):
    """Blurred dots of three heights on noise, 8 bit."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width), np.float32)
    rows, columns = np.rint(places).astype(int).clip(0, np.array([height, width]) - 1).T
    np.add.at(image, (rows, columns), rng.choice([0.5, 0.8, 1.0], len(places)))
    width_of_dot = 0.2 * np.sqrt(height * width / len(places))
    image = gaussian_filter(image, width_of_dot) * width_of_dot**2 * 2 * np.pi
    image += rng.normal(0, 0.05, image.shape).astype(np.float32)
    return Micrograph(np.clip(30 + 170 * image, 0, 255).astype(np.uint8), 0.08)


class Server:
    """The server as a process of its own, on the same port whenever it is started."""

    def __init__(self, path):
        self.path = path
        self.process = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        program = "import sys; from contextem.labels.server import serve; serve(sys.argv[1], port=int(sys.argv[2]))"
        arguments = [sys.executable, "-c", program, str(self.path), str(self.port)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url, timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def invite(self, name, role="expert"):
        with VoteStore(self.path) as store:
            return store.add_expert(name, role)

    def told(self, name):
        """What the store was told by an expert, in order: (kind, column, class), of one row per column."""
        with closing(sqlite3.connect(self.path)) as database:
            rows = database.execute(
                "SELECT a.kind, a.column, a.class FROM action a JOIN expert e ON e.id = a.expert"
                " WHERE e.name = ? ORDER BY a.id",
                (name,),
            )
            return rows.fetchall()

    def seen(self, name, image=SMALL):
        """Columns in the eyes of an expert: number -> (row, column, vote)."""
        with VoteStore(self.path) as store:
            (expert,) = (each for each in store.experts() if each.name == name)
            columns = store.columns(image, expert)
        rows = zip(columns.positions.tolist(), columns.own.tolist(), strict=True)
        return {k: (*place, vote) for k, (place, vote) in zip(columns.ids.tolist(), rows, strict=True)}

    def votes(self, name, image=SMALL):
        return {k: vote for k, (_, _, vote) in self.seen(name, image).items() if vote >= 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    served = Server(tmp_path_factory.mktemp("labels") / "labels.db")
    fields = [
        ("small", (ACROSS, DOWN, SPACING)),
        ("10,000 columns", (100, 100, 20.48)),
        ("100,000 columns", (317, 317, 8192 / 2 / 317)),
    ]
    with VoteStore(served.path) as store:
        for seed, (name, (across, down, spacing)) in enumerate(fields):
            places = grid(across, down, spacing, seed)
            image = micrograph(places, round(down * spacing), round(across * spacing))
            store.add_image(image, Columns(places), name=name)
    served.start()
    yield served
    served.kill()


@pytest.fixture(scope="module")
def browser():
    command = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if command is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=command, args=list(FLAGS))
        yield opened
        opened.close()


class Desk:
    """An expert at the page."""

    def __init__(self, server, browser, name, role="expert", **options):
        self.server, self.name = server, name
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation', event => console.error('CSP ' + event.blockedURI))"
        )
        self.wrong, self.asked = [], []
        self.token = server.invite(name, role)
        self.page = self.open(f"/join/{self.token}")

    def open(self, path="/"):
        page = self.page = self.context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.server.url + path)
        self.ready()
        return page

    def ready(self):
        self.page.wait_for_selector("body[data-ready]", timeout=20_000)

    def reload(self):
        self.page.reload()
        self.ready()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def at(self, row, column):
        """Where a point of the image is, CSS px of the page."""
        x, y = self.page.evaluate(
            """([x, y]) => {
              const box = document.getElementById("marks").getBoundingClientRect();
              const [left, top] = contextem.stage.view.toScreen(x, y);
              return [box.left + left / devicePixelRatio, box.top + top / devicePixelRatio];
            }""",
            [column, row],
        )
        return x, y

    def place(self, number):
        return self.at(*self.server.seen(self.name)[number][:2])

    def click(self, number, **options):
        self.page.mouse.click(*self.place(number), **options)

    def drag(self, *points):
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=4)
        self.page.mouse.up()

    def until(self, expression):
        """Wait until something is true in the page; playwright's way needs eval, which its policy forbids."""
        for _ in range(400):
            if self.page.evaluate(expression):
                return
            time.sleep(0.02)
        raise AssertionError(f"still not true: {expression}")

    def settle(self):
        self.page.evaluate("contextem.queue.idle()")

    def votes(self):
        """What the page shows: number -> vote."""
        pairs = self.page.evaluate(
            """() => {
              const { ids, label, present, count } = contextem.columns;
              return Array.from({ length: count }, (_, k) => k)
                .filter(k => present[k] && label[k] >= 0).map(k => [ids[k], label[k]]);
            }"""
        )
        return dict(pairs)

    @property
    def current(self):
        return self.page.evaluate("contextem.current < 0 ? null : contextem.columns.ids[contextem.current]")

    @property
    def said(self):
        return self.page.text_content("#said")

    def agrees(self):
        """Whether page and store have the same votes, once everything is sent."""
        self.settle()
        return self.votes() == self.server.votes(self.name)


@pytest.fixture
def sit(server, browser, request):
    """Return a function that seats an expert; what goes wrong in their page fails the test."""
    desks = []

    def seat(name="", **options):
        desks.append(Desk(server, browser, f"{request.node.name}{name}", **options))
        return desks[-1]

    yield seat
    for desk in desks:
        desk.context.close()
    for desk in desks:
        assert [text for text in desk.wrong if "Failed to load resource" not in text] == []
        assert {url for url in desk.asked if not url.startswith(server.url)} == set()


@pytest.fixture
def desk(sit):
    return sit()


def near(number, step_across=0, step_down=0):
    return number + step_across + ACROSS * step_down


def test_clicks_and_keys_arrive_in_order(desk):
    numbers = np.random.default_rng(0).permutation(ACROSS * DOWN)[:40].tolist()
    places = [desk.place(number) for number in numbers]
    for k, place in enumerate(places):
        desk.page.mouse.click(*place)
        desk.press(str(1 + k % 5), *(["0"] if k % 7 == 0 else []))
    desk.settle()
    expected = []
    for k, number in enumerate(numbers):
        expected += [("vote", number, k % 5)] + ([("vote", number, UNSURE)] if k % 7 == 0 else [])
    assert desk.server.told(desk.name) == expected
    assert desk.agrees() and len(desk.votes()) == 40


def test_buttons_vote_and_the_space_bar_stays_with_the_image(desk):
    desk.press("Space")
    first = desk.current
    desk.page.click("#classes button:nth-child(2)")
    assert desk.said == f"Dopant: column {first}"
    desk.press("Space")
    assert desk.current != first
    desk.settle()
    assert desk.server.votes(desk.name) == {first: 1}
    assert desk.page.text_content("#progress-text") == f"1 of {ACROSS * DOWN} · 0 %"


def test_space_follows_the_order_of_work(desk):
    with VoteStore(desk.server.path) as store:
        (expert,) = (each for each in store.experts() if each.name == desk.name)
        order = store.order(SMALL, expert).tolist()
    visited = []
    for _ in range(6):
        desk.press("Space")
        visited.append(desk.current)
        desk.press("1")
    assert visited == order[:6]
    desk.page.check("#advance")
    desk.press("Space", "1", "2", "3")
    desk.settle()
    assert [column for _, column, _ in desk.server.told(desk.name)] == order[:9]
    desk.reload()
    assert desk.page.is_checked("#advance")
    desk.press("Space")
    assert desk.current == order[9]


def test_arrows_go_to_neighbours(desk):
    start = near(0, 10, 7)
    desk.click(start)
    for key, step in (("Right", (1, 0)), ("Down", (0, 1)), ("Left", (-1, 0)), ("Up", (0, -1))):
        desk.press(f"Arrow{key}")
        start = near(start, *step)
        assert desk.current == start
    for _ in range(ACROSS):
        desk.press("ArrowRight")
    assert desk.current == near(0, ACROSS - 1, 7)
    assert desk.said == "There is no column in this direction."


def test_undo_goes_back_step_by_step_even_past_a_reload(desk):
    desk.click(near(0, 5, 5))
    desk.press("1", "2")
    desk.drag(desk.at(4.1 * SPACING, 4.1 * SPACING), desk.at(5 * SPACING, 5 * SPACING))  # pans, selects nothing
    desk.press("b")
    desk.drag(desk.at(8 * SPACING, 8 * SPACING), desk.at(11 * SPACING, 11 * SPACING))
    desk.press("4")
    box = {near(0, across, down) for across in (8, 9, 10) for down in (8, 9, 10)}
    assert desk.votes() == {near(0, 5, 5): 1} | dict.fromkeys(box, 3)
    desk.press("u")
    assert desk.votes() == {near(0, 5, 5): 1} and desk.agrees()
    desk.settle()
    desk.reload()
    desk.press("u")
    desk.until("contextem.columns.voted === 1 && document.getElementById('said').textContent === 'Undone.'")
    assert desk.votes() == {near(0, 5, 5): 0} and desk.agrees()
    desk.press("u", "u")
    desk.until("contextem.columns.voted === 0")
    assert desk.votes() == {} and desk.agrees()


def test_backspace_takes_a_vote_back(desk):
    desk.click(3)
    desk.press("5", "Backspace")
    assert desk.agrees() and desk.votes() == {}
    desk.press("u")
    assert desk.agrees() and desk.votes() == {3: 4}


def test_box_and_lasso_select_what_is_inside(desk):
    positions = np.array([desk.server.seen(desk.name)[k][:2] for k in range(ACROSS * DOWN)])
    corners = np.array([[1.2, 2.1], [12.8, 5.0], [6.1, 14.0], [3.0, 20.3]]) * SPACING
    desk.press("l")
    desk.drag(*(desk.at(*corner) for corner in corners))
    desk.press("2")
    inside = Outline(corners).contains_points(positions)
    assert desk.votes() == dict.fromkeys(np.flatnonzero(inside).tolist(), 1) and desk.agrees()
    desk.press("Escape", "Escape")
    desk.page.keyboard.down("Shift")
    desk.drag(desk.at(10 * SPACING, 20 * SPACING), desk.at(14 * SPACING, 24 * SPACING))
    desk.page.keyboard.up("Shift")
    desk.press("3")
    box = {near(0, across, down) for across in (20, 21, 22, 23) for down in (10, 11, 12, 13)}
    assert {number for number, vote in desk.votes().items() if vote == 2} == box and desk.agrees()
    assert desk.said == "X2: 16 columns"


def test_columns_are_added_moved_and_deleted(desk):
    row, column = 5.1 * SPACING, 9.0 * SPACING
    desk.press("a")
    desk.page.mouse.click(*desk.at(row, column))
    desk.press("4")  # at once, before the server has told its number
    desk.press("m")
    desk.drag(desk.at(row, column), desk.at(row + 9, column + 6))
    desk.press("Escape")
    desk.click(7)
    desk.press("d")
    desk.click(8)
    desk.press("d", "u")
    desk.settle()
    new = ACROSS * DOWN
    kinds = [kind for kind, *_ in desk.server.told(desk.name)]
    assert kinds == ["add", "vote", "move", "delete", "delete", "undo"]
    seen = desk.server.seen(desk.name)
    assert set(seen) == set(range(new + 1)) - {7}
    assert seen[new] == (pytest.approx(row + 9, abs=1), pytest.approx(column + 6, abs=1), 3)
    assert desk.agrees() and desk.votes() == {new: 3}
    desk.reload()
    assert desk.votes() == {new: 3}
    assert desk.page.evaluate("contextem.columns.total") == new


def test_painting_votes_with_each_click(desk):
    desk.click(0)
    desk.press("5", "p")
    for number in (1, 2, 3):
        desk.click(number)
    assert desk.agrees() and desk.votes() == dict.fromkeys(range(4), 4)


def test_a_server_that_is_down_for_a_while_loses_nothing(desk):
    desk.click(0)
    desk.press("1")
    desk.settle()
    desk.server.kill()
    try:
        for k in range(12):
            desk.press("ArrowRight", str(1 + k % 5))
        desk.page.wait_for_selector("#notice:not([hidden])")
        assert "kept in this browser" in desk.page.text_content("#notice")
        assert desk.page.text_content("#saved") == "12 kept here"
    finally:
        desk.server.start()
    desk.settle()
    assert not desk.page.is_visible("#notice") and desk.page.text_content("#saved") == "All saved"
    assert desk.server.told(desk.name) == [("vote", 0, 0)] + [("vote", k + 1, k % 5) for k in range(12)]


def test_what_a_closed_page_left_behind_is_sent_by_the_next(desk):
    desk.click(0)
    desk.server.kill()
    try:
        desk.press("1", "ArrowRight", "2", "ArrowRight", "3", "u")
        desk.press("a")
        desk.page.mouse.click(*desk.page.evaluate("[innerWidth / 3, innerHeight / 3]"))
        desk.press("2")
        desk.page.wait_for_selector("#notice:not([hidden])")
        desk.page.close()
    finally:
        desk.server.start()
    desk.open()
    assert [kind for kind, *_ in desk.server.told(desk.name)] == ["vote", "vote", "vote", "undo", "add", "vote"]
    assert desk.votes() == {0: 0, 1: 1, ACROSS * DOWN: 1} == desk.server.votes(desk.name)
    assert desk.page.evaluate("Object.keys(localStorage).filter(key => key.includes('queue')).length") == 0


def test_a_reload_with_votes_on_the_way_loses_none(desk):
    desk.page.route("**/actions", lambda route: route.abort())
    desk.click(0)
    for vote in "12345":
        desk.press(vote, "ArrowRight")
    desk.page.wait_for_selector("#notice:not([hidden])")
    time.sleep(1.2)  # the next attempt is far enough off not to come before the reload
    desk.page.unroute("**/actions")
    desk.reload()
    assert desk.votes() == {k: k for k in range(5)} == desk.server.votes(desk.name)
    assert desk.server.told(desk.name) == [("vote", k, k) for k in range(5)]


def test_a_full_storage_is_told_and_the_votes_are_sent(desk):
    desk.page.evaluate(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') } }"
    )
    desk.page.route("**/actions", lambda route: route.abort())
    desk.click(0)
    desk.press("1")
    desk.until("document.getElementById('notice').textContent.startsWith('The storage of this browser is full')")
    desk.page.unroute("**/actions")
    assert desk.agrees() and desk.votes() == {0: 0}
    assert not desk.page.is_visible("#notice")


def test_an_answer_that_is_lost_is_asked_for_again_and_counts_once(desk):
    lost = []

    def lose_every_other(route):
        lost.append(json.loads(route.request.post_data))
        answer = route.fetch()
        route.fulfill(response=answer) if len(lost) % 2 == 0 else route.abort()

    desk.page.route("**/actions", lose_every_other)
    desk.click(0)
    for k in range(6):
        desk.press(str(1 + k % 5), "ArrowRight")
    desk.settle()
    assert desk.server.told(desk.name) == [("vote", k, k % 5) for k in range(6)]
    assert len(lost) >= 4
    assert all(first == again for first, again in zip(lost[::2], lost[1::2], strict=True))


def test_a_browser_keeps_the_votes_of_one_expert_from_another(desk):
    other = desk.server.invite(f"{desk.name} other")
    desk.click(0)
    desk.page.route("**/actions", lambda route: route.abort())
    desk.press("2")
    desk.page.wait_for_selector("#notice:not([hidden])")
    desk.page.close()
    desk.open(f"/join/{other}")
    assert desk.votes() == {}
    desk.page.close()
    desk.open(f"/join/{desk.token}")
    assert desk.votes() == {0: 1}
    assert desk.server.told(f"{desk.name} other") == [] and desk.server.votes(desk.name) == {0: 1}


def test_a_refusal_shows_what_the_server_has(desk):
    answer = json.dumps({"detail": "image: voting on small has ended"})
    desk.page.route("**/actions", lambda route: route.fulfill(status=409, body=answer))
    desk.click(0)
    desk.press("1")
    desk.until("contextem.columns.voted === 0")
    assert desk.said == "Not done: image: voting on small has ended"
    desk.page.unroute("**/actions")
    desk.click(1)
    desk.press("2")
    assert desk.agrees() and desk.votes() == {1: 1}


def test_two_experts_see_their_own_votes_only(sit):
    one, two = sit(" one"), sit(" two")
    for k in range(10):
        for desk, vote in ((one, k % 5), (two, (k + 1) % 5)):
            desk.click(k)
            desk.press(str(vote + 1))
    assert one.agrees() and two.agrees()
    one.reload()
    assert one.votes() == {k: k % 5 for k in range(10)}
    assert two.votes() == {k: (k + 1) % 5 for k in range(10)}
    assert one.page.evaluate("fetch('/api/images/1/consensus').then(answer => answer.status)") == 403


def test_the_wheel_zooms_at_the_pointer_and_a_drag_pans(desk):
    there = desk.at(300, 420)
    desk.page.mouse.move(*there)
    before = desk.page.evaluate("contextem.stage.view.scale")
    for _ in range(4):
        desk.page.mouse.wheel(0, -200)
    desk.until(f"contextem.stage.view.scale > {2.5 * before}")
    assert desk.at(300, 420) == pytest.approx(there, abs=2.5)
    desk.drag(there, (there[0] + 60, there[1] - 40))
    assert desk.at(300, 420) == pytest.approx((there[0] + 60, there[1] - 40), abs=2.5)
    assert desk.votes() == {} and desk.current is None
    desk.press("f")
    assert desk.page.evaluate("contextem.stage.view.scale") == pytest.approx(before)


def test_fingers_on_a_tablet(sit):
    desk = sit(viewport={"width": 800, "height": 1200}, has_touch=True, device_scale_factor=2)
    desk.page.touchscreen.tap(*desk.place(30))
    desk.page.tap("#classes button:nth-child(5)")
    assert desk.agrees() and desk.votes() == {30: 4}
    assert desk.page.evaluate("document.documentElement.scrollWidth") == 800
    middle = desk.at(200, 300)
    before = desk.page.evaluate("contextem.stage.view.scale")
    session = desk.context.new_cdp_session(desk.page)
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80), ("touchEnd", None)):
        points = [] if apart is None else [{"x": middle[0] + s * apart, "y": middle[1], "id": s + 1} for s in (-1, 1)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert desk.page.evaluate("contextem.stage.view.scale") == pytest.approx(2 * before, rel=0.02)
    assert desk.at(200, 300) == pytest.approx(middle, abs=3)
    assert desk.votes() == {30: 4}


def test_tones_change_the_picture(desk):
    def colour():
        desk.until("contextem.stage.tiles.settled && !contextem.stage.waiting")
        desk.page.evaluate("new Promise(done => setTimeout(done, 150))")
        pixels = "picture.getImageData(view.width / 2, view.height / 2, 40, 40).data"
        data = desk.page.evaluate(
            f"() => {{ const {{ view, picture }} = contextem.stage; return Array.from({pixels}) }}"
        )
        return np.array(data).reshape(-1, 4)[:, :3].mean(axis=0)

    plain = colour()
    assert np.ptp(plain) < 1e-9 and 20 < plain[0] < 200
    desk.page.locator("#gamma").fill("1")
    assert colour()[0] > 1.3 * plain[0]
    desk.page.click("#tones-reset")
    assert colour() == pytest.approx(plain)
    desk.page.locator("#white").fill("90")
    assert colour()[0] > 1.3 * plain[0]
    desk.page.select_option("#map", "viridis")
    assert np.ptp(colour()) > 20


def test_votes_can_be_hidden_from_oneself(desk):
    ink = "contextem.stage.ink.getImageData(0, 0, contextem.stage.view.width, contextem.stage.view.height).data"
    blue = f"{ink}.reduce((n, blue, k, data) => n + (k % 4 === 2 && blue > data[k - 2] + 60 && data[k + 1] > 200), 0)"
    desk.press("b")
    desk.drag(desk.at(0, 0), desk.at(10 * SPACING, 10 * SPACING))
    desk.press("1", "Escape")
    desk.page.evaluate("contextem.stage.draw()")
    assert desk.page.evaluate(blue) > 1000
    desk.press("v")
    desk.page.evaluate("contextem.stage.draw()")
    assert desk.page.evaluate(blue) == 0 and len(desk.votes()) == 100


def test_the_closeup_shows_patch_reconstruction_and_means_of_own_votes(desk):
    desk.click(50)
    desk.press("1", "ArrowRight")
    desk.page.wait_for_selector("#closeup[data-state=shown]")
    desk.until("contextem.closeup.means[0].width === 48 && !contextem.closeup.means[0].matches('.empty')")
    spread = """id => {
      const canvas = document.getElementById(id);
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [Math.min(...data.filter((_, k) => k % 4 === 0)), Math.max(...data.filter((_, k) => k % 4 === 0))];
    }"""
    for name in ("patch", "reconstruction"):
        low, high = desk.page.evaluate(spread, name)
        assert high - low > 60
    assert desk.page.locator("#means canvas.empty").count() == 4


def test_it_is_labelled_and_speaks(desk):
    unnamed = desk.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, canvas:not([aria-hidden]), progress")]
          .filter(each => !each.getAttribute("aria-label") && !each.textContent.trim() && !each.labels?.length)
          .map(each => each.outerHTML)"""
    )
    assert unnamed == []
    assert desk.page.get_attribute("#said", "role") == "status"
    assert desk.page.get_attribute("#notice", "role") == "alert"
    visited = []
    for _ in range(14):
        desk.press("Tab")
        visited.append(
            desk.page.evaluate(
                """() => [document.activeElement.id || document.activeElement.title,
                  getComputedStyle(document.activeElement).outlineStyle]"""
            )
        )
    assert {outline for _, outline in visited} == {"solid"}
    assert "marks" in [name for name, _ in visited]
    desk.press("?")
    assert desk.page.is_visible("#help")
    desk.press("1", "Escape")
    assert not desk.page.is_visible("#help") and desk.votes() == {}


def test_columns_are_found_as_by_a_tree(desk):
    rng = np.random.default_rng(5)
    places = rng.uniform(0, 1000, (3000, 2)).astype(np.float32)
    places[:1500] *= 0.2  # dense in a corner
    asked = rng.uniform(-300, 1300, (400, 2))
    found = desk.page.evaluate(
        """async ([places, asked]) => {
          const { Columns } = await import("/static/columns.js");
          const columns = new Columns();
          places.forEach(([y, x], k) => columns.add(k, x, y));
          columns.set({ ...columns.state(7), present: 0 });
          return asked.map(([y, x]) => [columns.nearest(x, y), columns.nearest(x, y, 10),
            columns.inBox({ left: x - 50, right: x + 50, top: y - 50, bottom: y + 50 }).length]);
        }""",
        [places.tolist(), asked.tolist()],
    )
    places[7] = 1e6
    distances, nearest = cKDTree(places).query(asked)
    inside = (np.abs(places[None] - asked[:, None]) <= 50).all(axis=-1).sum(axis=1)
    assert [each[0] for each in found] == nearest.tolist()
    assert [each[1] for each in found] == np.where(distances <= 10, nearest, -1).tolist()
    assert [each[2] for each in found] == inside.tolist()


@pytest.fixture
def round_of_three(tmp_path, browser):
    """Return a server of its own whose experts agree on most columns, and what each of them voted."""
    served = Server(tmp_path / "round.db")
    places = grid(12, 8, 40, 0)
    rng = np.random.default_rng(3)
    truth = rng.integers(0, UNSURE, len(places))
    said = {}
    with VoteStore(served.path) as store:
        image = store.add_image(micrograph(places, 320, 480), Columns(places), name="round")
        for name in ("Ada", "Grace", "Lise"):
            said[name] = np.where(rng.random(len(places)) < 0.75, truth, rng.integers(0, UNSURE, len(places)))
            expert = store.expert_of(store.add_expert(name))
            votes = [Vote((k,), vote) for k, vote in enumerate(said[name].tolist())]
            store.cast(image, expert, "page", 1, votes)
    served.start()
    yield served, np.array(list(said.values()))
    served.kill()


def test_the_chair_decides_what_is_disputed_and_exports(round_of_three, browser):
    served, said = round_of_three
    chair = Desk(served, browser, "the chair", role="chair")
    page = chair.page
    counts = np.stack([(said == k).sum(axis=0) for k in range(UNSURE)], axis=1)
    disputed = set(np.flatnonzero(counts.max(axis=1) < 2).tolist())
    assert page.text_content("#disputed-title") == f"Disputed · {len(disputed)}" and len(disputed) > 3
    listed = [int(text) for text in page.locator("#disputed button > span:first-child").all_text_contents()]
    assert set(listed) == disputed
    shown = [
        [cell.replace("·", "0") for cell in row.split()]
        for row in page.locator("#confusion tbody tr").all_inner_texts()
    ]
    agreed = np.array([[((said[0] == k) & (said[1] == m)).sum() for m in range(UNSURE)] for k in range(UNSURE)])
    assert np.array([row[-UNSURE:] for row in shown], int).tolist() == agreed.tolist()
    decided = {}
    for vote in (3, 1):
        chair.press("Space")
        number = chair.page.evaluate("contextem.labels.number[contextem.current]")
        chair.press(str(vote + 1))
        chair.until(f"document.getElementById('said').textContent.startsWith('Column {number}: ')")
        decided[number] = vote
    assert list(decided) == listed[:2]
    with page.expect_download() as download:
        page.click("#export")
    rows = download.value.path().read_text().splitlines()
    names = rows[0].split(",")
    classes = [row.split(",")[names.index("class")] for row in rows[1:]]
    expected = ["" if k in disputed else CLASSES[count.argmax()] for k, count in enumerate(counts)]
    for number, vote in decided.items():
        expected[number] = CLASSES[vote]
    assert classes == expected
    page.select_option("#shown", "agreement")
    page.fill("#name", "Marie")
    page.click("#invite button")
    page.wait_for_selector("#link:not([hidden])")
    guest = browser.new_context().new_page()
    guest.goto(page.input_value("#link"))
    guest.wait_for_selector("body[data-ready]")
    assert guest.text_content("#who") == "Marie"
    page.click("#close")
    page.click("#sure [value=yes]")
    chair.until("document.getElementById('close').textContent === 'Voting has ended'")
    guest.keyboard.press("Space")
    guest.keyboard.press("1")
    guest.wait_for_selector("text=Not done: image: voting on round has ended")
    assert served.votes("Marie") == {}
    guest.goto(served.url + "/chair")
    guest.wait_for_selector("#notice:not([hidden])")
    assert "chair" in guest.text_content("#notice") and guest.locator("#disputed button").count() == 0
    assert chair.wrong == []
    guest.context.close()
    chair.context.close()


@pytest.fixture
def real_micrograph(request):
    """A labelled micrograph from a microscope, or the packaged one where there is none."""
    try:
        folder = request.getfixturevalue("experimental_data")
    except pytest.skip.Exception:
        return demo_micrograph().micrograph
    return read(folder / "ti_wse2_field2_haadf.dm4")


def test_two_experts_and_a_chair_on_a_real_micrograph(real_micrograph, browser, tmp_path):
    """Mouse, keys, lasso and undo at the same time in two browsers; what comes out is what was clicked."""
    served = Server(tmp_path / "real.db")
    columns = find_columns(real_micrograph, Context("WSe2"))
    with VoteStore(served.path) as store:
        store.add_image(real_micrograph, columns, name="field")
    served.start()
    one, two, chair = (
        Desk(served, browser, name, role) for name, role in (("one", "expert"), ("two", "expert"), ("chair", "chair"))
    )
    middle = columns.positions.mean(axis=0)
    near_middle = np.argsort(np.hypot(*(columns.positions - middle).T))[:30].tolist()
    clicked = {one: {}, two: {}}
    for desk in (one, two):
        desk.page.evaluate(
            "([x, y]) => { const { view } = contextem.stage; view.zoom(6); view.centre?.(x, y); }",
            middle[::-1].tolist(),
        )
        desk.page.evaluate("contextem.stage.draw()")
    for k, number in enumerate(near_middle):
        for desk, vote in ((one, k % 5), (two, k % 5 if k % 3 else (k + 1) % 5)):
            desk.click(number)
            desk.press(str(vote + 1))
            clicked[desk][number] = vote
    for desk in (one, two):
        desk.press("u")
        clicked[desk].popitem()
        assert desk.agrees() and desk.votes() == clicked[desk]
    corners = np.array([[-20.0, -20.0], [-20.0, 20.0], [20.0, 0.0]]) + middle
    one.press("l")
    one.drag(*(one.at(*corner) for corner in corners))
    one.press("4")
    inside = Outline(corners).contains_points(columns.positions)
    clicked[one] |= dict.fromkeys(np.flatnonzero(inside).tolist(), 3)
    assert one.agrees() and one.votes() == clicked[one]
    assert two.votes() == clicked[two]
    status = "fetch('/api/images/1/consensus').then(answer => answer.status)"
    assert two.page.evaluate(status) == 403 and chair.page.evaluate(status) == 200
    chair.reload()
    with chair.page.expect_download() as download:
        chair.page.click("#export")
    head, *rows = (line.split(",") for line in download.value.path().read_text().splitlines())
    for number, row in enumerate(rows):
        votes = [votes[number] for votes in clicked.values() if number in votes]
        told = dict(zip(head, row, strict=True))
        assert int(told["votes"]) == len(votes)
        agreed = len(votes) == 2 and len(set(votes)) == 1
        assert told["class"] == (CLASSES[votes[0]] if agreed else "")
        shares = [float(told[name] or 0) for name in CLASSES]
        assert shares == pytest.approx([votes.count(k) / len(votes) if votes else 0.0 for k in range(UNSURE)], abs=1e-4)
    for desk in (one, two, chair):
        assert [text for text in desk.wrong if "403" not in text] == []
        desk.context.close()
    served.kill()


FRAMES = """async scale => {
  const { view } = contextem.stage;
  if (scale === null) view.fit(); else view.zoom(scale * view.fitting / view.scale);
  contextem.stage.draw();
  const until = performance.now() + 8000;
  while (!contextem.stage.tiles.settled && performance.now() < until) await new Promise(done => setTimeout(done, 50));
  const times = [];
  for (let k = 0; k < 24; k++) {
    await new Promise(requestAnimationFrame);
    view.pan(k % 2 ? 3 : -3, 0);
    const start = performance.now();
    contextem.stage.draw();
    contextem.stage.picture.getImageData(0, 0, 1, 1);
    contextem.stage.ink.getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  times.sort((one, other) => one - other);
  return { visible: contextem.stage.marks.visible, fastest: times[0], median: times[12], slowest: times[23] };
}"""


def vote_everywhere(desk):
    """Vote in the page alone, so that all shapes are drawn."""
    desk.page.evaluate(
        """() => { const { columns } = contextem;
          for (let k = 0; k < columns.count; k++) columns.set({ ...columns.state(k), label: ((k * 7) % 13 % 7) - 1 });
        }"""
    )


@pytest.mark.parametrize(
    ("image", "zooms", "most"),
    [(TEN_THOUSAND, (None, 0.8), 16), (HUNDRED_THOUSAND, (None, 0.7), 60), (HUNDRED_THOUSAND, (2.62,), 16)],
)
def test_times_of_frames_are_printed(desk, image, zooms, most, tmp_path, capsys):
    """They are the machine's as well, so that none is asked for."""
    desk.page.select_option("#image", str(image))
    desk.until(f"contextem.image?.id === {image} && contextem.columns.count > 9000")
    vote_everywhere(desk)
    for zoom in zooms:
        frame = desk.page.evaluate(FRAMES, zoom)
        folder = os.environ.get("CONTEXTEM_SCREENSHOTS", tmp_path)
        desk.page.screenshot(path=f"{folder}/frame-{image}-{zoom or 'whole'}.png")
        with capsys.disabled():
            print(
                f"\n{frame['visible']:,} columns at zoom {zoom or 1}: median {frame['median']:.1f} ms"
                f" ({frame['fastest']:.1f} to {frame['slowest']:.1f} ms; the bar is {most} ms)"
            )
        assert frame["visible"] >= 9_900
