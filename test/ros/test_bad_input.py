"""Every kind of bad frame: one clear message, counted, and the next good frame is answered."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

RNG = np.random.default_rng(4)
HEIGHT, WIDTH = 48, 64


def _raw(message, encoding, channels, dtype=np.uint8, values=None, step=None, big_endian=False):
    """Fill ``message`` with values of another encoding."""
    if values is None:
        values = RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype)
    if big_endian:
        values = values.astype(values.dtype.newbyteorder(">"))
    rows = values.reshape(values.shape[0], -1).view(np.uint8)
    if step is not None:
        padding = np.full((rows.shape[0], step - rows.shape[1]), 77, np.uint8)
        rows = np.concatenate([rows, padding], axis=1)
    message.encoding, message.step = encoding, rows.shape[1]
    message.is_bigendian = big_endian
    message.data = array.array("B", rows.tobytes())
    return message


def _short(message):
    message.data = message.data[:-1]


def _unknown_encoding(message):
    message.encoding = "yuv999"


def _depth_instead(message):
    message.encoding = "32FC1"


def _zero_size(message):
    message.width = message.height = message.step = 0
    message.data = array.array("B")


def _small_step(message):
    message.step = 10


def _huge_size(message):
    message.width = message.height = 2**31
    message.step = 2**32 - 1


def _too_small(message):
    message.width, message.height, message.step = 8, 8, 24
    message.data = message.data[: 8 * 24]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_short, ["expected 9216 bytes", "got 9215", "cut short"]),
        (_unknown_encoding, ["expected one of", "'yuv999'", "camera driver"]),
        (_depth_instead, ["expected one of", "'32FC1'"]),
        (_zero_size, ["expected width and height", "got 0x0"]),
        (_small_step, ["expected at least 192 bytes", "got 10"]),
        (_huge_size, ["expected", "got"]),
        (_too_small, ["at least 32 pixels", "got 8x8"]),
    ],
)
def test_a_bad_frame_is_named_and_counted_and_the_node_lives_on(shared_stage, tools, spoil, said):
    peer, node = shared_stage.peer, shared_stage.nodes[0]
    before = peer.report(in_flight="0")
    log_before = len(node.log)
    for _ in range(3):
        message = tools.image_message(tools.picture())
        spoil(message)
        stamp = peer.send(message)
        assert peer.answer("depth", stamp, timeout_s=0.05) is None
    values = peer.report(in_flight="0", level="2")
    failed = int(values["failed_ImageFormatError"])
    assert failed - int(before.get("failed_ImageFormatError", 0)) == 3
    new_lines = [line for line in node.log[log_before:].splitlines() if "not answered" in line]
    assert len(new_lines) == 1, new_lines  # three times the same: said once
    for words in said:
        assert words in new_lines[0]
        assert words in values["message"]

    stamp = peer.send(tools.image_message(tools.picture()))
    assert peer.answer("depth", stamp) is not None
    assert peer.report(in_flight="0")["level"] != "2"


def _padded_rows(message):
    rgb = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    _raw(message, "rgb8", 3, values=rgb, step=WIDTH * 3 + 13)
    return rgb


def _bgr(message):
    rgb = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    _raw(message, "bgr8", 3, values=np.ascontiguousarray(rgb[..., ::-1]))
    return rgb


def _mono16(message, big_endian):
    grey = RNG.integers(0, 65536, (HEIGHT, WIDTH, 1), np.uint16)
    _raw(message, "mono16", 1, values=grey, big_endian=big_endian)
    return np.repeat((grey >> 8).astype(np.uint8), 3, axis=2)


def _rgb16_big_endian(message):
    colour = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
    _raw(message, "rgb16", 3, values=colour, big_endian=True)
    return (colour >> 8).astype(np.uint8)


@pytest.mark.parametrize(
    "convert",
    [
        _padded_rows,
        _bgr,
        lambda message: _mono16(message, False),
        lambda message: _mono16(message, True),
        _rgb16_big_endian,
    ],
    ids=["padded step", "bgr8", "mono16", "mono16 big-endian", "rgb16 big-endian"],
)
def test_unusual_layouts_are_read_right(shared_stage, tools, convert):
    peer = shared_stage.peer
    message = tools.image_message(tools.picture(seed=6))
    expected = convert(message)
    stamp = peer.send(message)
    depth = peer.answer("depth", stamp)
    assert depth is not None, shared_stage.nodes[0].log[-500:]
    got = np.frombuffer(depth.data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(got, tools.reference(expected)["depth_m"], rtol=1e-6)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_is_demosaiced(shared_stage, tools, pattern, bits):
    """A plain red scene stays red: depth comes from the red channel, sigma from the green."""
    peer = shared_stage.peer
    levels = {"r": 200, "g": 60, "b": 20}
    tile = np.array([[levels[c] for c in pattern[:2]], [levels[c] for c in pattern[2:]]])
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))[..., None]
    mosaic = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 257).astype(np.uint16)
    message = tools.image_message(tools.picture())
    _raw(message, f"bayer_{pattern}{bits}", 1, values=mosaic)
    stamp = peer.send(message)
    if bits == 16 and peer.answer("depth", stamp, timeout_s=1.0) is None:
        assert f"bayer_{pattern}16" in shared_stage.nodes[0].log  # refused by name
        return
    depth = np.frombuffer(peer.answer("depth", stamp).data, np.float32).reshape(HEIGHT, WIDTH)
    sigma = np.frombuffer(peer.answer("sigma", stamp).data, np.float32).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(depth[4:-4, 4:-4], 0.5 + 200 / 32, atol=0.05)
    np.testing.assert_allclose(sigma[4:-4, 4:-4], 60 / 256, atol=0.01)


def test_the_resolution_may_change_in_mid_stream(shared_stage, tools):
    peer = shared_stage.peer
    for height, width in ((48, 64), (96, 128), (50, 70), (48, 64)):
        rgb = tools.picture(height, width)
        stamp = peer.send(tools.image_message(rgb))
        depth, info = peer.answer("depth", stamp), peer.answer("depth_info", stamp)
        assert (depth.height, depth.width) == (height, width)
        assert (info.height, info.width) == (height, width)
        got = np.frombuffer(depth.data, np.float32).reshape(height, width)
        np.testing.assert_allclose(got, tools.reference(rgb)["depth_m"], rtol=1e-6)


def _calibration(**changes):
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    info.p = [50.0, 0.0, 31.5, 0.0, 0.0, 50.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (_calibration(k=[math.nan] * 9), "calibrate the camera"),
        (_calibration(k=[0.0] * 9), "calibrate the camera"),
        (_calibration(d=[math.nan] * 5), "calibrate the camera"),
        (_calibration(width=80, height=48), "another aspect"),
    ],
    ids=["NaN", "K[0] = 0", "NaN distortion", "another size"],
)
def test_a_bad_camera_info_is_said_once_and_depth_goes_on(shared_stage, tools, info, said):
    peer, node = shared_stage.peer, shared_stage.nodes[0]
    peer.wait_for_match(peer.info)
    log_before = len(node.log)
    for _ in range(3):
        peer.info.publish(info)
        peer.spin_for(0.1)
        stamp = peer.send(tools.image_message(tools.picture()))
        assert peer.answer("depth", stamp) is not None
        out = peer.answer("depth_info", stamp)
        assert (out.width, out.height) == (64, 48)
        assert list(out.k) == [0.0] * 9
        assert list(out.p) == [0.0] * 12
    assert node.log[log_before:].count(said) == 1
    assert said in peer.report()["message"]

    peer.info.publish(_calibration())
    peer.spin_for(0.1)
    stamp = peer.send(tools.image_message(tools.picture()))
    assert list(peer.answer("depth_info", stamp).k) == list(_calibration().k)
    assert said not in peer.report(in_flight="0")["message"]
