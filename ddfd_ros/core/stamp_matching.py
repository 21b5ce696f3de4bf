"""Pairs of messages of two streams whose stamps are closest."""

from __future__ import annotations

from collections import deque
from typing import Any

_KEPT = 60
_JUMP_S = 1.0


class StampMatcher:
    """Finds for each of our messages the reference's nearest in time.

    A pair is only decided when a reference message at or after ours has come: the one before may
    be farther away. Stamps that jump back (a bag that starts again) begin anew.

    Args:
        tolerance_s: Largest difference of the two stamps.
    """

    def __init__(self, tolerance_s: float) -> None:
        self.tolerance_s = tolerance_s
        self.unmatched = 0
        self._ours: deque[tuple[int, Any]] = deque()
        self._reference: deque[tuple[int, Any]] = deque(maxlen=_KEPT)

    def add_ours(self, stamp_ns: int, message: Any) -> list[tuple[Any, Any, float]]:
        """Add one of ours; see ``add_reference`` for what comes back."""
        if self._ours and stamp_ns < self._ours[-1][0] - _JUMP_S * 1e9:
            self._ours.clear()
            self._reference.clear()
        self._ours.append((stamp_ns, message))
        while len(self._ours) > _KEPT:
            self._ours.popleft()
            self.unmatched += 1
        return self._pairs()

    def add_reference(self, stamp_ns: int, message: Any) -> list[tuple[Any, Any, float]]:
        """Add one of the reference.

        Returns:
            The pairs now decided: ours, the reference's, and its stamp minus ours in seconds.
        """
        if self._reference and stamp_ns < self._reference[-1][0] - _JUMP_S * 1e9:
            self._ours.clear()
            self._reference.clear()
        self._reference.append((stamp_ns, message))
        return self._pairs()

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
        return pairs
