"""The benchmark of how sharp a model expects its images, with one that measures blur itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.in_focus import bias_px, rooms, without_bias_px
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.lens_draws import lens_of

LENS = (14.0, 2.0)
FAR_M = 6.0
EXPECTS_PX = 0.6


class EdgeReader:
    """Answers one depth: from the spread of a vertical step, less what it expects in focus."""

    contract = ModelContract(
        1, "edge", {}, 1, None, None, 1, ("depth_m",), 0.5, 50.0, None, {}, {}, ""
    )

    def set_lens(self, lens: LensConfig) -> None:
        self.lens = lens

    def infer(self, image, heads=None):
        slope = np.diff(image.astype(float).mean(axis=(0, 2)))
        x = np.arange(len(slope))
        middle = np.abs(x - len(slope) / 2) < 16
        slope, x = slope[middle], x[middle]
        mean = (slope * x).sum() / slope.sum()
        variance = (slope * (x - mean) ** 2).sum() / slope.sum()
        blur_px = 4 * max(variance - EXPECTS_PX**2, 0.0) ** 0.5
        depth_m = self.lens.depth_m(np.float64(blur_px))
        return {"depth_m": np.full(image.shape[:2], depth_m, np.float32)}


def test_the_width_without_bias_is_what_the_model_expects():
    step = np.where(np.arange(128) < 64, 40, 200).astype(np.uint8)
    large = np.repeat(np.repeat(step[None, :, None], 128, axis=0), 3, axis=2)
    scene = RgbdSample("step", np.full((128, 128), FAR_M, np.float32), sharp_rgb=large)
    widths = (0.0, 0.3, 0.6, 0.9)
    biases = [bias_px(EdgeReader(), [scene] * 2, LENS, width) for width in widths]
    assert biases == sorted(biases)
    # The step itself is spread by nothing: its pixels are sampled, not averaged.
    assert without_bias_px(widths, biases) == pytest.approx(EXPECTS_PX, abs=0.12)


def test_a_bias_of_one_sign_has_no_zero():
    assert without_bias_px((0.0, 1.0), (-1.0, 1.0)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="change of sign"):
        without_bias_px((0.0, 1.0), (0.1, 0.5))


def test_rooms_are_as_sharp_as_pixels_allow(monkeypatch):
    monkeypatch.setattr("benchmarks.in_focus.SIZE", (64, 96))
    (room,) = rooms(1)
    assert room.sharp_rgb.shape == (64, 96, 3)
    assert room.depth_m.shape == (64, 96)
    blurred = cv2.GaussianBlur(room.sharp_rgb, (0, 0), 0.7)
    gradient = [np.abs(np.diff(i.astype(float), axis=1)).max() for i in (room.sharp_rgb, blurred)]
    assert gradient[0] > 1.3 * gradient[1]
    assert lens_of(*LENS).coc_px(FAR_M) > 2.0
