"""How far two answers to the same image are apart, head by head, and whether that is too far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.errors import InferenceError
from ddfd_ros.core.golden import head_scale

TOLERANCES: dict[str, tuple[float, float]] = {
    "depth_m": (1e-3, 1e-3),
    "sigma_m": (1e-3, 2e-3),
    "sharp_rgb": (1.0, 0.0),
    "defocus_px": (1e-2, 1e-3),
}
"""Per head (absolute, relative) tolerance of a pixel between runtimes in single precision: metres,
8-bit levels (a byte may round to its neighbour), pixels of blur."""

UNITS: dict[str, str] = {
    "depth_m": "m",
    "sigma_m": "m",
    "sharp_rgb": "levels",
    "defocus_px": "px",
}


@dataclass(frozen=True)
class HeadError:
    """Differences of one head over all pixels compared.

    Attributes:
        head: Its name.
        mean: Mean absolute difference, in ``unit``.
        p99: 99th percentile of the absolute difference.
        maximum: Largest absolute difference; ``inf`` where only one side is a number.
        beyond: Fraction of values beyond the tolerance.
        allowed: Fraction that may be beyond it.
        tolerance: (absolute, relative) tolerance that was applied.
    """

    head: str
    mean: float
    p99: float
    maximum: float
    beyond: float
    allowed: float
    tolerance: tuple[float, float]

    @property
    def passed(self) -> bool:
        """Whether few enough values are beyond the tolerance."""
        return self.beyond <= self.allowed

    @property
    def unit(self) -> str:
        """Unit of the differences."""
        return UNITS[self.head]

    def __str__(self) -> str:
        """One line for an error message."""
        absolute, relative = self.tolerance
        return (
            f"{self.head} differs by mean {self.mean:.3g}, p99 {self.p99:.3g}, max "
            f"{self.maximum:.3g} {self.unit}, {self.beyond:.3%} of values beyond "
            f"{absolute:g} {self.unit} + {relative:g} relative"
        )


def compare_outputs(
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    tolerance_scale: float = 1.0,
    allowed: float = 0.0,
) -> list[HeadError]:
    """Compare two answers to one image.

    Args:
        expected: Head name to array, from the reference.
        got: The same heads and shapes from the runtime under test.
        tolerance_scale: Factor on ``TOLERANCES``, above 1 for reduced precision.
        allowed: Fraction of values that may be beyond the tolerance.

    Returns:
        One entry per head of ``expected``.

    Raises:
        InferenceError: A head is missing or has another shape.
    """
    collector = ErrorCollector(tolerance_scale, allowed)
    collector.add(expected, got)
    return collector.results()


class ErrorCollector:
    """Gathers the differences of many images (4 bytes per value compared)."""

    def __init__(self, tolerance_scale: float = 1.0, allowed: float = 0.0) -> None:
        self._scale = tolerance_scale
        self._allowed = allowed
        self._differences: dict[str, list[np.ndarray]] = {}
        self._beyond: dict[str, int] = {}

    def add(self, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> None:
        """Add one image's answers; see ``compare_outputs``."""
        for head, reference in expected.items():
            if head not in got or got[head].shape != reference.shape:
                found = got[head].shape if head in got else "nothing"
                raise InferenceError(
                    f"{head}: expected an answer of shape {reference.shape}, got {found}; the two "
                    "models do not have the same heads or sizes"
                )
            difference, beyond = self._difference(head, reference, got[head])
            self._differences.setdefault(head, []).append(difference)
            self._beyond[head] = self._beyond.get(head, 0) + beyond

    def results(self) -> list[HeadError]:
        """The differences so far, one entry per head."""
        return [self._summary(head) for head in self._differences]

    def _tolerance(self, head: str) -> tuple[float, float]:
        absolute, relative = TOLERANCES[head]
        scale = head_scale(head, self._scale)
        return absolute * scale, relative * scale

    def _difference(
        self, head: str, reference: np.ndarray, answer: np.ndarray
    ) -> tuple[np.ndarray, int]:
        wanted, given = reference.astype(np.float64), answer.astype(np.float64)
        # Not-a-number on both sides is agreement; equal infinities subtract to it as well.
        same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(given - wanted))
        difference = np.nan_to_num(difference, nan=np.inf, posinf=np.inf)
        absolute, relative = self._tolerance(head)
        limit = absolute + relative * np.abs(np.nan_to_num(wanted, posinf=0.0, neginf=0.0))
        return difference.astype(np.float32).ravel(), int((difference > limit).sum())

    def _summary(self, head: str) -> HeadError:
        values = np.concatenate(self._differences[head])
        return HeadError(
            head=head,
            mean=float(values.mean()),
            # Method "higher" never interpolates, which infinities would turn into NaN.
            p99=float(np.quantile(values, 0.99, method="higher")),
            maximum=float(values.max()),
            beyond=self._beyond[head] / values.size,
            allowed=self._allowed,
            tolerance=self._tolerance(head),
        )
