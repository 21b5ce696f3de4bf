"""The camera of an image's pixels, from its ``CameraInfo``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ddfd_ros.core.camera_model import correct_camera

HEIGHT, WIDTH = 800, 848
K = (286.0, 0.0, 420.0, 0.0, 285.0, 400.0, 0.0, 0.0, 1.0)
FISHEYE = (-0.006, 0.04, -0.038, 0.006)


def camera_info(**fields):
    region = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    usual = {
        "width": WIDTH,
        "height": HEIGHT,
        "k": K,
        "p": (*K[0:3], 0.0, *K[3:6], 0.0, *K[6:9], 0.0),
        "d": (0.0,) * 5,
        "r": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "distortion_model": "plumb_bob",
        "roi": region,
        "binning_x": 0,
        "binning_y": 0,
    }
    return SimpleNamespace(**(usual | fields))


@pytest.mark.parametrize("behind", [(), (0.0,), (0.0,) * 10])
def test_zeros_behind_the_coefficients_of_a_fisheye_are_none(behind):
    """As drivers write them that send every model's coefficients in one array."""
    info = camera_info(distortion_model="equidistant", d=(*FISHEYE, *behind))
    camera, problem = correct_camera(info, HEIGHT, WIDTH)
    assert problem == ""
    assert camera.k == K


@pytest.mark.parametrize(
    ("model", "d"), [("equidistant", (*FISHEYE, 0.1)), ("plumb_bob", (-0.3, 0.1, 0.0))]
)
def test_as_many_coefficients_as_no_model_has_are_refused(model, d):
    camera, problem = correct_camera(camera_info(distortion_model=model, d=d), HEIGHT, WIDTH)
    assert camera is None
    assert f"coefficients of distortion ({model}), got {len(d)}" in problem


def test_region_and_binning_keep_what_a_pixel_sees():
    """The region counts in pixels of the full image; two of them become one, centre to centre."""
    region = SimpleNamespace(x_offset=13, y_offset=8, width=401, height=300)
    info = camera_info(roi=region, binning_x=2, binning_y=3)
    camera, problem = correct_camera(info, 100, 200)
    assert problem == ""
    # The third pixel of the image, 2, covers 4 and 5 of the region: its centre is 4.5 there.
    assert (2 - camera.k[2]) / camera.k[0] == pytest.approx((13 + 4.5 - K[2]) / K[0])
    assert (2 - camera.k[5]) / camera.k[4] == pytest.approx((8 + 7.0 - K[5]) / K[4])
