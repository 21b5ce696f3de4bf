from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline, Thresholds
from ddfd_ros.core.sharpness import missing_px, soften
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.core.types import Frame
from ddfd_ros.core.view import ViewOptions

NAN, INF = float("nan"), float("inf")
DEPTH = np.array([[0.2, 1.0, 2.0], [3.0, 8.0, INF], [NAN, 4.0, 5.0]], np.float32)
SIGMA = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.1], [0.1, NAN, 0.05]], np.float32)


class Answers:
    """A backend that answers the tables above and notes what it was asked for."""

    def __init__(self, outputs=("depth_m", "sigma_m", "sharp_rgb")):
        self.contract = ModelContract(
            1, "table", {}, 1, None, None, 32, outputs, 0.5, 10.0, None, {}, {}, ""
        )
        self.asked = []
        self.tables = {
            "depth_m": DEPTH.copy(),
            "sigma_m": SIGMA.copy(),
            "sharp_rgb": np.zeros((3, 3, 3), np.uint8),
        }

    def infer(self, image, heads=None, timings_ms=None):
        self.asked.append(set(heads))
        timings_ms["pad"], timings_ms["infer"] = 0.25, 12.5
        return {name: self.tables[name] for name in self.contract.outputs if name in heads}


FRAME = Frame(np.zeros((3, 3, 3), np.uint8))


def test_without_thresholds_only_what_is_not_finite_is_unknown():
    backend = Answers()
    estimate = Pipeline(backend).process(FRAME)
    expected = DEPTH.copy()
    expected[1, 2] = NAN
    np.testing.assert_array_equal(estimate.depth_m, expected)
    np.testing.assert_array_equal(estimate.sigma_m, SIGMA)
    np.testing.assert_array_equal(
        backend.tables["depth_m"], DEPTH
    )  # the backend's array is its own


@pytest.mark.parametrize(
    ("thresholds", "known"),
    [
        (Thresholds(max_sigma_m=0.3), [0.2, 1.0, 2.0, 5.0]),  # an unknown sigma is not believed
        (Thresholds(min_depth_m=1.0), [1.0, 2.0, 3.0, 8.0, 4.0, 5.0]),
        (Thresholds(max_depth_m=4.0), [0.2, 1.0, 2.0, 3.0, 4.0]),
        (Thresholds(0.4, 0.5, 2.5), [1.0, 2.0]),
    ],
)
def test_thresholds_leave_only(thresholds, known):
    depth_m = Pipeline(Answers(), thresholds).process(FRAME).depth_m
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m[~np.isnan(depth_m)], known)


def test_the_dead_zone_takes_no_side_away():
    """A lens that reaches to infinity: what is marked too near or too far is not in its zone."""
    backend, lens = Answers(), LENS_PRESETS["nyu-8m"]
    backend.contract = replace(backend.contract, lens=lens)
    limits = Thresholds(min_depth_m=1.5, max_depth_m=2.5, mark_range=True, dead_zone_px=2.0)
    assert lens.coc_px(4.0) < 2.0 < lens.coc_px(3.0)
    assert lens.coc_px(INF) < 2.0
    depth_m = Pipeline(backend, limits).process(FRAME).depth_m
    expected = [[-INF, -INF, 2.0], [INF, NAN, NAN], [NAN, NAN, NAN]]  # from 4 m: in the zone
    np.testing.assert_array_equal(depth_m, expected)


def test_thresholds_change_between_frames():
    pipeline = Pipeline(Answers())
    assert np.isfinite(pipeline.process(FRAME).depth_m).sum() == 7
    pipeline.thresholds = Thresholds(max_sigma_m=0.06)
    assert np.isfinite(pipeline.process(FRAME).depth_m).sum() == 1


def test_sigma_is_computed_for_the_threshold_but_kept_back():
    backend = Answers()
    pipeline = Pipeline(backend)
    pipeline.process(FRAME, ["depth_m"])
    assert backend.asked[-1] == {"depth_m"}
    pipeline.thresholds = Thresholds(max_sigma_m=0.3)
    estimate = pipeline.process(FRAME, ["depth_m"])
    assert backend.asked[-1] == {"depth_m", "sigma_m"}
    assert estimate.sigma_m is None
    assert np.isfinite(estimate.depth_m).sum() == 4
    pipeline.process(FRAME, ["sharp_rgb"])
    assert backend.asked[-1] == {"sharp_rgb"}


def test_timings_in_order():
    timings = Pipeline(Answers()).process(FRAME).timings_ms
    assert list(timings) == ["pad", "infer", "postprocess"]
    assert timings["infer"] == 12.5
    assert 0 < timings["postprocess"] < 1000


@pytest.mark.parametrize(
    "values",
    [{"max_sigma_m": 0.0}, {"max_sigma_m": NAN}, {"min_depth_m": -1.0}, {"max_depth_m": 0.0}],
)
def test_senseless_thresholds_are_refused(values):
    with pytest.raises(ContractError, match="expected"):
        Thresholds(**values)


def test_sigma_threshold_needs_a_model_with_sigma():
    pipeline = Pipeline(Answers(("depth_m",)))
    with pytest.raises(ContractError, match="estimates no sigma_m"):
        pipeline.thresholds = Thresholds(max_sigma_m=0.3)
    assert pipeline.thresholds == Thresholds()


class Echo:
    """Answers the image itself as all-in-focus, and keeps what it was shown."""

    def __init__(self, sigma_0_px):
        self.contract = ModelContract(
            1, "echo", {}, 1, None, None, 1, ("sharp_rgb",), 0.5, 10.0, None, {}, {}, "",
            sigma_0_px=sigma_0_px,
        )  # fmt: skip
        self.shown = []

    def infer(self, image, heads=None, timings_ms=None):
        self.shown.append(image)
        return {"sharp_rgb": image}


def test_a_camera_sharper_than_the_model_is_softened_and_gets_its_detail_back():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    backend = Echo(0.7)
    estimate = Pipeline(backend, None, ViewOptions(sigma_0_px=0.4)).process(Frame(image))
    assert missing_px(0.7, 0.4) == pytest.approx((0.49 - 0.16) ** 0.5)
    np.testing.assert_array_equal(backend.shown[0], soften(image, missing_px(0.7, 0.4)))
    np.testing.assert_array_equal(estimate.sharp_rgb, image)


@pytest.mark.parametrize(("model_px", "camera_px"), [(0.0, 0.4), (0.7, 0.0), (0.7, 0.9)])
def test_what_is_unknown_or_soft_enough_is_shown_as_it_is(model_px, camera_px):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    backend = Echo(model_px)
    Pipeline(backend, None, ViewOptions(sigma_0_px=camera_px)).process(Frame(image))
    assert backend.shown[0] is image
