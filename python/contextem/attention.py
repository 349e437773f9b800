"""The two attention classifiers: contrast features and context features of a column -> logits of the five classes.

    LatticeClassifier   the contrast encoder turns all a column and its neighbours show into a few tokens; the five
                        classes, each carrying the brightness physics expects of it, ask these tokens and each other
                        ("do I look like two selenium atoms beside this metal?") and answer with a logit each;
                        together they tell how familiar the column is, and how usual it looks is added
    PaperClassifier     the rotation invariants of the column alone, one token for each angular order, and the context,
                        one token for each role; a class token collects the answer

Dan et al., "Bridging Contextual Information in Deep Learning for Structural Defect Classification"; attention:
Vaswani et al., https://doi.org/10.48550/arXiv.1706.03762.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from contextem._arrays import check_integer, check_real
from contextem.columns import CLASSES
from contextem.context import ENERGIES
from contextem.contrast import contrast_blocks, invariant_orders, own_and_near
from contextem.elements import SUBSHELLS
from contextem.micrograph import DETECTORS
from contextem.typicality import Typicality
from contextem.zernike import MODES, ZernikeBasis

CONTEXT_TOKENS: dict[str, tuple[int, ...]] = {
    "intensities": (2,) * len(CLASSES),
    "roles": (len(SUBSHELLS),) * 3 + (len(ENERGIES), len(DETECTORS)),
    "composition": (len(SUBSHELLS), len(ENERGIES), len(DETECTORS)),
    "none": (),
}
"""Sizes of the tokens a context vector is cut into."""

FAR = 10.0
"""Standard deviations beyond which a contrast feature tells no more."""

# What a file may ask for.  The sizes of all layers follow from these, and those of the weights have to fit.
_KNOWN: dict[str, tuple[str, ...]] = {
    "kind": ("lattice", "paper"),
    "basis_mode": MODES,
    "context": tuple(CONTEXT_TOKENS),
}
_LIMITS = {
    "n_max": (0, 40),
    "size": (3, 128),
    "width": (1, 1024),
    "depth": (1, 64),
    "heads": (1, 1024),
    "tokens": (1, 1024),
    "hidden": (2, 8192),
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to rebuild a classifier and to feed it.

    Attributes
    ----------
    kind : {"lattice", "paper"}
        Which classifier; "paper" looks at the column alone.
    n_max, size, basis_mode
        The Zernike basis; see `contextem.zernike.ZernikeBasis`.
    patch_radius : float
        Radius of the patch in lattice constants of the host.
    context : {"intensities", "roles", "composition", "none"}
        How the context enters; "none" is the same classifier without it.
    width, depth, heads : int
        Of the attention layers.
    tokens, hidden : int
        Tokens of the contrast encoder and width of its hidden layer; not used by "paper".
    dropout : float
        Share of activations dropped in training.
    """

    kind: Literal["lattice", "paper"] = "lattice"
    n_max: int = 10
    size: int = 32
    basis_mode: Literal["integrated", "lstsq", "projection"] = "integrated"
    patch_radius: float = 1.0
    context: Literal["intensities", "roles", "composition", "none"] = "intensities"
    width: int = 32
    depth: int = 2
    heads: int = 4
    tokens: int = 8
    hidden: int = 192
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        for name, (low, high) in _LIMITS.items():
            check_integer(name, getattr(self, name), low, high)
        if not 0.0 < check_real("patch_radius", self.patch_radius) <= 10.0:
            raise ValueError(f"patch_radius: expected 0 to 10 lattice constants, got {self.patch_radius!r}")
        if not 0.0 <= check_real("dropout", self.dropout) < 1.0:
            raise ValueError(f"dropout: expected a share from 0, below 1, got {self.dropout!r}")
        if self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of the width {self.width}, got {self.heads}")
        if self.kind == "lattice" and self.context not in ("intensities", "none"):
            raise ValueError(f"context: expected 'intensities' or 'none' for the lattice model, got {self.context!r}")

    @cached_property
    def basis(self) -> ZernikeBasis:
        """The basis the moments are taken in."""
        return ZernikeBasis(self.n_max, self.size, mode=self.basis_mode)

    def patch_step(self, lattice_constant: float) -> float:
        """Return the Å from one patch sample to the next that make the patch `patch_radius` lattice constants wide."""
        return 2 * self.patch_radius * lattice_constant / self.size


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

    def forward(self, asking: Tensor, tokens: Tensor | None = None) -> Tensor:  # (B, Q, D), (B, T, D) -> (B, Q, D)
        """Return what the asking tokens have become; they ask themselves and, if given, normalised other tokens."""

        def split(x: Tensor) -> Tensor:  # (B, T, D) -> (heads, T, D / heads, B)
            parts: Tensor = torch.unflatten(x, -1, (self.heads, -1))
            return parts.permute(2, 1, 3, 0).contiguous()

        normed = self.norm(asking)
        query, key_value = self.query(normed), self.key_value(normed)
        if tokens is not None:
            # asking tokens common to all columns come as a batch of one
            batch = (tokens.shape[0], -1, -1)
            query, asking = query.expand(batch), asking.expand(batch)
            key_value = torch.cat([key_value.expand(batch), self.key_value(tokens)], dim=1)
        key, value = map(split, key_value.chunk(2, dim=-1))
        # with few tokens of many columns, products along the columns take half the time of one small matrix a column
        scores = (split(query)[:, :, None] * key[:, None]).sum(dim=3) / (key.shape[2] ** 0.5)  # (heads, Q, T, B)
        mixed = (torch.softmax(scores, dim=2)[:, :, :, None] * value[:, None]).sum(dim=2)  # (heads, Q, D / heads, B)
        asking = asking + self.projection(mixed.permute(3, 1, 0, 2).flatten(2))
        answer: Tensor = asking + self.perceptron(asking)
        return answer


