"""Full multislice simulation of doped monolayers, frozen phonons included: the reference for superposition.

`simulate_multislice` makes micrographs, from the beams of `contextem.simulate.smatrix`.  `scan_probes` checks them:
there abTEM makes, transmits and propagates every single probe.  In both the transmission functions are this package's
own (`contextem.simulate.scattering`), because abTEM puts atoms on its grid bilinearly and forms exp(i sigma V) without
oversampling, which changes a heavy column by up to 15 % with its position between the grid points; so is the sum over
the detector, because abTEM counts whole pixels, 3 mrad wide in a cell of 14 Å.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from tqdm import tqdm

from contextem._extras import needs_extra
from contextem.micrograph import Detector, check_energy
from contextem.probe import FOCUSED, Aberrations
from contextem.responses import THERMAL_CHALCOGEN, THERMAL_METAL, collection_angles
from contextem.simulate.conditions import REFERENCE, Ranges
from contextem.simulate.dataset import SimulatedMicrograph, draw_scan, record
from contextem.simulate.scattering import fast_even_size, ring_shares, transmission_function
from contextem.simulate.smatrix import PLANES, Beams, convergence_angle, frozen_phonons, scatter_beams
from contextem.simulate.structures import supercell

REPEATS = (5, 3)
"""Number of a x sqrt(3) a cells along the two directions of a supercell."""

PHONONS = 16
"""Number of frozen-phonon configurations of a micrograph."""


def scan_probes(
    atoms: Any,
    positions: ArrayLike,
    energy: float,
    detectors: Sequence[Detector | str],
    *,
    semiangle: float | None = None,
    defocus: float = 0.0,
    phonons: int = 8,
    thermal: tuple[float, float] = (THERMAL_METAL, THERMAL_CHALCOGEN),
    seed: int = 0,
    progress: bool = False,
    aberrations: Aberrations = FOCUSED,
) -> NDArray[np.float64]:
    """Scan a probe over a monolayer by multislice.

    Parameters
    ----------
    atoms : ase.Atoms
        As `contextem.simulate.structures.supercell` builds it: three planes in a cell of three slices.
    positions : array_like, shape (P, 2)
        Probe positions, Å.
    energy : float
        Beam energy, eV.
    detectors : sequence of Detector or str
        D detectors.
    semiangle : float, optional
        Semi-angle of convergence, mrad; by default that of `SEMIANGLES` for this energy.
    defocus : float
        Relative to the metal plane, Å, positive where the focus lies behind it.
    phonons : int
        Number of frozen-phonon configurations to average.
    thermal : (float, float)
        Root mean square displacement of metals and of chalcogens along one direction, Å.
    seed : int
        Of the displacements.
    progress : bool
        Whether to show a progress bar on a terminal.
    aberrations : Aberrations
        Of the probe; its own defocus is added.

    Returns
    -------
    ndarray of float64, shape (P, D)
        Fraction of the beam on each detector.

    Raises
    ------
    ValueError
        If the energy has no default semi-angle and none is given.
    """
    with needs_extra("simulate"):
        import abtem
        from abtem.antialias import AntialiasAperture
        from abtem.core.energy import energy2wavelength
        from abtem.multislice import FresnelPropagator
        from abtem.potentials.iam import TransmissionFunction

    beam = check_energy(energy)
    convergence = convergence_angle(beam, semiangle)
    points = np.asarray(positions, dtype=np.float64)
    angles = [collection_angles(detector) for detector in detectors]
    wavelength = float(energy2wavelength(beam))
    lengths = (float(atoms.cell.lengths()[0]), float(atoms.cell.lengths()[1]))
    # abTEM keeps two thirds of the highest frequency; they have to take any wave of the probe to the outermost angle
    highest = max(outer for _, outer in angles) + convergence + 10.0
    finest = wavelength / (3e-3 * highest)
    gpts = (fast_even_size(lengths[0] / finest), fast_even_size(lengths[1] / finest))
    slice_thickness = float(atoms.cell.lengths()[2]) / PLANES
    propagator = FresnelPropagator()  # type: ignore[no-untyped-call]
    kx, ky = (fft.fftfreq(n, length / n) for n, length in zip(gpts, lengths, strict=True))
    pixel = wavelength * 1e3 / float(np.sqrt(np.prod(lengths)))
    scattering = wavelength * 1e3 * np.hypot(kx[:, None], ky)
    shares = np.column_stack([ring_shares(scattering, pixel, *pair).ravel() for pair in angles])
    result = np.zeros((len(points), len(angles)))
    configurations = frozen_phonons(atoms, phonons, thermal, seed)
    for planes in tqdm(configurations, total=phonons, desc="frozen phonons", disable=None if progress else True):
        transmissions = [transmission_function(symbols, xy, lengths, gpts, beam) for symbols, xy in planes]
        slices = AntialiasAperture().bandlimit(  # type: ignore[no-untyped-call]
            TransmissionFunction(np.array(transmissions, np.complex64), slice_thickness, lengths, energy=beam)
        )
        # abTEM transmits at the entrance of a slice: the metal plane is one slice below the entrance of the cell
        probe = abtem.Probe(
            energy=beam,
            semiangle_cutoff=convergence,
            soft=False,
            defocus=defocus + aberrations.defocus + slice_thickness,
            aberrations=aberrations.symbols,
            extent=lengths,
            gpts=gpts,
        )
        for start in range(0, len(points), 32):
            batch = slice(start, start + 32)
            waves = probe.build(scan=abtem.CustomScan(points[batch]), lazy=False)
            incident = np.prod(gpts) * np.sum(np.abs(waves.array[0]) ** 2)
            for i in range(PLANES):
                waves = slices.get_chunk(i, i + 1).transmit(waves)
                waves = propagator.propagate(waves, thickness=slice_thickness, in_place=True)
            pattern = np.abs(fft.fft2(waves.array)) ** 2
            result[batch] += pattern.reshape(len(pattern), -1) @ shares / incident
    return result / phonons


def simulate_multislice(
    host: str,
    dopant: str | None,
    energy: float,
    detector: Detector | str,
    seed: int,
    *,
    size: float = 42.0,
    ranges: Ranges = REFERENCE,
    repeats: tuple[int, int] = REPEATS,
    phonons: int = PHONONS,
    device: str = "cpu",
    progress: bool = False,
    **given: float,
) -> SimulatedMicrograph:
    """Simulate a micrograph by multislice: as `dataset.simulate_micrograph`, but for the ideal image.

    The specimen is a periodic supercell, whose copies fill the image.  Strain stretches its image, the probe included.

    Parameters
    ----------
    host, dopant, energy, detector, seed, size, ranges
        As for `contextem.simulate.dataset.simulate_micrograph`.
    repeats : (int, int)
        Number of a x sqrt(3) a cells along the two directions of the supercell.
    phonons : int
        Number of frozen-phonon configurations.
    device : {"cpu", "gpu"}
        Where the waves are propagated; "gpu" needs CuPy.
    progress : bool
        Whether to show a progress bar on a terminal.
    **given : float
        Conditions that are not to be drawn, by their name in `Ranges`: ``dose=2000.0``.

    Returns
    -------
    SimulatedMicrograph

    Raises
    ------
    ValueError
        If the host, energy, detector, device or a condition is not a possible one.
    TypeError
        If a condition is not known.
    """
    scan = draw_scan(host, dopant, energy, detector, seed, size=size, ranges=ranges, given=given, stream=":multislice")
    drawn = scan.drawn
    atoms, cell = supercell(
        host,
        dopant,
        repeats,
        scan.rng,
        dopant_fraction=drawn["dopant_fraction"],
        single_fraction=drawn["vacancy_fraction"] / 2.0,
        double_fraction=drawn["vacancy_fraction"] / 2.0,
        disorder=drawn["disorder"],
        relaxation=scan.relaxation,
    )
    origin = scan.rng.uniform(0.0, 1.0, 2) * atoms.cell.lengths()[:2]
    beams = scatter_beams(
        atoms,
        scan.energy,
        [scan.detector],
        phonons=phonons,
        seed=int(scan.rng.integers(2**32)),
        device=device,
        progress=progress,
    )
    shape = (scan.pixels, scan.pixels)
    # the cell lies along its own axes
    aberrations = scan.aberrations.turned(scan.rotation)
    image = scan_image(beams, drawn, shape, scan.probe_offsets, scan.transform, origin, aberrations)
    # copies of the cell, as many as reach the corners of the image
    lengths = np.array(beams.lengths)
    span = int(np.ceil((1.5 * size + np.abs(scan.offsets).max() + lengths.max()) / lengths.min()))
    copies = np.stack(np.meshgrid(*(np.arange(-span, span + 1),) * 2, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    sites = (cell.sites + copies * lengths - origin).reshape(-1, 2) @ scan.transform.T
    return record(
        scan, image, sites, np.tile(cell.labels, len(copies)), engine="abtem", phonons=phonons, repeats=list(repeats)
    )


def scan_image(
    beams: Beams,
    drawn: Mapping[str, float],
    shape: tuple[int, int],
    offsets: NDArray[np.float64],
    transform: NDArray[np.float64],
    origin: NDArray[np.float64],
    aberrations: Aberrations = FOCUSED,
) -> NDArray[np.float64]:
    """Evaluate the periodic image on the first detector at the pixels of a scan, blurred by the source.

    Parameters
    ----------
    beams : Beams
        Of the cell.
    drawn : mapping of str to float
        With ``defocus``, ``source_size`` and ``sampling``.
    shape : (int, int)
        H, W.
    offsets : ndarray of float64, shape (H, 2)
        Where each row lies relative to its nominal place, Å.
    transform : ndarray of float64, shape (2, 2)
        Rotation and strain of the cell.
    origin : ndarray of float64, shape (2,)
        Point of the cell at the first pixel, Å.
    aberrations : Aberrations
        Along the axes of the cell; the defocus is the drawn one.

    Returns
    -------
    ndarray of float64, shape (H, W)
        Fraction of the beam.
    """
    frequencies, coefficients = beams.fourier(beams.probe(drawn["defocus"], aberrations.symbols))
    k = frequencies @ np.linalg.inv(transform)
    blur = np.exp(-2.0 * (np.pi * drawn["source_size"]) ** 2 * (k**2).sum(axis=1))
    weights = coefficients[0] * blur * np.exp(2j * np.pi * frequencies @ origin)
    nominal = [np.arange(n) * drawn["sampling"] for n in shape]
    rows = np.exp(2j * np.pi * (np.outer(nominal[0], k[:, 0]) + offsets @ k.T)) * weights
    return np.asarray((rows @ np.exp(2j * np.pi * np.outer(k[:, 1], nominal[1]))).real)
