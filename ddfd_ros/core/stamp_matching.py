"""Pairs of messages of two streams whose stamps are closest."""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 60
_JUMP_NS = 10**9
_REFERENCE_NS = 5 * 10**9
"""How long an answer may take: of the reference that much is kept, by its stamps."""
_MOST_BYTES = 256 << 20
"""But of neither stream more than this: 218 images of 640x480 and 32 bits."""


class StampMatcher:
    """Finds for each of our messages the reference's nearest in time.

    A pair is only decided when a reference message at or after ours has come: the one before may
    be farther away. Stamps that jump back (a bag that starts again) begin anew. Ours may come up
    to 5 s after the reference. Of either no more than 256 MiB is kept, also while the other is
    silent.

    Args:
        tolerance_s: Largest difference of the two stamps.
    """

    def __init__(self, tolerance_s: float) -> None:
        self.tolerance_s = tolerance_s
        self.unmatched = 0
        self._ours: deque[tuple[int, Any]] = deque()
        self._reference: deque[tuple[int, Any]] = deque()
        self._bytes = 0

    def add_ours(self, stamp_ns: int, message: Any) -> list[tuple[Any, Any, float]]:
        """Add one of ours; see ``add_reference`` for what comes back."""
        if self._ours and stamp_ns < self._ours[-1][0] - _JUMP_NS:
            self._begin_anew()
        self._ours.append((stamp_ns, message))
        while len(self._ours) > _KEPT or len(self._ours) > 1 and self._ours_bytes() > _MOST_BYTES:
            self._ours.popleft()
            self.unmatched += 1
        return self._pairs()

    def add_reference(self, stamp_ns: int, message: Any) -> list[tuple[Any, Any, float]]:
        """Add one of the reference.

        Returns:
            The pairs now decided: ours, the reference's, and its stamp minus ours in seconds.
        """
        if self._reference and stamp_ns < self._reference[-1][0] - _JUMP_NS:
            self._begin_anew()
        self._reference.append((stamp_ns, message))
        self._bytes += _size(message)
        pairs = self._pairs()
        self._forget(stamp_ns - _REFERENCE_NS)
        return pairs

    def _forget(self, before_ns: int) -> None:
        """Let go of the reference before this stamp, and of what is too much."""
        while len(self._reference) > 1 and (
            self._reference[0][0] < before_ns or self._bytes > _MOST_BYTES
        ):
            self._bytes -= _size(self._reference.popleft()[1])

    def _ours_bytes(self) -> int:
        return sum(_size(message) for _, message in self._ours)

    def _begin_anew(self) -> None:
        self._ours.clear()
        self._reference.clear()
        self._bytes = 0

    def _pairs(self) -> list[tuple[Any, Any, float]]:
        pairs = []
        while self._ours and self._reference and self._reference[-1][0] >= self._ours[0][0]:
            stamp_ns, ours = self._ours.popleft()
            nearest_ns, reference = min(self._reference, key=lambda item: abs(item[0] - stamp_ns))
            difference_s = (nearest_ns - stamp_ns) / 1e9
            if abs(difference_s) <= self.tolerance_s:
                pairs.append((ours, reference, difference_s))
            else:
                self.unmatched += 1
            self._forget(stamp_ns - _JUMP_NS)  # ours go on from here
        return pairs


def _size(message: Any) -> int:
    """Bytes of an image message's pixels."""
    return len(getattr(message, "data", b""))
