"""Micrographs with sites no classifier is trained on: adatoms, grain boundaries, second layers, a wrongly stated host.

Every atom more, or of another grain, is one more response in the sum.  The defocus of an atom h above the metal plane
is that of the image plus h.  The waves of two atoms on top of each other are taken not to interfere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from contextem.context import Context
from contextem.micrograph import Detector
from contextem.responses import THERMAL_METAL, collection_angles, library
from contextem.simulate.conditions import REFERENCE, Ranges
from contextem.simulate.dataset import (
    CHALCOGENS,
    METALS,
    Scan,
    SimulatedMicrograph,
    column_groups,
    draw_scan,
    record,
    simulate_micrograph,
)
from contextem.simulate.render import MARGIN, Group, superpose
from contextem.simulate.structures import METAL, X2, Monolayer, doped_monolayer, host_of, place_defects, relax

KINDS: Mapping[str, str] = {
    "adatom on metal": "a metal atom of the host above some metal columns",
    "adatom on X2": "the same above some X2 columns",
    "adatom in hollow": "the same above the middle of some hexagons",
    "mirror boundary": "two grains, each the mirror image of the other",
    "rotated boundary": "two grains, one turned by 8 to 30 degrees",
    "bilayer 2H": "a second layer over half of the image, its metals above chalcogens and the other way round",
    "bilayer AA": "a second layer over half of the image, each of its columns above one of the same kind",
    "wrong host": "a context whose expected intensities are others",
    "similar host": "a context of another host that expects nearly the same intensities",
}
"""What the kinds of anomaly are."""

KNOWN, ANOMALOUS, NOT_SCORED = 0, 1, -1
"""What is said of a column."""

ADATOMS = 0.03
"""Share of the sites of one kind that carry an adatom."""
TURN = (8.0, 30.0)
"""Angle between the lattices of a rotated boundary, degrees."""
LAYER_DISTANCE = 6.5
"""Distance of the metal planes of two layers, Å."""
CLOSEST = 1.5
"""Distance below which atoms of two grains exclude each other, Å."""
BOUNDARY, AWAY = 0.8, 2.0
"""Lattice constants from a boundary up to which columns are anomalous, and from which on they are known."""
PATCH = 1.1
"""Lattice constants around an adatom, or outside a second layer, in which columns see it without being it."""
DIFFERENT = 0.4
"""Largest difference of two context vectors from which on two hosts count as different."""
LATTICE_TOLERANCE = 0.08
"""Relative distance of lattice constants up to which a host may be mistaken for another one."""


@dataclass(frozen=True, eq=False)
class AnomalousMicrograph:
    """A micrograph of which some columns are not what the classifier knows.

    Attributes
    ----------
    simulated : SimulatedMicrograph
        Its labels are those of the layer itself; of an adatom in a hollow, that of a metal.
    context : Context
        As stated, rightly or wrongly.
    anomalous : ndarray of int8, shape (N,)
        0 for a known column, 1 for an anomalous one, -1 for one that may be called either.
    """

    simulated: SimulatedMicrograph
    context: Context
    anomalous: NDArray[np.int8]


def simulate_anomaly(
    kind: str,
    host: str,
    dopant: str | None,
    energy: float,
    detector: Detector | str,
    seed: int,
    *,
    size: float = 60.0,
    ranges: Ranges = REFERENCE,
    **given: float,
) -> AnomalousMicrograph:
    """Simulate a micrograph with anomalous columns.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    host, dopant, energy, detector, seed, size, ranges, **given
        As for `contextem.simulate.dataset.simulate_micrograph`; a detector that is only named has nominal angles.

    Returns
    -------
    AnomalousMicrograph

    Raises
    ------
    ValueError
        If the kind is not known, or there is no host to mistake this one for.

    Examples
    --------
    >>> anomaly = simulate_anomaly("adatom on metal", "WSe2", "Cr", 80e3, "HAADF", seed=1, dose=5000.0)
    >>> 0 < int((anomaly.anomalous == 1).sum()) < int((anomaly.anomalous == 0).sum())
    True
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    named = Detector(detector) if isinstance(detector, str) else detector
    named = Detector(named.name, *collection_angles(named))
    if kind.endswith("host"):
        simulated = simulate_micrograph(host, dopant, energy, named, seed, size=size, ranges=ranges, **given)
        others = mistakable(simulated.context, similar=kind == "similar host")
        if not others:
            raise ValueError(f"kind: there is no {kind} to mistake {host} for")
        stated = others[int(np.random.default_rng([seed, 23]).integers(len(others)))]
        return AnomalousMicrograph(simulated, stated, np.full(len(simulated.columns), ANOMALOUS, np.int8))
    scan = draw_scan(host, dopant, energy, named, seed, size=size, ranges=ranges, given=given, stream=f":{kind}")
    if kind.startswith("adatom"):
        layer, anomalous, groups = _adatoms(scan, kind)
    elif kind.startswith("bilayer"):
        layer, anomalous, groups = _bilayer(scan, swapped=kind == "bilayer 2H")
    else:
        layer, anomalous = _boundary(scan, mirrored=kind == "mirror boundary")
        groups = _groups(scan, layer)
    shape = (scan.pixels, scan.pixels)
    image = superpose(groups, shape, scan.drawn["sampling"], scan.probe_offsets, dtype=np.float32)
    inside = scan.in_image(layer.sites)[1]
    simulated = record(scan, image, layer.sites, layer.labels, anomaly=kind)
    return AnomalousMicrograph(simulated, simulated.context, anomalous[inside])


