"""Micrographs whose truth is known: drawn from ranges of conditions, one at a time or whole data sets.

A micrograph is lattice -> defects -> superposed responses -> contamination -> dose -> readout noise; multislice may
take the place of the superposed responses.  Its truth is the class of each column and where the lattice site of that
column lies in the image, slow drift included.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contextem._bounds import open_npz, read_json
from contextem._extras import needs_extra
from contextem._output import whole_file
from contextem._processes import process_pool
from contextem._schema import SCHEMAS, SchemaError, check_schema
from contextem.columns import CLASSES, Columns
from contextem.context import Context
from contextem.micrograph import Detector, Micrograph, check_energy
from contextem.probe import FOCUSED, Aberrations
from contextem.responses import (
    SEMIANGLES,
    THERMAL_CHALCOGEN,
    THERMAL_METAL,
    Response,
    collection_angles,
    library,
    semiangle_of,
)
from contextem.simulate.conditions import RANGES, WIDE, Ranges, draw_angles, draw_conditions
from contextem.simulate.noise import poisson, smooth_noise
from contextem.simulate.render import MARGIN, Group, superpose
from contextem.simulate.structures import (
    DOPANT,
    METAL,
    SINGLE_VACANCY,
    X2,
    Monolayer,
    doped_monolayer,
    host_of,
)

logger = logging.getLogger(__name__)

METALS, CHALCOGENS = ("Mo", "W", "Nb", "Ta"), ("S", "Se", "Te")
DOPANTS = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu")

CASES = tuple((f"{m}{x}2", d) for m, x, d in itertools.product(METALS, CHALCOGENS, DOPANTS))
"""The 96 pairs of host and dopant."""

NEAR_Z = tuple(
    (f"{m}{x}2", d)
    for (m, d), x in itertools.product(
        (("Mo", "Zr"), ("Mo", "Nb"), ("Nb", "Mo"), ("W", "Re"), ("Ta", "W"), ("W", "Ta")), CHALCOGENS
    )
)
"""Pairs whose dopant scatters nearly as much as the metal it replaces; physics bounds what can be told."""

CONDITIONS = tuple(itertools.product((60e3, 80e3, 200e3), ("HAADF", "MAADF")))
"""The 6 imaging conditions: beam energy, eV, and detector."""

UNDOPED = tuple((f"{m}{x}2", None) for m, x in itertools.product(METALS, CHALCOGENS))
"""The 12 hosts without dopant."""

Preset = tuple[tuple[tuple[str, str | None], ...], tuple[tuple[float, str], ...]]
PRESETS: Mapping[str, Preset] = {
    "tmd96": (CASES, ((80e3, "HAADF"),)),
    "tmd576": (CASES, CONDITIONS),
    "tmd1296": (CASES + UNDOPED, tuple(itertools.product(sorted(SEMIANGLES), ("HAADF", "MAADF")))),
    "near-z": (NEAR_Z, CONDITIONS),
}
"""Data sets by name: cases and conditions, every one with every other."""

ENGINES = ("responses", "abtem")
"""What computes the ideal images: superposed responses, or multislice of a periodic cell."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What noise and scan hide in a simulated micrograph.

    Attributes
    ----------
    layer : Monolayer
        All columns, those beyond the border too.
    inside : ndarray of bool, shape (N,)
        Which of them are the columns of the micrograph, in their order there.
    relaxation : (float, float)
        Range from which the relaxation around each vacancy was drawn.
    image : ndarray of float, shape (H, W)
        Fraction of the beam at each pixel, contamination included, without noise.
    offsets : ndarray of float64, shape (H, 2)
        Where the probe stands in each row relative to its nominal place, Å.
    aberrations : Aberrations
        Of the probe.
    """

    layer: Monolayer
    inside: NDArray[np.bool_]
    relaxation: tuple[float, float]
    image: NDArray[np.floating[Any]]
    offsets: NDArray[np.float64]
    aberrations: Aberrations


@dataclass(frozen=True, eq=False)
class SimulatedMicrograph:
    """A micrograph with its truth.

    Attributes
    ----------
    micrograph : Micrograph
        Pixels in electrons, float32, (H, W).
    columns : Columns
        All sites of the lattice in the image; sublattice 0 metal, 1 chalcogen.
    labels : ndarray of int8, shape (N,)
        Class of each column, index into `contextem.columns.CLASSES`.
    context : Context
        Host, dopant, energy and detector.
    conditions : dict
        Everything that was drawn or given: dose, source_size, defocus, ...
    scene : Scene or None
        For the ideal observer, where responses were superposed; not saved.
    """

    micrograph: Micrograph
    columns: Columns
    labels: NDArray[np.int8]
    context: Context
    conditions: dict[str, Any] = field(repr=False)
    scene: Scene | None = field(default=None, repr=False)

    @property
    def case(self) -> str:
        """Host and dopant, for example ``"WSe2:Cr"``."""
        return f"{self.conditions['host']}:{self.conditions['dopant']}"

    @property
    def condition(self) -> str:
        """Beam energy and detector, for example ``"80 keV HAADF"``."""
        return f"{self.conditions['energy'] / 1e3:g} keV {self.conditions['detector']}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one ``.npz``, whole or not at all.

        Parameters
        ----------
        path : path-like
            File to write.
        """
        about = {
            "schema": SCHEMAS["simulated data set"],
            "sampling": self.micrograph.sampling,
            "source": self.micrograph.source,
            "context": self.context.to_dict(),
            "conditions": self.conditions,
        }
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                data=self.micrograph.data,
                positions=self.columns.positions,
                sublattice=self.columns.sublattice,
                labels=self.labels,
                about=np.array(json.dumps(about)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimulatedMicrograph:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
            File to read.

        Returns
        -------
        SimulatedMicrograph

        Raises
        ------
        ValueError
            If it is none that `save` wrote, or another version of contextem did and this one cannot read it.
        """
        try:
            with open_npz(path) as stored:
                about = json.loads(str(stored["about"]))
                check_schema("simulated data set", about.get("schema", 1), f"path: {path}")
                context = Context.from_dict(about["context"])
                micrograph = Micrograph(
                    stored["data"],
                    about["sampling"],
                    context.energy,
                    context.detector,
                    provenance=dict.fromkeys(("sampling", "energy", "detector"), "file"),
                    source=about["source"],
                )
                columns, labels = Columns(stored["positions"], stored["sublattice"]), stored["labels"]
                conditions = dict(about["conditions"])
        except (FileNotFoundError, IsADirectoryError, PermissionError, SchemaError):
            raise
        except Exception as error:
            detail = " ".join(str(error).split())
            raise ValueError(f"{path}: expected a simulated micrograph, got another file ({detail[:200]})") from error
        if (
            labels.shape != (len(columns),)
            or labels.dtype.kind != "i"
            or not np.isin(labels, range(len(CLASSES))).all()
        ):
            raise ValueError(f"{path}: expected a class for each of {len(columns)} columns, got other labels")
        return cls(micrograph, columns, labels, context, conditions)


def simulate_micrograph(
    host: str,
    dopant: str | None,
    energy: float,
    detector: Detector | str,
    seed: int,
    *,
    size: float = 42.0,
    ranges: Ranges = WIDE,
    **given: float,
) -> SimulatedMicrograph:
    """Simulate a micrograph by superposition.

    Parameters
    ----------
    host : str
        Formula of the monolayer, one of `contextem.context.HOSTS`.
    dopant : str or None
        Element at the doped metal sites.
    energy : float
        Beam energy, eV.
    detector : Detector or str
        Angles that it has are taken, others are drawn from `ANGLE_RANGES`.
    seed : int
        Same arguments and seed, same micrograph.
    size : float
        Side of the square image, Å: from 16 px on, as large as a column table and the pixels fit into memory.
    ranges : Ranges
        What is drawn from.
    **given : float
        Conditions that are not to be drawn, by their name in `Ranges`: ``dose=2000.0``.

    Returns
    -------
    SimulatedMicrograph

    Raises
    ------
    ValueError
        If the host, energy, detector or a condition is not a possible one.
    TypeError
        If a condition is not known.

    Examples
    --------
    >>> simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", seed=1, sampling=0.2, dose=5000.0)
    >>> simulated.micrograph.shape, len(simulated.columns) == len(simulated.labels)
    ((210, 210), True)
    """
    scan = draw_scan(host, dopant, energy, detector, seed, size=size, ranges=ranges, given=given)
    drawn, vacancies = scan.drawn, scan.drawn["vacancy_fraction"] / 2.0
    layer = doped_monolayer(
        host_of(host).lattice_constant,
        scan.offsets.min(axis=0) - MARGIN,
        scan.offsets.max(axis=0) + scan.pixels * drawn["sampling"] + MARGIN,
        scan.rng,
        transform=scan.transform,
        dopant_fraction=drawn["dopant_fraction"] if dopant else 0.0,
        single_fraction=vacancies,
        double_fraction=vacancies,
        disorder=drawn["disorder"],
        relaxation=scan.relaxation,
    )
    groups = column_groups(
        layer,
        host,
        dopant,
        scan.energy,
        scan.detector,
        source_size=drawn["source_size"],
        aberrations=scan.aberrations,
    )
    shape = (scan.pixels, scan.pixels)
    image = superpose(groups, shape, drawn["sampling"], scan.probe_offsets, dtype=np.float32)
    return record(scan, image, layer.sites, layer.labels, layer=layer)


@dataclass(frozen=True, eq=False)
class Scan:
    """What is drawn before the specimen: the conditions of a micrograph and where its probe stands.

    Attributes
    ----------
    host, dopant, seed
        As for `simulate_micrograph`.
    energy : float
        eV.
    detector : Detector
        With both angles.
    drawn : dict of str to float
        Conditions by their name in `Ranges`.
    relaxation : (float, float)
        Range from which the relaxation around each vacancy is drawn.
    pixels : int
        Side of the image.
    rotation : float
        Of the lattice, radians.
    transform : ndarray of float64, shape (2, 2)
        Rotation and strain of the lattice.
    offsets, slow : ndarray of float64, shape (pixels, 2)
        Where each row lies relative to its nominal place, Å: with drift and jitter, and with drift alone.
    rng : numpy.random.Generator
        For all that is drawn later.
    """

    host: str
    dopant: str | None
    seed: int
    energy: float
    detector: Detector
    drawn: dict[str, float]
    relaxation: tuple[float, float]
    pixels: int
    rotation: float
    transform: NDArray[np.float64] = field(repr=False)
    offsets: NDArray[np.float64] = field(repr=False)
    slow: NDArray[np.float64] = field(repr=False)
    rng: np.random.Generator = field(repr=False)

    @property
    def aberrations(self) -> Aberrations:
        """Those of the probe, defocus included."""
        return Aberrations(**{f.name: self.drawn[f.name] for f in fields(Aberrations)})

    @property
    def probe_offsets(self) -> NDArray[np.float64]:
        """Where the axis of the probe lies for the peak of the probe to lie at `offsets`, Å, (pixels, 2)."""
        return self.offsets - self.aberrations.shift(semiangle_of(self.energy))

    def in_image(self, sites: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return where sites (N, 2), Å, appear in the image, px, and which of them lie inside, (N,)."""
        positions = _in_pixels(sites, self.slow, self.drawn["sampling"])
        inside: NDArray[np.bool_] = np.all((positions >= 0.0) & (positions <= self.pixels - 1), axis=1)
        return positions, inside


def draw_scan(
    host: str,
    dopant: str | None,
    energy: float,
    detector: Detector | str,
    seed: int,
    *,
    size: float,
    ranges: Ranges,
    given: Mapping[str, float],
    stream: str = "",
) -> Scan:
    """Draw the conditions of a micrograph and the places of its probe.

    Parameters
    ----------
    host, dopant, energy, detector, seed, size, ranges, given
        As for `simulate_micrograph`.
    stream : str
        Another stream, other random numbers for the same seed.

    Returns
    -------
    Scan

    Examples
    --------
    >>> scan = draw_scan("WSe2", "Cr", 80e3, "HAADF", 1, size=42.0, ranges=WIDE, given={"sampling": 0.2})
    >>> scan.pixels, scan.offsets.shape
    (210, (210, 2))
    """
    beam = check_energy(energy)
    host_of(host)
    named = Detector(detector) if isinstance(detector, str) else detector
    # the same seed gives unrelated micrographs for different cases
    case = f"{host}:{dopant}:{beam:g}:{named.name}{stream}"
    rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
    drawn = draw_conditions(rng, ranges, given)
    measured = draw_angles(rng, named, beam)
    pixels = round(size / drawn["sampling"])
    if pixels < 16:
        raise ValueError(f"size: expected at least 16 px of {drawn['sampling']:g} Å, got {size:g} Å")
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    strain = rng.normal(0.0, drawn["strain"], (2, 2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offsets, slow = _scan_offsets(rng, pixels, drawn["drift"], drawn["jitter"])
    relaxation = (drawn["relaxation"],) * 2 if "relaxation" in given else ranges.relaxation
    transform = (np.eye(2) + strain) @ rotation
    return Scan(host, dopant, seed, beam, measured, drawn, relaxation, pixels, angle, transform, offsets, slow, rng)


def record(
    scan: Scan,
    image: NDArray[np.floating[Any]],
    sites: NDArray[np.float64],
    labels: NDArray[np.int8],
    *,
    layer: Monolayer | None = None,
    **more: Any,
) -> SimulatedMicrograph:
    """Turn an ideal image into a micrograph with its truth: contamination, dose and readout noise.

    Parameters
    ----------
    scan : Scan
        How it is recorded; its source of randomness is used up further.
    image : ndarray of float, shape (pixels, pixels)
        Fraction of the beam on the detector.
    sites : ndarray of float64, shape (N, 2)
        Where the lattice sites are, Å; those outside the image are left out.
    labels : ndarray of int8, shape (N,)
        Class of each, index into `contextem.columns.CLASSES`.
    layer : Monolayer, optional
        The columns of these sites, if the ideal observer is to know them.
    **more
        Further conditions to keep.

    Returns
    -------
    SimulatedMicrograph
    """
    drawn, beam, measured = scan.drawn, scan.energy, scan.detector
    metal = library().response(host_of(scan.host).metal, beam, measured, aberrations=scan.aberrations)
    peak = float(metal.radial(0.0, np.hypot(drawn["source_size"], THERMAL_METAL)))
    image = image + peak * _contamination(scan.rng, image.shape, drawn)
    # the tails of the Fourier series may dip below zero by rounding where there is vacuum
    mean = np.maximum(image, 0.0) * drawn["dose"]
    counts = poisson(np.asarray(mean, dtype=np.float32), scan.rng)
    counts += np.float32(drawn["readout"]) * scan.rng.standard_normal(counts.shape, dtype=np.float32)
    positions, inside = scan.in_image(sites)
    name = f"{scan.host}-{scan.dopant or 'undoped'}-{beam / 1e3:g}keV-{measured.name}-{scan.seed}"
    conditions = drawn | {
        "host": scan.host,
        "dopant": scan.dopant,
        "energy": beam,
        "semiangle": semiangle_of(beam),
        "detector": measured.name,
        "inner": measured.inner,
        "outer": measured.outer,
        "rotation": scan.rotation,
        "seed": scan.seed,
    }
    micrograph = Micrograph(
        counts,
        drawn["sampling"],
        beam,
        measured,
        provenance=dict.fromkeys(("sampling", "energy", "detector"), "file"),
        source=name,
    )
    columns = Columns(positions[inside], (labels[inside] >= X2).astype(np.int8))
    context = Context(scan.host, (scan.dopant,) if scan.dopant else (), beam, measured)
    scene = None
    if layer is not None:
        scene = Scene(layer, np.asarray(inside), scan.relaxation, image, scan.probe_offsets, scan.aberrations)
    return SimulatedMicrograph(micrograph, columns, labels[inside], context, conditions | more, scene)


def column_groups(
    layer: Monolayer,
    host: str,
    dopant: str | None,
    energy: float,
    detector: Detector | str,
    *,
    defocus: float = 0.0,
    source_size: float = 0.0,
    aberrations: Aberrations = FOCUSED,
) -> list[Group]:
    """Sort the columns of a monolayer by their responses.

    Parameters
    ----------
    layer : Monolayer
        Columns.
    host, dopant
        Elements.
    energy : float
        Beam energy, eV.
    detector : Detector or str
        With angles, or one of `responses.DETECTOR_ANGLES`.
    defocus : float
        Relative to the metal plane, Å.
    source_size : float
        Standard deviation of the source, Å.
    aberrations : Aberrations
        Of the probe; its own defocus is added.

    Returns
    -------
    list of Group
        Metals, dopants, X2 columns, single chalcogens of the upper and of the lower plane; those that occur.
    """
    known, responses = host_of(host), library()
    aberrations = replace(aberrations, defocus=aberrations.defocus + defocus)
    half = known.thickness / 2.0
    single = layer.labels == SINGLE_VACANCY
    metal_blur, chalcogen_blur = (float(np.hypot(source_size, rms)) for rms in (THERMAL_METAL, THERMAL_CHALCOGEN))
    # the midpoint of two independent atoms vibrates less than one; their separation is in the response already
    pair_blur = float(np.hypot(source_size, THERMAL_CHALCOGEN / np.sqrt(2.0)))
    atom: Callable[..., Response] = partial(
        responses.response, energy=energy, detector=detector, aberrations=aberrations
    )
    pair: Callable[..., Response] = partial(
        responses.pair, known.chalcogen, known.thickness, energy, detector, aberrations=aberrations
    )
    kinds: list[tuple[NDArray[np.bool_], float, Callable[[], Response]]]
    kinds = [(layer.labels == METAL, metal_blur, lambda: atom(known.metal))]
    if dopant:
        kinds.append((layer.labels == DOPANT, metal_blur, lambda: atom(dopant)))
    kinds += [
        (layer.labels == X2, pair_blur, pair),
        (single & layer.upper, chalcogen_blur, lambda: atom(known.chalcogen, defocus=half)),
        (single & ~layer.upper, chalcogen_blur, lambda: atom(known.chalcogen, defocus=-half)),
    ]
    return [Group(response(), blur, layer.atoms[chosen]) for chosen, blur, response in kinds if chosen.any()]


def _scan_offsets(
    rng: np.random.Generator, rows: int, drift: float, jitter: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each row of the scan lies, Å, (rows, 2): with drift and jitter, and with drift alone."""
    slow = np.column_stack([smooth_noise((rows,), rows / 8.0, rng) for _ in range(2)]) * drift
    return slow + rng.normal(0.0, 1.0, (rows, 2)) * jitter, slow


def _contamination(rng: np.random.Generator, shape: tuple[int, ...], drawn: Mapping[str, float]) -> NDArray[np.float32]:
    """Scattering of carbon, in units of the metal peak: an even level, and clouds about `haze` high."""
    clouds = smooth_noise(shape, float(rng.uniform(4.0, 15.0)) / drawn["sampling"], rng, np.float32)
    fine = smooth_noise(shape, 0.6 / drawn["sampling"], rng, np.float32)
    cover = np.maximum(drawn["haze"] * (1.0 + 0.6 * clouds) * (1.0 + drawn["carbon"] * fine), 0.0)
    return np.asarray(drawn["background"] + cover)


def _in_pixels(sites: NDArray[np.float64], slow: NDArray[np.float64], sampling: float) -> NDArray[np.float64]:
    """Where sites (N, 2), Å, appear in an image whose rows drift by `slow` (H, 2): solves r s + slow(r) = x for r."""
    rows = np.arange(len(slow))
    positions = sites / sampling
    for _ in range(8):
        shift = np.column_stack([np.interp(positions[:, 0], rows, slow[:, axis]) for axis in range(2)])
        positions = (sites - shift) / sampling
    return positions


@dataclass(frozen=True)
class Recipe:
    """The few words that determine a simulated micrograph.

    Attributes
    ----------
    host, dopant, energy, detector, seed
        As for `simulate_micrograph`; the detector by name.
    ranges : {"wide", "reference"}
        What the conditions are drawn from; with "reference", the detector has its nominal collection angles.
    """

    host: str
    dopant: str | None
    energy: float
    detector: str
    seed: int
    ranges: str = "wide"

    @property
    def name(self) -> str:
        """Name of the file that holds it."""
        condition = f"{self.energy / 1e3:g}keV-{self.detector}"
        return f"{self.host}-{self.dopant or 'undoped'}-{condition}-{self.ranges}-{self.seed}"

    def simulate(self, engine: str = "responses", **options: Any) -> SimulatedMicrograph:
        """Simulate it.

        Parameters
        ----------
        engine : {"responses", "abtem"}
            What computes the ideal image.
        **options
            As for `simulate_micrograph`, or for `contextem.simulate.multislice.simulate_multislice`.

        Returns
        -------
        SimulatedMicrograph
        """
        detector = Detector(self.detector)
        if self.ranges == "reference":
            detector = Detector(self.detector, *collection_angles(detector))
        options = {"ranges": RANGES[self.ranges]} | options
        make: Callable[..., SimulatedMicrograph] = simulate_micrograph
        if engine == "abtem":
            from contextem.simulate.multislice import simulate_multislice

            make = simulate_multislice
        return make(self.host, self.dopant, self.energy, detector, self.seed, **options)


def recipes(preset: str, images_per_case: int, seed: int = 0, *, ranges: str = "both") -> list[Recipe]:
    """List the micrographs of a data set.

    Parameters
    ----------
    preset : str
        One of `PRESETS`.
    images_per_case : int
        Images for each case under each condition.
    seed : int
        Of the first image of each case; the following images have the following seeds.
    ranges : {"wide", "reference", "both"}
        What conditions are drawn from; "both" takes them in turn.

    Returns
    -------
    list of Recipe

    Raises
    ------
    ValueError
        If the preset or the ranges are not known or the number of images is not positive.

    Examples
    --------
    >>> len(recipes("tmd96", 2)), len(recipes("tmd576", 1))
    (192, 576)
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    if ranges not in (*RANGES, "both"):
        raise ValueError(f"ranges: expected one of {', '.join(RANGES)}, both, got {ranges!r}")
    if images_per_case < 1:
        raise ValueError(f"images_per_case: expected at least 1, got {images_per_case!r}")
    cases, conditions = PRESETS[preset]
    turns = tuple(RANGES) if ranges == "both" else (ranges,)
    images = range(seed, seed + images_per_case)
    return [
        Recipe(*case, *condition, i, turns[i % len(turns)])
        for i, condition, case in itertools.product(images, conditions, cases)
    ]


def alloy_recipes(count: int, seed: int, chalcogens: Sequence[str] = CHALCOGENS) -> list[Recipe]:
    """List micrographs of alloys in the mean-field picture: every chalcogen column is the same mean of two elements.

    Such materials are not real, but between the chalcogens they are as bright as any may be, which is what a classifier
    has to learn that shall judge a chalcogen it has not seen.

    Parameters
    ----------
    count : int
        Number of micrographs.
    seed : int
        Same seed, same recipes.
    chalcogens : sequence of str
        Elements that are mixed, two by two.

    Returns
    -------
    list of Recipe
        Metals, dopants, near-Z ones among them, and the conditions of "tmd1296" at random, half of them of each of
        `RANGES`.

    Examples
    --------
    >>> alloy_recipes(1, 0, ("S", "Te"))[0].host
    'Ta(S0.32Te0.68)2'
    """
    rng = np.random.default_rng([seed, 17])
    dopants = (*DOPANTS, None, "Zr", "Re", *METALS)
    kinds = [each for each in itertools.product(PRESETS["tmd1296"][1], METALS, dopants) if each[1] != each[2]]
    pairs = list(itertools.combinations(chalcogens, 2))
    made: list[Recipe] = []
    rounds = [rng.permutation(len(kinds)) for _ in range(-(-count // len(kinds)))]
    for i, pick in enumerate(itertools.islice(itertools.chain(*rounds), count)):
        (energy, detector), metal, dopant = kinds[pick]
        one, other = pairs[rng.integers(len(pairs))]
        share = int(rng.integers(5, 96))
        host = f"{metal}({one}{(100 - share) / 100:.2f}{other}{share / 100:.2f})2"
        made.append(Recipe(host, dopant, energy, detector, seed + i, tuple(RANGES)[i % len(RANGES)]))
    return made


def generate(
    folder: str | os.PathLike[str],
    preset: str,
    images_per_case: int,
    seed: int = 0,
    *,
    engine: str = "responses",
    processes: int | None = None,
    progress: bool = True,
    device: str = "cpu",
    phonons: int = 16,
    **options: Any,
) -> list[Path]:
    """Write a data set, one ``.npz`` for each micrograph and a ``manifest.json``; files that exist are kept.

    Parameters
    ----------
    folder : path-like
        Where to write.
    preset, images_per_case, seed
        As for `recipes`.
    engine : {"responses", "abtem"}
        What computes the ideal images.  Those of abTEM take half a minute and more each and are meant for testing:
        their conditions are drawn from the "reference" ranges.
    processes : int, optional
        How many to use; by default as many as there are processors, and one for a GPU.
    progress : bool
        Whether to show a progress bar on a terminal.
    device : {"cpu", "gpu"}
        Where abTEM's waves are propagated.
    phonons : int
        Number of frozen-phonon configurations of an image of abTEM.
    **options
        As for `simulate_micrograph`, or for `contextem.simulate.multislice.simulate_multislice`.

    Returns
    -------
    list of Path
        The micrographs, in the order of `recipes`.

    Raises
    ------
    ValueError
        If the engine or the device is not a possible one, or the folder holds a data set made otherwise.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    target = Path(folder)
    chosen = {key: asdict(value) if isinstance(value, Ranges) else value for key, value in options.items()}
    about: dict[str, Any] = {"preset": preset, "options": chosen, "classes": list(CLASSES), "engine": engine}
    if engine == "abtem":
        with needs_extra("simulate"):
            import abtem

        from contextem.simulate.smatrix import array_module

        array_module(device)
        about |= {"phonons": phonons, "abTEM": abtem.__version__}
        options |= {"phonons": phonons, "device": device}
        processes = 1 if device == "gpu" else processes
    wanted = recipes(preset, images_per_case, seed, ranges="reference" if engine == "abtem" else "both")
    path = target / "manifest.json"
    if path.exists():
        known = manifest(target)
        if {key: known.get(key) for key in about} != json.loads(json.dumps(about)):
            raise ValueError(f"folder: {target} holds another data set; choose another folder")
    files = [target / f"{recipe.name}.npz" for recipe in wanted]
    missing = [(recipe, file) for recipe, file in zip(wanted, files, strict=True) if not file.exists()]
    logger.info("%d of %d micrographs to simulate into %s", len(missing), len(files), target)
    with whole_file(path) as temporary:
        told = {"schema": SCHEMAS["simulated data set"], **about, "files": [file.name for file in files]}
        temporary.write_text(json.dumps(told, indent=1))
    write = partial(_write, engine=engine, options=options)
    with process_pool(processes) as pool:
        done: Iterator[None] = pool.map(write, missing, chunksize=4 if engine == "responses" else 1)
        for _ in tqdm(done, total=len(missing), desc="simulate", unit="image", disable=None if progress else True):
            pass
    return files


def _write(job: tuple[Recipe, Path], engine: str, options: Mapping[str, Any]) -> None:
    recipe, file = job
    recipe.simulate(engine, **options).save(file)


def manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Tell what a data set is.

    Parameters
    ----------
    folder : path-like
        Written by `generate`.

    Returns
    -------
    dict
        ``"preset"``, ``"options"``, ``"classes"``, ``"files"``, and the ``"engine"``, one of `ENGINES`; with "abtem"
        also ``"phonons"`` and ``"abTEM"``, its version.

    Raises
    ------
    ValueError
        If the folder holds no data set, or one of a version that this one cannot read.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise ValueError(
            f"folder: expected a data set with a manifest.json, got {folder}; `contextem simulate` writes one"
        )
    known: dict[str, Any] = {"engine": "responses"} | read_json(path)
    check_schema("simulated data set", known.pop("schema", 1), f"folder: {folder}")
    names = known.get("files")
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"folder: expected names of files in {path}, got others")
    return known


def stored(folder: str | os.PathLike[str]) -> list[Path]:
    """List the micrographs of a data set.

    Parameters
    ----------
    folder : path-like
        Written by `generate`.

    Returns
    -------
    list of Path
        Files for `SimulatedMicrograph.load`; their names end in the seed.

    Raises
    ------
    ValueError
        If the folder holds no data set, or an unfinished one.
    """
    paths = [Path(folder) / name for name in manifest(folder)["files"]]
    if missing := sum(not file.is_file() for file in paths):
        raise ValueError(
            f"folder: {folder} lacks {missing} of {len(paths)} micrographs; run `contextem simulate` again"
        )
    return paths
