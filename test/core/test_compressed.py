"""Compressed Bayer images: what ``format`` says of them, and what lies in the file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import ImageData, decode

cv2 = pytest.importorskip("cv2")

COLOUR = (200, 100, 20)
PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def mosaic(pattern, dtype=np.uint8):
    """A plain picture of COLOUR as a sensor with this mosaic sees it."""
    cell = [COLOUR["rgb".index(letter)] for letter in pattern]
    plane = np.tile(np.array(cell).reshape(2, 2), (24, 32))
    return plane.astype(dtype) * (256 if dtype == np.uint16 else 1)


def decoded(format_text, pixels, suffix):
    data = cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    return decode(SimpleNamespace(format=format_text, data=data))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    ("bits", "suffix", "text"),
    [
        (8, ".png", "bayer_{}8; png compressed "),
        (16, ".png", "bayer_{}16; png compressed "),
        (8, ".png", "bayer_{0}8; png compressed bayer_{0}8"),
        (8, ".jpg", "bayer_{}8; jpeg compressed "),  # before ROS 2 Humble
        (8, ".jpg", "bayer_{0}8; jpeg compressed bayer_{0}8"),
        (8, ".png", "bayer_{}8; png"),
    ],
)
def test_a_mosaic_becomes_the_colours_of_the_raw_image(pattern, bits, suffix, text):
    plane = mosaic(pattern, np.uint16 if bits == 16 else np.uint8)
    height, width = plane.shape
    encoding, step = f"bayer_{pattern}{bits}", width * bits // 8
    raw = ImageData(
        None, height, width, encoding, 0, step, plane.astype(f"<u{bits // 8}").tobytes()
    )
    found = decoded(text.format(pattern), plane, suffix)
    assert np.abs(found[4:-4, 4:-4] - np.array(COLOUR)).max() <= (0 if suffix == ".png" else 3)
    if suffix == ".png":
        np.testing.assert_array_equal(found, decode(raw))


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".jpg", "bayer_rggb8; jpeg compressed bgr8"),
        (".png", "bayer_rggb8; png compressed bgr8"),
        (".png", "bayer_rggb16; png compressed bgr16"),
    ],
)
def test_what_the_publisher_made_colours_of_is_left_alone(suffix, text):
    bgr = np.full((48, 64, 3), COLOUR[::-1], np.uint8)
    pixels = bgr.astype(np.uint16) << 8 if "16" in text else bgr
    assert np.abs(decoded(text, pixels, suffix) - np.array(COLOUR)).max() <= 3


def test_what_the_publisher_made_grey_is_grey_and_no_mosaic():
    """ROS 2 since Humble turns a mosaic to grey before it makes a JPEG of it."""
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    found = decoded("bayer_rggb8; jpeg compressed mono8", grey, ".jpg")
    assert np.abs(found.astype(int) - grey[..., None]).max() <= 3


@pytest.mark.parametrize(
    "text",
    [
        "bayer; png compressed ",
        "bayer_rggb12; png compressed ",
        "bayer_rggb8; png compressed bgr8",
    ],
)
def test_a_mosaic_that_cannot_be_known_is_refused(text):
    with pytest.raises(
        ImageFormatError, match="expected one of bayer_bggr16, .* its colours cannot"
    ):
        decoded(text, mosaic("rggb"), ".png")


def test_a_mosaic_without_a_whole_cell_is_refused():
    with pytest.raises(ImageFormatError, match="at least 3, got 64x2"):
        decoded("bayer_rggb8; png compressed ", mosaic("rggb")[:2], ".png")


def test_depth_as_a_plain_png_is_no_picture():
    """As the raw image of that encoding is none."""
    depth_mm = np.full((48, 64), 1500, np.uint16)
    with pytest.raises(ImageFormatError, match="got compressed depth; subscribe to the camera's"):
        decoded("16UC1; png compressed ", depth_mm, ".png")
    assert decoded("mono16; png compressed ", depth_mm, ".png")[0, 0, 0] == 1500 >> 8
