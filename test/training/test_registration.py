"""Registration of a sharp image to a blurred one, on warps whose truth is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ddfd_training.registration import match_exposure, register


def texture(seed: int = 0, height: int = 260, width: int = 340) -> np.ndarray:
    """Structure at every scale, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(7):
        cells = rng.normal(size=(2 + 2**octave, 3 + 2**octave, 3)).astype(np.float32)
        image += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) / 1.6**octave
    image = 128 + 45 * image / image.std()
    return np.clip(image, 0, 255).astype(np.uint8)


def disk(radius_px: float) -> np.ndarray:
    half = math.ceil(radius_px)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = (x**2 + y**2 <= radius_px**2).astype(np.float32)
    return kernel / kernel.sum()


def corner_error_px(found: np.ndarray, truth: np.ndarray, height: int, width: int) -> float:
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
    return float(np.abs(corners @ (found - truth).T).max())


@pytest.mark.parametrize(
    ("scale", "angle_deg", "shift", "radius_px"),
    [
        (1.0, 0.0, (0.0, 0.0), 3.0),
        (1.0, 0.0, (4.6, -1.3), 4.0),
        (1.004, 0.2, (-3.2, 2.4), 4.0),
        (0.997, -0.1, (11.0, 6.5), 2.0),
    ],
)
def test_recovers_a_known_warp_through_blur_and_exposure(
    scale: float, angle_deg: float, shift: tuple[float, float], radius_px: float
):
    big = texture()
    c, s = scale * math.cos(math.radians(angle_deg)), scale * math.sin(math.radians(angle_deg))
    truth = np.array([[c, -s, shift[0]], [s, c, shift[1]]])
    # fixed(x) = moving(truth x), then blurred and a little darker; cut the invented borders away
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fixed = cv2.warpAffine(big, truth, big.shape[1::-1], flags=flags)
    fixed = cv2.filter2D(fixed, -1, disk(radius_px))
    fixed = np.clip(0.92 * fixed + 6.0, 0, 255).astype(np.uint8)
    box = np.s_[20:-20, 20:-20]
    result = register(big[box], fixed[box])
    # in the cropped frame: x_moving + 20 = R (x_fixed + 20) + t
    expected = truth.copy()
    expected[:, 2] += truth[:, :2] @ [20, 20] - [20, 20]
    assert result.converged
    assert corner_error_px(result.matrix, expected, 220, 300) < 0.15
    assert result.residual_px < 0.15
    assert result.correlation > 0.95


def test_warp_undoes_the_shift_inside_the_overlap():
    image = texture(1)
    fixed, moving = image[10:-10, 10:-10], image[7:-13, 14:-6]
    result = register(moving, fixed)
    assert result.shift_px == pytest.approx((-4.0, 3.0), abs=0.05)
    rows, columns = result.overlap(*fixed.shape[:2])
    assert rows.start == pytest.approx(6, abs=1)
    difference = result.warp(moving)[rows, columns].astype(float) - fixed[rows, columns]
    assert np.abs(difference).mean() < 1.0
    before = np.abs(moving.astype(float) - fixed).mean()
    assert before > 5.0


def test_without_texture_it_says_so_and_changes_nothing():
    flat = np.full((80, 100, 3), 120, np.uint8)
    result = register(flat, flat)
    assert not result.converged
    assert np.array_equal(result.warp(flat), flat)
    assert math.isnan(result.residual_px)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        register(np.zeros((5, 5, 3), np.uint8), np.zeros((6, 5, 3), np.uint8))


def test_exposure_is_matched_through_blur():
    image = np.clip(texture(2), 40, 200)
    other = cv2.filter2D(image, -1, disk(4.0))
    other = np.rint(0.85 * other + 12.0).astype(np.uint8)
    match = match_exposure(image, other)
    assert match.gain == pytest.approx(0.85, abs=0.01)
    assert match.offset == pytest.approx(12.0, abs=1.5)
    assert np.abs(match.apply(image).astype(float).mean() - other.mean()) < 0.5


def test_a_flat_image_keeps_its_exposure():
    flat = np.full((40, 40, 3), 90, np.uint8)
    match = match_exposure(flat, flat + 5)
    assert (match.gain, match.offset) == (1.0, 0.0)
