"""The codec against pictures packed by hand, byte by byte."""

from __future__ import annotations

import array
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ddfd_ros.core import encodings
from ddfd_ros.core.encodings import ENCODINGS
from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import (
    ImageData,
    decode,
    decode_depth,
    encode_depth,
    encode_rgb,
)

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def message(rows: list[bytes], width: int, encoding: str, padding: int = 0, big: int = 0):
    """An Image whose rows are given as bytes; padding bytes (0xEE) end every row."""
    data = array.array("B")
    for row in rows:
        data.frombytes(row + b"\xee" * padding)
    return SimpleNamespace(
        header="h",
        height=len(rows),
        width=width,
        encoding=encoding,
        is_bigendian=big,
        step=len(rows[0]) + padding,
        data=data,
    )


def pack(picture: np.ndarray, order: tuple[int | None, ...], form: str) -> list[bytes]:
    """Pack an RGB picture pixel by pixel.

    ``order`` lists channels (None: opaque), ``form`` is the struct code of a value; 16-bit values
    get a low byte of their own.
    """
    full = struct.calcsize(form) == 2
    rows = []
    for row in picture:
        packed = b""
        for pixel in row:
            for channel in order:
                value = 255 if channel is None else int(pixel[channel])
                packed += struct.pack(form, value * 256 + 77 if full else value)
        rows.append(packed)
    return rows


def as_array(values: bytes) -> np.ndarray:
    return np.array(list(values), np.uint8)


COLOUR = [
    ("rgb8", (0, 1, 2), "B", 0),
    ("bgr8", (2, 1, 0), "B", 0),
    ("rgba8", (0, 1, 2, None), "B", 0),
    ("bgra8", (2, 1, 0, None), "B", 0),
    ("rgb16", (0, 1, 2), "<H", 0),
    ("rgb16", (0, 1, 2), ">H", 1),
    ("bgr16", (2, 1, 0), "<H", 0),
    ("bgr16", (2, 1, 0), ">H", 1),
    ("rgba16", (0, 1, 2, None), "<H", 0),
    ("bgra16", (2, 1, 0, None), ">H", 1),
]


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(("encoding", "order", "form", "big"), COLOUR)
def test_colour_encodings(encoding, order, form, big, padding):
    msg = message(pack(RGB, order, form), 8, encoding, padding, big)
    picture = decode(msg)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, RGB)


@pytest.mark.parametrize(
    ("encoding", "form", "big"), [("mono8", "B", 0), ("mono16", "<H", 0), ("mono16", ">H", 1)]
)
@pytest.mark.parametrize("padding", [0, 6])
def test_grey_becomes_three_equal_channels(encoding, form, big, padding):
    msg = message(pack(RGB, (1,), form), 8, encoding, padding, big)
    np.testing.assert_array_equal(decode(msg), np.stack([RGB[..., 1]] * 3, axis=-1))


def test_big_endian_means_nothing_for_bytes():
    msg = message(pack(RGB, (2, 1, 0), "B"), 8, "bgr8", big=1)
    np.testing.assert_array_equal(decode(msg), RGB)


@pytest.mark.parametrize("padding", [0, 5])
def test_rgb8_shares_the_messages_memory(padding):
    msg = message(pack(RGB, (0, 1, 2), "B"), 8, "rgb8", padding)
    picture = decode(msg)
    msg.data[0] ^= 0xFF
    assert picture[0, 0, 0] == RGB[0, 0, 0] ^ 0xFF


@pytest.mark.parametrize("kind", [bytes, bytearray, list, memoryview, as_array])
def test_kinds_of_data(kind):
    msg = message(pack(RGB, (2, 1, 0), "B"), 8, "bgr8")
    values = msg.data.tolist()
    msg.data = kind(bytes(values))
    np.testing.assert_array_equal(decode(msg), RGB)


