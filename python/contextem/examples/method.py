"""Figures of the method page: each drawn from the package's own functions, on simulated micrographs.

    python -m contextem.examples.method -o FOLDER

stages, polynomials, reconstruction, rotation, noise and brightness; `FIGURES` has the function that draws each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from contextem import reference
from contextem._output import whole_file
from contextem.columns import CLASSES
from contextem.context import HOSTS
from contextem.contrast import contrast_blocks, contrast_features
from contextem.figures import DASHES, GREY_LEVELS, LINES, WIDTH, plain, style
from contextem.intensities import expected_intensities
from contextem.micrograph import Detector
from contextem.moments import column_moments, patch_moments
from contextem.neighbours import neighbourhood
from contextem.patches import extract_patches
from contextem.views import COLOURS, MARKERS
from contextem.zernike import MODES, ZernikeBasis, reconstruct, rotation_invariants

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from contextem.simulate.dataset import SimulatedMicrograph

WIDE = 2.0 * WIDTH
"""Of a figure across two columns of a journal, inches."""
DEGREES = (2, 4, 6, 8, 10, 14)
"""Highest degrees that a patch is reconstructed with."""
DOSES = (400.0, 1000.0, 3000.0, 20000.0)
"""Electrons a pixel."""
SIZES = (16, 20, 23, 28, 32, 40, 47)
"""Samples along a patch."""
N_MAX, SIZE = 10, 32
"""Of the packaged model."""
LINE_COLOUR = "#333333"


@cache
def _simulated(dose: float) -> SimulatedMicrograph:
    """Cr-doped WSe2 at 80 keV, HAADF: the same layer whatever the dose, e/px."""
    from contextem.simulate.conditions import REFERENCE
    from contextem.simulate.dataset import simulate_micrograph

    given = {"sampling": 0.2, "source_size": 0.35, "defocus": 10.0, "jitter": 0.0, "drift": 0.0, "haze": 0.01}
    defects = {"dopant_fraction": 0.15, "vacancy_fraction": 0.3, "readout": 0.0}
    return simulate_micrograph(
        "WSe2",
        "Cr",
        80e3,
        Detector("HAADF", 70, 200),
        seed=1,
        size=56.0,
        ranges=REFERENCE,
        dose=dose,
        **given,
        **defects,
    )


def _step(simulated: SimulatedMicrograph, size: int = SIZE) -> float:
    """Image pixels from one sample of a patch of radius a to the next."""
    return 2.0 * simulated.context.lattice_constant / simulated.micrograph.sampling / size


def _inside(simulated: SimulatedMicrograph) -> NDArray[np.bool_]:
    """Which columns (N,) have their patch, and any that is turned, in the image."""
    reach = 1.5 * simulated.context.lattice_constant / simulated.micrograph.sampling
    positions = simulated.columns.positions
    return np.asarray(((positions > reach) & (positions < len(simulated.micrograph.data) - 1 - reach)).all(axis=1))


def _noise_free(simulated: SimulatedMicrograph) -> NDArray[np.float64]:
    """Fraction of the beam at each pixel (H, W)."""
    assert simulated.scene is not None
    return np.asarray(simulated.scene.image, np.float64)


def _one_of_each(simulated: SimulatedMicrograph) -> NDArray[np.float64]:
    """Position (5, 2) of the first inner column of each class."""
    inside = _inside(simulated)
    first = [np.flatnonzero(inside & (simulated.labels == index))[0] for index in range(len(CLASSES))]
    return np.asarray(simulated.columns.positions[first])


def _disk(size: int) -> NDArray[np.float64]:
    """Distance (P, P) of each sample from the middle of the patch, in units of its radius."""
    samples = (np.arange(size) - (size - 1) / 2) * 2.0 / size
    return np.hypot(samples[:, None], samples)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _name(index: int) -> str:
    return CLASSES[index].replace("_", " ")


def _bare(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_stages() -> Figure:
    """Draw what becomes of the packaged micrograph on its way: image, columns, patch, moments, classification."""
    from contextem.examples import demo_micrograph
    from contextem.pipeline import classify

    example = demo_micrograph()
    result = classify(example.micrograph, example.context)
    image, scale = example.micrograph.as_float(), 2.0 * result.lattice_constant / result.sampling / SIZE
    low, high = np.percentile(image, GREY_LEVELS)
    window = np.array([(60.0, 60.0), (190.0, 190.0)])  # rows, columns; first and last
    middle = window.mean(axis=0)
    defects = np.flatnonzero(result.labels == CLASSES.index("single_vacancy"))
    chosen = defects[np.argmin(np.linalg.norm(result.positions[defects] - middle, axis=1))]
    window += result.positions[chosen] - middle
    basis = ZernikeBasis(N_MAX, SIZE)
    patch = extract_patches(image, result.positions[[chosen]], SIZE, scale=scale)
    invariants = rotation_invariants(patch_moments(patch, basis), basis)[0]

    figure = _figure(WIDE, 0.29 * WIDE)
    panels = figure.subplots(1, 5)
    titles = ("micrograph", "columns", "patch", "invariants", "classes")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=8)
        _bare(axes)
    crops = (panels[0], panels[1], panels[4])
    for axes in crops:
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, alpha=1.0 if axes is panels[0] else 0.55)
        axes.set(xlim=(window[0, 1], window[1, 1]), ylim=(window[1, 0], window[0, 0]))
    row, column = result.positions.T
    near = np.all((result.positions > window[0]) & (result.positions < window[1]), axis=1)
    panels[1].plot(column[near], row[near], "+", color="#D55E00", ms=4, mew=0.7)
    radius = result.lattice_constant / result.sampling
    turn = np.linspace(0.0, 2.0 * np.pi, 90)
    for axes in crops[1:]:
        axes.plot(column[chosen] + radius * np.cos(turn), row[chosen] + radius * np.sin(turn), color="white", lw=1.2)
    for index, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
        own = near & (result.labels == index)
        size, edge = (3.0, "none") if index in (0, 2) else (4.5, "black")
        panels[4].plot(column[own], row[own], marker, color=colour, ms=size, mec=edge, mew=0.4, label=_name(index))
    panels[2].imshow(np.where(_disk(SIZE) <= 1.0, patch[0], np.nan), cmap="gray", vmin=low, vmax=high)
    panels[3].barh(np.arange(1, len(invariants)), invariants[1:], color=LINE_COLOUR, height=0.7)
    panels[3].axvline(0.0, color=LINE_COLOUR, lw=0.4)
    panels[3].invert_yaxis()
    panels[3].set_box_aspect(1)
    figure.legend(*panels[4].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_polynomials(n_max: int = 5) -> Figure:
    """Draw the Zernike polynomials up to a degree: n downwards, m from left to right."""
    samples = np.linspace(-1.0, 1.0, 121)
    y, x = np.meshgrid(samples, samples, indexing="ij")
    values = reference.zernike(n_max, x, y)
    values[:, np.hypot(x, y) > 1.0] = np.nan
    figure = _figure(WIDE, WIDE * (n_max + 1) / (2 * n_max + 2) * 1.12)
    grid = figure.add_gridspec(n_max + 1, 2 * (n_max + 1))
    for z, n, m in zip(values, *reference.zernike_indices(n_max), strict=True):
        place = n_max + m
        axes = figure.add_subplot(grid[n, place : place + 2])
        highest = np.sqrt(2.0 * (n + 1))
        axes.imshow(z, cmap="RdBu_r", vmin=-highest, vmax=highest, extent=(-1, 1, 1, -1))
        axes.add_patch(_circle())
        axes.set_title(f"$Z_{{{n}}}^{{{m}}}$", fontsize=8, pad=4)
        _bare(axes)
    return figure


def _circle() -> Any:
    from matplotlib.patches import Circle

    return Circle((0.0, 0.0), 1.0, fill=False, lw=0.4, color=LINE_COLOUR)


def draw_reconstruction() -> Figure:
    """Draw a noise-free patch of each class and what moments up to some degrees hold of it."""
    simulated = _simulated(DOSES[-1])
    image, positions = _noise_free(simulated), _one_of_each(simulated)
    patches = extract_patches(image, positions, SIZE, scale=_step(simulated))
    inside = _disk(SIZE) <= 1.0
    figure = _figure(WIDE, 0.82 * WIDE)
    panels = figure.subplots(len(CLASSES), 1 + len(DEGREES))
    low, high = patches.min(), patches.max()
    again = {degree: _reconstructed(patches, ZernikeBasis(degree, SIZE, "lstsq")) for degree in DEGREES}
    for index, row in enumerate(panels):
        for axes, shown in zip(row, (patches, *again.values()), strict=True):
            axes.imshow(np.where(inside, shown[index], np.nan), cmap="gray", vmin=low, vmax=high)
            _bare(axes)
        row[0].set_ylabel(_name(index))
        for axes, degree in zip(row[1:], DEGREES, strict=True):
            left = _residual(patches[index], again[degree][index], inside)
            axes.set_xlabel(f"{100 * left:.1f} %", labelpad=2, fontsize=7)
    panels[0, 0].set_title("patch", fontsize=8)
    for axes, degree in zip(panels[0, 1:], DEGREES, strict=True):
        axes.set_title(f"$n_{{max}}$ = {degree}", fontsize=8)
    return figure


def _reconstructed(patches: NDArray[Any], basis: ZernikeBasis) -> NDArray[Any]:
    return reconstruct(patch_moments(patches, basis), basis)


def _residual(patch: NDArray[Any], again: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Share of the variance of a patch, in its disk, that a reconstruction lacks."""
    return float(np.sum((patch - again)[inside] ** 2) / np.sum((patch[inside] - patch[inside].mean()) ** 2))


