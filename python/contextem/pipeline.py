"""The method, called in order: micrograph -> columns -> moments (+ context) -> classifier -> classification."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem.classification import Classification
from contextem.columns import Columns, find_columns
from contextem.context import Context
from contextem.micrograph import Micrograph
from contextem.contrast import contrast_features
from contextem.attention import ModelConfig
from contextem.model import Model, load_model
from contextem.moments import column_moments
from contextem.neighbours import neighbourhood
from contextem.patches import antialias, patch_complete


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
    contrast, complete = measure(micrograph, columns, context.lattice_constant, model.config)
    probabilities, familiarity = model.predict(contrast, context_features, device=device)
    return Classification(
        positions=columns.positions,
        probabilities=probabilities,
        observed=columns.observed,
        complete=complete,
        sampling=micrograph.sampling,
        lattice_constant=context.lattice_constant,
        provenance={
            "context": context.to_dict(),
            "micrograph": {"source": micrograph.source, "provenance": dict(micrograph.provenance)},
            "model": {name: model.info[name] for name in ("name", "version") if name in model.info},
            "contextem_version": __version__,
        },
    )


def measure(
    micrograph: Micrograph, columns: Columns, lattice_constant: float, config: ModelConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
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
    (N, F) float32, (N,) bool
        Contrast features, and whether the patch lies inside the image.

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
    return contrast_features(moments, complete, around, config.basis), complete
