"""Experts' labels as truth: a model is scored against them, and fine-tuned on them.

    store of votes -> labels by a rule -> columns measured where experts see them -> half trained on, half held out

The classes of a column are its shares of the votes.  Simulated columns are mixed in, of the same specimens and of all
the model has been trained on, so that nothing is forgotten.  Held out is every second image or, of a single one, the
right half, clear of the left one: no patch of a column or of the nine next to it, which are looked at too, overlaps one
of the other half.  Only offset and gain of the brightness come from farther away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextem import __version__
from contextem._output import whole_folder
from contextem.calibration import calibrate
from contextem.columns import CLASSES, Columns, find_columns
from contextem.context import ENERGIES, Context
from contextem.evidence import gather
from contextem.labels.votes import RULES, SAME_COLUMN, ImageInfo, VoteStore, labels_text
from contextem.micrograph import Micrograph
from contextem.model import Model
from contextem.neighbours import SECOND_NEIGHBOURS
from contextem.pipeline import classify
from contextem.scores import Scores, match_columns, pair_columns, score
from contextem.simulate.dataset import Recipe
from contextem.simulate.structures import host_of
from contextem.train import (
    FOLDS,
    PER_CLASS,
    LabelledColumns,
    concatenate,
    measure_sources,
    predict,
    split_by_seed,
    train,
)
from contextem.train import calibrate as calibrate_model

NO_CLASS = -1
"""Label of a column on which experts did not agree."""
SIMULATED_IMAGES = 200
"""Simulated images: six of ten are trained on, two calibrate, two are for testing."""
EPOCHS, BATCH_SIZE, LEARNING_RATE = 6, 256, 3e-4
"""Passes over the columns, columns of a step, and largest step size: a tenth of that of training."""
LEAST_COLUMNS = 20
"""Labelled columns without which neither half is worth anything."""


@dataclass(frozen=True, eq=False)
class LabelledMicrograph:
    """A micrograph with the columns that experts labelled.

    Attributes
    ----------
    name : str
        In the store.
    fingerprint : str
        SHA-256 of its pixels.
    micrograph : Micrograph
        The image.
    context : Context
        As stored with it.
    positions : (M, 2) float64
        All columns, px.
    labels : (M,) int64
        Index into `contextem.columns.CLASSES`; `NO_CLASS` where experts did not agree.
    shares : (M, 5) float64
        Shares of the votes; 1 for a class that the chair decided.
    status : (M,) str
        "agreed", "decided", "disputed" or "unlabelled".
    """

    name: str
    fingerprint: str
    micrograph: Micrograph
    context: Context
    positions: NDArray[np.float64]
    labels: NDArray[np.int64]
    shares: NDArray[np.float64]
    status: NDArray[np.str_]


@dataclass(frozen=True)
class LabelSet:
    """The labels of a store.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of all images and labels.
    rule, quorum
        How votes became labels.
    images : tuple of LabelledMicrograph
        Those with labels.
    """

    fingerprint: str
    rule: str
    quorum: int
    images: tuple[LabelledMicrograph, ...]

    def left_out(self) -> dict[str, int]:
        """Return how many columns are disputed and unlabelled."""
        return {name: sum(int((each.status == name).sum()) for each in self.images) for name in _LEFT_OUT}

    def facts(self) -> dict[str, Any]:
        """Return what a model should tell of the labels it has seen, as plain values that JSON can hold."""
        return {
            "store": self.fingerprint,
            "rule": self.rule,
            "quorum": self.quorum,
            "images": [
                {
                    "name": each.name,
                    "sha256": each.fingerprint,
                    "context": each.context.to_dict(),
                    "columns": {name: int((each.labels == i).sum()) for i, name in enumerate(CLASSES)},
                }
                for each in self.images
            ],
            **self.left_out(),
        }


_LEFT_OUT = ("disputed", "unlabelled")


def read_labels(path: Path, rule: str = "majority", quorum: int = 2) -> LabelSet:
    """Read the labels of all images of a store.

    Parameters
    ----------
    path : Path
        File of `contextem label serve`.
    rule : str
        One of `contextem.labels.votes.RULES`.
    quorum : int
        Least votes of a label.

    Returns
    -------
    LabelSet

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the rule is not known, an image with labels has no context, or no column has a label.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    if not path.exists():
        raise FileNotFoundError(f"labels: expected a store of votes, found no file {path}; see `contextem label serve`")
    images, digest = [], hashlib.sha256()
    with VoteStore(path) as store:
        for info in store.images():
            table = store.labels(info.id, partial(RULES[rule], quorum=quorum))
            digest.update(f"{info.sha256}\n{labels_text(table)}".encode())
            if (table["class"] != "").any():
                images.append(_labelled(info, table, store.micrograph(info.id)))
    if not images:
        raise ValueError(
            f"labels: expected at least one column whose class experts agree on, got none in {path} by the rule {rule} "
            f"with a quorum of {quorum}; collect more votes or choose another rule"
        )
    return LabelSet(digest.hexdigest(), rule, quorum, tuple(images))


