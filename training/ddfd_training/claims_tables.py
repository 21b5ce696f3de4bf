"""Sentences and tables that the findings share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddfd_training.claims_check import (
    DELTA,
    HOLDS,
    MISSING,
    OPEN,
    REL,
    RMSE,
    Difference,
    Finding,
    Result,
    Results,
    against_constant,
    compare,
    constant_on,
    pick,
    test_of,
)

DEPTH_HEAD = ("images", "trainings", "rms [m]", "rel", "delta < 1.25", "mean answers [m]")
NEITHER = "neither side beats answering the mean"
LEAST_SHARE = 0.01
"""Bins of true depth with a smaller share of the pixels say little of a network."""
ONE_DEPTH = 0.1
"""Answers that span less than this share of the true depths are called one depth."""


def depth_rows(results: Results, arms: dict[str, str], *more: str) -> tuple[tuple[str, ...], ...]:
    """A row of depth errors for each arm (name -> label), and of always answering the mean.

    ``more``: paths of further measures, as of :func:`depth_cells`.
    """
    rows = [
        (label, str(len(found)), *depth_cells(found, *more))
        for arm, label in arms.items()
        if (found := results.of(arm))
    ]
    return (*rows, *constant_rows(results, list(arms), *more))


def depth_cells(found: Sequence[Result], *more: str) -> tuple[str, ...]:
    """Rms, rel and delta < 1.25, further measures by their paths, and the span of the answers.

    Means over seeds.
    """
    means = [float(np.mean([pick(r, path) for r in found])) for path in (RMSE, REL, DELTA, *more)]
    cells = [f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[2]:.1%}"]
    return (*cells, *(f"{mean:.3f}" for mean in means[3:]), answers_cell(found))


def answers_cell(found: Sequence[Result]) -> str:
    """Least and largest mean answer among the bins of true depth, in metres, mean over seeds."""
    spans = []
    for result in found:
        bins = [
            ((row["from_m"] + row["to_m"]) / 2, row["bias_m"])
            for row in test_of(result).get("depth_bins", [])
            if row.get("share", 0.0) >= LEAST_SHARE and "bias_m" in row
        ]
        if not bins:
            return "-"
        truths, biases = np.array(bins).T
        spans.append((min(truths + biases), max(truths + biases), np.ptp(truths)))
    low, high, true_span = np.mean(spans, axis=0)
    one = high - low < ONE_DEPTH * true_span
    return f"{low:.2f} to {high:.2f}" + (" (one depth)" if one else "")


def constant_rows(results: Results, arms: Sequence[str], *more: str) -> list[tuple[str, ...]]:
    """A row of always answering the mean depth, for each test of the arms where it differs."""
    tests: dict[tuple[str, ...], list[str]] = {}
    for arm in arms:
        mean = constant_on(results, arm)
        if mean is not None:
            name, test = next(iter(mean["tests"].items()))
            names = tests.setdefault((f"{test['depth_m']:.2f} m", *depth_cells([mean], *more)), [])
            names += [] if name in names else [name]
    return [
        (f"always the training's mean, {cells[0]} ({', '.join(names)})", "-", *cells[1:])
        for cells, names in tests.items()
    ]


def gain_text(found: Difference, unit: str = "m", digits: int = 3) -> str:
    """The gain of one comparison in words."""
    seeds = ", ".join(f"{gain:+.{digits}f}" for gain in found.by_seed)
    text = (
        f"{found.better:.{digits}f} against {found.worse:.{digits}f} {unit}; gain by seed {seeds}"
    )
    if not found.has_interval:
        return f"{text}; no interval over images"
    return f"{text}; 95 % interval over images {found.low:+.{digits}f} to {found.high:+.{digits}f}"


def judge(
    results: Results, found: Difference, sides: Sequence[str], path: str = RMSE
) -> tuple[str, str]:
    """Verdict of a comparison of depth, and what it is judged by.

    Undecided where it is known of each side that it does not beat always answering the mean.
    """
    gains = [against_constant(results, arm, path) for arm in sides]
    if all(gain is not None and gain.verdict != HOLDS for gain in gains):
        return OPEN, NEITHER
    return found.verdict, found.basis


def two_sides(
    title: str, source: str, results: Results, arms: dict[str, str], lead: str
) -> Finding:
    """The finding of one comparison: the first arm should have the lower rms error."""
    sides = list(arms)[:2]
    found = compare(results, *sides)
    if found is None:
        return Finding(title, source, MISSING, "No result files of both sides.")
    verdict, basis = judge(results, found, sides)
    text = f"{lead} Rms error {gain_text(found)}."
    return Finding(title, source, verdict, text, DEPTH_HEAD, depth_rows(results, arms), basis)
