"""The moments as differentiable torch operations, so that they can stand inside a network.

    image (H, W), positions (N, 2)  ->  column_moments (N, J)  ->  rotation_invariants (N, J')  ->  network

Forward and backward are the C++ or the CUDA kernels, where the tensors lie. The moments are linear in the image, so the
backward of the adjoint is the forward again and derivatives with respect to the image exist to any order; with respect
to positions, to first order. Gradients in CUDA memory are the same bits every time, since nothing is added atomically.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from contextem import _arrays, adjoint, moments
from contextem.zernike import ZernikeBasis


@dataclass(frozen=True)
class _Sampling:
    """What the moments of columns depend on beside image and positions."""

    basis: ZernikeBasis
    scale: NDArray[np.float64]
    interpolation: str
    n_threads: int


class _PatchMoments(torch.autograd.Function):
    @staticmethod
    def forward(patches: Tensor, basis: ZernikeBasis, n_threads: int) -> Tensor:
        return _tensor(moments.patch_moments(_array(patches), basis, n_threads=n_threads))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.basis, ctx.n_threads = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _PatchMomentsAdjoint.apply(gradients[0], ctx.basis, ctx.n_threads), None, None


class _PatchMomentsAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(gradient: Tensor, basis: ZernikeBasis, n_threads: int) -> Tensor:
        return _tensor(adjoint.patch_moments_adjoint(_array(gradient), basis, n_threads=n_threads))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.basis, ctx.n_threads = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _PatchMoments.apply(gradients[0], ctx.basis, ctx.n_threads), None, None


class _ColumnMoments(torch.autograd.Function):
    @staticmethod
    def forward(image: Tensor, positions: Tensor, sampling: _Sampling) -> Tensor:
        return _tensor(
            moments.column_moments(
                _array(image),
                _array(positions),
                sampling.basis,
                scale=sampling.scale,
                interpolation=sampling.interpolation,
                n_threads=sampling.n_threads,
            )
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, positions, ctx.sampling = inputs
        ctx.shape = tuple(image.shape)
        ctx.save_for_backward(positions, image if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        positions, image = ctx.saved_tensors
        of_image = of_positions = None
        if ctx.needs_input_grad[0]:
            of_image = _ColumnMomentsAdjoint.apply(gradients[0], positions, ctx.shape, ctx.sampling)
        if ctx.needs_input_grad[1]:
            of_positions = _PositionGradient.apply(gradients[0], image, positions, ctx.sampling)
        return of_image, of_positions, None


class _ColumnMomentsAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(gradient: Tensor, positions: Tensor, shape: tuple[int, int], sampling: _Sampling) -> Tensor:
        return _tensor(
            adjoint.column_moments_adjoint(
                _array(gradient),
                _array(positions),
                sampling.basis,
                shape,
                scale=sampling.scale,
                interpolation=sampling.interpolation,
                n_threads=sampling.n_threads,
            )
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, positions, _, ctx.sampling = inputs
        ctx.save_for_backward(positions, gradient if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        positions, gradient = ctx.saved_tensors
        of_gradient = of_positions = None
        if ctx.needs_input_grad[0]:
            of_gradient = _ColumnMoments.apply(gradients[0], positions, ctx.sampling)
        if ctx.needs_input_grad[1]:  # <adjoint(g), v> = <g, moments(v)>
            of_positions = _PositionGradient.apply(gradient, gradients[0], positions, ctx.sampling)
        return of_gradient, of_positions, None, None


class _PositionGradient(torch.autograd.Function):
    @staticmethod
    def forward(gradient: Tensor, image: Tensor, positions: Tensor, sampling: _Sampling) -> Tensor:
        return _tensor(
            adjoint.column_moments_position_gradient(
                _array(gradient),
                _array(image),
                _array(positions),
                sampling.basis,
                scale=sampling.scale,
                n_threads=sampling.n_threads,
            )
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "positions: expected first derivatives only, got a request for the derivative of their gradient; "
            "detach the positions or leave out create_graph"
        )


def patch_moments(patches: Tensor, basis: ZernikeBasis, *, n_threads: int = 0) -> Tensor:
    """Moments of patches, differentiable to any order.

    Parameters
    ----------
    patches : torch.Tensor, shape (N, P, P), float32 or float64
        On the CPU or a CUDA device, any strides.
    basis : ZernikeBasis
        Basis of the same patch side P.
    n_threads : int
        Threads on the CPU, 0 for all cores.

    Returns
    -------
    torch.Tensor, shape (N, J)
        In the device and dtype of ``patches``.

    Raises
    ------
    TypeError, ValueError
        If the patches do not fit the basis or are not floating point.

    Examples
    --------
    >>> import torch
    >>> from contextem import ZernikeBasis, autograd
    >>> patches = torch.ones(1, 16, 16, requires_grad=True)
    >>> autograd.patch_moments(patches, ZernikeBasis(2, 16))[0, 0].backward()
    >>> round(float(patches.grad.sum()), 5)
    1.0
    """
    _check_place("patches", patches)
    result: Tensor = _PatchMoments.apply(patches, basis, _arrays.check_threads(n_threads))
    return result


def column_moments(
    image: Tensor,
    positions: Tensor | ArrayLike,
    basis: ZernikeBasis,
    *,
    scale: ArrayLike = 1.0,
    interpolation: str = "linear",
    n_threads: int = 0,
) -> Tensor:
    """Moments of the patches around positions, differentiable in the image and in the positions.

    Derivatives with respect to the image exist to any order, with respect to positions to first order and with linear
    interpolation; on the lines through pixel centres the slope of the interpolated image is that towards larger
    coordinates, see :func:`contextem.adjoint.column_moments_position_gradient`.

    Parameters
    ----------
    image : torch.Tensor, shape (H, W), float32 or float64
        On the CPU or a CUDA device, any strides.
    positions : torch.Tensor of float64 or array, shape (N, 2)
        (row, column) in pixels, pixel centres at integers. For a CUDA image: a tensor on its device.
    basis : ZernikeBasis
        Basis; its size is the patch side.
    scale : float or (2, 2) array
        Image pixels per patch sample; a matrix acts on (row, column) offsets.
    interpolation : {"linear", "nearest"}
        How samples between pixels are taken. Samples outside the image count as 0.
    n_threads : int
        Threads on the CPU, 0 for all cores.

    Returns
    -------
    torch.Tensor, shape (N, J)
        In the device and dtype of ``image``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong shape, type or range, or is to be differentiated where it cannot be.

    Examples
    --------
    >>> import torch
    >>> from contextem import ZernikeBasis, autograd
    >>> image = torch.ones(64, 64, dtype=torch.float64, requires_grad=True)
    >>> autograd.column_moments(image, [(30.25, 31.5)], ZernikeBasis(2, 16))[0, 0].backward()
    >>> round(float(image.grad.sum()), 12)
    1.0
    """
    _check_place("image", image)
    sampling = _Sampling(
        basis,
        _arrays.check_scale(scale),
        _arrays.check_interpolation(interpolation),
        _arrays.check_threads(n_threads),
    )
    result: Tensor = _ColumnMoments.apply(image, _centres(positions, image, interpolation), sampling)
    return result


def rotation_invariants(moments: Tensor, basis: ZernikeBasis) -> Tensor:
    """Rotation-invariant coefficients as :func:`contextem.rotation_invariants`, differentiable, on any device.

    The modulus of a pair that is zero has no derivative; it counts as 0 there, so that empty patches do no harm.

    Parameters
    ----------
    moments : torch.Tensor, shape (..., J), float32 or float64
        Moments in the order of ``basis``.
    basis : ZernikeBasis
        The basis they belong to.

    Returns
    -------
    torch.Tensor, shape (..., J')
        In the order of ``basis.invariant_labels``.

    Raises
    ------
    TypeError, ValueError
        If moments are not floating point or do not have J columns.

    Examples
    --------
    >>> import torch
    >>> from contextem import ZernikeBasis, autograd
    >>> moments = torch.tensor([[-2.0, 3.0, 4.0]], requires_grad=True)
    >>> invariants = autograd.rotation_invariants(moments, ZernikeBasis(n_max=1, size=8))
    >>> invariants.tolist()
    [[-2.0, 5.0]]
    >>> invariants.sum().backward()
    >>> [round(slope, 6) for slope in moments.grad[0].tolist()]
    [1.0, 0.6, 0.8]
    """
    _check_tensor("moments", moments)
    if moments.ndim < 1 or moments.shape[-1] != basis.n_modes:
        raise ValueError(f"moments: expected shape (..., {basis.n_modes}) for this basis, got {tuple(moments.shape)}")
    pairs = list(zip(*(modes.tolist() for modes in basis.invariant_modes), strict=True))
    # column by column: a list as index, or a mask, would be uploaded to a CUDA device and waited for
    invariants = {pair: moments[..., pair[0]] for pair in pairs if pair[0] == pair[1]}
    paired = [pair for pair in pairs if pair not in invariants]
    if paired:
        cosine, sine = (torch.stack([moments[..., j] for j in modes], -1) for modes in zip(*paired, strict=True))
        # where the modulus has no slope, hypot sees numbers with one
        empty = (cosine == 0) & (sine == 0)
        modulus = torch.hypot(cosine.masked_fill(empty, 1.0), sine.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
        invariants |= dict(zip(paired, modulus.unbind(-1), strict=True))
    return torch.stack([invariants[pair] for pair in pairs], -1)


def _array(tensor: Tensor) -> Any:
    """Return what the functions of contextem take: in CUDA memory the tensor itself, else an array that shares it."""
    detached = tensor.detach()
    return detached if _arrays.in_cuda(detached) else detached.numpy()


def _tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(array)


def _check_tensor(name: str, tensor: Any) -> None:
    """Accept float32 and float64 tensors."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name}: expected a torch tensor, got {type(tensor).__name__}; convert with torch.as_tensor, or call the "
            f"function of the same name in contextem"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {tensor.dtype}; convert with {name}.float()")


def _check_place(name: str, tensor: Any) -> None:
    """Accept tensors of the host and of CUDA devices."""
    _check_tensor(name, tensor)
    if tensor.device.type not in ("cpu", "cuda"):
        raise TypeError(f"{name}: expected a tensor on the CPU or a CUDA device, got one on {tensor.device}; move it")


def _centres(positions: Tensor | ArrayLike, image: Tensor, interpolation: str) -> Tensor:
    """Positions as a float64 tensor beside the image; a tensor keeps its history."""
    place = "the CPU" if not _arrays.in_cuda(image) else f"{image.device}"
    if not isinstance(positions, Tensor):
        if _arrays.in_cuda(image):
            raise TypeError(
                f"positions: expected a float64 tensor on {place} like the image, got {type(positions).__name__}; "
                f"convert with torch.as_tensor(positions, device=image.device)"
            )
        return torch.tensor(_arrays.check_positions(positions))
    if positions.dtype != torch.float64 or positions.device != image.device:
        raise TypeError(
            f"positions: expected float64 on {place} like the image, got {positions.dtype} on {positions.device}; "
            f"convert with positions.to(image.device, torch.float64)"
        )
    if positions.requires_grad and interpolation == "nearest":
        raise ValueError(
            "positions: expected no gradient with interpolation 'nearest', whose slope is 0, got a tensor that "
            "requires one; take interpolation='linear' or detach it"
        )
    return positions
