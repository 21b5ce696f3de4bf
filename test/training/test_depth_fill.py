"""Filling gaps of depth maps, against scipy's distance transform."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from ddfd_ros.core.errors import DatasetError
from ddfd_training.depth_fill import fill_depth


def test_gaps_take_the_nearest_known_depth():
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, (40, 50)).astype(np.float32)
    holes = truth.copy()
    holes[scipy.ndimage.binary_dilation(rng.uniform(size=truth.shape) < 0.02, iterations=3)] = (
        np.nan
    )
    unknown = np.isnan(holes)
    filled = fill_depth(holes)
    assert np.array_equal(filled[~unknown], truth[~unknown])
    # each filled value is that of a known pixel (nearly) as near as the nearest one
    distance = scipy.ndimage.distance_transform_edt(unknown)
    for row, column in zip(*np.nonzero(unknown), strict=True):
        rows, columns = np.nonzero((truth == filled[row, column]) & ~unknown)
        away = np.hypot(rows - row, columns - column).min()
        assert away <= distance[row, column] * 1.03 + 1e-6


def test_a_complete_map_is_returned_as_it_is_and_an_empty_one_refused():
    full = np.ones((3, 4), np.float32)
    assert fill_depth(full) is full
    with pytest.raises(DatasetError, match="at least one known"):
        fill_depth(np.full((3, 4), np.nan))
    with pytest.raises(DatasetError, match="frame 7: expected"):
        fill_depth(np.full((3, 4), np.nan), "frame 7")
