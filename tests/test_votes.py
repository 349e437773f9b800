"""The store of votes against a model in plain Python, and against everything that could lose, invent or show a vote."""

import csv
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contextem.columns import CLASSES, Columns
from contextem.labels import database
from contextem.labels.actions import Add, Delete, Move, Undo, Vote
from contextem.labels.consensus import UNSURE, majority, unanimity
from contextem.labels.database import network_file_system
from contextem.labels.tiles import Cache, grey, pyramid
from contextem.labels.votes import Missing, OutOfOrder, Refused, VoteStore
from contextem.micrograph import Detector, Micrograph

FOUND = np.array([[4.0, 5.0], [4.0, 15.0], [14.0, 5.0], [14.0, 15.0], [24.0, 25.0]])


def micrograph(shape=(32, 40), seed=0, dtype="uint16"):
    data = np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)
    return Micrograph(data, 0.2, 80e3, Detector("HAADF", 70.0, 200.0), source="field.tif")


@pytest.fixture
def store(tmp_path):
    with VoteStore(tmp_path / "labels.db") as opened:
        yield opened


def voters(store, *names):
    return [store.expert_of(store.add_expert(name)) for name in names]


def own(store, image, expert):
    seen = store.columns(image, expert)
    return dict(zip(seen.ids.tolist(), seen.own.tolist(), strict=True))


def test_an_image_comes_back_as_it_was(store):
    for number, dtype in enumerate(("uint8", "uint16", ">u4", "int32", "float32", ">f8", "float16")):
        given = micrograph((700, 530), dtype=dtype)
        context = {"host": "WSe2"}
        image = store.add_image(given, Columns(FOUND), context, f"field {number}")
        back, info = store.micrograph(image), store.image(image)
        assert back.data.dtype == np.dtype(dtype).newbyteorder("<") and (back.data == given.data).all()
        assert (back.sampling, back.energy, back.detector) == (given.sampling, given.energy, given.detector)
        assert (back.provenance, back.source) == (given.provenance, given.source)
        assert (info.columns, info.height, info.width, info.context, info.closed) == (5, 700, 530, context, False)
        assert (store.region(image, 500, 490, 30, 35) == given.data[500:530, 490:525]).all()
    assert [info.name for info in store.images()] == [f"field {number}" for number in range(7)]


def test_the_same_image_is_added_once_and_another_of_its_name_is_refused(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    assert store.add_image(micrograph(), Columns(FOUND)) == image
    for other, columns in ((micrograph(seed=1), FOUND), (micrograph(), FOUND[1:])):
        with pytest.raises(Refused, match=r"name: another image or other columns have the name field\.tif"):
            store.add_image(other, Columns(columns))
    assert len(store.images()) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"columns": Columns([[40.0, 3.0]])}, "columns: expected positions inside the image of 32 x 40 px"),
        ({"order": "worst"}, "order: expected one of random, uncertain, got 'worst'"),
        ({"order": "uncertain"}, "order: expected a model's predictions"),
        ({"entropy": np.zeros(3)}, r"entropy: expected shape \(5,\)"),
        ({"name": "a\nb"}, "name: expected 1 to 80 printable characters"),
    ],
)
def test_wrong_images_are_refused(store, values, message):
    with pytest.raises(ValueError, match=message):
        store.add_image(micrograph(), **{"columns": Columns(FOUND)} | values)
    assert store.images() == []


def test_tiles_are_means_of_pixels():
    data = np.arange(1100 * 700, dtype=np.float64).reshape(1100, 700) % 977
    levels = defaultdict(dict)
    for tile in pyramid(data, 0.0, 976.0):
        levels[tile.level][tile.row, tile.column] = tile.pixels
    assert {level: len(tiles) for level, tiles in levels.items()} == {0: 6, 1: 2, 2: 1}
    whole = np.vstack([np.hstack([levels[0][row, column] for column in range(2)]) for row in range(3)])
    assert (whole == data).all()
    half = np.vstack([levels[1][row, 0] for row in range(2)])
    expected = data.reshape(550, 2, 350, 2).mean(axis=(1, 3)) * 255 / 976
    assert np.abs(half - expected).max() <= 0.51
    quarter = data.reshape(275, 4, 175, 4).mean(axis=(1, 3)) * 255 / 976
    assert np.abs(levels[2][0, 0] - quarter).max() <= 0.51


