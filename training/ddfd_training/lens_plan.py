"""What a lens can tell about distance: blur, resolution, dead zone and ambiguity over a range.

With A pixels of blur per dioptre, an error of e pixels in the blur is an error of d^2 e / A in
depth (the derivative of c = A (1/d_f - 1/d)). Where the blur is below about a pixel its size
cannot be told (the dead zone), and with the focus inside the range a point before it is blurred
like another one behind it (Carvalho 2018, section 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ddfd_ros.core.blur_zones import DEAD_ZONE_PX
from ddfd_ros.core.thin_lens import LensConfig

BLUR_ERROR_PX = 0.5
LARGEST_BLUR_PX = 30.0

SENSORS_MM: dict[str, tuple[float, float]] = {
    "1/4": (3.60, 2.70),
    "1/3.2": (4.54, 3.42),
    "1/3": (4.80, 3.60),
    "1/2.9": (4.97, 3.73),
    "1/2.8": (5.57, 3.13),
    "1/2.5": (5.76, 4.29),
    "1/2.3": (6.17, 4.55),
    "1/2": (6.40, 4.80),
    "1/1.8": (7.18, 5.32),
    "1/1.7": (7.60, 5.70),
    "2/3": (8.80, 6.60),
    "1": (12.80, 9.60),
    "1.1": (14.19, 10.38),
    "4/3": (17.30, 13.00),
    "aps-c": (23.60, 15.60),
    "full-frame": (36.00, 24.00),
}
"""Usual width and height of sensors by their size's name, in mm; a data sheet is more exact."""


def sensor_size_mm(text: str) -> tuple[float, float]:
    """Width and height of a sensor given by name (``1/1.8``) or in mm (``7.2x5.4``).

    Raises:
        ValueError: Neither.
    """
    name = text.strip().lower().rstrip('"').removesuffix("in").removesuffix("inch").strip()
    if name in SENSORS_MM:
        return SENSORS_MM[name]
    try:
        width, height = (float(side) for side in name.replace("mm", "").split("x"))
    except ValueError:
        width, height = 0.0, 0.0
    if not (width > 0 and height > 0):
        raise ValueError(
            f"sensor: expected one of {', '.join(SENSORS_MM)}, or width x height in mm such as "
            f"7.2x5.4; got {text!r}"
        )
    return width, height


