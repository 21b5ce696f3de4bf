"""Cameras sharper in focus than a model's training pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddfd_ros.core.sharpness import missing_px, sigma_at_scale, soften, with_detail

cv2 = pytest.importorskip("cv2")


def edge(sigma_px, size=64):
    """A step that is spread by a Gaussian, uint8 ``[size, size, 3]``."""
    x = np.arange(size) - size / 2 + 0.5
    values = [0.5 * (1 + math.erf(v / (sigma_px * math.sqrt(2)))) for v in x]
    row = np.rint(20 + 200 * np.array(values)).astype(np.uint8)
    return np.repeat(np.repeat(row[None, :, None], size, axis=0), 3, axis=2)


def spread(image):
    """Standard deviation of the spread of the step in the middle row."""
    slope = np.diff(image[image.shape[0] // 2, :, 0].astype(float))
    x = np.arange(len(slope))
    mean = (slope * x).sum() / slope.sum()
    return math.sqrt((slope * (x - mean) ** 2).sum() / slope.sum())


def test_a_softened_camera_is_as_soft_as_the_model_expects():
    assert missing_px(1.0, 0.6) == pytest.approx(0.8)
    sharp, expected = edge(0.6), edge(1.0)
    assert spread(soften(sharp, missing_px(1.0, 0.6))) == pytest.approx(spread(expected), rel=0.03)


@pytest.mark.parametrize(
    ("model_px", "camera_px"), [(0.0, 0.4), (0.7, 0.0), (0.7, 0.7), (0.7, 1.2), (0.7, 0.69)]
)
def test_nothing_is_softened_that_is_unknown_or_soft_enough(model_px, camera_px):
    assert missing_px(model_px, camera_px) == 0.0


def test_the_spread_of_a_smaller_picture_is_what_is_measured_on_it():
    picture = edge(2.0, 128)
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    assert spread(small) == pytest.approx(math.hypot(sigma_at_scale(2.0, 0.25), 0.28), rel=0.05)
    assert sigma_at_scale(0.5, 1.0) == 0.5
    assert sigma_at_scale(0.5, 2.0) == 1.0


def test_detail_comes_back_and_stays_in_range():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (16, 16, 3), np.uint8)
    soft = soften(image, 1.0)
    np.testing.assert_array_equal(with_detail(soft, image, soft), image)
    assert with_detail(np.full_like(image, 250), image, soft).dtype == np.uint8
