"""The method, called in order: micrograph -> columns -> moments (+ context) -> classifier -> classification."""

from __future__ import annotations

import warnings
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem.attention import ModelConfig
from contextem.classification import Classification
from contextem.columns import Columns, find_columns
from contextem.context import HOSTS, Context
from contextem.contrast import contrast_features
from contextem.micrograph import Detector, Micrograph
from contextem.model import Model, load_model
from contextem.moments import column_moments
from contextem.neighbours import Neighbourhood, neighbourhood
from contextem.patches import antialias, patch_complete
from contextem.responses import DETECTOR_ANGLES

CHECKED_COLUMNS = 300
"""Columns by which the context is checked against the image."""
LATTICE_TOLERANCE = 0.08
"""Relative distance of lattice constants up to which a host may be mistaken for another one."""
MISFIT = 1.0
"""Mean familiarity by which another context must fit better before it is proposed."""


def classify(
    micrograph: Micrograph,
    context: Context,
    *,
    columns: Columns | None = None,
    model: Model | None = None,
    device: str | None = None,
) -> Classification:
    """Classify every atomic column of a micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        A dark-field image with its sampling.
    context : Context
        Host, dopants, energy and detector.  Energy and detector it does not state are taken from the micrograph.
    columns : Columns, optional
        Your own columns; found by `find_columns` otherwise.
    model : Model, optional
        From `load_model`; the packaged one by default.
    device : str, optional
        A torch device for the classifier.

    Returns
    -------
    Classification

    Raises
    ------
    ValueError
        If the energy or the detector is stated nowhere, the model was not trained with them, no lattice is found, a
        given column lies outside the image, or every patch leaves it.

    Warns
    -----
    UserWarning
        If another host or detector fits the image better than the stated one.

    Examples
    --------
    >>> import contextem as ctm
    >>> from contextem.examples import demo_micrograph
    >>> example = demo_micrograph()
    >>> result = ctm.classify(example.micrograph, example.context)
    >>> len(result) > 500
    True
    """
    model = load_model() if model is None else model
    context = context.with_recording(micrograph)
    context_features = model.context_features(context)
    columns = find_columns(micrograph, context) if columns is None else columns
    contrast, complete, around = measure(micrograph, columns, context.lattice_constant, model.config)
    prediction = model.predict(contrast, context_features, around, device=device)
    better = better_context(contrast[complete], context, model, device=device)
    if better is not None:
        warnings.warn(
            f"context: the image looks less like {_words(context)} than like {_words(better)}; check host and detector",
            stacklevel=2,
        )
    return Classification(
        positions=columns.positions,
        sublattice=columns.sublattice,
        grain=columns.grain,
        probabilities=prediction.probabilities,
        patch_probabilities=prediction.patch_probabilities,
        observed=columns.observed,
        complete=complete,
        familiarity=prediction.familiarity,
        unknown=model.unknown(prediction.familiarity, complete),
        contaminated=np.zeros(len(columns), bool),
        sampling=micrograph.sampling,
        lattice_constant=context.lattice_constant,
        provenance={
            "context": context.to_dict(),
            "better_context": None if better is None else better.to_dict(),
            "micrograph": {"source": micrograph.source, "provenance": dict(micrograph.provenance)},
            "model": {name: model.info[name] for name in ("name", "version") if name in model.info},
            "contextem_version": __version__,
        },
    )


def better_context(
    contrast: NDArray[np.float32], context: Context, model: Model, *, device: str | None = None
) -> Context | None:
    """Check whether the stated context fits the image, or another host or detector fits it better.

    Parameters
    ----------
    contrast : (N, F) float32
        Features of complete columns.
    context : Context
        As stated.
    model : Model
        Its familiarity is what the contexts are judged by.
    device : str, optional
        A torch device.

    Returns
    -------
    Context or None
        None where the stated one fits; otherwise the one that fits best, among the hosts the model was trained on whose
        lattice constant is within `LATTICE_TOLERANCE` of the stated one, on the stated detector and on others it knows.
    """
    encoding = model.config.context
    if encoding == "none" or model.misfit_below == -np.inf or len(contrast) == 0:
        return None
    chosen = contrast[:: -(-len(contrast) // CHECKED_COLUMNS)]

    def fit(candidate: Context) -> float:
        return float(model.predict(chosen, candidate.vector(encoding), device=device).familiarity.mean())

    stated = fit(context)
    if stated > model.misfit_below:
        return None
    trained = model.info.get("training", {"hosts": HOSTS})["hosts"]  # on others familiarity is extrapolated
    candidates = [
        Context(host, tuple(d for d in context.dopants if d != known.metal), context.energy, detector)
        for host, known in HOSTS.items()
        if host in trained and abs(known.lattice_constant / context.lattice_constant - 1.0) < LATTICE_TOLERANCE
        for detector in dict.fromkeys((context.detector, *map(Detector, DETECTOR_ANGLES)))
    ]
    best = max(candidates, key=fit, default=context)
    return best if fit(best) > stated + MISFIT else None


def _words(context: Context) -> str:
    assert context.detector is not None
    angles = context.detector.inner, context.detector.outer
    at = "" if None in angles else f" of {angles[0]:g} to {angles[1]:g} mrad"
    return f"{context.host} on {context.detector.name}{at}"


class Measured(NamedTuple):
    """What a model is fed with.

    Attributes
    ----------
    contrast : (N, F) float32
        Contrast features.
    complete : (N,) bool
        Whether the patch lies inside the image.
    around : Neighbourhood
        The columns around each column.
    """

    contrast: NDArray[np.float32]
    complete: NDArray[np.bool_]
    around: Neighbourhood


def measure(micrograph: Micrograph, columns: Columns, lattice_constant: float, config: ModelConfig) -> Measured:
    """Measure the columns of a micrograph as a model needs them.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    columns : Columns
        N columns inside it.
    lattice_constant : float
        Å; with the sampling it sets the size of the patches.
    config : ModelConfig
        Basis and patch radius.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If a column lies outside the image, or all patches leave it.
    """
    outside = ((columns.positions < -0.5) | (columns.positions > np.array(micrograph.shape) - 0.5)).any(axis=1)
    if outside.any():
        row, column = columns.positions[outside][0]
        raise ValueError(
            "columns: expected positions (row, column) inside the image of "
            f"{micrograph.shape[0]} x {micrograph.shape[1]} px, got {outside.sum()} outside, "
            f"the first at ({row:g}, {column:g}); leave them out or swap row and column"
        )
    scale = config.patch_scale(micrograph.sampling, lattice_constant)
    image = antialias(micrograph.as_float("float32"), scale)
    complete = patch_complete(image.shape, columns.positions, config.size, scale=scale)
    # Beyond the border the image is mirrored: zeros there would tell the classifier the offset of the detector.
    margin = min(ceil(scale * config.size / 2) + 1, *image.shape)
    mirrored = np.pad(image, margin, mode="symmetric")
    moments = column_moments(mirrored, columns.positions + margin, config.basis, scale=scale)
    around = neighbourhood(columns.positions, columns.sublattice, complete, lattice_constant / micrograph.sampling)
    return Measured(contrast_features(moments, complete, around, config.basis), complete, around)
