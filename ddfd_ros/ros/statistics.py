"""What became of every frame: counters by reason, and durations over the last seconds."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ddfd_ros.core.image_quality import ImageQuality
from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.image_watch import ImageWatch

WINDOW = 150
"""Answered frames over which rates and percentiles are taken: 5 s at 30 Hz."""

STALE_WINDOW_S = 3.0
"""A rate whose last frame is older than this, and than two periods, is zero, and begins anew."""

INTERRUPTION_S = 1.0
"""A gap between stamps that is longer is one interruption, not a row of lost frames."""

RECENT_S = 60.0
"""An event this long ago is history: one mistaken subscriber must not warn for ever."""

_MIN_STAMPS = 20


@dataclass(frozen=True)
class Snapshot:
    """The statistics at one moment.

    Attributes:
        received: Frames that arrived while active.
        answered: Frames for which at least one image was published.
        dropped: Frames not computed, by reason: ``replaced`` (a newer one came), ``stale``
            (older than max_age_s), ``idle`` (nobody listens), ``inactive`` (deactivated).
        failed: Frames that could not be answered, by reason (the error's name).
        events: Other things counted: ``qos_incompatible``, ``message_lost``,
            ``frames_missed`` (sent by the camera, never received).
        recent_events: Names of those that came within the last ``RECENT_S`` seconds.
        recent_drops: Of ``dropped``, the reasons that came up lately: within 3 s, or two periods
            of a slower camera.
        arriving: Whether a frame came lately.
        answering: Whether one was answered lately: within 3 s, or two periods of the answers.
        busy_s: For how long the frame at hand has been computed, in seconds; 0 while none is.
        rate_hz: Answered frames per second; 0 while it is not known.
        input_hz: Received frames per second, likewise.
        age_ms: p50 and p95 of the time from stamp to publication, node clock; like all that
            follows from answers, NaN while nothing is answered.
        stages_ms: Per stage p50 and p95 of its duration.
        valid_fraction: Share of valid depth pixels of the last answer, NaN if it had no depth.
        median_sigma_m: Median sigma of the last answer, where it is known, else NaN.
        missing_fraction: Share of the camera's frames that never arrived, by the sender's numbers
            where the middleware tells them, else estimated from stamps; 0 while none does.
        image: What the last images were like; None while none is looked at.
    """

    received: int = 0
    answered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    recent_events: frozenset[str] = frozenset()
    recent_drops: frozenset[str] = frozenset()
    arriving: bool = False
    answering: bool = False
    busy_s: float = 0.0
    rate_hz: float = 0.0
    input_hz: float = 0.0
    age_ms: tuple[float, float] = (float("nan"), float("nan"))
    stages_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    valid_fraction: float = float("nan")
    median_sigma_m: float = float("nan")
    missing_fraction: float = 0.0
    image: ImageQuality | None = None

    @property
    def in_flight(self) -> int:
        """Frames received whose fate is open: waiting in the mailbox or being computed."""
        return _in_flight(self.received, self.answered, self.dropped, self.failed)


class Statistics:
    """Counts from the executor's and the worker's thread; one lock, held for microseconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = 0
        self._answered = 0
        self._dropped: Counter[str] = Counter()
        self._drop_times: dict[str, float] = {}
        self._failed: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._event_times: dict[str, float] = {}
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._stamps: deque[int] = deque(maxlen=WINDOW)
        self._gaps: deque[int | None] = deque(maxlen=WINDOW)
        self._begun = clock()
        self._answers: deque[tuple[float, float, dict[str, float]]] = deque(maxlen=WINDOW)
        self._valid_fraction = float("nan")
        self._median_sigma_m = float("nan")
        self._watch = ImageWatch(clock)

    def look_at(self, image_rgb: np.ndarray) -> None:
        """Remember an image, uint8 ``[H, W, 3]``, for the next snapshot to measure."""
        self._watch.look_at(image_rgb)

    def listen(self) -> None:
        """The camera is listened to from now on; what it sent before was not lost."""
        with self._lock:
            self._stamps.clear()
            self._gaps.clear()

    def count_gap(self, missed: int | None) -> None:
        """How many frames the camera sent before the next one and after the last that came.

        None: the middleware does not tell, or it has no meaning.
        """
        with self._lock:
            self._gaps.append(missed)
        if missed:
            self.count_event("frames_missed", missed)

    def count_received(self, stamp_ns: int) -> None:
        """A frame with this stamp arrived."""
        with self._lock:
            now = self._clock()
            if not _in_flight(self._received, self._answered, self._dropped, self._failed):
                self._begun = now
            self._received += 1
            self._arrivals.append(now)
            if self._stamps and not 0 < stamp_ns - self._stamps[-1] <= INTERRUPTION_S * 1e9:
                self._stamps.clear()  # another camera, one that was off, a bag that starts again
            self._stamps.append(stamp_ns)

    def count_dropped(self, reason: str, number: int = 1) -> None:
        """Frames will not be answered, for a reason that is not an error."""
        with self._lock:
            self._dropped[reason] += number
            self._drop_times[reason] = now = self._clock()
            if reason != "replaced":  # one that waited: the one at hand goes on
                self._begun = now

    def count_failed(self, reason: str) -> None:
        """A frame could not be answered."""
        with self._lock:
            self._failed[reason] += 1
            self._begun = self._clock()

    def count_event(self, name: str, number: int = 1) -> None:
        """The middleware reported something."""
        with self._lock:
            self._events[name] += number
            self._event_times[name] = self._clock()

    def count_answered(
        self, estimate: Estimate, age_ms: float, stages_ms: Mapping[str, float]
    ) -> None:
        """A frame was published ``age_ms`` after its stamp."""
        valid, sigma = _quality(estimate)
        with self._lock:
            self._answered += 1
            self._begun = self._clock()
            self._answers.append((self._begun, age_ms, dict(stages_ms)))
            self._valid_fraction = valid
            self._median_sigma_m = sigma

    def snapshot(self) -> Snapshot:
        """Everything at one moment, consistent."""
        with self._lock:
            received, answered = self._received, self._answered
            dropped, failed = dict(self._dropped), dict(self._failed)
            events, answers = dict(self._events), list(self._answers)
            event_times, drop_times = dict(self._event_times), dict(self._drop_times)
            arrivals, missing = list(self._arrivals), self._missing_fraction()
            valid, sigma = self._valid_fraction, self._median_sigma_m
            busy = _in_flight(received, answered, dropped, failed) > 0
            begun, now = self._begun, self._clock()
        arrivals = _without_pauses(arrivals)
        answer_times = _without_pauses([at for at, _, _ in answers])
        answers = answers[len(answers) - len(answer_times) :]
        lately_s, arriving = _window_s(arrivals), _is_recent(arrivals, now)
        # Images are looked at when they are answered, and a model may be slower than the camera.
        looked_s = max(lately_s, _window_s(answer_times))
        stages = {name for _, _, durations in answers for name in durations}
        answering = _is_recent(answer_times, now)
        if not answering:  # what the last answer was like says nothing about now
            answers, valid, sigma = [], float("nan"), float("nan")
        return Snapshot(
            received=received,
            answered=answered,
            dropped=dropped,
            failed=failed,
            events=events,
            recent_events=frozenset(n for n, at in event_times.items() if now - at < RECENT_S),
            recent_drops=frozenset(n for n, at in drop_times.items() if now - at <= lately_s),
            arriving=arriving,
            answering=answering,
            busy_s=now - begun if busy else 0.0,
            rate_hz=_rate_hz(answer_times, now),
            input_hz=_rate_hz(arrivals, now),
            age_ms=_percentiles([age for _, age, _ in answers]),
            stages_ms={
                name: _percentiles([d[name] for _, _, d in answers if name in d])
                for name in sorted(stages)
            },
            valid_fraction=valid,
            median_sigma_m=sigma,
            missing_fraction=missing if arriving else 0.0,
            image=self._watch.quality(looked_s),
        )

    def _missing_fraction(self) -> float:
        """Share of the frames that never arrived; the lock is held."""
        known = [missed for missed in self._gaps if missed is not None]
        if len(known) < max(0.9 * len(self._gaps), _MIN_STAMPS):
            return missing_fraction(list(self._stamps))
        return sum(known) / (sum(known) + len(known))


def _in_flight(
    received: int, answered: int, dropped: Mapping[str, int], failed: Mapping[str, int]
) -> int:
    return received - answered - sum(dropped.values()) - sum(failed.values())


def missing_fraction(stamps_ns: list[int]) -> float:
    """Share of frames that never arrived, from the gaps between stamps of those that did.

    A camera's period is the short end (the 20th percentile) of the gaps: lost frames only make
    gaps longer. A gap of n periods misses n - 1 frames; a jitter of half a period misses none.
    """
    if len(stamps_ns) < _MIN_STAMPS:
        return 0.0
    gaps = np.diff(np.asarray(stamps_ns, np.float64))
    period = max(float(np.percentile(gaps, 20)), 1.0)
    missing = float(np.maximum(np.rint(gaps / period) - 1, 0).sum())
    return missing / (missing + len(stamps_ns) - 1)


def _quality(estimate: Estimate) -> tuple[float, float]:
    """Valid fraction and median sigma, of every eighth row and column: 0.1 ms at 640x480."""
    valid = sigma = float("nan")
    if estimate.depth_m is not None:
        valid = float(np.isfinite(estimate.depth_m[::8, ::8]).mean())
    if estimate.sigma_m is not None:
        known = estimate.sigma_m[::8, ::8]
        known = known[np.isfinite(known)]  # NaN where the network did not look
        sigma = float(np.median(known)) if known.size else float("nan")
    return valid, sigma


def _window_s(times: list[float]) -> float:
    """How long after its last frame a stream still runs: two of its periods, at least 3 s.

    The period is the median of the last three gaps, so that one pause makes none; of two gaps the
    shorter one.
    """
    gaps = sorted(np.diff(times[-4:]).tolist())
    return max(STALE_WINDOW_S, 2 * gaps[(len(gaps) - 1) // 2]) if len(gaps) > 1 else STALE_WINDOW_S


def _without_pauses(times: list[float]) -> list[float]:
    """The times since the last pause."""
    window_s = _window_s(times)
    start = len(times) - 1
    while start > 0 and times[start] - times[start - 1] <= window_s:
        start -= 1
    return times[max(start, 0) :]


def _is_recent(times: list[float], now: float) -> bool:
    return bool(times) and now - times[-1] <= _window_s(times)


def _rate_hz(times: list[float], now: float) -> float:
    if len(times) < 2 or not _is_recent(times, now) or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) / (times[-1] - times[0])


def _percentiles(values: list[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return float("nan"), float("nan")
    p50, p95 = np.percentile(known, (50, 95))
    return float(p50), float(p95)