def test_an_odd_edge_has_the_mean_of_what_is_there():
    data = np.zeros((513, 515))
    data[-1], data[:, -1] = 3.0, 5.0
    *_, last = pyramid(data, 0.0, 5.0)
    assert last.pixels.shape == (257, 258)
    assert (last.pixels[:-1, -1] == 255).all() and (last.pixels[-1, :-1] == grey(np.array(3.0), 0.0, 5.0)).all()


def test_the_cache_keeps_within_its_bound_what_was_used_last():
    made = []

    def make(key):
        made.append(key)
        return bytes(4)

    cache = Cache(10)
    for key in "abacab":
        cache.get(key, partial(make, key), len)
        assert cache.held <= 10
    assert made == ["a", "b", "c", "b"]


def test_votes_are_replaced_withdrawn_and_undone(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    cast = partial(store.cast, image, ada, "tablet")
    cast(1, [Vote((0, 1, 2), 2), Vote((1,), 0), Vote((2,), None), Vote((3,), UNSURE)])
    assert own(store, image, ada) == {0: 2, 1: 0, 2: -1, 3: UNSURE, 4: -1}
    assert store.progress(image, ada) == (3, 5)
    done = cast(2, [Undo(), Undo()])
    assert [each["undone"] for each in done.results] == ["vote", "vote"]
    assert done.results[1]["changed"] == [[2, 2, 14.0, 5.0, True]]
    assert own(store, image, ada) == {0: 2, 1: 0, 2: 2, 3: -1, 4: -1}
    assert cast(3, [Undo(), Undo(), Undo()]).results[2] == {"refused": "undo: there is nothing to undo"}
    assert set(own(store, image, ada).values()) == {-1}


def test_columns_are_added_moved_and_deleted_in_the_eyes_of_one_expert_only(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    ada, bob = voters(store, "Ada", "Bob")
    done = store.cast(
        image, ada, "a", 1, [Add(20.0, 8.5), Add(30.0, 9.0), Vote((5,), 1), Move(0, 5.0, 6.0), Delete((1, 6))]
    )
    assert [each.get("column") for each in done.results[:2]] == [5, 6]
    seen = store.columns(image, ada)
    assert seen.ids.tolist() == [0, 2, 3, 4, 5]
    assert seen.positions[[0, -1]].tolist() == [[5.0, 6.0], [20.0, 8.5]]
    # numbers do not tell Bob that Ada added two columns
    assert store.columns(image, bob).positions.tolist() == FOUND.tolist()
    assert store.cast(image, bob, "a", 1, [Add(1.0, 1.0)]).results[0]["column"] == 5
    store.cast(image, ada, "a", 2, [Undo(), Undo(), Undo(), Undo(), Undo()])
    assert store.columns(image, ada).positions.tolist() == FOUND.tolist()
    assert store.cast(image, ada, "a", 3, [Add(2.0, 2.0)]).results[0]["column"] == 7


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Vote((0, 9), 1), "column: expected the number of a column that is there, got 9"),
        (Vote((1,), 1), "got 1"),
        (Move(1, 3.0, 3.0), "got 1"),
        (Delete((2, 1)), "got 1"),
        (Move(0, 33.0, 3.0), "position: expected one inside the image, got row 33, column 3"),
        (Add(3.0, -0.6), "position: expected one inside the image"),
    ],
)
def test_what_does_not_fit_is_refused_by_itself(store, item, reason):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    store.cast(image, ada, "tablet", 1, [Delete((1,))])
    before = own(store, image, ada)
    done = store.cast(image, ada, "tablet", 2, [item, Vote((4,), 3)])
    assert reason in done.results[0]["refused"]
    assert own(store, image, ada) == before | {4: 3}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("", 1, [Undo()]), ValueError, "client: expected a name"),
        (("a b", 1, [Undo()]), ValueError, "client: expected a name"),
        (("x" * 65, 1, [Undo()]), ValueError, "client: expected a name"),
        (("tablet", 0, [Undo()]), ValueError, "sequence: expected a number from 1, got 0"),
        (("tablet", True, [Undo()]), ValueError, "sequence: expected a number from 1, got True"),
        (("tablet", 1 << 60, [Undo()]), ValueError, "sequence: expected a number from 1"),
        (("tablet", 1, []), ValueError, "items: expected at least one, got none"),
        (("tablet", 1, [7]), TypeError, "items: expected Vote, Undo, Add, Move or Delete, got int"),
        (("tablet", 1, [Vote((0,), 6)]), ValueError, "class: expected 0 to 5, or none to withdraw a vote, got 6"),
        (("tablet", 1, [Vote((0,), True)]), ValueError, "class: expected 0 to 5"),
        (("tablet", 1, [Vote((), 1)]), ValueError, "columns: expected at least one, each once"),
        (("tablet", 1, [Delete((1, 1))]), ValueError, "columns: expected at least one, each once"),
        (("tablet", 1, [Vote((-1,), 1)]), ValueError, "column: expected the numbers of columns"),
        (("tablet", 1, [Add(np.nan, 1.0)]), ValueError, "position: expected finite numbers"),
    ],
)
def test_requests_that_make_no_sense_write_nothing(store, arguments, error, message):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    with pytest.raises(error, match=message):
        store.cast(image, ada, *arguments)
    assert store.next_sequence(ada, "tablet") == 1
    with pytest.raises(Missing, match="image: expected the number of an image in the store, got 99"):
        store.cast(99, ada, "tablet", 1, [Undo()])


