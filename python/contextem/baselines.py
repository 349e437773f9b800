"""Other classifiers on the same columns, by which the attention classifier is to be judged.

Logistic regression, gradient boosting and a perceptron read the 36 rotation invariants of a column and the context
vector, electron shells by roles, side by side; a convolutional network reads the pixels of the patch, and the context
vector where it decides.  Columns are weighted as in the training of the classifier.  Every fit returns an object whose
``predict`` gives posteriors (N, 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from contextem._extras import needs_extra
from contextem._processes import each_image
from contextem.attention import ModelConfig
from contextem.columns import CLASSES
from contextem.patches import antialias, extract_patches, patch_complete
from contextem.simulate.dataset import Recipe, SimulatedMicrograph
from contextem.train import SCALE_ERROR, LabelledColumns, few_of_each, misplaced_columns

MOST_COLUMNS = 120_000
"""Training columns of a baseline; a random part of what there is."""
INVARIANTS = 36
"""Contrast features that the paper knows, and so the baselines."""
PATCH = 32
"""Side of the patches the network reads."""


class Fitted(Protocol):
    """A trained baseline that reads contrast features."""

    def predict(self, columns: LabelledColumns) -> NDArray[np.float64]:
        """Return the posterior of each column, (N, 5)."""


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of the columns of many micrographs, labelled.

    Attributes
    ----------
    patches : (N, P, P) float16
        In units of the standard deviation of their image, from its mean.
    labels, weight, image, context, case, condition, dose
        As for `contextem.train.LabelledColumns`.
    """

    patches: NDArray[np.float16]
    labels: NDArray[np.int64]
    weight: NDArray[np.float32]
    image: NDArray[np.int64]
    context: NDArray[np.float32]
    case: NDArray[np.str_]
    condition: NDArray[np.str_]
    dose: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


def fit_logistic(training: LabelledColumns, *, seed: int = 0) -> Fitted:
    """Fit a logistic regression on standardised features."""
    with needs_extra("baselines"):
        from sklearn.linear_model import LogisticRegression

    return _fit(LogisticRegression(max_iter=300), training, seed)


def fit_boosting(training: LabelledColumns, *, seed: int = 0) -> Fitted:
    """Fit gradient-boosted trees on histograms of the features."""
    with needs_extra("baselines"):
        from sklearn.ensemble import HistGradientBoostingClassifier

    return _fit(HistGradientBoostingClassifier(max_iter=200, early_stopping=False, random_state=seed), training, seed)


def fit_perceptron(training: LabelledColumns, *, seed: int = 0) -> Fitted:
    """Fit a perceptron with two hidden layers on standardised features."""
    with needs_extra("baselines"):
        from sklearn.neural_network import MLPClassifier

    batch_size = min(512, len(training), MOST_COLUMNS)
    estimator = MLPClassifier((128, 128), batch_size=batch_size, max_iter=20, tol=0.0, random_state=seed)
    return _fit(estimator, training, seed)


TABULAR: Mapping[str, Callable[[LabelledColumns], Fitted]] = {
    "logistic": fit_logistic,
    "boosting": fit_boosting,
    "perceptron": fit_perceptron,
}
"""Baselines that read contrast features, by the name they are listed under."""
NETWORK = "pixel network"
"""Name under which the convolutional network is listed."""


@dataclass(frozen=True)
class _Tabular:
    """A fitted scikit-learn estimator with the standardisation of its features."""

    estimator: Any
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def predict(self, columns: LabelledColumns) -> NDArray[np.float64]:
        posterior = np.zeros((len(columns), len(CLASSES)))
        if len(columns):
            features = (_features(columns) - self.mean) / self.scale
            posterior[:, self.estimator.classes_] = self.estimator.predict_proba(features)
        return posterior


def _features(columns: LabelledColumns) -> NDArray[np.float32]:
    return np.concatenate([columns.contrast[:, :INVARIANTS], columns.context[columns.image]], axis=1)


def _fit(estimator: Any, training: LabelledColumns, seed: int) -> Fitted:
    import warnings

    with needs_extra("baselines"):
        from sklearn.exceptions import ConvergenceWarning

    features, labels = _features(training), training.labels
    chosen = _part(len(labels), seed)
    features, labels = features[chosen], labels[chosen]
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), np.float32(1e-6))
    with warnings.catch_warnings():
        # a fixed number of passes is wanted
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit((features - mean) / scale, labels, sample_weight=training.weight[chosen])
    return _Tabular(estimator, mean, scale)


def _part(count: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng([seed, 13]).permutation(count)[:MOST_COLUMNS])


