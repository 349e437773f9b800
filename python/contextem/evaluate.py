"""What a model is worth: scores on images it has never seen, with and without context."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from contextem.classification import Classification
from contextem.columns import CLASSES
from contextem.model import Model, load_model, packaged_model
from contextem.train import (
    TEST_SHARE,
    WITHOUT_CONTEXT,
    LabelledColumns,
    confusion_matrix,
    measure_sources,
    predict,
    training_and_test_sources,
)

DOSE_BINS = ((400.0, 1000.0), (1000.0, 3000.0), (3000.0, 20000.0))
"""Electrons a pixel."""


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
    """

    confusion: NDArray[np.int64]
    entropy: float
    missed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    extra: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))

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


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio


def score(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Scores:
    """Score posteriors (N, 5) against true labels (N,)."""
    p = np.maximum(probabilities, np.finfo(np.float32).tiny)
    entropy = float(-(probabilities * np.log2(p)).sum(axis=1).mean()) if len(labels) else float("nan")
    return Scores(confusion_matrix(probabilities, labels), entropy)


def evaluate(models: dict[str, Model], test: LabelledColumns) -> dict[str, dict[str, Scores]]:
    """Score models on the same test columns: all of them, by dose, and by energy and detector.

    Parameters
    ----------
    models : dict of str to Model
        By the name they are printed under.
    test : LabelledColumns
        Of images none of the models was trained on.

    Returns
    -------
    dict
        ``scores[model name][subset name]``; the first subset is "all".
    """
    subsets: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(test.dose), bool)}
    for low, high in DOSE_BINS:
        subsets[f"{low:g}-{high:g} e/px"] = (test.dose >= low) & (test.dose < high)
    for condition in sorted(set(test.condition.tolist())):
        subsets[condition] = test.condition == condition
    scores: dict[str, dict[str, Scores]] = {}
    for name, model in models.items():
        probabilities = predict(model, test)
        scores[name] = {
            subset: score(probabilities[chosen[test.image]], test.labels[chosen[test.image]])
            for subset, chosen in subsets.items()
            if chosen.any()
        }
    return scores


def report(scores: dict[str, dict[str, Scores]]) -> str:
    """Return what `evaluate` found as text: each model's classes, then every subset beside each other."""
    lines = []
    for name, by_subset in scores.items():
        lines += [name, by_subset["all"].table(), ""]
    names = list(scores)
    lines.append(f"{'accuracy (balanced), %':<24}" + "".join(f"{name:>24}" for name in names))
    for subset in scores[names[0]]:
        cells = [
            f"{100 * s.accuracy:.2f} ({100 * s.balanced_accuracy:.2f})" for s in (scores[n][subset] for n in names)
        ]
        lines.append(f"{subset:<24}" + "".join(f"{cell:>24}" for cell in cells))
    lines.append(f"{'mean entropy, bits':<24}" + "".join(f"{scores[name]['all'].entropy:>24.3f}" for name in names))
    return "\n".join(lines)


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
    found, known = match_columns(result.positions, positions, tolerance / result.sampling)
    low, high = result.positions[result.complete].min(axis=0), result.positions[result.complete].max(axis=0)
    inside = ((positions >= low) & (positions <= high)).all(axis=1)
    kept = result.complete[found]
    partnered, listed = np.zeros(len(result), bool), np.zeros(len(labels), bool)
    partnered[found], listed[known] = True, True
    found, known = found[kept], known[kept]
    matched = score(result.probabilities[found], labels[known])
    missed = np.bincount(labels[inside & ~listed], minlength=len(CLASSES))
    extra = np.bincount(result.labels[result.complete & ~partnered], minlength=len(CLASSES))
    return Scores(matched.confusion, matched.entropy, missed, extra if count_extra else np.zeros_like(extra))


def evaluate_model(
    folder: Path | None,
    data: Path | None,
    *,
    preset: str | None,
    images: int,
    ranges: str = "reference",
    workers: int | None = None,
) -> dict[str, dict[str, Scores]]:
    """Score the model in `folder` and, if one was trained beside it, the same classifier without context.

    Parameters
    ----------
    folder : Path, optional
        The packaged model by default.
    data : Path, optional
        Simulated micrographs, of which every fifth is for testing; they are simulated on the fly otherwise.
    preset : str, optional
        What to simulate; by default what the model was trained on.
    images : int
        Test micrographs of each case and condition.
    ranges : {"reference", "wide", "both"}
        What their conditions are drawn from.
    workers : int, optional
        Processes; one a core by default.
    """
    folder = packaged_model() if folder is None else folder
    models = {"with context": load_model(folder)}
    if (folder / WITHOUT_CONTEXT).is_dir():
        models["without context"] = load_model(folder / WITHOUT_CONTEXT)
    model = models["with context"]
    training = model.info["training"]
    _, sources = training_and_test_sources(
        data,
        preset or training["preset"],
        TEST_SHARE * images,
        training["seed"] - training["seed"] % TEST_SHARE,
        ranges,
    )
    return evaluate(models, measure_sources(sources, model.config, workers=workers, label="test images"))
