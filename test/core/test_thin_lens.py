"""The thin lens against published numbers, ray tracing and its own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig


def _traced_blur_px(lens: LensConfig, distance_m: float) -> float:
    """Trace the two marginal rays of a point on the axis to the sensor."""
    f, sensor_m = lens.focal_length_m, 1 / (1 / lens.focal_length_m - 1 / lens.focus_distance_m)
    hits = []
    for height_m in (-f / lens.f_number / 2, f / lens.f_number / 2):
        # From the point through the lens at this height; the lens turns it by -height / f.
        slope = height_m / distance_m - height_m / f
        hits.append(height_m + slope * sensor_m)
    return abs(hits[1] - hits[0]) / lens.pixel_pitch_m


@pytest.mark.parametrize(("distance_m", "blur_px"), [(0.7, 13.4), (1, 7.2), (3, 2.4), (10, 5.8)])
def test_blur_of_the_published_camera(distance_m: float, blur_px: float) -> None:
    """D3-Net's NYUv2 camera focused at 2 m, to 1 %."""
    assert LENS_PRESETS["nyu-2m"].coc_px(distance_m) == pytest.approx(blur_px, rel=0.01)


@pytest.mark.parametrize("name", sorted(LENS_PRESETS))
@pytest.mark.parametrize("distance_m", [0.4, 0.9, 1.7, 3.0, 8.0, 50.0])
def test_agrees_with_traced_rays(name: str, distance_m: float) -> None:
    """Marginal rays spread as the formula says."""
    lens = LENS_PRESETS[name]
    assert lens.coc_px(distance_m) == pytest.approx(_traced_blur_px(lens, distance_m), abs=1e-9)


def test_signed_blur_inverts_to_depth() -> None:
    """Depth to blur and back, on both sides of the focus, for numbers and arrays."""
    lens = LENS_PRESETS["dslr"]
    depth_m = np.geomspace(0.3, 100, 200)
    blur_px = lens.signed_coc_px(depth_m)
    assert (np.diff(blur_px) > 0).all()
    np.testing.assert_allclose(lens.depth_m(blur_px), depth_m, rtol=1e-12)
    assert lens.depth_m(float(lens.signed_coc_px(2.5))) == pytest.approx(2.5)


def test_no_blur_at_focus_and_symmetry_in_dioptres() -> None:
    """Zero at the focus; equal at equal distances in 1/m before and behind."""
    lens = LENS_PRESETS["nyu-4m"]
    assert lens.signed_coc_px(4.0) == pytest.approx(0, abs=1e-12)
    near_m, far_m = 1 / (0.25 + 0.1), 1 / (0.25 - 0.1)
    assert lens.signed_coc_px(near_m) == pytest.approx(-lens.signed_coc_px(far_m))
    assert lens.near_limit_m(lens.coc_px(near_m)) == pytest.approx(near_m)
    assert lens.far_limit_m(lens.coc_px(near_m)) == pytest.approx(far_m)


def test_beyond_infinity_is_infinite() -> None:
    """More far-side blur than infinity has belongs to no distance."""
    lens = LENS_PRESETS["nyu-2m"]
    limit_px = lens.px_per_dioptre / 2.0
    assert lens.depth_m(limit_px + 0.1) == math.inf
    assert lens.far_limit_m(1.01 * limit_px) == math.inf
    np.testing.assert_array_equal(lens.depth_m(np.array([limit_px + 1, 0.0])), [math.inf, 2.0])


def test_hyperfocal_blurs_infinity_by_the_limit() -> None:
    """Focused at H(c), infinity is blurred by c, and half of H too."""
    lens = LENS_PRESETS["dslr"]
    at_hyperfocal = LensConfig(0.035, 2.5, lens.hyperfocal_m(1.5), 36e-6)
    assert at_hyperfocal.coc_px(math.inf) == pytest.approx(1.5)
    assert at_hyperfocal.coc_px(at_hyperfocal.focus_distance_m / 2) == pytest.approx(1.5)


def test_scaled_image_scales_blur() -> None:
    """Half the width, half the pixels of blur."""
    lens = LENS_PRESETS["idfd"]
    assert lens.scaled(0.5).coc_px(1.0) == pytest.approx(lens.coc_px(1.0) / 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 2.8, 2.0, 5e-6), "focal_length_m: expected a positive"),
        ((0.015, -1, 2.0, 5e-6), "f_number"),
        ((0.015, 2.8, 2.0, math.nan), "pixel_pitch_m"),
        ((math.inf, 2.8, 2.0, 5e-6), "focal_length_m"),
        ((15.0, 2.8, 2.0, 5e-6), "both in metres"),
    ],
)
def test_impossible_lenses_are_refused(values: tuple, message: str) -> None:
    """The field is named; millimetres are guessed at."""
    with pytest.raises(ValueError, match=message):
        LensConfig(*values)


def test_a_lens_that_spreads_as_another_point_spread_function_does() -> None:
    """With k = 1/2 it has disks of twice the diameter; a disk's own k changes nothing."""
    lens = LENS_PRESETS["nyu-2m"]
    assert lens.spread_as(0.5).coc_px(0.9) == pytest.approx(2 * lens.coc_px(0.9))
    assert lens.spread_as(0.5).focus_distance_m == lens.focus_distance_m
    assert lens.spread_as(0.25) == lens
    with pytest.raises(
        ValueError, match=r"sigma_per_diameter: expected a positive number .*got 0"
    ):
        lens.spread_as(0)
