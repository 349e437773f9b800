"""A file of SQLite to which rows are only ever added, and what is in it is on disk.

Triggers forbid to change, remove and replace rows, whoever opens the file.  Where all who open it are on one machine
the journal is a write-ahead log, otherwise a rollback journal; either way a transaction is on disk when it ends.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from contextem.columns import CLASSES

NETWORK_FILE_SYSTEMS = ("9p", "afs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "orangefs", "smb")
"""Beginnings of the names of file systems on other machines; what is mounted by FUSE counts as such, too."""

VERSION = 1
"""Of the tables; a store of another one is refused."""

_APPLICATION = 0x63544C62  # tells this store from any other file of SQLite
_PATIENCE = 30.0  # s, for the lock of another process

_TABLES = f"""
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,           -- of shape, type and pixels
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    recording TEXT NOT NULL,        -- JSON: sampling in Å/px, energy in eV, detector, provenance, source
    context TEXT NOT NULL,          -- JSON: that of contextem.Context.to_dict, or null
    black REAL NOT NULL,
    white REAL NOT NULL,
    origin TEXT NOT NULL,           -- of the columns
    work_order TEXT NOT NULL,
    added TEXT NOT NULL
);
CREATE TABLE tile (                 -- zlib, little endian
    image INTEGER NOT NULL REFERENCES image,
    level INTEGER NOT NULL,
    row INTEGER NOT NULL,
    column INTEGER NOT NULL,
    pixels BLOB NOT NULL,
    UNIQUE (image, level, row, column)
);
CREATE TABLE column (
    image INTEGER NOT NULL REFERENCES image,
    number INTEGER NOT NULL,
    row REAL NOT NULL,              -- px
    col REAL NOT NULL,
    entropy REAL,                   -- bit, of a model's prediction
    PRIMARY KEY (image, number)
) WITHOUT ROWID;
CREATE TABLE expert (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('expert', 'chair')),
    added TEXT NOT NULL
);
CREATE TABLE invitation (           -- the last of an expert is the one that counts
    id INTEGER PRIMARY KEY,
    expert INTEGER NOT NULL REFERENCES expert,
    token_sha256 TEXT NOT NULL UNIQUE,
    added TEXT NOT NULL
);
CREATE TABLE request (
    id INTEGER PRIMARY KEY,
    expert INTEGER NOT NULL REFERENCES expert,
    client TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    content_sha256 TEXT NOT NULL,
    answer TEXT NOT NULL,           -- JSON
    received TEXT NOT NULL,
    UNIQUE (expert, client, sequence)
);
CREATE TABLE action (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request INTEGER NOT NULL REFERENCES request DEFERRABLE INITIALLY DEFERRED,  -- its row comes last
    item INTEGER NOT NULL,          -- of the request; its rows were done, and are undone, together
    expert INTEGER NOT NULL REFERENCES expert,
    image INTEGER NOT NULL REFERENCES image,
    column INTEGER NOT NULL,        -- number, as this expert knows it
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'add', 'move', 'delete', 'undo')),
    class INTEGER CHECK (class BETWEEN 0 AND {len(CLASSES)}),
    row REAL NOT NULL,
    col REAL NOT NULL,
    present INTEGER NOT NULL CHECK (present IN (0, 1)),
    replaces INTEGER REFERENCES action,
    undoes INTEGER REFERENCES action
);
CREATE INDEX action_state ON action (expert, image, column, id);
CREATE INDEX action_order ON action (expert, image, id);
CREATE INDEX action_item ON action (request, item);
CREATE INDEX action_undone ON action (undoes) WHERE undoes IS NOT NULL;
CREATE TABLE decision (             -- of the chair
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES image,
    column INTEGER NOT NULL,        -- number in the table of votes
    class INTEGER CHECK (class BETWEEN 0 AND {len(CLASSES) - 1}),
    chair INTEGER NOT NULL REFERENCES expert,
    received TEXT NOT NULL
);
CREATE TABLE round (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL UNIQUE REFERENCES image,
    settings TEXT NOT NULL,         -- JSON
    closed TEXT NOT NULL
);
"""
_KEYS = {
    "image": ("id", "name"),
    "tile": ("image, level, row, column",),
    "column": ("image, number",),
    "expert": ("id", "name"),
    "invitation": ("id", "token_sha256"),
    "request": ("id", "expert, client, sequence"),
    "action": ("id",),
    "decision": ("id",),
    "round": ("id", "image"),
}
"""What tells the rows of each table apart: where it is the same, REPLACE would remove the row before without a word."""


class Database:
    """The file, as threads and processes share it.

    Parameters
    ----------
    path : path-like
        The file; made where there is none.

    Attributes
    ----------
    path : Path
        As given.
    network : str or None
        The file system, if that is on another machine.

    Raises
    ------
    ValueError
        If the file is something else, or was written by another version.
    OSError
        If it cannot be opened or written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     database = Database(Path(folder) / "labels.db")
    ...     with database.transaction() as connection:
    ...         added = connection.execute("INSERT INTO expert VALUES (NULL, 'Ada', 'expert', '')")
    ...     rows = database.read("SELECT name, role FROM expert")
    ...     database.close()
    >>> rows
    [('Ada', 'expert')]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.network = network_file_system(self.path)
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file: what is under way is finished, nothing new begins."""
        with self._guard:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def read(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows that a statement selects.

        Parameters
        ----------
        statement : str
            In SQL.
        values : tuple
            What its question marks stand for.
        """
        with self._sentences(), self._connection() as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write what the block writes, whole and on disk when it ends, or nothing of it.

        Yields
        ------
        sqlite3.Connection
            For the block; no one else writes meanwhile.
        """
        with self._writing, self._sentences(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: the store could not be used ({error})") from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise ValueError(f"{self.path}: expected a store of votes, got a file that is none ({error})") from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that nobody else uses meanwhile; threads come and go, their number is not that of all."""
        with self._guard:
            if self._closed:
                raise ValueError(f"{self.path}: the store is closed")
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        finally:
            with self._guard:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            # The last two: a file from elsewhere may be made to do harm.
            for pragma in (
                *("foreign_keys = ON", "recursive_triggers = ON", "fullfsync = ON"),
                *("trusted_schema = OFF", "cell_size_check = ON"),
            ):
                connection.execute(f"PRAGMA {pragma}")
            # A rollback journal is gone for certain only when its folder is on disk, too.
            connection.execute(f"PRAGMA synchronous = {'EXTRA' if self.network else 'FULL'}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Make the tables of a new store, or see that they are those of this version."""
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path}: expected a store of votes, got a folder")
        with self._sentences(), self._connection() as connection:
            if _holds_tables(connection):
                self._check_version(connection)
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if self.network else 'WAL'}")
        with self.transaction() as connection:
            if not _holds_tables(connection):  # nor did another process make them meanwhile
                for statement in _statements():
                    connection.execute(statement)
            self._check_version(connection)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            raise ValueError(f"{self.path}: expected a store of votes, got a database of another program")
        if version != VERSION:
            newer = "a newer" if version > VERSION else "an older"
            raise ValueError(
                f"{self.path}: expected a store of version {VERSION}, got version {version}, written by {newer} "
                "contextem; open it with that one"
            )
        if _schema(connection) != _schema_of_new_store():
            raise ValueError(
                f"{self.path}: expected the tables of a store of votes, got others beside or in their place"
            )


