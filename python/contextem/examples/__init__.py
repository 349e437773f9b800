"""A packaged micrograph whose truth is known: Cr-doped WSe2, simulated, with vacancies and contamination."""

from __future__ import annotations

import csv
import json
from importlib.resources import as_file, files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem.columns import CLASSES
from contextem.context import Context
from contextem.micrograph import Micrograph, read


class Example(NamedTuple):
    """A micrograph with its context and its truth.

    Attributes
    ----------
    micrograph : Micrograph
        The image.
    context : Context
        Host, dopant, energy and detector.
    positions : (N, 2) float64
        True (row, column) of every column, px.
    labels : (N,) int64
        Its class, an index into `contextem.columns.CLASSES`.
    """

    micrograph: Micrograph
    context: Context
    positions: NDArray[np.float64]
    labels: NDArray[np.int64]


def demo_micrograph() -> Example:
    """Return the micrograph that ``contextem demo`` classifies; no model was trained on it.

    Examples
    --------
    >>> demo_micrograph().context.host
    'WSe2'
    """
    with as_file(files("contextem") / "examples") as folder:
        context = Context.from_dict(json.loads((folder / "demo.json").read_text(encoding="utf-8")))
        micrograph = read(folder / "demo.tif", energy=context.energy, detector=context.detector)
        with (folder / "demo.columns.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    positions = np.array([(row["row"], row["column"]) for row in rows], dtype=np.float64)
    labels = np.array([CLASSES.index(row["class"]) for row in rows])
    return Example(micrograph, context, positions, labels)
