"""Image quality: PSNR, SSIM and mean absolute error, with the data range always stated."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ddfd_training.losses_image import SSIM_SIGMA_PX, SSIM_WINDOW_PX, ssim_from_moments
from ddfd_training.metrics_depth import to_numpy


def _as_images(values: Any) -> np.ndarray:
    """``[N, H, W, C]`` float32 from a tensor (N)CHW or an array HW, HWC or NHWC."""
    is_tensor = hasattr(values, "detach")
    array = to_numpy(values).astype(np.float32)
    if is_tensor and array.ndim >= 3:
        array = np.moveaxis(array, -3, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    return array


def _mean_ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Mean SSIM of two ``[H, W, C]`` images over the windows that lie inside."""
    half = SSIM_WINDOW_PX // 2
    # Double precision: the variances are differences of nearly equal numbers. Scaled to [0, 1].
    a, b = a.astype(np.float64) / data_range, b.astype(np.float64) / data_range

    def window_mean(image: np.ndarray) -> np.ndarray:
        size = (SSIM_WINDOW_PX, SSIM_WINDOW_PX)
        blurred = cv2.GaussianBlur(image, size, SSIM_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
        return blurred[half:-half, half:-half]

    moments = [window_mean(image) for image in (a, b, a * a, b * b, a * b)]
    return float(ssim_from_moments(*moments, data_range=1.0).mean())


def image_metrics(pred: Any, target: Any, data_range: float = 1.0) -> dict[str, float]:
    """PSNR, SSIM and mean absolute error of an image, or their means over a batch.

    Args:
        pred: Tensor ``[3, H, W]`` or ``[N, 3, H, W]``, or array ``[H, W]``, ``[H, W, C]`` or
            ``[N, H, W, C]``, values in [0, ``data_range``].
        target: Same kind and shape.
        data_range: Largest possible value: 1 for floats, 255 for bytes.

    Returns:
        ``psnr`` in dB (infinite for equal images), ``ssim`` (Gaussian window 11x11, sigma 1.5, no
        border, mean over channels), ``mae`` in units of ``data_range``.

    Raises:
        ValueError: The shapes differ or are too small, or values exceed ``data_range``.
    """
    a, b = _as_images(pred), _as_images(target)
    if a.shape != b.shape or min(a.shape[1:3]) < SSIM_WINDOW_PX:
        raise ValueError(
            f"image metrics: expected two images of one shape, at least {SSIM_WINDOW_PX} px each "
            f"way, got {a.shape} and {b.shape} (as [N, H, W, C])"
        )
    top = float(max(a.max(), b.max()))
    if not top <= data_range * 1.01:
        raise ValueError(
            f"image metrics: expected values up to data_range = {data_range}, got {top}; "
            "give data_range=255 for 8-bit images, or clip"
        )
    rows = []
    for x, y in zip(a, b, strict=True):
        difference = (x - y) / data_range
        mean_square = float(np.mean(difference * difference, dtype=np.float64))
        rows.append(
            (
                -10.0 * np.log10(mean_square) if mean_square > 0 else float("inf"),
                _mean_ssim(x, y, data_range),
                float(np.mean(np.abs(difference), dtype=np.float64)),
            )
        )
    psnr, ssim, mae = (float(value) for value in np.mean(rows, axis=0))
    return {"psnr": psnr, "ssim": ssim, "mae": mae}
