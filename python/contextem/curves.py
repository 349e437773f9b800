"""Accuracy curves: what the epochs of a training came to, on its own images and on others."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contextem._bounds import read_text
from contextem._output import whole_file
from contextem.figures import LINES, finished, single, style
from contextem.model import compared_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curves:
    """Accuracy on training and test columns after each epoch."""

    train: list[float]
    test: list[float]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``epoch,train,test``."""
        with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["epoch", "train", "test"])
            for epoch, pair in enumerate(zip(self.train, self.test, strict=True), start=1):
                table.writerow([epoch, *(f"{value:.5f}" for value in pair)])


def read_curves(folder: Path) -> dict[str, Curves]:
    """Return the accuracy curves that training left in the folder of a model; of no model if there are none."""
    curves = {}
    for name, place in compared_folders(folder).items():
        if (place / "accuracy.csv").is_file():
            path = place / "accuracy.csv"
            try:
                rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
                curves[name] = Curves(*([float(row[part]) for row in rows] for part in ("train", "test")))
            except (KeyError, TypeError, csv.Error) as error:
                raise ValueError(f"{path}: expected epoch,train,test with numbers, got other columns") from error
    return curves


def curves_figure(curves: Mapping[str, Curves]) -> Figure:
    """Draw accuracy against epoch."""
    with style():
        figure, axes = single(0.72)
        for (name, curve), colour in zip(curves.items(), LINES, strict=False):
            epochs = np.arange(1, len(curve.test) + 1)
            axes.plot(epochs, 100 * np.asarray(curve.test), color=colour, label=f"{name}, test")
            axes.plot(epochs, 100 * np.asarray(curve.train), color=colour, ls="--", lw=0.9, label=f"{name}, training")
        axes.set(xlabel="epoch", ylabel="accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        return finished(figure)
