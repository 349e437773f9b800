"""What one micrograph tells of its columns: posterior, familiarity, carbon, and the collection angles it was taken at.

Where collection angles are not stated they are estimated from the image, see `contextem.angles`.  If the image can be
explained with either sublattice as the metal's, both ways count:

    P = w_0 P(angles_0) + w_1 P(angles_1),    w_h ~ likelihood(angles_h) * share of the nominal angles' votes for h
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._stages import stage
from contextem.angles import AngleEstimate, estimate_angles
from contextem.background import haze
from contextem.calibration import Calibration
from contextem.columns import Columns
from contextem.context import HOSTS, Context
from contextem.measurement import Measured, measure
from contextem.micrograph import Detector, Micrograph
from contextem.model import Model, Prediction
from contextem.remarks import ContextWarning
from contextem.responses import ANGLE_RANGES, DETECTOR_ANGLES
from contextem.sites import METAL_SITE
from contextem.tiles import pixels

CHECKED_COLUMNS = 300
"""Columns by which the context is checked against the image."""
LATTICE_TOLERANCE = 0.08
"""Relative distance of lattice constants up to which a host may be mistaken for another one."""
MISFIT = 1.0
"""Mean familiarity by which another context must fit better before it is proposed."""
FAR_OFF = 0.25
"""Log of measured over expected X2/M beyond which the context is doubted."""
NEGLIGIBLE = 0.01
"""Weight below which a way to explain the image is left out."""


@dataclass(frozen=True)
class Evidence:
    """What one micrograph tells of its columns.

    Attributes
    ----------
    context : Context
        As stated, with the collection angles that were used.
    prediction : Prediction
        Posterior and familiarity of the columns.
    measured : Measured
        What the model was fed with.
    haze : (N,) float64
        Carbon on each column, see `contextem.background`.
    angles : tuple of (AngleEstimate, float)
        Collection angles by the image, and the weight of either way to explain it; empty where nothing was estimated.
    angles_used : bool
        Whether these were used.
    better_context : Context or None
        One that fits the image better.
    warnings : tuple of ContextWarning
        What the reader should know.
    """

    context: Context
    prediction: Prediction
    measured: Measured
    haze: NDArray[np.float64]
    angles: tuple[tuple[AngleEstimate, float], ...]
    angles_used: bool
    better_context: Context | None
    warnings: tuple[ContextWarning, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return context, estimated angles and a better context as plain values that JSON can hold."""
        return {
            "context": self.context.to_dict(),
            "better_context": None if self.better_context is None else self.better_context.to_dict(),
            "collection_angles_by_image": [each.to_dict() | {"weight": weight} for each, weight in self.angles],
            "collection_angles_by_image_used": self.angles_used,
        }


def gather(
    micrograph: Micrograph,
    columns: Columns,
    calibration: Calibration,
    context: Context,
    model: Model,
    *,
    by_image: bool | None = None,
    device: str | None = None,
    tile: int | None = None,
) -> Evidence:
    """Measure the columns of a micrograph and let the model judge them.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    columns : Columns
        Its columns.
    calibration : Calibration
        Of the image.
    context : Context
        With energy and detector.
    model : Model
        From `load_model`.
    by_image : bool, optional
        Whether collection angles are taken from the image: by default where none are stated.
    device : str, optional
        A torch device.
    tile : int, optional
        As for `contextem.find_columns`.

    Returns
    -------
    Evidence

    Raises
    ------
    ValueError
        As for `contextem.classify`.
    """
    nominal = model.context_features(context)  # asks for what is missing before anything is measured
    assert context.detector is not None
    with stage("moments"):
        measured = measure(micrograph, columns, context.lattice_constant, model.config, calibration.scale, tile=tile)

    def predict(vector: NDArray[np.float32]) -> Prediction:
        with stage("classifier"):
            return model.predict(measured.contrast, vector, measured.around, device=device)

    stated = context.detector.inner is not None and context.detector.outer is not None
    wanted = not stated if by_image is None else by_image
    with stage("angles"):
        estimates = estimate_angles(micrograph, columns, measured.around, context) if reads_angles(model) else []
    explaining = [each for each in estimates if each.explains]
    used = wanted and bool(explaining)
    if used:
        angles = _weighed(explaining, measured, lambda: predict(nominal))
        prediction = _mean([predict(with_angles(context, each).vector()) for each, _ in angles], [w for _, w in angles])
        context = with_angles(context, angles[0][0])
    else:
        prediction = predict(nominal)
        angles = tuple((each, 1.0) for each in explaining[:1])
    with stage("context check"):
        better = better_context(
            _some(measured),
            context,
            model,
            _other_angles(micrograph, columns, measured, context, model),
            # at angles of its own choice another host explains any brightness that the stated one explains
            other_hosts=not used,
            device=device,
        )
    warnings: tuple[ContextWarning, ...] = ()
    if better is not None:
        found = f"the image looks less like {_words(context)} than like {_words(better)}"
        warnings = (ContextWarning(f"context: {found}; check host and detector"),)
    elif estimates and not used:
        warnings = _misfit_of_angles(context, estimates[0])
    carbon = haze(pixels(micrograph.data), columns.positions, measured.around)
    return Evidence(context, prediction, measured, carbon, angles, used, better, warnings)


