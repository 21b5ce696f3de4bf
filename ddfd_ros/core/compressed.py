"""JPEG and PNG in ``sensor_msgs/CompressedImage``, through OpenCV, imported when first needed.

``image_transport`` writes into ``format`` the image's encoding and that of the file's pixels:
``rgb8; jpeg compressed bgr8``. Others write only ``jpeg`` or ``png``. A Bayer image may lie in the
file in three ways: as the mosaic (nothing behind ``compressed``, or the mosaic's name), as a
picture in colour (``bgr8``), or, from JPEG publishers since ROS 2 Humble, in grey (``mono8``),
which has lost its colours.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ddfd_ros.core.encodings import ENCODINGS, Encoding, load_opencv
from ddfd_ros.core.errors import ImageFormatError

_JPEG_BEGIN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_DEPTH = ("16UC1", "32FC1")  # the transport "compressed" takes the former as a PNG of 16 bits
_TAIL_BYTES = 1 << 16  # MJPEG cameras pad behind the end mark
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {
    0xC4,
    0xC8,
    0xCC,
}  # start-of-frame markers, ITU-T T.81 B.1.1.3

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded: a damaged header may ask for gigabytes in a few bytes."""


def decode_compressed(msg: Any) -> np.ndarray:
    """The picture in a ``CompressedImage`` message, uint8 ``[H, W, 3]`` RGB.

    An orientation noted in the file is ignored: the camera's calibration belongs to the pixels as
    they were read out. A Bayer mosaic becomes colours as in an ``Image``.

    Raises:
        ImageFormatError: No complete JPEG or PNG picture, a compressed depth image, or a Bayer
            image of which ``format`` does not tell how it lies in the file.
    """
    what = f"compressed image (format {msg.format!r})"
    recorded = msg.format.partition(";")[0].strip()
    if "compresseddepth" in msg.format.lower() or recorded in _DEPTH:
        raise ImageFormatError(
            f"{what}: expected a colour picture, got compressed depth; subscribe to the camera's "
            "colour topic"
        )
    data = bytes(msg.data)
    check_file(data, what)
    if "bayer" in msg.format.lower():
        return _from_bayer(data, msg.format, what)
    cv2 = load_opencv(what)
    bgr = file_pixels(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, what)
    rgb: np.ndarray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def is_png(data: bytes) -> bool:
    """Whether a file begins as a PNG does."""
    return data.startswith(_PNG_BEGIN)


def check_file(data: bytes, what: str) -> None:
    """Refuse, before it is decoded, what is no whole JPEG or PNG file.

    Raises:
        ImageFormatError: It is none, it was cut short, or it promises too many pixels; the message
            begins with ``what``.
    """
    tail = data[-_TAIL_BYTES:]
    jpeg, png = data.startswith(_JPEG_BEGIN), is_png(data)
    if not (jpeg or png):
        raise ImageFormatError(
            f"{what}: expected JPEG or PNG data, got {len(data)} bytes that begin with "
            f"{data[:4].hex(' ') or 'nothing'}; use the transport 'compressed' or 'raw'"
        )
    if (_JPEG_END if jpeg else _PNG_END) not in tail:
        raise ImageFormatError(
            f"{what}: expected a complete {'JPEG' if jpeg else 'PNG'} file, got {len(data)} bytes "
            "without its end mark; the message was cut short"
        )
    if (size := _declared_size(data)) is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageFormatError(
            f"{what}: expected at most {MAX_PIXELS} pixels, got a header that promises "
            f"{size[0]}x{size[1]} in {len(data)} bytes; the data is damaged"
        )


def encode_compressed(rgb: np.ndarray, kind: str = "jpeg", quality: int = 90) -> bytes:
    """A picture as a file's content.

    Args:
        rgb: uint8 ``[H, W, 3]``, RGB.
        kind: ``jpeg`` or ``png``.
        quality: Of a JPEG, 1 to 100.

    Raises:
        ImageFormatError: Another kind, or what OpenCV cannot encode.
    """
    cv2 = load_opencv("compressing images")
    options = {
        "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]),
        "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),  # 1: five times faster, little larger
    }
    if kind not in options:
        raise ImageFormatError(f"file format: expected one of {sorted(options)}, got {kind!r}")
    suffix, flags = options[kind]
    done, content = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    if not done:
        raise ImageFormatError(f"compressing: expected a {kind} file, got none from OpenCV")
    return bytes(content)


def encoded_format(kind: str) -> str:
    """What image_transport calls a file of ``encode_compressed``: the field ``format``."""
    return f"rgb8; {kind} compressed bgr8"


def _from_bayer(data: bytes, format_text: str, what: str) -> np.ndarray:
    """The picture in a file that was made of a Bayer image, RGB."""
    cv2 = load_opencv(what)
    pixels = file_pixels(data, cv2.IMREAD_UNCHANGED, what)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    recorded, _, rest = format_text.partition(";")
    inside = rest.partition("compressed")[2].strip()
    if pixels.ndim == 3:
        code = "COLOR_BGR2RGB" if pixels.shape[2] == 3 else "COLOR_BGRA2RGB"
        rgb: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, code))
        return rgb
    if inside.startswith("mono"):
        return ENCODINGS["mono8"].to_rgb(pixels[..., None])
    mosaic = _mosaic(inside or recorded.strip(), what)
    if min(pixels.shape) < mosaic.min_side:
        raise ImageFormatError(
            f"{what}: expected width and height of at least {mosaic.min_side}, got "
            f"{pixels.shape[1]}x{pixels.shape[0]}; the camera driver sent an empty image"
        )
    return mosaic.to_rgb(pixels[..., None])


def _mosaic(name: str, what: str) -> Encoding:
    """The mosaic of this name."""
    if name not in ENCODINGS or not name.startswith("bayer_"):
        known = ", ".join(sorted(one for one in ENCODINGS if one.startswith("bayer_")))
        raise ImageFormatError(
            f"{what}: expected one of {known}, got {name!r} for a file with one channel, so its "
            "colours cannot be known; subscribe to the camera's raw image, or let it send rgb8"
        )
    return ENCODINGS[name]


def file_pixels(data: bytes, flags: int, what: str) -> np.ndarray:
    """The values in a file as OpenCV decodes them.

    Raises:
        ImageFormatError: OpenCV cannot; the message begins with ``what``.
    """
    cv2 = load_opencv(what)
    try:
        pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageFormatError(f"{what}: expected a picture, got {error}") from error
    if pixels is None:
        raise ImageFormatError(
            f"{what}: expected a picture, got {len(data)} bytes that OpenCV cannot decode; the "
            "data is damaged"
        )
    return pixels


def _declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a file's header; None where it does not get so far."""
    if is_png(data):  # the first chunk is IHDR, its first fields are the sides
        return struct.unpack_from(">II", data, 16) if len(data) >= 24 else None
    at = 2
    while at + 9 <= len(data):  # segments: FF, marker, length without these two, content
        if data[at] != 0xFF:
            return None
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length
    return None
