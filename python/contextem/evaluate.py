"""What a model is worth: scores on images it has never seen, with and without context, beside the ideal observer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from contextem._processes import process_pool
from contextem.baselines import NETWORK, TABULAR, LabelledPatches, fit_network, measure_patches
from contextem.classification import Classification
from contextem.columns import CLASSES
from contextem.model import Model, ModelConfig, load_model, packaged_model
from contextem.patches import patch_complete
from contextem.simulate.dataset import Recipe
from contextem.simulate.observer import class_shares, ideal_posterior, with_equal_priors
from contextem.train import (
    PER_CLASS,
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
CALIBRATION_BINS = 15
"""Bins of equal width, from 0 to 1, of the probability of the most probable class."""
BASELINE_IMAGES = 2
"""Training images of each case and condition that the baselines are trained on."""
NETWORK_COLUMNS = 100
"""Columns of each test image whose pixels are kept for the baseline that reads them."""
IDEAL = "ideal observer"
"""Name under which `contextem.simulate.observer` is listed beside the models."""
IDEAL_BALANCED = "ideal, equal priors"
"""The same, going for the mean recall of the classes instead of the accuracy."""


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


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio


def score(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Scores:
    """Score posteriors (N, 5) against true labels (N,)."""
    p = np.maximum(probabilities, np.finfo(np.float32).tiny)
    entropy = float(-(probabilities * np.log2(p)).sum(axis=1).mean()) if len(labels) else float("nan")
    return Scores(
        confusion_matrix(probabilities, labels),
        entropy,
        calibration_error=reliability(probabilities, labels).error,
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
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], bins: int = CALIBRATION_BINS
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
    count = np.bincount(which, minlength=bins)
    right = probabilities.argmax(axis=1) == labels
    return Reliability(
        count,
        _ratio(np.bincount(which, confidence, minlength=bins), count),
        _ratio(np.bincount(which, right, minlength=bins), count),
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
    return score_predictions({name: Predictions.of(test, predict(model, test)) for name, model in models.items()})


def report(scores: dict[str, dict[str, Scores]]) -> str:
    """Return scores as text: each model's classes, then every subset beside each other."""
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
    errors = (f"{100 * scores[name]['all'].calibration_error:.2f}" for name in names)
    lines.append(f"{'calibration error, %':<24}" + "".join(f"{error:>24}" for error in errors))
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


def observe(
    sources: Sequence[Recipe], config: ModelConfig, *, workers: int | None = None, label: str = IDEAL
) -> dict[str, Predictions]:
    """Return what the ideal observer says of simulated micrographs.

    Parameters
    ----------
    sources : sequence of Recipe
        What to simulate.
    config : ModelConfig
        Only columns whose patch lies inside the image count, as for a model.
    workers : int, optional
        Processes; one a core by default.
    label : str
        Of the progress bar.

    Returns
    -------
    dict of str to Predictions
        `IDEAL`, with the priors that the defects were drawn with, and `IDEAL_BALANCED`.
    """
    task: Callable[[Recipe], Any] = partial(_observe, config=config)
    if workers == 1:
        rows = [task(source) for source in tqdm(sources, desc=label, unit="image", disable=None)]
    else:
        with process_pool(workers) as pool:
            results: Iterable[Any] = pool.map(task, sources, chunksize=8)
            rows = list(tqdm(results, total=len(sources), desc=label, unit="image", disable=None))
    posteriors, labels, shares, case, condition, dose = zip(*rows, strict=True)
    balanced = map(with_equal_priors, posteriors, shares)
    return {
        name: Predictions(
            np.concatenate(list(parts)),
            np.concatenate(labels),
            np.repeat(np.arange(len(rows)), [len(part) for part in labels]),
            np.asarray(case),
            np.asarray(condition),
            np.asarray(dose),
        )
        for name, parts in ((IDEAL, posteriors), (IDEAL_BALANCED, balanced))
    }


def _observe(
    source: Recipe, config: ModelConfig
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], str, str, float]:
    simulated = source.simulate()
    scale = config.patch_scale(simulated.micrograph.sampling, simulated.context.lattice_constant)
    positions = simulated.columns.positions
    complete = patch_complete(simulated.micrograph.shape, positions, config.size, scale=scale)
    return (
        ideal_posterior(simulated)[complete],
        simulated.labels[complete].astype(np.int64),
        class_shares(simulated),
        f"{source.host}:{source.dopant}",
        f"{source.energy / 1e3:g} keV {source.detector}",
        float(simulated.conditions["dose"]),
    )


