"""Training of the classifier on simulated micrographs, split by image: no patch of a test image is ever trained on."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from contextem._output import whole_file
from contextem._processes import process_pool
from contextem.columns import CLASSES, Columns
from contextem.model import AttentionClassifier, Model, ModelConfig
from contextem.pipeline import measure
from contextem.simulate.dataset import Recipe, SimulatedMicrograph, recipes, stored

TEST_SHARE = 5
"""Every fifth image of a case and condition, the fifth the first of them, is a test image."""
POSITION_ERROR = 0.07
"""Standard deviation of a found column's position, Å; added to the true positions before patches are measured."""
SCALE_ERROR = 0.01
"""Standard deviation of the relative error of the sampling, for the same reason."""
PER_CLASS = 20
"""Training columns of each class and image."""
WITHOUT_CONTEXT = "without_context"
"""Folder, within that of a model, of the same classifier trained without context."""


@dataclass(frozen=True)
class LabelledColumns:
    """Columns of many micrographs, measured and labelled.

    Attributes
    ----------
    contrast : (N, F) float32
        Contrast features.
    labels : (N,) int64
        Index into `contextem.columns.CLASSES`.
    image : (N,) int64
        Which image each column is from; indexes the attributes below.
    context : (I, Fc) float32
        Context vector of each image, by roles.
    composition : (I, Fd) float32
        The same with the composition summed, as in the paper.
    case, condition : (I,) str
        Host and dopant, energy and detector.
    dose : (I,) float64
        Electrons a pixel.
    """

    contrast: NDArray[np.float32]
    labels: NDArray[np.int64]
    image: NDArray[np.int64]
    context: NDArray[np.float32]
    composition: NDArray[np.float32]
    case: NDArray[np.str_]
    condition: NDArray[np.str_]
    dose: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def context_of(self, encoding: str) -> NDArray[np.float32]:
        """(I, F') context of each image in the encoding of a model."""
        if encoding == "none":
            return np.zeros((len(self.dose), 0), np.float32)
        return self.context if encoding == "roles" else self.composition


def measure_simulated(simulated: SimulatedMicrograph, config: ModelConfig, seed: int) -> tuple[NDArray[Any], ...]:
    """Contrast features and labels of the complete columns, at positions and a scale as uncertain as found ones."""
    rng = np.random.default_rng([seed, 7])
    micrograph, context = simulated.micrograph, simulated.context
    positions = simulated.columns.positions
    positions = positions + rng.normal(scale=POSITION_ERROR / micrograph.sampling, size=positions.shape)
    positions = np.clip(positions, 0.0, np.array(micrograph.shape) - 1.0)
    lattice_constant = context.lattice_constant * (1 + rng.normal(scale=SCALE_ERROR))
    contrast, complete = measure(micrograph, Columns(positions), lattice_constant, config)
    return contrast[complete], simulated.labels[complete].astype(np.int64)


def _measure_source(
    source: Recipe | Path, config: ModelConfig, per_class: int | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], str, str, float]:
    simulated = SimulatedMicrograph.load(source) if isinstance(source, Path) else source.simulate()
    conditions, context = simulated.conditions, simulated.context
    seed = int(conditions["seed"])
    contrast, labels = measure_simulated(simulated, config, seed)
    if per_class is not None:
        order = np.random.default_rng([seed, 11]).permutation(len(labels))
        chosen = np.concatenate([order[labels[order] == index][:per_class] for index in range(len(CLASSES))])
        contrast, labels = contrast[chosen], labels[chosen]
    return (
        contrast,
        labels,
        context.vector("roles"),
        context.vector("composition"),
        f"{conditions['host']}:{conditions['dopant']}",
        f"{conditions['energy'] / 1e3:g} keV {conditions['detector']}",
        float(conditions["dose"]),
    )


def training_and_test_sources(
    data: Path | None, preset: str, images: int, seed: int, ranges: str = "both"
) -> tuple[list[Recipe | Path], list[Recipe | Path]]:
    """Split simulated micrographs by image: every fifth of a case and condition is for testing.

    Parameters
    ----------
    data : Path, optional
        Folder written by `contextem.simulate.dataset.generate`; without it, recipes of `preset`.
    preset, images, seed, ranges
        As for `contextem.simulate.dataset.recipes`.
    """
    sources: list[Recipe | Path] = list(recipes(preset, images, seed, ranges=ranges) if data is None else stored(data))
    seeds = [source.seed if isinstance(source, Recipe) else int(source.stem.rsplit("-", 1)[1]) for source in sources]
    held_out = [number % TEST_SHARE == TEST_SHARE - 1 for number in seeds]
    training = [source for source, test in zip(sources, held_out, strict=True) if not test]
    return training, [source for source, test in zip(sources, held_out, strict=True) if test]


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
    workers = workers or os.cpu_count() or 1
    task: Callable[[Recipe | Path], Any] = partial(_measure_source, config=config, per_class=per_class)
    if workers == 1:
        rows = [task(source) for source in tqdm(sources, desc=label, unit="image", disable=None)]
    else:
        with process_pool(workers) as pool:
            results: Iterable[Any] = pool.map(task, sources, chunksize=8)
            rows = list(tqdm(results, total=len(sources), desc=label, unit="image", disable=None))
    contrast, labels, context, composition, case, condition, dose = zip(*rows, strict=True)
    return LabelledColumns(
        contrast=np.concatenate(contrast),
        labels=np.concatenate(labels),
        image=np.repeat(np.arange(len(rows)), [len(part) for part in labels]),
        context=np.stack(context),
        composition=np.stack(composition),
        case=np.asarray(case),
        condition=np.asarray(condition),
        dose=np.asarray(dose),
    )


