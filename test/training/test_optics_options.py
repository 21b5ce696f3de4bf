"""Ways to render: presets, kernels between disk and Gaussian, layers differentiable in depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, gaussian_filter

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training import optics
from ddfd_training.optics import render_defocus
from ddfd_training.optics_options import (
    RENDER_PRESETS,
    Layering,
    RenderOptions,
    cut,
    render_options,
)
from ddfd_training.psf import blend_kernel, disk_kernel, gaussian_kernel, render_kernel

LENS = LENS_PRESETS["nyu-8m"]


def scene(kind: str, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured image ``[1, 3, H, W]`` and its depth ``[1, 1, H, W]``, float64."""
    rng = np.random.default_rng(0)
    rgb = torch.tensor(gaussian_filter(rng.random((1, 3, size, size)), (0, 0, 0.7, 0.7)))
    depth_m = torch.full((1, 1, size, size), 4.03, dtype=torch.float64)
    if kind == "card":
        depth_m[..., 7:17, 6:15] = 1.237
    elif kind == "slope":
        depth_m[:] = torch.linspace(1.3, 5.0, size)
    elif kind == "rough":
        depth_m += torch.tensor(rng.uniform(-1.7, 1.7, depth_m.shape))
    return rgb, depth_m


@pytest.mark.parametrize("kind", ["wall", "card"])
def test_soft_layers_show_what_thin_hard_layers_show(kind: str) -> None:
    """Half a pixel of blur between soft layers loses little against hard ones of 0.02 px."""
    rgb, depth_m = scene(kind)
    soft = render_defocus(rgb, depth_m, LENS, options="soft")
    hard = render_defocus(
        rgb, depth_m, LENS, options=RenderOptions(layering=Layering("blur", 0.02))
    )
    assert (soft - hard).abs().mean() < 2e-3
    assert (soft - hard).abs().max() < 0.03


def test_a_soft_slope_is_blurred_pixel_by_pixel() -> None:
    """Shares of one surface add up: no slice of a slope hides the next.

    Against a loop in which each pixel throws its own disk, which is right where nothing occludes.
    """
    rgb, depth_m = scene("slope")
    lens = LENS.scaled(0.5)
    options = RenderOptions(layering=Layering("blur", 0.1, soft=True))
    soft = render_defocus(rgb, depth_m, lens, options=options)[0, 0].numpy()
    light, weight = np.zeros((44, 44)), np.zeros((44, 44))
    padded = np.pad(rgb[0, 0].numpy(), 10, mode="edge")
    padded_m = np.pad(depth_m[0, 0].numpy(), 10, mode="edge")
    kernels = {d: disk_kernel(float(lens.coc_px(d))) for d in set(padded_m.flat)}
    for y, x in np.ndindex(44, 44):
        kernel = kernels[padded_m[y, x]]
        half = len(kernel) // 2
        if half <= min(y, x, 43 - y, 43 - x):
            box = np.s_[y - half : y + half + 1, x - half : x + half + 1]
            light[box] += kernel * padded[y, x]
            weight[box] += kernel
    each = (light / np.maximum(weight, 1e-9))[10:-10, 10:-10]
    assert np.abs(soft - each)[:, 3:].max() < 0.01


@pytest.mark.parametrize("kind", ["rough", "slope"])
@pytest.mark.parametrize("kernel", ["disk", "gaussian"])
def test_gradient_in_depth_and_image_is_the_numerical_one(kernel: str, kind: str) -> None:
    """Depth moves the picture as finite differences say, also beside edges."""
    options = RenderOptions(kernel, layering=Layering("blur", 0.5, soft=True))
    rgb, depth_m = (tensor[..., :6, :6].contiguous() for tensor in scene(kind))
    assert torch.autograd.gradcheck(
        lambda c, d: render_defocus(c, d, LENS.scaled(0.4), options=options),
        (rgb[:, :1].requires_grad_(), depth_m.requires_grad_()),
        fast_mode=True,
    )


def test_soft_layers_by_depth_have_the_gradient_too() -> None:
    """The other way to cut."""
    options = RenderOptions(layering=Layering("depth", 0.3, soft=True))
    rgb, depth_m = (tensor[..., :6, :6].contiguous() for tensor in scene("rough"))
    assert torch.autograd.gradcheck(
        lambda d: render_defocus(rgb[:, :1], d, LENS.scaled(0.4), options=options),
        (depth_m.requires_grad_(),),
        fast_mode=True,
    )


