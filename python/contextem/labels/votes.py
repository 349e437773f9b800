"""The votes of experts on the columns of micrographs, in one file to which everything is only ever added.

What experts do to columns is told in `contextem.labels.actions`.  What is asked for in the name of an expert tells
nothing of the others; the table of votes and what is made of it are the chair's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from contextem._output import whole_file
from contextem.columns import CLASSES, Columns
from contextem.labels.actions import LAST_COLUMN, Ballot, Item, State, check_request
from contextem.labels.consensus import UNSURE, Consensus, VoteTable, dawid_skene, majority, unanimity
from contextem.labels.database import Database
from contextem.labels.tiles import SIDE, grey_limits, pyramid
from contextem.micrograph import SAMPLING_RANGE, Detector, Micrograph, check_number

logger = logging.getLogger(__name__)

ROLES = ("expert", "chair")
"""Who votes, and who sees the votes of all and decides where they disagree."""

ORDERS = ("random", "uncertain")
"""Orders of work: random, another one for each expert, or the columns first that a model is least sure of."""

SAME_COLUMN = 0.8
"""Distance up to which columns that several experts add are taken for one, Å."""

_ODD = (sqlite3.IntegrityError, zlib.error)
_AROUND = tuple(itertools.product((-1, 0, 1), repeat=2))

_REQUEST = "SELECT content_sha256, answer FROM request WHERE expert = ? AND client = ? AND sequence = ?"
_LAST_REQUEST = "SELECT coalesce(max(sequence), 0) FROM request WHERE expert = ? AND client = ?"
_ENTROPY = "SELECT entropy FROM column WHERE image = ? ORDER BY number"
_ADDED = "SELECT expert, column FROM action WHERE image = ? AND kind = 'add' ORDER BY id"
# Beside a lone max(), SQLite takes the other values from the row that has it.
_STATES = "SELECT column, class, row, col, present, max(id) FROM action WHERE expert = ? AND image = ? GROUP BY column"


Rule = Callable[..., Consensus]
"""What makes labels of a `VoteTable` and the numbers of the columns; it may be told a quorum."""

RULES: Mapping[str, Rule] = MappingProxyType({"majority": majority, "unanimity": unanimity, "dawid-skene": dawid_skene})
"""Rules by the names they are chosen by."""


class Refused(ValueError):
    """What was asked for does not fit what the store holds; nothing was written."""


class Missing(LookupError):
    """What was asked for is not in the store."""


class OutOfOrder(Refused):
    """A request came before one that its client numbered lower.

    Attributes
    ----------
    expected : int
        Number of the request that is missing.
    """

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"sequence: expected sequence {expected} next from this client, got {got}")
        self.expected = expected


@dataclass(frozen=True)
class Expert:
    """Somebody who votes, or the chair.

    Attributes
    ----------
    id : int
        In the store.
    name : str
        As the chair calls them.
    role : str
        One of `ROLES`.
    """

    id: int
    name: str
    role: str


@dataclass(frozen=True)
class ImageInfo:
    """What is told of an image without its pixels.

    Attributes
    ----------
    id : int
        In the store.
    name : str
        As it is shown.
    sha256 : str
        Of its shape, type and pixels.
    height, width : int
        px.
    sampling : float
        Å/px.
    columns : int
        How many were found.
    order : str
        One of `ORDERS`.
    closed : bool
        Whether voting has ended.
    black, white : float
        Pixel values that are shown black and white.
    context : dict or None
        Specimen and recording, as `contextem.Context.to_dict` tells them.
    """

    id: int
    name: str
    sha256: str
    height: int
    width: int
    sampling: float
    columns: int
    order: str
    closed: bool
    black: float
    white: float
    context: dict[str, Any] | None


@dataclass(frozen=True, eq=False)
class ColumnsOf:
    """The columns of an image as one expert sees them.

    Attributes
    ----------
    ids : (N,) int64
        Numbers of the columns, increasing.
    positions : (N, 2) float64
        Row and column, px.
    own : (N,) int8
        The expert's vote: an index into `CLASSES`, `UNSURE`, or -1 for none.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.float64]
    own: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Receipt:
    """What became of a request: it is on disk.

    Attributes
    ----------
    sequence : int
        Number of the request.
    results : tuple of dict
        One for each item: what was done, or ``{"refused": why}``.  Undoing tells ``"changed"``, a list of [number,
        label or -1, row, column, whether it is there].
    """

    sequence: int
    results: tuple[dict[str, Any], ...]