class Classifier(nn.Module):
    """What both classifiers share: standardised contrast, and a temperature that calibrates the posterior."""

    mean: Tensor
    scale: Tensor
    temperature: Tensor

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        self.config = config
        # Standardisation of the contrast features and calibration, learnt in training and kept with the weights.
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("temperature", torch.ones(()))

    def standardise(self, contrast: Tensor) -> Tensor:  # (B, F) -> (B, F')
        """Return the features this classifier looks at, each with mean 0 and standard deviation 1 in training."""
        return ((contrast[:, : len(self.mean)] - self.mean) / self.scale).clamp(-FAR, FAR)


class LatticeClassifier(Classifier):
    """Classes that ask a column and its neighbours."""

    def __init__(self, config: ModelConfig) -> None:
        features = sum(contrast_blocks(config.basis).values())
        super().__init__(config, features)
        width = config.width
        self.encoder = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.tokens * width),
            nn.Unflatten(1, (config.tokens, width)),
            nn.LayerNorm(width),
        )
        self.classes = nn.Parameter(0.2 * torch.randn(len(CLASSES), width))
        self.expectation = nn.Linear(2, width) if config.context != "none" else None
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.familiarity = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        given = sum(CONTEXT_TOKENS[config.context]) + len(CLASSES)
        self.typicality = Typicality(features, own_and_near(config.basis), given, config.hidden // 2)

    def given(self, context: Tensor, labels: Tensor) -> Tensor:  # (B | 1, Fc), (B,) -> (B, Fc + C)
        """Return context and class of each column as its typicality is judged by them."""
        classes = (labels[:, None] == torch.arange(len(CLASSES), device=labels.device)).to(context.dtype)
        return torch.cat([context + torch.zeros_like(classes[:, :1]), classes], dim=1)

    def forward(self, contrast: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # (B, F), (B | 1, Fc)
        """Return the logits of the five classes, (B, C), and how familiar the column is, (B,).

        That is the log of the odds that column, neighbours and context belong together and, but in training, how usual
        the column and its neighbours look.
        """
        standard = self.standardise(contrast)
        tokens = self.encoder(standard)  # (B, T, D)
        asking = self.classes[None]  # (B | 1, C, D)
        if self.expectation is not None:
            asking = asking + self.expectation(torch.unflatten(context, 1, (len(CLASSES), -1)))
        for layer in self.layers:
            asking = layer(asking, tokens)
        logits = self.head(asking)[..., 0] / self.temperature
        familiarity = self.familiarity(asking.mean(dim=1))[:, 0]
        if not self.training:
            familiarity = familiarity + self.typicality(standard, self.given(context, logits.argmax(dim=1)))
        return logits, familiarity


class PaperClassifier(Classifier):
    """Tokens of a column and of the context, and a class token that reads them."""

    def __init__(self, config: ModelConfig) -> None:
        orders = invariant_orders(config.basis)
        super().__init__(config, len(orders))
        width = config.width
        self.groups = [torch.from_numpy(np.flatnonzero(orders == m)) for m in np.unique(orders)]
        self.context_sizes = CONTEXT_TOKENS[config.context]
        self.contrast_embedding = nn.ModuleList(nn.Linear(len(group), width) for group in self.groups)
        self.context_embedding = nn.ModuleList(nn.Linear(size, width) for size in self.context_sizes)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(config.dropout), nn.Linear(width, len(CLASSES)))

    def forward(self, contrast: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:  # (B, F), (B | 1, Fc)
        """Return the logits of the five classes, (B, C), and zeros, (B,): it knows no unknown columns."""
        contrast = self.standardise(contrast)
        batch = (contrast.shape[0], -1)
        tokens = [self.class_token.expand(batch)]
        tokens += [embed(contrast[:, group]) for embed, group in zip(self.contrast_embedding, self.groups, strict=True)]
        blocks = torch.split(context, list(self.context_sizes), dim=1) if self.context_sizes else ()
        tokens += [embed(block).expand(batch) for embed, block in zip(self.context_embedding, blocks, strict=True)]
        mixed = torch.stack(tokens, dim=1)  # (B, T, D)
        for layer in self.layers[:-1]:
            mixed = layer(mixed)
        # only the class token is read
        answer = self.layers[-1](mixed[:, :1], self.norm(mixed[:, 1:]))
        logits: Tensor = self.head(answer[:, 0]) / self.temperature
        return logits, torch.zeros_like(logits[:, 0])


def build_classifier(config: ModelConfig) -> Classifier:
    """Return an untrained classifier."""
    return PaperClassifier(config) if config.kind == "paper" else LatticeClassifier(config)


PAPER = ModelConfig(kind="paper", context="composition", width=64, dropout=0.1)
"""The classifier of the paper: 36 invariants of the column, composition-summed electron shells, one-hot conditions."""
