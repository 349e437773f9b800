"""Why context: two materials that look alike, classified with the right context, with each other's, and with none.

    python -m contextem.examples.figure1 -o FOLDER

WTe2 and NbSe2 at 80 keV, the same sites on both, on an annular detector of 55 to 130 mrad: there X2 columns are 1.7 and
1.9 times as bright as the metal.  Only the context says how bright a dopant is in one and in the other, and that the
brighter sublattice is not the metal, as it is in other hosts.  The classifier is that of the paper, which sees each
column alone; one that sees the neighbours too makes up for most of what it is not told.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from contextem._output import whole_file
from contextem.classification import Classification
from contextem.columns import CLASSES, Columns
from contextem.context import Context
from contextem.figures import WIDTH, style
from contextem.micrograph import Detector
from contextem.model import Model, load_model
from contextem.pipeline import classify
from contextem.remarks import ContextWarning
from contextem.simulate.conditions import REFERENCE
from contextem.simulate.dataset import SimulatedMicrograph, column_groups, draw_scan, record
from contextem.simulate.render import MARGIN, superpose
from contextem.simulate.structures import METAL, X2, Monolayer, doped_monolayer, host_of
from contextem.views import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATERIALS = (("WTe2", "Ti"), ("NbSe2", "Cu"))
"""Hosts with their dopants."""
ENERGY = 80e3
DETECTOR = Detector("MAADF", 55.0, 130.0)
CONDITIONS = {
    "dose": 1000.0,
    "source_size": 0.45,
    "defocus": 30.0,
    "strain": 0.0,
    "jitter": 0.0,
    "drift": 0.0,
    "haze": 0.02,
    "readout": 0.3,
}
"""Of both micrographs; the sampling makes the lattice constant `PIXELS_PER_CELL` px."""
PIXELS_PER_CELL = 12.0
CELLS = 13
"""Side of the image, in lattice constants."""
WAYS = ("its own context", "the other's context", "no context")


@dataclass(frozen=True)
class Pair:
    """Both micrographs, and what became of them.

    Attributes
    ----------
    micrographs : tuple of SimulatedMicrograph
        In the order of `MATERIALS`.
    contrast : tuple of float
        Peak of an X2 column over that of a metal column.
    classified : tuple of dict of str to Classification
        By `WAYS`.
    """

    micrographs: tuple[SimulatedMicrograph, ...]
    contrast: tuple[float, ...]
    classified: tuple[dict[str, Classification], ...]

    @property
    def accuracy(self) -> tuple[dict[str, float], ...]:
        """Share of the columns classified right, border columns left out."""
        return tuple(
            {way: float((result.labels == m.labels)[result.complete].mean()) for way, result in results.items()}
            for m, results in zip(self.micrographs, self.classified, strict=True)
        )


def compare(seed: int = 0, *, model: Model | None = None, without: Model | None = None) -> Pair:
    """Simulate and classify both materials.

    Parameters
    ----------
    seed : int
        Of sites, defects and noise.
    model, without : Model, optional
        With and without context; by default the packaged ones that look at a column alone, as in the paper.

    Returns
    -------
    Pair

    Examples
    --------
    >>> own, other = (compare().accuracy[1][way] for way in ("its own context", "the other's context"))
    >>> own > other
    True
    """
    model = load_model("paper") if model is None else model
    without = load_model("paper_without_context") if without is None else without
    contexts = [Context(host, dopant, ENERGY, DETECTOR) for host, dopant in MATERIALS]
    micrographs, contrast, classified = [], [], []
    for (host, dopant), own, other in zip(MATERIALS, contexts, contexts[::-1], strict=True):
        simulated, ratio = _simulate(host, dopant, seed)
        columns = Columns(simulated.columns.positions)
        micrographs.append(simulated)
        contrast.append(ratio)
        with warnings.catch_warnings():
            # that the image does not look like the other material is what is to be shown
            warnings.simplefilter("ignore", ContextWarning)
            classified.append(
                {
                    way: classify(simulated.micrograph, context, columns=columns, model=each)
                    for way, context, each in zip(WAYS, (own, other, own), (model, model, without), strict=True)
                }
            )
    return Pair(tuple(micrographs), tuple(contrast), tuple(classified))


def _simulate(host: str, dopant: str, seed: int) -> tuple[SimulatedMicrograph, float]:
    """Micrograph of a material on sites that are the same for each, in units of its lattice constant; X2 over metal."""
    a = host_of(host).lattice_constant
    pixels, sampling = round(CELLS * PIXELS_PER_CELL), a / PIXELS_PER_CELL
    given = CONDITIONS | {"sampling": sampling}
    scan = draw_scan(host, dopant, ENERGY, DETECTOR, seed, size=pixels * sampling, ranges=REFERENCE, given=given)
    rng = np.random.default_rng(seed)
    outside = MARGIN / 3.4
    turn = np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    unit = doped_monolayer(1.0, (-outside,) * 2, (CELLS + outside,) * 2, rng, transform=turn, disorder=0.01)
    layer = Monolayer(a * unit.sites, a * unit.displacements, unit.labels, unit.upper)
    groups = column_groups(
        layer,
        host,
        dopant,
        ENERGY,
        DETECTOR,
        source_size=CONDITIONS["source_size"],
        aberrations=scan.aberrations,
    )
    image = superpose(groups, (pixels, pixels), sampling, scan.probe_offsets)
    metal, _, pair = (float(group.response.radial(0.0, group.blur)) for group in groups[:3])
    return record(replace(scan, rng=rng), image, layer.sites, layer.labels, layer=layer), pair / metal


def draw(pair: Pair) -> Figure:
    """Draw both micrographs and the three classifications of each.

    Parameters
    ----------
    pair : Pair
        Of `compare`.

    Returns
    -------
    matplotlib.figure.Figure
        One column of a journal wide; wrongly classified columns are ringed.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    with style():
        tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0.01, wspace=0.02)
        figure = Figure(figsize=(WIDTH, 2.3 * WIDTH), layout=tight)
        panels = figure.subplots(1 + len(WAYS), len(MATERIALS))
        for j, ((host, dopant), simulated, results) in enumerate(
            zip(MATERIALS, pair.micrographs, pair.classified, strict=True)
        ):
            accuracy = pair.accuracy[j]
            for i, axes in enumerate(panels[:, j]):
                _image(axes, simulated, faint=i > 0)
                if i == 0:
                    axes.set_title(f"{dopant}-doped {_subscripts(host)}", fontsize=8, pad=3)
                    axes.set_xlabel(f"X$_2$/M = {pair.contrast[j]:.2f}", labelpad=2, fontsize=7.5)
                    _scale_bar(axes, simulated)
                else:
                    _classes(axes, simulated, results[WAYS[i - 1]])
                    axes.set_xlabel(f"{100 * accuracy[WAYS[i - 1]]:.1f} % right", labelpad=2, fontsize=7.5)
                if j == 0:
                    axes.set_ylabel("image" if i == 0 else WAYS[i - 1], labelpad=3)
        handles = [
            Line2D([], [], ls="none", marker=marker, color=colour, ms=4.5, label=name.replace("_", " "))
            for name, colour, marker in zip(CLASSES, COLOURS, MARKERS, strict=True)
        ]
        handles.append(Line2D([], [], ls="none", marker="o", mfc="none", mec=WRONG, mew=1.0, ms=7, label="wrong"))
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=3,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
        )
        return figure


