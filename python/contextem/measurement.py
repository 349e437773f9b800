"""What a model is fed with: the contrast features of the columns of one micrograph."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contextem import _kernels
from contextem.attention import ModelConfig
from contextem.columns import Columns
from contextem.contrast import contrast_of, invariant_orders
from contextem.micrograph import Micrograph
from contextem.neighbours import Neighbourhood, neighbourhood
from contextem.patches import antialias, blur_radius, patch_complete
from contextem.tiles import TiledImage, pixels
from contextem.zernike import ZernikeBasis, rotation_invariants


class Measured(NamedTuple):
    """What a model is fed with.

    Attributes
    ----------
    contrast : (N, F) float32
        Contrast features.
    complete : (N,) bool
        Whether the patch lies inside the image.
    around : Neighbourhood
        The columns around each column.
    """

    contrast: NDArray[np.float32]
    complete: NDArray[np.bool_]
    around: Neighbourhood


def measure(
    micrograph: Micrograph,
    columns: Columns,
    lattice_constant: float,
    config: ModelConfig,
    scale: NDArray[np.float64] | None = None,
    *,
    tile: int | None = None,
) -> Measured:
    """Measure the columns of a micrograph as a model needs them.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    columns : Columns
        N columns inside it.
    lattice_constant : float
        Å; it sets the size of the patches.
    config : ModelConfig
        Basis and patch radius.
    scale : (2, 2) float64, optional
        px/Å along (row, column), as `contextem.calibration.calibrate` measures it: patches are round in the specimen,
        and resampled there, not the image.  By default that of the micrograph's sampling.
    tile : int, optional
        As for `contextem.find_columns`.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If a column lies outside the image, or all patches leave it.
    """
    outside = ((columns.positions < -0.5) | (columns.positions > np.array(micrograph.shape) - 0.5)).any(axis=1)
    if outside.any():
        row, column = columns.positions[outside][0]
        raise ValueError(
            "columns: expected positions (row, column) inside the image of "
            f"{micrograph.shape[0]} x {micrograph.shape[1]} px, got {outside.sum()} outside, "
            f"the first at ({row:g}, {column:g}); leave them out or swap row and column"
        )
    scale = np.eye(2) / micrograph.sampling if scale is None else scale
    sample = scale * config.patch_step(lattice_constant)
    complete = patch_complete(micrograph.shape, columns.positions, config.size, scale=sample)
    invariants = _invariants(pixels(micrograph.data, tile), columns.positions, config.basis, sample)
    in_specimen = columns.positions @ np.linalg.inv(scale).T  # Å
    around = neighbourhood(in_specimen, columns.sublattice, complete, lattice_constant, columns.grain)
    return Measured(contrast_of(invariants, complete, around, config.basis), complete, around)


def _invariants(
    image: TiledImage, positions: NDArray[np.float64], basis: ZernikeBasis, sample: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Rotation invariants (N, J') of the patches around positions (N, 2), with steps of `sample` (2, 2) px."""
    step = float(np.sqrt(np.linalg.det(sample)))
    smooth = image.filtered(lambda part: antialias(part, step), blur_radius(step))
    # Beyond the border the image is mirrored: zeros there would tell the classifier the offset of the detector.
    height = image.shape[0]
    half = ceil(np.abs(sample).sum(axis=1).max() * basis.size / 2) + 1
    margin = min(half, *image.shape)
    reach = half + 1  # of patches, from the rows of a tile
    invariants = np.empty((len(positions), len(invariant_orders(basis))), np.float32)
    for first, last, own in image.by_tile(positions):
        before, after = max(0, min(margin, reach - first)), max(0, min(margin, last + reach - height))
        top = min(max(0, first - reach), height - after)
        rows = smooth.rows(top, max(min(height, last + reach), before))
        band = np.pad(rows, ((before, after), (margin, margin)), mode="symmetric")
        moments = _kernels.band_moments(
            band, top - before + margin, height + 2 * margin, positions[own] + margin, basis.table, sample
        )
        invariants[own] = rotation_invariants(moments, basis)
    return invariants
