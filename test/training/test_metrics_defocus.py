"""Errors of defocus maps, against scikit-image's and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import mean_squared_error

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.evaluate import evaluate
from ddfd_training.evaluate_items import Item
from ddfd_training.metrics_defocus import DefocusTable, defocus_metrics

LENS = LENS_PRESETS["nyu-2m"]


def test_errors_are_of_diameters_without_sign():
    random = np.random.default_rng(0)
    pred, target = random.uniform(-5, 5, (2, 8, 9))
    found = defocus_metrics(pred, target)
    assert found["mse_px2"] == pytest.approx(mean_squared_error(abs(target), abs(pred)))
    assert found["mae_px"] == pytest.approx(np.mean(abs(abs(target) - abs(pred))))
    assert defocus_metrics(-target, target)["mae_px"] == 0
    target[:, :4] = np.nan
    part = defocus_metrics(pred, target)
    assert part == pytest.approx(defocus_metrics(pred[:, 4:], target[:, 4:]))
    assert np.isnan(defocus_metrics(pred, target * np.nan)["mae_px"])
    with pytest.raises(ValueError, match="expected one shape"):
        defocus_metrics(pred, target.T)


def test_truth_comes_from_the_lens_and_pixels_count_alike():
    table = DefocusTable()
    assert table.result() is None
    depth_m = np.full((4, 4), 1.0)
    table.add(np.zeros((4, 4)), depth_m, LENS)
    half = np.full((4, 4), np.nan)
    half[:2] = 2.0  # the plane in focus
    table.add(np.ones((4, 4)), half, LENS)
    result = table.result()
    at_1m = 14.4 * (1 - 0.5)  # 14.4 px per dioptre, focused at 2 m
    assert result["mean_over_images"]["mae_px"] == pytest.approx((at_1m + 1) / 2, rel=0.01)
    assert result["over_pixels"]["mae_px"] == pytest.approx((2 * at_1m + 1) / 3, rel=0.01)
    assert result["over_pixels"]["bias_px"] == pytest.approx((-2 * at_1m + 1) / 3, rel=0.01)


def test_the_evaluation_reports_it_where_the_lens_is_known():
    class Sharp:
        def infer(self, image, heads=None):
            return {"defocus_px": np.zeros(image.shape[:2], np.float32)}

    image, depth_m = np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 1.0, np.float32)
    known = evaluate(Sharp(), [Item("a", image, depth_m, lens=LENS)])
    assert known["defocus"]["mean_over_images"]["mae_px"] == pytest.approx(LENS.coc_px(1.0))
    assert "defocus" not in evaluate(Sharp(), [Item("a", image, depth_m)])
