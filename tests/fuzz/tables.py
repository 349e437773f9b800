"""Tables of columns and labels as CSV, and accuracy curves."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contextem.columns import Columns
from contextem.curves import read_curves
from contextem.labels.commands import _read_columns, _table
from fuzz.draw import Broken, expected

INSTRUMENTED = ("contextem.labels.commands", "contextem.columns", "contextem.curves", "csv")

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def target(data: bytes) -> None:
    for name in ("columns.csv", "accuracy.csv"):
        (FOLDER / name).write_bytes(data)
    with expected(ValueError):
        columns, entropy, _ = _read_columns(FOLDER / "columns.csv")
        if not isinstance(columns, Columns) or entropy is not None or not np.isfinite(columns.positions).all():
            raise Broken(f"expected columns, got {columns!r}")
    with expected(ValueError):
        positions, words = _table(FOLDER / "columns.csv", "class")
        if positions.shape != (len(words), 2) or not all(isinstance(word, str) for word in words):
            raise Broken(f"expected a word a position, got {positions!r}, {words!r}")
    with expected(ValueError):
        read_curves(FOLDER)


def seeds() -> Iterator[bytes]:
    yield b"row,column,class\n1.5,2.5,metal\n3,4,X2\n"
    yield b'\xef\xbb\xbfrow,column,class\r\n"1.5",2.5,"a ""quoted""\nword"\r\n'
    yield b"column,row\n1e300,-inf\n"
    yield b"row,column,class,row\n1,2\n1,2,3,4,5\n\n"
    yield b"epoch,train,test\n1,0.5,0.25\n2,0.75,0.5\n"
    yield b"row;column\n1;2\n"
    yield "row,column,class\n\N{ARABIC-INDIC DIGIT ONE},1_0,\N{SNOWMAN}\n".encode()
