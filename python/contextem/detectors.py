"""Several detectors that record at once: what each tells of a column, put together.

    P(class | site) ~ prod_k P_k(class)^w,    w = (1 + GAIN (K - 1)) / K
    logit P(metal site) = sum_k logit P_k(metal site)

K detectors see the same column, its relaxation and the same carbon: their errors are not independent (w = 1), nor are
they the same (w = 1/K).  GAIN makes the true classes likeliest on simulated pairs of detectors, HAADF and MAADF.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from contextem.micrograph import Micrograph
from contextem.model import Prediction
from contextem.remarks import RegistrationWarning
from contextem.sites import agree_on_sites, site_odds

GAIN = 0.3
"""What each further detector adds, 0 to 1."""

ALIKE = 0.2
"""Correlation of the images of two detectors below which they hardly show the same area: it is about 0.9 where they do
on good micrographs, and 0.1 at most on different areas of a crystal."""

SAME_SAMPLING = 1e-3
"""Relative difference of the samplings of images that count as recorded at once."""


def combine(predictions: Sequence[Prediction]) -> Prediction:
    """Put together what several detectors tell of the same columns.

    Parameters
    ----------
    predictions : sequence of Prediction
        One a detector, of the same columns.

    Returns
    -------
    Prediction
        The familiarity is the mean.

    Examples
    --------
    >>> one = np.array([[0.0, 0.0, 0.6, 0.4, 0.0]], np.float32)
    >>> two = np.array([[0.0, 0.0, 0.7, 0.3, 0.0]], np.float32)
    >>> known = np.zeros(1, np.float32)
    >>> combine([Prediction(one, one, known), Prediction(two, two, known)]).probabilities.round(3).tolist()[0][2]
    0.6930000185966492
    """
    if len(predictions) == 1:
        return predictions[0]
    weight = (1.0 + GAIN * (len(predictions) - 1)) / len(predictions)
    alone = _product([each.patch_probabilities for each in predictions], weight)
    sites = np.sum([site_odds(each.probabilities) for each in predictions], axis=0)
    within = _product([each.probabilities for each in predictions], weight)
    familiarity = np.mean([each.familiarity for each in predictions], axis=0)
    return Prediction(agree_on_sites(within, sites, 1.0), alone, np.asarray(familiarity, np.float32))


def _product(posteriors: Sequence[NDArray[np.float32]], weight: float) -> NDArray[np.float32]:
    """Product of posteriors (N, 5) to a power, with rows that add up to one."""
    logs = weight * np.sum(np.log(np.maximum(np.asarray(posteriors, np.float64), 1e-30)), axis=0)
    product = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(product / product.sum(axis=1, keepdims=True), np.float32)


def superimpose(micrographs: Sequence[Micrograph]) -> Micrograph:
    """Return the mean of the images of several detectors, each brought to mean 0 and standard deviation 1.

    Columns of either sublattice stand out in it, whichever is the darker on one of the detectors.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        Recorded at once.

    Returns
    -------
    Micrograph
        The only one itself, where there is one; without detector otherwise.

    Raises
    ------
    ValueError
        If shape or sampling differ.
    """
    first = micrographs[0]
    if len(micrographs) == 1:
        return first
    for each in micrographs[1:]:
        if each.shape != first.shape or abs(each.sampling / first.sampling - 1.0) > SAME_SAMPLING:
            raise ValueError(
                "micrograph: expected images recorded at once, with the same shape and sampling, got "
                f"{first.shape} px of {first.sampling:.4g} Å and {each.shape} px of {each.sampling:.4g} Å; "
                "classify them one by one"
            )
    total = np.zeros(first.shape)
    for each in micrographs:
        data = each.as_float("float64")
        total += (data - data.mean()) / data.std()
    return Micrograph(total / len(micrographs), first.sampling, provenance=first.provenance)


def strangers(micrographs: Sequence[Micrograph]) -> list[RegistrationWarning]:
    """Return a warning for each image that does not look as if recorded together with the first.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        Of the same shape.

    Returns
    -------
    list of RegistrationWarning
        One for each whose correlation with the first, noise and background left out, is below `ALIKE`.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(3, 64, 64))
    >>> one, two, other = (Micrograph(data, 0.2) for data in (noise[0], noise[0] + 0.3 * noise[1], noise[2]))
    >>> len(strangers([one, two])), len(strangers([one, other]))
    (0, 1)
    """
    if len(micrographs) == 1:
        return []
    first, *others = (_detail(each.as_float("float32")) for each in micrographs)
    correlations = [float(np.mean(first * each)) for each in others]
    return [
        RegistrationWarning(
            f"micrograph: {each.source or 'an image'} hardly looks like {micrographs[0].source or 'the first image'} "
            f"(correlation {correlation:.2f}); check that they were recorded at once, of the same area"
        )
        for each, correlation in zip(micrographs[1:], correlations, strict=True)
        if correlation < ALIKE
    ]


def _detail(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return an image without noise and background, of mean 0 and standard deviation 1."""
    band = gaussian_filter(image, 1.0) - gaussian_filter(image, 8.0)
    return np.asarray((band - band.mean()) / band.std())
