"""What a model is worth: scores on images it has never seen, with and without context, beside the ideal observer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contextem._processes import each_image
from contextem.attention import ModelConfig
from contextem.baselines import NETWORK, TABULAR, fit_network, measure_patches
from contextem.columns import find_columns
from contextem.context import Context
from contextem.measurement import measure
from contextem.model import Model, compared_folders, load_model, packaged_model
from contextem.patches import patch_complete
from contextem.scores import Predictions, Scores, auroc, score_predictions
from contextem.simulate.anomalies import ANOMALOUS, KINDS, KNOWN, anomaly_at, mistakable, simulate_anomaly
from contextem.simulate.dataset import Recipe, manifest, stored
from contextem.simulate.observer import class_shares, ideal_posterior, with_equal_priors
from contextem.train import (
    FOLDS,
    PER_CLASS,
    TEST_FOLDS,
    LabelledColumns,
    measure_sources,
    misplaced_columns,
    predict,
    seed_of,
    split_sources,
)

BASELINE_IMAGES = 2
"""Training images of each case and condition that the baselines are trained on."""
NETWORK_COLUMNS = 100
"""Columns of each test image whose pixels are kept for the baseline that reads them."""
IDEAL = "ideal observer"
"""Name under which `contextem.simulate.observer` is listed beside the models."""
IDEAL_BALANCED = "ideal, equal priors"
"""The same, going for the mean recall of the classes instead of the accuracy."""


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
    rows = each_image(partial(_observe, config=config), sources, workers=workers, label=label)
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
    scale = config.patch_step(simulated.context.lattice_constant) / simulated.micrograph.sampling
    positions = simulated.columns.positions
    complete = patch_complete(simulated.micrograph.shape, positions, config.size, scale=scale)
    return (
        ideal_posterior(simulated)[complete],
        simulated.labels[complete].astype(np.int64),
        class_shares(simulated),
        simulated.case,
        simulated.condition,
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
    """Let the model in `folder` and those trained beside it, without context and as in the paper, see test images.

    Parameters
    ----------
    folder : Path, optional
        The packaged model by default.
    data : Path, optional
        Simulated micrographs, of which every fifth is for testing, or all if abTEM made them; they are simulated on the
        fly otherwise.
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
    models = {
        name: load_model(place) for name, place in compared_folders(folder).items() if place == folder or place.is_dir()
    }
    model = models["with context"]
    sources = sources_for_test(model, data, preset=preset, images=images, ranges=ranges)
    test = measure_sources(sources, model.config, workers=workers, label="test images")
    predictions = {name: Predictions.of(test, predict(each, test).probabilities) for name, each in models.items()}
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
    seed = training["seed"] - training["seed"] % FOLDS
    data = None if data is not None and _for_testing_only(data) else data
    seen = split_sources(data, preset or training["preset"], BASELINE_IMAGES, seed).training
    if data is not None:
        numbers = sorted({seed_of(path) for path in seen})[:BASELINE_IMAGES]
        seen = [path for path in seen if seed_of(path) in numbers]
    columns = measure_sources(seen, model.config, per_class=PER_CLASS, workers=workers, label="baseline images")
    predictions = {name: Predictions.of(test, fit(columns).predict(test)) for name, fit in TABULAR.items()}
    patches = measure_patches(seen, model.config, per_class=PER_CLASS, workers=workers, label="training patches")
    network = fit_network(patches)
    patches = measure_patches(sources, model.config, most=NETWORK_COLUMNS, workers=workers, label="test patches")
    predictions[NETWORK] = Predictions.of(patches, network.predict(patches))
    return predictions


def _for_testing_only(data: Path) -> bool:
    """Whether all images of a data set are for testing: those of abTEM, on which nothing is trained."""
    return bool(manifest(data)["engine"] != "responses")


def sources_for_test(
    model: Model, data: Path | None, *, preset: str | None, images: int, ranges: str = "reference"
) -> list[Recipe | Path]:
    """Return test micrographs no model trained with these seeds has seen; arguments as for `predict_test_images`."""
    if data is not None and _for_testing_only(data):
        return list(stored(data))
    training = model.info["training"]
    first = training["seed"] - training["seed"] % FOLDS
    every = FOLDS // len(TEST_FOLDS)
    return split_sources(data, preset or training["preset"], every * images, first, ranges).test


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


