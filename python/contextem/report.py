"""What an evaluation leaves behind: scores as JSON, a model card, and figures that fit into a column of a journal.

Everything is made from `contextem.scores.Predictions`, by name, so that any number of classifiers, baselines and the
ideal observer stand beside each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contextem._output import whole_file
from contextem._schema import SCHEMAS
from contextem.columns import CLASSES
from contextem.curves import curves_figure, read_curves
from contextem.evaluate import IDEAL, IDEAL_BALANCED
from contextem.figures import DASHES, LINES, STYLE, WIDTH, finished, plain, single, style
from contextem.scores import CALIBRATION_BINS, Predictions, Scores, reliability, score_predictions
from contextem.trials import trial_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLAWLESS = 0.02
"""Wrong columns, %, at which the axis of accuracy ends."""
LEAST = 50
"""Columns in a bin of the reliability diagram from which on it is drawn."""


def write_report(
    folder: str | os.PathLike[str],
    predictions: Mapping[str, Predictions],
    *,
    facts: Mapping[str, Any],
    near_z: Mapping[str, Predictions] | None = None,
    reference: Mapping[str, Predictions] | None = None,
    trials: Mapping[str, Any] | None = None,
    model_folder: Path | None = None,
) -> list[Path]:
    """Write ``scores.json``, ``card.md`` and the figures.

    Parameters
    ----------
    folder : path-like
        Where to; made if it is missing.
    predictions : mapping of str to Predictions
        The model first.
    facts : mapping
        "model": what ``model.json`` says; "test": what was simulated, in words.
    near_z : mapping of str to Predictions, optional
        The same classifiers on dopants that scatter nearly as the metal does, listed case by case.
    reference : mapping of str to Predictions, optional
        The same classifiers on micrographs by full multislice.
    trials : mapping, optional
        What `contextem.trials.run_trials` returns.
    model_folder : Path, optional
        Where the accuracy curves of the training are.

    Returns
    -------
    list of Path
        The files.
    """
    target = Path(folder)
    scores = score_predictions(predictions, by_case=True)
    drawn = {name: each for name, each in predictions.items() if name != IDEAL_BALANCED}
    near = score_predictions(near_z, by_case=True) if near_z else {}
    multislice = score_predictions(reference) if reference else {}
    figures = {
        "confusion.png": confusion_figure(
            {name: by["all"] for name, by in scores.items() if name not in (IDEAL, IDEAL_BALANCED)}
        ),
        "dose.png": dose_figure(drawn),
        "reliability.png": reliability_figure(drawn),
    }
    curves = read_curves(model_folder) if model_folder else {}
    if curves:
        figures = {"accuracy.png": curves_figure(curves)} | figures
    for name, figure in figures.items():
        with whole_file(target / name) as temporary, style():
            figure.savefig(temporary, dpi=300)
    plain = {
        "schema": SCHEMAS["set of scores"],
        "facts": dict(facts),
        "scores": _plain(scores),
        "near_z": _plain(near),
        "reference": _plain(multislice),
        "trials": trials,
        "entropy_reduction": entropy_reduction(scores),
    }
    with whole_file(target / "scores.json") as temporary:
        temporary.write_text(json.dumps(plain, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole_file(target / "card.md") as temporary:
        temporary.write_text(card(scores, near, facts, list(figures), multislice, trials), encoding="utf-8")
    return [target / name for name in ("scores.json", "card.md", *figures)]


def entropy_reduction(scores: Mapping[str, Mapping[str, Scores]]) -> float | None:
    """Return by which share the mean posterior entropy is lower with context than without; None if one is missing."""
    with_context, without = (scores.get(name) for name in ("with context", "without context"))
    if with_context is None or without is None or not without["all"].entropy > 0:
        return None
    return 1.0 - with_context["all"].entropy / without["all"].entropy


def card(
    scores: Mapping[str, Mapping[str, Scores]],
    near_z: Mapping[str, Mapping[str, Scores]],
    facts: Mapping[str, Any],
    figures: Sequence[str] = (),
    reference: Mapping[str, Mapping[str, Scores]] | None = None,
    trials: Mapping[str, Any] | None = None,
) -> str:
    """Return the model card, in Markdown.

    Parameters
    ----------
    scores, near_z
        ``scores[name][subset]`` of `contextem.scores.score_predictions`, cases among the subsets; the model first.
    facts : mapping
        As for `write_report`.
    figures : sequence of str
        Files to show.
    reference : mapping, optional
        Scores on micrographs by full multislice.
    trials : mapping, optional
        What `contextem.trials.run_trials` returns.

    Returns
    -------
    str
    """
    model, name = facts.get("model", {}), next(iter(scores))
    main = scores[name]
    lines = [
        f"# {model.get('name', 'contextem classifier')}",
        "",
        "Classifies the atomic columns of annular dark-field STEM images of 1H MX2 monolayers as "
        f"{', '.join(c.replace('_', ' ') for c in CLASSES)}, from the Zernike moments of the patch around each column "
        "and the context of the recording: composition, beam energy and detector.",
        "",
        "## Training",
        "",
        "Simulated micrographs, split by image: no patch of a test image was trained on.",
        "",
        *_facts(model.get("training", {})),
        "",
        "## Classifier",
        "",
        *_facts(model.get("config", {})),
        "",
        "## Test",
        "",
        *_facts({**facts.get("test", {}), "columns": int(main["all"].support.sum())}),
        "",
        *_overall(scores),
        "",
    ]
    reduction = entropy_reduction(scores)
    if reduction is not None:
        lines += [f"The context lowers the mean entropy of the posterior by {100 * reduction:.1f} %.", ""]
    if IDEAL in scores:
        lines += [
            "The ideal observer knows the responses, the places of all atoms, the other columns, contamination, dose "
            "and readout noise; what it cannot tell is hidden by the noise. With the shares that the defects were "
            "drawn with it goes for the accuracy, with equal priors for the balanced accuracy.",
            "",
        ]
    lines += [
        f"Calibration error: expected, of the most probable class, in {CALIBRATION_BINS} bins of equal width.",
        "",
        f"### Classes ({name})",
        "",
        *_table(
            ("class", "columns", "precision, %", "recall, %", "F1, %"),
            [
                (c.replace("_", " "), s.support[i], *map(_percent, (s.precision[i], s.recall[i], s.f1[i])))
                for s in (main["all"],)
                for i, c in enumerate(CLASSES)
                if s.support[i]
            ],
        ),
        "",
    ]
    cases = [subset for subset in main if ":" in subset]
    doses = [subset for subset in main if subset.endswith("e/px")]
    conditions = [subset for subset in main if subset not in (*cases, *doses, "all")]
    lines += ["### Dose", "", *_beside(scores, doses), "", "### Condition", "", *_beside(scores, conditions), ""]
    if len(cases) <= 20:
        lines += ["### Cases", "", *_beside(scores, cases), ""]
    else:
        hardest = sorted(cases, key=lambda case: main[case].accuracy)[:10]
        lines += ["### The ten hardest cases", "", *_beside(scores, hardest), ""]
    if near_z:
        near_cases = [subset for subset in next(iter(near_z.values())) if ":" in subset]
        lines += [
            "## Dopants that scatter nearly as the metal does",
            "",
            "Not among the training data unless listed there; noise bounds what can be told.",
            "",
            *_beside(near_z, ["all", *near_cases]),
            "",
        ]
    if reference:
        lines += [
            "## Micrographs by full multislice",
            "",
            "Frozen phonons, no superposition of responses; trained on the superposition alone.",
            "",
            *_overall(reference),
            "",
            *_beside(reference, [subset for subset in next(iter(reference.values())) if subset.endswith("e/px")]),
            "",
        ]
    if trials:
        lines += [
            "## Trained again",
            "",
            "From several seeds, each with other images for testing, and without the materials that are scored: "
            f"{trials['epochs']} epochs each; mean and standard deviation.",
            "",
            *trial_lines(trials),
            "",
        ]
    lines += [f"![{Path(file).stem}]({file})\n" for file in figures]
    return "\n".join(lines).rstrip() + "\n"


def _facts(values: Mapping[str, Any]) -> list[str]:
    def shown(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

    return [f"- {name.replace('_', ' ')}: {shown(value)}" for name, value in values.items()] or ["- not recorded"]


def _overall(scores: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    return _table(
        ("classifier", "accuracy, %", "balanced, %", "macro-F1, %", "calibration error, %", "entropy, bits"),
        [
            (
                name,
                *map(_percent, (s.accuracy, s.balanced_accuracy, s.macro_f1, s.calibration_error)),
                f"{s.entropy:.3f}",
            )
            for name, s in ((name, by["all"]) for name, by in scores.items())
        ],
    )


def _beside(scores: Mapping[str, Mapping[str, Scores]], chosen: Sequence[str]) -> list[str]:
    def cell(s: Scores | None) -> str:
        return "-" if s is None else f"{_percent(s.accuracy)} ({_percent(s.balanced_accuracy)})"

    return _table(
        ("accuracy (balanced), %", *scores),
        [(subset, *(cell(by.get(subset)) for by in scores.values())) for subset in chosen],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ("---", *["---:"] * (len(head) - 1)), *rows)]


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.2f}"


def _plain(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, dict[str, Any]]:
    return {name: {subset: s.to_dict() for subset, s in by.items()} for name, by in scores.items()}


def confusion_figure(scores: Mapping[str, Scores]) -> Figure:
    """Draw the confusion matrices of the first two classifiers: per cent of each true class, and counts.

    Parameters
    ----------
    scores : mapping of str to Scores
        By name.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    shown = dict(list(scores.items())[:2])
    names = [name.replace("_", "\n") for name in CLASSES]
    with style():
        figure = Figure(figsize=(WIDTH, 0.92 * WIDTH * len(shown)), layout="constrained")
        for axes, (name, s) in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown.items(), strict=True):
            with np.errstate(invalid="ignore"):
                share = s.confusion / s.confusion.sum(axis=1, keepdims=True)
            axes.imshow(np.sqrt(np.nan_to_num(share)), cmap="Blues", vmin=0.0, vmax=1.15, aspect="auto")
            for i, j in np.ndindex(share.shape):
                if np.isnan(share[i, j]):
                    continue
                axes.text(
                    j,
                    i,
                    f"{100 * share[i, j]:.1f}\n",
                    ha="center",
                    va="center",
                    color="white" if share[i, j] > 0.4 else "black",
                    fontsize=8,
                )
                axes.text(
                    j,
                    i + 0.2,
                    f"{s.confusion[i, j]:,}",
                    ha="center",
                    va="center",
                    color="white" if share[i, j] > 0.4 else "0.35",
                    fontsize=5.5,
                )
            axes.set_xticks(range(len(CLASSES)), names)
            axes.set_yticks(range(len(CLASSES)), names)
            axes.set(xlabel=f"predicted, {name}", ylabel="true (% of row; columns)")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        return figure


