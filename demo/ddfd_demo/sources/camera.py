"""A camera of this machine, opened with OpenCV. Its frames exist only while it is played."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Source, SourceInfo


class CameraSource(Source):
    """Frames of a video device as they come, until ``limit`` of them were taken."""

    def __init__(self, device: str, limit: int) -> None:
        self._device: int | str = int(device) if device.isdigit() else device
        self._limit = limit
        capture = self._open()
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        rate_hz = rate_hz if 1 <= rate_hz <= 240 else 30.0
        capture.release()
        super().__init__(
            SourceInfo(
                "camera",
                f"camera {device}, {limit} frames at up to {rate_hz:.3g} frames/s",
                "stream",
                rate_hz=rate_hz,
                notes=(
                    "depth in metres holds only for the lens the model was trained for "
                    "(README: training for one's own camera)",
                ),
            )
        )

    def __len__(self) -> int:
        return self._limit

    def frames(self) -> Iterator[DemoFrame]:
        """Frames at the camera's pace; raises InputError when the camera stops delivering."""
        capture = self._open()
        start = time.monotonic()
        try:
            for index in range(self._limit):
                good, image = capture.read()
                if not good:
                    raise InputError(
                        f"camera {self._device}: expected {self._limit} frames, got {index}; was "
                        "it unplugged?"
                    )
                yield DemoFrame(
                    f"frame {index}",
                    cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
                    time_s=time.monotonic() - start,
                )
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._device)
        if not capture.isOpened():
            capture.release()
            raise InputError(
                f"camera {self._device}: expected a video device that delivers pictures, got "
                "none; is it plugged in, free, and may you read /dev/video*?"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