def test_depth_is_found_by_descending_the_gradient() -> None:
    """From the picture of a wall at 1.6 m and a guess of 2.2 m."""
    rgb, _ = scene("wall", 16)
    ones = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    lens = LENS.scaled(0.5)
    target = render_defocus(rgb, 1.6 * ones, lens, options="soft")
    log_depth = torch.tensor(np.log(2.2), requires_grad=True)
    optimizer = torch.optim.Adam([log_depth], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        picture = render_defocus(rgb, log_depth.exp() * ones, lens, options="soft")
        (picture - target).square().mean().backward()
        optimizer.step()
    assert log_depth.exp().item() == pytest.approx(1.6, abs=0.02)


@pytest.mark.parametrize("kind", ["wall", "card", "slope"])
def test_quick_layers_show_what_thin_ones_show(kind: str) -> None:
    """A quarter pixel of blur more or less is hardly seen."""
    rgb, depth_m = scene(kind)
    thin = render_defocus(
        rgb, depth_m, LENS, options=RenderOptions(layering=Layering("blur", 0.05))
    )
    quick = render_defocus(rgb, depth_m, LENS, options="quick")
    assert (quick - thin).abs().mean() < 2e-3


def test_hard_layers_have_no_gradient_in_depth() -> None:
    """They are a staircase; nobody shall train on it unawares."""
    rgb, depth_m = scene("slope")
    out = render_defocus(rgb, depth_m.requires_grad_(), LENS)
    assert not out.requires_grad


@pytest.mark.parametrize("name", sorted(RENDER_PRESETS))
def test_a_batch_is_its_images_one_by_one(name: str) -> None:
    """Also by the path that a GPU takes, all images in common layers."""
    pairs = [scene(kind) for kind in ("card", "slope", "wall")]
    rgb, depth_m = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    single = torch.cat([render_defocus(*pair, LENS, options=name) for pair in pairs])
    batch = render_defocus(rgb, depth_m, LENS, options=name)
    torch.testing.assert_close(batch, single)
    if RENDER_PRESETS[name].layering.from_nearest_m is None:
        together = optics._render(rgb, depth_m[:, 0], LENS, RENDER_PRESETS[name])
        torch.testing.assert_close(together, single, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["ddfd", "quick", "syndof", "soft"])
def test_what_is_behind_an_edge_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    """Beside an image that is blurred much more, a little blurred edge looks the same."""
    lens = LensConfig(15e-3, 2.8, 2.0, 5.6e-6)
    torch.manual_seed(0)
    coarse = torch.rand(2, 3, 12, 24)
    rgb = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    depth_m = torch.full((2, 48, 96), 8.0)
    depth_m[0, :, :48], depth_m[1, :, :48] = 1.0, 0.4
    options = RENDER_PRESETS[name]
    together = optics._render(rgb, depth_m, lens, options)
    for i in range(2):
        alone = optics._render(rgb[i : i + 1], depth_m[i : i + 1], lens, options)
        torch.testing.assert_close(together[i : i + 1], alone, atol=2e-6, rtol=0)


def test_d3net_layers_begin_half_a_metre_before_the_scene() -> None:
    """10/255 m thick, as the paper has them."""
    depth_m = torch.linspace(1.1, 3.0, 500, dtype=torch.float64).view(1, 20, 25)
    layers = cut(depth_m, LENS, RENDER_PRESETS["d3net"].layering)
    edges = 0.6 + np.arange(1000) * 10 / 255
    expected = np.digitize(depth_m.numpy(), edges) - 1
    used = np.unique(expected)
    assert np.array_equal(used[layers.position.numpy()], expected)
    middle_m = 0.6 + (used + 0.5) * 10 / 255
    np.testing.assert_allclose(layers.blur_px, LENS.signed_coc_px(middle_m), rtol=1e-9)


def test_syndof_layers_are_tenths_of_a_pixel_of_blur() -> None:
    """And its Gaussian is (blur - 1) / 4 wide: nothing below one pixel is blurred."""
    rgb, depth_m = scene("slope")
    layers = cut(depth_m[0], LENS, RENDER_PRESETS["syndof"].layering)
    rounded = np.round(LENS.signed_coc_px(depth_m.numpy()[0]) * 10) / 10
    np.testing.assert_allclose(np.array(layers.blur_px)[layers.position.numpy()], rounded)
    wall_m = LENS.depth_m(-7.0)
    out = render_defocus(rgb, torch.full_like(depth_m, wall_m), LENS, options="syndof")
    expected = gaussian_filter(rgb.numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=3.5)
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-3)
    near_focus = torch.full_like(depth_m, LENS.depth_m(-0.9))
    torch.testing.assert_close(render_defocus(rgb, near_focus, LENS, options="syndof"), rgb)


