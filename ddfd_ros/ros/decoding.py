"""From an image message to pixels; ``cv_bridge`` for encodings that the codec does not know."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ddfd_ros.core.encodings import ENCODINGS
from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import DEPTH_ENCODINGS, decode


def decode_message(message: Any) -> np.ndarray:
    """The picture in an ``Image`` or ``CompressedImage``, uint8 ``[H, W, 3]`` RGB.

    Raises:
        ImageFormatError: Neither the codec nor an installed ``cv_bridge`` can read it.
    """
    encoding = getattr(message, "encoding", None)
    if encoding is None or encoding in ENCODINGS or encoding in DEPTH_ENCODINGS:
        return decode(message)
    bridge = _bridge()
    if bridge is None:
        return decode(message)  # which names the encodings there are
    try:
        rgb = np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise ImageFormatError(
            f"encoding: expected one that cv_bridge converts to rgb8, got {encoding!r} "
            f"({' '.join(str(error).split())}); configure the camera driver for another"
        ) from error
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageFormatError(
            f"encoding {encoding!r}: expected uint8 [H, W, 3] from cv_bridge, got {rgb.dtype} "
            f"{rgb.shape}; configure the camera driver for another encoding"
        )
    return rgb


@lru_cache(maxsize=1)
def _bridge() -> Any | None:
    """A ``CvBridge``; None where it is not installed, or was built for another NumPy or OpenCV."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except (ImportError, AttributeError, SystemError, RuntimeError):
        return None
