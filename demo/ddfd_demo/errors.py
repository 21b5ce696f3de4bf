"""Errors of the demonstration; every message says what was expected, what came, and what to do."""

from __future__ import annotations

from ddfd_ros.core.errors import DdfdError


class InputError(DdfdError):
    """INPUT is nothing the demonstration can play."""


class ChainError(DdfdError):
    """The chain of player, node and recorder did not start, broke, or never answered."""