def mistakable(context: Context, *, similar: bool = False) -> list[Context]:
    """Return the contexts of other hosts with nearly the same lattice constant.

    Parameters
    ----------
    context : Context
        The right one.
    similar : bool
        Whether the expected intensities are nearly those of the right one, or clearly others.

    Returns
    -------
    list of Context

    Examples
    --------
    >>> [context.host for context in mistakable(Context("MoS2", "Cr", 80e3, "HAADF"), similar=True)]
    ['NbS2']
    """
    others = []
    for formula in (f"{metal}{chalcogen}2" for metal in METALS for chalcogen in CHALCOGENS):
        host = host_of(formula)
        stretch = host.lattice_constant / context.lattice_constant - 1.0
        if formula == context.host or host.metal in context.dopants or abs(stretch) > LATTICE_TOLERANCE:
            continue
        other = Context(formula, context.dopants, context.energy, context.detector)
        if (float(np.abs(other.vector() - context.vector()).max()) <= DIFFERENT) == similar:
            others.append(other)
    return others


def anomaly_at(
    anomaly: AnomalousMicrograph, positions: NDArray[np.float64], *, tolerance: float = 0.7
) -> NDArray[np.int8]:
    """Tell which of some found columns are anomalous.

    Parameters
    ----------
    anomaly : AnomalousMicrograph
        What is known.
    positions : ndarray, shape (M, 2)
        (row, column) in px.
    tolerance : float
        Largest distance of a found column from the true one whose fate it shares, Å.

    Returns
    -------
    ndarray of int8, shape (M,)
        As `AnomalousMicrograph.anomalous`; -1 where no column is.

    Examples
    --------
    >>> anomaly = simulate_anomaly("bilayer 2H", "WSe2", None, 80e3, "HAADF", seed=1)
    >>> bool((anomaly_at(anomaly, anomaly.simulated.columns.positions + 0.1) == anomaly.anomalous).all())
    True
    """
    simulated = anomaly.simulated
    reach = tolerance / simulated.micrograph.sampling
    distance, nearest = cKDTree(simulated.columns.positions).query(positions, distance_upper_bound=reach)
    return np.append(anomaly.anomalous, np.int8(NOT_SCORED))[np.where(np.isfinite(distance), nearest, -1)]


def _layer(
    scan: Scan,
    low: NDArray[np.float64] | None = None,
    high: NDArray[np.float64] | None = None,
    *,
    transform: NDArray[np.float64] | None = None,
) -> Monolayer:
    """Draw a layer that covers the image, or a rectangle."""
    return doped_monolayer(
        host_of(scan.host).lattice_constant,
        scan.offsets.min(axis=0) - MARGIN if low is None else low,
        scan.offsets.max(axis=0) + scan.pixels * scan.drawn["sampling"] + MARGIN if high is None else high,
        scan.rng,
        transform=scan.transform if transform is None else transform,
        disorder=scan.drawn["disorder"],
        relaxation=scan.relaxation,
        **_fractions(scan),
    )


def _fractions(scan: Scan) -> dict[str, float]:
    half = scan.drawn["vacancy_fraction"] / 2.0
    doped = scan.drawn["dopant_fraction"] if scan.dopant else 0.0
    return {"dopant_fraction": doped, "single_fraction": half, "double_fraction": half}


def _groups(scan: Scan, layer: Monolayer, height: float = 0.0) -> list[Group]:
    """Responses of a layer whose metal plane lies `height` above that of the first, Å."""
    return column_groups(
        layer,
        scan.host,
        scan.dopant,
        scan.energy,
        scan.detector,
        source_size=scan.drawn["source_size"],
        aberrations=replace(scan.aberrations, defocus=scan.aberrations.defocus + height),
    )


