"""Edge sharpness of depth maps: a steerable pyramid and the divergence of its histograms.

The pyramid is that of Portilla and Simoncelli (2000, appendix): polar-separable filters in the
frequency domain that together form a tight frame. Radially, raised cosines on a logarithmic axis
split the spectrum into octaves; angularly, cos^(K-1) gives K derivative filters of order K - 1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ddfd_training.depth_fill import fill_depth
from ddfd_training.metrics_depth import to_numpy

SCALES = 2
ORIENTATIONS = 4
DISTORTION_SCALE = 10.0
HISTOGRAM_BINS = 128
PADDING_PX = 16
_ROUNDING = 1e-6  # of the largest depth; what is smaller in a band is the transform's rounding


def _low_pass(radius: np.ndarray, cutoff: float) -> np.ndarray:
    """Raised cosine: 1 below ``cutoff`` / 2, 0 above ``cutoff`` (radians per pixel)."""
    octave = np.log2(np.maximum(radius, 1e-12) * 2.0 / cutoff)
    return np.cos(0.5 * np.pi * np.clip(octave, 0.0, 1.0))


def _high_pass(radius: np.ndarray, cutoff: float) -> np.ndarray:
    """The complement in energy: low^2 + high^2 = 1."""
    octave = np.log2(np.maximum(radius, 1e-12) * 2.0 / cutoff)
    return np.sin(0.5 * np.pi * np.clip(octave, 0.0, 1.0))


def _angular(angle: np.ndarray, index: int, orientations: int) -> np.ndarray:
    """Angular part of one derivative filter; the squares of all K sum to one.

    It is odd under a rotation by pi for even K, hence multiplied by i^(K-1): the band is real.
    """
    order = orientations - 1
    gain = 2.0**order * math.factorial(order)
    gain /= math.sqrt(orientations * math.factorial(2 * order))
    return gain * 1j**order * np.cos(angle - np.pi * index / orientations) ** order


def steerable_bands(
    image: np.ndarray, scales: int = SCALES, orientations: int = ORIENTATIONS
) -> tuple[np.ndarray, list[list[np.ndarray]], np.ndarray]:
    """Decompose an image into oriented bands, finest scale first.

    Args:
        image: ``[H, W]``, real or complex; H and W multiples of 2^``scales`` (periodic at the
            borders).
        scales: Number of octaves.
        orientations: Number of orientations K.

    Returns:
        The high-pass residual ``[H, W]``, for each scale s = 0, 1, ... the K bands
        ``[H / 2^s, W / 2^s]``, and the low-pass residual ``[H / 2^scales, W / 2^scales]``. The
        squares of all of them sum to the squares of the image (values double with each scale).

    Raises:
        ValueError: The size is not a multiple of 2^``scales``.
    """
    height, width = image.shape
    if height % 2**scales or width % 2**scales:
        raise ValueError(
            f"steerable pyramid: expected height and width to be multiples of {2**scales}, got "
            f"{height}x{width}; crop or pad the image"
        )
    spectrum = np.fft.fft2(image)
    # The filters are real in space: they act on the two parts of a complex image separately.
    restored = np.asarray if np.iscomplexobj(image) else np.real
    filters = _filters(height, width, np.pi, 0)
    high = restored(np.fft.ifft2(spectrum * filters.high))
    spectrum = spectrum * filters.low
    bands = []
    for _ in range(scales):
        filters = _filters(*spectrum.shape, np.pi / 2, orientations)
        radial = spectrum * filters.high
        bands.append([restored(np.fft.ifft2(radial * angular)) for angular in filters.angular])
        spectrum = _halve(spectrum * filters.low)
    return high, bands, restored(np.fft.ifft2(spectrum))


class _Filters(NamedTuple):
    """Frequency responses of one size: ``[H, W]`` each, in the order of the FFT's bins."""

    low: np.ndarray
    high: np.ndarray
    angular: tuple[np.ndarray, ...]


