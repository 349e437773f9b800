"""The attention classifier: what a column looks like, and what the experiment knows, weighed together.

    moments (N, J) -> contrast features (N, F)      rotation invariants, free of gain and offset
    context        -> context features (Fc,)        electron shells of M, X and dopant; beam energy; detector

Contrast and context features are concatenated and cut into tokens: one for each angular order |m| of the moments, one
for the brightness of the column within its image, one for each role of the context.  Self-attention lets the tokens ask
each other ("this bright, but is the metal heavier than two chalcogens?"), a class token collects the answer.

Dan et al., "Bridging Contextual Information in Deep Learning for Structural Defect Classification"; attention:
Vaswani et al., https://doi.org/10.48550/arXiv.1706.03762.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from contextem import __version__
from contextem._output import whole_file
from contextem.columns import CLASSES
from contextem.context import ENERGIES, Context
from contextem.elements import SUBSHELLS
from contextem.micrograph import DETECTORS
from contextem.zernike import ZernikeBasis, rotation_invariants

CONTEXT_TOKENS: dict[str, tuple[int, ...]] = {
    "roles": (len(SUBSHELLS),) * 3 + (len(ENERGIES), len(DETECTORS)),
    "composition": (len(SUBSHELLS), len(ENERGIES), len(DETECTORS)),
    "none": (),
}
NEIGHBOURS = 48
"""Columns around one that tell how bright its surroundings are."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to rebuild the classifier and to feed it.

    Attributes
    ----------
    n_max, size, basis_mode
        The Zernike basis; see `contextem.zernike.ZernikeBasis`.
    patch_radius : float
        Radius of the patch in lattice constants of the host.
    context : {"roles", "composition", "none"}
        How the context enters; "none" is the same classifier without it.
    width, depth, heads : int
        Of the attention layers.
    dropout : float
        Share of activations dropped in training.
    """

    n_max: int = 10
    size: int = 32
    basis_mode: Literal["integrated", "lstsq", "projection"] = "integrated"
    patch_radius: float = 1.0
    context: Literal["roles", "composition", "none"] = "roles"
    width: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1

    @cached_property
    def basis(self) -> ZernikeBasis:
        """The basis the moments are taken in."""
        return ZernikeBasis(self.n_max, self.size, mode=self.basis_mode)

    def patch_scale(self, sampling: float, lattice_constant: float) -> float:
        """Return the px per patch sample that make the patch `patch_radius` lattice constants in radius."""
        return 2 * self.patch_radius * lattice_constant / (self.size * sampling)


def contrast_features(
    moments: NDArray[np.floating[Any]],
    positions: NDArray[np.float64],
    complete: NDArray[np.bool_],
    basis: ZernikeBasis,
) -> NDArray[np.float32]:
    """Turn the moments of one micrograph's columns into features that no gain, offset or rotation changes.

    Parameters
    ----------
    moments : (N, J)
        Of all the columns of one micrograph.
    positions : (N, 2)
        (row, column) in px; they say which columns are neighbours.
    complete : (N,) bool
        Columns whose patch lies in the image; only these set the standard of brightness.
    basis : ZernikeBasis
        The basis of `moments`.

    Returns
    -------
    (N, F) float32
        The rotation invariants but a_00, divided by their norm; then, relative to the neighbourhood's contrast (the
        root mean square of that norm over the nearest complete columns), the mean intensity above the neighbourhood's
        and the logarithm of the norm.  F is the number of invariants plus one.

    Raises
    ------
    ValueError
        If no column is complete.
    """
    if len(moments) == 0:
        return np.zeros((0, invariant_orders(basis).size + 1), np.float32)
    if not complete.any():
        raise ValueError(
            "positions: expected at least one column whose patch lies inside the image, "
            f"got {len(moments)} at the border; use a larger field of view"
        )
    invariants = rotation_invariants(moments, basis)[:, 1:]
    mean = np.asarray(moments[:, 0], np.float64)
    energy = np.sum(np.square(moments[:, 1:], dtype=np.float64), axis=1)
    tree = cKDTree(positions[complete])
    _, near = tree.query(positions, k=np.arange(1, min(NEIGHBOURS, int(complete.sum())) + 1))
    local_mean = mean[complete][near].mean(axis=1)
    local_contrast = np.sqrt(energy[complete][near].mean(axis=1))
    floor = np.finfo(np.float32).tiny
    norm = np.sqrt(np.maximum(energy, floor))
    local_contrast = np.maximum(local_contrast, floor)
    level = (mean - local_mean) / local_contrast
    return np.column_stack([invariants / norm[:, None], level, np.log(norm / local_contrast)]).astype(np.float32)


def invariant_orders(basis: ZernikeBasis) -> NDArray[np.int64]:
    """(J',) angular order |m| of each rotation invariant, in the order of `rotation_invariants`."""
    return np.asarray([m for n in range(int(basis.n.max()) + 1) for m in range(n % 2, n + 1, 2)])


class AttentionLayer(nn.Module):
    """Some tokens ask all of them, then a perceptron works on each answer; with pre-normalisation and dropout."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, asking: Tensor, tokens: Tensor) -> Tensor:  # (B, Q, D), (B, T, D) -> (B, Q, D)
        """Return what the asking tokens have become."""

        def split(x: Tensor) -> Tensor:  # (B, T, D) -> (B, heads, T, D / heads)
            parts: Tensor = torch.unflatten(x, -1, (self.heads, -1))
            return parts.transpose(1, 2)

        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        query = self.query(self.norm(asking))
        mixed = functional.scaled_dot_product_attention(split(query), split(key), split(value))
        asking = asking + self.projection(mixed.transpose(1, 2).flatten(2))
        answer: Tensor = asking + self.perceptron(asking)
        return answer


class AttentionClassifier(nn.Module):
    """Contrast and context features -> logits of the five classes."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        orders = invariant_orders(config.basis)[1:]
        self.groups = [torch.from_numpy(np.flatnonzero(orders == m)) for m in np.unique(orders)]
        self.groups.append(torch.tensor([len(orders), len(orders) + 1]))  # level and contrast of the column
        self.context_sizes = CONTEXT_TOKENS[config.context]
        features = len(orders) + 2
        # Standardisation of the contrast features, learnt from the training images and kept with the weights.
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        width = config.width
        self.contrast_embedding = nn.ModuleList(nn.Linear(len(group), width) for group in self.groups)
        self.context_embedding = nn.ModuleList(nn.Linear(size, width) for size in self.context_sizes)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(config.dropout), nn.Linear(width, len(CLASSES)))

    def forward(self, contrast: Tensor, context: Tensor) -> Tensor:  # (B, F), (B, Fc) -> (B, C)
        """Return the logits of the five classes."""
        contrast = (contrast - self.mean) / self.scale
        tokens = [self.class_token.expand(len(contrast), -1)]
        tokens += [embed(contrast[:, group]) for embed, group in zip(self.contrast_embedding, self.groups, strict=True)]
        blocks = torch.split(context, list(self.context_sizes), dim=1) if self.context_sizes else ()
        tokens += [embed(block) for embed, block in zip(self.context_embedding, blocks, strict=True)]
        mixed = torch.stack(tokens, dim=1)  # (B, T, D)
        for layer in self.layers[:-1]:
            mixed = layer(mixed, mixed)
        mixed = self.layers[-1](mixed[:, :1], mixed)  # only the class token is read
        logits: Tensor = self.head(mixed[:, 0])
        return logits


