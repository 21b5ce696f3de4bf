"""How the colour encodings of ``sensor_msgs/Image`` lay out a pixel, and how each becomes RGB.

Names are those of ``sensor_msgs/image_encodings.hpp``. 16-bit values are brought to 8 bits by
keeping the high byte (``value >> 8``): a camera that puts 10 or 12 bits into the low end of a
16-bit word gives a dark image and should be configured to 8 bits or to full scale. Bayer mosaics
and YUV 4:2:2 (BT.601, video range) go through OpenCV, imported when first needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from ddfd_ros.core.errors import ImageFormatError

Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Encoding:
    """Layout of one encoding.

    Attributes:
        channels: Values per pixel, as they lie in the data.
        bytes_per_value: 1 or 2.
        to_rgb: From uint8 ``[H, W, channels]`` (high bytes where there are two) to uint8
            ``[H, W, 3]``.
        width_multiple: Image widths the encoding allows.
        min_side: Smallest height and width it allows.
    """

    channels: int
    bytes_per_value: int
    to_rgb: Convert
    width_multiple: int = 1
    min_side: int = 1

    @property
    def pixel_bytes(self) -> int:
        """Bytes per pixel."""
        return self.channels * self.bytes_per_value


def load_opencv(what: str) -> ModuleType:
    """Import OpenCV for ``what``; ImageFormatError with the remedy when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise ImageFormatError(
            f"{what}: expected OpenCV to convert it, got {error}; install "
            "opencv-python-headless<5 (or python3-opencv), or let the camera send rgb8"
        ) from error
    return cv2


def _same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def _pick(red: int, green: int, blue: int, code: str) -> Convert:
    """Copy three of the channels: ``code`` says the same to OpenCV, which is ten times faster."""

    def convert(pixels: np.ndarray) -> np.ndarray:
        cv2 = _opencv_or_none()
        # OpenCV walks over padded rows, but would copy values that lie apart, as high bytes do.
        if cv2 is not None and pixels.strides[2] == 1 and pixels.strides[1] == pixels.shape[2]:
            converted: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, code))
            return converted
        rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
        for target, source in enumerate((red, green, blue)):
            rgb[..., target] = pixels[..., source]  # one strided copy each: numpy's fastest way
        return rgb

    return convert


@lru_cache(maxsize=1)
def _opencv_or_none() -> ModuleType | None:
    try:
        return load_opencv("colours")
    except ImageFormatError:
        return None


def _opencv(code: str) -> Convert:
    def convert(pixels: np.ndarray) -> np.ndarray:
        cv2 = load_opencv("Bayer and YUV images")
        rgb: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, code))
        return rgb

    return convert


def _bayer(pattern: str, bytes_per_value: int) -> Encoding:
    # ROS names a mosaic by its first two rows and columns, OpenCV's constants by the second and
    # third: what begins with R G / G B is "BG" there.
    code = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}[pattern]
    return Encoding(1, bytes_per_value, _opencv(f"COLOR_Bayer{code}2RGB"), min_side=3)


_UYVY = Encoding(2, 1, _opencv("COLOR_YUV2RGB_UYVY"), width_multiple=2)
_YUYV = Encoding(2, 1, _opencv("COLOR_YUV2RGB_YUY2"), width_multiple=2)

ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding(3, 1, _same),
    "bgr8": Encoding(3, 1, _pick(2, 1, 0, "COLOR_BGR2RGB")),
    "rgba8": Encoding(4, 1, _pick(0, 1, 2, "COLOR_RGBA2RGB")),
    "bgra8": Encoding(4, 1, _pick(2, 1, 0, "COLOR_BGRA2RGB")),
    "mono8": Encoding(1, 1, _pick(0, 0, 0, "COLOR_GRAY2RGB")),
    "rgb16": Encoding(3, 2, _same),
    "bgr16": Encoding(3, 2, _pick(2, 1, 0, "COLOR_BGR2RGB")),
    "rgba16": Encoding(4, 2, _pick(0, 1, 2, "COLOR_RGBA2RGB")),
    "bgra16": Encoding(4, 2, _pick(2, 1, 0, "COLOR_BGRA2RGB")),
    "mono16": Encoding(1, 2, _pick(0, 0, 0, "COLOR_GRAY2RGB")),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
}
"""Every colour encoding that ``image_codec.decode`` takes."""

for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    ENCODINGS[f"bayer_{_pattern}8"] = _bayer(_pattern, 1)
    ENCODINGS[f"bayer_{_pattern}16"] = _bayer(_pattern, 2)
