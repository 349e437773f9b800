"""The ideal observer: what the noise leaves to be told of a column when everything else about the image is known.

    P(c | image) ~ prior(c) prod over pixels p within `radius` of the column of
                   Poisson(n_p + r^2; dose (I(p) + R_c(p) - R_own(p)) + r^2)

I is the noise-free image, R the response of the column at its true place, n the counts and r the readout noise: a sum
of Poisson and Gaussian noise is taken for a Poisson variable shifted by r^2, which has its mean and its variance and is
exact where r = 0 (Snyder et al., https://doi.org/10.1364/JOSAA.12.000272).  Known are the responses (blur, aberrations,
collection angles), the places of all atoms, the classes of all other columns, contamination, dose, drift and jitter;
prior(c) is the share that the defects were drawn with.  The metals around a chalcogen site tell of a vacancy as well,
since they move towards it: their places are a factor of their own.  No classifier knows more, so none is right more
often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp, softmax

from contextem.columns import CLASSES
from contextem.simulate.dataset import SimulatedMicrograph, column_groups
from contextem.simulate.render import Group, superpose
from contextem.simulate.structures import DOPANT, DOUBLE_VACANCY, METAL, SINGLE_VACANCY, X2, Monolayer

STEP = 0.03
"""Å; between the points of a grid of that spacing the response of a column is interpolated linearly."""
CHUNK = 256
"""Columns whose pixels are held in memory together."""
LEAST_DISORDER = 1e-3
"""Å; keeps the places of metals from being told exactly where there is no disorder."""
TINY = 1e-9
"""Counts; keeps the logarithm finite where vacuum is expected."""


def ideal_posterior(
    simulated: SimulatedMicrograph, *, radius: float | None = None, places: bool = True
) -> NDArray[np.float64]:
    """Return the posterior of every column by its exact likelihood, all else known.

    Parameters
    ----------
    simulated : SimulatedMicrograph
        As `contextem.simulate.dataset.simulate_micrograph` returns it; files do not hold what must be known.
    radius : float, optional
        Of the pixels that count, Å; by default the lattice constant.
    places : bool
        Whether the places of the metals around a chalcogen site count as well as its pixels.

    Returns
    -------
    ndarray of float64, shape (N, 5)
        Rows add up to one; a column can only be of the classes of its site.

    Raises
    ------
    ValueError
        If the micrograph does not hold its scene.

    Examples
    --------
    >>> from contextem.simulate.dataset import simulate_micrograph
    >>> simulated = simulate_micrograph("WSe2", "Cr", 80e3, "HAADF", seed=1, sampling=0.2, dose=5000.0)
    >>> bool((ideal_posterior(simulated).argmax(axis=1) == simulated.labels).mean() > 0.99)
    True
    """
    scene, drawn, context = simulated.scene, simulated.conditions, simulated.context
    if scene is None:
        raise ValueError(
            "simulated: expected a micrograph with its scene, got one read from a file or computed by multislice; "
            "simulate it again by superposed responses"
        )
    assert context.energy is not None and context.detector is not None
    dopant = context.dopants[0] if context.dopants else None
    # one column of each kind; `column_groups` keeps their order
    kinds = np.array([METAL, *([DOPANT] if dopant else []), X2, SINGLE_VACANCY, SINGLE_VACANCY], np.int8)
    nowhere = np.zeros((len(kinds), 2))
    groups = column_groups(
        Monolayer(nowhere, nowhere, kinds, np.arange(len(kinds)) == len(kinds) - 2),
        context.host,
        dopant,
        context.energy,
        context.detector,
        source_size=drawn["source_size"],
        aberrations=scene.aberrations,
    )
    reach = context.lattice_constant if radius is None else radius
    side = 2 * round(reach / STEP) + 1
    middle = np.full((1, 2), reach)
    responses = [
        superpose([Group(group.response, group.blur, middle)], (side, side), 2.0 * reach / (side - 1), dtype=np.float32)
        for group in groups
    ]
    responses.append(np.zeros_like(responses[0]))  # nothing is left at a double vacancy

    inside, noise = scene.inside, drawn["readout"] ** 2
    layer = Monolayer(
        scene.layer.sites[inside],
        scene.layer.displacements[inside],
        scene.layer.labels[inside],
        scene.layer.upper[inside],
    )
    bond = context.lattice_constant / np.sqrt(3.0)
    moved = evidence_of_places(scene.layer, bond, drawn["disorder"], scene.relaxation)[inside]
    # negative ones too: cut off at 0 they would no longer have the mean that the likelihood expects
    counts = simulated.micrograph.data + noise
    expected = drawn["dose"] * np.maximum(scene.image, 0.0) + noise
    shares = class_shares(simulated)
    lower = (layer.labels == SINGLE_VACANCY) & ~layer.upper
    metal_site = layer.labels < X2
    posterior = np.zeros((len(metal_site), len(CLASSES)))
    # chalcogen sites: X2, the upper and the lower atom of a single vacancy, none
    chalcogen_kind = layer.labels - X2 + (lower | (layer.labels == DOUBLE_VACANCY))
    # either atom of a single vacancy may be left
    kind_shares = shares[[X2, SINGLE_VACANCY, SINGLE_VACANCY, DOUBLE_VACANCY]] * [1.0, 0.5, 0.5, 1.0]
    for sites, candidates, prior, own in (
        (metal_site, responses[:-4], shares[: len(responses) - 4], layer.labels),
        (~metal_site, responses[-4:], kind_shares, chalcogen_kind),
    ):
        likelihood = log_likelihoods(
            counts,
            expected,
            layer.atoms[sites],
            own[sites],
            drawn["dose"] * np.stack(candidates, axis=-1),
            sampling=drawn["sampling"],
            offsets=scene.offsets,
            radius=reach,
        )
        if places and len(candidates) == 4:
            likelihood[:, 1:] += moved[sites, None]
        with np.errstate(divide="ignore"):
            p = softmax(likelihood + np.log(prior), axis=1)
        if len(candidates) == 4:
            posterior[sites, X2:] = np.column_stack([p[:, 0], p[:, 1] + p[:, 2], p[:, 3]])
        else:
            posterior[sites, : len(candidates)] = p
    return posterior


def evidence_of_places(
    layer: Monolayer, bond: float, disorder: float, relaxation: tuple[float, float]
) -> NDArray[np.float64]:
    """Return how much more likely a vacancy makes the places of the metals around a chalcogen site.

    A metal is displaced by Gaussian disorder, and towards each vacancy it is bonded to by a fraction of the bond, drawn
    uniformly for each vacancy.  The fraction of the site itself is integrated over; those of others are taken for
    Gaussian.

    Parameters
    ----------
    layer : Monolayer
        With displacements.
    bond : float
        Projected distance of neighbouring columns, Å.
    disorder : float
        Standard deviation along each direction, Å.
    relaxation : (float, float)
        Range of the fraction.

    Returns
    -------
    ndarray of float64, shape (N,)
        Logarithm of the ratio of the likelihoods; 0 at metal sites.
    """
    evidence = np.zeros(len(layer.labels))
    sites, metals = np.flatnonzero(layer.labels >= X2), np.flatnonzero(layer.labels < X2)
    if not len(sites) or not len(metals):
        return evidence
    near = cKDTree(layer.sites[metals]).query(layer.sites[sites], k=3, distance_upper_bound=1.25 * bond)[1]
    bonded = near < len(metals)
    near = np.where(bonded, near, 0)
    towards = (layer.sites[sites, None] - layer.sites[metals][near]) * bonded[..., None]  # (S, 3, 2)
    mean, variance = np.mean(relaxation), (relaxation[1] - relaxation[0]) ** 2 / 12.0
    vacant = (layer.labels[sites] > X2)[:, None, None]
    pull, spread = mean * towards * vacant, variance * towards[..., None] * towards[..., None, :] * vacant[..., None]
    pulls, spreads = np.zeros((len(metals), 2)), np.zeros((len(metals), 2, 2))
    np.add.at(pulls, near, pull)
    np.add.at(spreads, near, spread)
    # without what this site itself has added
    left = layer.displacements[metals][near] - (pulls[near] - pull)
    covariance = spreads[near] - spread + max(disorder, LEAST_DISORDER) ** 2 * np.eye(2)
    weighted = np.linalg.solve(covariance, towards[..., None])[..., 0]
    linear, quadratic = (weighted * left).sum(axis=(1, 2)), (weighted * towards).sum(axis=(1, 2))
    nodes, weights = leggauss(16)
    fractions = mean + 0.5 * (relaxation[1] - relaxation[0]) * nodes
    exponents = linear[:, None] * fractions - 0.5 * quadratic[:, None] * fractions**2
    evidence[sites] = logsumexp(exponents, b=0.5 * weights, axis=1)
    return evidence


def class_shares(simulated: SimulatedMicrograph) -> NDArray[np.float64]:
    """Return the share of each class among the sites it can be at, as drawn, (5,): the priors of the observer."""
    doped = simulated.conditions["dopant_fraction"] if simulated.context.dopants else 0.0
    vacant = simulated.conditions["vacancy_fraction"] / 2.0
    return np.array([1.0 - doped, doped, 1.0 - 2.0 * vacant, vacant, vacant])


def with_equal_priors(posterior: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a posterior would be if all the classes of a site were equally likely.

    Its most probable class makes the mean recall of the classes, not the accuracy, as high as can be.

    Parameters
    ----------
    posterior : ndarray, shape (N, 5)
        Of `ideal_posterior`.
    shares : ndarray, shape (5,)
        Of `class_shares`.

    Returns
    -------
    ndarray of float64, shape (N, 5)

    Examples
    --------
    >>> with_equal_priors(np.array([[0.9, 0.1, 0, 0, 0]]), np.array([0.9, 0.1, 1, 0, 0])).tolist()
    [[0.5, 0.5, 0.0, 0.0, 0.0]]
    """
    weights = np.divide(posterior, shares, out=np.zeros_like(posterior), where=shares > 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def log_likelihoods(
    counts: NDArray[np.floating[Any]],
    expected: NDArray[np.float64],
    places: NDArray[np.float64],
    own: NDArray[np.integer[Any]],
    responses: NDArray[np.float64],
    *,
    sampling: float,
    offsets: NDArray[np.float64],
    radius: float,
) -> NDArray[np.float64]:
    """Return the log-likelihood of each response at each place, relative to that of the place's own.

    Parameters
    ----------
    counts, expected : ndarray, shape (H, W)
        Poisson variables and their true means.
    places : ndarray, shape (N, 2)
        Of columns, Å.
    own : ndarray of int, shape (N,)
        Which response of each column is part of `expected`.
    responses : ndarray, shape (S, S, K)
        Counts on a grid from -`radius` to `radius` along rows and columns around the column; S is odd.
    sampling : float
        Å/px.
    offsets : ndarray, shape (H, 2)
        Where each row of the scan lies relative to its nominal place, Å.
    radius : float
        Of the pixels that count, Å.

    Returns
    -------
    ndarray of float64, shape (N, K)

    Examples
    --------
    >>> flat = np.tile([0.0, 5.0], (5, 5, 1))  # no atom, or one that adds 5 counts to each pixel
    >>> expected = np.full((9, 9), 10.0)
    >>> log_likelihoods(np.full((9, 9), 15), expected, np.array([[4.0, 4.0]]), np.array([0]), flat,
    ...     sampling=1.0, offsets=np.zeros((9, 2)), radius=1.2).round(2).tolist()
    [[0.0, 5.41]]
    """
    (height, width), side = counts.shape, len(responses)
    window = np.arange(-int(radius / sampling) - 1, int(radius / sampling) + 2)
    near = np.clip(np.rint(places[:, 0] / sampling).astype(np.int64), 0, height - 1)
    centres = np.rint((places - offsets[near]) / sampling).astype(np.int64)
    table = np.ascontiguousarray(responses.reshape(side * side, -1))
    result = np.zeros((len(places), table.shape[1]))
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        rows, columns = (centres[part, axis, None] + window for axis in (0, 1))
        row_offsets = offsets[np.clip(rows, 0, height - 1)]
        down = rows * sampling + row_offsets[..., 0] - places[part, 0, None]
        along = (columns * sampling - places[part, 1, None])[:, None] + row_offsets[..., 1, None]
        inside = (down[..., None] ** 2 + along**2 < radius**2) & ((rows >= 0) & (rows < height))[..., None]
        inside &= ((columns >= 0) & (columns < width))[:, None]
        which, i, j = np.nonzero(inside)
        pixels = rows[which, i] * width + columns[which, j]
        n, mean = counts.ravel()[pixels], np.maximum(expected.ravel()[pixels], TINY)
        values = _between(table, side, down[which, i] / radius, along[inside] / radius)
        without = mean - values[np.arange(len(which)), own[part].astype(np.int64)[which]]
        for k in range(table.shape[1]):
            other = np.maximum(without + values[:, k], TINY)
            terms = n * np.log(other / mean) - (other - mean)
            result[part, k] = np.bincount(which, terms, minlength=len(rows))
    return result


def _between(
    table: NDArray[np.floating[Any]], side: int, down: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate a grid (side * side, K) over -1 to 1 linearly at (N,) places, (N, K)."""
    steps = [(place + 1.0) * (0.5 * (side - 1)) for place in (down, along)]
    low = [np.minimum(step.astype(np.int64), side - 2) for step in steps]
    (a, b), corner = ((step - at)[:, None] for step, at in zip(steps, low, strict=True)), low[0] * side + low[1]
    upper = table[corner] + b * (table[corner + 1] - table[corner])
    lower = table[corner + side] + b * (table[corner + side + 1] - table[corner + side])
    return np.asarray(upper + a * (lower - upper))
