r"""The definition of every kernel, in plain NumPy: slow, short and without a special case.

The compiled kernels must equal these functions to rounding.  Nothing here is optimised and nothing here is public:
call :func:`contextem.extract_patches`, :func:`contextem.patch_moments` and :func:`contextem.column_moments`, whose
argument ``backend="reference"`` ends here.

Zernike polynomials, with x the column and y the row coordinate, both in [-1, 1] over the patch:

.. math::

    Z_n^m(x, y) = \sqrt{2 (n + 1) / (1 + [m = 0])} \; P^{(0, |m|)}_{(n - |m|) / 2}(2 \rho^2 - 1)
                  \; \begin{cases} \Re (x + i y)^m & m \ge 0 \\ \Im (x + i y)^{|m|} & m < 0 \end{cases}

where the Jacobi polynomial comes from its three-term recurrence [1]_; the factorial sum cancels catastrophically.

.. [1] NIST Digital Library of Mathematical Functions, section 18.9, https://dlmf.nist.gov/18.9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[Any]
Float64 = NDArray[np.float64]


def zernike_indices(n_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Degrees n and orders m of all modes up to ``n_max``, both (J,), in OSA/ANSI order j = (n (n + 2) + m) / 2."""
    pairs = [(n, m) for n in range(n_max + 1) for m in range(-n, n + 1, 2)]
    return np.array([n for n, _ in pairs], dtype=np.int64), np.array([m for _, m in pairs], dtype=np.int64)


def jacobi(k: int, m: int, t: Float64) -> Float64:
    """Jacobi polynomial P_k^(0, m)(t) by the recurrence in k."""
    before, value = np.zeros_like(t), np.ones_like(t)
    for i in range(k):
        # DLMF 18.9.2 with alpha = 0, beta = m; the first step is written out because its general form is 0 / 0 at m = 0
        if i == 0:
            before, value = value, ((m + 2) * t - m) / 2
            continue
        s = 2 * i + m
        a = (s + 1) * (s + 2) * s * t - (s + 1) * m * m
        b = 2 * i * (i + m) * (s + 2)
        before, value = value, (a * value - b * before) / (2 * (i + 1) * (i + m + 1) * s)
    return value


