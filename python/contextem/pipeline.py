"""The method, called in order: micrograph -> columns -> moments (+ context) -> classifier -> classification."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem._stages import stage
from contextem.background import HEAVY
from contextem.calibration import Calibration, calibrate
from contextem.classification import Classification
from contextem.columns import Columns, find_columns
from contextem.context import Context
from contextem.detectors import combine, strangers, superimpose
from contextem.evidence import gather
from contextem.micrograph import Micrograph, estimate_sampling
from contextem.model import Model, load_model
from contextem.remarks import ClassificationWarning, SamplingWarning
from contextem.series import average_by_detector
from contextem.sites import sublattice_posteriors

TOLD_OF_MODEL = ("name", "version", "defect_shares")
"""What goes into the provenance of what a model has dealt with."""
ANOTHER = 0.15
"""Relative difference of the sampling stated and that by the spectrum beyond which columns are on another lattice."""
FAR_OFF = 0.05
"""Relative difference of the sampling stated and that by the lattice from which on sampling and host are doubted."""
MANY = 0.1
"""Share of unknown columns from which on the context is doubted."""
UNCERTAIN = 0.9
"""Posterior of the sublattices below which it is told that they may be mistaken for each other."""


def classify(
    micrograph: Micrograph | Sequence[Micrograph],
    context: Context,
    *,
    columns: Columns | None = None,
    model: Model | None = None,
    device: str | None = None,
    estimate_angles: bool | None = None,
    tile: int | None = None,
) -> Classification:
    """Classify every atomic column of a micrograph.

    Parameters
    ----------
    micrograph : Micrograph or sequence of Micrograph
        A dark-field image with its sampling; or those of several detectors that recorded at once, or a series of the
        same area, which is averaged after registration.  Of several, each names its detector.
    context : Context
        Host, dopants, energy and detector.  Energy and detector it does not state are taken from the micrograph.
    columns : Columns, optional
        Your own columns; found by `find_columns` otherwise.
    model : Model, optional
        From `load_model`; the packaged one by default.
    device : str, optional
        A torch device for the classifier.
    estimate_angles : bool, optional
        Whether collection angles are taken from the image, see `contextem.angles`; by default where none are stated.
    tile : int, optional
        Rows of a large image that are worked on at once, as for `find_columns`; it never changes the result. Series and
        several detectors are put together as whole images.

    Returns
    -------
    Classification

    Raises
    ------
    ValueError
        If the energy or the detector is stated nowhere, the model was not trained with them, no lattice is found, a
        given column lies outside the image, every patch leaves it, or several images do not belong together.
    TypeError
        If `micrograph` is none, such as an array or the name of a file.

    Warns
    -----
    ContextWarning
        If another host or detector fits the image better than the stated one.
    SamplingWarning
        If the sampling is far from that by the lattice.
    ClassificationWarning
        If many columns are unknown, or the sublattices may be mistaken for each other.
    RegistrationWarning
        If images of several detectors do not look like the same area.
    ExtrapolationWarning
        If the model was not trained on the host or a dopant.

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
    given = [micrograph] if isinstance(micrograph, Micrograph) else list(micrograph)
    for each in given:
        if not isinstance(each, Micrograph):
            raise TypeError(
                f"micrograph: expected one of contextem.read or contextem.Micrograph, got {type(micrograph).__name__}"
            )
    contexts = _contexts(given, context)
    images, contexts = average_by_detector(given, contexts)
    own = columns is not None
    with stage("columns"):
        columns = _find(images, context, tile) if columns is None else columns
    with stage("calibration"):
        calibration = calibrate(columns, context.lattice_constant, images[0].sampling)
    told = [
        gather(image, columns, calibration, each, model, by_image=estimate_angles, device=device, tile=tile)
        for image, each in zip(images, contexts, strict=True)
    ]
    prediction = combine([each.prediction for each in told])
    complete = told[0].measured.complete
    between = (columns.grain < 0) & (columns.grain >= 0).any()
    unknown = between | model.unknown(prediction.familiarity, complete)
    sublattices = sublattice_posteriors(prediction.probabilities, columns.sublattice, columns.grain)
    misfits = [remark for each in told for remark in each.warnings]
    contaminated = np.max([each.haze for each in told], axis=0) > HEAVY
    judged = complete & ~between & ~contaminated
    doubts = _doubts(unknown[judged], sublattices) if not misfits else ()  # they would follow from misfits
    told_of = (*misfits, *_misfit_of_sampling(calibration, context), *strangers(images), *doubts)
    remarks = {str(each): each for each in told_of}  # detectors may say the same
    if remarks and not own:
        _check_spectrum(images[0], context)
    for remark in remarks.values():
        warnings.warn(remark, stacklevel=2)
    return Classification(
        positions=columns.positions,
        sublattice=columns.sublattice,
        grain=columns.grain,
        probabilities=prediction.probabilities,
        patch_probabilities=prediction.patch_probabilities,
        observed=columns.observed,
        complete=complete,
        familiarity=prediction.familiarity,
        unknown=unknown,
        contaminated=contaminated,
        sampling=calibration.sampling,
        lattice_constant=context.lattice_constant,
        provenance={
            **told[0].to_dict(),
            "further_detectors": [each.to_dict() for each in told[1:]],
            "sublattices": sublattices,
            "calibration": calibration.to_dict(),
            "micrograph": _origin(given[0]),
            "further_micrographs": [_origin(each) for each in given[1:]],
            "model": {name: model.info[name] for name in TOLD_OF_MODEL if name in model.info},
            "stated": {
                "context": contexts[0].to_dict(),
                "further_detectors": [each.to_dict()["detector"] for each in contexts[1:]],
                "estimate_angles": estimate_angles,
            },
            "warnings": list(remarks),
            "contextem_version": __version__,
        },
    )


