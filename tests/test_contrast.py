"""Contrast features: what no gain, offset or quarter turn changes, and what loops over columns give as well."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Honeycomb

from contextem.attention import ModelConfig
from contextem.columns import Columns
from contextem.contrast import CENTRE, QUANTILES, contrast_blocks, contrast_features, invariant_orders
from contextem.measurement import measure
from contextem.micrograph import Micrograph
from contextem.moments import column_moments
from contextem.neighbours import neighbourhood
from contextem.patches import patch_complete
from contextem.zernike import ZernikeBasis

CONFIG = ModelConfig(n_max=6, size=16)
BASIS = CONFIG.basis
SPACING = 8.0  # px, so that a patch sample is a pixel
SHAPE = (96, 96)


def picture(seed=3, cells=9):
    """A small honeycomb of Gaussian columns of all heights, partly at the border, in noise."""
    rng = np.random.default_rng(seed)
    crystal = Honeycomb.made(SPACING, cells, seed=seed, angle=0.3)
    positions = crystal.positions - crystal.positions.mean(axis=0) + np.array(SHAPE) / 2
    inside = ((positions > 1) & (positions < np.array(SHAPE) - 2)).all(axis=1)
    positions, sides = positions[inside], crystal.sides[inside]
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = rng.normal(0.0, 0.1, SHAPE)
    for (row, column), side in zip(positions, sides, strict=True):
        height = rng.uniform(0.5, 1.0) * (2.0 if side else 5.0)
        image += height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4)
    return image, positions, sides


@pytest.fixture(scope="module")
def scene():
    return picture()


def features(image, positions, sides, config=CONFIG):
    micrograph = Micrograph(np.ascontiguousarray(image), 1.0)
    return measure(micrograph, Columns(positions, sides), SPACING, config)[0]


def block(values, name, basis=BASIS):
    sizes = contrast_blocks(basis)
    start = sum(list(sizes.values())[: list(sizes).index(name)])
    return values[:, start : start + sizes[name]]


# What does not change them


@settings(max_examples=10)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_features_do_not_know_gain_and_offset(scene, gain, offset):
    image, *columns = scene
    np.testing.assert_allclose(features(gain * (image + offset), *columns), features(image, *columns), atol=2e-4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_features_do_not_know_the_orientation_of_the_image(scene, turns):
    image, positions, sides = scene
    moved = positions
    for _ in range(turns):  # (row, column) -> (W - 1 - column, row)
        moved = np.column_stack([SHAPE[1] - 1 - moved[:, 1], moved[:, 0]])
    np.testing.assert_allclose(
        features(np.rot90(image, turns), moved, sides), features(image, positions, sides), atol=2e-5
    )


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_features_do_not_know_the_order_of_the_columns(scene, seed):
    image, positions, sides = scene
    order = np.random.default_rng(seed).permutation(len(positions))
    np.testing.assert_allclose(
        features(image, positions[order], sides[order]), features(image, positions, sides)[order], atol=1e-5
    )


def test_features_do_not_know_which_sublattice_is_called_0(scene):
    image, positions, sides = scene
    expected = features(image, positions, sides)
    for other in (1 - sides, np.full(len(sides), -1)):
        np.testing.assert_array_equal(features(image, positions, other), expected)


# What they are


def test_blocks_of_the_default_basis():
    basis = ZernikeBasis(10, 32)
    assert contrast_blocks(basis) == {
        "invariants": 36,
        "centre": 1,
        "first": 6 + 3,
        "second": 6 + 6,
        "same": 6 + 5,
        "other": 6 + 5,
    }
    assert len(QUANTILES) == 5
    orders = invariant_orders(basis)
    assert len(orders) == 36
    assert orders[:6].tolist() == [0, 1, 0, 2, 1, 3]  # n = 0; 1; 2, 2; 3, 3
    assert (orders == 0).sum() == 6


def written_out(moments, complete, around, basis):
    """The features by their definition, column by column."""
    n, m = np.asarray(basis.n), np.asarray(basis.m)
    pairs = [(a, b) for a in range(int(n.max()) + 1) for b in range(a % 2, a + 1, 2)]
    zero = [i for i, (_, b) in enumerate(pairs) if b == 0]
    rho = np.linspace(0, 1, 200_001)
    gaussian = rho * np.exp(-0.5 * (rho / CENTRE) ** 2)
    heights = {}
    for a in {a for a, b in pairs if b == 0}:
        # R_n^0 at rho, as a Jacobi polynomial written out by recurrence of the Legendre polynomials
        x, before, now = 2 * rho**2 - 1, np.ones_like(rho), 2 * rho**2 - 1
        radial = [before, now]
        for k in range(2, a // 2 + 1):
            radial.append(((2 * k - 1) * x * radial[-1] - (k - 1) * radial[-2]) / k)
        heights[a] = np.sqrt(a + 1) * np.trapezoid(radial[a // 2] * gaussian, rho) / np.trapezoid(gaussian, rho)
    invariants, centres, energies = [], [], []
    for row in np.asarray(moments, float):
        mine = []
        for a, b in pairs:
            value = {int(k): row[j] for j, k in enumerate(m) if n[j] == a and abs(k) == b}
            mine.append(value[0] if b == 0 else np.hypot(value[b], value[-b]))
        invariants.append(mine)
        centres.append(sum(mine[i] * heights[pairs[i][0]] for i in zero))
        energies.append(sum(v**2 for v in mine[1:]))
    invariants, centres, energies = map(np.array, (invariants, centres, energies))
    radial = invariants[:, zero]
    out = []
    for i in range(len(invariants)):
        groups = {}
        for name in ("same", "other"):
            row = getattr(around, name)[i]
            row = np.where(row < 0, row[0], row)
            if row[0] < 0:
                everyone = np.flatnonzero(complete)
                groups[name] = (
                    radial[everyone].mean(axis=0),
                    energies[everyone].mean(),
                    np.full(len(row), centres[everyone].mean()),
                    centres[everyone].mean(),
                )
            else:
                groups[name] = radial[row].mean(axis=0), energies[row].mean(), centres[row], centres[row].mean()
        level = (groups["same"][0][0] + groups["other"][0][0]) / 2
        contrast = np.sqrt((groups["same"][1] + groups["other"][1]) / 2)
        ground = np.eye(len(zero))[0] * level
        parts = [np.concatenate([[invariants[i, 0] - level], invariants[i, 1:]]), [centres[i] - level]]
        for name, sublattice in (("first", "other"), ("second", "same")):
            row = getattr(around, name)[i]
            near = [radial[j] if j >= 0 else groups[sublattice][0] for j in row]
            bright = [centres[j] if j >= 0 else groups[sublattice][3] for j in row]
            parts += [np.mean(near, axis=0) - ground, np.sort(bright) - level]
        for name in ("same", "other"):
            ordered = np.sort(groups[name][2])
            parts += [groups[name][0] - ground]
            parts += [[ordered[round(q * (len(ordered) - 1))] - level for q in QUANTILES]]
        out.append(np.concatenate(parts) / contrast)
    return np.array(out)


@pytest.mark.parametrize("kept", [slice(None), slice(0, None, 3)])
def test_features_are_those_written_out_column_by_column(scene, kept):
    image, positions, sides = scene
    positions, sides = positions[kept], sides[kept]
    moments = column_moments(image, positions, BASIS)
    complete = patch_complete(SHAPE, positions, CONFIG.size)
    assert 0 < complete.sum() < len(complete)
    around = neighbourhood(positions, sides, complete, SPACING)
    expected = written_out(moments, complete, around, BASIS)
    assert expected.shape[1] == sum(contrast_blocks(BASIS).values())
    np.testing.assert_allclose(contrast_features(moments, complete, around, BASIS), expected, atol=1e-4)


def test_few_columns_of_one_sublattice_have_features_too(scene):
    image, positions, _ = scene
    middle = np.argsort(np.linalg.norm(positions - 48, axis=1))[:3]
    for some in (middle[:1], middle):
        sides = np.zeros(len(some), np.int8)
        moments = column_moments(image, positions[some], BASIS)
        complete = np.ones(len(some), bool)
        around = neighbourhood(positions[some], sides, complete, SPACING)
        got = contrast_features(moments, complete, around, BASIS)
        np.testing.assert_allclose(got, written_out(moments, complete, around, BASIS), atol=1e-4)


def test_a_constant_image_has_finite_features():
    positions = np.array([[30.0, 30.0], [34.0, 32.0], [30.0, 38.0]])
    moments = column_moments(np.full(SHAPE, 3.0), positions, BASIS)
    around = neighbourhood(positions, np.array([0, 1, 0], np.int8), np.ones(3, bool), SPACING)
    assert np.isfinite(contrast_features(moments, np.ones(3, bool), around, BASIS)).all()


def test_the_middle_of_a_column_is_its_brightness(scene):
    """Brighter columns have brighter middles, and the darkest neighbour comes first."""
    image, positions, sides = scene
    values = features(image, positions, sides)
    complete = patch_complete(SHAPE, positions, CONFIG.size)
    at = np.rint(positions).astype(int)
    centre = block(values, "centre")[:, 0]
    assert np.corrcoef(centre[complete], image[tuple(at.T)][complete])[0, 1] > 0.95
    for name, radial in (("first", 4), ("second", 4), ("same", 4), ("other", 4)):
        assert (np.diff(block(values, name)[:, radial:], axis=1) >= 0).all()


# Borders and mistakes


def test_columns_at_the_border_do_not_set_the_standard(scene):
    image, positions, sides = scene
    # away from the others, so that they are nobody's nearest columns
    with_border = np.vstack([positions, [[0.0, 0.0], [95.0, 3.0]]])
    all_sides = np.append(sides, [0, 1])
    distances = np.linalg.norm(positions[:, None] - with_border[None, -2:], axis=2)
    far = (distances > 1.3 * SPACING).all(axis=1)
    expected = features(image, positions, sides)
    got = features(image, with_border, all_sides)[:-2]
    assert far.sum() > 50
    np.testing.assert_allclose(got[far], expected[far], atol=1e-6)


def around_none(count):
    return neighbourhood(np.zeros((count, 2)), np.zeros(count, np.int8), np.zeros(count, bool), SPACING)


def test_only_border_columns_are_refused():
    with pytest.raises(ValueError, match="at least one column whose patch lies inside the image, got 2 at the border"):
        contrast_features(np.ones((2, 28)), np.zeros(2, bool), around_none(2), BASIS)
    image, positions, sides = picture()
    border = ~patch_complete(SHAPE, positions, CONFIG.size)
    with pytest.raises(ValueError, match=r"^positions: expected .*; use a larger field of view$"):
        features(image, positions[border], sides[border])


def test_no_columns_give_no_features():
    none = contrast_features(np.zeros((0, 28)), np.zeros(0, bool), around_none(0), BASIS)
    assert none.shape == (0, sum(contrast_blocks(BASIS).values()))
    assert none.dtype == np.float32
