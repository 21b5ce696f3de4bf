"""Blur between a photograph and its sharp companion, window by window.

In a small window of nearly one distance the companion is blurred, with point-spread functions of
several shapes and widths, until it looks like the photograph. A window says its width well only if
it is of the right shape: a disk that is matched by a Gaussian reads a tenth too wide, a Gaussian
that is matched by a disk as much too narrow (their tails, which hold much of the second moment,
hardly show). So the shape is chosen first, the one that leaves least unexplained in all windows
together, and spreads are those of that shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.special import j1

from ddfd_training.calibration.edge_spread import linear_light
from ddfd_training.datasets.sample import RgbdSample

SHAPES = ("gaussian", "disk", "blend")
"""A blend is half disk, half Gaussian of the same standard deviation, a quarter of the disk's
diameter. The first is sought everywhere, the others near its best place."""

WINDOW_PX = 40
_TRIED_PX = np.concatenate([[0.0, 0.1, 0.15, 0.2, 0.25], np.geomspace(0.3, 9.0, 28)])
_SHIFT_PX = 2
_NEAR = 2  # steps of _TRIED_PX
_SAME_DISTANCE = 0.06  # dioptres within a window
_LEAST_CONTRAST = 0.02
_LEAST_EXPLAINED = 0.9
_TELLING_PX = 1.0
_FEWEST_TELLING = 10


@dataclass(frozen=True)
class Windows:
    """What windows say, for each of ``SHAPES``.

    Attributes:
        dioptre: ``[n]``, inverse distances.
        sigma_px: ``[n, shapes]``, standard deviations; NaN where a shape explains too little.
        unexplained: ``[n, shapes]``, share of the photograph's variance that is left.
        frame: ``[n]``, number of the frame each is from.
    """

    dioptre: np.ndarray
    sigma_px: np.ndarray
    unexplained: np.ndarray
    frame: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Windows]) -> Windows:
        """The windows of several frames; there may be none."""
        table = np.zeros((0, len(SHAPES)))
        none = cls(np.zeros(0), table, table, np.zeros(0))
        names = ("dioptre", "sigma_px", "unexplained", "frame")
        return cls(*(np.concatenate([getattr(p, n) for p in [none, *parts]]) for n in names))

    def left_by_shape(self) -> dict[str, float]:
        """Mean of what each shape leaves unexplained; empty where too few windows could tell.

        Those count whose blur is wide enough to have a shape, and that every shape explains.
        """
        told = np.isfinite(self.sigma_px).all(axis=1) & (self.sigma_px[:, 0] > _TELLING_PX)
        if told.sum() < _FEWEST_TELLING:
            return {}
        return dict(zip(SHAPES, self.unexplained[told].mean(axis=0).tolist(), strict=True))


def windows(sample: RgbdSample, frame: int, response: str) -> Windows:
    """The windows of one frame that has photograph, sharp companion and depth."""
    assert sample.sharp_rgb is not None
    assert sample.defocused_rgb is not None
    sharp = linear_light(sample.sharp_rgb, response).astype(np.float32)
    photo = linear_light(sample.defocused_rgb, response).astype(np.float32)
    blurred = _blurred(sharp)
    dioptres, found = [], []
    for window, dioptre in _flat_windows(photo, sample.depth_m):
        dioptres.append(dioptre)
        found.append(_matching(photo, blurred, window))
    values = np.array(found, dtype=float).reshape(-1, len(SHAPES), 2)
    return Windows(
        np.array(dioptres), values[..., 0], values[..., 1], np.full(len(dioptres), frame)
    )


def _blurred(sharp: np.ndarray) -> list[list[np.ndarray]]:
    """An image ``[H, W]`` blurred by every shape of ``SHAPES``, and of each by every width.

    By exact transfer functions: kernels on the pixel grid are too coarse for narrow blur, such as
    a Gaussian of 0.3 px, which spreads by 0.09 px when sampled.
    """
    margin = math.ceil(4 * _TRIED_PX[-1])
    padded = np.pad(sharp, margin, "reflect")
    spectrum = rfft2(padded)
    frequency = np.hypot(fftfreq(padded.shape[0])[:, None], rfftfreq(padded.shape[1]))
    frequency = frequency.astype(np.float32)
    gaussian, disk = (
        [
            irfft2(spectrum * transfer(2 * np.pi * sigma * frequency), padded.shape)[
                margin:-margin, margin:-margin
            ]
            for sigma in _TRIED_PX.astype(np.float32)
        ]
        for transfer in (_gaussian_transfer, _disk_transfer)
    )
    return [gaussian, disk, [(one + other) / 2 for one, other in zip(gaussian, disk, strict=True)]]


def _gaussian_transfer(angle: np.ndarray) -> np.ndarray:
    """Contrast left at ``angle``, 2 pi sigma f."""
    result: np.ndarray = np.exp(-(angle**2) / 2)
    return result


def _disk_transfer(angle: np.ndarray) -> np.ndarray:
    """The same of a disk, whose radius is 2 sigma: 2 J1(x) / x at x = 2 pi (2 sigma) f."""
    result: np.ndarray = np.where(angle == 0, 1, j1(2 * angle) / np.where(angle == 0, 1, angle))
    return result


def _flat_windows(
    photo: np.ndarray, depth_m: np.ndarray
) -> Iterator[tuple[tuple[int, int], float]]:
    """Middles of windows of one distance and some contrast, with that inverse distance."""
    height, width = photo.shape
    half, edge = WINDOW_PX // 2, WINDOW_PX // 2 + _SHIFT_PX + 1
    for row in range(edge, height - edge, half):
        for column in range(edge, width - edge, half):
            part = slice(row - half, row + half), slice(column - half, column + half)
            known = np.isfinite(depth_m[part])
            if known.mean() < 0.9 or photo[part].std() < _LEAST_CONTRAST:
                continue
            dioptre = 1 / depth_m[part][known]
            if np.ptp(np.quantile(dioptre, [0.05, 0.95])) <= _SAME_DISTANCE:
                yield (row, column), float(np.median(dioptre))


def _matching(
    photo: np.ndarray, blurred: list[list[np.ndarray]], window: tuple[int, int]
) -> list[tuple[float, float]]:
    """Per shape the blur that explains a window best, and what it leaves; NaN if too much."""
    own = _cut(photo, window, 0)
    steps = range(len(_TRIED_PX))
    found = []
    for images in blurred:
        left = {k: _left(own, _cut(images[k], window, _SHIFT_PX)) for k in steps}
        best = min(left, key=lambda k: left[k].min())
        place = left[best].argmin()
        least = float(left[best].flat[place])
        if least > 1 - _LEAST_EXPLAINED or best == len(_TRIED_PX) - 1:
            found.append((np.nan, least))
        else:
            near = (left[k].flat[place] if k in left else np.nan for k in (best - 1, best + 1))
            found.append((_between(best, least, *near), least))
        if images is blurred[0]:
            steps = range(max(best - _NEAR, 0), min(best + _NEAR + 1, len(_TRIED_PX)))
    return found


def _cut(image: np.ndarray, window: tuple[int, int], margin: int) -> np.ndarray:
    reach = WINDOW_PX // 2 + margin
    row, column = window
    return image[row - reach : row + reach, column - reach : column + reach]


def _left(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of a window's variance that another one leaves, whatever its gain, shift by shift."""
    alike: np.ndarray = cv2.matchTemplate(other, own, cv2.TM_CCOEFF_NORMED)
    return 1 - np.maximum(alike, 0) ** 2


def _between(best: int, mid: float, low: float, high: float) -> float:
    """The width where a parabola through three steps is lowest; NaN: a step not tried."""
    bend = low - 2 * mid + high
    if best == 0 or not bend > 0:
        return float(_TRIED_PX[best])
    shift = float(np.clip((low - high) / (2 * bend), -1, 1))
    other = best + (1 if shift > 0 else -1)
    return float(_TRIED_PX[best] + abs(shift) * (_TRIED_PX[other] - _TRIED_PX[best]))