WRONG = "#FF0000"


def _image(axes: Any, simulated: SimulatedMicrograph, *, faint: bool) -> None:
    data: NDArray[np.float32] = simulated.micrograph.data
    low, high = np.percentile(data, (0.5, 99.8))
    # a classification is easier to read on a pale image
    axes.imshow(data, cmap="gray", vmin=low, vmax=high, interpolation="nearest", alpha=0.45 if faint else 1.0)
    border = PIXELS_PER_CELL
    last = len(data) - 1 - border
    axes.set(xlim=(border, last), ylim=(last, border), xticks=[], yticks=[])
    axes.spines[:].set_linewidth(0.4)


def _classes(axes: Any, simulated: SimulatedMicrograph, result: Classification) -> None:
    wrong = result.labels != simulated.labels
    for index, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
        row, column = result.positions[result.complete & (result.labels == index)].T
        size = 2.2 if index in (METAL, X2) else 3.0
        axes.plot(column, row, ls="none", marker=marker, color=colour, ms=size, mew=0)
    row, column = result.positions[result.complete & wrong].T
    axes.plot(column, row, ls="none", marker="o", mfc="none", mec=WRONG, mew=0.6, ms=4.6)


def _scale_bar(axes: Any, simulated: SimulatedMicrograph) -> None:
    length = 10.0 / simulated.micrograph.sampling
    left, row = PIXELS_PER_CELL + 7.0, len(simulated.micrograph.data) - PIXELS_PER_CELL - 9.0
    axes.plot((left, left + length), (row, row), color="white", lw=2.0, solid_capstyle="butt")
    axes.text(left + length / 2, row - 3.0, "1 nm", color="white", ha="center", va="bottom", fontsize=7)


def _subscripts(formula: str) -> str:
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


@click.command()
@click.option("--seed", type=int, default=0, show_default=True, help="Of sites, defects and noise.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for figure1.png, figure1.pdf and figure1.json.",
)
def main(seed: int, output: Path) -> None:
    """Draw figure 1: two materials that look alike, with and without context."""
    pair = compare(seed)
    figure = draw(pair)
    for name in ("figure1.png", "figure1.pdf"):
        with whole_file(output / name) as temporary, style():
            figure.savefig(temporary, dpi=400)
    facts = {
        f"{host}:{dopant}": {"X2/M": pair.contrast[j], "columns": int(first.complete.sum()), **pair.accuracy[j]}
        for j, (host, dopant) in enumerate(MATERIALS)
        for first in [pair.classified[j][WAYS[0]]]
    }
    with whole_file(output / "figure1.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for material, numbers in facts.items():
        click.echo(f"{material}: " + ", ".join(f"{way} {100 * numbers[way]:.1f} %" for way in WAYS))
    click.echo(f"wrote {output / 'figure1.png'}")


if __name__ == "__main__":
    main()
