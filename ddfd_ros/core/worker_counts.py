"""What became of the frames offered to a worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerCounts:
    """How many frames were offered, and what became of them.

    At rest, ``offered = answered + replaced + expired + failed + refused``.

    Attributes:
        offered: Calls of ``submit``.
        answered: Went through ``process`` and ``on_result``.
        replaced: Gave way to a newer frame before their turn.
        expired: Were older than ``max_age_s`` when their turn came.
        failed: Raised in ``process`` or ``on_result``.
        refused: Came after ``stop``, or were waiting when it came.
    """

    offered: int = 0
    answered: int = 0
    replaced: int = 0
    expired: int = 0
    failed: int = 0
    refused: int = 0
