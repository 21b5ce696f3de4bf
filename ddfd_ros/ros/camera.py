"""The ``CameraInfo`` that belongs to a published image, from the one that came with the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from ddfd_ros.core.camera_model import correct_camera, published_lens
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.view import View


@dataclass(frozen=True)
class PublishedCamera:
    """The camera of the published pixels.

    Attributes:
        camera: Its numbers; None when the camera is not calibrated.
        problem: What is wrong with the camera_info, in words; empty when nothing is.
        source: The camera's own message; None when none has come.
        size: Height and width of the published image.
        focal_length_px: K[0] of the camera's whole image (P[0] where it is rectified); 0 when the
            camera is not calibrated.
        rectified: Whether the pixels are rectified: nothing is distorted, and K is that of P.
    """

    camera: Intrinsics | None
    problem: str
    source: Any | None
    size: tuple[int, int]
    focal_length_px: float = 0.0
    rectified: bool = False

    def message(self) -> CameraInfo:
        """A new ``CameraInfo`` without header; all numbers zero when not calibrated."""
        return _message(self.source, self.camera, *self.size, self.rectified)


class CameraInfoCorrector:
    """Gives the camera info of the published image and says what was wrong with the original.

    The published image has no region of interest and no binning, so K and P of the result hold
    for its own pixels. What cannot be corrected honestly becomes an uncalibrated info (all numbers
    zero, as ``sensor_msgs/CameraInfo`` defines it). The last answer is kept: a camera says the
    same thing thirty times a second.
    """

    def __init__(self) -> None:
        self._asked: tuple[Any, ...] = ()
        self._published: PublishedCamera | None = None

    def published(
        self,
        info: Any | None,
        height: int,
        width: int,
        view: View | None = None,
        rectified: bool = False,
    ) -> PublishedCamera:
        """The camera of the published image.

        Args:
            info: The camera's ``CameraInfo``; None when none has arrived.
            height: Rows of the camera's image in pixels.
            width: Columns of the camera's image in pixels.
            view: The part and scale that are published; None: the camera's image itself.
            rectified: Whether the camera's image is rectified.
        """
        asked = (height, width, view, rectified)
        if self._published is None or self._published.source is not info or asked != self._asked:
            camera, problem = correct_camera(info, height, width, rectified)
            size = (height, width)
            focal_px = 0.0 if camera is None else camera.k[0]
            if view is not None:
                size = (view.height, view.width)
                camera = None if camera is None else view.network_camera(camera)
            self._published = PublishedCamera(camera, problem, info, size, focal_px, rectified)
            self._asked = asked
        return self._published

    def correct(
        self, info: Any | None, height: int, width: int, rectified: bool = False
    ) -> tuple[CameraInfo, str]:
        """The message for a ``height`` x ``width`` image, and what is wrong in words."""
        published = self.published(info, height, width, None, rectified)
        return published.message(), published.problem


def _message(
    info: Any | None, camera: Intrinsics | None, height: int, width: int, rectified: bool
) -> CameraInfo:
    """The camera as a message; uncalibrated when there is none."""
    if info is None or camera is None:
        return CameraInfo(height=height, width=width)
    model, d, r = published_lens(info, rectified)
    return CameraInfo(
        height=camera.height,
        width=camera.width,
        distortion_model=model,
        d=d,
        k=list(camera.k),
        r=r,
        p=list(camera.p),
        roi=RegionOfInterest(),
    )