def _find(images: Sequence[Micrograph], context: Context, tile: int | None) -> Columns:
    """Find columns; where there are none the spectrum may tell why."""
    try:
        return find_columns(superimpose(images), context, tile=tile)
    except ValueError:
        _check_spectrum(images[0], context)
        raise


def _check_spectrum(micrograph: Micrograph, context: Context) -> None:
    """Raise ValueError if the spectrum shows another lattice than the one on which columns were found.

    At a sampling off by the square root of 3, every third site of the true lattice makes one of the host's size.
    """
    try:
        sampling = estimate_sampling(micrograph.data, context.lattice_constant)
    except ValueError:
        return  # no lattice stands out of this spectrum
    if abs(sampling / micrograph.sampling - 1.0) > ANOTHER:
        raise ValueError(
            f"sampling: expected about {sampling:.4g} Å/px, at which the spectrum of the image is that of "
            f"{context.host}, got {micrograph.sampling:.4g}; correct it, have it estimated, or check the host"
        )


def _misfit_of_sampling(calibration: Calibration, context: Context) -> Iterator[SamplingWarning]:
    """Yield that sampling and host do not fit together, if so."""
    off = calibration.by_lattice / calibration.stated - 1.0
    if calibration.measured and abs(off) > FAR_OFF:
        yield SamplingWarning(
            f"sampling: {calibration.by_lattice:.4g} Å/px by the lattice of {context.host} is {100 * abs(off):.0f} % "
            f"{'above' if off > 0 else 'below'} the {calibration.stated:.4g} Å/px stated; check sampling and host"
        )


def _doubts(unknown: NDArray[np.bool_], sublattices: Sequence[dict[str, Any]]) -> Iterator[ClassificationWarning]:
    """Yield what makes the result doubtful, and what to look at."""
    if len(unknown) and unknown.mean() > MANY:
        yield ClassificationWarning(
            f"columns: {100 * unknown.mean():.0f} % look like none of the classes; check host, dopants, detector and "
            "sampling, or look for another layer or carbon in the image"
        )
    doubtful = [each for each in sublattices if each["posterior"] < UNCERTAIN]
    if doubtful:
        least = min(doubtful, key=lambda each: float(each["posterior"]))
        yield ClassificationWarning(
            f"sublattices: which one is the metal's is certain to {100 * least['posterior']:.0f} % only in grain "
            f"{least['grain']}; check detector and collection angles, or classify with the image of another detector"
        )


def _origin(micrograph: Micrograph) -> dict[str, Any]:
    return {"source": micrograph.source, "provenance": dict(micrograph.provenance)}


def _contexts(micrographs: Sequence[Micrograph], context: Context) -> list[Context]:
    """Return the context of each micrograph: what `context` does not state is taken from it."""
    if not micrographs:
        raise ValueError("micrograph: expected at least one, got none")
    named = any(each.detector is not None for each in micrographs)
    if len(micrographs) > 1 and named and context.detector is not None:
        raise ValueError(
            f"context: expected no detector beside micrographs that name theirs, got {context.detector.name}; "
            "leave it out"
        )
    return [context.with_recording(each) for each in micrographs]