@dataclass(frozen=True)
class Plan:
    """A lens and the range it is to measure.

    Attributes:
        lens: The lens at its focus, with the pixel pitch of the image as processed.
        near_m: Nearest distance that matters, in metres.
        far_m: Farthest one.
        blur_error_px: How well blur can be estimated, in pixels of diameter.
        dead_zone_px: Blur below which its size cannot be told.

    Raises:
        ValueError: The range is empty, or an error or limit is not positive.
    """

    lens: LensConfig
    near_m: float
    far_m: float
    blur_error_px: float = BLUR_ERROR_PX
    dead_zone_px: float = DEAD_ZONE_PX

    def __post_init__(self) -> None:
        """Refuse ranges that hold nothing."""
        if not 0 < self.near_m < self.far_m < math.inf:
            raise ValueError(
                "range: expected 0 < nearest < farthest in metres, got "
                f"{self.near_m} and {self.far_m}"
            )
        if not (self.blur_error_px > 0 and self.dead_zone_px >= 0):
            raise ValueError(
                "expected a blur error above 0 px and a dead zone from 0 px, got "
                f"{self.blur_error_px} and {self.dead_zone_px}"
            )

    def step_m(self, depth_m: Any) -> Any:
        """Depth error in metres that ``blur_error_px`` makes at ``depth_m``: d^2 e / A."""
        return depth_m**2 * self.blur_error_px / self.lens.px_per_dioptre

    def twin_m(self, depth_m: float) -> float:
        """The distance on the other side of the focus with the same blur, or ``inf``."""
        return self.lens.depth_m(-float(self.lens.signed_coc_px(depth_m)))

    @property
    def largest_blur_px(self) -> float:
        """Largest blur in the range."""
        return float(max(self.lens.coc_px(self.near_m), self.lens.coc_px(self.far_m)))

    @property
    def dead_zone_m(self) -> tuple[float, float] | None:
        """The part of the range whose blur is below ``dead_zone_px``, or ``None``."""
        low = max(self.lens.near_limit_m(self.dead_zone_px), self.near_m)
        high = min(self.lens.far_limit_m(self.dead_zone_px), self.far_m)
        return (low, high) if low < high * (1 - 1e-9) else None

    @property
    def ambiguous_m(self) -> tuple[float, float] | None:
        """The part of the range in which each blur belongs to two distances, or ``None``."""
        if not self.near_m < self.lens.focus_distance_m < self.far_m:
            return None
        shared_px = float(min(self.lens.coc_px(self.near_m), self.lens.coc_px(self.far_m)))
        return self.lens.depth_m(-shared_px), self.lens.depth_m(shared_px)

    def focused(self, focus_m: float) -> Plan:
        """The same question with another focus."""
        return replace(self, lens=replace(self.lens, focus_distance_m=focus_m))

    def rows(self, count: int = 10) -> list[dict[str, Any]]:
        """The table over distance: round distances from the nearest to the farthest.

        Returns:
            For each: ``depth_m``, ``signed_blur_px`` (negative before the focus), ``blur_px``,
            ``step_m`` and ``step_percent`` of the distance, ``dead_zone``, and ``twin_m``, the
            other distance of the range with this blur, or ``None``.
        """
        dead = self.dead_zone_m
        result = []
        for depth_m in distances_m(self.near_m, self.far_m, count):
            signed_px = float(self.lens.signed_coc_px(depth_m))
            twin_m = self.twin_m(depth_m)
            inside = self.near_m <= twin_m <= self.far_m and not math.isclose(twin_m, depth_m)
            result.append(
                {
                    "depth_m": depth_m,
                    "signed_blur_px": signed_px,
                    "blur_px": abs(signed_px),
                    "step_m": float(self.step_m(depth_m)),
                    "step_percent": 100 * float(self.step_m(depth_m)) / depth_m,
                    "dead_zone": dead is not None and dead[0] <= depth_m <= dead[1],
                    "twin_m": twin_m if inside else None,
                }
            )
        return result

    def summary(self) -> dict[str, Any]:
        """The plan's figures, as JSON values; infinity is ``None``."""
        focus_m = self.lens.focus_distance_m
        return {
            "focus_distance_m": focus_m if math.isfinite(focus_m) else None,
            "px_per_dioptre": self.lens.px_per_dioptre,
            "blur_near_px": float(self.lens.coc_px(self.near_m)),
            "blur_far_px": float(self.lens.coc_px(self.far_m)),
            "largest_blur_px": self.largest_blur_px,
            "step_near_m": float(self.step_m(self.near_m)),
            "step_far_m": float(self.step_m(self.far_m)),
            "dead_zone_m": self.dead_zone_m,
            "ambiguous_m": self.ambiguous_m,
            "reach_10_percent_m": self.reach_m(0.1),
        }

    def reach_m(self, share: float) -> float:
        """Distance in metres up to which the depth error stays below ``share`` of it.

        d e / A < share, whatever the focus.
        """
        return share * self.lens.px_per_dioptre / self.blur_error_px


def distances_m(near_m: float, far_m: float, count: int) -> list[float]:
    """About ``count`` distances, evenly spaced in ratio, rounded to two digits, with both ends."""
    between = np.geomspace(near_m, far_m, count)[1:-1]
    rounded = [float(f"{value:.2g}") for value in between]
    inner = sorted({value for value in rounded if near_m < value < far_m})
    return [near_m, *inner, far_m]
