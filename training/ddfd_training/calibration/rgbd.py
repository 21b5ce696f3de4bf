"""The lens from an RGB-D recording instead of a target.

It needs sharp companions (a small aperture, the same view): in small windows of nearly one
distance, the companion is blurred until it looks like the photograph. That blur, squared, lies on
the same line as that of the target's edges: sigma^2 = b + (k A)^2 (1/d - 1/d_f)^2. Second moments
tell k A; A needs k.

A companion at r times the aperture has r times the blur itself, so that only (k A)^2 (1 - r^2) is
between both: spreads are divided by sqrt(1 - r^2). What both have in focus is not seen at all.

Without companions the softness of things themselves cannot be told from the lens: a trial with the
sharpest edges at each distance was off by a factor of three, so that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import least_squares

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.calibration.edge_spread import linear_light
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.fit import straight_line
from ddfd_training.calibration.solve import (
    ASSUMED_SIGMA_PER_DIAMETER,
    SMALLEST_BLUR_PX,
    UNKNOWN_PITCH_M,
    WIDEST_A,
    WIDEST_FOCUS_DIOPTRE,
    Nominal,
    written_lens,
)
from ddfd_training.datasets.sample import RgbdSample

WINDOW_PX = 40
_TRIED_PX = np.concatenate([[0.0], np.geomspace(0.3, 9.0, 28)])
_SHIFTS = range(-2, 3)
_SAME_DISTANCE = 0.06  # dioptres within a window
_LEAST_CONTRAST = 0.02
_LEAST_EXPLAINED = 0.9
_DRAWS = 300
_FEWEST = 40
_BINS = 24
_FEWEST_IN_BIN = 5
_SMALL_PX = 0.3
_LEAST_VARIANCE = 1e-3
_MOST_STEPS = 60
_USUAL_ERROR = 0.1  # of a window's spread, relative
_UNKNOWN = Nominal()


@dataclass(frozen=True)
class Spreads:
    """Measured spreads, window by window.

    Attributes:
        dioptre: Inverse distances.
        sigma_px: Standard deviations in pixels, beyond the companion's own in focus.
        frame: Number of the frame each is from.
    """

    dioptre: np.ndarray
    sigma_px: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class RgbdResult:
    """A lens from RGB-D frames: each value with its 95 % interval."""

    calibration: LensCalibration
    spreads: Spreads
    k_a: tuple[float, float, float]
    focus_dioptre: tuple[float, float, float]
    relative_sigma_0_px: float
    """What is left in focus beside the companion: not the camera's spread there."""


def windows(sample: RgbdSample, frame: int, response: str) -> Spreads:
    """Blur between the sharp companion and the photograph, window by window."""
    assert sample.sharp_rgb is not None
    assert sample.defocused_rgb is not None
    sharp = linear_light(sample.sharp_rgb, response)
    photo = linear_light(sample.defocused_rgb, response)
    blurred = [sharp if s == 0 else cv2.GaussianBlur(sharp, (0, 0), s) for s in _TRIED_PX]
    found = []
    height, width = photo.shape
    half, edge = WINDOW_PX // 2, WINDOW_PX // 2 + _SHIFTS.stop
    for row in range(edge, height - edge, half):
        for column in range(edge, width - edge, half):
            rows, columns = slice(row - half, row + half), slice(column - half, column + half)
            depth_m = sample.depth_m[rows, columns]
            known = np.isfinite(depth_m)
            if known.mean() < 0.9 or photo[rows, columns].std() < _LEAST_CONTRAST:
                continue
            dioptre = 1 / depth_m[known]
            if np.ptp(np.quantile(dioptre, [0.05, 0.95])) > _SAME_DISTANCE:
                continue
            sigma = _matching(photo[rows, columns], blurred, row, column)
            if sigma is not None:
                found.append((float(np.median(dioptre)), sigma))
    values = np.array(found, dtype=float).reshape(-1, 2)
    return Spreads(values[:, 0], values[:, 1], np.full(len(values), frame))