class VoteStore:
    """A file of images, experts and votes.

    Threads may share a store, and processes a file.  What a call has written is on disk when it returns, and survives
    the end of the process and a failure of the machine.

    Parameters
    ----------
    path : path-like
        The file; made where there is none.

    Raises
    ------
    ValueError
        If the file is something else, or was written by another version.
    OSError
        If it cannot be opened or written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.labels.actions import Vote
    >>> micrograph = Micrograph(np.eye(64), sampling=0.2)
    >>> with TemporaryDirectory() as folder, VoteStore(Path(folder) / "labels.db") as store:
    ...     image = store.add_image(micrograph, Columns([[10, 10], [20, 20]]), name="field")
    ...     expert = store.expert_of(store.add_expert("Ada"))
    ...     receipt = store.cast(image, expert, "tablet", 1, [Vote((1,), 0)])
    ...     store.columns(image, expert).own.tolist()
    [-1, 0]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path)
        self._found: dict[int, NDArray[np.float64]] = {}

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file: what is under way is finished, nothing new begins."""
        self._database.close()

    def add_image(
        self,
        micrograph: Micrograph,
        columns: Columns,
        context: dict[str, Any] | None = None,
        name: str | None = None,
        *,
        origin: str = "found",
        order: str = "random",
        entropy: NDArray[np.floating[Any]] | None = None,
    ) -> int:
        """Add an image with its columns.

        Parameters
        ----------
        micrograph : Micrograph
            The image.
        columns : Columns
            N columns inside it.
        context : dict, optional
            Specimen and recording, from `contextem.Context.to_dict`.
        name : str, optional
            As it is shown; its source by default.
        origin : str
            Where the columns come from.
        order : {"random", "uncertain"}
            Order of work.
        entropy : ndarray, shape (N,), optional
            Of a model's predictions, bit; for the order "uncertain".  No expert is told.

        Returns
        -------
        int
            Its number.  An image that has this name in the store, and these pixels and columns, is not added again.

        Raises
        ------
        Refused
            If another image, or other columns, have the name.
        ValueError
            If an argument is not a possible one.
        """
        name = _check_name("name", micrograph.source if name is None else name)
        height, width = micrograph.shape
        data = _little_endian(micrograph.data)
        positions = columns.positions
        if len(positions) and not ((positions >= -0.5) & (positions <= np.subtract(micrograph.shape, 0.5))).all():
            raise ValueError(f"columns: expected positions inside the image of {height} x {width} px, got some outside")
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
        if entropy is not None and np.shape(entropy) != (len(columns),):
            raise ValueError(
                f"entropy: expected shape ({len(columns)},), one value per column, got {np.shape(entropy)}"
            )
        if order == "uncertain" and entropy is None:
            raise ValueError(
                "order: expected a model's predictions with the order 'uncertain', got none; take 'random'"
            )
        digest = fingerprint(micrograph)
        recording = {
            "sampling": micrograph.sampling,
            "energy": micrograph.energy,
            "detector": None if micrograph.detector is None else micrograph.detector.to_dict(),
            "provenance": micrograph.provenance,
            "source": micrograph.source,
        }
        certainty: Iterable[float | None] = [None] * len(columns) if entropy is None else np.asarray(entropy).tolist()
        with self._database.transaction() as connection:
            known = connection.execute("SELECT id, sha256 FROM image WHERE name = ?", (name,)).fetchone()
            if known is not None:
                if known[1] == digest and np.array_equal(self._positions(known[0]), positions):
                    return int(known[0])
                raise Refused(f"name: another image or other columns have the name {name}, choose another one")
            black, white = grey_limits(data)
            values = (
                name,
                digest,
                height,
                width,
                data.dtype.str,
                _json(recording),
                _json(context),
                black,
                white,
                origin,
                order,
                _now(),
            )
            marks = ", ?" * len(values)
            cursor = connection.execute(f"INSERT INTO image VALUES (NULL{marks})", values)  # noqa: S608 - marks only
            image = int(cursor.lastrowid or 0)
            for level, row, column, pixels in pyramid(data, black, white):
                tile = (image, level, row, column, zlib.compress(pixels.data, 1))
                connection.execute("INSERT INTO tile VALUES (?, ?, ?, ?, ?)", tile)
            rows = zip(range(len(columns)), *positions.T.tolist(), certainty, strict=True)
            connection.executemany("INSERT INTO column VALUES (?, ?, ?, ?, ?)", ((image, *each) for each in rows))
        return image

    def images(self) -> list[ImageInfo]:
        """Return what is known of all images, in the order in which they were added."""
        rows = self._database.read("SELECT id FROM image ORDER BY id")
        return [self.image(int(row[0])) for row in rows]

    def image(self, image: int) -> ImageInfo:
        """Return what is known of an image.

        Parameters
        ----------
        image : int
            Its number.

        Raises
        ------
        Missing
            If there is none of this number.
        """
        found = self._database.read(
            "SELECT i.name, sha256, height, width, recording, work_order, r.id IS NOT NULL, black, white, context,"
            " (SELECT count(*) FROM column WHERE image = i.id AND number >= 0),"
            " (SELECT coalesce(max(number), -1) FROM column WHERE image = i.id)"
            " FROM image i LEFT JOIN round r ON r.image = i.id WHERE i.id = ?",
            (image,),
        )
        if not found:
            raise Missing(f"image: expected the number of an image in the store, got {image}")
        name, digest, height, width, recording, order, closed, black, white, context, count, last = found[0]
        with self._damage(f"image {image}"):
            sampling = check_number("sampling", json.loads(recording)["sampling"], "Å/px", SAMPLING_RANGE)
            described = json.loads(context)
            fits = isinstance(name, str) and isinstance(digest, str) and isinstance(described, dict | None)
            sizes = isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
            if not (fits and sizes and order in ORDERS and math.isfinite(white - black) and count == last + 1):
                raise ValueError("what is told of it")
        known = (name, digest, height, width, sampling, count, order, bool(closed), black, white, described)
        return ImageInfo(image, *known)

    def micrograph(self, image: int) -> Micrograph:
        """Return an image as it was added.

        Parameters
        ----------
        image : int
            Its number.
        """
        info = self.image(image)
        (recording,) = self._database.read("SELECT recording FROM image WHERE id = ?", (image,))[0]
        data = self.region(image, 0, 0, info.height, info.width)
        with self._damage(f"image {image}"):
            said = json.loads(recording)
            if said["detector"] is not None:
                said["detector"] = Detector(**said["detector"])
            return Micrograph(data, **said)

    def region(self, image: int, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Return the pixels of a rectangle that lies inside an image.

        Parameters
        ----------
        image : int
            Number of the image.
        top, left, height, width : int
            px.

        Returns
        -------
        ndarray, shape (height, width)
        """
        rows = range(top // SIDE, (top + height - 1) // SIDE + 1)
        columns = range(left // SIDE, (left + width - 1) // SIDE + 1)
        parts = [[self.tile(image, 0, row, column) for column in columns] for row in rows]
        whole: NDArray[Any] = parts[0][0] if len(parts) == len(parts[0]) == 1 else np.block(parts)
        top, left = top - rows[0] * SIDE, left - columns[0] * SIDE
        return whole[top : top + height, left : left + width]

    def tile(self, image: int, level: int, row: int, column: int) -> NDArray[Any]:
        """Return a tile: pixels of the micrograph at level 0, grey levels at the others; see `contextem.labels.tiles`.

        Parameters
        ----------
        image : int
            Number of the image.
        level, row, column : int
            Place of the tile.

        Raises
        ------
        Missing
            If there is none.
        """
        found = self._database.read(
            "SELECT height, width, dtype, pixels FROM tile JOIN image ON image.id = image"
            " WHERE image = ? AND level = ? AND row = ? AND column = ?",
            (image, level, row, column),
        )
        if not found:
            raise Missing(f"tile: expected one of the image, got level {level}, row {row}, column {column}")
        height, width, dtype, packed = found[0]
        with self._damage(f"tile {level}, {row}, {column} of image {image}"):
            shape = [min(SIDE, -(-side >> level) - SIDE * at) for side, at in ((height, row), (width, column))]
            kind = np.dtype("|u1" if level else dtype)
            if min(shape) < 1 or kind.kind not in "iuf":
                raise ValueError(f"{kind} of shape {shape}")
            size = math.prod(shape) * kind.itemsize
            # no more than it should be: what is packed well may be a thousand times as long
            pixels = zlib.decompressobj().decompress(packed, size + 1)
            if len(pixels) != size:
                raise ValueError(f"expected {size} bytes of pixels")
            return np.frombuffer(pixels, kind).reshape(shape)

    def add_expert(self, name: str, role: str = "expert", *, renew: bool = False) -> str:
        """Add an expert.

        Parameters
        ----------
        name : str
            How the chair calls them.
        role : {"expert", "chair"}
            Whether they vote, or see the votes of all and decide.
        renew : bool
            Make a new token for one who is there, in place of the one before.

        Returns
        -------
        str
            A token by which they are known.  The store keeps its hash only: it can't be told again.

        Raises
        ------
        Refused
            If there is one of this name, or, with `renew`, none of this name and role.
        ValueError
            If the name or the role is not a possible one.
        """
        name = _check_name("name", name)
        if role not in ROLES:
            raise ValueError(f"role: expected one of {', '.join(ROLES)}, got {role!r}")
        token = secrets.token_urlsafe(24)
        with self._database.transaction() as connection:
            known = connection.execute("SELECT id, role FROM expert WHERE name = ?", (name,)).fetchone()
            if renew and (known is None or known[1] != role):
                raise Refused(f"name: expected somebody in the store with the role {role}, got {name}")
            if known is not None and not renew:
                raise Refused(f"name: {name} is in the store already, choose another name or ask for a new link")
            if known is None:
                added = connection.execute("INSERT INTO expert VALUES (NULL, ?, ?, ?)", (name, role, _now()))
                known = (added.lastrowid, role)
            connection.execute("INSERT INTO invitation VALUES (NULL, ?, ?, ?)", (known[0], _sha256(token), _now()))
        return token

    def experts(self) -> list[Expert]:
        """Return all experts and chairs, in the order in which they were added."""
        rows = self._database.read("SELECT id, name, role FROM expert ORDER BY id")
        with self._damage("experts"):
            if not all(isinstance(name, str) and role in ROLES for _, name, role in rows):
                raise ValueError("names and roles")
        return [Expert(*row) for row in rows]

    def expert_of(self, token: str) -> Expert | None:
        """Return whose token it is, or None where it is nobody's, or no longer."""
        found = self._database.read(
            "SELECT e.id, e.name, e.role FROM invitation i JOIN expert e ON e.id = i.expert WHERE token_sha256 = ?"
            " AND NOT EXISTS (SELECT 1 FROM invitation n WHERE n.expert = i.expert AND n.id > i.id)",
            (_sha256(token),),
        )
        return Expert(*found[0]) if found else None

    def columns(self, image: int, expert: Expert) -> ColumnsOf:
        """Return the columns of an image with an expert's own votes and edits, and nobody else's.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            In whose eyes.
        """
        found = self._positions(image)
        states = self._states(image, expert.id)
        count = max(len(found), *(number + 1 for number in states)) if states else len(found)
        positions = np.full((count, 2), np.nan)
        positions[: len(found)] = found
        own = np.full(count, -1, np.int8)
        there = np.arange(count) < len(found)
        for number, state in states.items():
            positions[number] = state.row, state.column
            own[number] = -1 if state.label is None else state.label
            there[number] = state.present
        ids = np.flatnonzero(there)
        return ColumnsOf(ids, positions[ids], own[ids])

    def progress(self, image: int, expert: Expert) -> tuple[int, int]:
        """Return how many columns of an image an expert voted on, and how many there are in these eyes.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            Whose.
        """
        states = self._states(image, expert.id)
        found = len(self._positions(image))
        gone = sum(not state.present for number, state in states.items() if number < found)
        added = sum(state.present for number, state in states.items() if number >= found)
        voted = sum(state.present and state.label is not None for state in states.values())
        return voted, found - gone + added

    def order(self, image: int, expert: Expert) -> NDArray[np.int64]:
        """Return the columns of an image in the order in which an expert works on them.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            Whose order; it is the same at all times, and at random another one for each.

        Returns
        -------
        ndarray of int64, shape (N,)
            Numbers of the columns; those he added come last.
        """
        info = self.image(image)
        seed = hashlib.sha256(f"{info.sha256} {expert.id} {expert.name}".encode()).digest()
        ordered = np.random.default_rng(list(seed)).permutation(info.columns)
        if info.order == "uncertain":
            with self._damage("entropies"):
                entropy = np.array([row[0] for row in self._database.read(_ENTROPY, (image,))], np.float64)
            ordered = ordered[np.argsort(-entropy[ordered], kind="stable")]
        ids = self.columns(image, expert).ids
        return np.concatenate([ordered[np.isin(ordered, ids)], ids[ids >= info.columns]])

    def cast(self, image: int, expert: Expert, client: str, sequence: int, items: Sequence[Item]) -> Receipt:
        """Do what an expert asks for: all of it, in this order, once.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            Who asks.
        client : str
            Name of the page that sends it, another one for each that is open.
        sequence : int
            Number of the request among those of this client, from 1.
        items : sequence of Vote, Undo, Add, Move or Delete
            What to do.  What does not fit, such as a vote on a column deleted before, is refused by itself.

        Returns
        -------
        Receipt
            The same again where the request was done before.

        Raises
        ------
        OutOfOrder
            If the client has not sent the one before it yet.
        Refused
            If the client sent something else under this number, voting has ended, or a chair asks.
        ValueError, TypeError
            If an argument is not a possible one.
        Missing
            If there is no such image.
        """
        check_request(client, sequence, items)
        if expert.role != "expert":
            raise Refused(f"expert: expected somebody who votes, got {expert.name}, the chair, who decides")
        info = self.image(image)
        logger.debug("%s: request %d, %d actions on %s", expert.name, sequence, len(items), info.name)
        content = _sha256(repr((image, [(type(item).__name__, *item) for item in items])))
        with self._damage("actions"), self._database.transaction() as connection:
            same = (expert.id, client, sequence)
            known = connection.execute(_REQUEST, same).fetchone()
            if known is not None:
                if known[0] != content:
                    raise Refused(
                        f"sequence: this client sent something else as {sequence}, take another name for each open page"
                    )
                return Receipt(sequence, tuple(json.loads(known[1])))
            (last,) = connection.execute(_LAST_REQUEST, same[:2]).fetchone()
            if sequence != last + 1:
                raise OutOfOrder(last + 1, sequence)
            if connection.execute("SELECT 1 FROM round WHERE image = ?", (image,)).fetchone():
                raise Refused(f"image: voting on {info.name} has ended")
            (request,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM request").fetchone()
            shape = (info.height, info.width)
            ballot = Ballot(connection, request, expert.id, image, shape, self._positions(image))
            results = [ballot.do(number, item) for number, item in enumerate(items)]
            connection.execute(
                "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?)", (request, *same, content, _json(results), _now())
            )
        return Receipt(sequence, tuple(results))

    def next_sequence(self, expert: Expert, client: str) -> int:
        """Return the number that the next request of a client has to have.

        Parameters
        ----------
        expert : Expert
            Who sends it.
        client : str
            Name of the page.
        """
        return int(self._database.read(_LAST_REQUEST, (expert.id, client))[0][0]) + 1

    def next_column(self, image: int, expert: Expert) -> int:
        """Return the number of the next column that an expert adds.

        Parameters
        ----------
        image : int
            Number of the image.
        expert : Expert
            Who adds it.
        """
        (last,) = self._database.read(LAST_COLUMN, (expert.id, image))[0]
        return max(int(last) + 1, len(self._positions(image)))

    def vote_table(self, image: int) -> VoteTable:
        """Return the votes that count: the last of every expert on every column, unless withdrawn; the chair has none.

        Columns that experts added are numbered from N on, in the order in which they came: those that several experts
        added less than `SAME_COLUMN` apart are one.

        Parameters
        ----------
        image : int
            Number of the image.

        Returns
        -------
        VoteTable
        """
        votes = [
            (place.column, expert, place.label)
            for expert, places in self._places(image).items()
            for place in places
            if place.present and place.label is not None
        ]
        table = np.array(sorted(votes), np.int64).reshape(-1, 3)
        return VoteTable(table[:, 0], table[:, 1], table[:, 2].astype(np.int8))

    def positions(self, image: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return where the columns of the table of votes are, and whether they are columns to most who touched them.

        Parameters
        ----------
        image : int
            Number of the image.

        Returns
        -------
        positions : ndarray of float64, shape (N + A, 2)
            Row and column, px: as found, or the median over those who moved or added it.
        there : ndarray of bool, shape (N + A,)
            False where more experts deleted a column than voted on it, or all who added it took it back.
        """
        found = self._positions(image)
        n = len(found)
        places = [place for each in self._places(image).values() for place in each]
        count = n + len(self._database.read(_ADDED, (image,)))
        score = np.zeros(count, np.int64)
        moved: dict[int, list[tuple[float, float]]] = {}
        for place in places:
            added = place.column >= n
            if place.present and (added or (place.row, place.col) != tuple(found[place.column])):
                moved.setdefault(place.column, []).append((place.row, place.col))
            if place.present:
                score[place.column] += added or place.label is not None
            elif not added:
                score[place.column] -= 1
        positions = np.full((count, 2), np.nan)
        positions[:n] = found
        for column, where in moved.items():
            positions[column] = np.median(where, axis=0)
        return positions, np.where(np.arange(count) < n, score >= 0, score > 0)

    def labels(self, image: int, rule: Rule = majority) -> dict[str, NDArray[Any]]:
        """Return the columns with the labels that a rule makes of the votes, or the chair decided.

        Parameters
        ----------
        image : int
            Number of the image.
        rule : callable
            `contextem.labels.consensus.majority`, `unanimity`, `dawid_skene`, or one of them with other arguments.

        Returns
        -------
        dict of str to ndarray, shape (N,)
            "number" as in the table of votes; "row" and "column", px; "class", empty without one; of each class, by its
            name, the share of the votes; "votes" for classes; "agreement", the share of the class that most voted for,
            NaN without votes; "status": "agreed", "disputed", "unlabelled", or "decided" by the chair, whose classes
            have a share of 1.
        """
        positions, there = self.positions(image)
        outcome = rule(self.vote_table(image), np.arange(len(positions)))
        label, shares, status = outcome.label.copy(), outcome.shares.copy(), outcome.status.astype("<U10")
        agreement = np.where(outcome.votes > 0, shares.max(axis=1, initial=0.0), np.nan)
        for column, decided in self.decisions(image).items():
            label[column], status[column] = decided, "decided"
            shares[column] = np.arange(len(CLASSES)) == decided
        names = np.array([*CLASSES, ""])
        table: dict[str, NDArray[Any]] = {
            "number": np.arange(len(positions)),
            "row": positions[:, 0],
            "column": positions[:, 1],
            "class": names[label],
            **dict(zip(CLASSES, shares.T, strict=True)),
            "votes": outcome.votes,
            "agreement": agreement,
            "status": status,
        }
        return {name: values[there] for name, values in table.items()}

    def export(
        self, image: int, path: str | os.PathLike[str], rule: Rule = majority, *, overwrite: bool = True
    ) -> None:
        """Write `labels` as text, without their numbers.

        Parameters
        ----------
        image : int
            Number of the image.
        path : path-like
            The file.
        rule : callable
            As for `labels`.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        FileExistsError
            If the file exists and may not be replaced.
        """
        with whole_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(labels_text(self.labels(image, rule)), encoding="utf-8", newline="")

    def decide(self, image: int, chair: Expert, column: int, label: int | None) -> None:
        """Decide the class of a column, whatever the votes are.

        Parameters
        ----------
        image : int
            Number of the image.
        chair : Expert
            Who decides.
        column : int
            Number of the column in the table of votes.
        label : int or None
            Index into `CLASSES`, or None to leave it to the votes.

        Raises
        ------
        ValueError
            If the expert is no chair, or column or label is not a possible one.
        """
        if chair.role != "chair":
            raise ValueError(f"chair: expected a chair, got {chair.name}, an {chair.role}")
        if label is not None and not 0 <= label < len(CLASSES):
            raise ValueError(f"label: expected 0 to {len(CLASSES) - 1}, or none, got {label}")
        if not 0 <= column < len(self.positions(image)[0]):
            raise ValueError(f"column: expected the number of a column, got {column}")
        with self._database.transaction() as connection:
            decision = (image, column, label, chair.id, _now())
            connection.execute("INSERT INTO decision VALUES (NULL, ?, ?, ?, ?, ?)", decision)

    def decisions(self, image: int) -> dict[int, int]:
        """Return the classes that the chair decided, by column in the table of votes.

        Parameters
        ----------
        image : int
            Number of the image.
        """
        rows = self._database.read("SELECT column, class FROM decision WHERE image = ? ORDER BY id", (image,))
        with self._damage("decisions"):
            count = self.image(image).columns + len(self._database.read(_ADDED, (image,)))
            known = (None, *range(len(CLASSES)))
            if not all(isinstance(column, int) and 0 <= column < count and label in known for column, label in rows):
                raise ValueError("columns or classes that are not there")
        return {column: label for column, label in dict(rows).items() if label is not None}

    def close_round(self, image: int, settings: dict[str, Any] | None = None) -> None:
        """End the voting on an image.

        Parameters
        ----------
        image : int
            Number of the image.
        settings : dict, optional
            By which rule the votes are counted; kept with the votes.

        Raises
        ------
        Refused
            If it has ended before.
        """
        info = self.image(image)
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM round WHERE image = ?", (image,)).fetchone():
                raise Refused(f"image: voting on {info.name} has ended already")
            connection.execute("INSERT INTO round VALUES (NULL, ?, ?, ?)", (image, _json(settings or {}), _now()))

    def _places(self, image: int) -> dict[int, list[_Place]]:
        """Return what each expert did to columns, by expert, with the columns as the table of votes numbers them."""
        info = self.image(image)
        radius = SAME_COLUMN / info.sampling
        states = {expert.id: self._states(image, expert.id) for expert in self.experts()}
        shared: dict[tuple[int, int], int] = {}
        first: dict[int, tuple[float, float, set[int]]] = {}
        near: dict[tuple[int, int], list[int]] = {}  # of these, by squares of the radius
        for which, (expert, number) in enumerate(self._database.read(_ADDED, (image,)), info.columns):
            shared[expert, number] = which
            with self._damage("columns that were added"):
                state = states[expert][number]
            if not state.present:
                continue
            i, j = int(state.row // radius), int(state.column // radius)
            for other in sorted(k for di, dj in _AROUND for k in near.get((i + di, j + dj), ())):
                row, column, experts = first[other]
                if expert not in experts and math.hypot(state.row - row, state.column - column) < radius:
                    experts.add(expert)
                    shared[expert, number] = other
                    break
            else:
                first[which] = (state.row, state.column, {expert})
                near.setdefault((i, j), []).append(which)
        with self._damage("columns that were added"):
            touched_ones = [(expert, number) for expert, touched in states.items() for number in touched]
            if any(number >= info.columns and (expert, number) not in shared for expert, number in touched_ones):
                raise ValueError("votes on others")
        return {
            expert: [
                _Place(shared.get((expert, number), number), state.label, state.row, state.column, state.present)
                for number, state in touched.items()
            ]
            for expert, touched in states.items()
        }

    @contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        """Say in one sentence what of a store is not as it was written: it may come from elsewhere."""
        try:
            yield
        except (Missing, Refused):
            raise
        except (LookupError, OverflowError, RecursionError, TypeError, ValueError, *_ODD) as error:
            detail = " ".join(str(error).split())
            raise ValueError(f"{self.path}: expected a store of votes, its {what} cannot be used ({detail})") from error

    def _positions(self, image: int) -> NDArray[np.float64]:
        """Return where the columns were found, (N, 2) px; they never change."""
        if image not in self._found:
            self.image(image)
            rows = self._database.read("SELECT row, col FROM column WHERE image = ? ORDER BY number", (image,))
            with self._damage("positions"):
                found = np.array(rows, np.float64).reshape(-1, 2)
                if not np.isfinite(found).all():
                    raise ValueError("infinite ones")
            self._found[image] = found
        return self._found[image]

    def _states(self, image: int, expert: int) -> dict[int, State]:
        """Return the columns an expert touched, by number."""
        rows = self._database.read(_STATES, (expert, image))
        count = len(self._positions(image)) + len(rows)  # those added are no more than those touched
        with self._damage("votes"):
            if not all(_is_state(count, *row[:5]) for row in rows):
                raise ValueError("columns, classes or places that are not there")
        return {row[0]: State(row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows}


def _is_state(count: int, column: Any, label: Any, row: Any, col: Any, present: Any) -> bool:
    """Whether a row of `action` tells what a column may be, one of so many."""
    return (
        isinstance(column, int)
        and 0 <= column < count
        and (label is None or (isinstance(label, int) and 0 <= label <= UNSURE))
        and isinstance(row, float)
        and isinstance(col, float)
        and math.isfinite(row + col)
        and present in (0, 1)
    )


def fingerprint(micrograph: Micrograph) -> str:
    """Return what tells the pixels of a micrograph from all others: SHA-256 of their shape, type and values.

    Parameters
    ----------
    micrograph : Micrograph
        The image.

    Examples
    --------
    >>> fingerprint(Micrograph(np.eye(64), sampling=0.2))[:8]
    'c07b44c7'
    """
    data = _little_endian(micrograph.data)
    digest = hashlib.sha256(f"{data.shape[0]},{data.shape[1]},{data.dtype.str}".encode())
    digest.update(np.ascontiguousarray(data).data)
    return digest.hexdigest()


def labels_text(labels: dict[str, NDArray[Any]]) -> str:
    """Return a table of labels as text with commas.

    Parameters
    ----------
    labels : dict
        From `VoteStore.labels`.
    """
    names = [name for name in labels if name != "number"]
    formats = {"row": "%.3f", "column": "%.3f", "agreement": "%.5f"} | dict.fromkeys(CLASSES, "%.5f")
    line = ",".join(formats.get(name, "%s") for name in names) + "\n"
    rows = map(line.__mod__, zip(*(labels[name].tolist() for name in names), strict=True))
    return "".join([",".join(names), "\n", *rows]).replace(",nan,", ",,")


class _Place(NamedTuple):
    """What an expert makes of a column of the table of votes."""

    column: int
    label: int | None
    row: float
    col: float
    present: bool


def _little_endian(data: NDArray[Any]) -> NDArray[Any]:
    return data.astype(data.dtype.newbyteorder("<"), copy=False)


def _check_name(argument: str, name: str | None) -> str:
    if name is None or not 0 < len(name) <= 80 or not name.isprintable() or name.strip() != name:
        raise ValueError(f"{argument}: expected 1 to 80 printable characters, got {name!r}; give another {argument}")
    return name


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
