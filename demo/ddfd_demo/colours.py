"""Numbers as colours: one scale per quantity, the same in every picture of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

UNKNOWN_RGB = (48, 48, 52)
"""Colour of pixels without a value."""


@dataclass(frozen=True)
class Scale:
    """A quantity's range in metres and its colour map.

    Attributes:
        low: Value of the first colour, metres.
        high: Value of the last colour, metres.
        colour_map: Name of a matplotlib colour map.
        label: What the scale shows, with its unit.
    """

    low: float
    high: float
    colour_map: str
    label: str

    def table(self) -> np.ndarray:
        """uint8 ``[256, 3]``, the colours from low to high."""
        colours = mpl.colormaps[self.colour_map](np.linspace(0, 1, 256))[:, :3]
        return np.rint(colours * 255).astype(np.uint8)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """uint8 ``[H, W, 3]`` of ``[H, W]`` metres; NaN and infinite get ``UNKNOWN_RGB``."""
        known = np.isfinite(values)
        share = (np.where(known, values, self.low) - self.low) / (self.high - self.low)
        image = self.table()[np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)]
        image[~known] = UNKNOWN_RGB
        return image

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the range, at most ``most``, for the scale bar."""
        span = self.high - self.low
        power = 10.0 ** np.floor(np.log10(span))
        steps = [power * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2)]
        step = next((s for s in steps if span / s <= most - 1), span)
        first = np.ceil(self.low / step - 1e-9) * step
        return [float(v) + 0.0 for v in np.arange(first, self.high + step * 1e-6, step).round(6)]


def depth_scale(maps_m: Iterable[np.ndarray]) -> Scale:
    """Near is red, far is blue; the range holds 98 percent of all values."""
    low, high = _range(maps_m, 1, 99)
    return Scale(
        max(0.0, np.floor(low * 10) / 10), np.ceil(high * 10) / 10, "turbo_r", "depth [m]"
    )


def sigma_scale(maps_m: Iterable[np.ndarray]) -> Scale:
    """From zero to nearly the largest standard deviation."""
    _, high = _range(maps_m, 0, 98)
    return Scale(0.0, max(np.ceil(high * 20) / 20, 0.05), "magma", "sigma [m]")


def error_scale(maps_m: Iterable[np.ndarray]) -> Scale:
    """Signed, symmetric: red is too far, blue too near."""
    _, high = _range((abs(m) for m in maps_m), 0, 95)
    high = max(np.ceil(high * 10) / 10, 0.1)
    return Scale(-high, high, "RdBu_r", "depth minus truth [m]")


def _range(maps: Iterable[np.ndarray], low: float, high: float) -> tuple[float, float]:
    """Percentiles over all finite values, of every fourth row and column."""
    parts = [part[np.isfinite(part)] for part in (m[::4, ::4] for m in maps)]
    values = np.concatenate([*parts, np.empty(0)])
    if values.size == 0:
        return 0.0, 1.0
    bottom, top = np.percentile(values, (low, high))
    return float(bottom), float(max(top, bottom + 0.1))
