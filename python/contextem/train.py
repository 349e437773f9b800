"""Training of the classifier on simulated micrographs, split by image: no patch of a test image is ever trained on."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from contextem._output import whole_file
from contextem._processes import each_image
from contextem.attention import PAPER, LatticeClassifier, ModelConfig, build_classifier
from contextem.columns import CLASSES, Columns
from contextem.context import Context
from contextem.contrast import own_and_near
from contextem.curves import Curves, curves_figure
from contextem.figures import style
from contextem.measurement import measure
from contextem.micrograph import Detector
from contextem.model import Model, Prediction
from contextem.simulate.dataset import CHALCOGENS, Recipe, SimulatedMicrograph, alloy_recipes, recipes, stored
from contextem.sites import METAL_SITE, agree_on_sites, shared_odds

logger = logging.getLogger(__name__)

FOLDS = 10
"""Of every ten images of a case and condition, `TEST_FOLDS` are for testing and `VALIDATION_FOLDS` for calibration."""
TEST_FOLDS, VALIDATION_FOLDS = (4, 9), (3, 8)
WATCHED = 600
"""Most images of validation and of test that training looks at."""
POSITION_ERROR = 0.07
"""Standard deviation of a found column's position, Å; added to the true positions before patches are measured."""
SCALE_ERROR = 0.01
"""Standard deviation of the relative error of the sampling, for the same reason."""
PER_CLASS = 40
"""Training columns of each class and image; where there are more, those taken stand for the others by their weight."""
ALLOYS = 0.3
"""Training images of mean-field alloys, for each image of a real host: they fill the gaps between the chalcogens."""
FAMILIARITY_SHARE = 0.2
"""Share of the familiarity in the loss."""
UNKNOWN_QUANTILE = 0.005
"""Share of known columns that are called unknown."""
STRONGEST = 4.0
"""Most that is made of the common word of a neighbourhood and a grain: simulated images of one grain set no limit."""
MISFIT_QUANTILE = 0.02
"""Share of the images under whose right context another one is tried."""

OF_COLUMNS = ("contrast", "labels", "weight", "same", "other", "side", "image")
"""Attributes of `LabelledColumns` with an entry for each column; the others have one for each image."""


@dataclass(frozen=True)
class LabelledColumns:
    """Columns of many micrographs, measured and labelled.

    Attributes
    ----------
    contrast : (N, F) float32
        Contrast features.
    labels : (N,) int64
        Index into `contextem.columns.CLASSES`.
    weight : (N,) float32
        Columns of its class and image that a column stands for.
    same, other : (N, K) int32
        Columns around on the same and on the other sublattice, -1 for none; K is 0 where not all columns are kept.
    side : (N,) int8
        Sublattice of each column, 0 or 1.
    image : (N,) int64
        Which image each column is from; indexes the attributes below.
    intensities, context, composition : (I, Fc) float32
        Context vector of each image: expected intensities, shells by roles, shells summed as in the paper.
    case, condition : (I,) str
        Host and dopant, energy and detector.
    dose : (I,) float64
        Electrons a pixel.
    """

    contrast: NDArray[np.float32]
    labels: NDArray[np.int64]
    weight: NDArray[np.float32]
    same: NDArray[np.int32]
    other: NDArray[np.int32]
    side: NDArray[np.int8]
    image: NDArray[np.int64]
    intensities: NDArray[np.float32]
    context: NDArray[np.float32]
    composition: NDArray[np.float32]
    case: NDArray[np.str_]
    condition: NDArray[np.str_]
    dose: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def grain(self) -> NDArray[np.int64]:
        """(N,) number of the grain each column is in: one an image."""
        return self.image

    def context_of(self, encoding: str) -> NDArray[np.float32]:
        """(I, F') context of each image in the encoding of a model."""
        if encoding == "none":
            return np.zeros((len(self.dose), 0), np.float32)
        known = {"intensities": self.intensities, "roles": self.context, "composition": self.composition}
        return known[encoding]

    def of_images(self, chosen: NDArray[np.bool_]) -> LabelledColumns:
        """Return the columns of chosen images, (I,) bool."""
        return self._part(np.flatnonzero(chosen[self.image]), chosen)

    def of_columns(self, chosen: NDArray[np.bool_]) -> LabelledColumns:
        """Return chosen columns, (N,) bool, with all images."""
        return self._part(np.flatnonzero(chosen), np.ones(len(self.dose), bool))

    def few(self, per_class: int, seed: int) -> LabelledColumns:
        """Return at most `per_class` columns of each class and image, drawn at random, for training."""
        starts = np.searchsorted(self.image, np.arange(len(self.dose) + 1))
        kept, weights = [], []
        for image, (start, stop) in enumerate(itertools.pairwise(starts)):
            rng = np.random.default_rng([seed, image])
            chosen, weight = few_of_each(self.labels[start:stop], per_class, rng)
            kept.append(start + chosen)
            weights.append(weight)
        part = self._part(np.concatenate(kept), np.ones(len(self.dose), bool))
        none = np.zeros((len(part), 0), np.int32)
        return replace(part, weight=np.concatenate(weights), same=none, other=none)

    def _part(self, kept: NDArray[np.int64], images: NDArray[np.bool_]) -> LabelledColumns:
        """Return columns (M,) int, of images (I,) bool."""
        parts = {f.name: getattr(self, f.name)[kept if f.name in OF_COLUMNS else images] for f in fields(self)}
        number = np.full(len(self) + 1, -1, np.int32)
        number[kept] = np.arange(len(kept))
        parts |= {name: number[parts[name]] for name in ("same", "other")}
        return LabelledColumns(**parts | {"image": (np.cumsum(images) - 1)[parts["image"]]})