def test_the_public_code_of_d3net_cuts_its_kernel_at_21_pixels() -> None:
    """Sigma 0.3 of the diameter."""
    preset = RENDER_PRESETS["d3net-code"]
    kernel = render_kernel(
        20.0, preset.kernel, preset.sigma_per_diameter, largest_px=preset.largest_kernel_px
    ).numpy()
    assert kernel.shape == (21, 21)
    line = np.exp(-0.5 * (np.arange(-10, 11) / 6.0) ** 2)
    np.testing.assert_allclose(kernel, np.outer(line, line) / line.sum() ** 2, rtol=1e-4)


@pytest.mark.parametrize(("name", "diameter_px"), [("d3net-code", 1.0), ("syndof", 2.2)])
def test_presets_of_published_codes_sample_their_gaussian(name: str, diameter_px: float) -> None:
    """Sigma 0.3 px at pixel centres, as those have it, though it spreads by 0.09 px."""
    preset = RENDER_PRESETS[name]
    kernel = render_kernel(
        diameter_px, preset.kernel, preset.sigma_per_diameter, 0.5, preset.sharp_below_px
    )
    line = np.exp(-0.5 * (np.arange(-2, 3) / 0.3) ** 2)
    np.testing.assert_allclose(kernel, np.outer(line, line) / line.sum() ** 2, atol=2e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_blend_lies_between_disk_and_gaussian(share: float, ratio: float) -> None:
    """Sum 1, and the variance of the mixture."""
    kernel = blend_kernel(9.0, ratio, share)
    offset = np.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel.sum(axis=0) * offset**2).sum()
    wanted = (1 - share) * 81 / 16 + share * (ratio * 9) ** 2
    assert kernel.sum() == pytest.approx(1)
    assert variance == pytest.approx(wanted, rel=1e-3)
    pure = {0.0: disk_kernel(9.0), 1.0: gaussian_kernel(9 * ratio)}.get(share)
    if pure is not None:
        inner = (len(kernel) - len(pure)) // 2
        np.testing.assert_allclose(
            kernel[inner : len(kernel) - inner, inner : len(kernel) - inner], pure, atol=1e-12
        )


def test_a_blended_wall_is_one_convolution() -> None:
    """The kernel reaches the renderer."""
    rgb, depth_m = scene("wall")
    options = RenderOptions("blend", 0.35, 0.4, layering=Layering("blur", 0.25))
    out = render_defocus(rgb, torch.full_like(depth_m, LENS.depth_m(-5.0)), LENS, options=options)
    expected = convolve(rgb[0, 0].numpy(), blend_kernel(5.0, 0.35, 0.4), mode="nearest")
    np.testing.assert_allclose(out[0, 0].numpy(), expected, atol=1e-5)


def test_without_extension_nothing_shines_through_the_edge() -> None:
    """White wall behind a black card: extended, the card's inner rim lets white through."""
    _, depth_m = scene("card")
    rgb = torch.ones(1, 1, 24, 24, dtype=torch.float64)
    rgb[..., 7:17, 6:15] = 0.0
    with_it = render_defocus(rgb, depth_m, LENS)
    without = render_defocus(rgb, depth_m, LENS, options=RenderOptions(extend=False))
    inner = (..., 12, 6)  # the outermost column of the card
    assert with_it[inner] > without[inner] + 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layering("colour"), "depth or blur"),
        (lambda: Layering("blur", 0.0), "thickness in pixels"),
        (lambda: Layering("blur", 0.1, from_nearest_m=0.0), "expected None"),
        (lambda: RenderOptions("box"), "disk, gaussian, blend"),
        (lambda: RenderOptions(gaussian_share=2.0), "gaussian_share"),
        (lambda: RenderOptions(largest_kernel_px=20), "odd"),
        (lambda: render_options("nikon"), "d3net"),
    ],
)
def test_impossible_options_are_refused(make, message: str) -> None:
    """Errors name what was expected."""
    with pytest.raises(ValueError, match=message):
        make()