def draw_rotation() -> Figure:
    """Draw moments and invariants of a patch that turns, and how far the invariants change in each basis."""
    simulated = _simulated(DOSES[-1])
    image = _noise_free(simulated) / _noise_free(simulated).max()
    vacancy = _one_of_each(simulated)[CLASSES.index("single_vacancy")][None]
    angles = np.linspace(0.0, 120.0, 61)
    figure = _figure(WIDE, 0.42 * WIDE)
    left, right = figure.subplots(1, 2)
    basis = ZernikeBasis(N_MAX, SIZE)
    moments = np.concatenate([_turned(image, vacancy, basis, _step(simulated), angle) for angle in angles])
    invariants = rotation_invariants(moments, basis)
    for n, m, colour in ((2, 2, LINES[0]), (3, 3, LINES[1]), (1, 1, LINES[2])):
        cosine, sine = (n * (n + 2) + m) // 2, (n * (n + 2) - m) // 2
        label = f"$|c_{{{n}{m}}}|$"
        left.plot(angles, moments[:, cosine], color=colour, lw=1.0, ls="--")
        left.plot(angles, moments[:, sine], color=colour, lw=1.0, ls=":")
        left.plot(angles, invariants[:, basis.invariant_labels.index((n, m))], color=colour, lw=1.6, label=label)
    left.set(xlabel="turned by, degrees", ylabel="moment of a single vacancy", xlim=(0, 120), xticks=range(0, 121, 30))
    left.set_title("cosine (dashed), sine (dotted), modulus", fontsize=8)
    left.set_ylim(top=1.45 * invariants[:, [basis.invariant_labels.index((3, 3))]].max())
    left.legend(frameon=False, loc="upper center", ncols=3, handlelength=1.2, columnspacing=1.2)
    for mode, colour, dash in zip(MODES, LINES, DASHES, strict=False):
        spread = [
            100 * _spread(image, simulated, ZernikeBasis(N_MAX, size, mode)) for size in SIZES if _can(size, mode)
        ]
        sizes = [size for size in SIZES if _can(size, mode)]
        right.semilogy(sizes, spread, color=colour, ls=dash, marker="o", ms=3, label=mode)
    right.set(xlabel="samples along the patch", ylabel="change of the invariants, %", xticks=SIZES)
    right.set_title("at any angle, root mean square", fontsize=8)
    right.legend(frameon=False, title="mode", title_fontsize=7)
    for axes in (left, right):
        plain(axes)
    return figure


