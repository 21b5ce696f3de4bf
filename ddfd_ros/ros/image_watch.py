"""The camera's newest image, measured when somebody asks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from ddfd_ros.core.image_quality import ImageQuality, measure

_LAST = 5
_MIN_PERIOD_S = 0.5


class ImageWatch:
    """Medians of what the last few measured images were like; one at most every half second.

    The worker only leaves a reference here, and the thread that reports measures, so that no
    frame waits for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: np.ndarray | None = None
        self._looked_at = float("-inf")
        self._measured_at = float("-inf")
        self._qualities: deque[ImageQuality] = deque(maxlen=_LAST)

    def look_at(self, image_rgb: np.ndarray) -> None:
        """Take note of an image, uint8 ``[H, W, 3]``, which is not changed afterwards."""
        self._looked_at = self._clock()
        self._newest = image_rgb  # one reference, replaced at once: no lock needed

    def quality(self, lately_s: float = float("inf")) -> ImageQuality | None:
        """Median of each measure over the last images; None before the first.

        Args:
            lately_s: Without an image for longer than so many seconds there is none either, and
                the medians begin anew: what the camera once saw says nothing about now.
        """
        with self._lock:
            image, now = self._newest, self._clock()
            if now - self._looked_at > lately_s:
                self._newest = image = None
                self._qualities.clear()
            if image is not None and now - self._measured_at >= _MIN_PERIOD_S:
                self._newest, self._measured_at = None, now
                self._qualities.append(measure(image))
            if not self._qualities:
                return None
            columns = zip(*map(astuple, self._qualities), strict=True)
            return ImageQuality(*(_median(column) for column in columns))


def _median(values: tuple[float, ...]) -> float:
    """The median of those that were measured; NaN when none was."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")
