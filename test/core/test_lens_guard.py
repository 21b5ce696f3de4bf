"""The camera against the lens a model was trained for."""

from __future__ import annotations

import math

import pytest

from ddfd_ros.core.lens_guard import CameraLens, check_range, compare_lens
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig

MODEL = LensConfig(15e-3, 2.8, 2.0, 5.6e-6)
SAME = CameraLens(15e-3, 2.8, 2.0, 5.6e-6)


def test_the_same_lens_passes_and_everything_was_compared():
    verdict = compare_lens(MODEL, SAME, 0.1)
    assert set(verdict.checked) == {"focal length", "f-number", "pixel pitch", "focus distance"}
    assert verdict.problem == ""


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (CameraLens(focal_length_m=18e-3), ["focal length 15 mm", "got 18 mm"]),
        (CameraLens(f_number=4.0), ["f-number 2.8", "got 4"]),
        (CameraLens(pixel_pitch_m=2.8e-6), ["pixel pitch 5.6 um", "got 2.8 um"]),
        (CameraLens(focus_distance_m=4.0), ["focus distance 2 m", "got 4 m"]),
        (CameraLens(focus_distance_m=1e6), ["focus distance 2 m", "got inf m"]),
    ],
)
def test_each_difference_is_named_with_the_remedy(camera, words):
    verdict = compare_lens(MODEL, camera, 0.1)
    assert len(verdict.checked) == len(verdict.differences) == 1
    for word in (*words, "depth is wrong", "trained for this lens"):
        assert word in verdict.problem
    assert compare_lens(MODEL, camera, 10.0).problem == ""  # a tolerance of 1000 %


@pytest.mark.parametrize("share", [0.09, 0.11])
def test_the_tolerance_is_a_share_of_the_models_value(share):
    for name in ("focal_length_m", "f_number", "pixel_pitch_m"):
        for sign in (-1, 1):
            camera = CameraLens(**{name: getattr(MODEL, name) * (1 + sign * share)})
            assert bool(compare_lens(MODEL, camera, 0.1).problem) is (share > 0.1)


def test_focus_counts_by_the_blur_it_moves():
    """Far away, metres of focus are tenths of a pixel: 8 and 11 m differ by 0.24 px here."""
    far = LensConfig(15e-3, 2.8, 8.0, 5.6e-6)
    moved_px = abs(far.px_per_dioptre * (1 / 8 - 1 / 11))
    assert moved_px < 0.5
    assert compare_lens(far, CameraLens(focus_distance_m=11.0), 0.01).problem == ""
    assert compare_lens(far, CameraLens(focus_distance_m=5.0), 0.01).problem != ""
    at_infinity = LensConfig(15e-3, 2.8, math.inf, 5.6e-6)
    assert compare_lens(at_infinity, CameraLens(focus_distance_m=1e6), 0.0).problem == ""
    assert compare_lens(at_infinity, CameraLens(focus_distance_m=3.0), 0.1).problem != ""


def test_what_is_not_known_is_not_compared():
    assert compare_lens(None, SAME, 0.1).checked == ()
    assert compare_lens(MODEL, CameraLens(), 0.1).checked == ()


def test_focal_length_follows_from_the_calibration():
    """K[0] is the focal length in pixels: 2678.6 of 5.6 um are 15 mm."""
    focal_px = 15e-3 / 5.6e-6
    assert CameraLens().with_camera(focal_px, 5.6e-6).focal_length_m == pytest.approx(15e-3)
    assert CameraLens(0.02).with_camera(focal_px, 5.6e-6).focal_length_m == 0.02  # given: stays
    assert CameraLens().with_camera(0.0, 5.6e-6).focal_length_m == 0.0
    assert CameraLens().with_camera(focal_px, 0.0).focal_length_m == 0.0


@pytest.mark.parametrize("name", LENS_PRESETS)
def test_a_lens_focused_near_has_its_strength_from_the_calibration(name):
    """A pinhole at the lens's centre sees the image at the sensor's distance, beyond f."""
    lens = LENS_PRESETS[name]
    focal_px = lens.image_distance_m / lens.pixel_pitch_m
    known = CameraLens(0.0, lens.f_number, lens.focus_distance_m, lens.pixel_pitch_m)
    found = known.with_camera(focal_px, lens.pixel_pitch_m).lens()
    assert found.focal_length_m == pytest.approx(lens.focal_length_m)
    assert found.px_per_dioptre == pytest.approx(lens.px_per_dioptre)


def test_a_lens_that_is_known_altogether():
    assert SAME.lens() == MODEL
    assert CameraLens(15e-3, 2.8, 1e6, 5.6e-6).lens().focus_distance_m == math.inf
    assert CameraLens(15e-3, 2.8, 0.0, 5.6e-6).lens() is None
    assert CameraLens(15e-3, 2.8, 0.01, 5.6e-6).lens() is None  # focused inside the lens


def test_a_focus_just_beyond_a_models_range_passes_by_the_blur_it_moves():
    """14.4 px per dioptre: from 100 m to infinity 0.14 px, from 8 m 1.8 px."""
    infinity = CameraLens(15e-3, 2.8, 1e6, 5.6e-6)
    for far_m, fits in ((100.0, True), (8.0, False)):
        lens_range = {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, far_m)}
        assert check_range(lens_range, infinity).beyond is not fits
    near = {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (2.05, 8.0)}
    assert check_range(near, SAME).problem == ""
    weak = {"px_per_dioptre": (15.0, 28.0), "focus_distance_m": (0.7, 100.0)}
    assert "px_per_dioptre from 15 to 28" in check_range(weak, infinity).problem


def test_beyond_a_models_range_is_worse_than_unknown():
    """One it cannot be asked for; of the other it assumes its own."""
    lens_range = {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)}
    assert check_range(lens_range, SAME).beyond is False
    unknown = check_range(lens_range, CameraLens(f_number=2.8))
    assert (unknown.beyond, "depth is wrong" in unknown.problem) == (False, True)
    far = check_range(lens_range, CameraLens(15e-3, 2.8, 12.0, 5.6e-6))
    assert (far.beyond, "no depth is given" in far.problem) == (True, True)
