"""The moments as torch operations: their derivatives, and that a network trains through them."""

from __future__ import annotations

import numpy as np
import pytest
import stand_in_card
import torch
from torch.autograd import gradcheck, gradgradcheck

import contextem as ctm
from contextem import autograd

MATRIX = [[0.8, 0.3], [-0.3, 0.8]]


def scene(n=4, shape=(14, 15), dtype=torch.float64):
    rng = np.random.default_rng(0)
    image = torch.tensor(rng.normal(size=shape), dtype=dtype, requires_grad=True)
    # between pixel lines, so that steps of gradcheck cross none
    positions = rng.integers(2, 12, (n, 2)) + rng.choice([0.2, 0.3], (n, 2))
    return image, torch.tensor(positions)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [1.0, 0.75, MATRIX])
def test_first_and_second_derivatives_with_respect_to_the_image(scale, interpolation):
    image, positions = scene()
    basis = ctm.ZernikeBasis(3, 6)

    def moments(pixels):
        return autograd.column_moments(pixels, positions, basis, scale=scale, interpolation=interpolation)

    assert gradcheck(moments, (image,))
    assert gradgradcheck(moments, (image,))
    assert gradgradcheck(lambda pixels: moments(pixels) ** 3, (image,))


def test_first_and_second_derivatives_with_respect_to_patches():
    patches = torch.tensor(np.random.default_rng(0).normal(size=(3, 6, 6)), requires_grad=True)
    basis = ctm.ZernikeBasis(3, 6, "projection")
    assert gradcheck(lambda x: autograd.patch_moments(x, basis), (patches,))
    assert gradgradcheck(lambda x: autograd.patch_moments(x, basis) ** 2, (patches,))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_derivatives_with_respect_to_positions(scale):
    image, positions = scene()
    positions.requires_grad_()
    basis = ctm.ZernikeBasis(3, 6)
    assert gradcheck(lambda i, p: autograd.column_moments(i, p, basis, scale=scale), (image, positions))
    assert gradcheck(lambda p: autograd.column_moments(image.detach(), p, basis, scale=scale), (positions,))


def test_mixed_derivatives_exist_and_second_ones_of_positions_are_refused():
    image, positions = scene()
    positions.requires_grad_()
    basis = ctm.ZernikeBasis(2, 6)
    moments = autograd.column_moments(image, positions, basis)
    (of_image,) = torch.autograd.grad((moments**2).sum(), image, create_graph=True)
    # of_image = 2 A^T A I: its derivative along a direction v with respect to positions is that of 2 <A v, A I>
    v = torch.ones_like(image)
    (mixed,) = torch.autograd.grad((of_image * v).sum(), positions)
    product = (
        2 * (autograd.column_moments(v, positions, basis) * autograd.column_moments(image, positions, basis)).sum()
    )
    (expected,) = torch.autograd.grad(product, positions)
    torch.testing.assert_close(mixed, expected)

    moments = autograd.column_moments(image, positions, basis)
    (of_positions,) = torch.autograd.grad(moments.sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="positions: expected first derivatives only"):
        of_positions.sum().backward()


def test_derivatives_of_the_invariants():
    basis = ctm.ZernikeBasis(4, 8)
    moments = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, basis.n_modes)), requires_grad=True)
    invariants = autograd.rotation_invariants(moments, basis)
    np.testing.assert_allclose(
        invariants.detach().numpy(), ctm.rotation_invariants(moments.detach().numpy(), basis), rtol=1e-15
    )
    assert gradcheck(lambda a: autograd.rotation_invariants(a, basis), (moments,))
    assert gradgradcheck(lambda a: autograd.rotation_invariants(a, basis), (moments,))


