"""Lay a sharp photograph over a defocused one of the same view, before comparing their pixels.

Between the two shots of a natural pair the camera moves by a few pixels, and stopping down changes
the exposure a little. Shifted by one pixel, even a perfect restoration scores badly. The geometry
is an affine map found by maximising the enhanced correlation coefficient (Evangelidis and Psarakis
2008), which is invariant to gain and offset, on images smoothed until the difference in sharpness
hardly matters; the start is a phase correlation, so that shifts of many pixels converge, and the
last steps look at local contrast alone, which places edges better than areas of light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SMOOTHING_PX = 3.0
CONTRAST_PX = 6.0
BORDER_PX = 20
MAX_SHIFT_PX = 40.0
MAX_STRETCH = 0.05
ECC_STEPS = 100
ECC_EPS = 1e-6
EXPOSURE_SMOOTHING_PX = 8.0
PATCH_PX = 96
MIN_PATCH_PX = 16
MIN_PATCH_CONTRAST = 1.0
MIN_PATCH_CORRELATION = 0.5
SEARCH_PX = 16
MAX_RESIDUAL_PX = 1.0
"""Pictures that lie further apart than this after registration are not compared."""


@dataclass(frozen=True)
class Registration:
    """How to lay the moving image over the fixed one.

    Attributes:
        matrix: float64 ``[2, 3]``; maps (x, y, 1) of the fixed image to (x, y) of the moving one.
        correlation: Enhanced correlation coefficient of the images' local contrast, 1 at best.
        residual_px: Median shift in pixels that is left in the patches with enough texture, NaN
            where none has.
        converged: False if no trustworthy map was found; ``matrix`` is then the identity.
    """

    matrix: np.ndarray
    correlation: float
    residual_px: float
    converged: bool

    @property
    def trusted(self) -> bool:
        """Whether pixels may be compared: a map was found, and little shift is left after it."""
        return self.converged and self.residual_px <= MAX_RESIDUAL_PX

    @property
    def shift_px(self) -> tuple[float, float]:
        """Offset (x, y) in pixels of the moving image against the fixed one, at its origin."""
        return float(self.matrix[0, 2]), float(self.matrix[1, 2])

    def warp(self, moving: np.ndarray) -> np.ndarray:
        """The moving image ``[H, W]`` or ``[H, W, C]`` in the fixed one's geometry."""
        height, width = moving.shape[:2]
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            moving, self.matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )

    def overlap(self, height: int, width: int, extra_px: int = 2) -> tuple[slice, slice]:
        """Rows and columns of the fixed image that the moving one covers, less ``extra_px``."""
        corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        moved = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        away = np.abs(moved - corners).max(axis=0)
        across, down = (int(np.ceil(value)) + extra_px for value in away)
        return slice(down, height - down), slice(across, width - across)


def smoothed_gray(image: np.ndarray) -> np.ndarray:
    """Smoothed float32 grey image ``[H, W]``."""
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(gray.astype(np.float32), (0, 0), SMOOTHING_PX)


def local_contrast(gray: np.ndarray) -> np.ndarray:
    """Local contrast: what phase correlation needs instead of slowly varying light."""
    return gray - cv2.GaussianBlur(gray, (0, 0), CONTRAST_PX)


