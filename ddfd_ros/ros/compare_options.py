"""The parameters of ``ddfd_compare``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor

from ddfd_ros.core.errors import DdfdError

_DESCRIPTIONS = {
    "max_time_difference_s": "Largest difference of two stamps that are compared, in seconds",
    "assume_registered": "Compare although the frame_ids differ: the images are of one view",
    "reference_pixels": "Pixels of the reference: rectified (P of its camera_info holds), raw (K "
    "and D), or auto: raw if its topic is called image_raw, else rectified",
    "distance_bins_m": "Bounds of the distance bins in metres, by the reference",
    "stride": "Every so many of our rows and columns are compared",
    "window_frames": "Frames that the running errors are taken over",
    "report_period_s": "Seconds between two reports",
    "summary_file": "JSON file for the summary, written with each report; empty: none",
}

REFERENCE_PIXELS = ("auto", "raw", "rectified")


class OptionError(DdfdError):
    """A parameter's value is refused."""


@dataclass(frozen=True)
class CompareOptions:
    """Values at the start; none may change while running."""

    max_time_difference_s: float = 0.02
    assume_registered: bool = False
    reference_pixels: str = "auto"
    distance_bins_m: tuple[float, ...] = (0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
    stride: int = 2
    window_frames: int = 150
    report_period_s: float = 1.0
    summary_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name, low in (
            ("max_time_difference_s", 0.0),
            ("stride", 1),
            ("window_frames", 1),
            ("report_period_s", 0.05),
        ):
            if not low <= getattr(self, name) < math.inf:
                raise OptionError(f"{name}: expected {low} or more, got {getattr(self, name)}")
        if self.reference_pixels not in REFERENCE_PIXELS:
            raise OptionError(
                f"reference_pixels: expected one of {', '.join(REFERENCE_PIXELS)}, got "
                f"{self.reference_pixels!r}"
            )

    def reference_rectified(self, topic: str) -> bool:
        """Whether the reference's pixels are rectified.

        As with ``image_proc`` and drivers, ``image_raw`` is not; depth by any other name
        (``image_rect``, ``image_rect_raw``) is, as ``depth_image_proc`` takes it.

        Args:
            topic: Full name of its image topic.
        """
        if self.reference_pixels == "auto":
            return topic.rpartition("/")[2] != "image_raw"
        return self.reference_pixels == "rectified"


def declare_options(node: Any) -> CompareOptions:
    """Declare the parameters on ``node`` and return the values it was started with.

    Raises:
        OptionError: A value is refused.
    """
    values: dict[str, Any] = {}
    for item in fields(CompareOptions):
        descriptor = ParameterDescriptor(description=_DESCRIPTIONS[item.name], read_only=True)
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        value = node.declare_parameter(item.name, default, descriptor).value
        values[item.name] = tuple(value) if isinstance(item.default, tuple) else value
    return CompareOptions(**values)