def test_an_empty_patch_has_invariants_without_a_slope():
    basis = ctm.ZernikeBasis(4, 8)
    moments = torch.zeros(1, basis.n_modes, requires_grad=True)
    invariants = autograd.rotation_invariants(moments, basis)
    assert not invariants.any()
    invariants.sum().backward()
    assert moments.grad.tolist() == [(basis.m == 0).astype(float).tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_kernels(dtype):
    image, positions = scene(dtype=dtype)
    basis = ctm.ZernikeBasis(5, 9)
    moments = autograd.column_moments(image, positions, basis, scale=0.8)
    expected = ctm.column_moments(image.detach().numpy(), positions.numpy(), basis, scale=0.8)
    assert moments.dtype == dtype
    np.testing.assert_array_equal(moments.detach().numpy(), expected)
    moments.sum().backward()  # a gradient of strides 0
    ones = np.ones(expected.shape, expected.dtype)
    adjoint = ctm.column_moments_adjoint(ones, positions.numpy(), basis, tuple(image.shape), scale=0.8)
    assert image.grad.dtype == dtype
    np.testing.assert_array_equal(image.grad.numpy(), adjoint)


def test_tensors_of_any_strides():
    basis = ctm.ZernikeBasis(3, 6)
    whole = torch.tensor(np.random.default_rng(0).normal(size=(30, 28)), requires_grad=True)
    positions = torch.tensor([(5.3, 7.2, 0.0), (9.0, 3.25, 0.0)], dtype=torch.float64)[:, :2]
    view = whole[::2, ::2].T
    assert not view.is_contiguous() and not positions.is_contiguous()
    assert gradcheck(lambda x: autograd.column_moments(x[::2, ::2].T, positions, basis), (whole,))
    patches = torch.randn(6, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradcheck(lambda x: autograd.patch_moments(x.permute(2, 0, 1), basis), (patches.requires_grad_(),))


def test_positions_as_a_list_or_an_array_and_no_gradient_at_all():
    image, positions = scene()
    basis = ctm.ZernikeBasis(3, 6)
    as_tensor = autograd.column_moments(image, positions, basis)
    array = positions.numpy()
    array.setflags(write=False)
    for form in (array, array.tolist()):
        torch.testing.assert_close(autograd.column_moments(image, form, basis), as_tensor, rtol=0, atol=0)
    with torch.no_grad():
        assert not autograd.column_moments(image, positions, basis).requires_grad
    assert not autograd.patch_moments(torch.ones(2, 6, 6), basis).requires_grad


def test_functional_derivatives():
    image, positions = scene()
    basis = ctm.ZernikeBasis(2, 6)

    def energy(pixels):
        return (autograd.column_moments(pixels, positions, basis) ** 2).sum()

    (expected,) = torch.autograd.grad(energy(image), image)
    torch.testing.assert_close(torch.func.grad(energy)(image.detach()), expected)
    # the energy is quadratic: half its Hessian between an image and itself is the energy
    hessian = torch.autograd.functional.hessian(energy, image.detach()).reshape(image.numel(), -1)
    pixels = image.detach().ravel()
    torch.testing.assert_close(pixels @ hessian @ pixels / 2, energy(image.detach()))


def test_a_small_network_trains_through_it():
    # which of two patterns stands at each position, seen through a learned filter in front of the moments
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    basis, size = ctm.ZernikeBasis(4, 9), 9
    positions = np.stack(np.meshgrid(np.arange(12, 100, 14), np.arange(12, 100, 14)), axis=-1).reshape(-1, 2) + 0.3
    labels = torch.tensor(rng.integers(0, 2, len(positions)))
    image = 0.2 * rng.normal(size=(110, 110))
    axis = np.arange(size) - size // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    patterns = np.exp(-(x**2 + y**2) / 6), 1.6 * np.exp(-(x**2 + y**2) / 12) * np.cos(2 * np.arctan2(y, x)) ** 2
    for (row, column), label in zip(positions.astype(int), labels.tolist(), strict=True):
        image[row - 4 : row + 5, column - 4 : column + 5] += patterns[label]
    pixels = torch.tensor(image, dtype=torch.float32)[None, None]

    filters = torch.nn.Conv2d(1, 1, 3, padding=1)
    head = torch.nn.Sequential(torch.nn.Linear(9, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimiser = torch.optim.Adam([*filters.parameters(), *head.parameters()], lr=0.02)
    before = filters.weight.detach().clone()
    losses = []
    for _ in range(60):
        moments = autograd.column_moments(filters(pixels)[0, 0], positions, basis)
        loss = torch.nn.functional.cross_entropy(head(autograd.rotation_invariants(moments, basis)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert not torch.equal(filters.weight, before)
    assert losses[-1] < 0.1 * losses[0]


def test_bad_input_gets_one_sentence():
    image, positions = scene()
    basis = ctm.ZernikeBasis(3, 6)
    moments = autograd.column_moments
    with pytest.raises(TypeError, match="image: expected a torch tensor, got ndarray; convert with"):
        moments(np.ones((9, 9)), positions, basis)
    with pytest.raises(TypeError, match=r"image: expected float32 or float64, got torch\.bfloat16; convert with"):
        moments(image.bfloat16(), positions, basis)
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) with at least one pixel, got \(1, 14, 15\)"):
        moments(image[None], positions, basis)
    with pytest.raises(TypeError, match=r"positions: expected float64 on the CPU like the image, got torch\.float32"):
        moments(image, positions.float(), basis)
    with pytest.raises(ValueError, match="positions: expected finite numbers"):
        moments(image, positions * torch.nan, basis)
    with pytest.raises(ValueError, match="positions: expected no gradient with interpolation 'nearest'"):
        moments(image, positions.requires_grad_(), basis, interpolation="nearest")
    with pytest.raises(ValueError, match="interpolation: expected one of linear, nearest, got 'cubic'"):
        moments(image, positions.detach(), basis, interpolation="cubic")
    with pytest.raises(ValueError, match=r"patches: expected shape \(N, 6, 6\) for this basis, got \(2, 5, 5\)"):
        autograd.patch_moments(torch.ones(2, 5, 5), basis)
    with pytest.raises(ValueError, match=r"moments: expected shape \(\.\.\., 10\) for this basis, got \(2, 5\)"):
        autograd.rotation_invariants(torch.ones(2, 5), basis)
    with pytest.raises(TypeError, match="image: expected a tensor on the CPU or a CUDA device, got one on meta"):
        moments(torch.ones(9, 9, device="meta"), positions, basis)


def test_in_cuda_memory_the_kernels_of_the_device_are_differentiated(monkeypatch):
    image, positions = scene()
    basis = ctm.ZernikeBasis(3, 6)
    on_host = autograd.column_moments(image, positions, basis, scale=0.5).detach()
    extension = stand_in_card.install(monkeypatch)
    positions.requires_grad_()
    moments = autograd.column_moments(image, positions, basis, scale=0.5)
    assert torch.equal(moments.detach(), on_host)
    moments.sum().backward()  # a gradient of strides 0
    assert extension.calls == ["column_moments", "column_moments_adjoint", "column_moments_position_gradient"]
    assert gradcheck(lambda i, p: autograd.column_moments(i, p, basis, scale=0.5), (image, positions))
    assert gradgradcheck(lambda i: autograd.column_moments(i, positions.detach(), basis) ** 2, (image,))
    patches = torch.tensor(np.random.default_rng(0).normal(size=(3, 6, 6)), requires_grad=True)
    assert gradgradcheck(lambda x: autograd.patch_moments(x, basis) ** 2, (patches,))
    assert extension.calls[-1] in ("patch_moments", "patch_moments_adjoint")
    with pytest.raises(TypeError, match=r"positions: expected a float64 tensor on .* like the image, got list"):
        autograd.column_moments(image, [(3.0, 4.0)], basis)


def test_invariants_in_cuda_memory_are_those_of_the_host(monkeypatch):
    for basis in (ctm.ZernikeBasis(0, 8), ctm.ZernikeBasis(5, 8)):
        moments = torch.randn(2, 3, basis.n_modes, generator=torch.Generator().manual_seed(0))
        expected = ctm.rotation_invariants(moments.numpy(), basis)
        with monkeypatch.context() as patch:
            stand_in_card.install(patch)
            found = ctm.rotation_invariants(moments, basis)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(autograd.rotation_invariants(moments, basis).numpy(), expected, rtol=1e-6)


@pytest.mark.gpu
def test_moments_in_cuda_memory_without_a_gradient(cuda_arrays):
    image, positions = scene(dtype=torch.float32)
    basis = ctm.ZernikeBasis(3, 6)
    on_device = autograd.column_moments(cuda_arrays(image.detach()), cuda_arrays(positions), basis)
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), autograd.column_moments(image, positions, basis).detach())


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [1.0, 0.7, MATRIX])
def test_derivatives_in_cuda_memory(cuda_arrays, scale):
    image, positions = (cuda_arrays(tensor.detach()).requires_grad_() for tensor in scene())
    basis = ctm.ZernikeBasis(3, 6)
    assert gradcheck(lambda i, p: autograd.column_moments(i, p, basis, scale=scale), (image, positions))
    assert gradgradcheck(lambda i: autograd.column_moments(i, positions.detach(), basis, scale=scale), (image,))
    patches = cuda_arrays(np.random.default_rng(0).normal(size=(3, 6, 6))).requires_grad_()
    assert gradgradcheck(lambda x: autograd.patch_moments(x, basis) ** 2, (patches,))