def _adatoms(scan: Scan, kind: str) -> tuple[Monolayer, NDArray[np.int8], list[Group]]:
    host = host_of(scan.host)
    a, t = host.lattice_constant, host.thickness
    layer = _layer(scan)
    groups = _groups(scan, layer)
    anomalous = np.full(len(layer.labels), KNOWN, np.int8)
    # bonded to three chalcogens an adatom lies as far above them as the metals lie below; else a bond above one
    height = t
    if kind == "adatom in hollow":
        vectors = a * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]) @ scan.transform.T
        hollows = layer.sites[layer.sublattice == 0] + 2.0 / 3.0 * vectors.sum(axis=0)
        chosen = hollows[scan.rng.random(len(hollows)) < ADATOMS]
        displaced = scan.rng.normal(0.0, scan.drawn["disorder"], chosen.shape)
        places = chosen + displaced
        layer = _joined(
            layer, Monolayer(chosen, displaced, np.full(len(chosen), METAL, np.int8), np.zeros(len(chosen), bool))
        )
        anomalous = np.append(anomalous, np.full(len(chosen), ANOMALOUS, np.int8))
    else:
        label = METAL if kind == "adatom on metal" else X2
        height = t if label == METAL else t / 2.0 + float(np.hypot(a / np.sqrt(3.0), t / 2.0))
        beneath = (layer.labels == label) & (scan.rng.random(len(layer.labels)) < ADATOMS)
        chosen, places = layer.sites[beneath], layer.atoms[beneath]
        anomalous[beneath] = ANOMALOUS
    if len(chosen):
        near = cKDTree(chosen).query(layer.sites)[0] < PATCH * a
        anomalous[near & (anomalous == KNOWN)] = NOT_SCORED
        aberrations = replace(scan.aberrations, defocus=scan.aberrations.defocus + height)
        response = library().response(host.metal, scan.energy, scan.detector, aberrations=aberrations)
        groups.append(Group(response, float(np.hypot(scan.drawn["source_size"], THERMAL_METAL)), places))
    return layer, anomalous, groups


def _bilayer(scan: Scan, *, swapped: bool) -> tuple[Monolayer, NDArray[np.int8], list[Group]]:
    a = host_of(scan.host).lattice_constant
    layer = _layer(scan)
    # in projection both layers have the same sites, in 2H with metals and chalcogens changed over
    labels = place_defects(1 - layer.sublattice if swapped else layer.sublattice, scan.rng, **_fractions(scan))
    displaced = relax(layer.sites, labels, a / np.sqrt(3.0), scan.rng.uniform(*scan.relaxation, len(labels)))
    displaced += scan.rng.normal(0.0, scan.drawn["disorder"], displaced.shape)
    above = Monolayer(layer.sites, displaced, labels, scan.rng.random(len(labels)) < 0.5)
    angle = scan.rng.uniform(0.0, 2.0 * np.pi)
    distance = (layer.sites - _middle(scan)) @ np.array([np.cos(angle), np.sin(angle)])
    anomalous = np.select([distance > 0.0, distance > -PATCH * a], [ANOMALOUS, NOT_SCORED], KNOWN).astype(np.int8)
    return layer, anomalous, _groups(scan, layer) + _groups(scan, _taken(above, distance > 0.0), LAYER_DISTANCE)


def _boundary(scan: Scan, *, mirrored: bool) -> tuple[Monolayer, NDArray[np.int8]]:
    a = host_of(scan.host).lattice_constant
    middle = _middle(scan) + scan.rng.uniform(-0.5, 0.5, 2) * a
    if mirrored:
        # across a row of metals the honeycomb does not look its own mirror image, at right angles to the row it does
        along = scan.transform[:, 0] / np.linalg.norm(scan.transform[:, 0])
        normal = np.array([-along[1], along[0]])
        # the mirror image of a half must cover the other one
        reach = 0.5 * np.sqrt(2.0) * scan.pixels * scan.drawn["sampling"] + 2.0 * MARGIN + a
        first = _layer(scan, middle - reach, middle + reach)
        second = Monolayer(
            first.sites - 2.0 * np.outer((first.sites - middle) @ normal, normal),
            first.displacements - 2.0 * np.outer(first.displacements @ normal, normal),
            first.labels,
            first.upper,
        )
    else:
        angle, turn = scan.rng.uniform(0.0, 2.0 * np.pi), np.deg2rad(scan.rng.uniform(*TURN))
        normal = np.array([np.cos(angle), np.sin(angle)])
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        first, second = _layer(scan), _layer(scan, transform=rotation @ scan.transform)
    first = _taken(first, (first.sites - middle) @ normal < 0.0)
    second = _taken(second, (second.sites - middle) @ normal >= 0.0)
    second = _taken(second, cKDTree(first.sites).query(second.sites)[0] > CLOSEST)
    layer = _joined(first, second)
    low, high = scan.offsets.min(axis=0) - MARGIN, scan.offsets.max(axis=0) + scan.pixels * scan.drawn["sampling"]
    layer = _taken(layer, ((layer.sites >= low) & (layer.sites < high + MARGIN)).all(axis=1))
    distance = np.abs((layer.sites - middle) @ normal)
    anomalous = np.select([distance < BOUNDARY * a, distance < AWAY * a], [ANOMALOUS, NOT_SCORED], KNOWN)
    return layer, anomalous.astype(np.int8)


def _middle(scan: Scan) -> NDArray[np.float64]:
    """Middle of the image, Å."""
    return np.full(2, 0.5 * scan.pixels * scan.drawn["sampling"])


def _taken(layer: Monolayer, chosen: NDArray[np.bool_]) -> Monolayer:
    return Monolayer(layer.sites[chosen], layer.displacements[chosen], layer.labels[chosen], layer.upper[chosen])


def _joined(first: Monolayer, second: Monolayer) -> Monolayer:
    return Monolayer(
        np.concatenate([first.sites, second.sites]),
        np.concatenate([first.displacements, second.displacements]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.upper, second.upper]),
    )
