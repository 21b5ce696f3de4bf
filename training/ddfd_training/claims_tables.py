"""Sentences and tables that the findings share."""

from __future__ import annotations

import math

import numpy as np

from ddfd_training.claims_check import (
    DELTA,
    MISSING,
    REL,
    RMSE,
    Difference,
    Finding,
    Results,
    compare,
    pick,
)

DEPTH_HEAD = ("images", "trainings", "rms [m]", "rel", "delta < 1.25")


def depth_rows(results: Results, arms: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """A row of depth errors for each arm (name -> label), means over seeds."""
    rows = []
    for arm, label in arms.items():
        found = results.of(arm)
        if found:
            means = [float(np.mean([pick(r, path) for r in found])) for path in (RMSE, REL, DELTA)]
            rows.append(
                (label, str(len(found)), f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[2]:.1%}")
            )
    return tuple(rows)


def gain_text(found: Difference, unit: str = "m", digits: int = 3) -> str:
    """The gain of one comparison in words."""
    seeds = ", ".join(f"{gain:+.{digits}f}" for gain in found.by_seed)
    text = (
        f"{found.better:.{digits}f} against {found.worse:.{digits}f} {unit}; gain by seed {seeds}"
    )
    if not math.isnan(found.low):
        text += f"; 95 % interval over images {found.low:+.{digits}f} to {found.high:+.{digits}f}"
    return text


def two_sides(
    title: str, source: str, results: Results, arms: dict[str, str], lead: str
) -> Finding:
    """The finding of one comparison: the first arm should have the lower rms error."""
    better, worse = list(arms)[:2]
    found = compare(results, better, worse)
    if found is None:
        return Finding(title, source, MISSING, "No result files of both sides.")
    return Finding(
        title,
        source,
        found.verdict,
        f"{lead} Rms error {gain_text(found)}.",
        DEPTH_HEAD,
        depth_rows(results, arms),
    )