def zernike(n_max: int, x: Float64, y: Float64) -> Float64:
    """All Zernike polynomials up to ``n_max`` at the points (x, y): shape (J, *x.shape)."""
    t = 2 * (x * x + y * y) - 1
    z = x + 1j * y
    modes = []
    for n, m in zip(*zernike_indices(n_max), strict=True):
        order = abs(int(m))
        norm = np.sqrt(2 * (n + 1) / (1 + (m == 0)))
        angular = (z**order).real if m >= 0 else (z**order).imag
        modes.append(norm * jacobi((int(n) - order) // 2, order, t) * angular)
    return np.array(modes)


def projection_weights(n_max: int, size: int) -> Float64:
    """Z at the pixel centres of ``linspace(-1, 1, size)`` where rho <= 1, over the area pi size^2 / 4: (J, P * P)."""
    k = 2 * np.arange(size) - (size - 1)
    # decided in integers, so that the mask is symmetric whatever the rounding of linspace
    inside = k[:, None] ** 2 + k[None, :] ** 2 <= (size - 1) ** 2
    y, x = np.meshgrid(k / (size - 1), k / (size - 1), indexing="ij")
    values = np.where(inside, zernike(n_max, x, y), 0.0)
    return values.reshape(len(values), -1) / (np.pi * size**2 / 4)


def integrated_weights(n_max: int, size: int) -> Float64:
    """Integral of Z over each pixel's share of the unit disk, over the disk's area pi: (J, P * P)."""
    edges = (2.0 * np.arange(size + 1) - size) / size
    weights = np.zeros(((n_max + 1) * (n_max + 2) // 2, size, size))
    for row in range(size):
        for column in range(size):
            x, y, area = disk_quadrature(edges[column], edges[column + 1], edges[row], edges[row + 1], n_max)
            weights[:, row, column] = zernike(n_max, x, y) @ area
    return weights.reshape(len(weights), -1) / np.pi


def disk_quadrature(x0: float, x1: float, y0: float, y1: float, degree: int) -> tuple[Float64, Float64, Float64]:
    """Nodes x, y and weights that integrate polynomials up to ``degree`` over a rectangle's part in the unit disk."""
    if x0 < 0 < x1:
        halves = [disk_quadrature(x0, 0.0, y0, y1, degree), disk_quadrature(0.0, x1, y0, y1, degree)]
        x, y, area = (np.concatenate(parts) for parts in zip(*halves, strict=True))
        return x, y, area
    if y0 < 0 < y1:
        halves = [disk_quadrature(x0, x1, y0, 0.0, degree), disk_quadrature(x0, x1, 0.0, y1, degree)]
        x, y, area = (np.concatenate(parts) for parts in zip(*halves, strict=True))
        return x, y, area
    if x1 <= 0:
        x, y, area = disk_quadrature(-x1, -x0, y0, y1, degree)
        return -x, y, area
    if y1 <= 0:
        x, y, area = disk_quadrature(x0, x1, -y1, -y0, degree)
        return x, -y, area

    # first quadrant: rows up to where the arc enters the rectangle from the right are whole, those above end at the arc
    node, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    node_arc, weight_arc = np.polynomial.legendre.leggauss(degree + 12)
    top = min(y1, np.sqrt(max(0.0, 1 - x0 * x0)))
    bend = min(max(np.sqrt(max(0.0, 1 - x1 * x1)), y0), max(top, y0))
    xs, ys, areas = [], [], []
    if bend > y0:
        half = (bend - y0) / 2
        rows, row_weights = y0 + half * (node + 1), half * weight
        xs.append(np.tile((x0 + x1) / 2 + (x1 - x0) / 2 * node, len(rows)))
        ys.append(np.repeat(rows, len(node)))
        areas.append(np.outer(row_weights, (x1 - x0) / 2 * weight).ravel())
    if top > bend:
        # y = sin(phi) makes the arc's square root smooth
        low, high = np.arcsin(bend), np.arcsin(top)
        phi = low + (high - low) / 2 * (node_arc + 1)
        rows, right = np.sin(phi), np.cos(phi)
        row_weights = (high - low) / 2 * weight_arc * np.cos(phi)
        xs.append(((x0 + right)[:, None] / 2 + (right - x0)[:, None] / 2 * node).ravel())
        ys.append(np.repeat(rows, len(node)))
        areas.append((row_weights[:, None] * (right - x0)[:, None] / 2 * weight).ravel())
    if not xs:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    return np.concatenate(xs), np.concatenate(ys), np.concatenate(areas)


def least_squares_weights(integrated: Float64) -> tuple[Float64, float]:
    """Least-squares coefficients of the pixels in the disk, from the integrated weights; also the Gram condition.

    With A_i the pixel's share of the disk and B_ij the mean of Z_j over that share, minimise
    sum_i A_i (f_i - sum_j B_ij a_j)^2: a = pinv(A^(1/2) B) A^(1/2) f.
    """
    share = integrated[0] * np.pi  # Z_0 = 1
    root = np.sqrt(np.where(share > 1e-12, share, 0.0))
    design = np.zeros_like(integrated.T)
    np.divide(integrated.T * np.pi, root[:, None], out=design, where=root[:, None] > 0)
    singular = np.linalg.svd(design, compute_uv=False)
    full_rank = len(singular) == len(integrated) and singular[-1] > 0
    condition = float((singular[0] / singular[-1]) ** 2) if full_rank else np.inf
    weights = np.asarray(np.linalg.pinv(design) * root, dtype=np.float64)
    return weights, condition


def sample_coordinates(positions: Float64, size: int, matrix: Float64) -> tuple[Float64, Float64]:
    """Image rows and columns of every patch sample, both (N, P, P): position + matrix @ (k - h, k' - h)."""
    offset = np.arange(size) - (size - 1) / 2
    down, right = np.meshgrid(offset, offset, indexing="ij")
    rows = positions[:, 0, None, None] + (matrix[0, 0] * down + matrix[0, 1] * right)
    columns = positions[:, 1, None, None] + (matrix[1, 0] * down + matrix[1, 1] * right)
    return rows, columns


@dataclass(frozen=True)
class Taps:
    """Pixels that each patch sample reads, all (N, P, P): four neighbours and the shares of the second of each pair."""

    inside: NDArray[np.bool_]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    down: Real
    across: Real


def sample_taps(
    shape: tuple[int, ...],
    positions: Float64,
    size: int,
    matrix: Float64,
    interpolation: str,
    dtype: np.dtype[Any],
) -> Taps:
    """Pixels of an image of ``shape`` (H, W) that the samples of the patches around positions (N, 2) read."""
    height, width = shape
    rows, columns = sample_coordinates(positions, size, matrix)
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    rows, columns = np.where(inside, rows, 0.0), np.where(inside, columns, 0.0)
    if interpolation == "nearest":
        rows, columns = np.floor(rows + 0.5), np.floor(columns + 0.5)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    return Taps(inside, top, bottom, left, right, (rows - top).astype(dtype), (columns - left).astype(dtype))


def extract_patches(image: Real, positions: Float64, size: int, matrix: Float64, interpolation: str) -> Real:
    """Patches (N, P, P) of an image (H, W) around positions (N, 2), in the image's dtype; samples outside are 0."""
    t = sample_taps(image.shape, positions, size, matrix, interpolation, image.dtype)
    first = image[t.top, t.left] + t.down * (image[t.bottom, t.left] - image[t.top, t.left])
    second = image[t.top, t.right] + t.down * (image[t.bottom, t.right] - image[t.top, t.right])
    patches: Real = np.where(t.inside, first + t.across * (second - first), image.dtype.type(0))
    return patches


def patch_moments(patches: Real, weights: Float64) -> Real:
    """Moments (N, J) of patches (N, P, P): a[p, j] = sum_i w[j, i] patch[p, i], in the patches' dtype."""
    flat = patches.reshape(len(patches), weights.shape[1])
    moments: Real = flat @ weights.T.astype(patches.dtype)
    return moments


def column_moments(
    image: Real, positions: Float64, weights: Float64, size: int, matrix: Float64, interpolation: str
) -> Real:
    """Moments (N, J) of the patches around positions (N, 2): extraction, then projection."""
    moments = np.empty((len(positions), len(weights)), dtype=image.dtype)
    for start in range(0, len(positions), 256):  # bounds the memory, not the result
        part = slice(start, start + 256)
        patches = extract_patches(image, positions[part], size, matrix, interpolation)
        moments[part] = patch_moments(patches, weights)
    return moments


def dense_moments(image: Real, weights: Float64, size: int) -> Real:
    """Moments (H, W, J) of the patch (r + k - h, c + l - h), h = (P - 1) // 2, of every pixel (r, c); 0 outside."""
    before = (size - 1) // 2
    padded = np.pad(image, (before, size - 1 - before))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    return np.array([patch_moments(row, weights) for row in windows])


def patch_moments_adjoint(gradient: Real, weights: Float64, size: int) -> Real:
    """Patches (N, P, P) from a gradient (N, J): q[p, i] = sum_j g[p, j] w[j, i], in the gradient's dtype."""
    patches: Real = (gradient @ weights.astype(gradient.dtype)).reshape(len(gradient), size, size)
    return patches


def column_moments_adjoint(
    gradient: Real,
    positions: Float64,
    weights: Float64,
    size: int,
    matrix: Float64,
    interpolation: str,
    shape: tuple[int, int],
) -> Real:
    """Image (H, W) from a gradient (N, J): every sample of q goes to the pixels it was read from, by its shares."""
    image = np.zeros(shape, dtype=gradient.dtype)
    for start in range(0, len(positions), 256):  # bounds the memory, not the result
        part = slice(start, start + 256)
        t = sample_taps(shape, positions[part], size, matrix, interpolation, gradient.dtype)
        q = np.where(t.inside, patch_moments_adjoint(gradient[part], weights, size), gradient.dtype.type(0))
        np.add.at(image, (t.top, t.left), (1 - t.down) * (1 - t.across) * q)
        np.add.at(image, (t.top, t.right), (1 - t.down) * t.across * q)
        np.add.at(image, (t.bottom, t.left), t.down * (1 - t.across) * q)
        np.add.at(image, (t.bottom, t.right), t.down * t.across * q)
    return image


def column_moments_position_gradient(
    gradient: Real, image: Real, positions: Float64, weights: Float64, size: int, matrix: Float64
) -> Float64:
    """Gradient (N, 2) with respect to positions (N, 2): sum_i q[p, i] grad I at sample i, linear interpolation.

    The slope of the image is that towards the next pixel, 0 on the last row and column and for samples outside.
    """
    slopes = np.zeros((len(positions), 2))
    for start in range(0, len(positions), 256):  # bounds the memory, not the result
        part = slice(start, start + 256)
        t = sample_taps(image.shape, positions[part], size, matrix, "linear", image.dtype)
        q = np.where(t.inside, patch_moments_adjoint(gradient[part], weights, size), gradient.dtype.type(0))
        corner = image[t.bottom, t.right]
        before, after = image[t.bottom, t.left] - image[t.top, t.left], corner - image[t.top, t.right]
        upper, lower = image[t.top, t.right] - image[t.top, t.left], corner - image[t.bottom, t.left]
        along_rows = q * (before + t.across * (after - before))
        along_columns = q * (upper + t.down * (lower - upper))
        slopes[part, 0] = along_rows.sum(axis=(1, 2), dtype=np.float64)
        slopes[part, 1] = along_columns.sum(axis=(1, 2), dtype=np.float64)
    return slopes


def rotation_invariants(moments: Real, cosine: NDArray[np.int32], sine: NDArray[np.int32]) -> Real:
    """Invariants (..., J') of moments (..., J): the modulus of the modes cosine[i] and sine[i]; signed where equal."""
    invariants = np.hypot(moments[..., cosine], moments[..., sine])
    signed = cosine == sine
    invariants[..., signed] = moments[..., cosine[signed]]
    return invariants


def rotate(moments: Real, partner: NDArray[np.int32], along: Float64, across: Float64) -> Real:
    """Moments (..., J) turned by an angle: along[j] a[j] + across[j] a[partner[j]], in the moments' dtype."""
    rotated: Real = along.astype(moments.dtype) * moments + across.astype(moments.dtype) * moments[..., partner]
    return rotated
