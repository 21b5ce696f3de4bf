"""What is believed, pixel by pixel against a slow loop; and that unknown depth is never 0."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ddfd_ros.core.image_codec import decode_depth, encode_depth
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.pipeline import Pipeline, Thresholds
from ddfd_ros.core.point_cloud import CloudOptions, Optics, make_points
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.trust import believe, edges
from ddfd_ros.core.types import Frame
from ddfd_ros.core.view import ViewOptions

RNG = np.random.default_rng(3)
ODD = np.array([0.0, -0.0, -1.0, 1e-45, 1e-38, np.nan, np.inf, -np.inf, 1e30], np.float32)


def wild(height=40, width=56):
    """Depth with everything a broken network could answer, and sigma likewise."""
    depth_m = RNG.uniform(0.1, 12, (height, width)).astype(np.float32)
    sigma_m = RNG.uniform(0, 2, (height, width)).astype(np.float32)
    for plane in (depth_m, sigma_m):
        where = RNG.random(plane.shape) < 0.3
        plane[where] = RNG.choice(ODD, where.sum())
    return depth_m, sigma_m


def test_edges_against_a_slow_loop():
    depth_m, _ = wild(12, 15)
    depth_m[4:8] = 3.0 + RNG.uniform(-0.2, 0.2, (4, 15))
    expected = np.zeros(depth_m.shape, bool)
    for v, u in itertools.product(range(12), range(15)):
        for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if 0 <= v + dv < 12 and 0 <= u + du < 15:
                a, b = float(depth_m[v, u]), float(depth_m[v + dv, u + du])
                expected[v, u] |= abs(a - b) > 0.05 * min(a, b)
    np.testing.assert_array_equal(edges(depth_m, 0.05), expected)
    assert expected.any()
    assert not expected.all()


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("limits", [(0.0, math.inf), (1.0, math.inf), (0.0, 6.0), (1.0, 6.0)])
@pytest.mark.parametrize("max_sigma_m", [math.inf, 0.8])
def test_what_is_believed_against_a_slow_loop(mark, limits, max_sigma_m):
    depth_m, sigma_m = wild()
    before = depth_m.copy()
    near, far = limits
    got = believe(depth_m, sigma_m, Thresholds(max_sigma_m, near, far, mark_range=mark))
    for index in np.ndindex(depth_m.shape):
        d, s = float(before[index]), float(sigma_m[index])
        if not (0 < d < math.inf) or (max_sigma_m < math.inf and not s <= max_sigma_m):
            expected = math.nan
        elif d < near:
            expected = -math.inf if mark else math.nan
        elif d > far:
            expected = math.inf if mark else math.nan
        else:
            expected = d
        assert got[index] == expected or (math.isnan(expected) and math.isnan(got[index]))
    np.testing.assert_array_equal(depth_m, before)


class WildBackend:
    """Answers anything at the size it is asked for."""

    def __init__(self):
        lens = LensConfig(15e-3, 2.8, 8.0, 6e-6)
        self.contract = ModelContract(
            1, "wild", {}, 1, None, None, 1, ("depth_m", "sigma_m"), 0.5, 10, lens, {}, {}, ""
        )

    def infer(self, image, heads=None, timings_ms=None):
        depth_m, sigma_m = wild(*image.shape[:2])
        return {"depth_m": depth_m, "sigma_m": sigma_m}


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("network_size", [False, True])
@pytest.mark.parametrize(
    ("pitch_m", "side"), [(0.0, 0), (0.0, 32), (3e-6, 0), (9e-6, 0), (4e-6, 24)]
)
def test_depth_that_is_not_known_is_never_zero(mark, network_size, pitch_m, side):
    """Through view, thresholds, encoding and cloud: a 0 would be a point at the camera."""
    pytest.importorskip("cv2")
    options = ViewOptions(pitch_m, side, side, "crop", network_size)
    thresholds = Thresholds(1.5, 0.3, 9.0, 5.0, mark)
    pipeline = Pipeline(WildBackend(), thresholds, options)
    for _ in range(10):
        estimate = pipeline.process(Frame(np.zeros((40, 56, 3), np.uint8)))
        depth_m = decode_depth(encode_depth(estimate.depth_m, None))
        assert not (depth_m == 0).any()
        finite = depth_m[np.isfinite(depth_m)]
        assert ((finite >= 0.3) & (finite <= 9.0)).all()
        assert np.isnan(depth_m).any()
        assert mark or not np.isinf(depth_m).any()
        millimetres = encode_depth(estimate.depth_m, None, "16UC1")
        values = np.frombuffer(millimetres.data, "<u2").reshape(depth_m.shape)
        np.testing.assert_array_equal(values == 0, ~np.isfinite(depth_m))
        height, width = depth_m.shape
        k = (50.0, 0.0, width / 2, 0.0, 50.0, height / 2, 0.0, 0.0, 1.0)
        optics = Optics(Intrinsics(width, height, k, ()))
        points = make_points(depth_m, optics, CloudOptions(1, max_edge=math.inf))
        assert (points["z"] >= np.float32(0.3)).all()
        assert len(points) == len(finite)