def _matching(
    window: np.ndarray, blurred: list[np.ndarray], row: int, column: int
) -> float | None:
    """The blur of the companion that explains a window best; None where none does."""
    half = WINDOW_PX // 2
    own = window - window.mean()
    power = float(np.sum(own**2))
    left = np.zeros((len(blurred), len(_SHIFTS), len(_SHIFTS)))
    for k, image in enumerate(blurred):
        for i, down in enumerate(_SHIFTS):
            for j, right in enumerate(_SHIFTS):
                part = image[
                    row - half + down : row + half + down,
                    column - half + right : column + half + right,
                ]
                part = part - part.mean()
                gain = float(np.sum(part * own)) / max(float(np.sum(part**2)), 1e-9)
                left[k, i, j] = power - gain * float(np.sum(part * own))
    best = np.unravel_index(left.argmin(), left.shape)
    k = int(best[0])
    if left[best] > (1 - _LEAST_EXPLAINED) * power or k == len(blurred) - 1:
        return None
    if k == 0:
        return 0.0
    low, mid, high = left[k - 1 : k + 2, best[1], best[2]]
    bend = low - 2 * mid + high
    shift = float(np.clip((low - high) / (2 * bend), -1, 1)) if bend > 0 else 0.0
    step = _TRIED_PX[k + 1] - _TRIED_PX[k] if shift > 0 else _TRIED_PX[k] - _TRIED_PX[k - 1]
    return float(_TRIED_PX[k] + shift * step)


def robust_line(
    spreads: Spreads, near: tuple[float, float, float] | None = None
) -> tuple[float, float, float]:
    """K = k A, 1/d_f and sigma_0, whatever a part of the windows says.

    Windows that hold two distances, moved, or repeat a pattern are wrong by any amount, and in
    real recordings there are many. The start goes through the medians of narrow bins of
    distance, which also keeps frequent distances from outweighing rare ones; then all windows
    count with Cauchy's loss, which is deaf to what lies far off. The line may also be sought from
    ``near``; the better one is taken.
    """
    edges = np.linspace(spreads.dioptre.min(), spreads.dioptre.max(), _BINS + 1)
    number = np.digitize(spreads.dioptre, edges)
    filled = [k for k in np.unique(number) if np.sum(number == k) >= _FEWEST_IN_BIN]
    if len(filled) < 3:
        filled = list(np.unique(number))
    middle, spread = (
        np.array([np.median(values[number == k]) for k in filled])
        for values in (spreads.dioptre, spreads.sigma_px)
    )
    start = straight_line(middle, spread, np.ones(len(filled)))

    def off(line: np.ndarray) -> np.ndarray:
        fitted = np.sqrt(line[2] + (line[0] * (spreads.dioptre - line[1])) ** 2)
        result: np.ndarray = (spreads.sigma_px - fitted) / (fitted + _SMALL_PX)
        return result

    tries = [
        # By sigma_0 squared: at zero the slope in sigma_0 vanishes, and the search would stall.
        least_squares(
            off,
            (line[0], line[1], max(line[2] ** 2, _LEAST_VARIANCE)),
            bounds=([0, -np.inf, _LEAST_VARIANCE / 10], np.inf),
            loss="cauchy",
            f_scale=_USUAL_ERROR,
            max_nfev=_MOST_STEPS,
        )
        for line in ([start] if near is None else [start, near])
    ]
    found = min(tries, key=lambda result: float(result.cost)).x
    return float(found[0]), float(found[1]), float(found[2]) ** 0.5


