"""The camera's ``CameraInfo`` messages: the newest, or the one with an image's stamp."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

KEPT = 64
"""Messages kept: two seconds of a camera at 30 Hz, longer than any frame waits for its answer."""

WAIT_S = 0.03
"""How long an image waits for its camera_info, which drivers send just before or after it."""

_JUMP_NS = 1_000_000_000
"""Time has jumped back where an image is older than the one before by more than this."""


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class CameraInfos:
    """Filled by the executor's thread, asked by the worker's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kept: deque[tuple[int, Any]] = deque(maxlen=KEPT)
        self._asked_ns = 0

    def add(self, info: Any) -> None:
        """Keep a message."""
        with self._changed:
            self._kept.append((stamp_ns(info.header.stamp), info))
            self._changed.notify_all()

    @property
    def latest(self) -> Any | None:
        """The message that arrived last; None when none has."""
        with self._changed:
            return self._kept[-1][1] if self._kept else None

    def at(self, wanted_ns: int, wait_s: float = WAIT_S) -> Any | None:
        """The message with exactly this stamp; None when it does not come.

        Waits for it only when the newest one is older than the image, or may be of a bag's end
        while the bag has begun again: a camera_info that was lost, or never has the image's stamp,
        must not hold up every frame.
        """
        jumped = wanted_ns < self._asked_ns - _JUMP_NS
        self._asked_ns = wanted_ns

        def find() -> Any | None:
            return next((info for ns, info in reversed(self._kept) if ns == wanted_ns), None)

        def settled() -> bool:
            if jumped:
                return find() is not None
            return not self._kept or self._kept[-1][0] >= wanted_ns

        with self._changed:
            self._changed.wait_for(settled, wait_s)
            return find()
