"""What experts do to columns, and how it is written down.

A row of the table `action` is what an expert did to a column, with the class and the place that the column has since
then in the eyes of this expert, and the row whose state it replaces.  The state that counts is that of the last row;
before the first, it is that of the column as it was found.  Undoing adds rows, too, with the state that the undone ones
replaced::

    state(expert, column) = last row of `action`, or of `column`

Experts know columns by numbers of their own: those found are 0 .. N - 1 for all, and those an expert adds follow from
N on in their order, so that no number tells what others did.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem.labels.consensus import UNSURE

_LARGEST = 1 << 53  # the numbers below are exact in a browser
LAST_COLUMN = "SELECT coalesce(max(column), -1) FROM action WHERE expert = ? AND image = ?"
_ITEM = "SELECT id, column, kind, replaces FROM action WHERE request = ? AND item = ? ORDER BY id"
_LAST_ACTION = (
    "SELECT request, item FROM action a WHERE expert = ? AND image = ? AND kind <> 'undo'"
    " AND NOT EXISTS (SELECT 1 FROM action u WHERE u.undoes = a.id) ORDER BY id DESC LIMIT 1"
)
_STATES = "SELECT class, row, col, present, id FROM action"
_STATE = f"{_STATES} WHERE expert = ? AND image = ? AND column = ? ORDER BY id DESC LIMIT 1"


class Undo(NamedTuple):
    """Undo the last action of the expert on the image that is not undone yet."""


class Vote(NamedTuple):
    """Vote on columns, as one action.

    Attributes
    ----------
    columns : tuple of int
        Numbers of the columns.
    label : int or None
        Index into `CLASSES`, `UNSURE`, or None to withdraw one's vote.
    """

    columns: tuple[int, ...]
    label: int | None


class Add(NamedTuple):
    """Add a column that was not found.

    Attributes
    ----------
    row, column : float
        Its position, px.
    """

    row: float
    column: float


class Move(NamedTuple):
    """Move a column.

    Attributes
    ----------
    number : int
        Number of the column.
    row, column : float
        Where to, px.
    """

    number: int
    row: float
    column: float


class Delete(NamedTuple):
    """Delete columns, as one action: where they are, is none.

    Attributes
    ----------
    columns : tuple of int
        Numbers of the columns.
    """

    columns: tuple[int, ...]


Item = Undo | Vote | Add | Move | Delete


class State(NamedTuple):
    """A column in the eyes of an expert.

    Attributes
    ----------
    label : int or None
        The vote: an index into `CLASSES`, or `UNSURE`.
    row, column : float
        Position, px.
    present : bool
        Whether it is one, and not deleted.
    made_by : int or None
        Row of `action` that made it so; None for a column as it was found.
    """

    label: int | None
    row: float
    column: float
    present: bool
    made_by: int | None


class Ballot:
    """What one request writes.

    Parameters
    ----------
    connection : sqlite3.Connection
        Inside a transaction.
    request, expert, image : int
        Their numbers in the store.
    shape : (int, int)
        Of the image, px.
    found : ndarray, shape (N, 2)
        Where columns were found, px.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        request: int,
        expert: int,
        image: int,
        shape: tuple[int, int],
        found: NDArray[np.float64],
    ) -> None:
        self.connection = connection
        self.request = request
        self.expert = expert
        self.image = image
        self.shape = shape
        self.found = found

    def do(self, number: int, item: Item) -> dict[str, Any]:
        """Do one item; return what was done, or ``{"refused": why}``.

        Parameters
        ----------
        number : int
            Of the item in its request.
        item : Vote, Undo, Add, Move or Delete
            What to do.
        """
        if isinstance(item, Undo):
            return self._undo(number)
        if isinstance(item, Add | Move) and not self._inside(item.row, item.column):
            return {"refused": f"position: expected one inside the image, got row {item.row:g}, column {item.column:g}"}
        if isinstance(item, Add):
            (last,) = self.connection.execute(LAST_COLUMN, (self.expert, self.image)).fetchone()
            column = max(last + 1, len(self.found))
            self._write(number, "add", [(column, State(None, item.row, item.column, True, None))])
            return {"do": "add", "column": column}
        numbers = (item.number,) if isinstance(item, Move) else item.columns
        states = {column: self._state(column) for column in numbers}
        for column, state in states.items():
            if state is None or not state.present:
                return {"refused": f"column: expected the number of a column that is there, got {column}"}
        here = {column: state for column, state in states.items() if state is not None}
        if isinstance(item, Vote):
            after = [(column, state._replace(label=item.label)) for column, state in here.items()]
        elif isinstance(item, Move):
            after = [(column, state._replace(row=item.row, column=item.column)) for column, state in here.items()]
        else:
            after = [(column, state._replace(present=False)) for column, state in here.items()]
        kind = type(item).__name__.lower()
        self._write(number, kind, after)
        return {"do": kind, "columns": len(after)}

    def _undo(self, number: int) -> dict[str, Any]:
        last = self.connection.execute(_LAST_ACTION, (self.expert, self.image)).fetchone()
        if last is None:
            return {"refused": "undo: there is nothing to undo"}
        undone = self.connection.execute(_ITEM, last).fetchall()
        before, changed = [], []
        for made_by, column, _, replaced in undone:
            state = self._found_state(column) if replaced is None else self._row_state(replaced)
            if state is None:  # it was added
                state = self._row_state(made_by)._replace(present=False)
            now = self._state(column)
            before.append((column, state._replace(made_by=now.made_by if now else None)))
            changed.append([column, -1 if state.label is None else state.label, *state[1:4]])
        self._write(number, "undo", before, undoes=[row[0] for row in undone])
        return {"do": "undo", "undone": undone[0][2], "changed": changed}

    def _write(
        self, item: int, kind: str, after: list[tuple[int, State]], undoes: Sequence[int | None] | None = None
    ) -> None:
        same = (self.request, item, self.expert, self.image)
        undone = undoes or [None] * len(after)
        self.connection.executemany(
            "INSERT INTO action VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (*same, column, kind, state.label, state.row, state.column, int(state.present), state.made_by, row)
                for (column, state), row in zip(after, undone, strict=True)
            ),
        )

    def _state(self, column: int) -> State | None:
        """Return the state of a column; None where there never was one."""
        row = self.connection.execute(_STATE, (self.expert, self.image, column)).fetchone()
        return self._found_state(column) if row is None else _state(*row)

    def _found_state(self, column: int) -> State | None:
        if not 0 <= column < len(self.found):
            return None
        row, col = self.found[column].tolist()
        return State(None, row, col, True, None)

    def _row_state(self, made_by: int) -> State:
        return _state(*self.connection.execute(f"{_STATES} WHERE id = ?", (made_by,)).fetchone())

    def _inside(self, row: float, column: float) -> bool:
        return -0.5 <= row <= self.shape[0] - 0.5 and -0.5 <= column <= self.shape[1] - 0.5


