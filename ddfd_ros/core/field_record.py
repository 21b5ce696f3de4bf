"""What a node's diagnostics said during a field test, in brief."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("OK", "WARN", "ERROR", "STALE")
_MOST_MESSAGES = 200
_SILENT_S = 5.0
"""A gap between two reports that is longer counts as silence."""


@dataclass
class Numbers:
    """Least, mean and greatest of a value, and its last."""

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
        """For JSON."""
        names = ("least", "mean", "greatest", "last")
        return {name: round(getattr(self, name), 4) for name in names}


@dataclass
class StatusRecord:
    """One status over time."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0.0))
    silent_s: float = 0.0
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    last_s: float = math.nan
    level: str = "STALE"


class FieldRecord:
    """Collects statuses; times are seconds since the start."""

    def __init__(self) -> None:
        self.statuses: dict[str, StatusRecord] = {}
        self.end_s = 0.0

    def add(
        self, name: str, level: int, message: str, values: Mapping[str, str], now_s: float
    ) -> None:
        """Add one status as it came; the time since the last one belongs to the last level."""
        record = self.statuses.setdefault(name, StatusRecord())
        if not math.isnan(record.last_s):
            gap_s = now_s - record.last_s
            if gap_s > _SILENT_S:
                record.silent_s += gap_s
            else:
                record.seconds[record.level] += gap_s
        record.last_s, record.level = now_s, LEVELS[level] if 0 <= level < 4 else "STALE"
        self.end_s = max(self.end_s, now_s)
        if record.level != "OK":
            self._said(record, message, now_s)
        for key, text in values.items():
            number = _number(text)
            if number is None:
                record.texts[key] = text
            elif not math.isnan(number):
                record.numbers.setdefault(key, Numbers()).add(number)

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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "duration_s": round(self.end_s, 1),
            "statuses": {
                name: {
                    "seconds": {level: round(s, 1) for level, s in record.seconds.items() if s},
                    "silent_s": round(record.silent_s, 1),
                    "said": sorted(record.messages.values(), key=lambda said: said["first_s"]),
                    "numbers": {key: one.to_dict() for key, one in record.numbers.items()},
                    "texts": record.texts,
                }
                for name, record in sorted(self.statuses.items())
            },
        }

    def lines(self) -> list[str]:
        """For a person: what was not in order, and the figures that matter most."""
        result = [f"{self.end_s:.0f} s of diagnostics"]
        for name, record in sorted(self.statuses.items()):
            spent = ", ".join(f"{s:.0f} s {level}" for level, s in record.seconds.items() if s)
            silent = f", {record.silent_s:.0f} s silent" if record.silent_s else ""
            result.append(f"{name}: {spent or 'one report'}{silent}")
            for key in ("rate_hz", "age_p95_ms", "infer_p95_ms", "valid_fraction"):
                if one := record.numbers.get(key):
                    result.append(
                        f"  {key}: mean {one.mean:.4g} ({one.least:.4g} to {one.greatest:.4g})"
                    )
            for key in ("received", "answered"):
                if one := record.numbers.get(key):
                    result.append(f"  {key}: {one.last:.0f}")
            for key in sorted(record.numbers):
                if key.startswith(("dropped_", "failed_")):
                    result.append(f"  {key}: {record.numbers[key].last:.0f}")
            for said in sorted(record.messages.values(), key=lambda one: one["first_s"]):
                result.append(
                    f"  {said['level']} from {said['first_s']:.0f} s to {said['last_s']:.0f} s, "
                    f"{said['reports']} reports: {said['message']}"
                )
        return result


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