def dose_figure(predictions: Mapping[str, Predictions], bins: int = 6) -> Figure:
    """Draw accuracy against dose, with the spread over the images.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        By name.
    bins : int
        Of equal width in the logarithm of the dose.

    Returns
    -------
    matplotlib.figure.Figure
        Lines: mean of the images of a bin; bands, of the first two and of the ideal observer: their quartiles.  The
        axis is logarithmic in the share of wrong columns.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    with style():
        figure, axes = single(0.8 + 0.05 * len(predictions))
        for i, (name, each) in enumerate(predictions.items()):
            colour, dash = _line(i, name)
            dose, error = each.dose, 100 * (1 - each.accuracy_by_image())
            edges = np.geomspace(dose.min(), dose.max() * (1 + 1e-9), bins + 1)
            which = np.where(np.isfinite(error), np.digitize(dose, edges) - 1, -1)
            filled = [b for b in range(bins) if (which == b).any()]
            centres = np.sqrt(edges[:-1] * edges[1:])[filled]
            mean = np.array([error[which == b].mean() for b in filled])
            quartiles = np.array([np.percentile(error[which == b], (25, 75)) for b in filled])
            if i < 2 or name == IDEAL:
                axes.fill_between(centres, *np.maximum(quartiles.T, FLAWLESS), color=colour, alpha=0.15, lw=0)
            axes.plot(
                centres,
                np.maximum(mean, FLAWLESS),
                color=colour,
                ls=dash,
                marker="o",
                ms=2.5,
                label=name,
                clip_on=False,
            )
        axes.set(xscale="log", yscale="log", xlabel="dose (electrons per pixel)", ylabel="accuracy (%)")
        axes.set_ylim(axes.get_ylim()[1], FLAWLESS)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - value:g}"))
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{'≥ ' if value <= FLAWLESS else ''}{100 - value:g}")
        )
        axes.tick_params(axis="y", which="minor", labelsize=STYLE["ytick.labelsize"])
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
        return finished(figure)


def reliability_figure(predictions: Mapping[str, Predictions]) -> Figure:
    """Draw how often each classifier is right by how sure it is, and how often it is that sure."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, (1.1 + 0.06 * len(predictions)) * WIDTH), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        top.plot((0, 100), (0, 100), color="0.6", lw=0.8, zorder=0)
        edges = np.linspace(0.0, 100.0, CALIBRATION_BINS + 1)
        lowest = 100.0
        for i, (name, each) in enumerate(predictions.items()):
            colour, dash = _line(i, name)
            found = reliability(each.probabilities, each.labels)
            enough = found.columns >= LEAST
            confidence, accuracy = 100 * found.confidence[enough], 100 * found.accuracy[enough]
            style_of_line = {"color": colour, "ls": dash, "marker": "o", "ms": 2.5, "clip_on": False}
            top.plot(confidence, accuracy, label=f"{name}, {100 * found.error:.2f} %", **style_of_line)
            bottom.stairs(100 * found.columns / found.columns.sum(), edges, color=colour, ls=dash, lw=1.0)
            lowest = min(lowest, confidence.min(initial=100.0), accuracy.min(initial=100.0))
        start = max(0.0, 10 * np.floor(lowest / 10))
        top.set(ylabel="classified right (%)", xlim=(start, 100), ylim=(start, 100))
        figure.legend(
            *top.get_legend_handles_labels(),
            frameon=False,
            loc="outside lower center",
            title="expected calibration error",
            title_fontsize=STYLE["legend.fontsize"],
        )
        bottom.set(xlabel="probability of the most probable class (%)", ylabel="columns (%)", yscale="log")
        for axes in (top, bottom):
            plain(axes)
        return figure


def _line(index: int, name: str) -> tuple[str, Any]:
    """Colour and dash of a line; the ideal observer is always black."""
    return ("#000000", ":") if name == IDEAL else (LINES[index % len(LINES)], DASHES[index % len(DASHES)])
