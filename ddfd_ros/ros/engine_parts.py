"""Which smaller engine would do, because some heads have had no subscriber for a while."""

from __future__ import annotations

import time

from ddfd_ros.inference.switching import SwitchingBackend

PART_AFTER_S = 30.0
"""Seconds for which the same heads must have been asked for; a build disturbs the frames."""

_IMAGE_HEAD = "sharp_rgb"


class PartWatch:
    """Watches which heads are asked for, and names each smaller engine once."""

    def __init__(self, after_s: float = PART_AFTER_S) -> None:
        self._after_s = after_s
        self._candidate: tuple[str, ...] | None = None
        self._since = 0.0
        self._named: set[tuple[str, ...]] = set()

    def wanted(self, backend: SwitchingBackend) -> tuple[str, ...] | None:
        """Heads of an engine that is worth building now, or None.

        A network has two decoders: one for the image and one for depth and what belongs to it.
        Only a whole decoder left out saves time.
        """
        part = _part(backend.contract.outputs, backend.last_heads)
        now = time.monotonic()
        if part != self._candidate:
            self._candidate, self._since = part, now
        if part is None or part in self._named or now - self._since < self._after_s:
            return None
        self._named.add(part)
        return part


def _part(outputs: tuple[str, ...], heads: tuple[str, ...]) -> tuple[str, ...] | None:
    rest = tuple(head for head in outputs if head != _IMAGE_HEAD)
    if not heads or _IMAGE_HEAD not in outputs or not rest:
        return None
    if _IMAGE_HEAD not in heads:
        return rest
    return (_IMAGE_HEAD,) if set(heads) == {_IMAGE_HEAD} else None
