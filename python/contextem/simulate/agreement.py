"""How far superposed responses are from multislice: intensities of columns, each seen with the probe on its site.

Both sides see the same displaced atoms, one frozen-phonon configuration after the other.  The thermal noise of single
atoms is then the same in both and leaves the difference; that of the separation of two chalcogens stays, because the
library holds its average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from contextem.micrograph import Detector
from contextem.responses import THERMAL_CHALCOGEN, THERMAL_METAL
from contextem.simulate.dataset import column_groups
from contextem.simulate.render import superpose
from contextem.simulate.smatrix import frozen_phonons, scatter_beams
from contextem.simulate.structures import SINGLE_VACANCY, X2, Monolayer, supercell


@dataclass(frozen=True, eq=False)
class Agreement:
    """Superposed minus multislice, for F defoci, N columns and D detectors.

    Attributes
    ----------
    errors : ndarray of float64, shape (F, N, D)
        Differences, in units of the brightest column.
    noises : ndarray of float64, shape (F, N, D)
        Half of the difference between the errors of two halves of the configurations: as uncertain as the errors are.
    labels : ndarray of int8, shape (N,)
        Index into `contextem.columns.CLASSES`.
    """

    errors: NDArray[np.float64] = field(repr=False)
    noises: NDArray[np.float64] = field(repr=False)
    labels: NDArray[np.int8] = field(repr=False)


def agreement(
    host: str,
    dopant: str | None,
    energy: float,
    detectors: Sequence[Detector | str] = ("HAADF", "MAADF"),
    *,
    defoci: Sequence[float] = (0.0,),
    repeats: tuple[int, int] = (4, 2),
    phonons: int = 24,
    device: str = "cpu",
) -> Agreement:
    """Compare the columns of a doped monolayer with many defects.

    Parameters
    ----------
    host, dopant, energy
        As for `contextem.simulate.dataset.simulate_micrograph`.
    detectors : sequence of Detector or str
        D detectors.
    defoci : sequence of float
        F defoci, Å.
    repeats : (int, int)
        Number of a x sqrt(3) a cells.
    phonons : int
        Number of frozen-phonon configurations, an even one.
    device : {"cpu", "gpu"}
        As for `contextem.simulate.smatrix.scatter_beams`.

    Returns
    -------
    Agreement
    """
    rng = np.random.default_rng(3)
    atoms, layer = supercell(
        host, dopant, repeats, rng, dopant_fraction=0.15, single_fraction=0.15, double_fraction=0.12
    )
    halves = []
    peak = np.zeros((len(defoci), 1, len(detectors)))
    for seed in (1, 2):
        beams = scatter_beams(atoms, energy, detectors, phonons=phonons // 2, seed=seed, device=device)
        reference = np.array([beams.intensities(layer.sites, beams.probe(defocus)) for defocus in defoci])
        peak += reference.max(axis=1, keepdims=True) / 2
        superposed = np.zeros_like(reference)
        for planes in frozen_phonons(atoms, phonons // 2, (THERMAL_METAL, THERMAL_CHALCOGEN), seed):
            moved = displaced(layer, [xy for _, xy in planes])
            for (i, defocus), (j, detector) in product(enumerate(defoci), enumerate(detectors)):
                groups = column_groups(moved, host, dopant, energy, detector, defocus=defocus)
                still = [replace(group, blur=0.0) for group in groups]
                at_sites = superpose(still, (len(layer.sites), 1), 0.0, layer.sites, period=beams.lengths)
                superposed[i, :, j] += at_sites[:, 0]
        halves.append(superposed / (phonons // 2) - reference)
    first, second = halves
    return Agreement((first + second) / (2 * peak), (first - second) / (2 * peak), layer.labels)


def displaced(layer: Monolayer, planes: Sequence[NDArray[np.float64]]) -> Monolayer:
    """Return a monolayer whose columns stand where the atoms of its three planes are; pairs at their midpoints.

    Parameters
    ----------
    layer : Monolayer
        As `structures.supercell` returns it.
    planes : sequence of ndarray of float64, shape (M, 2)
        Positions of the atoms, Å: upper chalcogens, metals, lower chalcogens, each in the order of the columns.

    Returns
    -------
    Monolayer

    Examples
    --------
    >>> atoms, layer = supercell("WSe2", None, (2, 1), np.random.default_rng(0))
    >>> planes = next(frozen_phonons(atoms, 1, (0.0, 0.0), seed=0))
    >>> bool(np.allclose(displaced(layer, [xy for _, xy in planes]).displacements, 0.0))
    True
    """
    upper, metals, lower = planes
    pairs, single = layer.labels == X2, layer.labels == SINGLE_VACANCY
    in_upper, in_lower = pairs | (single & layer.upper), pairs | (single & ~layer.upper)
    atoms = layer.sites.copy()
    atoms[layer.labels < X2] = metals
    atoms[in_upper], atoms[single & ~layer.upper] = upper, lower[single[in_lower]]
    atoms[pairs] = (upper[pairs[in_upper]] + lower[pairs[in_lower]]) / 2
    return replace(layer, displacements=atoms - layer.sites)
