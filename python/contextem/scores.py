"""Scores of posteriors against true classes: accuracy, recall, precision, calibration, for any part of the images.

Any number of classifiers stand beside each other: what each says of the columns of test images is a `Predictions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from contextem.baselines import LabelledPatches
from contextem.classification import Classification
from contextem.columns import CLASSES
from contextem.train import LabelledColumns

DOSE_BINS = ((400.0, 1000.0), (1000.0, 3000.0), (3000.0, 20000.0))
"""Electrons a pixel."""
CALIBRATION_BINS = 15
"""Bins of equal width, from 0 to 1, of the probability of the most probable class."""


@dataclass(frozen=True)
class Predictions:
    """What one classifier, or observer, says of labelled columns of test images.

    Attributes
    ----------
    probabilities : (N, 5) float
        Posteriors.
    labels : (N,) int
        Index into `contextem.columns.CLASSES`.
    image : (N,) int
        Which image each column is from; indexes the attributes below.
    case, condition : (I,) str
        Host and dopant, energy and detector.
    dose : (I,) float64
        Electrons a pixel.
    """

    probabilities: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    image: NDArray[np.int64]
    case: NDArray[np.str_]
    condition: NDArray[np.str_]
    dose: NDArray[np.float64]

    @classmethod
    def of(cls, columns: LabelledColumns | LabelledPatches, probabilities: NDArray[np.floating[Any]]) -> Predictions:
        """Return the posteriors (N, 5) of measured columns with all that they are scored by."""
        return cls(probabilities, columns.labels, columns.image, columns.case, columns.condition, columns.dose)

    def among(self, images: NDArray[np.bool_]) -> Scores:
        """Score the columns of chosen images (I,)."""
        chosen = images[self.image]
        return score(self.probabilities[chosen], self.labels[chosen])

    def accuracy_by_image(self) -> NDArray[np.float64]:
        """(I,) share of the columns of each image classified right; NaN for an image without columns."""
        right = self.probabilities.argmax(axis=1) == self.labels
        count = np.bincount(self.image, minlength=len(self.dose))
        return _ratio(np.bincount(self.image, right, minlength=len(self.dose)), count)


@dataclass(frozen=True)
class Scores:
    """Scores of labelled columns, all from the confusion matrix and the columns that have no partner.

    Attributes
    ----------
    confusion : (5, 5) int
        Counts, rows the true class, columns the predicted one, in the order of `contextem.columns.CLASSES`.
    entropy : float
        Mean entropy of the posterior in bits.
    missed : (5,) int
        Columns of each true class that were not found; they lower accuracy and recall.
    extra : (5,) int
        Columns of each predicted class where the truth has none; they lower precision.
    calibration_error : float
        Expected calibration error, see `reliability`.
    """

    confusion: NDArray[np.int64]
    entropy: float
    missed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    extra: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    calibration_error: float = float("nan")

    @property
    def support(self) -> NDArray[np.int64]:
        """(5,) columns of each true class."""
        total: NDArray[np.int64] = self.confusion.sum(axis=1) + self.missed
        return total

    @property
    def accuracy(self) -> float:
        """Share of the true columns found and classified right."""
        return float(np.trace(self.confusion) / max(1, self.support.sum()))

    @property
    def recall(self) -> NDArray[np.float64]:
        """(5,) share of each true class found and classified right; NaN for a class that does not occur."""
        return _ratio(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(5,) share of each predicted class that is right; NaN for a class never predicted."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=0) + self.extra)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(5,) harmonic mean of precision and recall; NaN for a class that does not occur."""
        both = self.confusion.sum(axis=0) + self.extra + self.support
        return np.where(self.support > 0, _ratio(2 * np.diag(self.confusion), both), np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur."""
        return float(np.nanmean(self.recall))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return float(np.nanmean(self.f1))

    def to_dict(self) -> dict[str, Any]:
        """Return every score as plain numbers; null where a score is not defined."""
        return {
            "columns": int(self.support.sum()),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "expected_calibration_error": None if np.isnan(self.calibration_error) else self.calibration_error,
            "mean_entropy_bits": self.entropy,
            "classes": {
                name: {
                    "count": int(self.support[i]),
                    "precision": None if np.isnan(self.precision[i]) else float(self.precision[i]),
                    "recall": float(self.recall[i]),
                    "f1": float(self.f1[i]),
                }
                for i, name in enumerate(CLASSES)
                if self.support[i]
            },
            "confusion": self.confusion.tolist(),
            "missed": self.missed.tolist(),
            "extra": self.extra.tolist(),
        }

    def table(self) -> str:
        """Return the scores of each class as lines of text, in per cent."""
        lines = [f"{'class':<15} {'columns':>8} {'precision':>10} {'recall':>8} {'F1':>8}"]
        for i, name in enumerate(CLASSES):
            if self.support[i]:
                precision, recall, f1 = (f"{100 * v:.2f}" for v in (self.precision[i], self.recall[i], self.f1[i]))
                lines.append(f"{name:<15} {self.support[i]:>8} {precision:>10} {recall:>8} {f1:>8}")
        lines.append(
            f"accuracy {100 * self.accuracy:.2f} %, balanced {100 * self.balanced_accuracy:.2f} %, "
            f"macro-F1 {100 * self.macro_f1:.2f} %"
        )
        if self.missed.any() or self.extra.any():
            lines.append(f"{self.missed.sum()} columns not found, {self.extra.sum()} found where there is none")
        return "\n".join(lines)


def confusion_matrix(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    weight: NDArray[np.floating[Any]] | None = None,
) -> NDArray[Any]:
    """(5, 5) counts, or sums of weights, rows the true class, columns the most probable one."""
    pairs = labels * len(CLASSES) + probabilities.argmax(axis=1)
    return np.bincount(pairs, weight, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio


def score(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    weight: NDArray[np.floating[Any]] | None = None,
) -> Scores:
    """Score posteriors (N, 5) against true labels (N,), of columns that stand for `weight` (N,) columns, or for one."""
    p = np.maximum(probabilities, np.finfo(np.float32).tiny)
    entropy = -(probabilities * np.log2(p)).sum(axis=1)
    return Scores(
        confusion_matrix(probabilities, labels, weight),
        float(np.average(entropy, weights=weight)) if len(labels) else float("nan"),
        calibration_error=reliability(probabilities, labels, weight=weight).error,
    )


class Reliability(NamedTuple):
    """How often a classifier is right, by how sure it is.

    Attributes
    ----------
    columns : (B,) int
        How many in each bin of the probability of the most probable class.
    confidence, accuracy : (B,) float64
        Mean of that probability, and share classified right; NaN where the bin is empty.
    """

    columns: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by the columns; NaN without columns."""
        if not self.columns.any():
            return float("nan")
        return float(np.nansum(self.columns * np.abs(self.confidence - self.accuracy)) / self.columns.sum())


def reliability(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    bins: int = CALIBRATION_BINS,
    weight: NDArray[np.floating[Any]] | None = None,
) -> Reliability:
    """Compare how sure a classifier is with how often it is right.

    Guo et al., https://doi.org/10.48550/arXiv.1706.04599.

    Parameters
    ----------
    probabilities : (N, 5)
        Posteriors.
    labels : (N,) int
        True classes.
    bins : int
        Of equal width from 0 to 1.
    weight : (N,), optional
        How many columns each stands for; one by default.

    Returns
    -------
    Reliability

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.tile([0.8, 0.2, 0.0, 0.0, 0.0], (10, 1))
    >>> round(reliability(sure, np.array([0] * 6 + [1] * 4)).error, 3)
    0.2
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    which = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    stands_for = np.ones(len(labels)) if weight is None else weight
    count = np.bincount(which, weight, minlength=bins)
    right = probabilities.argmax(axis=1) == labels
    return Reliability(
        count,
        _ratio(np.bincount(which, confidence * stands_for, minlength=bins), count),
        _ratio(np.bincount(which, right * stands_for, minlength=bins), count),
    )


def subsets(predictions: Predictions, *, by_case: bool = False) -> dict[str, NDArray[np.bool_]]:
    """Return which images (I,) each score is of: all, by dose, by condition and, if wanted, by case."""
    dose = predictions.dose
    chosen: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(dose), bool)}
    for low, high in DOSE_BINS:
        chosen[f"{low:g}-{high:g} e/px"] = (dose >= low) & (dose < high)
    for facts in (predictions.condition, predictions.case) if by_case else (predictions.condition,):
        chosen |= {name: facts == name for name in sorted(set(facts.tolist()))}
    return {name: images for name, images in chosen.items() if images.any()}


def score_predictions(predictions: Mapping[str, Predictions], *, by_case: bool = False) -> dict[str, dict[str, Scores]]:
    """Score any number of classifiers side by side.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        By the name they are printed under; of the same images.
    by_case : bool
        Whether to score each host and dopant as well.

    Returns
    -------
    dict
        ``scores[name][subset]``; the first subset is "all".
    """
    return {
        name: {subset: each.among(images) for subset, images in subsets(each, by_case=by_case).items()}
        for name, each in predictions.items()
    }


def auroc(known: NDArray[np.floating[Any]], anomalous: NDArray[np.floating[Any]]) -> float:
    """Return how often a known column scores higher than an anomalous one, a tie counting half.

    This is the area under the receiver operating characteristic (Hanley and McNeil,
    https://doi.org/10.1148/radiology.143.1.7063747).

    Parameters
    ----------
    known, anomalous : (N,), (M,)
        Scores of columns of either sort.

    Returns
    -------
    float
        0.5 by chance; NaN without columns of both sorts.

    Examples
    --------
    >>> import numpy as np
    >>> auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    0.875
    """
    n, m = len(known), len(anomalous)
    if n == 0 or m == 0:
        return float("nan")
    ranks = rankdata(np.concatenate([known, anomalous]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def match_columns(
    found: NDArray[np.float64], labelled: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair found with labelled positions, each at most once: mutual nearest neighbours.

    Parameters
    ----------
    found, labelled : (N, 2), (M, 2)
        Positions in the same unit.
    tolerance : float
        Largest distance of a pair, in that unit.

    Returns
    -------
    (K,) int, (K,) int
        Indices into `found` and `labelled`.

    Examples
    --------
    >>> import numpy as np
    >>> match_columns(np.array([[0.0, 0.1], [9.0, 9.0]]), np.array([[0.0, 0.0]]), 0.5)
    (array([0]), array([0]))
    """
    if len(found) == 0 or len(labelled) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    there, nearest_label = cKDTree(labelled).query(found)
    _, nearest_found = cKDTree(found).query(labelled)
    index = np.arange(len(found))
    mutual = (nearest_found[nearest_label] == index) & (there <= tolerance)
    return index[mutual], nearest_label[mutual].astype(np.int64)


class Paired(NamedTuple):
    """Columns of a classification and known ones, K pairs of them.

    Attributes
    ----------
    found, known : (K,) int
        Indices into both, of columns whose patch lies inside the image.
    missed : (M,) bool
        Known columns without partner where patches fit into the image.
    extra : (N,) bool
        Columns of the classification without partner whose patch lies inside the image.
    """

    found: NDArray[np.int64]
    known: NDArray[np.int64]
    missed: NDArray[np.bool_]
    extra: NDArray[np.bool_]


def pair_columns(result: Classification, positions: NDArray[np.float64], *, tolerance: float) -> Paired:
    """Pair the columns of a classification with known ones; arguments as for `score_columns`."""
    found, known = match_columns(result.positions, positions, tolerance / result.sampling)
    low, high = result.positions[result.complete].min(axis=0), result.positions[result.complete].max(axis=0)
    missed = ((positions >= low) & (positions <= high)).all(axis=1)
    extra = result.complete.copy()
    missed[known] = extra[found] = False
    kept = result.complete[found]
    return Paired(found[kept], known[kept], missed, extra)


def score_columns(
    result: Classification,
    positions: NDArray[np.float64],
    labels: NDArray[np.integer[Any]],
    *,
    tolerance: float,
    count_extra: bool = True,
) -> Scores:
    """Score a classification, from the image on, against known columns.

    Parameters
    ----------
    result : Classification
        Only columns whose patch lies inside the image count.
    positions : (M, 2)
        True (row, column) in px.  Those without partner count where patches fit into the image.
    labels : (M,) int
        Their classes.
    tolerance : float
        Largest distance between a column and its truth, Å.
    count_extra : bool
        Whether a column without partner is wrong; set to False where the truth is known not to list all.
    """
    paired = pair_columns(result, positions, tolerance=tolerance)
    missed = np.bincount(labels[paired.missed], minlength=len(CLASSES))
    extra = np.bincount(result.labels[paired.extra & count_extra], minlength=len(CLASSES))
    scores = score(result.probabilities[paired.found], labels[paired.known])
    return replace(scores, missed=missed, extra=extra)