@dataclass(frozen=True)
class UnknownScores:
    """How well the familiarity tells columns of one kind of anomaly from known ones.

    Attributes
    ----------
    columns : int
        Anomalous columns.
    auroc : float
        See `contextem.scores.auroc`.
    flagged, known_flagged : float
        Share of the anomalous and of the known columns that are called unknown.
    """

    columns: int
    auroc: float
    flagged: float
    known_flagged: float


def familiarity_auroc(
    model: Model,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    images: int = 24,
    found: bool = False,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, UnknownScores]:
    """Score the familiarity on simulated micrographs with anomalies, none of which it was trained against.

    Parameters
    ----------
    model : Model
        With a familiarity, trained with context.
    kinds : sequence of str
        Of `contextem.simulate.anomalies.KINDS`.
    images : int
        Micrographs of each kind, over all hosts, dopants and conditions the model knows in turn.
    found : bool
        Whether columns are found, as a user gets them, or known up to an error of their positions.
    seed : int
        Of the micrographs.
    workers : int, optional
        Processes; one a core by default.

    Returns
    -------
    dict of str to UnknownScores
        By kind; the known columns are those of the same micrographs, under the right context.

    Examples
    --------
    >>> scores = familiarity_auroc(load_model(), kinds=["adatom on metal"], images=2, workers=1)
    >>> scores["adatom on metal"].auroc > 0.8
    True
    """
    known_to = model.info["training"]
    rng = np.random.default_rng([seed, 29])
    cases: list[tuple[str, str, float, str, int]] = []
    for condition in (str(rng.choice(known_to["conditions"])) for _ in range(images)):
        energy, detector = condition.split(" keV ")
        host = known_to["hosts"][len(cases) % len(known_to["hosts"])]
        cases.append((host, str(rng.choice(known_to["dopants"])), 1e3 * float(energy), detector, seed + len(cases)))
    scores = {}
    for kind in kinds:
        task = partial(_familiarity_of, kind=kind, model=model, found=found)
        parts = each_image(task, cases, workers=workers, label=kind)
        known, anomalous = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        flagged, known_flagged = (float(part[1].mean()) if part.size else float("nan") for part in (anomalous, known))
        scores[kind] = UnknownScores(anomalous.shape[1], auroc(known[0], anomalous[0]), flagged, known_flagged)
    return scores


def _familiarity_of(
    case: tuple[str, str, float, str, int], kind: str, model: Model, found: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Familiarity (row 0) and unknown flag (row 1) of the known and of the anomalous columns of one micrograph."""
    host, dopant, energy, detector, seed = case
    if kind.endswith("host") and not mistakable(
        Context(host, dopant, energy, detector), similar=kind == "similar host"
    ):
        return np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)
    anomaly = simulate_anomaly(kind, host, dopant, energy, detector, seed)
    simulated, rng = anomaly.simulated, np.random.default_rng([seed, 31])

    def familiarity(context: Context) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        micrograph = simulated.micrograph
        columns = find_columns(micrograph, context) if found else misplaced_columns(simulated, rng)
        contrast, complete, _ = measure(micrograph, columns, context.lattice_constant, model.config)
        truth = anomaly_at(anomaly, columns.positions) if found else anomaly.anomalous
        each = model.predict(contrast[complete], model.context_features(context)).familiarity
        return np.stack([each, model.unknown(each, np.ones(len(each), bool))]), truth[complete]

    stated, truth = familiarity(anomaly.context)
    if anomaly.context == simulated.context:
        return stated[:, truth == KNOWN], stated[:, truth == ANOMALOUS]
    return familiarity(simulated.context)[0], stated


def unknown_table(scores: Mapping[str, UnknownScores]) -> str:
    """Return what `familiarity_auroc` returns as lines of text."""
    lines = [f"{'kind':<18} {'columns':>8} {'AUROC':>7} {'unknown, %':>11} {'of known, %':>12}"]
    for kind, each in scores.items():
        shares = f"{100 * each.flagged:>11.1f} {100 * each.known_flagged:>12.2f}"
        lines.append(f"{kind:<18} {each.columns:>8} {each.auroc:>7.3f} {shares}")
    return "\n".join(lines)
