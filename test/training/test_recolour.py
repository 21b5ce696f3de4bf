"""Colour changes leave the blur, and with it the cue, as it is."""

from __future__ import annotations

import numpy as np
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.augment import recolour
from ddfd_training.optics import render_defocus


def test_recolouring_and_blurring_can_be_swapped():
    random = np.random.default_rng(5)
    sharp = random.integers(0, 200, (48, 64, 3), dtype=np.uint8)
    depth = torch.full((1, 1, 48, 64), 1.0)

    def blur(rgb):
        planes = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]
        image = render_defocus(planes, depth, LENS_PRESETS["dslr"])
        return np.rint(image[0].permute(1, 2, 0).numpy()).astype(np.uint8)

    for seed in range(5):
        item = {"image": blur(sharp), "sharp_rgb": sharp, "depth_m": depth.numpy()[0, 0]}
        changed = recolour(item, np.random.default_rng(seed))
        assert changed["depth_m"] is item["depth_m"]
        assert not np.array_equal(changed["sharp_rgb"], sharp)
        # One rounding before and one after.
        difference = changed["image"].astype(int) - blur(changed["sharp_rgb"])
        assert np.abs(difference).max() <= 2


def test_recolouring_keeps_16_bits_and_grey_stays_grey():
    grey = np.full((4, 5, 3), 30000, np.uint16)
    item = {"image": grey, "sharp_rgb": grey}
    for seed in range(5):
        changed = recolour(item, np.random.default_rng(seed))["image"]
        assert changed.dtype == np.uint16
        # A flat image stays flat, tinted by at most a quarter either way.
        assert np.ptp(changed.reshape(-1, 3), axis=0).max() == 0
        assert 0.6 * 0.75 * 30000 - 1 <= changed.min() <= changed.max() <= 1.1 * 1.25 * 30000 + 1
