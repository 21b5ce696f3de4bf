"""The renderer against an independent pixel loop, and against physics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.optics import JUMP_PX, render_defocus
from ddfd_training.psf import disk_kernel, gaussian_kernel

LENS = LENS_PRESETS["nyu-8m"]


def _tensors(rgb: np.ndarray, depth_m: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None], torch.from_numpy(depth_m)[None, None]


def _render(rgb: np.ndarray, depth_m: np.ndarray, lens: LensConfig, **options) -> np.ndarray:
    image = render_defocus(*_tensors(rgb, depth_m), lens, **options)
    return image[0].permute(1, 2, 0).numpy()


def _blur_px(lens: LensConfig, layer: int, step_m: float) -> float:
    """Signed blur of a layer's middle, written out from the thin lens equation."""
    distance_m = (layer + 0.5) * step_m
    sensor_m = (
        lens.focal_length_m * lens.focus_distance_m / (lens.focus_distance_m - lens.focal_length_m)
    )
    aperture_m = lens.focal_length_m / lens.f_number
    spread_m = aperture_m * sensor_m * (1 / lens.focus_distance_m - 1 / distance_m)
    return spread_m / lens.pixel_pitch_m


def _hidden_slow(layers: np.ndarray, rgb: np.ndarray, lens: LensConfig, step_m: float, reach: int):
    """What continues behind each pixel, by looking at its eight neighbours again and again."""
    height, width = layers.shape
    own = np.vectorize(lambda k: np.float32(_blur_px(lens, k, step_m)))(layers)
    seen, layer, colour = own.copy(), layers.copy(), rgb.copy()
    hidden = np.zeros_like(layers, dtype=bool)
    for _ in range(reach):
        before = seen.copy(), layer.copy(), colour.copy()
        for y in range(height):
            for x in range(width):
                if hidden[y, x]:
                    continue
                best = (y, x)
                for v in range(max(y - 1, 0), min(y + 2, height)):
                    for u in range(max(x - 1, 0), min(x + 2, width)):
                        if before[0][v, u] > before[0][best]:
                            best = (v, u)
                if before[0][best] - own[y, x] > JUMP_PX:
                    seen[y, x], layer[y, x] = before[0][best], before[1][best]
                    colour[y, x] = before[2][best]
                    hidden[y, x] = True
    return np.where(hidden, layer, -1), colour