@dataclass(frozen=True)
class Model:
    """A trained classifier with the facts of its training."""

    network: AttentionClassifier
    info: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        """Basis, patch radius, context encoding and size of the network."""
        return self.network.config

    def context_features(self, context: Context) -> NDArray[np.float32]:
        """Return the context as this model reads it.

        Parameters
        ----------
        context : Context
            With energy and detector.

        Returns
        -------
        (Fc,) float32
            Empty for a model without context.

        Raises
        ------
        ValueError
            If the model has not been trained with this energy and detector.

        Warns
        -----
        UserWarning
            If it has not been trained on the host or a dopant.
        """
        vector = context.vector("roles" if self.config.context == "none" else self.config.context)
        known = self.info.get("training")
        if known:
            energy = min(ENERGIES, key=lambda each: abs(each - (context.energy or 0.0)))
            condition = f"{energy / 1e3:g} keV {context.detector.name if context.detector else None}"
            if condition not in known["conditions"]:
                raise ValueError(
                    f"context: expected one the model was trained with ({', '.join(known['conditions'])}), "
                    f"got {condition}; train one with `contextem train`"
                )
            strange = {context.host} - set(known["hosts"]) | set(context.dopants) - set(known["dopants"])
            if strange:
                warnings.warn(
                    f"the model was not trained on {' and '.join(sorted(strange))}; its probabilities are extrapolated",
                    stacklevel=3,
                )
        return np.zeros(0, np.float32) if self.config.context == "none" else vector

    def predict(
        self,
        contrast: NDArray[np.float32],
        context: NDArray[np.float32],
        *,
        device: str | None = None,
        batch_size: int = 4096,
    ) -> NDArray[np.float32]:
        """Return the posterior of the five classes.

        Parameters
        ----------
        contrast : (N, F) float32
            From `contrast_features`.
        context : (Fc,) or (N, Fc) float32
            One for all the columns, or one a column.
        device : str, optional
            A torch device such as "cpu" or "cuda"; by default the CPU.
        batch_size : int
            Columns at a time.

        Returns
        -------
        (N, 5) float32
            Rows add up to one; the order is that of `contextem.columns.CLASSES`.
        """
        network = self.network.to(device or "cpu").eval()
        target = network.mean.device
        each = np.broadcast_to(context, (len(contrast), context.shape[-1]))
        out = np.empty((len(contrast), len(CLASSES)), np.float32)
        with torch.inference_mode():
            for start in range(0, len(contrast), batch_size):
                part = slice(start, start + batch_size)
                logits = network(
                    torch.from_numpy(contrast[part]).to(target),
                    torch.from_numpy(np.array(each[part])).to(target),
                )
                out[part] = torch.softmax(logits, dim=1).cpu().numpy()
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors (weights and normalisation) and model.json (how to read them) into `folder`."""
        folder = Path(folder)
        facts = {"classes": list(CLASSES), "version": __version__, "config": asdict(self.config), **self.info}
        with whole_file(folder / "model.safetensors") as temporary:
            save_file({name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}, temporary)
        with whole_file(folder / "model.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def packaged_model() -> Path:
    """Folder of the model that comes with the package."""
    return Path(str(files("contextem") / "data" / "model"))


def load_model(path: str | os.PathLike[str] | None = None) -> Model:
    """Load a trained classifier.

    Parameters
    ----------
    path : path-like, optional
        A folder with model.safetensors and model.json, as `contextem train` writes it; the packaged model by default.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If the folder lacks one of the two files.
    ValueError
        If the files are not those of such a model, or were made for other classes.

    Examples
    --------
    >>> import contextem as ctm
    >>> ctm.load_model().config.n_max
    10
    """
    folder = packaged_model() if path is None else Path(path)
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"model: expected a folder with {name} in it, got {folder}; `contextem train` writes one"
            )
    try:
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        classes, config = facts.pop("classes"), ModelConfig(**facts.pop("config"))
        network = AttentionClassifier(config)
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:
        raise ValueError(
            f"model: expected the files `contextem train` writes, got others in {folder}: {error}"
        ) from error
    if tuple(classes) != CLASSES:
        raise ValueError(f"model: expected the classes {', '.join(CLASSES)}, got {', '.join(classes)} in {folder}")
    return Model(network.eval(), facts)
