"""Reports that go on whatever the executor does."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Reporter:
    """Calls ``report`` every ``period_s`` seconds in a thread of its own.

    A timer would wait for the executor, which is inside ``on_configure`` while a model loads or an
    engine is built, for minutes: just then an operator wants to know. A second executor or a
    reentrant callback group would let parameters and transitions run beside each other as well;
    a thread that only reads and publishes cannot disturb them.

    Args:
        report: Called without arguments; must be safe to call in another thread.
        period_s: Seconds from one call to the next.
        failed: Receives what ``report`` raised; the reports go on.
    """

    def __init__(
        self,
        report: Callable[[], None],
        period_s: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self._report = report
        self._period_s = period_s
        self._failed = failed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ddfd-reporter", daemon=True)

    def start(self) -> None:
        """Begin; the first report follows at once."""
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """End, after the report at hand. No more reports follow if the thread ended in time."""
        self._stopping.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._report()
            except Exception as error:
                if self._stopping.is_set():
                    return  # the node was destroyed under it
                self._failed(error)
            if self._stopping.wait(self._period_s):
                return
