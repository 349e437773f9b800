"""The method on a card: an image that lies there -> moments -> contrast -> classifier -> labels, on torch's stream.

What `contextem.classify` does between the columns and their posterior, with tensors that never leave the device.  Where
the columns are and who stands beside whom is a matter of the host; it is put there once, for any number of images of
the same columns.  Nothing here waits for the device, so that calls queue up and a graph can be captured.

Formulas are those of `contextem.contrast` and `contextem.sites`, in the precision they have there.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from contextem import _arrays
from contextem.columns import Columns
from contextem.contrast import QUANTILES, centre_weights, invariant_orders
from contextem.model import Model
from contextem.moments import column_moments
from contextem.neighbours import neighbourhood
from contextem.patches import antialias, blur_radius, patch_complete
from contextem.sites import METAL_SITE, SURE


class Labelled(NamedTuple):
    """What a classifier says of N columns, on its device.

    Attributes
    ----------
    labels : (N,) int64
        Number of the likeliest class, in the order of `contextem.columns.CLASSES`.
    probabilities : (N, 5) float32
        Posterior of the classes.
    familiarity : (N,) float32
        As of `contextem.model.Prediction`.
    """

    labels: Tensor
    probabilities: Tensor
    familiarity: Tensor


@dataclass(frozen=True, eq=False)
class DeviceColumns:
    """Columns of an image on a device, from `DeviceClassifier.put`.

    Attributes
    ----------
    positions : (N, 2) float64
        In the image with its mirrored margin, px.
    complete : (N,) bool
        Columns whose patch lies in the image.
    first, second, same, other, side : int64
        As of `contextem.neighbours.Neighbourhood`.
    grain : (N,) int64
        Number of the grain, from 0 without a gap.
    grains : int
        How many there are.
    rows, columns : int64
        Which pixels the image with its margin is made of.
    """

    positions: Tensor
    complete: Tensor
    first: Tensor
    second: Tensor
    same: Tensor
    other: Tensor
    side: Tensor
    grain: Tensor
    grains: int
    rows: Tensor
    columns: Tensor


class DeviceClassifier:
    """A model on a CUDA device, for images that lie there.

    Parameters
    ----------
    model : Model
        From `contextem.load_model`; a copy goes to the device.
    context : array_like, shape (Fc,)
        From `Model.context_features`.
    scale : array_like
        px/Å: a number, or (2, 2) along (row, column) as `contextem.calibration.calibrate` measures it.
    lattice_constant : float
        Of the host, Å.
    device : str
        A CUDA device of torch.
    batch_size : int
        Columns that the network takes at once; about 25 kB of device memory each.

    Examples
    --------
    >>> import contextem as ctm
    >>> def labels_of(images, columns, context, sampling):  # images: (H, W) tensors on the card
    ...     model = ctm.load_model()
    ...     judge = DeviceClassifier(model, model.context_features(context), 1 / sampling, context.lattice_constant)
    ...     there = judge.put(columns, images[0].shape)
    ...     return [judge(image, there).labels for image in images]
    """

    def __init__(
        self,
        model: Model,
        context: ArrayLike,
        scale: ArrayLike,
        lattice_constant: float,
        *,
        device: str = "cuda",
        batch_size: int = 2**16,
    ) -> None:
        config = model.config
        self.device = torch.device(device)
        self.batch_size = _arrays.check_integer("batch_size", batch_size, 1, 2**31)
        self.scale = _arrays.check_scale(scale)
        self.sample = self.scale * config.patch_step(lattice_constant)
        self.lattice_constant = lattice_constant
        self.basis = config.basis
        self.strength = float(model.info.get("site_strength", 0.0))
        self.network = deepcopy(model.network).to(self.device).eval()

        self.context = self._put(context, torch.float32)[None]
        cosine, sine = self.basis.invariant_modes
        self.cosine, self.sine = self._put(cosine, torch.int64), self._put(sine, torch.int64)
        self.no_sine = self._put(cosine == sine, torch.bool)
        self.radial = self._put(np.flatnonzero(invariant_orders(self.basis) == 0), torch.int64)
        self.centre = self._put(centre_weights(self.basis), torch.float32)
        self.metal = self._put(METAL_SITE, torch.float64)
        # the taps of the low pass, from what it makes of a single pixel
        step = float(np.sqrt(np.linalg.det(self.sample)))
        radius = blur_radius(step)
        pixel = np.zeros((2 * radius + 1, 2 * radius + 1))
        pixel[radius, radius] = 1.0
        self.taps = self._put(antialias(pixel, step).sum(axis=0), torch.float32)

    def _put(self, values: ArrayLike, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.array(values), dtype=dtype, device=self.device)

    def put(self, columns: Columns, shape: tuple[int, int]) -> DeviceColumns:
        """Put the columns of images (H, W) on the device, with all that follows from where they are.

        Parameters
        ----------
        columns : Columns
            N columns inside the image.
        shape : (int, int)
            (H, W).

        Returns
        -------
        DeviceColumns

        Raises
        ------
        ValueError
            If no patch lies inside the image.
        """
        positions = columns.positions
        complete = patch_complete(shape, positions, self.basis.size, scale=self.sample)
        if not complete.any():
            raise ValueError(
                "columns: expected at least one column whose patch lies inside the image, "
                f"got {len(positions)} at the border; use a larger field of view"
            )
        in_specimen = positions @ np.linalg.inv(self.scale).T  # Å
        around = neighbourhood(in_specimen, columns.sublattice, complete, self.lattice_constant, columns.grain)
        margin = min(ceil(np.abs(self.sample).sum(axis=1).max() * self.basis.size / 2) + 1, *shape)
        rows, across = (np.pad(np.arange(extent), margin, mode="symmetric") for extent in shape)
        grains, grain = np.unique(around.grain, return_inverse=True)
        return DeviceColumns(
            positions=self._put(positions + margin, torch.float64),
            complete=self._put(complete, torch.bool),
            first=self._put(around.first, torch.int64),
            second=self._put(around.second, torch.int64),
            same=self._put(around.same, torch.int64),
            other=self._put(around.other, torch.int64),
            side=self._put(around.side, torch.int64),
            grain=self._put(grain, torch.int64),
            grains=len(grains),
            rows=self._put(rows, torch.int64),
            columns=self._put(across, torch.int64),
        )

    def __call__(self, image: Tensor, columns: DeviceColumns) -> Labelled:
        """Classify the columns of an image.

        Parameters
        ----------
        image : torch.Tensor, shape (H, W), float32
            On the device.
        columns : DeviceColumns
            From `put`, for images of this shape.

        Returns
        -------
        Labelled
        """
        with torch.inference_mode():
            whole = self._low_passed(image).index_select(0, columns.rows).index_select(1, columns.columns)
            moments = column_moments(whole, columns.positions, self.basis, scale=self.sample)
            cosine, sine = moments.index_select(1, self.cosine), moments.index_select(1, self.sine)
            own = torch.where(self.no_sine, cosine, torch.hypot(cosine, sine))
            radial = own.index_select(1, self.radial)
            energy = own[:, 1:].square().sum(dim=1)
            table = torch.column_stack([radial, radial @ self.centre, energy])  # what is asked of the neighbours
            seen = columns.complete[:, None]
            standard = torch.where(seen, table, 0.0).sum(dim=0, dtype=torch.float64) / seen.sum()
            alone = table.new_empty((len(own), len(self.metal)))
            familiarity = table.new_empty(len(own))
            for start in range(0, len(own), self.batch_size):
                part = slice(start, start + self.batch_size)
                contrast = _contrast(own[part], table, part, standard.float(), columns)
                logits, familiarity[part] = self.network(contrast, self.context)
                alone[part] = torch.softmax(logits, dim=1)
            probabilities = alone if self.strength == 0.0 else self._agreed(alone, columns)
            return Labelled(probabilities.argmax(dim=1), probabilities, familiarity)

    def _low_passed(self, image: Tensor) -> Tensor:
        """Return the image without what the grid of the patches cannot hold."""
        radius = len(self.taps) // 2
        if radius == 0:
            return image
        padded = torch.nn.functional.pad(image[None, None], 4 * (radius,), mode="replicate")
        with torch.backends.cudnn.flags(allow_tf32=False):
            down = torch.nn.functional.conv2d(padded, self.taps[None, None, :, None])
            return torch.nn.functional.conv2d(down, self.taps[None, None, None, :])[0, 0]

    def _agreed(self, alone: Tensor, columns: DeviceColumns) -> Tensor:
        """Return the posterior (N, 5) once neighbourhoods and grains have decided which site is whose."""
        p = alone.double()
        totals = torch.stack([p @ (1.0 - self.metal), p @ self.metal], dim=1)  # chalcogen, metal
        chalcogen, metal = totals.clamp_min(float(np.exp(-2.0 * SURE))).log().unbind(dim=1)
        odds = (metal - chalcogen).clamp(-SURE, SURE)
        total, count = odds.clone(), torch.ones_like(odds)
        for near, sign in ((columns.same, 1.0), (columns.other, -1.0)):
            for start in range(0, len(odds), self.batch_size):
                part = slice(start, start + self.batch_size)
                there = near[part] >= 0
                total[part] += sign * torch.where(there, odds[near[part].clamp_min(0)], 0.0).sum(dim=1)
                count[part] += there.sum(dim=1)
        sides = torch.where(columns.side == 0, 1.0, -1.0).double()
        of_grain = torch.zeros_like(odds)
        for number in range(columns.grains):  # a sum each, whose order is always the same
            own = columns.grain == number
            mean = torch.where(own, sides * odds, 0.0).sum() / own.sum()
            of_grain = torch.where(own, sides * mean, of_grain)
        shared = (0.5 * self.strength * (total / count + of_grain)).clamp(-60.0, 60.0)
        share = torch.where(self.metal > 0, shared.sigmoid()[:, None], (-shared).sigmoid()[:, None])
        sites = torch.where(self.metal > 0, totals[:, 1:], totals[:, :1]).clamp_min(float(np.finfo(np.float64).tiny))
        return (p / sites * share).float()


def _contrast(own: Tensor, table: Tensor, part: slice, standard: Tensor, columns: DeviceColumns) -> Tensor:
    """Contrast features (B, F) of a part of the columns, as `contextem.contrast.contrast_of` has them."""
    wide = table.shape[1] - 2
    means, quantiles = {}, {}
    for name, there in (("same", columns.same[part]), ("other", columns.other[part])):
        # where there are too few, the nearest stands for the missing
        indices = torch.where(there < 0, there[:, :1], there)
        values = torch.where((indices >= 0)[..., None], table[indices.clamp_min(0)], standard)
        means[name] = values.mean(dim=1)
        ordered = values[:, :, wide].sort(dim=1).values
        places = np.rint(np.array(QUANTILES) * (indices.shape[1] - 1)).astype(int).tolist()
        quantiles[name] = torch.stack([ordered[:, place] for place in places], dim=1)
    level = 0.5 * (means["same"][:, :1] + means["other"][:, :1])
    floor = float(np.finfo(np.float32).tiny)
    contrast = (0.5 * (means["same"][:, -1:] + means["other"][:, -1:])).clamp_min(floor).sqrt()
    blocks = [own[:, :1] - level, own[:, 1:], table[part, wide : wide + 1] - level]

    def radial(mean: Tensor) -> list[Tensor]:
        return [mean[:, :1] - level, mean[:, 1:wide]]

    for near, sublattice in ((columns.first[part], "other"), (columns.second[part], "same")):
        shell = torch.where((near >= 0)[..., None], table[near.clamp_min(0)], means[sublattice][:, None])
        blocks += [*radial(shell.mean(dim=1)), shell[:, :, wide].sort(dim=1).values - level]
    for name in ("same", "other"):
        blocks += [*radial(means[name]), quantiles[name] - level]
    return torch.cat(blocks, dim=1) / contrast