def _render_slow(rgb: np.ndarray, depth_m: np.ndarray, lens: LensConfig, step_m: float):
    """For each pixel and layer, near to far: collect what the layer's disk throws on the pixel."""
    layers = np.floor(depth_m / np.float32(step_m)).astype(int)
    kernels = {
        k: disk_kernel(round(abs(_blur_px(lens, k, step_m)) * 64) / 64) for k in set(layers.flat)
    }
    margin = max(len(kernel) for kernel in kernels.values()) // 2
    layers = np.pad(layers, margin, mode="edge")
    rgb = np.pad(rgb, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    behind, behind_rgb = _hidden_slow(layers, rgb, lens, step_m, margin)
    height, width = layers.shape
    out = np.zeros_like(rgb)
    for y in range(margin, height - margin):
        for x in range(margin, width - margin):
            clear, colour, weight = 1.0, np.zeros(3), 0.0
            for k in sorted(kernels):
                half = len(kernels[k]) // 2
                covered, light = 0.0, np.zeros(3)
                for v in range(-half, half + 1):
                    for u in range(-half, half + 1):
                        share = kernels[k][half + v, half + u]
                        if layers[y + v, x + u] == k:
                            covered, light = covered + share, light + share * rgb[y + v, x + u]
                        elif behind[y + v, x + u] == k:
                            covered += share
                            light = light + share * behind_rgb[y + v, x + u]
                colour, weight = colour + clear * light, weight + clear * covered
                clear *= 1 - covered
            out[y, x] = colour / weight
    return out[margin:-margin, margin:-margin]


@pytest.mark.parametrize("lens_name", ["nyu-8m", "nyu-2m"])
def test_agrees_with_a_slow_pixel_loop(lens_name: str) -> None:
    """A slanted floor with a card in front of it: layers, occlusion, both sides of the focus."""
    lens, step_m = LENS_PRESETS[lens_name], 0.25
    random = np.random.default_rng(3)
    rgb = random.random((14, 16, 3), dtype=np.float32)
    depth_m = np.repeat(np.linspace(4, 1.6, 14, dtype=np.float32)[:, None], 16, axis=1)
    depth_m[3:10, 5:9] = 1.3
    fast = _render(rgb, depth_m, lens, layer_step_m=step_m)
    slow = _render_slow(rgb, depth_m, lens, step_m)
    np.testing.assert_allclose(fast, slow, atol=2e-5)


def test_no_blur_at_focus() -> None:
    """Everything in the focused layer comes out as it went in."""
    rgb = np.random.default_rng(0).random((20, 24, 3), dtype=np.float32)
    step_m = 0.01
    lens = LensConfig(15e-3, 2.8, 2.005, 5.6e-6)  # the middle of layer 200
    depth_m = np.full((20, 24), 2.004, dtype=np.float32)
    np.testing.assert_allclose(_render(rgb, depth_m, lens, layer_step_m=step_m), rgb, atol=1e-6)


def test_flat_image_keeps_its_energy() -> None:
    """A surface of one colour stays that colour, whatever its shape (to 1e-3, issue's bar)."""
    random = np.random.default_rng(1)
    depth_m = (0.7 + 6 * random.random((40, 50))).astype(np.float32)
    rgb = np.full((40, 50, 3), 0.37, dtype=np.float32)
    np.testing.assert_allclose(_render(rgb, depth_m, LENS), rgb, atol=1e-3)


@pytest.mark.parametrize("kernel", ["disk", "gaussian"])
def test_single_depth_equals_plain_convolution(kernel: str) -> None:
    """One flat wall is blurred by one kernel, mean and all."""
    random = np.random.default_rng(2)
    rgb = random.random((48, 48, 3), dtype=np.float32)
    depth_m = np.full((48, 48), 1.0, dtype=np.float32)
    out = _render(rgb, depth_m, LENS, kernel=kernel)
    layer = math.floor(np.float32(1.0) / (10 / 255))
    blur = round(abs(_blur_px(LENS, layer, 10 / 255)) * 64) / 64
    weights = disk_kernel(blur) if kernel == "disk" else gaussian_kernel(0.3 * blur)
    half = len(weights) // 2
    y, x = 24, 23
    window = rgb[y - half : y + half + 1, x - half : x + half + 1]
    np.testing.assert_allclose(out[y, x], np.einsum("vu,vuc->c", weights, window), atol=1e-5)


def test_edge_in_front_has_no_dark_halo() -> None:
    """A bright card before a bright wall: nowhere darker than either."""
    rgb = np.full((60, 60, 3), 0.8, dtype=np.float32)
    rgb[20:40, 20:40] = 0.6
    depth_m = np.full((60, 60), 4.0, dtype=np.float32)
    depth_m[20:40, 20:40] = 0.8
    out = _render(rgb, depth_m, LENS)
    assert out.min() >= 0.6 - 1e-4
    assert out.max() <= 0.8 + 1e-4
    # The card's edge is mixed half and half where it was, and the wall stays sharp far from it.
    assert out[30, 19:21].mean() == pytest.approx(0.7, abs=0.02)


def test_sharp_edge_behind_stays_sharp_beside_a_blurred_one() -> None:
    """A focused pattern keeps its contrast next to a near card."""
    rgb = np.zeros((40, 60, 3), dtype=np.float32)
    rgb[:, ::2] = 1.0
    depth_m = np.full((40, 60), 8.0, dtype=np.float32)
    depth_m[:, :20] = 1.0
    out = _render(rgb, depth_m, LENS)
    contrast = np.ptp(out[:, 30:50], axis=1).mean()
    assert contrast > 0.95
    assert np.ptp(out[20, 4:14, 0]) < 0.2


def test_differentiable_in_the_image() -> None:
    """The gradient in the sharp image is that of a linear operator."""
    rgb = torch.rand(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    depth_m = torch.full((1, 1, 7, 7), 3.0, dtype=torch.float64)
    depth_m[..., :3] = 1.8
    assert torch.autograd.gradcheck(lambda x: render_defocus(x, depth_m, LENS), (rgb,))


def variance_of(kernel: np.ndarray) -> float:
    """Along an axis, of a kernel that is positive, symmetric, and sums to one."""
    offset = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    return float((kernel.sum(axis=0) * offset**2).sum())


@pytest.mark.parametrize("diameter_px", [0.0, 0.3, 0.8, 1.0, 1.4, 2.0, 3.3, 7.0, 13.4, 27.0])
def test_disk_has_the_variance_of_a_disk(diameter_px: float) -> None:
    """Second moment d^2/16 an axis."""
    assert variance_of(disk_kernel(diameter_px)) == pytest.approx(diameter_px**2 / 16, abs=2e-3)


@pytest.mark.parametrize("sigma_px", [0.0, 0.004, 0.1, 0.3, 0.45, 0.6, 1.0, 2.4, 6.0, 300.0])
def test_gaussian_has_the_variance_of_a_gaussian(sigma_px: float) -> None:
    """Second moment sigma^2 an axis, also below a pixel; both axes alike."""
    kernel = gaussian_kernel(sigma_px)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    assert variance_of(kernel) == pytest.approx(sigma_px**2, rel=1e-6)


def test_wide_disk_is_uniform_inside_and_empty_outside() -> None:
    """Away from its rim a wide disk weighs every pixel alike."""
    kernel = disk_kernel(21.0)
    half = len(kernel) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    inside = kernel[np.hypot(x, y) < 9.2]
    assert np.ptp(inside) / inside.mean() < 1e-6
    assert kernel[np.hypot(x, y) > 11.3].max(initial=0) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_m": torch.zeros(1, 1, 8, 8)}, "positive and finite"),
        ({"depth_m": torch.ones(1, 8, 8)}, r"\[N,1,H,W\]"),
        ({"kernel": "box"}, "expected one of disk, gaussian"),
        ({"layer_step_m": 0.0}, "positive thickness"),
    ],
)
def test_refuses_nonsense(change: dict, message: str) -> None:
    """Errors name what was expected."""
    arguments = {
        "sharp_rgb": torch.ones(1, 3, 8, 8),
        "depth_m": torch.ones(1, 1, 8, 8),
        "lens": LENS,
    }
    with pytest.raises(ValueError, match=message):
        render_defocus(**{**arguments, **change})
