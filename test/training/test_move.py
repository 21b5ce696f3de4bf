"""Crops blurred by a movement of the camera."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_training.augment import move
from ddfd_training.config import DataConfig
from ddfd_training.crops import CropDataset
from ddfd_training.image_set import ImageSet


def point(kind=np.uint8, value=200):
    image = np.zeros((41, 41, 3), kind)
    image[20, 20] = value
    return {"image": image, "sharp_rgb": image, "sharp_known": np.ones((41, 41), bool)}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_point_becomes_a_straight_line_of_at_most_that_length(kind):
    value = np.iinfo(kind).max
    lengths = []
    for seed in range(40):
        item = point(kind, value)
        moved = move(item, 12.0, np.random.default_rng(seed))
        light = moved["image"][..., 0].astype(float)
        assert moved["image"].dtype == kind
        assert light.sum() == pytest.approx(value, rel=0.15 if kind == np.uint8 else 0.01)
        y, x = np.indices(light.shape)
        centre = np.array([(light * y).sum(), (light * x).sum()]) / light.sum()
        assert centre == pytest.approx([20, 20], abs=0.2)
        offset = np.stack([y, x], axis=-1) - centre
        spread = np.einsum("ij,ijk,ijl->kl", light, offset, offset) / light.sum()
        across, along = np.sqrt(np.linalg.eigvalsh(spread))
        assert across < 0.75  # a line, as thin as pixels allow
        lengths.append(along * np.sqrt(12))  # of an even line of that spread
    assert min(lengths) < 5.0
    assert 9.0 < max(lengths) < 14.0


def test_a_moved_crop_is_no_example_of_its_sharp_original_and_its_depth_stays():
    images = ImageSet(
        np.full((1, 64, 64, 3), 100, np.uint8),
        np.full((1, 64, 64, 3), 90, np.uint8),
        np.full((1, 64, 64), 2.0, np.float32),
        np.ones((1, 64, 64), bool),
        (0,),
    )
    always = CropDataset([images], DataConfig(crop_px=32, moved_share=1.0), 1, 0, 8)
    some = CropDataset([images], DataConfig(crop_px=32, moved_share=0.3), 1, 0, 200)
    for index in range(8):
        item = always[index]
        assert not item["sharp_known"].any()
        assert (item["depth_m"] == 2.0).all()
    moved = sum(not bool(some[index]["sharp_known"].any()) for index in range(200))
    assert 40 <= moved <= 80
    never = CropDataset([images], DataConfig(crop_px=32), 1, 0, 8)
    assert all(bool(never[index]["sharp_known"].all()) for index in range(8))
