"""What a soak run showed: the books, ages, the slope of memory, and whether the bars hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.stream import Record

LATE_SHARE = 0.8
"""The slope of memory is taken over this last part of a run: the last 8 of 10 minutes."""
SLOPE_MB_PER_MIN = 1.0
END_S = 2.0
_POINTS = 120


@dataclass(frozen=True)
class MemorySample:
    """The node's resident memory in MiB at a time in seconds."""

    at_s: float
    total: float
    anonymous: float
    shared: float


def figures(
    record: Record,
    first: int,
    before: dict[str, str],
    after: dict[str, str],
    memory: list[MemorySample],
    rate_hz: float,
    offered: Collection[str] = (),
) -> dict[str, Any]:
    """The figures of one run.

    Args:
        record: What went out and came back.
        first: Number of the first measured frame; those before only warmed up.
        before: The node's diagnostics before it.
        after: The node's diagnostics after the last one.
        memory: Once a second; may be empty.
        rate_hz: What was to be sent per second.
        offered: Topics that the node publishes: they count even where nothing came on them.
    """
    sent = record.sent[first:]
    span_s = (sent[-1] - sent[0]) / 1e9 if len(sent) > 1 else float("nan")
    known, all_sent = set(sent), set(record.sent)
    answers = {
        topic: [(stamp, at) for stamp, at in found if stamp in known or stamp not in all_sent]
        for topic, found in record.answers.items()
    }
    topics = {
        topic: _topic(found, known)
        for topic, found in answers.items()
        if found or topic in offered
    }
    main = next((topic for topic in topics if answers[topic]), "")  # depth, where there is any
    # From the camera's stamp until the middleware took the message over, by its own time stamp.
    ages = np.array([(at - stamp) / 1e6 for stamp, at in answers.get(main, []) if stamp in known])
    complete: dict[int, int] = {}
    for stamp, at in (pair for found in answers.values() for pair in found if pair[0] in known):
        complete[stamp] = max(at, complete.get(stamp, 0))
    last_ages = np.array([(at - stamp) / 1e6 for stamp, at in complete.items()])
    stages = [values for stamp, values in record.stages_ms.items() if stamp in known]
    return {
        "offered_hz": (len(sent) - 1) / span_s,
        "wanted_hz": rate_hz,
        "answered_hz": len(ages) / span_s,
        "frames": _books(len(sent), before, after),
        "topics": topics,
        "age_of": main,
        "age_ms": _spread(ages),
        "age_of_last_topic_ms": _spread(last_ages),
        "infer_ms": _spread(np.array([values["infer"] for values in stages])),
        "subscription_to_publication_ms": _spread(np.array([v["total"] for v in stages])),
        "memory": _memory(memory) if memory else {},
        "runtime": after.get("runtime", ""),
        "device": after.get("device", ""),
        "last_words": after.get("message", ""),
        "age_series_ms": _thin([round(float(age), 2) for age in ages]),
    }