def calibrate_rgbd(
    samples: Iterable[RgbdSample],
    *,
    response: str = "srgb",
    nominal: Nominal = _UNKNOWN,
    sigma_per_diameter: float = 0.0,
    focal_px: float = 0.0,
    sharp_share: float = 0.0,
    frame_size: tuple[int, int] | None = None,
) -> RgbdResult:
    """Fit the lens to frames with depth and sharp companions.

    Args:
        samples: Frames of one size with ``defocused_rgb``, ``sharp_rgb`` and depth.
        response: See ``linear_light``.
        nominal: What is written on the lens; tells A from k A.
        sigma_per_diameter: k, if known.
        focal_px: Focal length in pixels, if known.
        sharp_share: Blur of the companions over that of the photographs, the ratio of f-numbers;
            0: they have none.
        frame_size: Height and width of the whole frames, if the samples are cut out of them; the
            result is for those.

    Raises:
        CalibrationError: Blur or distances say too little.
    """
    parts, size = [], (0, 0)
    for frame, sample in enumerate(samples):
        if sample.defocused_rgb is None or sample.sharp_rgb is None or not sample.has_depth:
            raise CalibrationError(
                f"{sample.name}: expected a photograph through the lens, its depth, and a sharp "
                "companion (small aperture, same view), got not all three; without companions "
                "photograph the printed target"
            )
        size = sample.depth_m.shape[0], sample.depth_m.shape[1]
        parts.append(windows(sample, frame, response))
    spreads = Spreads(
        *(
            np.concatenate([getattr(p, name) for p in parts] or [np.zeros(0)])
            for name in ("dioptre", "sigma_px", "frame")
        )
    )
    if len(spreads.dioptre) < _FEWEST:
        raise CalibrationError(
            f"recording: expected at least {_FEWEST} textured places of one distance, got "
            f"{len(spreads.dioptre)}; record more frames of textured surfaces with good depth"
        )
    spreads = replace(spreads, sigma_px=spreads.sigma_px / math.sqrt(1 - sharp_share**2))
    line = robust_line(spreads)
    largest_px = 4 * line[0] * float(np.abs(spreads.dioptre - line[1]).max())
    if largest_px < SMALLEST_BLUR_PX:
        raise CalibrationError(
            f"blur: expected at least {SMALLEST_BLUR_PX:g} px somewhere, got {largest_px:.2f} px "
            "at most; open the aperture, go nearer, or focus elsewhere"
        )
    k_a, focus = _intervals(spreads, line)
    half = (k_a[2] - k_a[1]) / 2 / k_a[0], (focus[2] - focus[1]) / 2
    if half[0] > 2 * WIDEST_A or half[1] > 2 * WIDEST_FOCUS_DIOPTRE:
        raise CalibrationError(
            f"recording: expected k A known to {200 * WIDEST_A:g} % and the focus to "
            f"{2 * WIDEST_FOCUS_DIOPTRE:g} dioptres, got {100 * half[0]:.0f} % and {half[1]:.2f}; "
            "record more frames, from near to far"
        )
    record = _record(line, nominal, sigma_per_diameter, focal_px, frame_size or size)
    return RgbdResult(record, spreads, k_a, focus, line[2])


def plot_rgbd(result: RgbdResult, path: Path) -> Path:
    """Blur against inverse distance, window by window, with the fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(result.spreads.dioptre, result.spreads.sigma_px, ".", markersize=3, alpha=0.4)
    line = np.linspace(0, float(result.spreads.dioptre.max()) * 1.1, 300)
    best = np.hypot(result.relative_sigma_0_px, result.k_a[0] * (line - result.focus_dioptre[0]))
    axes.plot(line, best, color="tab:red", label="fit")
    axes.set(
        xlabel="inverse distance (1/m)",
        ylabel="spread beyond the companion's in focus, sigma (px)",
        ylim=(0, None),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _intervals(
    spreads: Spreads, line: tuple[float, float, float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Bootstrap over frames."""
    random = np.random.default_rng(0)
    members = [np.flatnonzero(spreads.frame == f) for f in np.unique(spreads.frame)]
    draws = []
    for _ in range(_DRAWS):
        chosen = np.concatenate(
            [members[i] for i in random.integers(0, len(members), len(members))]
        )
        part = Spreads(spreads.dioptre[chosen], spreads.sigma_px[chosen], spreads.frame[chosen])
        draws.append(robust_line(part, line)[:2] if len(chosen) >= _FEWEST // 2 else line[:2])
    low, high = np.quantile(np.array(draws), [0.025, 0.975], axis=0)
    return (
        (line[0], float(low[0]), float(high[0])),
        (line[1], float(low[1]), float(high[1])),
    )


def _record(
    line: tuple[float, float, float],
    nominal: Nominal,
    k: float,
    focal_px: float,
    size: tuple[int, int],
) -> LensCalibration:
    focus_m = 1 / line[1] if line[1] > 1e-3 else math.inf
    pitch_m = nominal.pixel_pitch_m or UNKNOWN_PITCH_M
    source = "given"
    if not k:
        k, source = ASSUMED_SIGMA_PER_DIAMETER, "assumed"
        if nominal.focal_length_m and nominal.f_number and nominal.pixel_pitch_m:
            k, source = line[0] / written_lens(nominal, focus_m).px_per_dioptre, "nominal"
    focal_m = nominal.focal_length_m or (focal_px or 1.2 * size[1]) * pitch_m
    image_m = 1 / (1 / focal_m - 1 / focus_m)
    lens = LensConfig(focal_m, focal_m * image_m / (pitch_m * line[0] / k), focus_m, pitch_m)
    return LensCalibration(
        lens=lens,
        width=size[1],
        height=size[0],
        pitch_known=nominal.pixel_pitch_m > 0,
        shape="gaussian",
        sigma_per_diameter=round(k, 5),
        gaussian_share=1.0,
        gaussian_sigma_per_diameter=round(k, 5),
        source=source,
        details={"from": "RGB-D frames", "k_px_per_dioptre": round(float(line[0]), 4)},
    )
