"""find_columns on 1024 x 1024 px (8,000 columns) and 4096 x 4096 px (more than 100,000), and how precise it is.

Two crystals: a drifting one with empty sites, clear and noisy, for the speed; one with displaced columns, dopants and
vacancies, whose columns are known to a hundredth of a pixel, for the precision, at four doses. There the competitor is
atomap's fit of two-dimensional Gaussians, started from the same peaks, in the same process. It comes with the extra
`bench`; without it our own figures are printed alone.
"""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from contextem import _kernels
from contextem.columns import find_columns
from contextem.micrograph import Micrograph
from contextem.peaks import find_peaks, peak_response

SPACING = 17.4  # lattice constant, px
SAMPLING = 3.3 / SPACING
WIDTH = 0.155  # of the columns whose precision is measured, lattice constants


class Host:
    lattice_constant = 3.3


def honeycomb(size):
    """Metal and chalcogen sites of a turned crystal that covers the image, as many of either."""
    count = int(1.6 * size / SPACING) + 4
    i, j = (axis.ravel()[:, None] for axis in np.mgrid[-count:count, -count:count])
    a1, a2 = SPACING * np.array([[np.sin(t), np.cos(t)] for t in (0.3, 0.3 + np.pi / 3)])
    metal = size / 2 + i * a1 + j * a2
    return np.concatenate([metal, metal + (a1 + a2) / 3])