def _some(measured: Measured) -> NDArray[np.float32]:
    """Features of complete columns all over the image, by which the context is checked."""
    complete = np.flatnonzero(measured.complete)
    return measured.contrast[complete[:: -(-len(complete) // CHECKED_COLUMNS) or 1]]


def reads_angles(model: Model) -> bool:
    """Whether collection angles make a difference to a model."""
    return model.config.context == "intensities"


def _weighed(
    explaining: list[AngleEstimate], measured: Measured, nominal: Callable[[], Prediction]
) -> tuple[tuple[AngleEstimate, float], ...]:
    """Weigh the ways to explain an image, the likelier first."""
    weights = np.array([each.likelihood for each in explaining])
    if weights.min() > NEGLIGIBLE * weights.max() and len(explaining) > 1:
        metal = nominal().probabilities[:, METAL_SITE].sum(axis=1)
        for i, each in enumerate(explaining):
            weights[i] *= np.mean(np.where(measured.around.side == each.metal_side, metal, 1.0 - metal))
    weights /= weights.sum()
    order = [i for i in np.argsort(-weights, kind="stable") if weights[i] > NEGLIGIBLE]
    return tuple((explaining[i], float(weights[i] / weights[order].sum())) for i in order)


def _mean(predictions: list[Prediction], weights: list[float]) -> Prediction:
    probabilities, alone, familiarity = (
        np.average(part, axis=0, weights=weights) for part in zip(*predictions, strict=True)
    )
    return Prediction(
        np.asarray(probabilities, np.float32), np.asarray(alone, np.float32), np.asarray(familiarity, np.float32)
    )


def _misfit_of_angles(context: Context, best: AngleEstimate) -> tuple[ContextWarning, ...]:
    """Say that the brightness which is seen is far from what is expected at the angles that were used."""
    mismatch = best.mismatch_at(context)
    if abs(mismatch) < FAR_OFF:
        return ()
    return (
        ContextWarning(
            f"detector: X2 is {best.ratio:.2f} times as bright as the metal over the hollow sites, and "
            f"{best.ratio * np.exp(-mismatch):.2f} times is expected of {_words(context)}; check host and detector, or "
            "have the collection angles estimated with estimate_angles=True or --estimate-angles"
        ),
    )


def with_angles(context: Context, estimate: AngleEstimate) -> Context:
    """Return the context with the estimated collection angles, and their origin in its provenance."""
    origin = {"collection_angles": f"image: X2/M = {estimate.ratio:.2f} over hollow sites"}
    return replace(context, detector=estimate.detector, provenance=context.provenance | origin)


def _other_angles(
    micrograph: Micrograph, columns: Columns, measured: Measured, context: Context, model: Model
) -> Iterator[Context]:
    """Yield the same context on each kind of detector, with the angles at which it explains the image."""
    if not reads_angles(model):
        return
    for name in ANGLE_RANGES:
        named = replace(context, detector=Detector(name))
        for estimate in estimate_angles(micrograph, columns, measured.around, named):
            if estimate.explains:
                yield with_angles(named, estimate)


def better_context(
    contrast: NDArray[np.float32],
    context: Context,
    model: Model,
    same_host: Iterable[Context] = (),
    *,
    other_hosts: bool = True,
    device: str | None = None,
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
    same_host : iterable of Context
        Further candidates, which are preferred: a detector is mistaken more often than a specimen.
    other_hosts : bool
        Whether other hosts are candidates.
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
    others = [
        Context(host, tuple(d for d in context.dopants if d != known.metal), context.energy, detector)
        for host, known in HOSTS.items()
        if other_hosts
        and host in trained
        and abs(known.lattice_constant / context.lattice_constant - 1.0) < LATTICE_TOLERANCE
        for detector in dict.fromkeys((context.detector, *map(Detector, DETECTOR_ANGLES)))
    ]
    better, fits = None, stated
    for candidates in (list(same_host), others):
        if candidates and max(scores := [fit(each) for each in candidates]) > fits + MISFIT:
            fits = max(scores)
            better = candidates[scores.index(fits)]
    return better


def _words(context: Context) -> str:
    assert context.detector is not None
    angles = context.detector.inner, context.detector.outer
    at = "" if None in angles else f" of {angles[0]:.0f} to {angles[1]:.0f} mrad"
    return f"{context.host} on {context.detector.name}{at}"
