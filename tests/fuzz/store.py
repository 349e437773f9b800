"""A label store from a stranger: bytes of the file, and rows that this package would never have written."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contextem.columns import Columns
from contextem.labels.actions import Add, Delete, Move, Undo, Vote
from contextem.labels.database import _KEYS
from contextem.labels.votes import RULES, Missing, VoteStore, labels_text
from contextem.micrograph import Micrograph
from fuzz.draw import Broken, Draw, expected

INSTRUMENTED = (
    *("contextem.labels.votes", "contextem.labels.database", "contextem.labels.actions", "contextem.labels.consensus"),
    *("contextem.labels.tiles", "contextem.micrograph"),
)

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def _whole() -> bytes:
    pixels = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    with VoteStore(FOLDER / "whole.db") as store:
        image = store.add_image(Micrograph(pixels, 0.2), Columns([[5.0, 5.0], [9.0, 20.0], [30.0, 9.0]]), name="a")
        for name in ("Ada", "Bob"):
            who = store.expert_of(store.add_expert(name))
            items = [Vote((0, 1), 2), Add(20.0, 20.0), Move(2, 31.0, 9.0), Delete((1,)), Undo(), Vote((3,), 5)]
            store.cast(image, who, "page", 1, items)
        chair = store.expert_of(store.add_expert("Cleo", "chair"))
        store.decide(image, chair, 0, 1)
    with sqlite3.connect(FOLDER / "whole.db") as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return (FOLDER / "whole.db").read_bytes()


WHOLE = _whole()
VALUES = (
    *(
        None,
        0,
        1,
        -1,
        2,
        3,
        4,
        5,
        6,
        7,
        512,
        2**31,
        2**40,
        2**62,
        -(2**62),
        0.5,
        -0.5,
        1e300,
        float("inf"),
        "",
        "x",
        "1",
    ),
    *(
        "random",
        "uncertain",
        "null",
        "[]",
        "{}",
        "[" * 2000,
        '{"sampling": 0.2}',
        '{"sampling": 1e9}',
        "<f4",
        "|O",
        ">f8",
    ),
    *(b"", b"x", zlib.compress(bytes(4800)), zlib.compress(bytes(1 << 20)), zlib.compress(bytes(4800)) + b"x"),
    *('{"sampling":0.2,"energy":1,"detector":{"name":"x"},"provenance":{},"source":null}', "chair", "expert", "NaN"),
)


def _changed(draw: Draw, path: Path) -> None:
    """Change rows as nobody may who is told by the triggers."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("foreign_keys = OFF", "ignore_check_constraints = ON", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for _ in range(1 + draw.below(4)):
            table = draw.choice(sorted(_KEYS))
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            value = draw.choice((draw.choice(VALUES), draw.choice(VALUES), draw.integer() % 2**63, draw.real()))
            try:
                if draw.chance(6):
                    connection.execute(
                        f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})",
                        [draw.choice(VALUES) for _ in names],
                    )
                elif draw.chance(8):
                    connection.execute(f"DELETE FROM {table} WHERE {names[0]} = ?", (draw.below(4),))
                else:
                    order = ", ".join(_KEYS[table][:1])
                    where = f"SELECT {order} FROM {table} LIMIT 1 OFFSET {draw.below(max(rows, 1))}"
                    connection.execute(
                        f"UPDATE {table} SET {draw.choice(names)} = ? WHERE ({order}) IN ({where})", (value,)
                    )
            except (sqlite3.Error, OverflowError):
                pass  # nothing that a file can hold
        for _, statement in triggers:
            connection.execute(statement)
        if draw.chance(12):
            connection.execute("CREATE VIEW more AS SELECT 1")
    finally:
        connection.close()


def target(data: bytes) -> None:
    draw = Draw(data)
    path = FOLDER / "labels.db"
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    whole = WHOLE
    raw = draw.chance(4)
    if raw:
        where = draw.below(len(whole))
        part = draw.take(draw.below(64))
        whole = whole[:where] + part + whole[where + len(part) :]
    path.write_bytes(whole)
    if not raw:
        _changed(draw, path)
    refused = (ValueError, OSError, Missing)
    with warnings.catch_warnings(), np.errstate(all="ignore"), expected(*refused):
        warnings.simplefilter("ignore")
        with VoteStore(path) as store:
            experts = store.experts()
            for info in store.images():
                with expected(*refused):
                    if store.micrograph(info.id).shape != (info.height, info.width):
                        raise Broken("an image of another shape")
                for expert in experts:
                    with expected(*refused):
                        seen = store.columns(info.id, expert)
                        voted, count = store.progress(info.id, expert)
                        if count != len(seen) or len(store.order(info.id, expert)) != len(seen) or voted > count:
                            raise Broken(f"expected the same number of columns, got {count} and {len(seen)}")
                with expected(*refused):
                    for rule in RULES.values():
                        labels_text(store.labels(info.id, rule))
                for expert in experts[:1]:
                    with expected(*refused):
                        items = [Vote((0,), 1), Add(3.0, 3.0), Undo(), Undo(), Undo()]
                        store.cast(info.id, expert, "page", store.next_sequence(expert, "page"), items)
                with expected(*refused):
                    store.tile(info.id, draw.below(3), draw.below(3), draw.below(3))


def seeds() -> Iterator[bytes]:
    for kind in (0, 3):
        for length in (4, 16, 60):
            for start in range(12):
                yield bytes([kind]) + bytes((11 * i + start * 37) % 256 for i in range(length))