def checks(result: dict[str, Any], rate_hz: float) -> list[dict[str, Any]]:
    """The bars, what was got, and whether they hold."""
    frames, topics, age = result["frames"], result["topics"], result["age_ms"]
    foreign = sum(topic["foreign_stamps"] for topic in topics.values())
    twice = sum(topic["twice"] for topic in topics.values())
    # "missed": replaced or lost before the node took them, by the node's own count.
    dropped = {**frames["dropped"], **frames["failed"], "missed": frames["missed"]}
    settled = frames["answered"] + sum(dropped.values())
    lost = frames["answered"] - min((topic["answers"] for topic in topics.values()), default=0)
    limit_ms = 1e3 / rate_hz + result["infer_ms"]["p95"]
    slope = result["memory"]["slope_mb_per_min"]
    found = [
        _check("every output stamp equals an input stamp", "0 others", foreign, foreign == 0),
        _check("exactly once", "0 repeated", twice, twice == 0),
        _check("every answer arrives on every topic", "0 missing", lost, lost == 0),
        _check(
            "answered + dropped = offered",
            f"{frames['offered']} offered",
            f"{settled} ({frames['answered']} answered)",
            settled == frames["offered"],
        ),
        _check(
            "age p95 at most frame period + inference p95",
            f"{limit_ms:.1f} ms",
            f"{age['p95']:.1f} ms",
            age["p95"] <= limit_ms,
        ),
        _check(
            "memory flat over the last 80 %",
            f"{SLOPE_MB_PER_MIN} MB/min",
            f"{slope:+.3f} MB/min",
            slope < SLOPE_MB_PER_MIN,
        ),
    ]
    for name, how in result["ends"].items():
        clean = how["exit_status"] == 0 and not how["traceback"] and how["seconds"] < END_S
        got = f"{how['seconds']:.2f} s, status {how['exit_status']}"
        found.append(_check(f"ends on {name}", f"{END_S} s, status 0", got, clean))
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Memory and age over the run."""
    figure = Figure(figsize=(10, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    series = result["memory"]["series_mb"]
    minutes = [sample[0] / 60 for sample in series]
    for column, name in ((1, "resident"), (2, "anonymous"), (3, "shared (DDS)")):
        left.plot(minutes, [sample[column] for sample in series], label=name)
    left.set_ylim(bottom=0)
    left.set_xlabel("minutes")
    left.set_ylabel("the node's memory (MB)")
    left.legend(frameon=False)
    ages = result["age_series_ms"]
    right.plot(np.linspace(0, result["seconds"] / 60, len(ages)), ages, ".", markersize=2)
    right.axhline(result["age_ms"]["p95"], color="#f2a541", label="p95")
    right.set_ylim(bottom=0)
    right.set_xlabel("minutes")
    right.set_ylabel("age when published (ms)")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))


def _check(what: str, bar: object, got: object, holds: bool) -> dict[str, Any]:
    return {"what": what, "bar": str(bar), "got": str(got), "holds": bool(holds)}


def _topic(found: list[tuple[int, int]], known: set[int]) -> dict[str, int]:
    counts = Counter(stamp for stamp, _ in found)
    return {
        "answers": sum(stamp in known for stamp in counts),
        "twice": sum(number > 1 for number in counts.values()),
        "foreign_stamps": sum(stamp not in known for stamp in counts),
    }


def _books(offered: int, before: dict[str, str], after: dict[str, str]) -> dict[str, Any]:
    def more(name: str) -> int:
        return int(after.get(name, 0)) - int(before.get(name, 0))

    def group(prefix: str) -> dict[str, int]:
        names = [name for name in after if name.startswith(prefix)]
        return {name[len(prefix) :]: number for name in names if (number := more(name))}

    return {
        "offered": offered,
        "received": more("received"),
        "answered": more("answered"),
        "dropped": group("dropped_"),
        "failed": group("failed_"),
        "missed": more("frames_missed"),
        "in_flight": int(after.get("in_flight", 0)),
    }


def _memory(samples: list[MemorySample]) -> dict[str, Any]:
    late = [s for s in samples if s.at_s >= (1 - LATE_SHARE) * samples[-1].at_s]
    at_min = np.array([s.at_s for s in late]) / 60

    def slope(values: list[float]) -> float:
        return float(np.polyfit(at_min, values, 1)[0]) if len(late) > 2 else float("nan")

    return {
        "first_mb": samples[0].total,
        "last_mb": samples[-1].total,
        "slope_mb_per_min": slope([s.total for s in late]),
        "anonymous_slope_mb_per_min": slope([s.anonymous for s in late]),
        "shared_slope_mb_per_min": slope([s.shared for s in late]),
        "series_mb": _thin(
            [[round(v, 2) for v in (s.at_s, s.total, s.anonymous, s.shared)] for s in samples]
        ),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return dict.fromkeys(("p50", "p95", "max"), float("nan"))
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "max": float(values.max())}


def _thin(values: list[Any]) -> list[Any]:
    step = max(1, len(values) // _POINTS)
    return values[::step]