@pytest.mark.parametrize("suffix", ["8", "16"])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("padding", [0, 2])
def test_bayer_pattern_names(pattern, suffix, padding):
    """A flat colour seen through the mosaic named by its first 2x2 pixels comes back flat."""
    colour = {"r": 200, "g": 90, "b": 30}
    rows = []
    for y in range(10):
        cells = [colour[pattern[2 * (y % 2) + x % 2]] for x in range(12)]
        rows.append(
            bytes(cells) if suffix == "8" else struct.pack("<12H", *[c << 8 for c in cells])
        )
    picture = decode(message(rows, 12, f"bayer_{pattern}{suffix}", padding))
    assert picture.shape == (10, 12, 3)
    np.testing.assert_array_equal(picture, np.broadcast_to([200, 90, 30], (10, 12, 3)))


def test_bayer_keeps_places():
    """A ramp along x stays where it is: interpolation of a linear function is exact inside."""
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (12, 1))
    picture = decode(message([row.tobytes() for row in ramp], 16, "bayer_grbg8"))
    np.testing.assert_array_equal(picture[2:-2, 2:-2], np.stack([ramp] * 3, -1)[2:-2, 2:-2])


def bt601(y: int, u: int, v: int) -> list[float]:
    """ITU-R BT.601, video range, to full-range RGB."""
    luma, blue, red = 255 / 219 * (y - 16), 255 / 224 * (u - 128), 255 / 224 * (v - 128)
    return [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
@pytest.mark.parametrize("padding", [0, 8])
def test_yuv(encoding, order, padding):
    rows, expected = [], np.empty((4, 6, 3))
    for row in range(4):
        packed = b""
        for pair in range(3):
            y0, y1 = 60 + 20 * row, 90 + 15 * pair
            u, v = 118 + 5 * pair, 140 - 6 * row
            packed += bytes([u, y0, v, y1] if order == "uyvy" else [y0, u, y1, v])
            expected[row, 2 * pair] = bt601(y0, u, v)
            expected[row, 2 * pair + 1] = bt601(y1, u, v)
        rows.append(packed)
    picture = decode(message(rows, 6, encoding, padding)).astype(float)
    assert np.abs(picture - expected).max() <= 1.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, ["width", "0x6"]),
        ({"height": 0}, ["height", "8x0"]),
        ({"step": 20}, ["step", "24", "20"]),
        ({"data": array.array("B", bytes(100))}, ["data", "144", "100"]),
        ({"data": array.array("B")}, ["data", "144", "got 0"]),
        ({"encoding": "jpeg2000"}, ["encoding", "jpeg2000", "bgr8", "bayer_rggb8"]),
        ({"encoding": ""}, ["encoding", "rgb8"]),
        ({"encoding": "32FC1"}, ["encoding", "it is depth"]),
        ({"encoding": "rgb16"}, ["step", "48", "24"]),
        ({"encoding": "yuyv", "width": 7}, ["width", "7", "divisible by 2"]),
        ({"encoding": "mono16", "step": 23}, ["step", "multiples of 2", "23"]),
        ({"encoding": "bayer_rggb8", "height": 2}, ["at least 3", "8x2"]),
    ],
)
def test_bad_messages_name_expected_and_got(changes, words):
    msg = message(pack(RGB, (0, 1, 2), "B"), 8, "rgb8")
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(ImageFormatError) as caught:
        decode(msg)
    for word in words:
        assert word in str(caught.value)


def test_last_row_without_its_padding_is_enough():
    msg = message(pack(RGB, (0, 1, 2), "B"), 8, "rgb8", padding=8)
    del msg.data[-8:]
    np.testing.assert_array_equal(decode(msg), RGB)
    del msg.data[-1:]
    with pytest.raises(ImageFormatError, match="cut short"):
        decode(msg)


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("padding", [0, 4])
def test_depth_in_metres(big, padding):
    values = [[0.5, 1.25, float("nan")], [float("inf"), -float("inf"), 9.75]]
    form = ">3f" if big else "<3f"
    rows = [struct.pack(form, *row) for row in values]
    depth_m = decode_depth(message(rows, 3, "32FC1", padding, big))
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, np.array(values, np.float32))