def _labelled(info: ImageInfo, table: dict[str, NDArray[Any]], micrograph: Micrograph) -> LabelledMicrograph:
    if info.context is None:
        raise ValueError(
            f"labels: expected the context of each labelled image, got none of {info.name}; "
            "add it again under another name with --host"
        )
    index = {name: number for number, name in enumerate(CLASSES)} | {"": NO_CLASS}
    return LabelledMicrograph(
        info.name,
        info.sha256,
        micrograph,
        Context.from_dict(info.context).with_recording(micrograph),
        np.column_stack([table["row"], table["column"]]),
        np.array([index[name] for name in table["class"].tolist()], np.int64),
        np.column_stack([table[name] for name in CLASSES]),
        table["status"],
    )


@dataclass(frozen=True)
class LabelScores:
    """What a model is worth by the labels of experts.

    Attributes
    ----------
    scores : Scores
        Of the columns of all images; a column found where the store has none counts neither way, as a store need not
        list all.
    by_image : dict of str to Scores
        Of each image.
    disputed, unlabelled : int
        Columns left out.
    """

    scores: Scores
    by_image: dict[str, Scores]
    disputed: int
    unlabelled: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values that JSON can hold."""
        return {
            "all": self.scores.to_dict(),
            "images": {name: scores.to_dict() for name, scores in self.by_image.items()},
            "disputed": self.disputed,
            "unlabelled": self.unlabelled,
        }

    def table(self) -> str:
        """Return the scores as lines of text."""
        lines = [self.scores.table(), f"calibration error {100 * self.scores.calibration_error:.2f} %"]
        if len(self.by_image) > 1:
            for name, each in self.by_image.items():
                shares = f"accuracy {100 * each.accuracy:.2f} %, macro-F1 {100 * each.macro_f1:.2f} %"
                lines.append(f"{name}: {each.support.sum()} columns, {shares}")
        lines.append(f"left out: {self.disputed} disputed columns, {self.unlabelled} unlabelled ones")
        return "\n".join(lines)


def score_labels(model: Model, labels: LabelSet) -> LabelScores:
    """Score a model, from the images on, against the labels of experts.

    Parameters
    ----------
    model : Model
        From `load_model`.
    labels : LabelSet
        From `read_labels`.

    Returns
    -------
    LabelScores

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from contextem.examples import demo_micrograph
    >>> from contextem.labels.actions import Vote
    >>> from contextem.model import load_model
    >>> demo = demo_micrograph()
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.db"
    ...     with VoteStore(path) as store:
    ...         image = store.add_image(demo.micrograph, Columns(demo.positions), demo.context.to_dict(), "demo")
    ...         expert = store.expert_of(store.add_expert("Ada"))
    ...         votes = [Vote(tuple(np.flatnonzero(demo.labels == k).tolist()), k) for k in range(len(CLASSES))]
    ...         receipt = store.cast(image, expert, "tablet", 1, votes)
    ...     labels = read_labels(path, quorum=1)
    >>> score_labels(load_model(), labels).scores.macro_f1 > 0.9
    True
    """
    parts = []
    for each in labels.images:
        result = classify(each.micrograph, each.context, model=model)
        paired = pair_columns(result, each.positions, tolerance=SAME_COLUMN)
        judged = each.labels[paired.known] != NO_CLASS
        found, known = paired.found[judged], paired.known[judged]
        missed = each.labels[paired.missed & (each.labels != NO_CLASS)]
        parts.append((result.probabilities[found], each.labels[known], np.bincount(missed, minlength=len(CLASSES))))
    scores = [replace(score(p, truth), missed=missed) for p, truth, missed in parts]
    probabilities, truths, misses = (list(part) for part in zip(*parts, strict=True))
    whole = replace(score(np.concatenate(probabilities), np.concatenate(truths)), missed=np.sum(misses, axis=0))
    names = [each.name for each in labels.images]
    return LabelScores(whole, dict(zip(names, scores, strict=True)), **labels.left_out())


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model and what came of it.

    Attributes
    ----------
    model : Model
        Its facts tell of the labels.
    trained : int
        Labelled columns it was trained on.
    held_out : (Scores, Scores)
        Of the held-out labelled columns, before and after.  The temperature was set by them: a class is chosen
        without it, the calibration error is a little flattered.
    simulated : (Scores, Scores) or None
        Of simulated test images, before and after.
    """

    model: Model
    trained: int
    held_out: tuple[Scores, Scores]
    simulated: tuple[Scores, Scores] | None

    def save(self, folder: Path) -> None:
        """Write the model as `Model.save` does: all files or, where it is interrupted, none."""
        with whole_folder(folder) as temporary:
            self.model.save(temporary)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores before and after as plain values that JSON can hold."""
        pairs = {"held_out": self.held_out} | ({} if self.simulated is None else {"simulated": self.simulated})
        return {name: {"before": old.to_dict(), "after": new.to_dict()} for name, (old, new) in pairs.items()}

    def table(self) -> str:
        """Return the scores before and after as lines of text."""
        before, after = self.held_out
        lines = [f"{self.trained} labelled columns trained on, {before.support.sum()} held out"]
        lines += ["", "held out, before", before.table(), "", "held out, after", after.table()]
        rows = {"held out": self.held_out} | ({} if self.simulated is None else {"simulated test": self.simulated})
        lines += ["", f"{'before -> after, %':<18} {'accuracy':>18} {'macro-F1':>18} {'calibration error':>18}"]
        for name, pair in rows.items():
            values = [[100 * v for v in (s.accuracy, s.macro_f1, s.calibration_error)] for s in pair]
            cells = (f"{old:.2f} -> {new:.2f}" for old, new in zip(*values, strict=True))
            lines.append(f"{name:<18} " + " ".join(f"{cell:>18}" for cell in cells))
        return "\n".join(lines)


def fine_tune(
    model: Model,
    labels: LabelSet,
    *,
    simulated: float = 0.5,
    images: int = SIMULATED_IMAGES,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
) -> FineTuned:
    """Train a model further on the labels of experts, and tell what it was worth before and after.

    Parameters
    ----------
    model : Model
        To go on from; it stays as it is.
    labels : LabelSet
        From `read_labels`.
    simulated : float
        Share of simulated columns in the loss, from 0 to below 1.
    images : int
        Simulated images, of `simulated_sources`.
    epochs : int
        Passes over the columns.
    learning_rate : float
        Largest step size.
    seed : int
        Of batches and simulated images.
    workers : int, optional
        Processes that simulate; one a core by default.
    device : str
        A torch device.

    Returns
    -------
    FineTuned

    Raises
    ------
    ValueError
        If the share is out of range, a host cannot be simulated, or either half has too few labelled columns.
    """
    if not 0.0 <= simulated < 1.0:
        raise ValueError(f"simulated: expected a share from 0 to below 1, got {simulated:g}")
    images_of_store = [_measure(each, model) for each in labels.images]
    real = concatenate([each.columns for each in images_of_store])
    shares = np.concatenate([each.shares for each in images_of_store])
    trained, tested = halves(images_of_store, [each.fingerprint for each in labels.images])
    for purpose, part in (("train on", trained), ("hold out", tested)):
        if part.sum() < LEAST_COLUMNS:
            raise ValueError(
                f"labels: expected at least {LEAST_COLUMNS} labelled columns to {purpose}, got {part.sum()} whose "
                "patches lie inside the images and clear of the other half; label more of them, or another image"
            )
    held_out = replace(real, weight=tested.astype(np.float32))
    training, validation, test = _without_surroundings(real.of_columns(trained)), held_out, None
    shares = shares[trained]
    if simulated > 0.0:
        split = split_by_seed(simulated_sources(labels, model, images, seed))
        take = partial(measure_sources, config=model.config, workers=workers)
        more = take(split.training, per_class=PER_CLASS, label="training images")
        validation = take(split.validation, label="validation images")
        test = take(split.test, label="test images")
        training = _mixed(more, training, simulated)
        shares = np.concatenate([np.eye(len(CLASSES))[more.labels], shares])
    tuned, _ = train(
        training,
        validation,
        held_out,
        model.config,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        label="fine-tuning",
        unknown=test is not None,
        start=model,
        shares=shares,
    )
    if test is not None:  # simulated columns have said what is unknown; temperature and sites are set by both
        calibrate_model(tuned, _mixed(validation, held_out, simulated), unknown=False)
    tuned = Model(tuned.network, {**model.info, **tuned.info})
    result = FineTuned(
        tuned,
        int(trained.sum()),
        _before_and_after(model, tuned, held_out),
        None if test is None else _before_and_after(model, tuned, test),
    )
    tuned.info.update(
        version=__version__,
        name=f"{model.info.get('name', 'unnamed')}, fine-tuned",
        training=_training_facts(model, labels),
        labels=labels.facts()
        | {
            "trained_on": _count(real, trained),
            "held_out": _count(real, tested),
            "simulated_share": simulated,
            "simulated_images": images if simulated > 0.0 else 0,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "seed": seed,
            "scores": result.to_dict(),
        },
    )
    return result


@dataclass(frozen=True, eq=False)
class MeasuredLabels:
    """Columns of a labelled micrograph whose patch lies in the image.

    Attributes
    ----------
    columns : LabelledColumns
        N columns, each grain an image; those without a class have no weight.
    shares : (N, 5) float64
        Shares of the votes.
    positions : (N, 2) float64
        Row and column, Å.
    reach : float
        How far from a column the image tells of it, Å: to the edge of the patches of its neighbours.
    """

    columns: LabelledColumns
    shares: NDArray[np.float64]
    positions: NDArray[np.float64]
    reach: float


def _measure(labelled: LabelledMicrograph, model: Model) -> MeasuredLabels:
    """Measure a labelled micrograph as `contextem.classify` does, but where experts see the columns.

    Columns are found first: those that experts left out are neighbours too, and the lattice tells sublattices and
    grains.  What is not found would never be classified, and is not measured.
    """
    micrograph, stated = labelled.micrograph, labelled.context
    columns = find_columns(micrograph, stated)
    found, known = match_columns(columns.positions, labelled.positions, SAME_COLUMN / micrograph.sampling)
    positions, labels = columns.positions.copy(), np.full(len(columns), NO_CLASS)
    shares = np.zeros((len(columns), len(CLASSES)))
    positions[found], labels[found], shares[found] = (
        each[known] for each in (labelled.positions, labelled.labels, labelled.shares)
    )
    columns = Columns(positions, columns.sublattice, columns.observed, columns.grain)
    calibration = calibrate(columns, stated.lattice_constant, micrograph.sampling)
    told = gather(micrograph, columns, calibration, stated, model)
    context, (contrast, complete, around) = told.context, told.measured
    labels = labels[complete]
    grains, grain = np.unique(columns.grain[complete], return_inverse=True)
    n = len(grains)  # sites are decided on in each grain, as if it were an image of its own
    same, other = around.surroundings(complete)
    assert context.detector is not None and context.energy is not None
    measured = LabelledColumns(
        contrast=contrast[complete],
        labels=np.maximum(labels, 0),
        weight=(labels != NO_CLASS).astype(np.float32),
        same=same,
        other=other,
        side=around.side[complete],
        image=grain.astype(np.int64),
        intensities=np.tile(context.vector("intensities"), (n, 1)),
        context=np.tile(context.vector("roles"), (n, 1)),
        composition=np.tile(context.vector("composition"), (n, 1)),
        case=np.full(n, f"{context.host}:{','.join(context.dopants)}"),
        condition=np.full(n, f"{context.energy / 1e3:g} keV {context.detector.name}"),
        dose=np.full(n, np.nan),
    )
    reach = (model.config.patch_radius + SECOND_NEIGHBOURS) * context.lattice_constant
    in_specimen = positions[complete] @ np.linalg.inv(calibration.scale).T
    return MeasuredLabels(measured, shares[complete], in_specimen, reach)


def halves(
    images: Sequence[MeasuredLabels], fingerprints: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Choose the labelled columns to train on and those to hold out.

    Parameters
    ----------
    images : sequence of MeasuredLabels
        N columns in all.
    fingerprints : sequence of str
        Of their pixels: the same pixels under two names are one image.

    Returns
    -------
    (N,) bool, (N,) bool
        Of every second image; or, of a single one, those left and right of the median column, with a gap between them
        that is two reaches wide.
    """
    numbers = {each: number for number, each in enumerate(dict.fromkeys(fingerprints))}
    sides = []
    for each, fingerprint in zip(images, fingerprints, strict=True):
        known, across = each.columns.weight > 0, each.positions[:, 1]
        if len(numbers) > 1:
            held = np.full(len(known), numbers[fingerprint] % 2 == 1)
            sides.append((known & ~held, known & held))
        else:
            middle = np.median(across[known]) if known.any() else 0.0
            sides.append((known & (across < middle - each.reach), known & (across > middle + each.reach)))
    trained, tested = zip(*sides, strict=True)
    return np.concatenate(trained), np.concatenate(tested)


