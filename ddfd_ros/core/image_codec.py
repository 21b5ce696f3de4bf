"""ROS image messages to arrays and back, without ``cv_bridge``.

Messages are duck-typed: any object with the fields of ``sensor_msgs/Image`` will do, so this
module needs no ROS. Decoding copies nothing where the layout allows (``rgb8``; ``32FC1`` in this
machine's byte order); such an array shares its memory with the message's ``data``. Row padding
(``step`` larger than a row) is skipped by strides. Everything that contradicts the message's own
fields raises ImageFormatError with what was expected, what came, and what to do.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddfd_ros.core.compressed import decode_compressed
from ddfd_ros.core.encodings import ENCODINGS
from ddfd_ros.core.errors import ImageFormatError

DEPTH_ENCODINGS: dict[str, int] = {"32FC1": 4, "16UC1": 2}
"""Depth encodings (REP 118: metres, millimetres) and their bytes per pixel."""

MAX_DEPTH_16UC1_M = 65.535
"""Farthest depth in metres that fits 16 bits of millimetres."""


@dataclass
class ImageData:
    """The fields of ``sensor_msgs/Image`` for use without ROS."""

    header: Any = None
    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: Any = field(default_factory=lambda: array.array("B"))


def decode(msg: Any) -> np.ndarray:
    """The picture in an ``Image`` or ``CompressedImage`` message, uint8 ``[H, W, 3]`` RGB.

    Encodings: see ``encodings.ENCODINGS``; 16-bit values keep their high byte. For ``rgb8`` the
    array shares the message's memory; do not write to it while others read the message.

    Raises:
        ImageFormatError: See the module.
    """
    if not hasattr(msg, "encoding") and hasattr(msg, "format"):
        return decode_compressed(msg)
    encoding = ENCODINGS.get(msg.encoding)
    if encoding is None:
        hint = "configure the camera driver for one"
        if msg.encoding in DEPTH_ENCODINGS:
            hint = "it is depth: take the camera's colour image"
        raise ImageFormatError(
            f"encoding: expected one of {', '.join(sorted(ENCODINGS))}, got {msg.encoding!r}; "
            f"{hint}"
        )
    _check_size(msg, encoding.width_multiple, encoding.min_side)
    size, channels = encoding.bytes_per_value, encoding.channels
    pixels = _view(msg, encoding.pixel_bytes, size, np.dtype(np.uint8))
    if size == 2:
        high = 0 if msg.is_bigendian else 1
        pixels = pixels.reshape(msg.height, msg.width, channels, 2)[..., high]
    return encoding.to_rgb(pixels)


def decode_depth(msg: Any) -> np.ndarray:
    """The depth in an ``Image`` message, float32 ``[H, W]`` in metres, NaN where unknown.

    ``32FC1`` is taken as it is (NaN and infinities of REP 117 kept); in this machine's byte order
    it shares the message's memory. ``16UC1`` is millimetres, 0 means unknown.

    Raises:
        ImageFormatError: See the module.
    """
    size = DEPTH_ENCODINGS.get(msg.encoding)
    if size is None:
        raise ImageFormatError(
            f"depth encoding: expected one of {', '.join(DEPTH_ENCODINGS)}, got "
            f"{msg.encoding!r}; REP 118 allows no other"
        )
    _check_size(msg, 1, 1)
    order = ">" if msg.is_bigendian else "<"
    dtype = np.dtype(f"{order}u2" if size == 2 else f"{order}f4")
    values = _view(msg, size, size, dtype)[..., 0]
    if size == 2:
        depth_m = values.astype(np.float32)
        depth_m *= np.float32(1e-3)
        depth_m[values == 0] = np.nan
        return depth_m
    return values.astype(np.float32, copy=False)


def encode_depth(
    depth_m: np.ndarray,
    header: Any,
    encoding: str = "32FC1",
    message_type: Callable[[], Any] = ImageData,
) -> Any:
    """Depth (or any other float plane, such as its standard deviation) as an ``Image`` message.

    Args:
        depth_m: float ``[H, W]`` in metres, NaN where unknown.
        header: Assigned as it is.
        encoding: ``32FC1``: metres, every value kept. ``16UC1``: millimetres; what is not finite,
            not positive or beyond 65.535 m becomes 0, REP 118's "unknown".
        message_type: Makes the empty message, usually ``sensor_msgs.msg.Image``.

    Raises:
        ImageFormatError: Another shape, type or encoding.
    """
    return _message(depth_values(depth_m, encoding), header, encoding, message_type)


def depth_values(depth_m: np.ndarray, encoding: str) -> np.ndarray:
    """The pixels of a depth image, little-endian ``[H, W]``; else as :func:`encode_depth`."""
    if depth_m.ndim != 2 or depth_m.dtype.kind != "f" or 0 in depth_m.shape:
        raise ImageFormatError(
            f"depth: expected a float array [H, W] in metres, got {depth_m.dtype} {depth_m.shape}"
        )
    if encoding == "32FC1":
        return np.ascontiguousarray(depth_m, dtype="<f4")
    if encoding == "16UC1":
        with np.errstate(invalid="ignore"):
            valid = (depth_m > 0) & (depth_m <= MAX_DEPTH_16UC1_M)  # NaN compares false
            return np.where(valid, np.rint(depth_m * 1000.0), 0.0).astype("<u2")
    raise ImageFormatError(
        f"depth encoding: expected one of {', '.join(DEPTH_ENCODINGS)}, got {encoding!r}"
    )


def encode_rgb(
    rgb: np.ndarray,
    header: Any,
    encoding: str = "rgb8",
    message_type: Callable[[], Any] = ImageData,
) -> Any:
    """A picture as an ``Image`` message.

    Args:
        rgb: uint8 ``[H, W, 3]``, RGB.
        header: Assigned as it is.
        encoding: ``rgb8`` or ``bgr8``.
        message_type: Makes the empty message, usually ``sensor_msgs.msg.Image``.

    Raises:
        ImageFormatError: Another shape, type or encoding.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ImageFormatError(
            f"picture: expected a uint8 array [H, W, 3], got {rgb.dtype} {rgb.shape}"
        )
    if encoding not in ("rgb8", "bgr8"):
        raise ImageFormatError(f"picture encoding: expected rgb8 or bgr8, got {encoding!r}")
    values = ENCODINGS[encoding].to_rgb(rgb)  # swapping red and blue is its own inverse
    return _message(np.ascontiguousarray(values), header, encoding, message_type)


