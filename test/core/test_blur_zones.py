"""Dead zone and ambiguous side, by the thin lens; and the lens that goes with the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_ros.core.blur_zones import DEAD_ZONE, TWO_SIDES, UNKNOWN, zones
from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError
from ddfd_ros.core.lens_guard import CameraLens, check_range
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline, Thresholds
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.types import Frame
from ddfd_ros.core.view import ViewOptions, plan_view

LENS = LensConfig(15e-3, 2.8, 2.0, 5.6e-6)  # 14.5 px per dioptre
RANGE = {"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)}


def contract(inputs=("image", "lens")):
    lens_range = RANGE if "lens" in inputs else {}
    return ModelContract(
        1, "table", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, LENS, {}, {}, "",
        inputs=inputs, lens_range=lens_range,
    )  # fmt: skip


class AnyLens:
    """A backend that answers a ramp of depths and notes the lenses it was told."""

    def __init__(self, inputs=("image", "lens")):
        self.contract, self.lenses = contract(inputs), []

    def set_lens(self, lens):
        self.lenses.append(lens)

    def infer(self, image, heads=None, timings_ms=None):
        return {"depth_m": ramp(image.shape[:2])}


def ramp(shape):
    return np.linspace(0.6, 9.0, shape[0] * shape[1], dtype=np.float32).reshape(shape)


def test_zones_are_where_the_thin_lens_puts_them():
    depth_m = ramp((8, 16))
    depth_m[0, 0] = np.nan
    mask = zones(depth_m, LENS, 1.0, (0.5, 10.0))
    a = 15e-3 / 2.8 / (1 / 15e-3 - 1 / 2.0) / 5.6e-6  # by hand
    blur = a * np.abs(1 / depth_m - 0.5)
    far_most = a * (0.5 - 0.1)  # the far side can have no more than that at 10 m
    known = np.isfinite(depth_m)
    np.testing.assert_array_equal((mask == UNKNOWN), ~known)
    np.testing.assert_array_equal((mask & DEAD_ZONE)[known] > 0, blur[known] < 1.0)
    np.testing.assert_array_equal((mask & TWO_SIDES)[known] > 0, blur[known] < far_most)
    assert {0, 2, 3, UNKNOWN} == set(np.unique(mask).tolist())


def test_with_the_focus_behind_everything_no_side_is_ambiguous():
    behind = LensConfig(15e-3, 2.8, 12.0, 5.6e-6)
    assert not (zones(ramp((8, 8)), behind, 0.5, (0.5, 10.0)) & TWO_SIDES).any()


def test_the_pipeline_hands_over_the_lens_of_the_pixels_the_network_sees():
    backend = AnyLens()
    strong = LensConfig(15e-3, 1.0, 2.0, 5.6e-6)  # 40 px per dioptre: more than the model knows
    options = ViewOptions(px_per_dioptre=strong.px_per_dioptre)
    pipeline = Pipeline(backend, view_options=options)
    image = np.zeros((96, 128, 3), np.uint8)
    estimate = pipeline.process(Frame(image, lens=strong), zones_below_px=1.0)
    view = pipeline.view(96, 128)
    assert 26 < backend.lenses[0].px_per_dioptre <= 28  # scaled down into the model's range
    assert view.scale == pytest.approx(backend.lenses[0].px_per_dioptre / strong.px_per_dioptre)
    assert estimate.depth_m.shape == estimate.zones.shape == (96, 128)
    pipeline.process(Frame(image))
    assert backend.lenses[-1] is None  # not known: the model's own
    # A model for one lens is told nothing.
    single = AnyLens(("image",))
    Pipeline(single).process(Frame(image, lens=strong))
    assert single.lenses == []


def test_depth_in_the_dead_zone_is_taken_away_by_option():
    backend = AnyLens()
    weak = LensConfig(15e-3, 5.6, 2.0, 5.6e-6)
    image = np.zeros((32, 32, 3), np.uint8)
    pipeline = Pipeline(backend, Thresholds(dead_zone_px=0.8))
    got = pipeline.process(Frame(image, lens=weak)).depth_m
    depth_m = ramp((32, 32))
    np.testing.assert_array_equal(np.isnan(got), weak.coc_px(depth_m) < 0.8)
    # Without the camera's lens it is the model's own, which blurs more.
    got = pipeline.process(Frame(image)).depth_m
    np.testing.assert_array_equal(np.isnan(got), LENS.coc_px(depth_m) < 0.8)
    with pytest.raises(ContractError, match="dead_zone_px"):
        Thresholds(dead_zone_px=-1.0)


def test_the_pitch_scales_nothing_for_a_model_of_any_lens():
    options = ViewOptions(pixel_pitch_m=2.8e-6, px_per_dioptre=20.0)
    assert plan_view(64, 64, contract(), options).identity
    assert plan_view(64, 64, contract(("image",)), options).scale == pytest.approx(0.5)


def test_the_guard_checks_ranges():
    known = CameraLens(15e-3, 2.8, 2.0, 5.6e-6)
    assert check_range(RANGE, known).problem == ""
    far = check_range(RANGE, CameraLens(15e-3, 2.8, 12.0, 5.6e-6))
    assert "focus_distance_m from 0.7 to 8" in far.problem
    assert "not known" in check_range(RANGE, CameraLens(f_number=2.8)).problem


def test_a_calibration_scales_with_the_image_and_comes_back_from_plain_values():
    measured = LensCalibration(LENS, 640, 480, sigma_per_diameter=0.3)
    # Its point-spread function is 0.3 / 0.25 as wide as a disk.
    half = measured.lens_for(320, 240)
    assert half.px_per_dioptre == pytest.approx(1.2 * LENS.px_per_dioptre / 2)
    assert half.focus_distance_m == LENS.focus_distance_m
    assert LensCalibration.from_dict(measured.to_dict()) == measured
    with pytest.raises(LensCalibrationError, match="640x480"):
        measured.lens_for(640, 360)
    for change in ({"ddfd_lens_calibration": 9}, {"colour": 1}, {"width": 0}, {"lens": {}}):
        with pytest.raises(LensCalibrationError):
            LensCalibration.from_dict(measured.to_dict() | change)
    with pytest.raises(LensCalibrationError, match="ddfd-calibrate"):
        LensCalibration.from_dict({"lens": "nyu-8m"})
