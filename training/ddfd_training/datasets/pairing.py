"""Bringing together what belongs to one moment, from the times alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pair_nearest(
    first_s: Sequence[float], second_s: Sequence[float], max_gap_s: float
) -> list[tuple[int, int]]:
    """Pairs of moments of which each is the other's nearest, at most ``max_gap_s`` apart.

    Nothing is used twice, and nothing that lacks a partner shifts the pairs of others.

    Args:
        first_s: Times in seconds, in any order.
        second_s: Times in seconds, in any order.
        max_gap_s: Largest difference.

    Returns:
        Indices into both, in the order of ``first_s``.
    """
    if not len(first_s) or not len(second_s):
        return []
    first, second = np.asarray(first_s, dtype=float), np.asarray(second_s, dtype=float)
    of_first, of_second = _nearest(first, second), _nearest(second, first)
    return [
        (i, int(j))
        for i, j in enumerate(of_first)
        if of_second[j] == i and abs(first[i] - second[j]) <= max_gap_s
    ]


def _nearest(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of ``times`` the index of the nearest of ``others``, the earlier one of two."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    right = np.searchsorted(ordered, times).clip(0, len(ordered) - 1)
    left = (right - 1).clip(0)
    nearer = np.where(np.abs(ordered[right] - times) < np.abs(ordered[left] - times), right, left)
    nearest: np.ndarray = order[nearer]
    return nearest
