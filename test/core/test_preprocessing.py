"""Padding against numpy.pad, cameras against projected points."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_ros.core.preprocessing import (
    Intrinsics,
    crop_intrinsics,
    crop_outputs,
    pad_to_multiple,
    pad_to_size,
    scale_intrinsics,
)

RNG = np.random.default_rng(4)
CAMERA = Intrinsics(
    width=640,
    height=480,
    k=(500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0),
    p=(500.0, 0.0, 319.5, -60.0, 0.0, 510.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0),
    roi=(64, 32, 240, 320),
)


@pytest.mark.parametrize("shape", [(33, 50, 3), (64, 40, 3), (95, 97), (32, 64, 3)])
def test_padding_is_numpys(shape):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    padded, crop = pad_to_multiple(image, 32)
    amounts = [(0, -shape[0] % 32), (0, -shape[1] % 32)] + [(0, 0)] * (len(shape) - 2)
    np.testing.assert_array_equal(padded, np.pad(image, amounts, mode="reflect"))
    np.testing.assert_array_equal(padded[crop], image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 16, 3), (16, 3, 3)])
def test_short_sides_repeat_their_edge(shape):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    padded, crop = pad_to_size(image, 32, 32)
    expected = image
    for axis in (0, 1):
        amounts = [(0, 0)] * 3
        amounts[axis] = (0, 32 - shape[axis])
        mode = "reflect" if 32 - shape[axis] < shape[axis] else "edge"
        expected = np.pad(expected, amounts, mode=mode)
    np.testing.assert_array_equal(padded, expected)
    np.testing.assert_array_equal(padded[crop], image)


def test_nothing_to_pad_copies_nothing():
    image = np.zeros((64, 96, 3), np.uint8)
    assert pad_to_multiple(image, 32)[0] is image


def test_too_large():
    with pytest.raises(ValueError, match="at most 64x32, got 65x32"):
        pad_to_size(np.zeros((32, 65, 3), np.uint8), 32, 64)


def test_crop_outputs_are_views():
    answers = {"depth_m": np.zeros((64, 64)), "sharp_rgb": np.zeros((64, 64, 3))}
    cropped = crop_outputs(answers, (slice(0, 40), slice(0, 50)))
    assert cropped["sharp_rgb"].shape == (40, 50, 3)
    assert np.shares_memory(cropped["depth_m"], answers["depth_m"])


def project(camera, points_m):
    """Pixels of points by K and by P (the second camera of a stereo pair, in general)."""
    k, p = np.reshape(camera.k, (3, 3)), np.reshape(camera.p, (3, 4))
    by_k = points_m @ k.T
    by_p = np.hstack([points_m, np.ones((len(points_m), 1))]) @ p.T
    return by_k[:, :2] / by_k[:, 2:], by_p[:, :2] / by_p[:, 2:]


POINTS_M = RNG.uniform([-1, -1, 1], [1, 1, 5], (20, 3))


@pytest.mark.parametrize("scale", [(0.5, 0.5), (2.0, 2.0), (0.5, 0.25)])
def test_scaled_camera_sees_scaled_pixels(scale):
    """A pixel covers [u - 0.5, u + 0.5]: the image's border scales, not the pixels' centres."""
    scaled = scale_intrinsics(CAMERA, *scale)
    for before, after in zip(project(CAMERA, POINTS_M), project(scaled, POINTS_M), strict=True):
        np.testing.assert_allclose(after + 0.5, (before + 0.5) * scale)
    assert (scaled.width, scaled.height) == (640 * scale[0], 480 * scale[1])
    x, y, height, width = CAMERA.roi
    assert scaled.roi == (x * scale[0], y * scale[1], height * scale[1], width * scale[0])


def test_scaling_agrees_with_opencvs_resize():
    cv2 = pytest.importorskip("cv2")
    image = np.zeros((48, 64), np.float32)
    image[20:24, 40:44] = 1.0  # a blob whose centre of mass is known
    small = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
    camera = Intrinsics(64, 48, (1, 0, 41.5, 0, 1, 21.5, 0, 0, 1), (0,) * 12)  # aims at the blob
    scaled = scale_intrinsics(camera, 0.5, 0.5)
    y, x = np.mgrid[:24, :32]
    centre = (small * x).sum() / small.sum(), (small * y).sum() / small.sum()
    np.testing.assert_allclose(centre, (scaled.k[2], scaled.k[5]), atol=1e-5)


def test_scaling_back_is_the_same_camera():
    back = scale_intrinsics(scale_intrinsics(CAMERA, 0.5, 0.5), 2.0, 2.0)
    np.testing.assert_allclose(back.k, CAMERA.k)
    np.testing.assert_allclose(back.p, CAMERA.p)


def test_cropped_camera_sees_shifted_pixels():
    cropped = crop_intrinsics(CAMERA, 100, 50, 320, 240)
    for before, after in zip(project(CAMERA, POINTS_M), project(cropped, POINTS_M), strict=True):
        np.testing.assert_allclose(after, before - [100, 50])
    assert (cropped.width, cropped.height, cropped.roi) == (320, 240, (0, 0, 0, 0))
    assert cropped.p[3] == CAMERA.p[3]  # the stereo baseline knows no principal point


@pytest.mark.parametrize(
    ("fx", "calibrated"), [(500.0, True), (0.0, False), (float("nan"), False), (-1.0, False)]
)
def test_uncalibrated_cameras_are_recognised(fx, calibrated):
    camera = Intrinsics(640, 480, (fx, 0, 320, 0, 500, 240, 0, 0, 1), (0,) * 12)
    assert camera.calibrated is calibrated
