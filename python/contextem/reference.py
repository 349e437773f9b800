r"""The definition of every kernel, in plain NumPy: slow, short and without a special case.

The compiled kernels must equal these functions to rounding.  Nothing here is optimised and nothing here is public:
call :func:`contextem.extract_patches`, :func:`contextem.patch_moments` and :func:`contextem.column_moments`, whose
argument ``backend="reference"`` ends here, or :func:`contextem.find_columns`, which uses the compiled ones.

Zernike polynomials, with x the column and y the row coordinate, both in [-1, 1] over the patch:

.. math::

    Z_n^m(x, y) = \sqrt{2 (n + 1) / (1 + [m = 0])} \; P^{(0, |m|)}_{(n - |m|) / 2}(2 \rho^2 - 1)
                  \; \begin{cases} \Re (x + i y)^m & m \ge 0 \\ \Im (x + i y)^{|m|} & m < 0 \end{cases}

where the Jacobi polynomial comes from its three-term recurrence (NIST Digital Library of Mathematical Functions,
https://dlmf.nist.gov/18.9); the factorial sum cancels catastrophically.
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
    """All Zernike polynomials up to ``n_max`` at the points (x, y): shape (J,) + x.shape."""
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


def hexagon(radius: int) -> NDArray[np.int64]:
    """Offsets (i, j) of the sites within ``radius`` steps without the origin, the nearest first: (3 r (r + 1), 2)."""
    step = np.arange(-radius, radius + 1)
    i, j = (axis.ravel() for axis in np.meshgrid(step, step, indexing="ij"))
    hops = np.maximum(np.maximum(abs(i), abs(j)), abs(i + j))
    inside = (hops > 0) & (hops <= radius)
    order = np.argsort((i * i + i * j + j * j)[inside], kind="stable")
    return np.asarray(np.column_stack([i, j])[inside][order], dtype=np.int64)


def gaussian(sigma: float) -> Float64:
    """Gaussian of unit sum at the integers up to 4 sigma: (2 R + 1,)."""
    radius = int(4 * sigma + 0.5)
    values = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(values / values.sum())


def correlate(image: Real, filters: Float64, axis: int, mode: Any) -> Float64:
    """Weighted sum over neighbours along an axis of an image, which ``numpy.pad`` continues in ``mode``."""
    radius = len(filters) // 2
    margin = [(0, 0)] * image.ndim
    margin[axis] = (radius, radius)
    padded = np.moveaxis(np.pad(image, margin, mode=mode), axis, 0)
    total = sum(weight * padded[i : i + image.shape[axis]] for i, weight in enumerate(filters))
    return np.moveaxis(np.asarray(total), 0, axis)


def peak_response(image: Real, sigma: float) -> Float64:
    """Minus sigma^2 times the Laplacian of an image (H, W) blurred by a Gaussian; mirrored at the border."""
    smooth = gaussian(sigma)
    offset = np.arange(len(smooth)) - len(smooth) // 2
    bend = (offset**2 / sigma**4 - 1 / sigma**2) * smooth
    values = image.astype(np.float64)
    down = correlate(correlate(values, bend, 0, "symmetric"), smooth, 1, "symmetric")
    along = correlate(correlate(values, smooth, 0, "symmetric"), bend, 1, "symmetric")
    return -(sigma**2) * (down + along)


def local_maxima(response: Real) -> tuple[Float64, Float64]:
    """Positions (K, 2) and heights (K,) of the pixels above 0 and no lower than their eight neighbours, row by row.

    A position is moved by at most half a pixel along either axis to the top of the quadratic through the nine pixels.
    Pixels of the border are no maxima; every pixel of a plateau is one.
    """
    height, width = response.shape
    v = {
        (i, j): response[1 + i : max(height - 1 + i, 0), 1 + j : max(width - 1 + j, 0)].astype(np.float64)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    }
    rows, columns = np.nonzero((v[0, 0] > 0) & np.all([v[0, 0] >= other for other in v.values()], axis=0))
    v = {step: values[rows, columns] for step, values in v.items()}
    slope_r, slope_c = (v[1, 0] - v[-1, 0]) / 2, (v[0, 1] - v[0, -1]) / 2
    bend_r, bend_c = v[1, 0] + v[-1, 0] - 2 * v[0, 0], v[0, 1] + v[0, -1] - 2 * v[0, 0]
    twist = (v[1, 1] + v[-1, -1] - v[1, -1] - v[-1, 1]) / 4
    det = bend_r * bend_c - twist**2
    det = np.where(det > 0, det, np.inf)
    shift = np.column_stack([twist * slope_c - bend_c * slope_r, twist * slope_r - bend_r * slope_c]) / det[:, None]
    positions = np.column_stack([rows + 1, columns + 1]) + np.clip(shift, -0.5, 0.5)
    return np.asarray(positions, dtype=np.float64), v[0, 0]


def blur_boards(boards: Float64, sigma: float) -> Float64:
    """Images (n, H, W) blurred by a Gaussian; 0 outside."""
    return correlate(correlate(boards, gaussian(sigma), 1, "constant"), gaussian(sigma), 2, "constant")


def tile_spectrum(tile: Real, pad: int, centre: int, sigma: float) -> Float64:
    """Power spectrum (2 c, 2 c) of a tile about its mean under a Hann window, blurred by a Gaussian of ``sigma`` bins.

    The tile is padded to (pad, pad); frequencies run from -c to c - 1 bins of 1 / pad along either axis.
    """
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in tile.shape))
    padded = np.fft.fft2((tile.astype(np.float64) - tile.mean(dtype=np.float64)) * window, s=(pad, pad))
    kept = np.arange(-centre, centre)
    power = abs(padded[np.ix_(kept, kept)]) ** 2
    return correlate(correlate(power, gaussian(sigma), 0, "edge"), gaussian(sigma), 1, "edge")


def bilinear(image: Real, rows: Float64, columns: Float64) -> Float64:
    """Values between pixels; beyond the border those of the nearest pixel."""
    rows, columns = np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    down, along = rows - top, columns - left
    upper = image[top, left] * (1 - along) + image[top, right] * along
    lower = image[bottom, left] * (1 - along) + image[bottom, right] * along
    return np.asarray(upper * (1 - down) + lower * down)


def spoke_scores(power: Real, pad: float, radius: Float64, angle: Float64) -> Float64:
    """How well hexagons of spots fit a spectrum (2 c, 2 c), by radius, cycles/px, and angle of the first spot: (R, A).

    Log power over the background of the weakest of three spots, mean over first and second order.
    """
    centre = len(power) // 2
    total = np.zeros((len(radius), len(angle)))
    for order, offset in ((1.0, 0.0), (np.sqrt(3), np.pi / 6)):
        every = angle[:, None] + np.arange(3) * np.pi / 3 + offset
        spoke = order * radius[:, None, None] * pad
        values = bilinear(power, centre + spoke * np.cos(every), centre + spoke * np.sin(every))
        background = np.median(values, axis=(1, 2), keepdims=True) + 1e-3 * values.max() + 1e-300
        total += np.log1p(values / background).min(axis=2) / 2
    return total


def hexagon_spots(power: Real, pad: float, radius: float, angle: float) -> Float64:
    """Centres of gravity (3, 2), bins, of the strongest spots within 12 % of three ideal ones in a spectrum."""
    turns = angle + np.array([0, 2, 4]) * np.pi / 3
    spots = radius * pad * np.column_stack([np.cos(turns), np.sin(turns)])
    grid: Real = np.indices(power.shape) - len(power) // 2
    for k, ideal in enumerate(spots):
        near = np.hypot(grid[0] - ideal[0], grid[1] - ideal[1]) <= max(2.0, 0.12 * radius * pad)
        r, c = divmod(int(np.argmax(np.where(near, power, 0))), power.shape[1])
        peak = (slice(max(r - 2, 0), r + 3), slice(max(c - 2, 0), c + 3))
        weight = np.clip(power[peak] - 0.3 * power[r, c], 0, None)
        spots[k] = (grid[(slice(None), *peak)] * weight).sum(axis=(1, 2)) / weight.sum()
    return spots


def snap(positions: Float64, strength: Float64, sites: Float64, reach: float) -> tuple[Float64, Float64]:
    """Positions (S, 2) of the peaks nearest to sites and how much each counts, (S,): 0, without one in reach, to 1."""
    distance = np.linalg.norm(sites[:, None] - positions, axis=2)
    number = distance.argmin(axis=1)
    distance = distance[np.arange(len(sites)), number]
    near = 1 - 0.9 * (distance / reach) ** 2
    weight = np.where(distance < reach, np.clip(strength[number], 0, 1) ** 2 * near, 0)
    return np.where(distance[:, None] < reach, positions[number], sites), weight


def fit_sites(
    measured: Float64, weights: Float64, origin: Float64, frames: Float64, width: float = 1.1, ridge: float = 0.2
) -> tuple[Float64, Float64]:
    """Weighted affine fits of neighbour positions over their index offsets d_k, with a ridge towards a prior frame.

    For each site minimise over its position q and its frame F, with p_k and w_k measured positions and weights,
        sum_k w_k exp(-|d_k|^2 / (2 width^2)) |p_k - q - d_k F|^2  +  ridge |F - F_prior|^2,
    twice, the second time with outliers weighted down (Cauchy). A wide neighbourhood or a stiff ridge lags behind where
    drift bends the lattice within a few rows, a narrow one follows noise.

    Parameters
    ----------
    measured, weights
        (S, 36, 2) and (S, 36).
    origin, frames
        (S, 2) first guess of q and (S, 2, 2) prior frames.
    width, ridge
        Site spacings; weights of a neighbour.

    Returns
    -------
    (S, 2) positions and (S, 2, 2) frames
    """
    steps = hexagon(3)
    distance2 = (steps**2).sum(axis=1) + steps.prod(axis=1)
    design = np.column_stack([np.ones(len(steps)), steps])  # (36, 3)
    penalty = np.diag([1e-9, ridge, ridge])
    residual = measured - steps @ frames - origin[:, None]  # (S, 36, 2)
    weights = weights * np.exp(-distance2 / (2 * width**2))
    scale2 = (2 * 0.08) ** 2 * abs(np.linalg.det(frames))[:, None]
    robust = weights
    for _ in range(2):
        normal = np.einsum("sk,kx,ky->sxy", robust, design, design) + penalty
        solution = np.linalg.solve(normal, design.T @ (robust[..., None] * residual))  # (S, 3, 2)
        robust = weights / (1 + ((residual - design @ solution) ** 2).sum(axis=2) / scale2)
    return origin + solution[:, 0], frames + solution[:, 1:]


def grow(
    positions: Float64, strength: Float64, seed: int, basis: Float64, reach: float, shape: tuple[int, int]
) -> dict[tuple[int, int], Float64]:
    """Predicted positions, by site (i, j), of all sites reached from the peak ``seed`` in an image of ``shape``.

    Sites are visited in waves, the best backed first: they lead round noise and holes. A new site is guessed from its
    nearest neighbours visited, then fitted, then measured by the peak that stands there. In the end all sites are
    fitted twice more, from neighbours on all sides.
    """
    steps = [tuple(step) for step in hexagon(3).tolist()]
    predicted: dict[tuple[int, int], Float64] = {}
    frames: dict[tuple[int, int], Float64] = {}
    met: dict[tuple[int, int], tuple[Float64, float]] = {}

    def enter(site: tuple[int, int], position: Float64, frame: Float64) -> None:
        where, weight = snap(positions, strength, position[None], reach)
        predicted[site], frames[site], met[site] = position, frame, (where[0], float(weight[0]))

    def inside(site: tuple[int, int]) -> bool:
        return bool(np.all((predicted[site] >= 0) & (predicted[site] <= np.array(shape) - 1)))

    def around(site: tuple[int, int]) -> list[tuple[int, int]]:
        return [(site[0] + i, site[1] + j) for i, j in steps]

    def fit(sites: list[tuple[int, int]], guess: Any) -> None:
        nothing = (np.zeros(2), 0.0)
        fits = []
        for site in sites:
            near = [met.get(other, nothing) for other in around(site)]
            measured, weights = np.array([p for p, _ in near]), np.array([w for _, w in near])
            position, frame = guess(site)
            fits.append(fit_sites(measured[None], weights[None], position[None], frame[None]))
        for site, (position, frame) in zip(sites, fits, strict=True):
            enter(site, position[0], frame[0])

    def hand_on(site: tuple[int, int]) -> tuple[Float64, Float64]:
        near = [(step, other) for step, other in zip(steps[:6], around(site)[:6], strict=True) if other in predicted]
        frame = np.mean([frames[other] for _, other in near], axis=0)
        return np.mean([predicted[other] - np.array(step) @ frame for step, other in near], axis=0), frame

    corners = np.array([[0, 0], [0, shape[1]], [shape[0], 0], shape]) - positions[seed]
    board = np.ceil(abs(corners @ np.linalg.inv(basis)).max(axis=0) * 1.2) + 3  # no site beyond is visited
    for site in [(0, 0), *steps]:
        enter(site, positions[seed] + np.array(site) @ basis, np.asarray(basis, dtype=np.float64))
    fresh, waiting = list(predicted), set[tuple[int, int]]()
    while True:
        reached = {other for site in fresh if inside(site) for other in around(site)[:6]}
        waiting |= {site for site in reached - predicted.keys() if (abs(np.array(site)) <= board).all()}
        backing = {site: sum(met[other][1] for other in around(site) if other in met) for site in waiting}
        fresh = [site for site, weight in backing.items() if weight >= max(1.0, 0.6 * max(backing.values()))]
        if not fresh:
            break
        fit(fresh, hand_on)
        waiting -= set(fresh)
    for _ in range(2):
        fit(list(predicted), lambda site: (predicted[site], frames[site]))
    return predicted


def refine_columns(
    image: Real, start: Float64, movable: NDArray[np.bool_], sigma: float, spacing: float, furthest: float
) -> tuple[Float64, Float64, Float64, float]:
    """Positions (N, 2), amplitudes and deviations (N,), and common width, px, of Gaussian columns that overlap.

    In six rounds, the first of them without moves, the superposition

        b + sum_k A_k exp(-|x - p_k|^2 / (2 sigma^2))

    is fitted to windows about the starts, column by column, the others as they were in the round before. Windows reach
    0.65 spacings, pixels in them count by a Gaussian of 0.8 spacings. In every fit A, b and the linearised changes
    of p and sigma are unknown; that of sigma is common to all columns.
    """
    half, window_sigma = max(2, int(0.65 * spacing + 0.5)), 0.8 * spacing
    pixels = image.astype(np.float64)
    distance = np.linalg.norm(start[:, None] - start, axis=2)
    np.fill_diagonal(distance, np.inf)
    near = [[j for j in np.argsort(row, kind="stable")[:14] if row[j] < 2.2 * spacing] for row in distance]
    positions, amplitudes = start.copy(), np.zeros(len(start))
    backgrounds, deviations = np.zeros(len(start)), np.full(len(start), np.inf)

    def residual(k: int) -> tuple[Float64, Float64, Float64, Float64]:
        """Rows, columns and weights of the window's pixels, and the image there less the neighbours."""
        first = np.maximum(np.floor(start[k] + 0.5).astype(int) - half, 0)
        last = np.minimum(np.floor(start[k] + 0.5).astype(int) + half, np.array(image.shape) - 1)
        grid = np.mgrid[first[0] : last[0] + 1, first[1] : last[1] + 1].reshape(2, -1)
        rest = pixels[tuple(grid)]
        for j in near[k]:
            offset2 = ((grid - positions[j][:, None]) ** 2).sum(axis=0)
            rest = rest - amplitudes[j] * np.exp(-offset2 / (2 * sigma**2))
        weight = np.exp(-((grid - start[k][:, None]) ** 2).sum(axis=0) / (2 * window_sigma**2))
        return (*(grid - positions[k][:, None]), weight, rest)

    for turn in range(6):
        after = []
        change = curvature = 0.0
        for k in range(len(start)):
            y, x, weight, rest = residual(k)
            g = np.exp(-(y * y + x * x) / (2 * sigma**2))
            design = np.sqrt(weight)[:, None] * np.column_stack([g, np.ones_like(g), y * g, x * g, (y * y + x * x) * g])
            moves = bool(movable[k]) and turn > 0
            solution = np.linalg.lstsq(design[:, : 4 if moves else 2], np.sqrt(weight) * rest, rcond=None)[0]
            amplitude, move = solution[0], np.zeros(2)
            if amplitude > 0:
                q, r = np.linalg.qr(design)
                own = amplitude / sigma**3 * abs(r[4, 4])
                change += own * np.sign(r[4, 4]) * float(q[:, 4] @ (np.sqrt(weight) * rest))
                curvature += own**2
                if moves:
                    move = solution[2:] * sigma**2 / amplitude
                    move = move * min(1.0, 0.25 * sigma / max(float(np.hypot(*move)), 1e-300))
            after.append((positions[k] + move, max(amplitude, 0.0), solution[1]))
        positions, amplitudes, backgrounds = (np.array(values) for values in zip(*after, strict=True))
        if turn > 0 and curvature > 0:
            sigma = float(np.clip(sigma + change / curvature, 0.8 * sigma, 1.25 * sigma))
    moment = np.sqrt(2 * np.pi) / (2 / sigma**2 + 1 / window_sigma**2)
    for k in np.flatnonzero(amplitudes > 0).tolist():
        y, x, weight, rest = residual(k)
        rest = rest - backgrounds[k] - amplitudes[k] * np.exp(-(y * y + x * x) / (2 * sigma**2))
        scatter = np.sqrt((weight * rest**2).sum() / weight.sum())
        deviations[k] = scatter * sigma**2 / (amplitudes[k] * moment)
    far = ((positions - start) ** 2).sum(axis=1) > furthest**2
    return np.where(far[:, None], start, positions), amplitudes, deviations, sigma


def virtual_detectors(patterns: Real, masks: NDArray[np.bool_]) -> Float64:
    """Of each pattern (S, ky, kx) the sum in each mask (D, ky, kx): (S, D). Integers are summed as such."""
    wide = np.float64 if patterns.dtype.kind == "f" else np.int64
    sums = [patterns[:, mask].sum(axis=1, dtype=wide) for mask in masks]
    return np.array(sums, dtype=np.float64).reshape(len(masks), len(patterns)).T


def sum_patterns(patterns: Real, total: Float64) -> None:
    """Add the patterns (S, ky, kx) to ``total`` (ky, kx), one after the other."""
    for pattern in patterns:
        total += pattern
