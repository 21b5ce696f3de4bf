"""Whether a camera's image can be measured at all: exposure, and blur that is not defocus.

Depth from defocus reads how blurred edges are. Three things spoil that before any network sees
the image: values that are clipped (their blur is cut off), too little light (noise hides it), and
motion (it blurs along one direction, and a network takes it for defocus).

What tells motion from defocus: a lens blurs every direction alike, motion one direction only.
Along four directions the energy of second differences of neighbouring pixels is divided by the
energy of differences over ``COARSE`` pixels. Scenes prefer directions (door frames, horizons), but
at both scales; motion takes away the fine scale along its way. The ratio in the direction that
keeps most detail over the one that keeps least is the ``smear``.

Limits: an image without texture says nothing (NaN); noise adds fine detail to every direction and
so hides motion; motion shorter than some five pixels, or along a curve, is hardly seen; a scene of
parallel stripes finer than ``COARSE`` looks smeared along them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BLACK = 8
"""A pixel is dark when no colour exceeds this value of 255."""
WHITE = 250
"""A pixel is clipped when a colour reaches this value of 255."""
COARSE = 12
"""Distance in pixels over which the coarse differences are taken."""

DARK_LIMIT = 0.6
CLIPPED_LIMIT = 0.2
"""Shares of dark and of clipped pixels from which on to warn."""

SMEAR_LIMIT = 6.0
"""From here on blur in one direction is warned of: at most one in fifty sharp or evenly defocused
photographs reaches it, and half of those that moved by 11 pixels do (test_image_quality.py)."""

DETAIL_LIMIT = 0.004
"""Below this nothing is sharper than a disk of some 8 pixels; photographs focused anywhere have
0.015 and more."""

_ROWS, _COLUMNS = 120, 160
_GRID = 3
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Rows and columns from a pixel to its neighbour."""
_MIN_ENERGY = 4.0
"""Coarse energy (grey levels squared) below which a direction says nothing."""


@dataclass(frozen=True)
class ImageQuality:
    """What one image is like.

    Attributes:
        dark_fraction: Share of pixels in which no colour exceeds ``BLACK``.
        clipped_fraction: Share of pixels in which a colour reaches ``WHITE``.
        detail: Fine over coarse energy in the direction that has most of it; NaN without texture.
        smear: That ratio in the direction with most over the one with least: near 1 to 2 for a
            blur that is alike in all directions; NaN without texture.
    """

    dark_fraction: float
    clipped_fraction: float
    detail: float
    smear: float


def measure(image_rgb: np.ndarray) -> ImageQuality:
    """The quality of ``image_rgb``, uint8 ``[H, W, 3]``.

    Up to nine patches of 160 x 120 pixels are read, evenly placed, so that the cost does not
    grow with the resolution.
    """
    brightest = image_rgb[::4, ::4].max(axis=2)
    fine, coarse = np.zeros(len(_DIRECTIONS)), np.zeros(len(_DIRECTIONS))
    for patch in _patches(image_rgb[..., 1]):
        grey = patch.astype(np.float32)
        for index, (down, right) in enumerate(_DIRECTIONS):
            fine[index] += _fine(grey, down, right)
            coarse[index] += _coarse(grey, down, right)
    detail = smear = math.nan
    if coarse.min() >= _MIN_ENERGY:
        ratio = fine / coarse
        detail, smear = float(ratio.max()), float(ratio.max() / max(ratio.min(), 1e-9))
    dark, clipped = float((brightest <= BLACK).mean()), float((brightest >= WHITE).mean())
    return ImageQuality(dark, clipped, detail, smear)


def _patches(plane: np.ndarray) -> list[np.ndarray]:
    height, width = plane.shape
    rows, columns = _starts(height, _ROWS), _starts(width, _COLUMNS)
    return [plane[y : y + _ROWS, x : x + _COLUMNS] for y in rows for x in columns]


def _starts(side: int, patch: int) -> list[int]:
    """Where patches begin: as many as fit, up to ``_GRID``, evenly spread."""
    count = min(_GRID, side // patch)
    if count < 2:
        return [max(0, side - patch) // 2]
    return [round(index * (side - patch) / (count - 1)) for index in range(count)]


def _fine(grey: np.ndarray, down: int, right: int) -> float:
    """Mean square of the second difference of neighbours, by the distance squared."""
    middle = grey[1:-1, 1:-1]
    height, width = grey.shape
    if min(height, width) < 3:
        return 0.0
    after = grey[1 + down : height - 1 + down, 1 + right : width - 1 + right]
    before = grey[1 - down : height - 1 - down, 1 - right : width - 1 - right]
    second = after + before - 2 * middle
    distance_squared = down * down + right * right
    return float((second * second).mean()) / distance_squared


def _coarse(grey: np.ndarray, down: int, right: int) -> float:
    """Mean square of the difference over about ``COARSE`` pixels."""
    steps = round(COARSE / math.hypot(down, right))
    down, right = down * steps, right * steps
    height, width = grey.shape
    if height <= down or width <= abs(right):
        return 0.0
    left = max(0, -right)
    start = grey[: height - down, left : width - max(0, right)]
    end = grey[down:, left + right : width + min(0, right)]
    first = end - start
    return float((first * first).mean())
