"""The re-blur layer against a loop over pixels, against the renderer, and its gradient."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.optics import render_defocus
from ddfd_training.psf import disk_kernel, gaussian_kernel
from ddfd_training.reblur import SPREADS, STEP_PX, reblur_with_map

CASES = [(kernel, spread) for kernel in ("disk", "gaussian") for spread in SPREADS]


@cache
def tabulated(number: int, kernel: str, window_px: int, ratio: float) -> np.ndarray:
    """The kernel of tabulated diameter ``number``, cut to the window."""
    diameter = number * STEP_PX
    made = disk_kernel(diameter) if kernel == "disk" else gaussian_kernel(ratio * diameter)
    wide = np.pad(made, window_px)
    middle, half = wide.shape[0] // 2, window_px // 2
    cut = wide[middle - half : middle + half + 1, middle - half : middle + half + 1]
    return cut / cut.sum()


def kernel_of(diameter_px: float, kernel: str, window_px: int, ratio: float) -> np.ndarray:
    """The kernel between its two tabulated neighbours; ``[k, k]``."""
    diameter_px = min(abs(diameter_px), window_px)
    below = int(diameter_px / STEP_PX)
    share = diameter_px / STEP_PX - below
    nodes = [tabulated(below + i, kernel, window_px, ratio) for i in range(2 if share else 1)]
    return (1 - share) * nodes[0] + share * nodes[-1]


def slow(image, blur, kernel, spread, window_px, ratio=0.3):
    """The definition, pixel by pixel; ``[C, H, W]`` and ``[H, W]`` arrays."""
    half = window_px // 2
    wide = np.pad(image, ((0, 0), (half, half), (half, half)), mode="edge")
    wide_blur = np.pad(blur, half, mode="edge")
    out = np.zeros_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            if spread == "gather":
                weights = kernel_of(blur[y, x], kernel, window_px, ratio)
            else:
                weights = np.empty((window_px, window_px))
                for i in range(window_px):
                    for j in range(window_px):
                        own = kernel_of(wide_blur[y + i, x + j], kernel, window_px, ratio)
                        weights[i, j] = own[window_px - 1 - i, window_px - 1 - j]
            part = wide[:, y : y + window_px, x : x + window_px]
            out[:, y, x] = (part * weights).sum((1, 2)) / weights.sum()
    return out


@pytest.mark.parametrize(("kernel", "spread"), CASES)
def test_equals_the_loop_over_pixels(kernel, spread):
    random = np.random.default_rng(0)
    image = random.random((2, 2, 6, 7))
    blur = random.uniform(-6, 6, (2, 6, 7))
    blur[0, 3] = 0
    got = reblur_with_map(
        torch.from_numpy(image), torch.from_numpy(blur)[:, None],
        kernel=kernel, spread=spread, window_px=7,
    )  # fmt: skip
    for number in range(2):
        expected = slow(image[number], blur[number], kernel, spread, 7)
        np.testing.assert_allclose(got[number].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("kernel", "spread"), CASES)
def test_weights_sum_to_one_and_zero_blur_changes_nothing(kernel, spread):
    torch.manual_seed(0)
    blur = torch.rand(1, 1, 40, 40) * 25
    flat = reblur_with_map(torch.full((1, 3, 40, 40), 0.7), blur, kernel=kernel, spread=spread)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.7), atol=1e-6, rtol=0)
    image = torch.rand(1, 3, 40, 40)
    same = reblur_with_map(image, torch.zeros(1, 1, 40, 40), kernel=kernel, spread=spread)
    assert torch.equal(same, image)


@pytest.mark.parametrize(("kernel", "spread"), CASES)
def test_gradients_are_those_of_finite_differences(kernel, spread):
    torch.manual_seed(1)
    image = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    # Between the tabulated diameters, where the interpolation has a kink.
    blur = (torch.randint(0, 24, (2, 1, 4, 5)) + 0.2 + 0.6 * torch.rand(2, 1, 4, 5)) * STEP_PX
    blur = (blur.double() * torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)).requires_grad_()

    def layer(x, c):
        return reblur_with_map(x, c, kernel=kernel, spread=spread, window_px=7)

    assert torch.autograd.gradcheck(layer, (image, blur), eps=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kernel", "spread"), CASES)
def test_zero_blur_can_be_left_by_gradient_descent(kernel, spread):
    torch.manual_seed(2)
    image = torch.rand(1, 3, 32, 32)
    options = {"kernel": kernel, "spread": spread}
    target = reblur_with_map(image, torch.full((1, 1, 32, 32), 2.0), **options)
    blur = torch.full((1, 1, 32, 32), 1e-3, requires_grad=True)
    (reblur_with_map(image, blur, **options) - target).square().mean().backward()
    assert (blur.grad < 0).float().mean() > 0.9


@pytest.mark.parametrize("spread", SPREADS)
def test_one_blur_everywhere_is_a_convolution_and_what_the_renderer_shows(spread):
    random = np.random.default_rng(3)
    image = random.random((1, 3, 50, 60)).astype(np.float32)
    lens = LENS_PRESETS["nyu-8m"]
    # Its blur is the middle of a layer's, as the renderer cuts them, to the tabulated step.
    step_m = 10.0 / 255
    depth_m = (np.floor(1.4 / step_m) + 0.5) * step_m
    blur_px = float(lens.coc_px(depth_m))
    rgb = torch.from_numpy(image)
    got = reblur_with_map(rgb, torch.full((1, 1, 50, 60), blur_px), spread=spread)
    expected = convolve(image[0], disk_kernel(blur_px)[None], mode="nearest")
    np.testing.assert_allclose(got[0].numpy(), expected, atol=2e-3)
    seen = render_defocus(rgb, torch.full((1, 1, 50, 60), float(depth_m)), lens)
    np.testing.assert_allclose(got.numpy(), seen.numpy(), atol=2e-3)


def test_scatter_spills_over_an_edge_and_gather_does_not():
    image = torch.zeros(1, 1, 20, 20)
    image[..., :10] = 1.0  # a bright blurred half beside a dark sharp one
    blur = torch.zeros(1, 1, 20, 20)
    blur[..., :10] = 8.0
    spilt = reblur_with_map(image, blur, spread="scatter")
    kept = reblur_with_map(image, blur, spread="gather")
    assert spilt[0, 0, 10, 11] > 0.01
    assert kept[0, 0, 10, 11] == 0


def test_no_kernel_is_multiplied_out():
    # 25 x 25 copies of this image would take 31 MB for the forward pass alone.
    torch.manual_seed(4)
    image = torch.rand(1, 3, 64, 64)
    blur = torch.rand(1, 1, 64, 64).mul_(25).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        reblur_with_map(image, blur).sum().backward()
    largest = max((e.cpu_memory_usage for e in profile.events()), default=0)
    assert 0 < largest < 25 * image.numel() * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "square"}, "kernel: expected one of disk, gaussian"),
        ({"spread": "both"}, "spread: expected one of scatter, gather"),
        ({"window_px": 24}, "window_px: expected an odd number"),
        ({"sigma_per_diameter": 0.0}, "sigma_per_diameter: expected more than 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reblur_with_map(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8), **options)
    with pytest.raises(ValueError, match="of one size"):
        reblur_with_map(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
