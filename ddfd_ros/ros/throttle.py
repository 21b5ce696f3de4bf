"""Log lines that do not drown the log: the first at once, its repetitions now and then."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_KINDS = 64
_MOST_ALIKE = 3
"""So many texts that differ in numbers only are said: each row or size may be another fault, but
a camera may also cut each of its frames elsewhere."""


def _say(say: Callable[[str], object], text: str) -> None:
    say(text)


# rclpy refuses two severities from one line of code: each has a line of its own.
_CALLS: dict[str, Callable[[Callable[[str], object], str], object]] = {
    "error": lambda say, text: say(text),
    "warning": lambda say, text: say(text),
}


@dataclass
class _Kind:
    """Texts that differ in numbers only: when each was said, and how many were not since."""

    said: dict[str, float] = field(default_factory=dict)
    silent: int = 0


class ThrottledLog:
    """Says each text at once, and again only after ``period_s`` seconds, with the number between.

    Of texts that differ in numbers only, three are said in that time. rclpy's own throttle goes by
    the line of code, so one complaint would silence another that comes through the same line.
    """

    def __init__(
        self, period_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def __call__(self, say: Callable[[str], object], text: str) -> None:
        """Hand ``text`` to ``say`` (a logger's method) unless it was said just now."""
        now, name = self._clock(), re.sub(r"[\d.]+", "#", text)
        with self._lock:
            if len(self._kinds) >= _MOST_KINDS and name not in self._kinds:
                self._kinds.clear()
            kind = self._kinds.setdefault(name, _Kind())
            said = kind.said = {t: at for t, at in kind.said.items() if now - at < self._period_s}
            if text in said or len(said) >= _MOST_ALIKE:
                kind.silent += 1
                return
            said[text] = now
            silent, kind.silent = kind.silent, 0
        if silent:
            text = f"{text} (and {silent} times before)"
        _CALLS.get(getattr(say, "__name__", ""), _say)(say, text)
