"""The two records that travel through the pipeline: a camera frame in, an estimate out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ddfd_ros.core.thin_lens import LensConfig

HEADS: tuple[str, ...] = ("depth_m", "sigma_m", "sharp_rgb", "defocus_px")
"""Every output a model may have, in the order in which contracts and graphs list them."""


@dataclass(frozen=True)
class Frame:
    """One camera image with what is needed to answer it.

    Attributes:
        image_rgb: uint8 ``[H, W, 3]``, RGB, the camera's own bytes.
        stamp_ns: Acquisition time in nanoseconds of the camera's clock; copied to every output.
        frame_id: Optical frame of the camera; copied to every output.
        received_ns: Monotonic time of arrival in nanoseconds, for the latency split.
        lens: The camera's lens at the resolution of ``image_rgb``; None when it is not known.
    """

    image_rgb: np.ndarray
    stamp_ns: int = 0
    frame_id: str = ""
    received_ns: int = 0
    lens: LensConfig | None = None


@dataclass(frozen=True)
class Estimate:
    """What the network says about one frame. A head that was not computed is ``None``.

    Attributes:
        depth_m: float32 ``[H, W]``, metres along the optical axis, NaN where unknown.
        sharp_rgb: uint8 ``[H, W, 3]``, the all-in-focus image.
        sigma_m: float32 ``[H, W]``, standard deviation of ``depth_m`` in metres.
        defocus_px: float32 ``[H, W]``, signed blur diameter in pixels, negative before the focus.
        zones: uint8 ``[H, W]``, where blur says little about depth, see ``core.blur_zones``.
        timings_ms: Duration of each stage in milliseconds, in the order in which they ran.
    """

    depth_m: np.ndarray | None = None
    sharp_rgb: np.ndarray | None = None
    sigma_m: np.ndarray | None = None
    defocus_px: np.ndarray | None = None
    zones: np.ndarray | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
