"""What a node's diagnostics said during a field test, in brief."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("OK", "WARN", "ERROR", "STALE")
_MOST_MESSAGES = 200
_SILENT_S, _SILENT_GAPS = 5.0, 3
"""A gap between two reports counts as silence if it is longer than that, and than so many usual
ones: the node's ``diagnostics_period_s`` may be a minute."""
_COUNTERS, _COUNTERS_BEGIN = ("received", "answered"), ("dropped_", "failed_")
"""Counters, by name or by its beginning: they only grow while their node lives."""


@dataclass
class Numbers:
    """Least, mean and greatest of a value, and its last: NaN while it is not known."""

    count: int = 0
    least: float = math.inf
    greatest: float = -math.inf
    mean: float = 0.0
    last: float = math.nan

    def add(self, value: float) -> None:
        """Add one value that is not NaN."""
        self.count += 1
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        self.mean += (value - self.mean) / self.count
        self.last = value

    def to_dict(self) -> dict[str, float]:
        """For JSON; ``reports`` is how many held a value."""
        names = ("least", "mean", "greatest", "last")
        return {name: round(getattr(self, name), 4) for name in names} | {"reports": self.count}


@dataclass
class StatusRecord:
    """One status over time.

    Attributes:
        reports: How often it came.
        seconds: Seconds at each level, without the long gaps.
        long_gaps: Level before a gap of more than five seconds, and its length in seconds.
        gaps: How often each gap came, by its length in tenths of a second.
        messages: What it said that was not in order.
        numbers: Values that are numbers.
        counts: The counters as they were last told.
        before: What they were when their node was started again, all its lives together.
        restarts: How often that was.
        texts: The last of each value that is none.
        last_s: When it came last.
        level: What it said then.
    """

    reports: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0.0))
    long_gaps: list[tuple[str, float]] = field(default_factory=list)
    gaps: Counter[int] = field(default_factory=Counter)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    last_s: float = math.nan
    level: str = "STALE"

    def came(self, level: str, now_s: float) -> None:
        """One report; the time since the last one belongs to the last level."""
        if self.reports:
            gap_s = now_s - self.last_s
            self.gaps[round(10 * gap_s)] += 1
            if gap_s > _SILENT_S:
                self.long_gaps.append((self.level, gap_s))
            else:
                self.seconds[self.level] += gap_s
        self.reports += 1
        self.last_s, self.level = now_s, level

    def count(self, counts: Mapping[str, float]) -> None:
        """Counters as told now; one that falls was told by a node that was started again."""
        if any(number < self.counts.get(key, 0.0) for key, number in counts.items()):
            self.restarts += 1
            self.before = {key: self.total(key) for key in self.counts.keys() | self.before.keys()}
            self.counts = {}
        self.counts.update(counts)

    def total(self, key: str) -> float:
        """A counter over all lives of its node."""
        return self.before.get(key, 0.0) + self.counts.get(key, 0.0)

    def limit_s(self) -> float:
        """Longest gap in seconds that is no silence."""
        usual, left = 0, (self.gaps.total() + 1) // 2
        for usual in sorted(self.gaps):  # to the median, of two the shorter one
            left -= self.gaps[usual]
            if left <= 0:
                break
        return max(_SILENT_S, _SILENT_GAPS * usual / 10)

    def is_silent(self, now_s: float) -> bool:
        """Whether nothing came for longer than that."""
        return now_s - self.last_s > self.limit_s()

    def spent(self, now_s: float) -> tuple[dict[str, float], float]:
        """Seconds at each level that took any, and of silence, until now."""
        seconds, silent_s, limit_s = dict(self.seconds), 0.0, self.limit_s()
        for level, gap_s in self.long_gaps:
            if gap_s > limit_s:
                silent_s += gap_s
            else:
                seconds[level] += gap_s
        if self.is_silent(now_s):
            silent_s += now_s - self.last_s
        return {level: s for level, s in seconds.items() if s}, silent_s