@pytest.mark.parametrize("big", [0, 1])
def test_depth_in_millimetres(big):
    form = ">3H" if big else "<3H"
    rows = [struct.pack(form, 0, 1000, 65535), struct.pack(form, 1, 258, 513)]
    depth_m = decode_depth(message(rows, 3, "16UC1", 2, big))
    expected = [[np.nan, 1.0, 65.535], [0.001, 0.258, 0.513]]
    np.testing.assert_allclose(depth_m, expected, rtol=1e-6)


def test_depth_refuses_colour():
    with pytest.raises(ImageFormatError, match=r"32FC1, 16UC1.*'rgb8'"):
        decode_depth(message(pack(RGB, (0, 1, 2), "B"), 8, "rgb8"))


def test_encode_metres_byte_by_byte():
    depth_m = np.array([[1.5, np.nan, np.inf], [0.25, -np.inf, 0.0]], np.float32)
    msg = encode_depth(depth_m, "head")
    fields = (msg.header, msg.height, msg.width, msg.encoding, msg.is_bigendian, msg.step)
    assert fields == ("head", 2, 3, "32FC1", 0, 12)
    assert isinstance(msg.data, array.array)
    assert msg.data.typecode == "B"
    got = struct.unpack("<6f", msg.data.tobytes())
    np.testing.assert_array_equal(got, depth_m.ravel())


def test_encode_millimetres():
    depth_m = np.array([[1.5, np.nan, np.inf, 65.535], [-1.0, 65.536, 0.0, 0.0126]], np.float32)
    msg = encode_depth(depth_m, None, "16UC1")
    assert (msg.step, msg.encoding, len(msg.data)) == (8, "16UC1", 16)
    assert struct.unpack("<8H", msg.data.tobytes()) == (1500, 0, 0, 65535, 0, 0, 0, 13)


@pytest.mark.parametrize(("encoding", "order"), [("rgb8", (0, 1, 2)), ("bgr8", (2, 1, 0))])
def test_encode_picture_byte_by_byte(encoding, order):
    msg = encode_rgb(RGB, "head", encoding)
    fields = (msg.header, msg.height, msg.width, msg.encoding, msg.step)
    assert fields == ("head", 6, 8, encoding, 24)
    assert msg.data.tobytes() == b"".join(pack(RGB, order, "B"))


def test_encode_takes_cropped_views():
    large = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_rgb(large[:6, :8], None)), large[:6, :8])
    plane = RNG.random((9, 12), dtype=np.float32)
    msg = encode_depth(plane[:6, :8], None)
    np.testing.assert_array_equal(decode_depth(msg), plane[:6, :8])


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: encode_depth(np.zeros((2, 2), np.uint16), None), "uint16"),
        (lambda: encode_depth(np.zeros((2, 2, 1), np.float32), None), r"\(2, 2, 1\)"),
        (lambda: encode_depth(np.zeros((0, 2), np.float32), None), r"\(0, 2\)"),
        (lambda: encode_depth(np.zeros((2, 2), np.float32), None, "64FC1"), "64FC1"),
        (lambda: encode_rgb(np.zeros((2, 2), np.uint8), None), r"\(2, 2\)"),
        (lambda: encode_rgb(np.zeros((2, 2, 3), np.float32), None), "float32"),
        (lambda: encode_rgb(RGB, None, "mono8"), "mono8"),
    ],
)
def test_encode_refuses(call, word):
    with pytest.raises(ImageFormatError, match=word):
        call()


