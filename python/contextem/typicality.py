"""How usual a column and its neighbours look: what no class of column looks like tells adatoms and grain boundaries.

    r_i = (x_i - m_i(rest, context, class)) / s_i(rest, context, class)       how far each feature is off
    t   = -log mean_i (L^-1 r)_i^2,   L L^T = cov(r)                          how usual all are together

A network gives mean m and spread s of some features, those of the column or of its neighbours, from all the others, the
context and the class; so noise, which the others show as well, is not taken for something strange.  It has only seen
known columns (Nix and Weigend, https://doi.org/10.1109/ICNN.1994.374138).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLIPPED = 6.0
"""Spreads beyond which a known column counts no further in the covariance."""
RIDGE = 1e-2
"""Added to the variances, for the covariance to have an inverse whatever the number of columns."""
LEAST, MOST = -6.0, 4.0
"""Logarithm of the variance that may be expected."""
TAIL = 0.01
"""Quantile of known columns by which the scores of unlike parts are made comparable."""


class Expectation(nn.Module):
    """Mean and spread of some features of a column, given the others, the context and the class."""

    chosen: Tensor
    others: Tensor
    whitening: Tensor

    def __init__(self, features: int, chosen: range, given: int, hidden: int) -> None:
        super().__init__()
        others = [i for i in range(features) if i not in chosen]
        self.register_buffer("chosen", torch.tensor(list(chosen)), persistent=False)
        self.register_buffer("others", torch.tensor(others), persistent=False)
        self.register_buffer("whitening", torch.eye(len(chosen)))
        self.network = nn.Sequential(
            nn.Linear(len(others) + given, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 2 * len(chosen)),
        )

    def forward(self, features: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:  # (B, F), (B, G) -> 2 x (B, T)
        """Return how many spreads each feature is off its mean, and the logarithm of the variance."""
        expected = self.network(torch.cat([features[:, self.others], given], dim=1))
        mean, log_variance = expected.chunk(2, dim=1)
        log_variance = log_variance.clamp(LEAST, MOST)
        return (features[:, self.chosen] - mean) * torch.exp(-0.5 * log_variance), log_variance


class Typicality(nn.Module):
    """How usual several parts of the features look, each given the rest.

    Parameters
    ----------
    features : int
        F, number of features.
    parts : sequence of range
        Features that are judged together.
    given : int
        G, number of what else is given: context and class.
    hidden : int
        Width of the hidden layers.
    """

    middle: Tensor
    weight: Tensor

    def __init__(self, features: int, parts: Sequence[range], given: int, hidden: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Expectation(features, part, given, hidden) for part in parts)
        # where known columns score, and what a part is worth: nothing before `calibrate`
        self.register_buffer("middle", torch.zeros(len(self.parts)))
        self.register_buffer("weight", torch.zeros(len(self.parts)))

    def loss(self, features: Tensor, given: Tensor) -> Tensor:  # (B, F), (B, G) -> ()
        """Return the negative log-likelihood of known columns, a mean over their features."""
        total = features.new_zeros(())
        for part in self._expectations():
            off, log_variance = part(features, given)
            total = total + 0.5 * (off.square() + log_variance).mean()
        return total

    def scores(self, features: Tensor, given: Tensor) -> Tensor:  # (B, F), (B, G) -> (B, parts)
        """Return how usual each part looks; known columns score about 0."""
        together = [part(features, given)[0] @ part.whitening.T for part in self._expectations()]
        return -torch.log(torch.stack([off.square().mean(dim=1) for off in together], dim=1) + 1e-6)

    def forward(self, features: Tensor, given: Tensor) -> Tensor:  # (B, F), (B, G) -> (B,)
        """Return how usual a column looks, in the unit of `calibrate`: about 0 for known columns, less for others."""
        return ((self.scores(features, given) - self.middle) * self.weight).sum(dim=1)

    def _expectations(self) -> list[Expectation]:
        return [part for part in self.parts if isinstance(part, Expectation)]

    @torch.no_grad()
    def calibrate(self, features: Tensor, given: Tensor, unit: Tensor) -> None:
        """Learn from known columns (B, F) how their features vary together, and weigh the parts.

        Each part gets the weight that makes it fall as far below its median, at its quantile `TAIL`, as `unit` (B,).
        """
        for part in self._expectations():
            off = part(features, given)[0].clamp(-CLIPPED, CLIPPED).double()
            covariance = torch.cov(off.T, correction=0) + RIDGE * torch.eye(off.shape[1], dtype=off.dtype)
            inverse = torch.linalg.inv(torch.linalg.cholesky(covariance))
            part.whitening.copy_(inverse)
        scores = self.scores(features, given)
        self.middle.copy_(_quantile(scores, 0.5))
        self.weight.copy_(_tail(unit[:, None]) / _tail(scores).clamp_min(1e-6))


def _quantile(values: Tensor, q: float) -> Tensor:  # (B, K) -> (K,)
    """Return a quantile of each column; torch.quantile takes no more than 16 million values."""
    return torch.sort(values, dim=0).values[round(q * (len(values) - 1))]


def _tail(values: Tensor) -> Tensor:  # (B, K) -> (K,)
    return _quantile(values, 0.5) - _quantile(values, TAIL)
