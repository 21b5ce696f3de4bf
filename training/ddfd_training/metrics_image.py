"""Image quality: PSNR, SSIM and mean absolute error, with the data range always stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def _ssim_sum(a: np.ndarray, b: np.ndarray, data_range: float) -> tuple[float, int]:
    """Sum of SSIM over the windows of ``[H, W, C]`` images that lie inside, and their number."""
    half = SSIM_WINDOW_PX // 2
    # Double precision: the variances are differences of nearly equal numbers. Scaled to [0, 1].
    a, b = a.astype(np.float64) / data_range, b.astype(np.float64) / data_range

    def window_mean(image: np.ndarray) -> np.ndarray:
        size = (SSIM_WINDOW_PX, SSIM_WINDOW_PX)
        blurred = cv2.GaussianBlur(image, size, SSIM_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
        return blurred[half:-half, half:-half]

    moments = [window_mean(image) for image in (a, b, a * a, b * b, a * b)]
    similar = ssim_from_moments(*moments, data_range=1.0)
    return float(similar.sum()), int(similar.size)


IMAGE_METRICS = ("psnr", "ssim", "mae")


def mean_of_finite(values: Sequence[float]) -> float:
    """Mean without infinite and unknown values; of nothing but such, their plain mean.

    The PSNR of equal images is infinite: one such pair would hide all the others.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return float((finite if finite.size else array).mean())


@dataclass(frozen=True)
class ImageSums:
    """Sums over the values of images, from which every image metric follows; add them to pool."""

    values: int = 0
    square_error: float = 0.0
    absolute_error: float = 0.0
    windows: int = 0
    ssim: float = 0.0

    def __add__(self, other: ImageSums) -> ImageSums:
        """The sums over both sets of values."""
        return ImageSums(
            self.values + other.values,
            self.square_error + other.square_error,
            self.absolute_error + other.absolute_error,
            self.windows + other.windows,
            self.ssim + other.ssim,
        )

    def metrics(self) -> dict[str, float]:
        """The metrics of :data:`IMAGE_METRICS`; NaN where there is nothing."""
        if self.values == 0:
            return dict.fromkeys(IMAGE_METRICS, float("nan"))
        mean_square = self.square_error / self.values
        return {
            "psnr": -10.0 * float(np.log10(mean_square)) if mean_square > 0 else float("inf"),
            "ssim": self.ssim / self.windows,
            "mae": self.absolute_error / self.values,
        }


def _image_sums(pred: Any, target: Any, data_range: float) -> list[ImageSums]:
    """The sums of each image of a batch; arguments and errors as :func:`image_metrics`."""
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
    sums = []
    for x, y in zip(a, b, strict=True):
        difference = (x - y) / data_range
        similar, windows = _ssim_sum(x, y, data_range)
        sums.append(
            ImageSums(
                values=int(difference.size),
                square_error=float(np.sum(difference * difference, dtype=np.float64)),
                absolute_error=float(np.sum(np.abs(difference), dtype=np.float64)),
                windows=windows,
                ssim=similar,
            )
        )
    return sums


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
    return _means([sums.metrics() for sums in _image_sums(pred, target, data_range)])


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over images."""
    return {key: mean_of_finite([row[key] for row in rows]) for key in IMAGE_METRICS}


class ImageTable:
    """Image quality over a set, averaged both ways.

    Example:
        >>> table = ImageTable()
        >>> row = table.add(np.zeros((16, 16, 3)), np.full((16, 16, 3), 0.1))
        >>> round(table.result()["over_pixels"]["psnr"], 3)
        20.0
    """

    def __init__(self) -> None:
        self._images: list[ImageSums] = []

    def add(self, pred: Any, target: Any, data_range: float = 1.0) -> dict[str, float]:
        """Count one image or each of a batch; returns their own metrics, as image_metrics."""
        sums = _image_sums(pred, target, data_range)
        self._images += sums
        return _means([each.metrics() for each in sums])

    def result(self) -> dict[str, Any]:
        """``images``, ``values``, and the metrics as ``mean_over_images`` and ``over_pixels``.

        The first is the mean of the images' PSNR, as papers print it, images that equal their
        truth left out of it (:func:`mean_of_finite`); the second the PSNR of the mean square error
        of all pixels, which the worst images rule.
        """
        pooled = sum(self._images, ImageSums())
        rows = [sums.metrics() for sums in self._images] or [ImageSums().metrics()]
        return {
            "images": len(self._images),
            "values": pooled.values,
            "mean_over_images": _means(rows),
            "over_pixels": pooled.metrics(),
        }
