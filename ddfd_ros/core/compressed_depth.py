"""Depth in ``sensor_msgs/CompressedImage`` as image_transport's ``compressedDepth`` has it.

The data are a header of twelve bytes (a number for the kind, two parameters A and B) and a PNG of
16 bits. Of 32FC1 the PNG holds quantised inverse depth, depth = A / (value - B) metres, so near
depth is finer than far one, as blur tells it; of 16UC1, millimetres. 0 is unknown in both.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ddfd_ros.core.compressed import MAX_PIXELS, png_is_whole, png_size
from ddfd_ros.core.encodings import load_opencv
from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import encode_depth

_HEADER = struct.Struct("<iff")
_INVERSE_DEPTH = 0
_MAX_CODE = 65_535
_STEPS_AT_FAR = 1000


def encode_compressed_depth(
    depth_m: np.ndarray, encoding: str, near_m: float, far_m: float
) -> bytes:
    """Depth as the data of a ``CompressedImage``.

    Args:
        depth_m: float ``[H, W]`` in metres; what is not finite is unknown.
        encoding: ``32FC1``: neighbouring values are 0.1 % of the depth apart at ``far_m`` and less
            nearer, unless the range is so wide that 16 bits are too few for that. ``16UC1``:
            millimetres.
        near_m: Least depth, in metres, that 32FC1 is to keep.
        far_m: Largest one; what lies beyond becomes unknown, as does what is nearer than 16 bits
            can say.

    Raises:
        ImageFormatError: Another shape, type or encoding, or what OpenCV cannot encode.
    """
    cv2 = load_opencv("compressing depth")
    if encoding == "16UC1":
        a = b = 0.0
        image = encode_depth(depth_m, None, encoding)
        codes = np.frombuffer(image.data, "<u2").reshape(depth_m.shape)
    else:
        encode_depth(depth_m, None, encoding)  # refuses what is no depth
        a, b = quantisation(near_m, far_m)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            values = np.rint(a / depth_m + b)
            inside = (values >= 1) & (values <= _MAX_CODE)  # NaN compares false
        codes = np.where(inside, values, 0.0).astype("<u2")
    flags = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # higher ones take longer for little
    done, content = cv2.imencode(".png", codes, flags)
    if not done:
        raise ImageFormatError("compressing depth: expected a PNG file, got none from OpenCV")
    return _HEADER.pack(_INVERSE_DEPTH, a, b) + bytes(content)


def quantisation(near_m: float, far_m: float) -> tuple[float, float]:
    """A and B for 32FC1, as single precision keeps them: ``far_m`` is code 1."""
    a = min(_STEPS_AT_FAR * far_m, (_MAX_CODE - 1) / (1 / near_m - 1 / far_m))
    a = float(np.float32(a))
    return a, float(np.float32(1 - a / far_m))


def compressed_depth_format(encoding: str) -> str:
    """What image_transport calls it: the field ``format``."""
    return f"{encoding}; compressedDepth png"


def decode_compressed_depth(msg: Any) -> np.ndarray:
    """The depth in a ``CompressedImage`` message, float32 ``[H, W]`` in metres, NaN where unknown.

    Raises:
        ImageFormatError: No compressed depth, not with PNG inside, or damaged.
    """
    what = f"compressed depth (format {msg.format!r})"
    kind = msg.format.lower()
    data = bytes(msg.data)
    png = data[_HEADER.size :]
    size = png_size(png)
    if "compresseddepth" not in kind or size is None:
        raise ImageFormatError(
            f"{what}: expected compressedDepth with PNG inside, got {len(data)} bytes without; "
            "record the raw depth topic"
        )
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageFormatError(
            f"{what}: expected at most {MAX_PIXELS} pixels, got a header that promises "
            f"{size[0]}x{size[1]} in {len(data)} bytes; the data is damaged"
        )
    if not png_is_whole(png):
        raise ImageFormatError(
            f"{what}: expected a complete PNG file, got {len(data)} bytes without its end mark; "
            "the message was cut short"
        )
    cv2 = load_opencv(what)
    try:
        codes = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageFormatError(f"{what}: expected a PNG, got {error}") from error
    if codes is None or codes.ndim != 2 or codes.dtype != np.uint16:
        raise ImageFormatError(
            f"{what}: expected a PNG of one channel of 16 bits, got a damaged or another one"
        )
    known = codes > 0
    depth_m = np.full(codes.shape, np.nan, dtype=np.float32)
    if "32fc1" in kind:
        _, a, b = _HEADER.unpack_from(data)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            depth_m[known] = np.float32(a) / (codes[known].astype(np.float32) - np.float32(b))
    else:
        depth_m[known] = codes[known].astype(np.float32) * np.float32(1e-3)
    return depth_m