def _can(size: int, mode: str) -> bool:
    """Whether the patch is large enough for the basis."""
    try:
        ZernikeBasis(N_MAX, size, mode)
    except ValueError:
        return False
    return True


def _turned(
    image: NDArray[np.float64], positions: NDArray[np.float64], basis: ZernikeBasis, step: float, degrees: float
) -> NDArray[np.float64]:
    """Moments (N, J) of patches whose axes are turned."""
    turn = np.deg2rad(degrees)
    matrix = step * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(column_moments(image, positions, basis, scale=matrix))


def _spread(image: NDArray[np.float64], simulated: SimulatedMicrograph, basis: ZernikeBasis) -> float:
    """Root mean square change of the invariants of inner columns, over their norm without the mean of the patch."""
    positions = simulated.columns.positions[_inside(simulated)][:100]
    step = _step(simulated, basis.size)
    turned = np.array(
        [
            rotation_invariants(_turned(image, positions, basis, step, angle), basis)[:, 1:]
            for angle in np.arange(0.0, 60.0, 7.5)
        ]
    )
    return float(np.sqrt(np.mean(turned.var(axis=0).sum(axis=1) / (turned.mean(axis=0) ** 2).sum(axis=1))))


def draw_noise() -> Figure:
    """Draw a micrograph at rising doses, and the brightness of its columns beside that of their neighbours at each."""
    figure = _figure(WIDE, 0.56 * WIDE)
    panels = figure.subplots(2, len(DOSES), sharex="row", sharey="row")
    basis = ZernikeBasis(N_MAX, SIZE)
    blocks = contrast_blocks(basis)
    own = blocks["invariants"]
    nearest = own + blocks["centre"] + blocks["first"] - np.array([3, 2, 1])
    for (top, bottom), dose in zip(panels.T, DOSES, strict=True):
        simulated = _simulated(dose)
        data, positions = simulated.micrograph.as_float(), simulated.columns.positions
        low, high = np.percentile(data, GREY_LEVELS)
        top.imshow(data[60:160, 60:160], cmap="gray", vmin=low, vmax=high)
        top.set_title(f"{dose:g} e/px", fontsize=8)
        _bare(top)
        inside = _inside(simulated)
        moments = column_moments(data, positions, basis, scale=_step(simulated))
        radius = simulated.context.lattice_constant / simulated.micrograph.sampling
        around = neighbourhood(positions, simulated.columns.sublattice, inside, radius)
        features = contrast_features(moments, inside, around, basis)
        for index, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=True)):
            chosen = inside & (simulated.labels == index)
            x, y = features[chosen, own], features[chosen][:, nearest].mean(axis=1)
            bottom.plot(x, y, marker, color=colour, ms=2.6, mec="black", mew=0.2, label=_name(index))
        bottom.set(xlabel="middle of the column")
        plain(bottom)
    panels[1, 0].set_ylabel("of the next three")
    handles, names = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, markerscale=1.8)
    return figure


