"""The lens from an RGB-D recording instead of a target.

It needs sharp companions (a small aperture, the same view): in small windows of nearly one
distance, the companion is blurred until it looks like the photograph (see ``windows``). Squared,
that blur lies on the line of the target's edges too, sigma^2 = b + (k A)^2 (1/d - 1/d_f)^2.
Second moments tell k A; A needs k, which a disk has (1/4) and a Gaussian has not.

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

import numpy as np
from scipy.optimize import least_squares

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER, LensConfig
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.fit import straight_line
from ddfd_training.calibration.intervals import widening
from ddfd_training.calibration.solve import (
    ASSUMED_SIGMA_PER_DIAMETER,
    SMALLEST_BLUR_PX,
    UNKNOWN_PITCH_M,
    WIDEST_A,
    WIDEST_FOCUS_DIOPTRE,
    Nominal,
    written_lens,
)
from ddfd_training.calibration.windows import SHAPES, Windows, windows
from ddfd_training.datasets.sample import RgbdSample

_DRAWS = 300
_FEWEST = 40
_FEWEST_FRAMES = 2
_BINS = 24
_FEWEST_IN_BIN = 5
_SMALL_PX = 0.3
_LEAST_VARIANCE = 1e-3
_MOST_STEPS = 60
_USUAL_ERROR = 0.1  # of a window's spread, relative
_UNKNOWN = Nominal()
UNTOLD_SHAPE = "blend"
"""Between the other two, and so least wrong where windows cannot tell."""


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
    left_by_shape: dict[str, float]
    """Share of the windows' variance that each shape leaves unexplained; empty: not told."""


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

    def fitted(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        apart = spreads.dioptre - line[1]
        return apart, np.sqrt(line[2] + (line[0] * apart) ** 2)

    def off(line: np.ndarray) -> np.ndarray:
        _, sigma_px = fitted(line)
        result: np.ndarray = (spreads.sigma_px - sigma_px) / (sigma_px + _SMALL_PX)
        return result

    def slopes(line: np.ndarray) -> np.ndarray:
        apart, sigma_px = fitted(line)
        along = -(spreads.sigma_px + _SMALL_PX) / (sigma_px + _SMALL_PX) ** 2 / sigma_px
        return np.stack(
            [along * line[0] * apart**2, -along * line[0] ** 2 * apart, along / 2], axis=1
        )

    tries = [
        # By sigma_0 squared: at zero the slope in sigma_0 vanishes, and the search would stall.
        least_squares(
            off,
            (line[0], line[1], max(line[2] ** 2, _LEAST_VARIANCE)),
            slopes,
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
        sigma_per_diameter: k, if known; for a Gaussian, since a disk has its own.
        focal_px: Focal length in pixels, if known.
        sharp_share: Blur of the companions over that of the photographs, the ratio of f-numbers;
            0: they have none.
        frame_size: Height and width of the whole frames, if the samples are cut out of them; the
            result is for those.

    Raises:
        CalibrationError: Blur or distances say too little, frames have several sizes, or the focal
            length given is no lens's that is focused there.
    """
    parts: list[Windows] = []
    size = (0, 0)
    for frame, sample in enumerate(samples):
        if sample.defocused_rgb is None or sample.sharp_rgb is None or not sample.has_depth:
            raise CalibrationError(
                f"{sample.name}: expected a photograph through the lens, its depth, and a sharp "
                "companion (small aperture, same view), got not all three; without companions "
                "photograph the printed target"
            )
        own = sample.depth_m.shape[0], sample.depth_m.shape[1]
        if parts and own != size:
            raise CalibrationError(
                f"{sample.name}: expected frames of one size, since blur is counted in pixels, "
                f"got {size} and {own}; calibrate with those of one size"
            )
        size = own
        parts.append(windows(sample, frame, response))
    seen = Windows.join(parts)
    left = seen.left_by_shape()
    shape = min(left, key=left.__getitem__) if left else UNTOLD_SHAPE
    spreads = spreads_of(seen, shape)
    if len(spreads.dioptre) < _FEWEST:
        raise CalibrationError(
            f"recording: expected at least {_FEWEST} textured places of one distance, got "
            f"{len(spreads.dioptre)}; record more frames of textured surfaces with good depth"
        )
    if (told_by := len(np.unique(spreads.frame))) < _FEWEST_FRAMES:
        # The intervals say how much frames differ: of one alone, they would have no width.
        raise CalibrationError(
            f"recording: expected textured places in at least {_FEWEST_FRAMES} frames, got them "
            f"in {told_by}; record more frames, from near to far"
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
    record = _record(line, shape, nominal, sigma_per_diameter, focal_px, frame_size or size)
    return RgbdResult(record, spreads, k_a, focus, line[2], left)


def spreads_of(seen: Windows, shape: str) -> Spreads:
    """What the windows say if the point-spread function has this shape."""
    sigma_px = seen.sigma_px[:, SHAPES.index(shape)]
    told = np.isfinite(sigma_px)
    return Spreads(seen.dioptre[told], sigma_px[told], seen.frame[told])


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
    """Bootstrap over frames, each of which tells the whole line by itself."""
    random = np.random.default_rng(0)
    members = [np.flatnonzero(spreads.frame == f) for f in np.unique(spreads.frame)]
    draws = []
    for _ in range(_DRAWS):
        chosen = np.concatenate(
            [members[i] for i in random.integers(0, len(members), len(members))]
        )
        part = Spreads(spreads.dioptre[chosen], spreads.sigma_px[chosen], spreads.frame[chosen])
        draws.append(robust_line(part, line)[:2] if len(chosen) >= _FEWEST // 2 else line[:2])
    middle = np.array(line[:2])
    moved = (np.array(draws) - middle) * widening(len(members), 1)
    low, high = middle + np.quantile(moved, [0.025, 0.975], axis=0)
    return (
        (line[0], float(low[0]), float(high[0])),
        (line[1], float(low[1]), float(high[1])),
    )


def _record(
    line: tuple[float, float, float],
    shape: str,
    nominal: Nominal,
    k: float,
    focal_px: float,
    size: tuple[int, int],
) -> LensCalibration:
    """The record of ``line``: k A, 1/d_f and what is left in focus.

    Raises:
        CalibrationError: The focal length is none that focuses at the distance measured.
    """
    focus_m = 1 / line[1] if line[1] > 1e-3 else math.inf
    pitch_m = nominal.pixel_pitch_m or UNKNOWN_PITCH_M
    source = "given"
    if shape != "gaussian":  # a disk has its k, and the blend is made of such disks
        k, source = DISK_SIGMA_PER_DIAMETER, "shape"
    elif not k:
        k, source = ASSUMED_SIGMA_PER_DIAMETER, "assumed"
        if nominal.focal_length_m and nominal.f_number and nominal.pixel_pitch_m:
            k, source = line[0] / written_lens(nominal, focus_m).px_per_dioptre, "nominal"
    focal_m = nominal.focal_length_m or (focal_px or 1.2 * size[1]) * pitch_m
    if not focal_m < focus_m:
        raise CalibrationError(
            f"--focal: expected less than the distance of the focus, {focus_m:.3g} m as measured, "
            f"got {focal_m:.3g} m; check its unit (mm)"
        )
    image_m = 1 / (1 / focal_m - 1 / focus_m)
    lens = LensConfig(focal_m, focal_m * image_m / (pitch_m * line[0] / k), focus_m, pitch_m)
    return LensCalibration(
        lens=lens,
        width=size[1],
        height=size[0],
        pitch_known=nominal.pixel_pitch_m > 0,
        shape=shape,
        sigma_per_diameter=round(k, 5),
        gaussian_share={"disk": 0.0, "blend": 0.5, "gaussian": 1.0}[shape],
        gaussian_sigma_per_diameter=round(k, 5),
        source=source,
        details={"from": "RGB-D frames", "k_px_per_dioptre": round(float(line[0]), 4)},
    )
