"""Full multislice simulation of a doped monolayer with abTEM, frozen phonons included: the reference for superposition.

abTEM makes, transmits and propagates the probes.  The transmission functions are this package's own
(`contextem.simulate.scattering`), because abTEM puts atoms on its grid bilinearly and forms exp(i sigma V) without
oversampling, which changes a heavy column by up to 15 % with its position between the grid points; so is the sum over
the detector, because abTEM counts whole pixels, 3 mrad wide in a cell of 14 Å.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from tqdm import tqdm

from contextem.columns import Columns
from contextem.context import Context
from contextem.micrograph import Detector, Micrograph, check_energy
from contextem.simulate.dataset import SimulatedMicrograph
from contextem.simulate.probe import FOCUSED, Aberrations
from contextem.simulate.responses import SEMIANGLES, THERMAL_CHALCOGEN, THERMAL_METAL, collection_angles
from contextem.simulate.scattering import fast_even_size, ring_shares, transmission_function
from contextem.simulate.structures import host_of, supercell

PLANES = 3
"""Slices of a monolayer: chalcogen, metal, chalcogen."""


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
    import abtem
    from abtem.antialias import AntialiasAperture
    from abtem.core.energy import energy2wavelength
    from abtem.multislice import FresnelPropagator
    from abtem.potentials.iam import TransmissionFunction

    beam = check_energy(energy)
    if semiangle is None and beam not in SEMIANGLES:
        raise ValueError(f"semiangle: give it in mrad, there is no default for {beam:g} eV")
    convergence = SEMIANGLES[beam] if semiangle is None else semiangle
    points = np.asarray(positions, dtype=np.float64)
    angles = [collection_angles(detector) for detector in detectors]
    wavelength = float(energy2wavelength(beam))
    lengths = (float(atoms.cell.lengths()[0]), float(atoms.cell.lengths()[1]))
    # abTEM keeps two thirds of the highest frequency; they have to take any wave of the probe to the outermost angle
    highest = max(outer for _, outer in angles) + convergence + 10.0
    finest = wavelength / (3e-3 * highest)
    gpts = (fast_even_size(lengths[0] / finest), fast_even_size(lengths[1] / finest))
    slice_thickness = float(atoms.cell.lengths()[2]) / PLANES
    plane = np.minimum((atoms.positions[:, 2] / slice_thickness).astype(int), PLANES - 1)
    metal = plane == PLANES // 2
    rng = np.random.default_rng(seed)
    propagator = FresnelPropagator()  # type: ignore[no-untyped-call]
    kx, ky = (fft.fftfreq(n, length / n) for n, length in zip(gpts, lengths, strict=True))
    pixel = wavelength * 1e3 / float(np.sqrt(np.prod(lengths)))
    scattering = wavelength * 1e3 * np.hypot(kx[:, None], ky)
    shares = np.column_stack([ring_shares(scattering, pixel, *pair).ravel() for pair in angles])
    result = np.zeros((len(points), len(angles)))
    for _ in tqdm(range(phonons), desc="frozen phonons", disable=None if progress else True):
        shift = rng.normal(size=(len(atoms), 2)) * np.where(metal, *thermal)[:, None]
        transmissions = []
        for i in range(PLANES):
            symbols = np.array(atoms.get_chemical_symbols())[plane == i].tolist()
            xy = (atoms.positions[:, :2] + shift)[plane == i]
            transmissions.append(transmission_function(symbols, xy, lengths, gpts, beam))
        slices = AntialiasAperture().bandlimit(  # type: ignore[no-untyped-call]
            TransmissionFunction(np.array(transmissions, np.complex64), slice_thickness, lengths, energy=beam)
        )
        # abTEM transmits at the entrance of a slice: the metal plane is one slice below the entrance of the cell
        probe = abtem.Probe(
            energy=beam,
            semiangle_cutoff=convergence,
            soft=False,
            defocus=defocus + aberrations.defocus + slice_thickness,
            astigmatism=aberrations.astigmatism,
            astigmatism_angle=aberrations.astigmatism_angle,
            coma=aberrations.coma,
            coma_angle=aberrations.coma_angle,
            Cs=aberrations.spherical,
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
    repeats: tuple[int, int] = (5, 3),
    sampling: float = 0.1,
    source_size: float = 0.35,
    defocus: float = 0.0,
    dose: float | None = None,
    phonons: int = 8,
    progress: bool = True,
    **fractions: float,
) -> SimulatedMicrograph:
    """Simulate a micrograph of a periodic doped supercell by multislice.

    The probe is scanned just finely enough for the band limit of the image, which is then resampled exactly.

    Parameters
    ----------
    host, dopant, energy, detector, seed
        As for `contextem.simulate.dataset.simulate_micrograph`; a detector without angles takes its default ones.
    repeats : (int, int)
        Number of a x sqrt(3) a cells along rows and columns.
    sampling : float
        Å/px, met to within half a pixel of the cell along rows.
    source_size : float
        Standard deviation of the Gaussian source, Å.
    defocus : float
        Å.
    dose : float, optional
        Electrons per pixel; None leaves out the noise, and pixels are fractions of the beam.
    phonons : int
        Number of frozen-phonon configurations.
    progress : bool
        Whether to show a progress bar on a terminal.
    **fractions : float
        ``dopant_fraction``, ``single_fraction``, ``double_fraction``, as for `structures.place_defects`.

    Returns
    -------
    SimulatedMicrograph
        One period of the cell; opposite borders continue each other.
    """
    beam = check_energy(energy)
    measured = Detector(detector) if isinstance(detector, str) else detector
    measured = Detector(measured.name, *collection_angles(measured))
    rng = np.random.default_rng(seed)
    atoms, layer = supercell(host, dopant, repeats, rng, **fractions)
    lengths = atoms.cell.lengths()[:2]
    cutoff = _image_cutoff(beam)
    coarse = [fast_even_size(2.0 * cutoff * length + 2.0) for length in lengths]
    axes = [np.arange(n) / n * length for n, length in zip(coarse, lengths, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    scanned = scan_probes(atoms, grid, beam, [measured], defocus=defocus, phonons=phonons, seed=seed, progress=progress)
    rows = round(lengths[0] / sampling)
    exact = float(lengths[0] / rows)
    shape = (rows, int(lengths[1] / exact))
    image = resample(scanned.reshape(coarse), lengths, shape, exact, source_size)
    if dose is not None:
        image = rng.poisson(np.maximum(image, 0.0) * dose).astype(np.float64)
    positions = layer.sites / exact
    inside = (positions <= np.array(shape) - 1).all(axis=1)
    conditions = {
        "host": host, "dopant": dopant, "energy": beam, "semiangle": SEMIANGLES[beam], "detector": measured.name,
        "inner": measured.inner, "outer": measured.outer, "dose": dose, "source_size": source_size, "defocus": defocus,
        "sampling": exact, "phonons": phonons, "repeats": list(repeats), "seed": seed,
    }  # fmt: skip
    known = host_of(host)
    return SimulatedMicrograph(
        Micrograph(image.astype(np.float32), exact, beam, measured, source=f"{host}-multislice-{seed}"),
        Columns(positions[inside], layer.sublattice[inside]),
        layer.labels[inside],
        Context(host, (dopant,) if dopant else (), beam, measured, lattice_constant=known.lattice_constant),
        conditions,
    )


def _image_cutoff(energy: float) -> float:
    """Highest spatial frequency of an annular dark-field image, 1/Å."""
    from abtem.core.energy import energy2wavelength

    return 2.1e-3 * SEMIANGLES[energy] / float(energy2wavelength(energy))


def resample(
    image: NDArray[np.float64], lengths: Sequence[float], shape: tuple[int, int], sampling: float, blur: float
) -> NDArray[np.float64]:
    """Evaluate a band-limited periodic image at other points, blurred by a Gaussian.

    Parameters
    ----------
    image : ndarray, shape (h, w)
        One period, sampled finely enough.
    lengths : (float, float)
        Size of the period, Å.
    shape : (int, int)
        H, W of the result.
    sampling : float
        Å/px of the result; pixel (0, 0) stays where it is.
    blur : float
        Standard deviation of the Gaussian, Å.

    Returns
    -------
    ndarray of float64, shape (H, W)

    Examples
    --------
    >>> x = np.arange(8) / 8
    >>> wave = np.cos(2 * np.pi * x)[:, None] + np.zeros(8)
    >>> bool(np.allclose(resample(wave, (1.0, 1.0), (5, 3), 0.2, 0.0)[:, 0], np.cos(0.4 * np.pi * np.arange(5))))
    True
    """
    spectrum = fft.fft2(image) / image.size
    for axis, (n, length) in enumerate(zip(image.shape, lengths, strict=True)):
        k = fft.fftfreq(n, length / n)
        wave = np.exp(2j * np.pi * np.outer(np.arange(shape[axis]) * sampling, k) - 2.0 * (np.pi * blur * k) ** 2)
        spectrum = np.moveaxis(np.tensordot(wave, spectrum, (1, axis)), 0, axis)
    return np.asarray(spectrum.real)