class FieldRecord:
    """Collects statuses; times are seconds since the start."""

    def __init__(self) -> None:
        self.statuses: dict[str, StatusRecord] = {}

    def add(
        self, name: str, level: int, message: str, values: Mapping[str, str], now_s: float
    ) -> None:
        """Add one status as it came."""
        record = self.statuses.setdefault(name, StatusRecord())
        record.came(LEVELS[level] if 0 <= level < 4 else "STALE", now_s)
        if record.level != "OK":
            self._said(record, message, now_s)
        counts = {}
        for key, text in values.items():
            number = _number(text)
            if number is None:
                record.texts[key] = text
            elif not math.isnan(number):
                record.numbers.setdefault(key, Numbers()).add(number)
                if key in _COUNTERS or key.startswith(_COUNTERS_BEGIN):
                    counts[key] = number
            elif key in record.numbers:  # not known any more: the last value is history
                record.numbers[key].last = math.nan
        record.count(counts)

    def _said(self, record: StatusRecord, message: str, now_s: float) -> None:
        """Keep a warning with its first and last time; numbers in it make no new one."""
        key = "".join("#" if one.isdigit() else one for one in message)
        while "##" in key:
            key = key.replace("##", "#")
        said = record.messages.get(key)
        if said is None and len(record.messages) < _MOST_MESSAGES:
            said = record.messages[key] = {"first_s": round(now_s, 1), "reports": 0}
        if said is not None:
            said |= {
                "level": record.level,
                "message": message,
                "last_s": round(now_s, 1),
                "reports": said["reports"] + 1,
            }

    def to_dict(self, now_s: float) -> dict[str, Any]:
        """For JSON, as things are ``now_s`` seconds after the start."""
        return {
            "duration_s": round(now_s, 1),
            "statuses": {
                name: _status(record, now_s) for name, record in sorted(self.statuses.items())
            },
        }

    def lines(self, now_s: float) -> list[str]:
        """For a person: what was not in order, and the figures that matter most."""
        result = [f"{now_s:.0f} s of diagnostics"]
        for name, record in sorted(self.statuses.items()):
            result.append(f"{name}: {_times(record, now_s)}")
            if record.restarts:
                result.append(
                    f"  restarts: {record.restarts} (the counters began anew; these are sums)"
                )
            for key in ("rate_hz", "age_p95_ms", "infer_p95_ms", "valid_fraction"):
                if one := record.numbers.get(key):
                    text = f"mean {one.mean:.4g} ({one.least:.4g} to {one.greatest:.4g})"
                    if one.count < record.reports:
                        text += f", in {one.count} of {record.reports} reports"
                    result.append(f"  {key}: {text}")
            for key in _counters(record):
                result.append(f"  {key}: {record.total(key):.0f}")
            for said in sorted(record.messages.values(), key=lambda one: one["first_s"]):
                result.append(
                    f"  {said['level']} from {said['first_s']:.0f} s to {said['last_s']:.0f} s, "
                    f"{said['reports']} reports: {said['message']}"
                )
        return result


def _status(record: StatusRecord, now_s: float) -> dict[str, Any]:
    """One status for JSON."""
    seconds, silent_s = record.spent(now_s)
    return {
        "seconds": {level: round(s, 1) for level, s in seconds.items()},
        "silent_s": round(silent_s, 1),
        "reports": record.reports,
        "last_report_s": round(record.last_s, 1),
        "restarts": record.restarts,
        "said": sorted(record.messages.values(), key=lambda said: said["first_s"]),
        "numbers": {key: one.to_dict() for key, one in record.numbers.items()},
        "totals": {key: record.total(key) for key in _counters(record)},
        "texts": record.texts,
    }


def _times(record: StatusRecord, now_s: float) -> str:
    """How long a status was at each level, and silent."""
    seconds, silent_s = record.spent(now_s)
    said = [f"{s:.0f} s {level}" for level, s in seconds.items()]
    if not said:
        said = ["one report" if record.reports == 1 else f"{record.reports} reports"]
    if silent_s:
        said.append(f"{silent_s:.0f} s silent")
    if record.is_silent(now_s):
        said.append(f"last report at {record.last_s:.0f} s")
    return ", ".join(said)


def _counters(record: StatusRecord) -> list[str]:
    """Names of the counters, in the order in which they are told."""
    names = record.counts.keys() | record.before.keys()
    first = [name for name in _COUNTERS if name in names]
    return [*first, *sorted(names.difference(first))]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
