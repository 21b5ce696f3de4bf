"""Points against the pinhole and OpenCV's forward projection, and a slow loop over the filters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.point_cloud import XYZ, XYZRGB, CloudOptions, Optics, Rays, make_points
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.trust import edges
from ddfd_ros.core.types import Estimate
from ddfd_ros.core.view import View

HEIGHT, WIDTH = 50, 70
K = (60.0, 0.0, 33.3, 0.0, 61.0, 26.1, 0.0, 0.0, 1.0)
P = (58.0, 0.0, 34.7, 0.0, 0.0, 59.0, 24.2, 0.0, 0.0, 0.0, 1.0, 0.0)
CAMERA = Intrinsics(WIDTH, HEIGHT, K, P)
ALL = CloudOptions(decimation=1, max_edge=math.inf)
RNG = np.random.default_rng(8)


def _depth():
    depth_m = RNG.uniform(0.3, 12.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth_m[3, 5], depth_m[4, 6], depth_m[5, 7] = np.nan, np.inf, -np.inf
    depth_m[6, 8], depth_m[7, 9] = 0.0, -1.0
    return depth_m


def _depth_again(points, depth_m, project):
    """Depth image of the re-projected points, and how far they land from pixel centres."""
    pixels = project(np.stack([points[n] for n in "xyz"], axis=-1).astype(np.float64))
    nearest = np.rint(pixels).astype(int)
    again = np.full(depth_m.shape, np.nan)
    again[nearest[:, 1], nearest[:, 0]] = points["z"]
    return again, np.abs(pixels - nearest).max()


def _pinhole(matrix):
    m = np.array(matrix).reshape(3, -1)[:, :3]
    return lambda xyz: ((xyz @ m.T) / xyz[:, 2:])[:, :2]


def _with_opencv(model, distortion):
    cv2 = pytest.importorskip("cv2")
    k, d = np.array(K).reshape(3, 3), np.array(distortion)
    none = np.zeros(3)

    def project(xyz):
        points = xyz.reshape(-1, 1, 3)
        if model == "equidistant":
            return cv2.fisheye.projectPoints(points, none, none, k, d)[0].reshape(-1, 2)
        return cv2.projectPoints(points, none, none, k, d)[0].reshape(-1, 2)

    return project


OPTICS = {
    "pinhole": (Optics(CAMERA), _pinhole(K)),
    "rectified": (Optics(CAMERA, True, "plumb_bob", (-0.3, 0.1, 0, 0, 0)), _pinhole(P)),
    "plumb_bob": (Optics(CAMERA, False, "plumb_bob", (-0.2, 0.05, 1e-3, -2e-3, 0.0)), None),
    "rational": (
        Optics(CAMERA, False, "rational_polynomial", (0.1, 0.02, 1e-3, 0, 0, 0.2, 0.03, 0)),
        None,
    ),
    "equidistant": (Optics(CAMERA, False, "equidistant", (0.05, -0.01, 0.002, 0.0)), None),
}


@pytest.mark.parametrize("name", OPTICS)
def test_re_projected_points_give_the_depth_back_to_a_millimetre(name):
    optics, project = OPTICS[name]
    project = project or _with_opencv(optics.model, optics.distortion)
    depth_m = _depth()
    points = make_points(depth_m, optics, ALL)
    again, off_px = _depth_again(points, depth_m, project)
    known = np.isfinite(depth_m) & (depth_m > 0)
    assert points.dtype == XYZ
    assert points.shape == (known.sum(),)
    np.testing.assert_array_equal(np.isnan(again), ~known)
    assert np.abs(again - depth_m)[known].max() <= 1e-3
    assert off_px < 0.01


def test_axes_are_those_of_an_optical_frame():
    """REP 103: right of the axis is +x, below it +y, ahead +z."""
    points = make_points(np.full((HEIGHT, WIDTH), 2.0, np.float32), Optics(CAMERA), ALL)
    grid = points.reshape(HEIGHT, WIDTH)
    assert grid["x"][0, -1] > 0 > grid["x"][0, 0]
    assert grid["y"][-1, 0] > 0 > grid["y"][0, 0]
    assert (points["z"] == 2.0).all()


@pytest.mark.parametrize("organized", [False, True])
@pytest.mark.parametrize("decimation", [1, 3, 4, 64])
def test_decimation_and_filters_against_a_slow_loop(decimation, organized):
    depth_m = _depth()
    depth_m[20:40] = 3.0 + RNG.uniform(-0.01, 0.01, (20, WIDTH))
    sigma_m = RNG.uniform(0, 1, depth_m.shape).astype(np.float32)
    sigma_m[25] = np.nan
    rgb = RNG.integers(0, 256, (*depth_m.shape, 3), np.uint8)
    options = CloudOptions(decimation, organized, 0.05, 0.5, 9.0, 0.8)
    points = make_points(depth_m, Optics(CAMERA), options, sigma_m=sigma_m, rgb=rgb)
    assert points.dtype == XYZRGB
    expected = []
    rows = range(min(decimation // 2, HEIGHT - 1), HEIGHT, decimation)
    columns = range(min(decimation // 2, WIDTH - 1), WIDTH, decimation)
    for v in rows:
        for u in columns:
            z = float(depth_m[v, u])
            good = math.isfinite(z) and 0.5 <= z <= 9.0 and sigma_m[v, u] <= 0.8
            for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if 0 <= v + dv < HEIGHT and 0 <= u + du < WIDTH:
                    other = float(depth_m[v + dv, u + du])
                    good &= not abs(other - z) > 0.05 * min(other, z)
            red, green, blue = (int(c) for c in rgb[v, u])
            colour = (red << 16) + (green << 8) + blue
            if good or organized:
                z = z if good else math.nan
                expected.append(((u - K[2]) / K[0] * z, (v - K[5]) / K[4] * z, z, colour))
    assert points.shape == ((len(rows), len(columns)) if organized else (len(expected),))
    flat = points.reshape(-1)
    assert expected or decimation == 64
    for got, (x, y, z, colour) in zip(flat, expected, strict=True):
        np.testing.assert_allclose((got["x"], got["y"], got["z"]), (x, y, z), rtol=1e-5, atol=1e-6)
        assert got["rgb"].tobytes() == colour.to_bytes(4, "little")
    if organized:
        assert not (flat["z"] == 0).any()


@pytest.mark.parametrize("decimation", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(48, 64), (96, 128), (131, 173), (192, 256), (24, 32)])
def test_no_point_between_two_objects_at_any_scale(size, decimation):
    """Where the network's depth was repeated, too, what counts is the network's next pixel."""
    pytest.importorskip("cv2")
    seen_m = np.full((48, 64), 1.0, np.float32)
    seen_m[:, 32:] = seen_m[30:] = 4.0
    seen_m[:, 31], seen_m[30] = 2.0, 2.5  # between near and far, as networks answer
    view = View(*size, 48, 64, 0, 0, 48, 64)

    def repeated(values):
        return view.to_input(Estimate(depth_m=values)).depth_m

    camera = Intrinsics(size[1], size[0], K, P)
    options = CloudOptions(decimation, organized=True)
    points = make_points(repeated(seen_m), Optics(camera), options, scales=view.scales)
    assert not np.isin(points["z"], (2.0, 2.5)).any()
    if size[0] >= 48:  # every pixel of the network is there
        expected = repeated(np.where(edges(seen_m, 0.05), np.float32(np.nan), seen_m))
        start = decimation // 2
        np.testing.assert_array_equal(points["z"], expected[start::decimation, start::decimation])


@pytest.mark.parametrize("distortion", [(), (0.0,) * 4, (0.0,) * 5, (-0.05, 0, 0, 0), (0.1,)])
@pytest.mark.parametrize("organized", [False, True])
def test_a_fisheye_has_points_up_to_90_degrees(distortion, organized):
    """Every pixel against its angle, found by bisection; beyond 90 degrees there is nothing."""
    k = (20.0, 0.0, 33.3, 0.0, 21.0, 26.1, 0.0, 0.0, 1.0)
    optics = Optics(Intrinsics(WIDTH, HEIGHT, k, P), False, "equidistant", distortion)
    k1 = distortion[0] if distortion else 0.0
    options = CloudOptions(1, organized, math.inf)
    points = make_points(np.ones((HEIGHT, WIDTH), np.float32), optics, options)
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    x, y = (columns - k[2]) / k[0], (rows - k[5]) / k[4]
    r = np.hypot(x, y)
    low, high = np.zeros(r.shape), np.full(r.shape, math.pi / 2)
    for _ in range(60):
        middle = (low + high) / 2
        below = middle * (1 + k1 * middle**2) < r
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    known = low < math.pi / 2 - 1e-3
    sure = known | (low > math.pi / 2 - 1e-12)
    assert 0.3 < known.mean() < 0.99
    if not organized:
        assert np.isfinite(points["x"]).all()
        assert abs(len(points) - known.sum()) <= (~sure).sum()
        return
    np.testing.assert_array_equal(np.isfinite(points["z"])[sure], known[sure])
    for name, side in (("x", x), ("y", y)):
        np.testing.assert_allclose(
            points[name][known], (side / r * np.tan(low))[known], rtol=1e-4, atol=1e-6
        )


def test_what_strong_distortion_does_not_determine_is_no_point():
    cv2 = pytest.importorskip("cv2")
    distortion = (-0.4, 0.2, 0, 0, -0.05)
    k = (38.0, 0.0, 31.5, 0.0, 38.0, 23.5, 0.0, 0.0, 1.0)
    optics = Optics(Intrinsics(64, 48, k, P), False, "plumb_bob", distortion)
    depth_m = np.ones((48, 64), np.float32)
    points = make_points(depth_m, optics, CloudOptions(1, organized=True))
    xyz = np.stack([points[n] for n in "xyz"], axis=-1).reshape(-1, 1, 3).astype(np.float64)
    none = np.zeros(3)
    back = cv2.projectPoints(xyz, none, none, np.array(k).reshape(3, 3), np.array(distortion))[0]
    pixels = np.stack(np.meshgrid(np.arange(64), np.arange(48)), axis=-1)
    off_px = np.linalg.norm(back.reshape(pixels.shape) - pixels, axis=-1)
    known = np.isfinite(points["z"])
    assert 0.9 < known.mean() < 1
    assert off_px[known].max() <= 1.001


def test_a_limit_of_sigma_needs_sigma():
    options = CloudOptions(max_sigma_m=0.1)
    with pytest.raises(ContractError, match=r"expected no limit, got 0\.1.*estimates no sigma_m"):
        make_points(np.ones((HEIGHT, WIDTH), np.float32), Optics(CAMERA), options)
    with pytest.raises(ContractError, match=r"it has \['depth_m', 'sharp_rgb'\]"):
        options.check_heads(("depth_m", "sharp_rgb"))
    options.check_heads(("depth_m", "sigma_m"))
    CloudOptions().check_heads(("depth_m",))


def test_directions_are_kept_and_made_anew_for_another_camera():
    depth_m = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    rays = Rays()
    first = make_points(depth_m, Optics(CAMERA), ALL, rays=rays)
    np.testing.assert_array_equal(first, make_points(depth_m, Optics(CAMERA), ALL, rays=rays))
    for optics, options in (
        (Optics(CAMERA, True), ALL),
        (Optics(CAMERA), CloudOptions(2, max_edge=math.inf)),
    ):
        expected = make_points(depth_m, optics, options)
        np.testing.assert_array_equal(make_points(depth_m, optics, options, rays=rays), expected)


def test_another_size_than_the_cameras_is_refused():
    with pytest.raises(ContractError, match="expected depth of the camera's size 70x50"):
        make_points(np.ones((10, 20), np.float32), Optics(CAMERA), ALL)
