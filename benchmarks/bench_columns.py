"""find_columns on a 1024 x 1024 image with about 8,000 columns, clear and noisy.

The whole way from the image to classified columns is to take under 3 s on two cores; this stage has half of that.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from contextem.columns import find_columns
from contextem.micrograph import Micrograph

SIZE = 1024
SPACING = 17.4  # lattice constant, px
SAMPLING = 3.3 / SPACING


class Host:
    lattice_constant = 3.3


def crystal(dose):
    """Image of a turned, drifting crystal with one chalcogen site in ten empty, and its sites."""
    rng = np.random.default_rng(1)
    i, j = (axis.ravel()[:, None] for axis in np.mgrid[-90:90, -90:90])
    a1, a2 = SPACING * np.array([[np.sin(t), np.cos(t)] for t in (0.3, 0.3 + np.pi / 3)])
    metal = SIZE / 2 + i * a1 + j * a2
    positions = np.concatenate([metal, metal + (a1 + a2) / 3])
    brightness = np.repeat([1.0, 0.5], len(metal))
    brightness[len(metal) :][rng.random(len(metal)) < 0.1] = 0.0
    positions[:, 1] += 4 * np.sin(positions[:, 0] / 90)
    inside = ((positions >= 0) & (positions < SIZE - 1)).all(axis=1)
    positions, brightness = positions[inside], brightness[inside]
    image = np.zeros((SIZE, SIZE))
    corner = positions.astype(int)
    for step in np.ndindex(2, 2):  # split over the four pixels round
        share = np.prod(1 - abs(corner + step - positions), axis=1)
        np.add.at(image, tuple((corner + step).T), brightness * share)
    width = 0.17 * SPACING
    image = ndimage.gaussian_filter(image, width) * 2 * np.pi * width**2 + 0.05
    return rng.poisson(image * dose).astype(np.uint16), positions


@pytest.mark.parametrize("dose", [100.0, 2.0], ids=["clear", "noisy"])
def test_find_columns(benchmark, dose):
    image, positions = crystal(dose)
    micrograph = Micrograph(image, SAMPLING)
    columns = benchmark.pedantic(find_columns, args=(micrograph, Host()), rounds=3, warmup_rounds=1)
    inner = ((positions > SPACING) & (positions < SIZE - 1 - SPACING)).all(axis=1)
    gap, _ = cKDTree(columns.positions).query(positions[inner])
    assert np.mean(gap < 0.15 * SPACING) > 0.995
    assert len(columns) == pytest.approx(len(positions), rel=0.02)
    rate = len(columns) / benchmark.stats["median"]
    print(f"\n{len(columns)} columns in {benchmark.stats['median']:.2f} s: {rate / 1e3:.1f} k columns/s")
