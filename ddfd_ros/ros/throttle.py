"""Log lines that do not drown the log: the first at once, its repetitions now and then."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

_MOST_TEXTS = 64


def _say(say: Callable[[str], object], text: str) -> None:
    say(text)


# rclpy refuses two severities from one line of code: each has a line of its own.
_CALLS: dict[str, Callable[[Callable[[str], object], str], object]] = {
    "error": lambda say, text: say(text),
    "warning": lambda say, text: say(text),
}


class ThrottledLog:
    """Says each text at once, and again only after ``period_s`` seconds, with the number between.

    Texts that differ in numbers only are one: what is wrong with a row of frames is mostly a
    little different in each. rclpy's own throttle goes by the line of code, so one complaint would
    silence another that comes through the same line.
    """

    def __init__(
        self, period_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def __call__(self, say: Callable[[str], object], text: str) -> None:
        """Hand ``text`` to ``say`` (a logger's method) unless it was said just now."""
        now, kind = self._clock(), re.sub(r"[\d.]+", "#", text)
        with self._lock:
            last, silent = self._said.get(kind, (float("-inf"), 0))
            due = now - last >= self._period_s
            if len(self._said) >= _MOST_TEXTS and kind not in self._said:
                self._said.clear()
            self._said[kind] = (now, 0) if due else (last, silent + 1)
        if not due:
            return
        if silent:
            text = f"{text} (and {silent} times before)"
        _CALLS.get(getattr(say, "__name__", ""), _say)(say, text)