def _coarse_shift(fixed: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """Shift (x, y) of ``moving`` against ``fixed`` by phase correlation, zero if implausible."""
    window = cv2.createHanningWindow((fixed.shape[1], fixed.shape[0]), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(local_contrast(fixed), local_contrast(moving), window)
    return (x, y) if max(abs(x), abs(y)) <= MAX_SHIFT_PX else (0.0, 0.0)


def _is_plausible(matrix: np.ndarray) -> bool:
    """Two shots of one view differ by a small shift and a stretch of a few per cent."""
    stretch = np.abs(matrix[:, :2] - np.eye(2)).max()
    return bool(stretch <= MAX_STRETCH and np.abs(matrix[:, 2]).max() <= 2 * MAX_SHIFT_PX)


def patch_shifts_px(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Shifts in pixels between corresponding patches with texture, ``[N]``.

    Each patch of the fixed image is looked for near its place in the moving one, where the
    correlation coefficient of the local contrast is largest; a parabola gives the fraction of a
    pixel. (Phase correlation would be quicker, but the window that it needs stays where it is and
    pulls the answer towards no shift, by up to a third.) Patches that are found nowhere do not
    count.

    Args:
        fixed: float32 ``[H, W]``, as :func:`smoothed_gray` makes it.
        moving: The same, laid over the fixed one.
    """
    a, b = local_contrast(fixed), local_contrast(moving)
    size = min(PATCH_PX, *(side - 2 * SEARCH_PX for side in a.shape))
    if size < MIN_PATCH_PX:
        return np.zeros(0)
    shifts = []
    for top in range(SEARCH_PX, a.shape[0] - SEARCH_PX - size + 1, size):
        for left in range(SEARCH_PX, a.shape[1] - SEARCH_PX - size + 1, size):
            patch = a[top : top + size, left : left + size]
            around = b[
                top - SEARCH_PX : top + size + SEARCH_PX,
                left - SEARCH_PX : left + size + SEARCH_PX,
            ]
            if min(patch.std(), around.std()) >= MIN_PATCH_CONTRAST:
                shift_px, score = _best_shift_px(patch, around)
                if score >= MIN_PATCH_CORRELATION:
                    shifts.append(shift_px)
    return np.array(shifts)


def _best_shift_px(patch: np.ndarray, around: np.ndarray) -> tuple[float, float]:
    """How far from the middle of ``around`` the patch fits best, and how well, 1 at most."""
    scores = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
    _, score, _, (x, y) = cv2.minMaxLoc(scores)
    exact = [
        place + _vertex(line[max(place - 1, 0) : place + 2])
        for place, line in ((x, scores[y]), (y, scores[:, x]))
    ]
    return math.hypot(exact[0] - SEARCH_PX, exact[1] - SEARCH_PX), float(score)


def _vertex(values: np.ndarray) -> float:
    """Where the parabola through three values has its top, from the middle one; 0 at a border."""
    if values.size != 3:
        return 0.0
    before, middle, after = (float(value) for value in values)
    bend = before - 2 * middle + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend


def residual_px(fixed: np.ndarray, moving: np.ndarray) -> float:
    """Median of :func:`patch_shifts_px`; NaN if no patch has texture."""
    shifts = patch_shifts_px(fixed, moving)
    return float(np.median(shifts)) if shifts.size else float("nan")


def register(moving: np.ndarray, fixed: np.ndarray) -> Registration:
    """Find the affine map that lays ``moving`` over ``fixed``; either may be blurred.

    Args:
        moving: uint8 ``[H, W, 3]`` or ``[H, W]``, the image to be warped (the sharp one).
        fixed: uint8, same shape.

    Returns:
        The map. Where the search fails (no texture, other scene) ``converged`` is false.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> sharp = registration.register(n8, n2_8).warp(n8)  # doctest: +SKIP
    """
    if moving.shape != fixed.shape:
        raise ValueError(
            f"register: expected two images of one shape, got {moving.shape} and {fixed.shape}"
        )
    target, source = smoothed_gray(fixed), smoothed_gray(moving)
    x, y = _coarse_shift(target, source)
    found = np.array([[1, 0, x], [0, 1, y]], dtype=np.float32)
    height, width = moving.shape[:2]
    # Smoothing invents what lies beyond the border, and the two images' borders differ.
    border = min(BORDER_PX, height // 8, width // 8)
    inner = np.zeros((height, width), np.uint8)
    inner[border : height - border, border : width - border] = 255
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_EPS)
    matrix, correlation, converged = np.eye(2, 3), float("nan"), False
    try:
        for a, b in ((target, source), (local_contrast(target), local_contrast(source))):
            correlation, warp = cv2.findTransformECC(
                a, b, found, cv2.MOTION_AFFINE, criteria, inner, 1
            )
            found = np.asarray(warp, dtype=np.float32)
        converged = _is_plausible(found)
    except cv2.error:  # raised when the images do not correlate, or have no texture
        converged = False
    if converged:
        matrix = found.astype(np.float64)
    result = Registration(matrix, float(correlation), float("nan"), converged)
    rows, columns = result.overlap(height, width)
    left = residual_px(target[rows, columns], result.warp(source)[rows, columns])
    return Registration(matrix, float(correlation), left, converged)


@dataclass(frozen=True)
class ExposureMatch:
    """A global change of brightness, ``gain * value + offset`` on 8-bit values."""

    gain: float
    offset: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The uint8 or uint16 image with the change applied, rounded and clipped."""
        most = 65535 if image.dtype == np.uint16 else 255
        values = image.astype(np.float32) * self.gain + self.offset * (most / 255)
        return np.clip(np.rint(values), 0, most).astype(image.dtype)


def match_exposure(source: np.ndarray, reference: np.ndarray) -> ExposureMatch:
    """Global gain and offset that bring ``source`` to the brightness of ``reference``.

    Least squares over all colours, on strongly smoothed images, so that a difference in sharpness
    does not pass for one in contrast; clipped pixels and the worst tenth are left out.

    Args:
        source: uint8 ``[H, W, 3]``, laid over the reference.
        reference: uint8, same shape.
    """
    first, second = (
        cv2.GaussianBlur(image.astype(np.float64), (0, 0), EXPOSURE_SMOOTHING_PX)[::4, ::4]
        for image in (source, reference)
    )
    usable = (np.minimum(first, second) > 8) & (np.maximum(first, second) < 247)
    x, y = first[usable], second[usable]
    gain, offset = 1.0, 0.0
    for _ in range(3):
        # Too few or too equal values do not determine two numbers: leave the image alone.
        if x.size < 16 or x.std() < 1.0:
            break
        gain = float(np.cov(x, y, bias=True)[0, 1] / x.var())
        offset = float(y.mean() - gain * x.mean())
        error = np.abs(gain * x + offset - y)
        keep = error <= np.quantile(error, 0.9)
        x, y = x[keep], y[keep]
    return ExposureMatch(gain, offset)