def draw_brightness() -> Figure:
    """Draw how bright each class is expected to be beside the metal, in each host: what the context says."""
    figure = _figure(WIDE, 0.5 * WIDE)
    panels = figure.subplots(1, 2, sharey=True)
    hosts = [name for name, host in HOSTS.items() if host.metal in ("Mo", "W", "Nb", "Ta")]
    for axes, detector in zip(panels, (Detector("HAADF"), Detector("MAADF")), strict=True):
        ratios = np.array(
            [
                expected_intensities(HOSTS[name].metal, HOSTS[name].chalcogen, {"Cr": 1.0}, 80e3, detector)
                for name in hosts
            ]
        )
        hosts_in_order = np.arange(len(hosts))
        axes.axhline(1.0, color=COLOURS[0], lw=1.2, label="metal")
        for index in (1, 2, 3):
            axes.plot(
                hosts_in_order,
                ratios[:, index],
                MARKERS[index],
                color=COLOURS[index],
                ms=4.5,
                mec="black",
                mew=0.3,
                label="Cr" if index == 1 else _name(index),
            )
        axes.set_title(f"{detector.name}, 80 keV", fontsize=8)
        formulas = [name.replace("2", "$_2$") for name in hosts]
        axes.set_xticks(hosts_in_order, formulas, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yscale("log")
        axes.set_yticks((0.1, 0.2, 0.5, 1.0, 2.0), ("0.1", "0.2", "0.5", "1", "2"))
        axes.minorticks_off()
        plain(axes)
    panels[0].set_ylabel("peak over that of the metal")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


FIGURES: Mapping[str, Callable[[], Figure]] = MappingProxyType(
    {
        "stages": draw_stages,
        "polynomials": draw_polynomials,
        "reconstruction": draw_reconstruction,
        "rotation": draw_rotation,
        "noise": draw_noise,
        "brightness": draw_brightness,
    }
)
"""What draws each figure, by its name."""


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("."), show_default=True, help="Folder for the PNGs."
)
def main(output: Path) -> None:
    """Draw the figures of the method."""
    for name, draw in FIGURES.items():
        with style(), whole_file(output / f"{name}.png") as temporary:
            draw().savefig(temporary, dpi=220)
        click.echo(f"wrote {output / name}.png")


if __name__ == "__main__":
    main()