@lru_cache(maxsize=16)
def _filters(height: int, width: int, cutoff: float, orientations: int) -> _Filters:
    """The filters of one step; computed once per size."""
    radius, angle = _frequencies(height, width)
    angular = tuple(_angular(angle, k, orientations) for k in range(orientations))
    return _Filters(_low_pass(radius, cutoff), _high_pass(radius, cutoff), angular)


def _frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius (radians per pixel) and angle of each bin of an FFT of this size."""
    along_y = 2 * np.pi * np.fft.fftfreq(height)[:, None]
    along_x = 2 * np.pi * np.fft.fftfreq(width)[None, :]
    return np.hypot(along_x, along_y), np.arctan2(along_y, along_x)


def _halve(spectrum: np.ndarray) -> np.ndarray:
    """Spectrum of every second pixel of a band-limited image: its central half, energy kept."""
    height, width = spectrum.shape
    rows, columns = (
        np.r_[0 : (side // 2 + 1) // 2, side - side // 4 : side] for side in (height, width)
    )
    return spectrum[np.ix_(rows, columns)] * 0.5


def _depth_bands(depth_m: np.ndarray) -> list[np.ndarray]:
    """The oriented bands of two depth maps (one real, one imaginary), free of border effects."""
    step = 2**SCALES
    height, width = (side - side % step for side in depth_m.shape)
    padded = np.pad(depth_m[:height, :width], PADDING_PX, mode="symmetric")
    _, scales, _ = steerable_bands(padded)
    cropped = []
    for scale, bands in enumerate(scales):
        margin = PADDING_PX // 2**scale
        cropped += [band[margin:-margin, margin:-margin] for band in bands]
    return cropped


def histogram_divergence(truth: np.ndarray, estimate: np.ndarray, bins: int) -> float:
    """Kullback-Leibler divergence of two bands' histograms (thesis eq 2.1), in nats.

    Both share ``bins`` equal bins over the truth's symmetric range; what lies outside falls into
    the outermost ones. Half a count is added to each bin, else an empty one would be infinite.
    """
    limit = float(np.abs(truth).max()) or 1.0
    heights = []
    for band in (truth, estimate):
        counts, _ = np.histogram(np.clip(band, -limit, limit), bins=bins, range=(-limit, limit))
        heights.append((counts + 0.5) / (counts + 0.5).sum())
    return float(np.sum(heights[0] * np.log(heights[0] / heights[1])))


def edge_kld(pred_m: Any, target_m: Any, bins: int = HISTOGRAM_BINS) -> float:
    """How much the edges of a depth map differ from the truth's (thesis eq 2.1 and 2.2).

    D = log2(1 + 1/D0 sum_k |d_k|) with D0 = 10 over the 8 bands of 2 scales and 4 orientations.
    The thesis does not state its bins, and its table shows numbers far beyond what eq 2.2 can
    give: compare only with values of this function.

    Args:
        pred_m: ``[H, W]`` (or with leading ones), metres.
        target_m: Same shape, metres. Unknown (NaN) pixels are taken from the nearest known one,
            in both maps.
        bins: Number of histogram bins.

    Raises:
        ValueError: The shapes differ.
        DatasetError: No depth is known.
    """
    pred, target = np.squeeze(to_numpy(pred_m)), np.squeeze(to_numpy(target_m))
    if pred.shape != target.shape or pred.ndim != 2:
        raise ValueError(
            f"edge_kld: expected two maps [H, W] of one shape, got {pred.shape}, {target.shape}"
        )
    pred = fill_depth(np.where(np.isfinite(target), pred, np.nan))
    both = fill_depth(target) + 1j * fill_depth(pred)
    least = _ROUNDING * float(np.abs(both).max())
    total = 0.0
    for band in _depth_bands(both):
        # Flat parts fall on the border of two bins; their rounding shall not choose between them.
        true, estimate = (np.where(np.abs(b) < least, 0.0, b) for b in (band.real, band.imag))
        total += abs(histogram_divergence(true, estimate, bins))
    return math.log2(1.0 + total / DISTORTION_SCALE)
