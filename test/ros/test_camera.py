"""The published camera_info against the geometry of a pinhole camera, point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from ddfd_ros.ros.camera import CameraInfoCorrector

POINTS_M = np.random.default_rng(5).uniform((-1, -1, 1), (1, 1, 5), (20, 3))


def _info(**changes):
    info = CameraInfo(
        width=640, height=480, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0]
    )
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 238.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [480.0, 0.0, 318.0, -24.0, 0.0, 490.0, 241.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def _project(matrix, points_m):
    points = np.concatenate([points_m, np.ones((len(points_m), 1))], axis=1)
    camera = np.asarray(matrix, float).reshape(3, -1)
    image = points[:, : camera.shape[1]] @ camera.T
    return image[:, :2] / image[:, 2:]


def _check(info, height, width, moved):
    """Every point of space must be seen where the original's pixel went."""
    out, problem = CameraInfoCorrector().correct(info, height, width)
    assert (out.height, out.width) == (height, width)
    assert out.roi == RegionOfInterest()
    assert (out.binning_x, out.binning_y) == (0, 0)
    for field in ("k", "p"):
        before, after = getattr(info, field), getattr(out, field)
        np.testing.assert_allclose(_project(after, POINTS_M), moved(_project(before, POINTS_M)))
    return problem


def test_a_fitting_info_is_kept():
    info = _info()
    assert _check(info, 480, 640, lambda pixels: pixels) == ""
    out, _ = CameraInfoCorrector().correct(info, 480, 640)
    assert list(out.d) == list(info.d)
    assert out.distortion_model == "plumb_bob"
    assert list(out.r) == list(info.r)


def test_a_region_of_interest_moves_the_origin():
    info = _info(roi=RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240))
    assert _check(info, 240, 320, lambda pixels: pixels - (100, 40)) == ""


@pytest.mark.parametrize(
    ("x", "y", "good"), [(320, 240, True), (321, 240, False), (0, 241, False)]
)
def test_a_region_outside_the_image_is_no_camera(x, y, good):
    """A driver that calibrates what it reads out, and tells where on the sensor that lies."""
    info = _info(roi=RegionOfInterest(x_offset=x, y_offset=y, width=320, height=240))
    out, problem = CameraInfoCorrector().correct(info, 240, 320)
    assert bool(out.k[0] > 0) is good
    assert ("region of interest within its 640x480" in problem) is not good


def test_binning_averages_neighbours():
    """Bin u averages columns 3u, 3u+1, 3u+2: its centre is column 3u + 1 of the full image."""
    info = _info(binning_x=3, binning_y=2)
    assert _check(info, 240, 213, lambda pixels: (pixels - (1, 0.5)) / (3, 2)) == ""


def test_region_and_binning_together():
    roi = RegionOfInterest(x_offset=10, y_offset=20, width=400, height=300)
    info = _info(roi=roi, binning_x=2, binning_y=2)
    assert _check(info, 150, 200, lambda pixels: (pixels - (10.5, 20.5)) / 2) == ""


def test_another_resolution_of_the_same_aspect_is_scaled_with_a_warning():
    problem = _check(_info(), 240, 320, lambda pixels: (pixels + 0.5) / 2 - 0.5)
    for words in ("expected the image's size 320x240", "got 640x480", "camera_info"):
        assert words in problem


def test_another_aspect_becomes_uncalibrated_with_a_warning():
    out, problem = CameraInfoCorrector().correct(_info(), 480, 480)
    assert "another aspect" in problem
    assert list(out.k) == [0.0] * 9
    assert (out.height, out.width) == (480, 480)


@pytest.mark.parametrize(
    "changes",
    [
        {"k": [0.0] * 9},
        {"k": [math.nan] * 9},
        {"d": [math.nan] * 5},
        {"k": [-500.0, 0.0, 320.0, 0.0, 510.0, 238.0, 0.0, 0.0, 1.0]},
    ],
)
def test_uncalibrated_cameras_get_zeros(changes):
    out, problem = CameraInfoCorrector().correct(_info(**changes), 480, 640)
    assert "calibrate the camera" in problem
    assert (out.height, out.width) == (480, 640)
    for field in ("k", "r", "p"):
        assert not np.any(getattr(out, field))
    assert len(out.d) == 0


def test_no_info_at_all():
    out, problem = CameraInfoCorrector().correct(None, 10, 20)
    assert "remap camera_info" in problem
    assert (out.height, out.width) == (10, 20)
    assert not np.any(out.k)


def test_a_projection_that_was_never_filled_in_is_that_of_the_camera():
    info = _info(p=[0.0] * 12)
    out, problem = CameraInfoCorrector().correct(info, 480, 640)
    assert problem == ""
    np.testing.assert_allclose(_project(out.p, POINTS_M), _project(info.k, POINTS_M))


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant", "of another maker"])
def test_of_a_rectified_image_p_holds_whatever_a_consumer_reads(model):
    """By K alone, by K and D, and by P: the same pixel for every point, that of P."""
    info = _info(distortion_model=model, d=[0.1, -0.2], binning_x=2, binning_y=2)
    out, problem = CameraInfoCorrector().correct(info, 240, 320, rectified=True)
    assert problem == ""  # D, of whatever length, is of the raw image
    wanted = (_project(info.p, POINTS_M) - (0.5, 0.5)) / 2
    plane = np.diag([1.0, 1.0, 0.0]) @ np.array(info.p).reshape(3, 4)
    baseline = (plane[:, 3] / 2)[:2] / POINTS_M[:, 2:]  # P[3]: of a second camera beside
    np.testing.assert_allclose(_project(out.p, POINTS_M), wanted)
    np.testing.assert_allclose(_project(out.k, POINTS_M), wanted - baseline)
    assert (out.distortion_model, list(out.d)) == ("plumb_bob", [0.0] * 5)
    assert list(out.r) == np.eye(3).ravel().tolist()


def test_each_answer_is_a_message_of_its_own():
    corrector, info = CameraInfoCorrector(), _info()
    first, _ = corrector.correct(info, 480, 640)
    first.header.frame_id = "one"
    second, _ = corrector.correct(info, 480, 640)
    assert second.header.frame_id == ""
