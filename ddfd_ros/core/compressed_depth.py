"""Depth in ``sensor_msgs/CompressedImage`` as image_transport's ``compressedDepth`` has it.

The data are a header of twelve bytes (a number for the kind, two parameters A and B) and a PNG of
16 bits. Of 32FC1 the PNG holds quantised inverse depth, depth = A / (value - B) metres, so near
depth is finer than far one, as blur tells it; of 16UC1, millimetres. 0 is unknown in both.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ddfd_ros.core.compressed import check_file, file_pixels, is_png
from ddfd_ros.core.encodings import load_opencv
from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import depth_values

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
    values = depth_values(depth_m, encoding)
    if encoding == "16UC1":
        a, b, codes = 0.0, 0.0, values
    else:
        a, b = quantisation(near_m, far_m)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            inverse = np.rint(a / values + b)
            inside = (inverse >= 1) & (inverse <= _MAX_CODE)  # NaN compares false
        codes = np.where(inside, inverse, 0.0).astype("<u2")
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
    if "compresseddepth" not in kind or not is_png(png):
        raise ImageFormatError(
            f"{what}: expected compressedDepth with PNG inside, got {len(data)} bytes without; "
            "record the raw depth topic"
        )
    check_file(png, what)
    codes = file_pixels(png, load_opencv(what).IMREAD_UNCHANGED, what)
    if codes.ndim != 2 or codes.dtype != np.uint16:
        raise ImageFormatError(
            f"{what}: expected a PNG of one channel of 16 bits, got {codes.dtype} {codes.shape}"
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
