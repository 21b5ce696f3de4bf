"""Noise, compression and SYNDOF's random lens, by their statistics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_training.sensor import Sensor
from ddfd_training.syndof import SyndofRule


@pytest.mark.parametrize("level", [40, 200])
def test_noise_has_the_variance_asked_for(level: int) -> None:
    """Read noise plus shot noise, whose variance is proportional to brightness."""
    grey = np.full((200, 200, 3), float(level))
    noisy = Sensor(read_noise=2.0, shot_noise=6.0).apply(grey, np.random.default_rng(0))
    assert noisy.dtype == np.uint8
    variance = 4 + 36 * level / 255 + 1 / 12  # the last from rounding
    assert noisy.mean() == pytest.approx(level, abs=0.1)
    assert noisy.var() == pytest.approx(variance, rel=0.03)


def test_a_perfect_camera_only_rounds() -> None:
    """And equal seeds give equal pictures."""
    image = np.random.default_rng(1).uniform(0, 255, (9, 8, 3))
    assert np.array_equal(Sensor().apply(image, np.random.default_rng(0)), np.rint(image))
    pictures = [Sensor(3.0).apply(image, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*pictures)


def test_jpeg_is_that_of_its_quality_and_keeps_colours_in_place() -> None:
    """Red stays red; a lower quality loses more."""
    rng = np.random.default_rng(2)
    smooth = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (64, 64))
    loss = [
        np.abs(Sensor(jpeg_quality=q).apply(smooth, rng).astype(int) - smooth).mean()
        for q in (95, 50, 10)
    ]
    assert 0 < loss[0] < loss[1] < loss[2]
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    back = Sensor(jpeg_quality=90).apply(red, rng)
    assert back[..., 0].min() > 240
    assert back[..., 2].max() < 10


def test_impossible_sensors_are_refused() -> None:
    """With the values."""
    with pytest.raises(ValueError, match="jpeg_quality from 0 to 100"):
        Sensor(jpeg_quality=101)
    with pytest.raises(ValueError, match="noise from 0"):
        Sensor(read_noise=-1)


def test_syndof_lens_blurs_at_most_29_pixels_and_focuses_on_the_scene() -> None:
    """Focal lengths come in the stated shares."""
    rng = np.random.default_rng(0)
    depth_m = np.round(rng.uniform(0.8, 9.0, (30, 40)), 2)
    depth_m[0, 0] = np.nan
    lenses = [SyndofRule().draw(depth_m, rng) for _ in range(900)]
    known = depth_m[np.isfinite(depth_m)]
    for lens in lenses[:50]:
        assert lens.coc_px(known).max() == pytest.approx(29.0)
        assert np.abs(known - lens.focus_distance_m).min() == 0
        assert lens.pixel_pitch_m == pytest.approx(0.036 / 40)
    lengths = np.array([lens.focal_length_m for lens in lenses])
    shares = [np.mean(lengths == f) for f in (0.05, 0.07, 0.085)]
    assert shares == pytest.approx([1 / 9, 4 / 9, 4 / 9], abs=0.05)
    near = np.median([lens.focus_distance_m for lens in lenses])
    even = [SyndofRule(focus="uniform").draw(depth_m, rng).focus_distance_m for _ in range(300)]
    assert near < np.median(even) - 1.0


def test_syndof_refuses_scenes_it_cannot_focus_on() -> None:
    """One depth, or all closer than five focal lengths."""
    rng = np.random.default_rng(0)
    with pytest.raises(DatasetError, match="several depths"):
        SyndofRule().draw(np.full((4, 4), 2.0), rng)
    with pytest.raises(DatasetError, match="beyond"):
        SyndofRule().draw(rng.uniform(0.05, 0.2, (4, 4)), rng)
    with pytest.raises(ValueError, match="near or uniform"):
        SyndofRule(focus="far").draw(rng.uniform(1, 2, (4, 4)), rng)