def predict_test_images(
    folder: Path | None,
    data: Path | None,
    *,
    preset: str | None,
    images: int,
    ranges: str = "reference",
    workers: int | None = None,
    ideal: bool = False,
    baselines: bool = False,
) -> dict[str, Predictions]:
    """Let the model in `folder` and, if one was trained beside it, the same classifier without context see test images.

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
    ideal : bool
        Whether the ideal observer sees them too; files do not hold what it must know.
    baselines : bool
        Whether those of `contextem.baselines` are trained, on part of the training images, and see them too.

    Returns
    -------
    dict of str to Predictions
        "with context" first.
    """
    folder = packaged_model() if folder is None else folder
    models = {"with context": load_model(folder)}
    if (folder / WITHOUT_CONTEXT).is_dir():
        models["without context"] = load_model(folder / WITHOUT_CONTEXT)
    model = models["with context"]
    sources = sources_for_test(model, data, preset=preset, images=images, ranges=ranges)
    test = measure_sources(sources, model.config, workers=workers, label="test images")
    predictions = {name: Predictions.of(test, predict(each, test)) for name, each in models.items()}
    if baselines:
        predictions |= predict_with_baselines(model, data, sources, test, preset=preset, workers=workers)
    simulated = [source for source in sources if isinstance(source, Recipe)]
    if ideal and simulated:
        predictions |= observe(simulated, model.config, workers=workers)
    return predictions


def predict_with_baselines(
    model: Model,
    data: Path | None,
    sources: Sequence[Recipe | Path],
    test: LabelledColumns,
    *,
    preset: str | None,
    workers: int | None = None,
) -> dict[str, Predictions]:
    """Train baselines on `BASELINE_IMAGES` training images of each case and condition, and let them see test images.

    Parameters
    ----------
    model : Model
        Its features are what the baselines read.
    data, preset
        As for `predict_test_images`.
    sources : sequence of Recipe or Path
        Test images; the network sees `NETWORK_COLUMNS` columns of each, drawn at random.
    test : LabelledColumns
        Their columns.
    workers : int, optional
        Processes; one a core by default.
    """
    training = model.info["training"]
    seed = training["seed"] - training["seed"] % TEST_SHARE
    seen, _ = training_and_test_sources(data, preset or training["preset"], BASELINE_IMAGES, seed)
    if data is not None:
        numbers = sorted({_number(path) for path in seen})[:BASELINE_IMAGES]
        seen = [path for path in seen if _number(path) in numbers]
    columns = measure_sources(seen, model.config, per_class=PER_CLASS, workers=workers, label="baseline images")
    predictions = {name: Predictions.of(test, fit(columns).predict(test)) for name, fit in TABULAR.items()}
    patches = measure_patches(seen, model.config, per_class=PER_CLASS, workers=workers, label="training patches")
    network = fit_network(patches)
    patches = measure_patches(sources, model.config, most=NETWORK_COLUMNS, workers=workers, label="test patches")
    predictions[NETWORK] = Predictions.of(patches, network.predict(patches))
    return predictions


def _number(source: Recipe | Path) -> int:
    return source.seed if isinstance(source, Recipe) else int(source.stem.rsplit("-", 1)[1])


def sources_for_test(
    model: Model, data: Path | None, *, preset: str | None, images: int, ranges: str = "reference"
) -> list[Recipe | Path]:
    """Return test micrographs no model trained with these seeds has seen; arguments as for `predict_test_images`."""
    training = model.info["training"]
    first = training["seed"] - training["seed"] % TEST_SHARE
    return training_and_test_sources(data, preset or training["preset"], TEST_SHARE * images, first, ranges)[1]


def evaluate_model(
    folder: Path | None,
    data: Path | None,
    *,
    preset: str | None,
    images: int,
    ranges: str = "reference",
    workers: int | None = None,
) -> dict[str, dict[str, Scores]]:
    """Score what `predict_test_images` returns; arguments as there."""
    return score_predictions(
        predict_test_images(folder, data, preset=preset, images=images, ranges=ranges, workers=workers)
    )
