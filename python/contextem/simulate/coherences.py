"""Computes the response library: how every column scatters the waves of the aperture, ring by ring of the detector.

See `contextem.probe` for what is kept of it and `contextem.simulate.scattering` for the waves.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contextem._extras import needs_extra
from contextem._output import whole_file
from contextem._processes import process_pool
from contextem.probe import ORDER, Aberrations, blocks, pack, radial_modes
from contextem.responses import (
    ELEMENTS,
    PAIR_DISTANCES,
    SEMIANGLES,
    THERMAL_CHALCOGEN,
    ResponseLibrary,
    load,
    pair_name,
)

FIRST_ANGLE = 1.02
"""Inner edge of the first detector ring, in units of the semi-angle: the direct beam is in no ring."""

ANGLES = (
    *(40.0, 42.5, 45.0, 47.5, 50.0, 52.5, 55.0, 57.5, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 100.0, 105.0),
    *(110.0, 115.0, 120.0, 130.0, 140.0, 150.0, 160.0, 180.0, 200.0, 220.0),
)
"""Edges of the detector rings, mrad, from the end of the first ones on."""

FIRST_RINGS = 6
"""Rings between the bright-field disk and the first of `ANGLES`."""

SEPARATION_RADII: Mapping[bool, int] = {False: 4, True: 6}
"""Radial quadrature nodes of the separation of a pair, up to 120 keV and above: faster waves resolve it more finely."""


def build(
    path: str | os.PathLike[str],
    progress: bool = True,
    *,
    energies: Sequence[float] = tuple(SEMIANGLES),
    processes: int | None = None,
) -> ResponseLibrary:
    """Compute the library with abTEM's potentials and write it.

    What is computed lies in a folder beside the file until the file is whole: an interrupted computation goes on there.

    Parameters
    ----------
    path : path-like
        File to write, ``.npz``.
    progress : bool
        Whether to show a progress bar on a terminal.
    energies : sequence of float
        Beam energies, eV, each one of `SEMIANGLES`.
    processes : int, optional
        How many to use; by default as many as there are processors.

    Returns
    -------
    ResponseLibrary
    """
    with needs_extra("simulate"):
        import abtem

    names = [*ELEMENTS, *(pair_name(x, t) for x, distances in PAIR_DISTANCES.items() for t in distances)]
    # the most expensive first, so that no process is left with a long one at the end
    jobs = sorted(itertools.product(energies, names), key=lambda job: (-job[0], "@" not in job[1]))
    settings = {
        "abTEM": abtem.__version__,
        "scattering factors": "Lobato and Van Dyck 2014",
        "semiangles": {f"{e:g}": SEMIANGLES[e] for e in energies},
        "rings": {f"{e:g}": list(ring_edges(SEMIANGLES[e])) for e in energies},
        "pair thermal displacement": THERMAL_CHALCOGEN,
        "separation radii": [SEPARATION_RADII[fast] for fast in (False, True)],
        "radial order": ORDER,
        "shape": "species, energy, ring, packed coherence",
    }
    # other settings, another folder
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    parts = Path(path).with_suffix(f".{digest}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    stored = [parts / f"{name}-{energy:g}.npy" for energy, name in jobs]
    with process_pool(processes) as pool:
        for _ in tqdm(
            pool.map(_compute_part, *zip(*jobs, strict=True), stored),
            total=len(jobs), desc="responses", unit="column", disable=None if progress else True,
        ):  # fmt: skip
            pass
    table = {job: np.load(file) for job, file in zip(jobs, stored, strict=True)}
    coherences = np.stack([np.stack([table[e, name] for e in energies]) for name in names]).astype(np.float32)
    about = {
        "command": "contextem simulate --rebuild-responses",
        **settings,
        "sha256": hashlib.sha256(coherences.tobytes()).hexdigest(),
    }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            species=np.array(names),
            energies=np.array(energies, dtype=np.float64),
            cutoffs=np.array([_scan(e).cutoff for e in energies]),
            edges=np.array([_scan(e).edges for e in energies]),
            coherences=coherences,
            about=np.array(json.dumps(about)),
        )
    whole = load(path)
    for part in stored:
        part.unlink()
    parts.rmdir()
    return whole


def ring_edges(semiangle: float) -> tuple[float, ...]:
    """Return the edges of the detector rings for a semi-angle of convergence, all in mrad.

    Examples
    --------
    >>> [round(edge, 1) for edge in ring_edges(30.0)[:4]], ring_edges(30.0)[6]
    ([30.6, 32.0, 33.5, 35.0], 40.0)
    """
    first = np.geomspace(FIRST_ANGLE * semiangle, ANGLES[0], FIRST_RINGS + 1)[:-1]
    return (*first.tolist(), *ANGLES)


def _compute_part(energy: float, name: str, file: Path) -> None:
    if not file.exists():
        with whole_file(file) as temporary:
            np.save(temporary, compute(energy, name))


@cache
def _scan(energy: float) -> Any:
    from contextem.simulate.scattering import ColumnScan

    return ColumnScan(energy, SEMIANGLES[energy], ring_edges(SEMIANGLES[energy]))


def compute(energy: float, name: str) -> NDArray[np.float64]:
    """Compute the coherence of one column on every ring.

    The waves of the Zernike polynomials, as a least-squares fit on the pixels of the aperture reads them off, are sent
    through the column.  Of a pair, one direction of each separation will do: only equal angular orders are kept, and
    these are the average over all directions.

    Parameters
    ----------
    energy : float
        Beam energy, eV.
    name : str
        Element, or pair as `pair_name` writes it.

    Returns
    -------
    ndarray of float64, shape (B, K)
        Packed as in `contextem.probe`, Å^2.
    """
    from contextem.simulate.scattering import thermal_separations

    scan = _scan(energy)
    symbol, _, distance = name.partition("2@")
    thickness = float(distance or 0.0)
    _, rho, azimuth = scan.aperture()
    modes = [radial_modes(m, rho) * np.exp(1j * m * azimuth) for m, _ in blocks()]
    both = np.concatenate([*modes, *(mode.conj() for mode in modes[1:])])
    # the probe is counted from the midpoint of a pair, the wave from its first atom
    angle = 1e-3 * scan.semiangle * rho
    fit = np.linalg.pinv(both.T) * np.exp(
        -1j * Aberrations(defocus=thickness / 2).phase(angle, azimuth, scan.wavelength)
    )
    if thickness:
        nodes = thermal_separations(THERMAL_CHALCOGEN, SEPARATION_RADII[energy > 150e3], angles=1)
        planes = [(w, [scan.transmission(symbol, (s * x / 2, s * y / 2)) for s in (-1, 1)]) for x, y, w in nodes]
    else:
        planes = [(1.0, [scan.transmission(symbol, (0.0, 0.0))])]
    starts = np.cumsum([0, *(len(mode) for mode in modes)])
    found = []
    for start, stop in itertools.pairwise(starts):
        found.append(sum(weight * scan.coherence(fit[start:stop], stack, thickness) for weight, stack in planes))
    return np.asarray(pack(found), dtype=np.float64)