class PixelNetwork(nn.Module):
    """Three convolutions over the patch, then a perceptron over what they saw and the context."""

    def __init__(self, context_size: int, *, size: int = PATCH, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.eyes = nn.Sequential(*layers, nn.Flatten())
        seen = 4 * width * (size // 8) ** 2
        self.head = nn.Sequential(
            nn.Linear(seen + context_size, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, len(CLASSES))
        )

    def forward(self, patches: Tensor, context: Tensor) -> Tensor:  # (B, P, P), (B, Fc) -> (B, C)
        """Return the logits of the five classes."""
        logits: Tensor = self.head(torch.cat([self.eyes(patches[:, None]), context], dim=1))
        return logits


@dataclass(frozen=True)
class FittedNetwork:
    """A trained `PixelNetwork`."""

    network: PixelNetwork

    def predict(self, columns: LabelledPatches, *, batch_size: int = 2048) -> NDArray[np.float32]:
        """Return the posterior of each column, (N, 5)."""
        posterior = np.empty((len(columns), len(CLASSES)), np.float32)
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(columns), batch_size):
                part = slice(start, start + batch_size)
                patches = torch.from_numpy(columns.patches[part].astype(np.float32))
                context = torch.from_numpy(columns.context[columns.image[part]])
                posterior[part] = torch.softmax(self.network(patches, context), dim=1).numpy()
        return posterior


def fit_network(
    training: LabelledPatches, *, epochs: int = 6, batch_size: int = 256, learning_rate: float = 3e-3, seed: int = 0
) -> FittedNetwork:
    """Train the convolutional network.

    Parameters
    ----------
    training : LabelledPatches
        At most `MOST_COLUMNS` of them are used.
    epochs, batch_size, learning_rate
        Of AdamW with a one-cycle schedule; each batch is turned and mirrored at random.
    seed : int
        Of weights and batches.
    """
    torch.manual_seed(seed)
    chosen = _part(len(training), seed)
    labels, image = torch.from_numpy(training.labels[chosen]), training.image[chosen]
    weight = torch.from_numpy(training.weight[chosen] / training.weight[chosen].mean())
    network = PixelNetwork(training.context.shape[1], size=training.patches.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    total = epochs * -(-len(chosen) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=total, pct_start=0.2)
    network.train()
    with tqdm(total=total, desc=f"training {NETWORK}", unit="batch", disable=None) as progress:
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(chosen)), batch_size):
                patches = torch.from_numpy(training.patches[chosen[batch.numpy()]].astype(np.float32))
                turns, mirrored = torch.randint(4, (1,)).item(), torch.randint(2, (1,)).item()
                patches = torch.rot90(patches, int(turns), (1, 2))
                patches = patches.flip(2) if mirrored else patches
                context = torch.from_numpy(training.context[image[batch.numpy()]])
                losses = functional.cross_entropy(network(patches, context), labels[batch], reduction="none")
                loss = (weight[batch] * losses).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                progress.update()
    return FittedNetwork(network.eval())


def measure_patches(
    sources: Sequence[Recipe | Path],
    config: ModelConfig,
    *,
    per_class: int | None = None,
    most: int | None = None,
    workers: int | None = None,
    label: str = "patches",
) -> LabelledPatches:
    """Cut the patches of simulated micrographs, at positions and a scale as uncertain as found ones.

    Parameters
    ----------
    sources : sequence of Recipe or Path
        What to simulate, or files to load.
    config : ModelConfig
        Patch radius.
    per_class : int, optional
        Keep at most so many columns of each class and image (for training).
    most : int, optional
        Keep at most so many columns of each image, whatever their class (for testing).
    workers : int, optional
        Processes; one a core by default.
    label : str
        Of the progress bar.

    Returns
    -------
    LabelledPatches
    """
    task = partial(_cut, config=config, per_class=per_class, most=most)
    rows = each_image(task, sources, workers=workers, label=label)
    patches, labels, weight, context, case, condition, dose = zip(*rows, strict=True)
    return LabelledPatches(
        patches=np.concatenate(patches),
        labels=np.concatenate(labels),
        weight=np.concatenate(weight),
        image=np.repeat(np.arange(len(rows)), [len(part) for part in labels]),
        context=np.stack(context),
        case=np.asarray(case),
        condition=np.asarray(condition),
        dose=np.asarray(dose),
    )


def _cut(source: Recipe | Path, config: ModelConfig, per_class: int | None, most: int | None) -> tuple[Any, ...]:
    simulated = SimulatedMicrograph.load(source) if isinstance(source, Path) else source.simulate()
    micrograph, context, conditions = simulated.micrograph, simulated.context, simulated.conditions
    rng = np.random.default_rng([int(conditions["seed"]), 7])
    positions = misplaced_columns(simulated, rng).positions
    lattice_constant = context.lattice_constant * (1 + rng.normal(scale=SCALE_ERROR))
    scale = 2 * config.patch_radius * lattice_constant / (PATCH * micrograph.sampling)
    image = antialias(micrograph.as_float("float32"), scale)
    kept = np.flatnonzero(patch_complete(image.shape, positions, PATCH, scale=scale))
    labels = simulated.labels[kept].astype(np.int64)
    order, weight = rng.permutation(len(kept))[:most], np.ones(len(kept), np.float32)[:most]
    if per_class is not None:
        order, weight = few_of_each(labels, per_class, rng)
    image = (image - image.mean()) / max(float(image.std()), 1e-12)
    patches = extract_patches(image, positions[kept[order]], PATCH, scale=scale, n_threads=1)
    return (
        patches.astype(np.float16),
        labels[order],
        weight,
        context.vector("roles"),
        simulated.case,
        simulated.condition,
        float(conditions["dose"]),
    )
