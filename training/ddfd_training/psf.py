"""Point-spread functions on the pixel grid: the disk of a round aperture, the Gaussian, both."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

KERNELS = ("disk", "gaussian")
RENDER_KERNELS = (*KERNELS, "blend", "sampled-gaussian")
_LINES = 64
_QUANTUM_PX = 1 / 64


def render_kernel(
    diameter_px: float,
    kernel: str,
    sigma_per_diameter: float,
    gaussian_share: float = 0.5,
    sharp_below_px: float = 0.0,
    largest_px: int = 0,
) -> torch.Tensor:
    """The kernel of a blur ``diameter_px`` pixels wide; float32 ``[k, k]``, k odd, sum 1.

    The diameter, less ``sharp_below_px``, is rounded to 1/64 px so that kernels can be kept.
    Arguments as the fields of ``RenderOptions``.
    """
    steps = round(max(diameter_px - sharp_below_px, 0.0) / _QUANTUM_PX)
    return _cached(steps, kernel, sigma_per_diameter, gaussian_share, largest_px)


@lru_cache(maxsize=4096)
def _cached(
    steps: int, kernel: str, sigma_per_diameter: float, gaussian_share: float, largest_px: int
) -> torch.Tensor:
    diameter_px = steps * _QUANTUM_PX
    if kernel == "blend":
        weights = blend_kernel(diameter_px, sigma_per_diameter, gaussian_share)
    elif kernel == "disk":
        weights = disk_kernel(diameter_px)
    elif kernel == "sampled-gaussian":
        weights = sampled_gaussian_kernel(sigma_per_diameter * diameter_px)
    else:
        weights = gaussian_kernel(sigma_per_diameter * diameter_px)
    excess = (len(weights) - largest_px) // 2
    if largest_px and excess > 0:
        weights = weights[excess:-excess, excess:-excess]
        weights = weights / weights.sum()
    return torch.from_numpy(weights.astype(np.float32))


def blend_kernel(
    diameter_px: float, sigma_per_diameter: float, gaussian_share: float
) -> np.ndarray:
    """A weighted sum of disk and Gaussian, between an ideal lens and a soft one; sum 1."""
    parts = (disk_kernel(diameter_px), gaussian_kernel(sigma_per_diameter * diameter_px))
    size = max(len(part) for part in parts)
    kernel = np.zeros((size, size))
    for part, share in zip(parts, (1 - gaussian_share, gaussian_share), strict=True):
        margin = (size - len(part)) // 2
        kernel[margin : size - margin, margin : size - margin] += share * part
    return kernel


def disk_kernel(diameter_px: float) -> np.ndarray:
    """A uniform disk on the pixel grid, its second moment kept; float64 ``[k, k]``, sum 1.

    Each pixel weighs by the area of the disk that it holds. Taken literally that blurs too much
    by 1/12 px^2, and below one pixel not at all, since a small disk lies within its own pixel. So
    the disk counted is the one whose kernel has the true variance, diameter^2 / 16 an axis: the
    blur of nearly focused things grows smoothly from none, as it does behind a real lens.
    """
    radius = _counted_radius(diameter_px)
    half = math.floor(radius + 0.5)
    if half == 0:
        return np.ones((1, 1))
    pixels = np.arange(-half, half + 1)
    kernel = np.empty((2 * half + 1, 2 * half + 1))
    for row, y in enumerate(pixels):
        lines = y - 0.5 + (np.arange(_LINES) + 0.5) / _LINES
        chord = np.sqrt(np.maximum(radius**2 - lines**2, 0))[:, None]
        inside = np.minimum(pixels + 0.5, chord) - np.maximum(pixels - 0.5, -chord)
        kernel[row] = np.maximum(inside, 0).sum(axis=0)
    kernel = (kernel + kernel.T) / 2
    return kernel / kernel.sum()


def _counted_radius(diameter_px: float) -> float:
    """Radius in pixels of the disk whose kernel on the grid has variance diameter^2 / 16."""
    low, high = 0.5, diameter_px / 2 + 0.5
    if diameter_px == 0:
        return low
    for _ in range(50):
        middle = (low + high) / 2
        if _grid_variance(middle) < diameter_px**2 / 16:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _grid_variance(radius: float) -> float:
    """Variance along one axis, in square pixels, of a disk rounded to pixels."""
    edges = np.minimum(np.arange(math.floor(radius + 0.5) + 1) + 0.5, radius) / radius
    below = 0.5 + (edges * np.sqrt(1 - edges**2) + np.arcsin(edges)) / np.pi
    return float(2 * (np.diff(below) * np.arange(1, len(edges)) ** 2).sum())


def gaussian_kernel(sigma_px: float) -> np.ndarray:
    """A Gaussian on the pixel grid, its second moment kept; float64 ``[k, k]``, sum 1.

    Its values at pixel centres, out to 3.5 sigma, spread too little: below 0.3 px next to nothing,
    above 1 px by what is cut off. So the Gaussian sampled is a wider one, whose kernel has the
    true variance, sigma^2 an axis.
    """
    half = math.ceil(3.5 * sigma_px)
    if half == 0:
        return np.ones((1, 1))
    low, high = sigma_px, 1.01 * sigma_px + 0.5
    for _ in range(50):
        middle = (low + high) / 2
        if _sampled(middle, half) @ np.arange(-half, half + 1) ** 2 < sigma_px**2:
            low = middle
        else:
            high = middle
    line = _sampled(high, half)
    return np.outer(line, line)


def sampled_gaussian_kernel(sigma_px: float) -> np.ndarray:
    """A Gaussian's values at pixel centres out to 3.5 sigma; float64 ``[k, k]``, sum 1.

    As published codes have it. Below 0.6 px it spreads too little: by 0.09 px for 0.3 px.
    """
    half = math.ceil(3.5 * sigma_px)
    line = _sampled(sigma_px, half) if half else np.ones(1)
    return np.outer(line, line)


def _sampled(sigma_px: float, half: int) -> np.ndarray:
    """A Gaussian at -half to half along one axis, ``[2 half + 1]``, sum 1."""
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    return line / line.sum()
