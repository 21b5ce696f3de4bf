"""What every input gives: frames in camera order, and the facts needed to play and judge them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from ddfd_ros.core.thin_lens import LensConfig

Pacing = Literal["wait", "stream"]


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics in pixels of the image they belong to."""

    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, scale: float) -> Intrinsics:
        """The intrinsics of the image resized by ``scale``; pixel centres lie on integers."""
        return Intrinsics(
            self.fx * scale,
            self.fy * scale,
            (self.cx + 0.5) * scale - 0.5,
            (self.cy + 0.5) * scale - 0.5,
        )

    @classmethod
    def assumed(cls, height: int, width: int, horizontal_fov_deg: float = 60.0) -> Intrinsics:
        """A plausible camera for pictures that carry no calibration."""
        f_px = width / 2 / np.tan(np.radians(horizontal_fov_deg) / 2)
        return cls(float(f_px), float(f_px), (width - 1) / 2, (height - 1) / 2)


@dataclass(frozen=True)
class DemoFrame:
    """One picture with whatever is known about it.

    Attributes:
        name: Short name for titles and tables.
        image_rgb: uint8 ``[H, W, 3]``, what the camera delivers; ``None`` while it still has to be
            made from ``sharp_rgb`` and ``depth_m`` with the optics simulator.
        intrinsics: Of ``image_rgb``; ``None`` when unknown.
        depth_m: float32 ``[H, W]`` true depth in metres, NaN where unknown; ``None``
            without truth.
        sharp_rgb: uint8 ``[H, W, 3]``, the same view without defocus; ``None`` when unknown.
        time_s: Seconds since the first frame of a stream; ``None`` for photographs.
    """

    name: str
    image_rgb: np.ndarray | None
    intrinsics: Intrinsics | None = None
    depth_m: np.ndarray | None = None
    sharp_rgb: np.ndarray | None = None
    time_s: float | None = None

    def resized(self, scale: float) -> DemoFrame:
        """The frame at another size: colours by area or bicubic, depth by nearest neighbour."""
        if scale == 1.0:
            return self
        colour = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return replace(
            self,
            image_rgb=_resize(self.image_rgb, scale, colour),
            sharp_rgb=_resize(self.sharp_rgb, scale, colour),
            # INTER_NEAREST goes by pixel corners: half a pixel beside the colours.
            depth_m=_resize(self.depth_m, scale, cv2.INTER_NEAREST_EXACT),
            intrinsics=None if self.intrinsics is None else self.intrinsics.scaled(scale),
        )


@dataclass(frozen=True)
class SourceInfo:
    """What is known about an input as a whole.

    Attributes:
        kind: One word: ``image``, ``folder``, ``video``, ``camera``, ``bag``, ``rgbd``, ``nyuv2``,
            ``dfd_dslr``, ``dfd_outdoor`` or ``builtin``.
        title: One line for people.
        pacing: ``wait`` for photographs (the next one goes out when the last one is answered),
            ``stream`` for whatever has a clock of its own.
        rate_hz: Frames per second of a stream.
        model: Name of the shipped model that fits.
        lens: Lens that took the pictures, at their own size; ``None`` when unknown.
        natural_pairs: ``sharp_rgb`` is another photograph of the view and must be registered.
        depth_limit_m: A second, nearer limit up to which the truth is to be trusted most.
        notes: What the reader of the results should know.
    """

    kind: str
    title: str
    pacing: Pacing
    rate_hz: float = 10.0
    model: str = "nyu-8m"
    lens: LensConfig | None = None
    natural_pairs: bool = False
    depth_limit_m: float | None = None
    notes: tuple[str, ...] = ()


class Source(ABC):
    """An input that was opened and found playable."""

    def __init__(self, info: SourceInfo) -> None:
        self.info = info

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames that :meth:`frames` yields at most (an estimate for videos)."""

    @abstractmethod
    def frames(self) -> Iterator[DemoFrame]:
        """Every frame in order; raises InputError or DatasetError on one that cannot be read."""

    def remarks(self) -> tuple[str, ...]:
        """What :meth:`frames` found so far that the reader of the results should know."""
        return ()


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` indices spread evenly over ``range(count)``, first and last included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, max(limit, 1))})


def _resize(image: np.ndarray | None, scale: float, interpolation: int) -> np.ndarray | None:
    if image is None:
        return None
    height, width = (max(32, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=interpolation)