@dataclass(frozen=True)
class Curves:
    """Accuracy on training and test columns after each epoch, averaged over the classes."""

    train: list[float]
    test: list[float]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``epoch,train,test``."""
        with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["epoch", "train", "test"])
            for epoch, pair in enumerate(zip(self.train, self.test, strict=True), start=1):
                table.writerow([epoch, *(f"{value:.5f}" for value in pair)])


def plot_curves(curves: dict[str, Curves], path: str | os.PathLike[str]) -> None:
    """Draw the accuracy curves of one or more models into one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for (name, curve), colour in zip(curves.items(), ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=False):
        epochs = np.arange(1, len(curve.train) + 1)
        axes.plot(epochs, 100 * np.asarray(curve.test), color=colour, label=f"{name}, test images")
        axes.plot(epochs, 100 * np.asarray(curve.train), color=colour, ls="--", lw=1, label=f"{name}, training images")
    axes.set(xlabel="epoch", ylabel="balanced accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=200)


def train(
    training: LabelledColumns,
    test: LabelledColumns,
    config: ModelConfig,
    *,
    epochs: int = 30,
    batch_size: int = 1024,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    device: str = "cpu",
    label: str = "training",
) -> tuple[Model, Curves]:
    """Train the attention classifier.

    Parameters
    ----------
    training, test : LabelledColumns
        Of different images; `test` is only watched, nothing is chosen by it.
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

    Returns
    -------
    Model, Curves
        Training accuracy is taken with dropout, as it passes, which is why test accuracy can lie above it.
    """
    torch.manual_seed(seed)
    network = AttentionClassifier(config)
    network.mean.copy_(torch.from_numpy(training.contrast.mean(axis=0)))
    network.scale.copy_(torch.from_numpy(training.contrast.std(axis=0)).clamp_min(1e-6))
    network.to(device)
    contrast = torch.from_numpy(training.contrast).to(device)
    labels = torch.from_numpy(training.labels).to(device)
    image = torch.from_numpy(training.image).to(device)
    context = torch.from_numpy(training.context_of(config.context)).to(device)
    frequency = torch.bincount(labels, minlength=len(CLASSES)).float()
    weight = frequency.sum() / (len(CLASSES) * frequency.clamp_min(1))

    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    batches = -(-len(labels) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * batches, pct_start=0.1
    )
    curves = Curves([], [])
    model = Model(network, {})
    with tqdm(total=epochs * batches, desc=label, unit="batch", disable=None) as progress:
        for _ in range(epochs):
            network.train()
            confusion = torch.zeros(len(CLASSES), len(CLASSES))
            for batch in torch.split(torch.randperm(len(labels), device=device), batch_size):
                logits = network(contrast[batch], context[image[batch]])
                loss = functional.cross_entropy(logits, labels[batch], weight=weight)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                pairs = labels[batch] * len(CLASSES) + logits.argmax(dim=1)
                confusion += torch.bincount(pairs, minlength=confusion.numel()).view_as(confusion).cpu()
                progress.update()
            curves.train.append(_balanced(confusion.numpy()))
            curves.test.append(_balanced(confusion_matrix(predict(model, test), test.labels)))
            progress.set_postfix(train=f"{curves.train[-1]:.4f}", test=f"{curves.test[-1]:.4f}")
    return Model(network.cpu().eval(), {}), curves


def predict(model: Model, columns: LabelledColumns) -> NDArray[np.float32]:
    """(N, 5) posterior of measured columns, each with the context of its image."""
    context = columns.context_of(model.config.context)[columns.image]
    device = str(next(model.network.parameters()).device)
    return model.predict(columns.contrast, context, device=device)


def confusion_matrix(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """(5, 5) counts, rows the true class, columns the most probable one."""
    pairs = labels * len(CLASSES) + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


def _balanced(confusion: NDArray[Any]) -> float:
    present = confusion.sum(axis=1) > 0
    return float((np.diag(confusion)[present] / confusion.sum(axis=1)[present]).mean())


def train_models(
    folder: Path,
    data: Path | None,
    *,
    preset: str,
    images: int,
    epochs: int = 30,
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
    config: ModelConfig | None = None,
) -> dict[str, Curves]:
    """Train the classifier and, on the same columns, the same classifier without context; write both.

    Parameters
    ----------
    folder : Path
        Gets weights, facts, accuracy.csv and accuracy.png; the one without context in a folder below.
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
    config : ModelConfig, optional
        Of the classifier with context.
    """
    config = config or ModelConfig()
    training_sources, test_sources = training_and_test_sources(data, preset, images, seed)
    training = measure_sources(training_sources, config, per_class=PER_CLASS, workers=workers, label="training images")
    test = measure_sources(test_sources, config, per_class=PER_CLASS, workers=workers, label="test images")
    facts = {
        "preset": preset if data is None else json.loads((data / "manifest.json").read_text())["preset"],
        "images": len(training_sources),
        "columns": len(training),
        "seed": seed,
        "epochs": epochs,
        "hosts": sorted({name.split(":")[0] for name in training.case.tolist()}),
        "dopants": sorted({name.split(":")[1] for name in training.case.tolist()} - {"None"}),
        "conditions": sorted(set(training.condition.tolist())),
    }
    curves = {}
    for name, each in {"with context": config, "without context": replace(config, context="none")}.items():
        model, curves[name] = train(
            training, test, each, epochs=epochs, seed=seed, device=device, label=f"training {name}"
        )
        model.info.update(name=f"{facts['preset']}, {name}", training=facts)
        target = folder if each.context != "none" else folder / WITHOUT_CONTEXT
        model.save(target)
        curves[name].to_csv(target / "accuracy.csv")
    plot_curves(curves, folder / "accuracy.png")
    return curves
