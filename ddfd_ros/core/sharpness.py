"""How sharp a camera is in focus, and softening the images of one that is sharper than a model's.

A network takes for defocus whatever spread its training pictures did not have in focus. Where a
camera is sharper there, that much is missing everywhere, and all blur is read too small. Variances
of blurs that follow one another add, so a Gaussian of the missing variance makes up for it:

    sigma^2 = sigma_model^2 - sigma_camera^2

A camera that is less sharp cannot be helped so; its blur is read too wide near the focus.
"""

from __future__ import annotations

import math

import numpy as np

from ddfd_ros.core.encodings import load_opencv

LEAST_PX = 0.2
"""A Gaussian narrower than this hardly reaches the next pixel."""
_PIXEL_VARIANCE = 1.0 / 12.0
"""Of a square pixel's own area along one axis, in its own unit."""


def sigma_at_scale(sigma_px: float, scale: float) -> float:
    """Spread in focus of an image scaled by ``scale``, from that of the image, both in pixels.

    Scaled down, each pixel gathers light over a larger area, which spreads a point by itself.
    """
    larger_pixels = max(1.0 - scale**2, 0.0) * _PIXEL_VARIANCE
    return math.sqrt((sigma_px * scale) ** 2 + larger_pixels)


def missing_px(model_px: float, camera_px: float) -> float:
    """Standard deviation of the Gaussian that makes a camera as soft as the model expects.

    Args:
        model_px: Spread in focus of the model's training pictures; 0: unknown.
        camera_px: That of the image as the network would see it; 0: unknown.

    Returns:
        In pixels; 0 where one is unknown, the camera is no sharper, or it would not be seen.
    """
    if model_px <= 0 or camera_px <= 0 or camera_px >= model_px:
        return 0.0
    missing = math.sqrt(model_px**2 - camera_px**2)
    return missing if missing >= LEAST_PX else 0.0


def soften(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur a uint8 image ``[H, W, 3]`` by a Gaussian."""
    result: np.ndarray = load_opencv("an image to be softened").GaussianBlur(
        image, (0, 0), sigma_px
    )
    return result


def with_detail(sharp_rgb: np.ndarray, image: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """An all-in-focus image with what softening its input took away; all uint8 ``[H, W, 3]``."""
    detail = image.astype(np.int16) - soft
    result: np.ndarray = (sharp_rgb.astype(np.int16) + detail).clip(0, 255).astype(np.uint8)
    return result