def crystal(size, dose):
    """Image of a turned, drifting crystal with one chalcogen site in ten empty, and its sites."""
    rng = np.random.default_rng(1)
    positions = honeycomb(size)
    brightness = np.repeat([1.0, 0.5], len(positions) // 2)
    brightness[len(positions) // 2 :][rng.random(len(positions) // 2) < 0.1] = 0.0
    positions[:, 1] += 4 * np.sin(positions[:, 0] / 90)
    inside = ((positions >= 0) & (positions < size - 1)).all(axis=1)
    positions, brightness = positions[inside], brightness[inside]
    image = np.zeros((size, size))
    corner = positions.astype(int)
    for step in np.ndindex(2, 2):  # split over the four pixels round
        share = np.prod(1 - abs(corner + step - positions), axis=1)
        np.add.at(image, tuple((corner + step).T), brightness * share)
    width = 0.17 * SPACING
    image = ndimage.gaussian_filter(image, width) * 2 * np.pi * width**2 + 0.05
    return rng.poisson(image * dose).astype(np.uint16), positions


@pytest.mark.parametrize("size", [1024, 4096])
@pytest.mark.parametrize("dose", [100.0, 2.0], ids=["clear", "noisy"])
def test_find_columns(benchmark, size, dose):
    image, positions = crystal(size, dose)
    assert size < 4096 or len(positions) >= 100_000
    micrograph = Micrograph(image, SAMPLING)
    columns = benchmark.pedantic(find_columns, args=(micrograph, Host()), rounds=3, warmup_rounds=1)
    inner = ((positions > SPACING) & (positions < size - 1 - SPACING)).all(axis=1)
    gap, _ = cKDTree(columns.positions).query(positions[inner])
    assert np.mean(gap < 0.15 * SPACING) > 0.995
    assert len(columns) == pytest.approx(len(positions), rel=0.02)
    seconds = benchmark.stats["median"]
    rate = len(columns) / seconds / 1e3
    print(f"\n{size} x {size} px: {len(columns)} columns in {seconds:.2f} s, {rate:.1f} k columns/s")


class Scene(NamedTuple):
    image: np.ndarray
    peaks: np.ndarray  # of all columns that have one
    truth: np.ndarray  # their positions
    inner: np.ndarray  # those a lattice constant or more from the border


def displaced_crystal(size, dose):
    """Columns displaced by 0.012 a, 5 % of the metals doped, 5 % of the chalcogen sites half and 5 % quite empty."""
    rng = np.random.default_rng(3)
    positions = honeycomb(size)
    n_metal = len(positions) // 2
    lot = rng.random(len(positions))
    brightness = np.repeat([1.0, 0.5], n_metal)
    brightness[:n_metal][lot[:n_metal] < 0.05] = 0.3
    brightness[n_metal:][lot[n_metal:] < 0.10] = 0.25
    brightness[n_metal:][lot[n_metal:] < 0.05] = 0.0
    positions += rng.normal(0, 0.012 * SPACING, positions.shape)
    positions[:, 1] += 4 * np.sin(positions[:, 0] / 90)
    shown = (abs(positions - size / 2) < size / 2 + 0.5 * SPACING).all(axis=1) & (brightness > 0)
    positions, brightness = positions[shown], brightness[shown]
    image = np.full((size, size), 0.05)
    width, reach = WIDTH * SPACING, int(np.ceil(5 * WIDTH * SPACING))
    for position, peak in zip(positions, brightness, strict=True):
        low = np.maximum(position.astype(int) - reach, 0)
        high = np.minimum(position.astype(int) + reach + 1, size)
        rows, columns = (np.arange(start, stop) for start, stop in zip(low, high, strict=True))
        tails = [
            np.exp(-((axis - at) ** 2) / (2 * width**2)) for axis, at in zip((rows, columns), position, strict=True)
        ]
        image[low[0] : high[0], low[1] : high[1]] += peak * np.outer(*tails)
    image = rng.poisson(image * dose).astype(np.float64)
    peaks = find_peaks(peak_response((image - image.mean()) / image.std(), SPACING)).positions
    away, number = cKDTree(peaks).query(positions)
    _, back = cKDTree(positions).query(peaks)
    met = (away < 0.2 * SPACING) & (back[number] == np.arange(len(positions)))
    inner = ((positions > SPACING) & (positions < size - 1 - SPACING)).all(axis=1)[met]
    return Scene(image, peaks[number[met]], positions[met], inner)


def rms(found, scene):
    """Root-mean-square distance from the true position, px, over the inner columns."""
    return float(np.sqrt(((found - scene.truth)[scene.inner] ** 2).sum(axis=1).mean()))


def with_atomap(scene):
    """Positions by atomap's two-dimensional Gaussians, with its defaults, and seconds a column; None without atomap."""
    if find_spec("atomap") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from atomap.api import Sublattice

        sublattice = Sublattice(scene.peaks[:, ::-1].copy(), image=scene.image)
        sublattice.find_nearest_neighbors()
        start = time.perf_counter()
        sublattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
        seconds = time.perf_counter() - start
    return np.array(sublattice.atom_positions)[:, ::-1], seconds / len(scene.peaks)


@pytest.mark.parametrize("dose", [1000.0, 100.0, 20.0, 5.0])
def test_precision(dose):
    """Counts at the top of a metal column: the dose; rms errors in px."""
    scene = displaced_crystal(512, dose)
    everything = np.ones(len(scene.peaks), dtype=bool)
    image = ((scene.image - scene.image.mean()) / scene.image.std()).astype(np.float32)
    arguments = (image, scene.peaks, everything, 0.16 * SPACING, SPACING / np.sqrt(3), 0.2 * SPACING)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        fitted = _kernels.refine_columns(*arguments)[0]
        seconds.append((time.perf_counter() - start) / len(fitted))
    columns = find_columns(Micrograph(scene.image, SAMPLING), Host())
    _, number = cKDTree(columns.positions).query(scene.truth)
    errors = [rms(each, scene) for each in (scene.peaks, fitted, columns.positions[number])]
    print(
        f"\ndose {dose:g}: rms error of {scene.inner.sum()} peaks {errors[0]:.3f} px, refined {errors[1]:.3f} px "
        f"({np.median(seconds) * 1e6:.1f} us a column), find_columns {errors[2]:.3f} px"
    )
    assert errors[1] < 0.75 * errors[0] and errors[2] < 0.65 * errors[0]
    rival = with_atomap(scene)
    if rival is None:
        print("atomap is not installed: pip install 'contextem[bench]'")
        return
    positions, pace = rival
    error = rms(positions, scene)
    ratio = pace / np.median(seconds)
    print(
        f"dose {dose:g}: atomap {error:.3f} px ({pace * 1e3:.2f} ms a column): refinement is {ratio:.0f} times as fast"
    )
    assert max(errors[1:]) <= error
    assert ratio >= 100
