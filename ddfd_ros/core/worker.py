"""One thread owns the backend; a one-slot mailbox keeps the newest frame.

A camera delivers faster than a network answers, sometimes. A queue would then grow old answers;
here a frame that is still waiting is replaced by the next one, and counted. GPU contexts belong to
the thread that made them: whatever touches the backend runs on this one thread, from its creation
to its ``close``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from ddfd_ros.core.errors import InferenceError
from ddfd_ros.core.worker_counts import WorkerCounts

__all__ = ["LatestWorker", "WorkerCounts"]

_LOG = logging.getLogger(__name__)


class Closable(Protocol):
    """Anything with ``close``."""

    def close(self) -> None:
        """Release what it holds."""


Owned = TypeVar("Owned", bound=Closable)
Job = TypeVar("Job")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class LatestWorker(Generic[Owned, Job, Answer]):
    """A thread that creates, uses and closes one object, and works on the newest job only.

    Args:
        create: Makes the owned object (a backend), in the worker's thread.
        process: Answers one job with it, in the worker's thread.
        on_result: Receives job and answer, in the worker's thread.
        on_error: Receives the job (None for a failing ``close``) and what ``process``,
            ``on_result`` or ``close`` raised; the worker lives on.
        max_age_s: A job that waited longer than this is dropped and counted as expired. May be
            changed at any time.
        name: The thread's name.

    Nothing runs before ``start``; after ``stop`` a worker cannot be started again.
    """

    def __init__(
        self,
        create: Callable[[], Owned],
        process: Callable[[Owned, Job], Answer],
        on_result: Callable[[Job, Answer], None],
        on_error: Callable[[Job | None, Exception], None],
        *,
        max_age_s: float = math.inf,
        name: str = "ddfd-worker",
    ) -> None:
        self.max_age_s = max_age_s
        self._create, self._process = create, process
        self._on_result, self._on_error = on_result, on_error
        self._changed = threading.Condition()
        self._slot: tuple[Job, float] | None = None
        self._calls: deque[tuple[Future, Callable[[Owned], Any]]] = deque()
        self._busy = False
        self._stopping = False
        self._counts = WorkerCounts()
        self._created: Future = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def counts(self) -> WorkerCounts:
        """A consistent snapshot of the counters."""
        with self._changed:
            return self._counts

    @property
    def alive(self) -> bool:
        """Whether the worker's thread runs."""
        return self._thread.is_alive()

    def start(self, timeout_s: float | None = None) -> None:
        """Start the thread and wait until it has made the owned object.

        Raises:
            Exception: What ``create`` raised; the thread has ended then.
            InferenceError: ``create`` took longer than ``timeout_s``, or ``start`` came twice.
        """
        if self._stopping or self._thread.ident is not None:
            raise InferenceError("worker: expected to be started once, got a second start")
        self._thread.start()
        try:
            self._created.result(timeout_s)
        except FutureTimeoutError as error:
            if self._created.done():  # create itself raised a TimeoutError
                raise
            self.stop(0.0)
            raise InferenceError(
                f"worker: expected the model to be ready within {timeout_s} s, got nothing yet; "
                "give it more time"
            ) from error

    def submit(self, job: Job) -> bool:
        """Offer a job; it replaces one that is still waiting. Never blocks on the work.

        Returns:
            Whether it was taken; False after ``stop`` and before ``start``.
        """
        with self._changed:
            refused = self._stopping or not self._thread.is_alive()
            self._count(
                offered=1, refused=int(refused), replaced=int(self._waits() and not refused)
            )
            if not refused:
                self._slot = (job, time.monotonic())
                self._changed.notify_all()
            return not refused

    def call(self, function: Callable[[Owned], Result], timeout_s: float | None = None) -> Result:
        """Run ``function(owned)`` on the worker's thread, before any waiting job.

        Returns:
            What it returned.

        Raises:
            Exception: What it raised.
            InferenceError: The worker does not run, or ``timeout_s`` seconds passed; a function
                that had not begun by then never will.
        """
        if threading.current_thread() is self._thread:
            raise InferenceError(
                "worker call: expected another thread, got the worker's own; call the function"
            )
        future: Future = Future()
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise InferenceError("worker call: expected a running worker, got a stopped one")
            self._calls.append((future, function))
            self._changed.notify_all()
        try:
            result: Result = future.result(timeout_s)
        except FutureTimeoutError as error:
            if future.done() and not future.cancelled():  # the function raised a TimeoutError
                raise
            future.cancel()
            raise InferenceError(
                f"worker call: expected an answer within {timeout_s} s, got none; the worker is "
                "busy or the model is slow"
            ) from error
        except CancelledError as error:
            raise InferenceError("worker call: expected an answer, got stop()") from error
        return result

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing waits or runs; False when ``timeout_s`` seconds passed first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._busy or self._calls or self._waits()), timeout_s
            )

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the job at hand, drop the waiting one, close the owned object, end the thread.

        Returns:
            Whether the thread ended within ``timeout_s`` seconds (None: however long it takes).
            From the worker's own thread: False, it ends after the job at hand.
        """
        with self._changed:
            self._stopping = True
            self._count(refused=int(self._waits()))
            self._slot = None
            calls, self._calls = list(self._calls), deque()
            self._changed.notify_all()
        for future, _ in calls:
            future.cancel()
        if threading.current_thread() is self._thread:
            return False
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _waits(self) -> bool:
        return self._slot is not None

    def _count(self, **more: int) -> None:
        """Add to counters; the lock is held."""
        now = {name: getattr(self._counts, name) + amount for name, amount in more.items()}
        self._counts = replace(self._counts, **now)

    def _run(self) -> None:
        try:
            owned = self._create()
        except BaseException as error:  # start() raises it to its caller
            self.stop()
            self._created.set_exception(error)
            return
        self._created.set_result(None)
        try:
            while self._turn(owned):
                pass
        finally:
            self.stop()
            try:
                owned.close()
            except Exception as error:
                self._report(None, error)

    def _turn(self, owned: Owned) -> bool:
        """Do the next thing there is to do; False when it is to stop."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._calls or self._waits())
            if self._stopping:
                return False
            self._busy = True
            if self._calls:
                future, function = self._calls.popleft()
                slot = None
            else:
                slot, self._slot = self._slot, None
        if slot is None:
            _answer_call(future, function, owned)
        else:
            self._answer_job(owned, *slot)
        return True

    def _answer_job(self, owned: Owned, job: Job, submitted: float) -> None:
        if time.monotonic() - submitted > self.max_age_s:
            outcome = "expired"
        else:
            try:
                self._on_result(job, self._process(owned, job))
                outcome = "answered"
            except Exception as error:  # whatever it is: one bad frame must not end the node
                outcome = "failed"
                self._report(job, error)
        with self._changed:
            self._count(**{outcome: 1})

    def _report(self, job: Job | None, error: Exception) -> None:
        try:
            self._on_error(job, error)
        except Exception:
            _LOG.exception("on_error failed on %r", error)


def _answer_call(future: Future, function: Callable[[Any], Any], owned: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function(owned))
    except BaseException as error:  # call() raises it to its caller
        future.set_exception(error)
