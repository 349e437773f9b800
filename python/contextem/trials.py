"""How far a score can be trusted: trained again from other seeds, and without the materials that are then scored.

One pool of simulated micrographs serves all trials.  For each seed other images of every case and condition are for
testing and for calibration.  For a material held out, every image with it is left out of training, mean-field alloys
among them, and only images with it are scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem._output import whole_file
from contextem._schema import SCHEMAS, check_schema
from contextem.attention import ModelConfig
from contextem.context import parse_formula
from contextem.elements import atomic_shares
from contextem.model import Prediction
from contextem.scores import Scores, score
from contextem.simulate.dataset import CHALCOGENS, alloy_recipes, recipes
from contextem.train import (
    ALLOYS,
    FOLDS,
    PER_CLASS,
    TEST_FOLDS,
    VALIDATION_FOLDS,
    LabelledColumns,
    measure_sources,
    predict,
    train,
)

CLEAR_DOSE = 3000.0
"""Electrons a pixel from which on noise hides little."""

HELD_OUT: Mapping[str, Callable[[str, frozenset[str], str], bool]] = {
    "WSe2": lambda metal, chalcogens, _: metal == "W" and "Se" in chalcogens,
    "host W": lambda metal, *_: metal == "W",
    "dopant Cr": lambda *material: material[2] == "Cr",
    "all selenides": lambda _, chalcogens, __: "Se" in chalcogens,
}
"""What is left out of training, by metal, chalcogens and dopant."""


@dataclass(frozen=True)
class Pool:
    """Columns of images of real hosts and of alloys, measured once for all trials.

    Attributes
    ----------
    columns : LabelledColumns
        Of all images.
    fold : (I,) int64
        Last digit of the seed of each image; -1 for alloys, which are only trained on.
    reference : (I,) bool
        Whether the conditions of the image were drawn from the "reference" ranges, which is what scores are given for.
    """

    columns: LabelledColumns
    fold: NDArray[np.int64]
    reference: NDArray[np.bool_]


def measure_pool(
    preset: str, config: ModelConfig, *, images: int = FOLDS, seed: int = 0, workers: int | None = None
) -> Pool:
    """Simulate and measure the images of all trials.

    Parameters
    ----------
    preset : str
        As for `contextem.simulate.dataset.recipes`.
    config : ModelConfig
        Basis and patch radius.
    images : int
        Of each case and condition; a multiple of ten serves all trials alike.
    seed : int
        Of the first image.
    workers : int, optional
        Processes.
    """
    real = recipes(preset, images, seed)
    alloys = alloy_recipes(round(ALLOYS * len(real)), seed, CHALCOGENS)
    columns = measure_sources([*real, *alloys], config, workers=workers, label="images of all trials")
    fold = [recipe.seed % FOLDS for recipe in real] + [-1] * len(alloys)
    return Pool(columns, np.array(fold), np.array([recipe.ranges == "reference" for recipe in (*real, *alloys)]))


def folds(trial: int) -> tuple[list[int], list[int]]:
    """Return the folds for testing and for validation in one trial: of either, one of each of the ranges.

    Examples
    --------
    >>> folds(0), folds(4)
    (([4, 9], [3, 8]), ([8, 3], [7, 2]))
    """
    test, validation = ([(fold + trial) % FOLDS for fold in part] for part in (TEST_FOLDS, VALIDATION_FOLDS))
    return test, validation


def run_trial(
    pool: Pool, trial: int, config: ModelConfig, *, epochs: int, device: str = "cpu", held_out: str | None = None
) -> dict[str, dict[str, float]]:
    """Train one classifier and score it on images it has not seen.

    Parameters
    ----------
    pool : Pool
        Images.
    trial : int
        Seed of the weights, and which images are for testing.
    config : ModelConfig
        Of the classifier.
    epochs : int
        Passes over the training columns.
    device : str
        A torch device.
    held_out : str, optional
        One of `HELD_OUT`.

    Returns
    -------
    dict
        ``figures[subset][score]``; only subsets that occur.
    """
    columns = pool.columns
    test_folds, validation_folds = folds(trial)
    materials = [_material(case) for case in columns.case.tolist()]
    rule = HELD_OUT[held_out] if held_out else None
    left_out = np.array([rule is not None and rule(*material) for material in materials])
    tested = np.isin(pool.fold, test_folds)
    validation = np.isin(pool.fold, validation_folds) & ~left_out
    training = ~tested & ~np.isin(pool.fold, validation_folds) & ~left_out
    if rule is not None:
        tested = left_out & (pool.fold >= 0)
    test = columns.of_images(tested & pool.reference)
    model, _ = train(
        columns.of_images(training).few(PER_CLASS, trial),
        columns.of_images(validation),
        test,
        config,
        epochs=epochs,
        seed=trial,
        device=device,
        label=f"without {held_out}" if held_out else f"seed {trial}",
        unknown=False,
    )
    return figures(predict(model, test), test)


def _material(case: str) -> tuple[str, frozenset[str], str]:
    host, _, dopant = case.partition(":")
    metal, chalcogen = parse_formula(host)
    return metal, frozenset(atomic_shares(chalcogen)), dopant


def figures(prediction: Prediction, test: LabelledColumns) -> dict[str, dict[str, float]]:
    """Return the scores of all columns and of those at `CLEAR_DOSE` or more, also for 80 keV HAADF alone."""
    clear = test.dose >= CLEAR_DOSE
    best = test.condition == "80 keV HAADF"
    subsets = {
        "all": np.ones(len(clear), bool),
        f">= {CLEAR_DOSE:g} e/px": clear,
        "80 keV HAADF": best,
        f"80 keV HAADF, >= {CLEAR_DOSE:g} e/px": best & clear,
    }
    found = {}
    for name, images in subsets.items():
        chosen = images[test.image]
        if chosen.any():
            found[name] = _scores(
                score(prediction.probabilities[chosen], test.labels[chosen], weight=test.weight[chosen])
            )
    return found


def _scores(each: Scores) -> dict[str, float]:
    return {
        "accuracy": each.accuracy,
        "balanced accuracy": each.balanced_accuracy,
        "macro-F1": each.macro_f1,
        "calibration error": each.calibration_error,
        "entropy, bits": each.entropy,
    }


def run_trials(
    pool: Callable[[], Pool],
    config: ModelConfig,
    *,
    seeds: int = 5,
    epochs: int = 3,
    device: str = "cpu",
    record: Path | None = None,
) -> dict[str, Any]:
    """Train from several seeds, once without context, and without each of `HELD_OUT`.

    Parameters
    ----------
    pool : callable
        Returns the images; only called if a trial is left to do.
    config : ModelConfig
        Of the classifier with context.
    seeds : int
        Trials with all materials.
    epochs : int
        Passes over the training columns.
    device : str
        A torch device.
    record : Path, optional
        JSON file that gets what each trial found as soon as it is over; an interrupted run goes on from there.

    Returns
    -------
    dict
        "epochs", and "trials": the figures of `run_trial` by the name of the trial.

    Raises
    ------
    ValueError
        If `record` is of trials with another number of epochs.
    """
    jobs: dict[str, tuple[int, ModelConfig, str | None]] = {f"seed {i}": (i, config, None) for i in range(seeds)}
    jobs["without context"] = (0, replace(config, context="none"), None)
    jobs |= {f"without {name}": (0, config, name) for name in HELD_OUT}
    found: dict[str, Any] = {"schema": SCHEMAS["record of trials"], "epochs": epochs, "trials": {}}
    if record is not None and record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
        check_schema("record of trials", found.setdefault("schema", 1), f"record: {record}")
        if found["epochs"] != epochs:
            raise ValueError(f"record: expected trials of {epochs} epochs, got {record} with {found['epochs']}")
    columns = None
    for name, (trial, each, held_out) in jobs.items():
        if name in found["trials"]:
            continue
        columns = columns or pool()
        found["trials"][name] = run_trial(columns, trial, each, epochs=epochs, device=device, held_out=held_out)
        if record is not None:
            with whole_file(record) as temporary:
                temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def trial_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what `run_trials` found as lines of Markdown: mean and standard deviation over the seeds, in per cent."""

    def row(name: str, values: list[dict[str, float]]) -> str:
        cells = []
        for key in ("accuracy", "balanced accuracy", "macro-F1", "calibration error"):
            each = 100 * np.array([value[key] for value in values])
            cells.append(f"{each.mean():.2f}" + (f" ± {each.std(ddof=1):.2f}" if len(each) > 1 else ""))
        return f"| {name} | {' | '.join(cells)} |"

    trials = found["trials"]
    seeds = [each for name, each in trials.items() if name.startswith("seed ")]
    return [
        "| test | accuracy, % | balanced, % | macro-F1, % | calibration error, % |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(row(f"{len(seeds)} seeds, {subset}", [each[subset] for each in seeds]) for subset in seeds[0]),
        *(
            row(f"trained {name}, {subset}", [each[subset]])
            for name, each in trials.items()
            if not name.startswith("seed ")
            for subset in ("all", f">= {CLEAR_DOSE:g} e/px")
        ),
    ]
