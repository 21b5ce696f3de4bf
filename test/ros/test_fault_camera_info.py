"""What a camera_info can do wrong while images stream; the depth goes on whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

HEIGHT, WIDTH = 48, 64


def _calibration(scale=1.0, **changes):
    """A calibration of the 64x48 camera, for an image ``scale`` times as large."""
    f, cx, cy = 50.0 * scale, 32 * scale - 0.5, 24 * scale - 0.5
    info = CameraInfo(width=round(WIDTH * scale), height=round(HEIGHT * scale))
    info.distortion_model, info.d = "plumb_bob", [0.0] * 5
    info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def _frame(peer, tools, info=None):
    """Send ``info`` and then an image; the camera_info that comes with the depth."""
    if info is not None:
        peer.info.publish(info)
        peer.spin_for(0.1)
    stamp = peer.send(tools.image_message(tools.picture()))
    assert peer.answer("depth", stamp) is not None
    out = peer.answer("depth_info", stamp)
    assert (out.width, out.height) == (WIDTH, HEIGHT)
    assert np.isfinite(out.k).all()
    assert np.isfinite(out.p).all()
    return out


def _assert_uncalibrated(out):
    assert list(out.k) == [0.0] * 9
    assert list(out.p) == [0.0] * 12


def test_camera_info_missing_then_late(shared_stage, tools):
    """Missing: said, after a moment of grace; late: in force from the next frame on."""
    peer = shared_stage.peer
    _assert_uncalibrated(_frame(peer, tools))
    peer.spin_for(2.0)  # the moment of grace
    _assert_uncalibrated(_frame(peer, tools))
    values = peer.report(in_flight="0", message=lambda said: "got none yet" in said)
    assert values["level"] == "1"

    peer.wait_for_match(peer.info)
    assert list(_frame(peer, tools, _calibration()).k) == list(_calibration().k)
    values = peer.report(in_flight="0", message=lambda said: "camera_info" not in said)
    assert values["level"] == "0"

    # It is kept though it came only once, and forgotten with the model.
    assert list(_frame(peer, tools).k) == list(_calibration().k)
    for name in ("deactivate", "cleanup", "configure", "activate"):
        assert peer.transition(name)
    peer.wait_for_camera()
    assert peer.spin_until(lambda: peer.node.count_publishers("depth/image_rect") == 1)
    peer.spin_for(0.5)
    _assert_uncalibrated(_frame(peer, tools))


@pytest.mark.parametrize(
    "bad",
    [
        _calibration(k=[0.0] * 9),
        _calibration(k=[-50.0, *_calibration().k[1:]]),
        _calibration(width=WIDTH * 2),
        _calibration(width=0, height=0),
        _calibration(width=2**32 - 1, height=1),
        _calibration(roi=RegionOfInterest(x_offset=600, width=WIDTH, height=HEIGHT)),
    ],
    ids=["K[0] = 0", "K[0] < 0", "another aspect", "no size", "absurd size", "region outside"],
)
def test_a_wrong_camera_info_in_mid_stream_is_said_and_cured(shared_stage, tools, bad):
    peer = shared_stage.peer
    peer.wait_for_match(peer.info)
    assert list(_frame(peer, tools, _calibration()).k) == list(_calibration().k)
    _assert_uncalibrated(_frame(peer, tools, bad))
    values = peer.report(in_flight="0", message=lambda said: "camera_info: expected" in said)
    assert values["level"] == "1"
    assert list(_frame(peer, tools, _calibration()).k) == list(_calibration().k)
    peer.report(in_flight="0", message=lambda said: "camera_info" not in said)


def test_the_camera_info_of_another_resolution_is_scaled(shared_stage, tools):
    """A driver that goes on sending the full sensor's calibration with halved images."""
    peer = shared_stage.peer
    peer.wait_for_match(peer.info)
    out = _frame(peer, tools, _calibration(scale=2.0))
    np.testing.assert_allclose(out.k, _calibration().k)
    np.testing.assert_allclose(out.p, _calibration().p)
    peer.report(message=lambda said: "resized by 0.5" in said)