def test_a_retry_is_answered_alike_and_done_once(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    ada, bob = voters(store, "Ada", "Bob")
    first = store.cast(image, ada, "tablet", 1, [Add(9.0, 9.0), Vote((0,), 1)])
    second = store.cast(image, ada, "tablet", 2, [Undo()])
    assert store.cast(image, ada, "tablet", 1, [Add(9.0, 9.0), Vote((0,), 1)]) == first
    assert store.cast(image, ada, "tablet", 2, [Undo()]) == second
    assert own(store, image, ada) == {**dict.fromkeys(range(5), -1), 5: -1}
    with pytest.raises(Refused, match="sequence: this client sent something else as 1, take another name"):
        store.cast(image, ada, "tablet", 1, [Vote((0,), 2)])
    store.cast(image, bob, "tablet", 1, [Vote((0,), 2)])  # another expert's client of the same name is another one


def test_requests_are_done_in_the_order_of_their_client(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    with pytest.raises(OutOfOrder, match="sequence: expected sequence 1 next from this client, got 2") as caught:
        store.cast(image, ada, "tablet", 2, [Vote((0,), 1)])
    assert caught.value.expected == 1
    store.cast(image, ada, "tablet", 1, [Vote((0,), 0)])
    store.cast(image, ada, "tablet", 2, [Vote((0,), 1)])
    assert store.next_sequence(ada, "tablet") == 3
    assert own(store, image, ada)[0] == 1


def test_tokens_tell_experts_apart_and_are_not_kept(store, tmp_path):
    token = store.add_expert("Ada")
    chair = store.add_expert("Cleo", "chair")
    assert (store.expert_of(token).name, store.expert_of(chair).role) == ("Ada", "chair")
    assert store.expert_of("") is None and store.expert_of(token[:-1]) is None
    with pytest.raises(Refused, match="name: Ada is in the store already"):
        store.add_expert("Ada")
    with pytest.raises(Refused, match="name: expected somebody in the store with the role chair, got Ada"):
        store.add_expert("Ada", "chair", renew=True)
    with pytest.raises(ValueError, match="role: expected one of expert, chair, got 'king'"):
        store.add_expert("Eve", "king")
    again = store.add_expert("Ada", renew=True)
    assert store.expert_of(token) is None and store.expert_of(again).name == "Ada"
    store.close()
    assert not any(token.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_rows_are_only_ever_added(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    store.cast(image, ada, "tablet", 1, [Vote((0,), 1)])
    store.decide(image, store.expert_of(store.add_expert("Cleo", "chair")), 0, 1)
    store.close_round(image)
    raw = sqlite3.connect(store.path)
    tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables.remove("sqlite_sequence")
    assert {"image", "column", "expert", "request", "action", "decision", "round"} <= set(tables)
    for table in tables:
        before = raw.execute(f"SELECT * FROM {table}").fetchall()
        assert before, table
        names = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
        first = names[0]
        for statement in (f"UPDATE {table} SET {first} = {first}", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match=f"{table}: rows are only ever added"):
                raw.execute(statement)
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")
        if names[0] == "id" and table not in ("action", "decision"):
            with pytest.raises(sqlite3.IntegrityError):
                raw.execute(f"INSERT OR REPLACE INTO {table} SELECT NULL, {', '.join(names[1:])} FROM {table} LIMIT 1")
        assert raw.execute(f"SELECT * FROM {table}").fetchall() == before
    raw.close()


def test_voting_ends_but_retries_are_answered(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    done = store.cast(image, ada, "tablet", 1, [Vote((0,), 1)])
    store.close_round(image, {"rule": "majority"})
    with pytest.raises(Refused, match=r"image: voting on field\.tif has ended"):
        store.cast(image, ada, "tablet", 2, [Vote((0,), 2)])
    assert store.cast(image, ada, "tablet", 1, [Vote((0,), 1)]) == done
    assert store.image(image).closed
    with pytest.raises(Refused, match="has ended already"):
        store.close_round(image)


def test_the_table_has_the_votes_that_count(store):
    image = store.add_image(micrograph(), Columns(FOUND))
    ada, bob, eve = voters(store, "Ada", "Bob", "Eve")
    store.cast(image, ada, "a", 1, [Vote((0, 1, 2), 0), Vote((1,), 3), Add(28.0, 30.0), Vote((5,), 4), Delete((2,))])
    store.cast(
        image,
        bob,
        "b",
        1,
        [Add(2.0, 2.0), Vote((5,), 1), Undo(), Undo(), Add(29.0, 31.0), Vote((6, 0), 4), Vote((3,), UNSURE)],
    )
    store.cast(image, eve, "e", 1, [Vote((1,), 3), Vote((0,), None)])
    table = store.vote_table(image)
    rows = zip(table.column.tolist(), table.expert.tolist(), table.label.tolist(), strict=True)
    votes = {(column, expert): label for column, expert, label in rows}
    # 5 is Ada's, and Bob's that is 1.4 px from it, whatever Bob knows it as; 6 is the one he took back
    assert votes == {(0, 1): 0, (1, 1): 3, (5, 1): 4, (0, 2): 4, (5, 2): 4, (3, 2): UNSURE, (1, 3): 3}
    positions, there = store.positions(image)
    assert positions[:6].tolist() == [*FOUND.tolist(), [28.5, 30.5]]
    assert there.tolist() == [True, True, False, True, True, True, False, False]


def test_the_export_has_the_labels_of_the_votes(store, tmp_path):
    image = store.add_image(micrograph(), Columns(FOUND))
    ada, bob = voters(store, "Ada", "Bob")
    cleo = store.expert_of(store.add_expert("Cleo", "chair"))
    store.cast(image, ada, "a", 1, [Vote((0, 1, 2), 0), Vote((3,), UNSURE), Move(0, 4.5, 5.5)])
    store.cast(image, bob, "b", 1, [Vote((0,), 0), Vote((1, 2), 3)])
    store.decide(image, cleo, 2, 3)
    store.decide(image, cleo, 4, 1)
    store.decide(image, cleo, 4, None)
    store.export(image, tmp_path / "out.csv", unanimity)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "column", "class", *CLASSES, "votes", "agreement", "status"]
    assert [(each["class"], each["votes"], each["agreement"], each["status"]) for each in rows] == [
        ("metal", "2", "1.00000", "agreed"),
        ("", "2", "0.50000", "disputed"),
        ("single_vacancy", "2", "0.50000", "decided"),
        ("", "0", "", "unlabelled"),
        ("", "0", "", "unlabelled"),
    ]
    assert (rows[0]["row"], rows[0]["column"]) == ("4.500", "5.500")
    assert [float(rows[1][name]) for name in CLASSES] == [0.5, 0.0, 0.0, 0.5, 0.0]
    assert [float(rows[2][name]) for name in CLASSES] == [0.0, 0.0, 0.0, 1.0, 0.0]
    with pytest.raises(FileExistsError, match="exists already"):
        store.export(image, tmp_path / "out.csv", overwrite=False)


@pytest.mark.parametrize(("column", "label"), [(5, 0), (-1, 0), (0, 5), (0, -1)])
def test_only_a_chair_decides_and_only_what_there_is(store, column, label):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    cleo = store.expert_of(store.add_expert("Cleo", "chair"))
    with pytest.raises(ValueError, match="expected"):
        store.decide(image, cleo, column, label)
    with pytest.raises(ValueError, match="chair: expected a chair, got Ada"):
        store.decide(image, ada, 0, 0)
    with pytest.raises(Refused, match="expert: expected somebody who votes, got Cleo"):
        store.cast(image, cleo, "tablet", 1, [Vote((0,), 0)])
    assert store.decisions(image) == {}


def test_each_expert_works_in_an_order_of_their_own(store):
    positions = np.random.default_rng(0).uniform(0, 30, (200, 2))
    image = store.add_image(micrograph(), Columns(positions), name="a")
    entropy = np.repeat([0.1, 2.0], 100)
    ranked = store.add_image(micrograph(), Columns(positions), name="b", order="uncertain", entropy=entropy)
    ada, bob = voters(store, "Ada", "Bob")
    first = store.order(image, ada)
    assert sorted(first) == list(range(200)) and (first == store.order(image, ada)).all()
    assert np.mean(first == store.order(image, bob)) < 0.1
    assert abs(np.corrcoef(first, np.arange(200))[0, 1]) < 0.3
    assert sorted(store.order(ranked, ada)[:100]) == list(range(100, 200))
    assert (store.order(ranked, ada) != store.order(ranked, bob)).any()
    store.cast(image, ada, "a", 1, [Delete((int(first[0]),)), Add(3.0, 3.0)])
    assert store.order(image, ada).tolist() == [*first[1:].tolist(), 200]


def test_eight_writers_at_once(tmp_path):
    writers, each = 8, 625
    with VoteStore(tmp_path / "labels.db") as store:
        image = store.add_image(micrograph(), Columns(FOUND))
        experts = voters(store, *(f"expert {number}" for number in range(writers // 2)))
        failures = []

        def write(number):
            try:
                for sequence in range(1, each + 1):
                    store.cast(
                        image,
                        experts[number // 2],
                        f"client {number}".replace(" ", "-"),
                        sequence,
                        [Vote((sequence % 5,), sequence % 6)],
                    )
            except Exception as error:  # noqa: BLE001 - of a thread, asserted below
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(
            f"{writers * each} votes by {writers} writers: {writers * each / (time.perf_counter() - start):.0f} votes/s"
        )
        assert not failures
        rows = store._database.read(
            "SELECT client, sequence, column, class FROM action JOIN request ON request.id = request ORDER BY action.id"
        )
    by_client = defaultdict(list)
    for client, *vote in rows:
        by_client[client].append(tuple(vote))
    assert len(by_client) == writers
    assert all(votes == [(s, s % 5, s % 6) for s in range(1, each + 1)] for votes in by_client.values())


def test_two_processes_share_a_store(tmp_path):
    program = (
        "import sys\nfrom contextem.labels.votes import VoteStore\nfrom contextem.labels.actions import Vote\n"
        "with VoteStore(sys.argv[1]) as store:\n"
        "    expert = store.experts()[int(sys.argv[2])]\n"
        "    for k in range(1, 101):\n        store.cast(1, expert, sys.argv[2], k, [Vote((k % 5,), k % 6)])\n"
    )
    with VoteStore(tmp_path / "labels.db") as store:
        store.add_image(micrograph(), Columns(FOUND))
        experts = voters(store, "Ada", "Bob")
        runs = [subprocess.Popen([sys.executable, "-c", program, store.path, str(k)]) for k in range(2)]
        assert [run.wait(60) for run in runs] == [0, 0]
        for expert in experts:
            assert own(store, 1, expert) == {k % 5: k % 6 for k in range(96, 101)}


def test_a_failure_in_the_middle_writes_nothing(store, monkeypatch):
    image = store.add_image(micrograph(), Columns(FOUND))
    (ada,) = voters(store, "Ada")
    monkeypatch.setattr("contextem.labels.votes._json", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.cast(image, ada, "tablet", 1, [Vote((0,), 1)])
    assert own(store, image, ada)[0] == -1 and store.next_sequence(ada, "tablet") == 1


def test_other_files_and_versions_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="got a folder"):
        VoteStore(tmp_path)
    (tmp_path / "text.db").write_text("no database, but long enough to have a header" * 10)
    with pytest.raises(ValueError, match="expected a store of votes, got a file that is none"):
        VoteStore(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE stamps (id)")
    other.commit()
    other.close()
    with pytest.raises(ValueError, match="got a database of another program"):
        VoteStore(tmp_path / "other.db")
    with pytest.raises(OSError, match="the store could not be used"):
        VoteStore(tmp_path / "no folder" / "labels.db")
    for version, age in ((0, "an older"), (database.VERSION + 1, "a newer")):
        path = tmp_path / f"{version}.db"
        VoteStore(path).close()
        raw = sqlite3.connect(path)
        raw.execute(f"PRAGMA user_version = {version}")
        raw.close()
        with pytest.raises(ValueError, match=f"got version {version}, written by {age} contextem"):
            VoteStore(path)
    assert not (tmp_path / "no folder").exists()


def test_threads_that_come_and_go_leave_no_connections(store, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: opened.append(1) or connect(*a, **k))
    for _ in range(20):
        thread = threading.Thread(target=store.images)
        thread.start()
        thread.join()
    assert not opened  # the one of the beginning serves them all


def test_a_closed_store_says_so(tmp_path):
    store = VoteStore(tmp_path / "labels.db")
    store.close()
    with pytest.raises(ValueError, match="the store is closed"):
        store.images()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", "nfs4"),
        ("cifs", "cifs"),
        ("smb3", "smb3"),
        ("fuse.sshfs", "fuse.sshfs"),
        ("lustre", "lustre"),
        ("ext4", None),
    ],
)
def test_network_file_systems_have_no_write_ahead_log(tmp_path, monkeypatch, kind, expected):
    inside = tmp_path / "on the net"
    inside.mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(inside).replace(" ", r"\040")
    mounts.write_text(f"/dev/sda / nfs rw 0 0\n/dev/sda {tmp_path} ext4 rw 0 0\nhost:/x {escaped} {kind} rw 0 0\n")
    monkeypatch.setattr(database, "_mounts", partial(database._mounts, str(mounts)))
    assert network_file_system(inside / "labels.db") == expected
    assert network_file_system(tmp_path / "labels.db") is None
    for folder, network in ((inside, expected), (tmp_path, None)):
        with VoteStore(folder / "labels.db") as store:
            (ada,) = voters(store, "Ada")
            image = store.add_image(micrograph(), Columns(FOUND))
            store.cast(image, ada, "tablet", 1, [Vote((0,), 1)])
            assert store._database.read("PRAGMA journal_mode") == [("delete" if network else "wal",)]
            assert store._database.read("PRAGMA synchronous") == [(3 if network else 2,)]


class Voting(RuleBasedStateMachine):
    """Two experts do what they like, each also after a new start; the model remembers in dictionaries."""

    @initialize()
    def start(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/labels.db"
        self.store = VoteStore(self.path)
        self.image = self.store.add_image(micrograph(), Columns(FOUND))
        self.experts = voters(self.store, "Ada", "Bob")
        self.clients = [0, 0]
        self.sequences = [1, 1]
        self.columns = [{k: (None, *at) for k, at in enumerate(FOUND.tolist())} for _ in range(2)]
        self.count = [len(FOUND)] * 2
        self.history = [[], []]
        self.last = [None, None]

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def send(self, who, item):
        request = (self.experts[who], f"page-{self.clients[who]}", self.sequences[who], [item])
        receipt = self.store.cast(self.image, *request)
        self.sequences[who] += 1
        self.last[who] = (request, receipt)
        return receipt.results[0]

    def change(self, who, after):
        self.history[who].append(dict(self.columns[who]))
        self.columns[who] = after

    who = st.integers(0, 1)
    number = st.integers(0, 7)
    places = st.tuples(st.integers(0, 31).map(float), st.integers(0, 39).map(float))

    @rule(who=who, numbers=st.lists(number, min_size=1, max_size=4, unique=True), label=st.none() | st.integers(0, 5))
    def vote(self, who, numbers, label):
        result = self.send(who, Vote(tuple(numbers), label))
        now = self.columns[who]
        if all(k in now for k in numbers):
            assert result == {"do": "vote", "columns": len(numbers)}
            self.change(who, now | {k: (label, *now[k][1:]) for k in numbers})
        else:
            assert "refused" in result

    @rule(who=who, numbers=st.lists(number, min_size=1, max_size=2, unique=True))
    def delete(self, who, numbers):
        result = self.send(who, Delete(tuple(numbers)))
        now = self.columns[who]
        if all(k in now for k in numbers):
            self.change(who, {k: v for k, v in now.items() if k not in numbers})
        else:
            assert "refused" in result

    @rule(who=who, number=number, place=places)
    def move(self, who, number, place):
        result = self.send(who, Move(number, *place))
        now = self.columns[who]
        if number in now:
            self.change(who, now | {number: (now[number][0], *place)})
        else:
            assert "refused" in result

    @rule(who=who, place=places)
    def add(self, who, place):
        assert self.send(who, Add(*place)) == {"do": "add", "column": self.count[who]}
        self.change(who, self.columns[who] | {self.count[who]: (None, *place)})
        self.count[who] += 1

    @rule(who=who, times=st.integers(1, 3))
    def undo(self, who, times):
        for _ in range(times):
            result = self.send(who, Undo())
            if self.history[who]:
                before = self.columns[who]
                self.columns[who] = self.history[who].pop()
                for number, label, row, column, present in result["changed"]:
                    expected = self.columns[who].get(number)
                    assert present == (expected is not None)
                    assert not present or expected == (None if label < 0 else label, row, column)
                told = {change[0] for change in result["changed"]}
                differ = {
                    k for k in before.keys() | self.columns[who].keys() if before.get(k) != self.columns[who].get(k)
                }
                assert differ <= told
            else:
                assert "refused" in result

    @rule(who=who)
    def retry(self, who):
        if self.last[who] is not None:
            request, receipt = self.last[who]
            assert self.store.cast(self.image, *request) == receipt

    @rule(who=who)
    def new_page(self, who):
        self.clients[who] += 1
        self.sequences[who] = 1

    @rule(who=who, ahead=st.integers(1, 3))
    def too_early(self, who, ahead):
        with pytest.raises(OutOfOrder):
            self.store.cast(
                self.image, self.experts[who], f"page-{self.clients[who]}", self.sequences[who] + ahead, [Undo()]
            )

    @rule()
    def restart(self):
        self.store.close()
        self.store = VoteStore(self.path)

    @invariant()
    def same_as_the_model(self):
        for who, expert in enumerate(self.experts):
            seen = self.store.columns(self.image, expert)
            labels = [None if label < 0 else label for label in seen.own.tolist()]
            got = {k: (v, *at) for k, v, at in zip(seen.ids.tolist(), labels, seen.positions.tolist(), strict=True)}
            assert got == self.columns[who]
            voted = sum(label is not None for label, *_ in self.columns[who].values())
            assert self.store.progress(self.image, expert) == (voted, len(self.columns[who]))
            assert sorted(self.store.order(self.image, expert).tolist()) == sorted(self.columns[who])
        table = self.store.vote_table(self.image)
        found = table.column < len(FOUND)
        for who, expert in enumerate(self.experts):
            mine = (table.expert == expert.id) & found
            expected = {k: v for k, (v, *_) in self.columns[who].items() if v is not None and k < len(FOUND)}
            assert dict(zip(table.column[mine].tolist(), table.label[mine].tolist(), strict=True)) == expected
            added = [v for k, (v, *_) in self.columns[who].items() if v is not None and k >= len(FOUND)]
            assert sorted(table.label[(table.expert == expert.id) & ~found].tolist()) == sorted(added)
        labels = self.store.labels(self.image, majority)
        assert int(labels["votes"].sum()) <= int((table.label < UNSURE).sum())


Voting.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestVoting = Voting.TestCase