def measure_simulated(simulated: SimulatedMicrograph, config: ModelConfig, seed: int) -> tuple[NDArray[Any], ...]:
    """Contrast features, labels, surroundings and sublattice of the complete columns, as imprecise as found ones."""
    rng = np.random.default_rng([seed, 7])
    columns = misplaced_columns(simulated, rng)
    lattice_constant = simulated.context.lattice_constant * (1 + rng.normal(scale=SCALE_ERROR))
    contrast, complete, around = measure(simulated.micrograph, columns, lattice_constant, config)
    labels = simulated.labels[complete].astype(np.int64)
    return contrast[complete], labels, *around.surroundings(complete), around.side[complete]


def misplaced_columns(simulated: SimulatedMicrograph, rng: np.random.Generator) -> Columns:
    """Return the columns of a simulated micrograph, as far off their places as found ones are."""
    micrograph, positions = simulated.micrograph, simulated.columns.positions
    positions = positions + rng.normal(scale=POSITION_ERROR / micrograph.sampling, size=positions.shape)
    return Columns(np.clip(positions, 0.0, np.array(micrograph.shape) - 1.0), simulated.columns.sublattice)


def stated_context(context: Context, rng: np.random.Generator) -> Context:
    """Return the context as a user would state it: every other one knows no collection angles, only the detector."""
    assert context.detector is not None
    if rng.random() < 0.5:
        return context
    return Context(context.host, context.dopants, context.energy, Detector(context.detector.name))


