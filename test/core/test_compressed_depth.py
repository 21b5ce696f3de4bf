"""Depth in the terms of image_transport's compressedDepth."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from ddfd_ros.core.compressed_depth import (
    compressed_depth_format,
    decode_compressed_depth,
    encode_compressed_depth,
    quantisation,
)
from ddfd_ros.core.errors import ImageFormatError

cv2 = pytest.importorskip("cv2")

NEAR_M, FAR_M = 0.5, 10.0


def depths():
    """All distances of the range, and what is none."""
    plane = np.linspace(NEAR_M, FAR_M, 60 * 80, dtype=np.float32).reshape(60, 80)
    plane[0, :3] = np.nan, np.inf, -np.inf
    return plane


def message(data, encoding="32FC1", kind=None):
    return SimpleNamespace(format=kind or compressed_depth_format(encoding), data=data)


@pytest.mark.parametrize(
    ("near_m", "far_m", "step_at_far"),
    [(0.5, 10.0, 0.001), (0.1, 10.0, 0.0016), (0.5, 80.0, 0.0025), (2.0, 80.0, 0.001)],
)
def test_32fc1_keeps_the_share_of_depth_that_it_says(near_m, far_m, step_at_far):
    depth_m = np.linspace(near_m, far_m, 5000).reshape(50, 100)  # of double precision too
    data = encode_compressed_depth(depth_m, "32FC1", near_m, far_m)
    got = decode_compressed_depth(message(data))
    assert got.dtype == np.float32
    np.testing.assert_array_less(np.abs(got - depth_m), 0.51 * step_at_far * depth_m**2 / far_m)


def test_32fc1_is_read_as_image_transport_reads_it():
    """Its decoder answers A / (code - B), NaN for 0; the header is an int and two floats."""
    data = encode_compressed_depth(depths(), "32FC1", NEAR_M, FAR_M)
    kind, a, b = struct.unpack_from("<iff", data)
    codes = cv2.imdecode(np.frombuffer(data, np.uint8, offset=12), cv2.IMREAD_UNCHANGED)
    assert (kind, codes.dtype, codes.shape) == (0, np.uint16, (60, 80))
    assert (a, b) == quantisation(NEAR_M, FAR_M)
    with np.errstate(divide="ignore"):
        read = np.where(codes > 0, a / (codes.astype(np.float64) - b), np.nan)
    assert np.isnan(read[0, :3]).all()
    assert np.isfinite(read).sum() == read.size - 3
    np.testing.assert_allclose(read[0, 3:], depths()[0, 3:], rtol=1e-3)
    np.testing.assert_allclose(read[-1, -1], FAR_M, rtol=1e-6)
    assert compressed_depth_format("32FC1") == "32FC1; compressedDepth png"


def test_16uc1_keeps_millimetres():
    data = encode_compressed_depth(depths(), "16UC1", NEAR_M, FAR_M)
    got = decode_compressed_depth(message(data, "16UC1"))
    np.testing.assert_allclose(got[0, 3:], depths()[0, 3:], atol=0.00051, rtol=0)
    assert np.isnan(got[0, :3]).all()


def test_what_lies_outside_of_the_range_is_unknown_and_not_its_end():
    depth_m = np.array([[0.1, 0.4, 0.5, 10.0, 11.0, 1e30, 0.0, -3.0]], dtype=np.float32)
    got = decode_compressed_depth(message(encode_compressed_depth(depth_m, "32FC1", 0.5, 10.0)))
    # Codes are left over below 0.5 m, since 0.1 % at 10 m needs few: those distances are kept.
    near = [0.4, 0.5, 10.0]
    np.testing.assert_allclose(got[0, 1:4], near, rtol=1e-3)
    assert np.isnan(got[0, [0, 4, 5, 6, 7]]).all()


def png(values):
    return bytes(12) + cv2.imencode(".png", values)[1].tobytes()


def promising(data, width, height):
    return data[:28] + struct.pack(">II", width, height) + data[36:]


GOOD = encode_compressed_depth(depths(), "32FC1", NEAR_M, FAR_M)
BAD = {
    "nothing": (message(b""), "PNG inside"),
    "header only": (message(GOOD[:12]), "PNG inside"),
    "rvl": (message(bytes(400), kind="16UC1; compressedDepth rvl"), "PNG inside"),
    "colour": (message(GOOD, kind="rgb8; png compressed bgr8"), "expected compressedDepth"),
    "cut": (message(GOOD[:-20]), "cut short"),
    "bits flipped": (message(GOOD[:60] + bytes(40) + GOOD[100:]), "damaged"),
    "8 bits": (message(png(np.zeros((4, 4), np.uint8))), "16 bits"),
    "three channels": (message(png(np.zeros((4, 4, 3), np.uint16))), "one channel"),
    "gigabytes": (message(promising(GOOD, 60_000, 60_000)), "at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_depth_is_refused(name):
    bad, words = BAD[name]
    with pytest.raises(ImageFormatError, match=words):
        decode_compressed_depth(bad)


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        (np.zeros((4, 4), np.uint16), "32FC1"),
        (np.zeros((4, 4, 1)), "32FC1"),
        (np.ones((4, 4)), "64FC1"),
    ],
)
def test_what_cannot_be_encoded_is_refused(values, encoding):
    with pytest.raises(ImageFormatError, match="expected"):
        encode_compressed_depth(values, encoding, NEAR_M, FAR_M)
