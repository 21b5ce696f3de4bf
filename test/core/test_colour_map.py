from __future__ import annotations

import numpy as np

from ddfd_ros.core.colour_map import colour_depth, palette


def test_colours_go_by_inverse_depth_and_unknown_is_black():
    near_m, far_m = 0.5, 10.0
    depth_m = np.array([[0.1, 0.5, -np.inf], [10.0, 50.0, np.inf], [np.nan, 0.952381, 1.0]])
    colours = colour_depth(depth_m.astype(np.float32), near_m, far_m)
    first, last = palette()[1], palette()[255]
    for index in ((0, 0), (0, 1), (0, 2)):
        np.testing.assert_array_equal(colours[index], first)
    for index in ((1, 0), (1, 1), (1, 2)):
        np.testing.assert_array_equal(colours[index], last)
    np.testing.assert_array_equal(colours[2, 0], 0)
    # 1.05 per metre is midway between 2 and 0.1.
    np.testing.assert_array_equal(colours[2, 1], palette()[128])


def test_every_colour_is_told_apart_from_unknown_and_from_its_neighbours():
    np.testing.assert_array_equal(palette()[0], 0)
    colours = palette()[1:].astype(int)
    assert colours.max(axis=1).min() > 40
    assert len(np.unique(colours, axis=0)) == 255
    assert np.abs(np.diff(colours, axis=0)).max() < 16  # no step that looks like an edge
