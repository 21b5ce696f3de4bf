"""Running errors of a depth stream against another sensor's, whole and by distance."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.rays import Optics, project, slopes

SUMS = ("pixels", "error", "error_squared", "abs_rel", "delta1", "with_sigma", "in_1s", "in_2s")
"""What is summed over pixels; ``in_1s`` of those with a sigma lie within one of it."""


class ComparisonError(DdfdError):
    """Two depth images cannot be compared; the message says why and what helps."""


@dataclass(frozen=True)
class DepthErrors:
    """Errors over a set of pixels; NaN where there is none.

    Attributes:
        pixels: How many.
        rms_m: Root of the mean square error in metres.
        bias_m: Mean error in metres; positive: too far.
        abs_rel: Mean of abs(error) / reference.
        delta1: Share with max(ours / reference, reference / ours) < 1.25.
        within_1_sigma: Share of those with a sigma whose error is at most one of it; 0.683 if the
            errors are normal and sigma is honest.
        within_2_sigma: The same for two; 0.954.
    """

    pixels: int
    rms_m: float
    bias_m: float
    abs_rel: float
    delta1: float
    within_1_sigma: float
    within_2_sigma: float


class RunningErrors:
    """Sums per distance over all frames, and over the last ``window`` of them.

    A reference nearer or farther than the bins belongs to none of them, but counts as the others.

    Args:
        edges_m: Bounds of the distance bins in metres, by the reference, increasing.
        window: Frames that the running errors are taken over.

    Raises:
        ComparisonError: The bounds do not increase.
    """

    def __init__(self, edges_m: Sequence[float], window: int) -> None:
        if len(edges_m) < 2 or any(b <= a for a, b in zip(edges_m, edges_m[1:], strict=False)):
            raise ComparisonError(
                f"distance bins: expected at least two increasing bounds in metres, got {edges_m}"
            )
        self.edges_m = tuple(float(edge) for edge in edges_m)
        self.frames = 0
        # A row for each bin, and for what is nearer and what is farther than all of them.
        shape = (len(self.edges_m) + 1, len(SUMS))
        self._total = np.zeros(shape)
        self._recent: deque[np.ndarray] = deque(maxlen=window)

    def add(
        self, ours_m: np.ndarray, reference_m: np.ndarray, sigma_m: np.ndarray | None = None
    ) -> None:
        """Add one frame; pixels of which either depth is unknown or infinite are left out.

        Args:
            ours_m: float ``[H, W]`` in metres.
            reference_m: float ``[H, W]`` in metres, pixel by pixel the same view.
            sigma_m: float ``[H, W]``, standard deviation of ``ours_m`` in metres.
        """
        with np.errstate(invalid="ignore"):
            known = (ours_m > 0) & (ours_m < np.inf) & (reference_m > 0) & (reference_m < np.inf)
        ours, reference = ours_m[known].astype(np.float64), reference_m[known].astype(np.float64)
        error = ours - reference
        sigma = np.full(error.shape, np.nan) if sigma_m is None else sigma_m[known]
        ratio = np.maximum(ours / reference, reference / ours)
        columns = (
            np.ones_like(error),
            error,
            error**2,
            np.abs(error) / reference,
            ratio < 1.25,
            np.isfinite(sigma),
            np.abs(error) <= sigma,  # NaN compares false
            np.abs(error) <= 2 * sigma,
        )
        place = np.digitize(reference, self.edges_m)
        sums = [
            np.bincount(place, column.astype(np.float64), len(self._total)) for column in columns
        ]
        frame = np.stack(sums, axis=1)
        self._total += frame
        self._recent.append(frame)
        self.frames += 1

    def total(self) -> DepthErrors:
        """Over all frames and distances."""
        return _errors(self._total.sum(axis=0))

    def recent(self) -> DepthErrors:
        """Over the last frames, at all distances."""
        return _errors(sum(self._recent, np.zeros_like(self._total)).sum(axis=0))

    def by_distance(self) -> list[tuple[float, float, DepthErrors]]:
        """From, to (metres) and errors of each bin, over all frames."""
        bounds = zip(self.edges_m, self.edges_m[1:], strict=False)
        rows = self._total[1:-1]
        return [(*bound, _errors(row)) for bound, row in zip(bounds, rows, strict=True)]


def _errors(sums: np.ndarray) -> DepthErrors:
    values = dict(zip(SUMS, sums.tolist(), strict=True))
    pixels, sigmas = values["pixels"], values["with_sigma"]

    def mean(name: str, count: float) -> float:
        return values[name] / count if count else math.nan

    return DepthErrors(
        pixels=int(pixels),
        rms_m=math.sqrt(mean("error_squared", pixels)),
        bias_m=mean("error", pixels),
        abs_rel=mean("abs_rel", pixels),
        delta1=mean("delta1", pixels),
        within_1_sigma=mean("in_1s", sigmas),
        within_2_sigma=mean("in_2s", sigmas),
    )


def resample(
    reference_m: np.ndarray, reference: Optics, ours: Optics, stride: int = 1
) -> np.ndarray:
    """The reference's depth at our pixels, for two cameras at one place that look one way.

    Depth is along the optical axis, so it stays as it is; only the pixel changes. The nearest one
    is taken: a mean over an edge would be a distance at which nothing is.

    Args:
        reference_m: float ``[H, W]`` in metres.
        reference: How its image sees.
        ours: How our image sees, whose pixels are asked for.
        stride: Every so many of our rows and columns.

    Returns:
        float32 ``[ceil(height / stride), ceil(width / stride)]``, NaN outside the reference.

    Raises:
        ImageFormatError: A lens distorts, and OpenCV is not installed.
    """
    row, column = _nearest_pixels(reference, ours, stride)
    height, width = reference_m.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    result = np.full(row.shape, np.nan, np.float32)
    result[inside] = reference_m[row[inside], column[inside]]
    return result


@lru_cache(maxsize=1)
def _nearest_pixels(reference: Optics, ours: Optics, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The reference's rows and columns for our pixels, -1 where it does not look."""
    rows = np.arange(0, ours.camera.height, stride)
    columns = np.arange(0, ours.camera.width, stride)
    column, row = project(*slopes(ours, rows, columns), reference)
    return _whole(row), _whole(column)


def _whole(pixels: np.ndarray) -> np.ndarray:
    return np.rint(np.nan_to_num(pixels, nan=-1.0).clip(-1, 1e6)).astype(np.int32)