def test_real_messages_with_field_checks(monkeypatch):
    """The classes of sensor_msgs accept what is encoded, with their checks on."""
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    messages = pytest.importorskip("sensor_msgs.msg", reason="no ROS 2 messages installed")
    headers = pytest.importorskip("std_msgs.msg", reason="no ROS 2 messages installed")
    header = headers.Header(frame_id="camera")
    header.stamp.sec = 12

    def image():
        return messages.Image(check_fields=True)

    msg = encode_rgb(RGB, header, "bgr8", image)
    assert msg.header.frame_id == "camera"
    np.testing.assert_array_equal(decode(msg), RGB)
    depth_m = np.array([[1.0, np.nan], [2.5, 70.0]], np.float32)
    np.testing.assert_array_equal(
        decode_depth(encode_depth(depth_m, header, "32FC1", image)), depth_m
    )
    millimetres = encode_depth(depth_m, header, "16UC1", image)
    np.testing.assert_allclose(decode_depth(millimetres), [[1.0, np.nan], [2.5, np.nan]])
    with pytest.raises(ImageFormatError, match="0x0"):
        decode(messages.Image(encoding="rgb8"))


@pytest.mark.parametrize(("extension", "tolerance"), [(".png", 0), (".jpg", 8)])
def test_compressed(extension, tolerance):
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[:48, :64]
    picture = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], -1).clip(0, 255).astype(np.uint8)
    data = cv2.imencode(extension, picture[..., ::-1])[1].tobytes()
    msg = SimpleNamespace(format="bgr8; compressed", data=array.array("B", data))
    assert np.abs(decode(msg).astype(int) - picture).max() <= tolerance
    for part in (data[: len(data) // 2], data[:3], b"", b"GIF89a" + data):
        with pytest.raises(ImageFormatError, match="format 'bgr8; compressed'"):
            decode(SimpleNamespace(format="bgr8; compressed", data=array.array("B", part)))


def test_compressed_depth_and_damage_are_refused():
    with pytest.raises(ImageFormatError, match="compressed depth"):
        decode(SimpleNamespace(format="16UC1; compressedDepth png", data=b"x"))
    damaged = b"\x89PNG\r\n\x1a\n" + bytes(200) + b"IEND\xaeB`\x82"
    with pytest.raises(ImageFormatError, match="damaged"):
        decode(SimpleNamespace(format="png", data=damaged))


def test_without_opencv_plain_encodings_still_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    np.testing.assert_array_equal(decode(message(pack(RGB, (2, 1, 0), "B"), 8, "bgr8")), RGB)
    with pytest.raises(ImageFormatError, match="install opencv-python-headless"):
        decode(message([bytes(12)] * 4, 12, "bayer_rggb8"))


def test_cost_at_camera_size():
    """Median of many: message cost must stay small beside 5 ms (measured: 0.3 ms at most)."""
    picture = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    depth_m = RNG.random((480, 640), dtype=np.float32)
    msg = encode_rgb(picture, None, "bgr8")
    for call, limit_ms in (
        (lambda: decode(msg), 3.0),
        (lambda: encode_rgb(picture, None), 3.0),
        (lambda: encode_depth(depth_m, None), 3.0),
    ):
        times = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        assert sorted(times)[5] < limit_ms  # the quartile: other work shares this machine


def test_every_listed_encoding_decodes():
    for name, encoding in ENCODINGS.items():
        msg = ImageData(None, 4, 4, name, 0, 4 * encoding.pixel_bytes, bytes(64 * 2))
        assert decode(msg).shape == (4, 4, 3)


@pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_with_and_without_opencv_the_pixels_are_the_same(encoding, padding, monkeypatch):
    pytest.importorskip("cv2")
    channels = ENCODINGS[encoding].channels
    rows = np.random.default_rng(4).integers(0, 256, (6, 8 * channels + padding), np.uint8)
    msg = ImageData(None, 6, 8, encoding, 0, rows.shape[1], rows.tobytes())
    fast = decode(msg)
    monkeypatch.setattr(encodings, "_opencv_or_none", lambda: None)
    np.testing.assert_array_equal(decode(msg), fast)