def simulated_sources(labels: LabelSet, model: Model, images: int, seed: int) -> list[Recipe]:
    """List simulated micrographs: every other one of a labelled specimen, the rest of all the model was trained on.

    Parameters
    ----------
    labels : LabelSet
        Their hosts, dopants, energies and detectors.
    model : Model
        Its facts tell what it was trained on.
    images : int
        How many, from 10.
    seed : int
        Of the first of them.

    Returns
    -------
    list of Recipe
        Good micrographs and such as occur in practice in turns.
    """
    if images < FOLDS:
        raise ValueError(f"images: expected at least {FOLDS} simulated images, got {images}")
    own = [case for each in labels.images for case in _cases(each.context)]
    known = model.info.get("training", {})
    rng = np.random.default_rng([seed, 37])
    sources = []
    for i in range(images):
        host, dopant, energy, detector = own[i // 2 % len(own)]
        if i % 2 and known:
            host, dopant = str(rng.choice(known["hosts"])), str(rng.choice(known["dopants"]))
            energy_kev, detector = str(rng.choice(known["conditions"])).split(" keV ")
            energy = 1e3 * float(energy_kev)
        sources.append(Recipe(host, dopant, energy, detector, seed + i, ("wide", "reference")[i // 2 % 2]))
    return sources


def _cases(context: Context) -> list[tuple[str, str | None, float, str]]:
    """Host, dopant, energy and detector, as simulated images have them."""
    host_of(context.host)
    assert context.energy is not None and context.detector is not None
    beam = context.energy
    energy = min(ENERGIES, key=lambda each: abs(each - beam))
    return [(context.host, dopant, energy, context.detector.kind) for dopant in context.dopants or (None,)]


def _mixed(simulated: LabelledColumns, real: LabelledColumns, share: float) -> LabelledColumns:
    """Put columns together, weighted so that the simulated ones have their share."""
    ratio = share / (1.0 - share) * real.weight.sum() / simulated.weight.sum()
    return concatenate([replace(simulated, weight=simulated.weight * np.float32(ratio)), real])


def _without_surroundings(columns: LabelledColumns) -> LabelledColumns:
    none = np.zeros((len(columns), 0), np.int32)
    return replace(columns, same=none, other=none)


def _before_and_after(before: Model, after: Model, columns: LabelledColumns) -> tuple[Scores, Scores]:
    """Score two models on the columns that have a weight; all are there to decide on sites together."""
    counted = columns.weight > 0
    first, second = (
        score(predict(model, columns).probabilities[counted], columns.labels[counted]) for model in (before, after)
    )
    return first, second


def _count(columns: LabelledColumns, chosen: NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(columns.labels[chosen], minlength=len(CLASSES))
    return dict(zip(CLASSES, counts.tolist(), strict=True))


def _training_facts(model: Model, labels: LabelSet) -> dict[str, Any]:
    """Facts of the training before, with the hosts and dopants that came in."""
    facts = dict(model.info.get("training", {}))
    for name in ("hosts", "dopants") if facts else ():
        new = {each.context.host for each in labels.images}
        if name == "dopants":
            new = {dopant for each in labels.images for dopant in each.context.dopants}
        facts[name] = sorted({*facts[name], *new})
    return facts