def few_of_each(
    labels: NDArray[np.int64], per_class: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which columns to keep, at most `per_class` of each class, and how many each of them stands for."""
    order = rng.permutation(len(labels))
    parts = [order[labels[order] == index] for index in range(len(CLASSES))]
    weights = [np.full(len(part[:per_class]), max(1.0, len(part) / per_class), np.float32) for part in parts]
    return np.concatenate([part[:per_class] for part in parts]), np.concatenate(weights)


def concatenate(parts: Sequence[LabelledColumns]) -> LabelledColumns:
    """Return the columns of all parts, each with images of its own, the K of their surroundings being the same."""
    columns: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(LabelledColumns)
    }
    counts, images = [len(part) for part in parts], [len(part.dose) for part in parts]
    columns["image"] += np.repeat(np.cumsum([0, *images[:-1]]), counts)
    start = np.repeat(np.cumsum([0, *counts[:-1]]), counts)[:, None]
    for name in ("same", "other"):
        columns[name] = np.where(columns[name] >= 0, columns[name] + start, -1).astype(np.int32)
    return LabelledColumns(**columns)


def _measure_source(source: Recipe | Path, config: ModelConfig, per_class: int | None) -> LabelledColumns:
    simulated = SimulatedMicrograph.load(source) if isinstance(source, Path) else source.simulate()
    seed = int(simulated.conditions["seed"])
    context = stated_context(simulated.context, np.random.default_rng([seed, 13]))
    contrast, labels, same, other, side = measure_simulated(simulated, config, seed)
    weight = np.ones(len(labels), np.float32)
    if per_class is not None:
        chosen, weight = few_of_each(labels, per_class, np.random.default_rng([seed, 11]))
        contrast, labels, side = contrast[chosen], labels[chosen], side[chosen]
        same = other = np.zeros((len(labels), 0), np.int32)
    return LabelledColumns(
        contrast=contrast,
        labels=labels,
        weight=weight,
        same=same,
        other=other,
        side=side,
        image=np.zeros(len(labels), np.int64),
        intensities=context.vector("intensities")[None],
        context=context.vector("roles")[None],
        composition=context.vector("composition")[None],
        case=np.array([simulated.case]),
        condition=np.array([simulated.condition]),
        dose=np.array([float(simulated.conditions["dose"])]),
    )


@dataclass(frozen=True)
class Split:
    """Simulated micrographs, or recipes of them, by what they are for."""

    training: list[Recipe | Path]
    validation: list[Recipe | Path]
    test: list[Recipe | Path]


def seed_of(source: Recipe | Path) -> int:
    """Return the seed of a simulated micrograph; the name of its file ends in it."""
    return source.seed if isinstance(source, Recipe) else int(source.stem.rsplit("-", 1)[1])


def split_sources(data: Path | None, preset: str, images: int, seed: int, ranges: str = "both") -> Split:
    """Split simulated micrographs by image, by the last digit of their seeds: see `FOLDS`.

    Parameters
    ----------
    data : Path, optional
        Folder written by `contextem.simulate.dataset.generate`; without it, recipes of `preset`.
    preset, images, seed, ranges
        As for `contextem.simulate.dataset.recipes`.

    Examples
    --------
    >>> split = split_sources(None, "tmd96", 10, 0)
    >>> len(split.training), len(split.validation), len(split.test)
    (576, 192, 192)
    """
    return split_by_seed(recipes(preset, images, seed, ranges=ranges) if data is None else stored(data))


def split_by_seed(sources: Sequence[Recipe | Path]) -> Split:
    """Split simulated micrographs by the last digit of their seeds: see `FOLDS`."""
    split = Split([], [], [])
    for source in sources:
        fold = seed_of(source) % FOLDS
        part = split.test if fold in TEST_FOLDS else split.validation if fold in VALIDATION_FOLDS else split.training
        part.append(source)
    return split


def measure_sources(
    sources: Sequence[Recipe | Path],
    config: ModelConfig,
    *,
    per_class: int | None = None,
    workers: int | None = None,
    label: str = "simulating",
) -> LabelledColumns:
    """Measure the columns of simulated micrographs, in parallel processes.

    Parameters
    ----------
    sources : sequence of Recipe or Path
        What to simulate, without storing images, or files to load.
    config : ModelConfig
        Basis and patch radius.
    per_class : int, optional
        Keep at most so many columns of each class and image (for training); all by default.
    workers : int, optional
        Processes; one a core by default.
    label : str
        Of the progress bar.
    """
    task = partial(_measure_source, config=config, per_class=per_class)
    return concatenate(each_image(task, sources, workers=workers, label=label))


def train(
    training: LabelledColumns,
    validation: LabelledColumns,
    test: LabelledColumns,
    config: ModelConfig,
    *,
    epochs: int = 10,
    batch_size: int = 1024,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    device: str = "cpu",
    label: str = "training",
    unknown: bool = True,
    start: Model | None = None,
    shares: NDArray[np.floating[Any]] | None = None,
) -> tuple[Model, Curves]:
    """Train and calibrate a classifier.

    Parameters
    ----------
    training, validation, test : LabelledColumns
        Of different images; temperature and the threshold of unknown columns are taken from `validation`; `test` is
        only watched, nothing is chosen by it.
    config : ModelConfig
        Of the classifier.
    epochs, batch_size, learning_rate, weight_decay
        Of AdamW with a one-cycle schedule.
    seed : int
        Of weights, batches and dropout.
    device : str
        A torch device.
    label : str
        Of the progress bar.
    unknown : bool
        Whether to learn to tell unknown columns too; without it training takes half the time.
    start : Model, optional
        Of this `config`, to go on from; it stays as it is.  By default weights are drawn at random.
    shares : (N, 5), optional
        How likely each training column is of each class; by default it is surely of that of its label.

    Returns
    -------
    Model, Curves
        Training accuracy is taken with dropout, as it passes, which is why test accuracy can lie above it.
    """
    torch.manual_seed(seed)
    if start is None:
        network = build_classifier(config)
        features = len(network.mean)
        network.mean.copy_(torch.from_numpy(training.contrast[:, :features].mean(axis=0)))
        network.scale.copy_(torch.from_numpy(training.contrast[:, :features].std(axis=0)).clamp_min(1e-6))
    else:
        network = deepcopy(start.network)
    network.to(device)
    contrast = torch.from_numpy(training.contrast).to(device)
    labels = torch.from_numpy(training.labels).to(device)
    wanted = labels if shares is None else torch.from_numpy(np.asarray(shares, np.float32)).to(device)
    image = torch.from_numpy(training.image).to(device)
    weight = torch.from_numpy(training.weight / training.weight.mean()).to(device)
    context = torch.from_numpy(training.context_of(config.context)).to(device)

    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    batches = -(-len(labels) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * batches, pct_start=0.15
    )
    # the typicality shares no weights with the others and is not to shorten their steps
    named = list(network.named_parameters())
    clipped = [[p for name, p in named if name.startswith("typicality.") == apart] for apart in (False, True)]
    curves = Curves([], [])
    model = Model(network, {})
    with tqdm(total=epochs * batches, desc=label, unit="batch", disable=None) as progress:
        for epoch in range(1, epochs + 1):
            network.train()
            right = total = 0.0
            for batch in torch.split(torch.randperm(len(labels), device=device), batch_size):
                known = contrast[batch], context[image[batch]]
                logits, familiarity = network(*known)
                losses = functional.cross_entropy(logits, wanted[batch], reduction="none")
                loss = (weight[batch] * losses).mean()
                if unknown and isinstance(network, LatticeClassifier):
                    loss = loss + FAMILIARITY_SHARE * familiarity_loss(network, *known, familiarity)
                    given = network.given(known[1], labels[batch])
                    loss = loss + network.typicality.loss(network.standardise(known[0]), given)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                for group in clipped:
                    torch.nn.utils.clip_grad_norm_(group, 1.0)
                optimizer.step()
                schedule.step()
                right += float(weight[batch][logits.argmax(dim=1) == labels[batch]].sum())
                total += float(weight[batch].sum())
                progress.update()
            curves.train.append(right / total)
            hits = predict(model, test).probabilities.argmax(axis=1) == test.labels
            curves.test.append(float(np.average(hits, weights=test.weight)))
            progress.set_postfix(train=f"{curves.train[-1]:.4f}", test=f"{curves.test[-1]:.4f}")
            logger.info(
                "%s, epoch %d of %d: accuracy %.4f, of the test images %.4f",
                label,
                epoch,
                epochs,
                curves.train[-1],
                curves.test[-1],
            )
    model = Model(network.cpu().eval(), {})
    calibrate(model, validation, unknown=unknown)
    return model, curves


def familiarity_loss(network: LatticeClassifier, contrast: Tensor, context: Tensor, familiarity: Tensor) -> Tensor:
    """Binary cross-entropy of columns as they are against columns put together wrongly.

    A quarter of the batch gets the context of another image, a quarter the looks of another column amid its own
    neighbours, or other neighbours.  Nothing here looks like an adatom or a grain boundary: what is learnt is which
    columns, neighbours and contexts go together.
    """
    quarter = len(contrast) // 4
    right = functional.softplus(-familiarity).mean()
    if quarter == 0:
        return right
    other = torch.randperm(len(contrast), device=contrast.device)[:quarter]
    own, near = own_and_near(network.config.basis)
    mixed, half = contrast[:quarter].clone(), quarter // 2
    mixed[:half, own.start : own.stop] = contrast[other[:half], own.start : own.stop]
    mixed[half:, near.start : near.stop] = contrast[other[half:], near.start : near.stop]
    wrong_looks = network(mixed, context[:quarter])[1]
    loss = right + functional.softplus(wrong_looks).mean()
    if context.shape[1]:
        start = slice(quarter, 2 * quarter)
        loss = loss + functional.softplus(network(contrast[start], context[other])[1]).mean()
    return loss


def predict(model: Model, columns: LabelledColumns) -> Prediction:
    """Posterior (N, 5) and familiarity (N,) of measured columns, each with the context of its image."""
    context = columns.context_of(model.config.context)[columns.image]
    device = str(next(model.network.parameters()).device)
    return model.predict(columns.contrast, context, columns, device=device)


def calibrate(model: Model, validation: LabelledColumns, *, unknown: bool = True) -> None:
    """Set temperature, strength of the sites' common word and threshold of the familiar, from validation columns.

    The first two make the true classes likeliest, one after the other.  Guo et al., "On calibration of modern neural
    networks", https://doi.org/10.48550/arXiv.1706.04599.
    """
    model.info.pop("site_strength", None)
    model.info["defect_shares"] = defect_shares(validation)
    probabilities, _, familiarity = predict(model, validation)
    weight, rows = validation.weight, np.arange(len(validation))

    def surprise(posterior: NDArray[np.floating[Any]]) -> float:
        true = np.asarray(posterior, np.float64)[rows, validation.labels]
        return float(np.average(-np.log(np.maximum(true, 1e-9)), weights=weight))

    def tempered(temperature: float) -> NDArray[np.float64]:
        powers = np.maximum(probabilities, 1e-30).astype(np.float64) ** (1.0 / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    best = minimize_scalar(lambda log: surprise(tempered(np.exp(log))), bounds=(-7.0, 7.0), method="bounded")
    temperature = float(np.exp(best.x))
    network = model.network
    network.temperature.mul_(temperature)
    if not isinstance(network, LatticeClassifier):
        return
    posterior = tempered(temperature)
    common = shared_odds(posterior, validation)
    strength = minimize_scalar(
        lambda x: surprise(agree_on_sites(posterior, common, x)), bounds=(0.05, STRONGEST), method="bounded"
    )
    model.info["site_strength"] = float(strength.x) if strength.fun < surprise(posterior) else 0.0
    if not unknown:
        return
    with torch.no_grad():
        context = torch.from_numpy(validation.context_of(model.config.context)[validation.image])
        given = network.given(context, torch.from_numpy(probabilities.argmax(axis=1)))
        standard = network.standardise(torch.from_numpy(validation.contrast))
        network.typicality.calibrate(standard, given, torch.from_numpy(familiarity))
    familiarity = predict(model, validation).familiarity
    order = np.argsort(familiarity)
    share = np.cumsum(weight[order]) / weight.sum()
    for name, quantile in (("unknown_below", UNKNOWN_QUANTILE), ("usual_familiarity", 0.5)):
        model.info[name] = float(familiarity[order][np.searchsorted(share, quantile)])
    images = np.unique(validation.image, return_inverse=True)[1]
    model.info["misfit_below"] = float(
        np.quantile(np.bincount(images, familiarity) / np.bincount(images), MISFIT_QUANTILE)
    )


def defect_shares(columns: LabelledColumns) -> dict[str, float]:
    """Return the share of each defect among the sites of its sublattice.

    Parameters
    ----------
    columns : LabelledColumns
        What a model is calibrated on: its posteriors hold these shares.
    """
    counts = np.bincount(columns.labels, columns.weight, minlength=len(CLASSES))
    sites = np.where(METAL_SITE, counts[METAL_SITE].sum(), counts[~METAL_SITE].sum())
    return {
        name: float(counts[i] / sites[i])
        for i, name in enumerate(CLASSES)
        if name not in ("metal", "X2") and 0.0 < counts[i] < sites[i]
    }


def training_data(
    data: Path | None, preset: str, images: int, seed: int, config: ModelConfig, workers: int | None
) -> tuple[LabelledColumns, LabelledColumns, LabelledColumns]:
    """Measure what a classifier is trained, calibrated and watched on; alloys are added to the training images."""
    split = split_sources(data, preset, images, seed)
    sources = split.training + list(alloy_recipes(round(ALLOYS * len(split.training)), seed, CHALCOGENS))
    take = partial(measure_sources, config=config, workers=workers)
    rng = np.random.default_rng([seed, 19])
    watched = [[part[i] for i in rng.permutation(len(part))[:WATCHED]] for part in (split.validation, split.test)]
    return (
        take(sources, per_class=PER_CLASS, label="training images"),
        take(watched[0], label="validation images"),
        take(watched[1], label="test images"),
    )


def train_models(
    folder: Path,
    data: Path | None,
    *,
    preset: str,
    images: int,
    epochs: int = 10,
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
    configs: dict[str, ModelConfig] | None = None,
) -> dict[str, Curves]:
    """Train the classifier and, on the same columns, those it is compared with; write them all.

    Parameters
    ----------
    folder : Path
        Gets weights, facts, accuracy.csv and accuracy.png; the other classifiers go into folders below.
    data : Path, optional
        Simulated micrographs; simulated on the fly by default.
    preset, images, seed
        What to simulate, as for `contextem.simulate.dataset.recipes`.
    epochs : int
        Passes over the training columns.
    workers : int, optional
        Processes that simulate and measure.
    device : str
        A torch device.
    configs : dict of str to ModelConfig, optional
        By name; the first is the model of the folder itself.  By default the lattice model and that of the paper, both
        with and without context.
    """
    configs = configs or {
        "with context": ModelConfig(),
        "without context": ModelConfig(context="none"),
        "paper": PAPER,
        "paper without context": replace(PAPER, context="none"),
    }
    first = next(iter(configs.values()))
    training, validation, test = training_data(data, preset, images, seed, first, workers)
    cases = [name.split(":") for name in training.case.tolist()]
    facts = {
        "preset": preset if data is None else json.loads((data / "manifest.json").read_text())["preset"],
        "images": len(training.dose),
        "columns": len(training),
        "seed": seed,
        "epochs": epochs,
        "hosts": sorted({host for host, _ in cases if "(" not in host}),
        "dopants": sorted({dopant for host, dopant in cases if "(" not in host} - {"None"}),
        "conditions": sorted(set(training.condition.tolist())),
    }
    curves = {}
    for name, config in configs.items():
        model, curves[name] = train(
            training, validation, test, config, epochs=epochs, seed=seed, device=device, label=f"training {name}"
        )
        today = datetime.now(UTC).date().isoformat()
        model.info.update(name=f"{facts['preset']}, {name}", trained=today, training=facts)
        target = folder if config is first else folder / name.replace(" ", "_")
        model.save(target, export=config is first)
        curves[name].to_csv(target / "accuracy.csv")
    with whole_file(folder / "accuracy.png") as temporary, style():
        curves_figure(curves).savefig(temporary, dpi=300)
    return curves