def encode_mono(
    plane: np.ndarray, header: Any, message_type: Callable[[], Any] = ImageData
) -> Any:
    """A uint8 plane ``[H, W]``, such as a mask, as a ``mono8`` ``Image`` message.

    Arguments and errors otherwise as of :func:`encode_rgb`.
    """
    if plane.ndim != 2 or plane.dtype != np.uint8 or 0 in plane.shape:
        raise ImageFormatError(
            f"plane: expected a uint8 array [H, W], got {plane.dtype} {plane.shape}"
        )
    return _message(np.ascontiguousarray(plane), header, "mono8", message_type)


def _message(
    values: np.ndarray, header: Any, encoding: str, message_type: Callable[[], Any]
) -> Any:
    msg = message_type()
    msg.header = header
    msg.height, msg.width = values.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = values.strides[0]
    # frombytes copies the buffer at once; an ndarray or a memoryview handed to the message (or to
    # array.array's constructor) would be walked byte by byte.
    data = array.array("B")
    data.frombytes(values.data.cast("B"))
    msg.data = data
    return msg


def _check_size(msg: Any, width_multiple: int, min_side: int) -> None:
    if min(msg.width, msg.height) < min_side:
        raise ImageFormatError(
            f"{msg.encoding} image: expected width and height of at least {min_side}, got "
            f"{msg.width}x{msg.height}; the camera driver sent an empty image"
        )
    if msg.width % width_multiple:
        raise ImageFormatError(
            f"{msg.encoding} image: expected a width divisible by {width_multiple}, got "
            f"{msg.width}; two pixels share their colour: choose an even width in the driver"
        )


def _view(msg: Any, pixel_bytes: int, value_bytes: int, dtype: np.dtype) -> np.ndarray:
    """The data of a message as ``dtype`` ``[H, W, values per pixel]``, without rows' padding."""
    row_bytes = msg.width * pixel_bytes
    if msg.step < row_bytes or msg.step % value_bytes:
        raise ImageFormatError(
            f"step: expected at least {row_bytes} bytes for {msg.width} pixels of "
            f"{msg.encoding}, in multiples of {value_bytes}, got {msg.step}; the driver must set "
            "it to the full row length in bytes"
        )
    data = msg.data
    if not isinstance(data, (array.array, bytes, bytearray, memoryview, np.ndarray)):
        data = bytes(data)
    buffer = np.frombuffer(data, np.uint8)
    needed = msg.step * (msg.height - 1) + row_bytes  # some drivers omit the last row's padding
    if buffer.size < needed:
        raise ImageFormatError(
            f"data: expected {needed} bytes for {msg.width}x{msg.height} {msg.encoding} with step "
            f"{msg.step}, got {buffer.size}; the message was cut short or its fields are wrong"
        )
    shape = (msg.height, msg.width, pixel_bytes // dtype.itemsize)
    strides = (msg.step, pixel_bytes, dtype.itemsize)
    return np.ndarray(shape, dtype, buffer.data, strides=strides)