def _holds_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return tables, indices, triggers and views with the statements that made them, but for those SQLite itself made.

    A view in the place of a table, or one more trigger, would be a program that runs where rows are read or added.
    """
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return sorted((kind, name, " ".join(str(sql).split())) for kind, name, sql in rows if name[:7] != "sqlite_")


@cache
def _schema_of_new_store() -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in _statements():
            connection.execute(statement)
        return _schema(connection)


def network_file_system(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the file system a file is on, if that is on another machine; None where no one tells.

    Write-ahead logs need memory that all who open the file share, which there is none of between machines.

    Parameters
    ----------
    path : path-like
        The file, which need not exist.

    Examples
    --------
    >>> network_file_system("/proc/version") is None
    True
    """
    place = Path(path).absolute().parent.resolve()
    nearest: tuple[int, str] = (-1, "")
    for mounted, kind in _mounts():
        if place == mounted or mounted in place.parents:
            nearest = max(nearest, (len(mounted.parts), kind), key=lambda each: each[0])
    kind = nearest[1]
    return kind if kind.startswith((*NETWORK_FILE_SYSTEMS, "fuse.")) or kind == "fuse" else None


def _mounts(table: str = "/proc/mounts") -> list[tuple[Path, str]]:
    """Return where file systems are mounted, and what they are; the later of two at one place covers the other."""
    try:
        lines = Path(table).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    mounts = [line.split() for line in lines]
    plain = [
        (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line[1]), line[2]) for line in mounts if len(line) > 2
    ]
    return [(Path(place), kind) for place, kind in reversed(plain)]


def _statements() -> Iterator[str]:
    """Yield what makes a new store."""
    yield f"PRAGMA application_id = {_APPLICATION}"
    yield f"PRAGMA user_version = {VERSION}"
    yield from (statement for statement in re.sub(r"--.*", "", _TABLES).split(";") if statement.strip())
    for table, keys in _KEYS.items():
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table}: rows are only ever added'); END"
        for change in ("UPDATE", "DELETE"):
            yield f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table} {refuse}"
        known = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table} WHERE ({key}) = (NEW.{key.replace(', ', ', NEW.')}))" for key in keys
        )
        yield f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN {known} {refuse}"