def check_request(client: str, sequence: int, items: Sequence[Item]) -> None:
    """Raise ValueError or TypeError unless a request is a possible one, see `contextem.labels.votes.VoteStore.cast`."""
    if not isinstance(client, str) or not re.fullmatch(r"[\x21-\x7e]{1,64}", client):
        raise ValueError(f"client: expected a name of 1 to 64 letters and digits, got {str(client)[:80]!r}")
    if not _is_index(sequence, _LARGEST) or sequence < 1:
        raise ValueError(f"sequence: expected a number from 1, got {sequence!r}")
    if not items:
        raise ValueError("items: expected at least one, got none")
    for item in items:
        if not isinstance(item, Item):
            raise TypeError(f"items: expected Vote, Undo, Add, Move or Delete, got {type(item).__name__}")
        if isinstance(item, Vote) and item.label is not None and not _is_index(item.label, UNSURE + 1):
            raise ValueError(f"class: expected 0 to {UNSURE}, or none to withdraw a vote, got {item.label!r}")
        if isinstance(item, Vote | Delete) and not 0 < len(set(item.columns)) == len(item.columns):
            raise ValueError("columns: expected at least one, each once, got none or some twice")
        numbers = item.columns if isinstance(item, Vote | Delete) else (item.number,) if isinstance(item, Move) else ()
        if not all(_is_index(number, _LARGEST) for number in numbers):
            raise ValueError("column: expected the numbers of columns, got something else")
        if isinstance(item, Add | Move) and not (math.isfinite(item.row) and math.isfinite(item.column)):
            raise ValueError(f"position: expected finite numbers, got row {item.row}, column {item.column}")


def _is_index(value: Any, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _state(label: int | None, row: float, column: float, present: int, made_by: int) -> State:
    return State(label, row, column, bool(present), made_by)
