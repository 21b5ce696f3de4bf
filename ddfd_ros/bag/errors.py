"""What can be wrong with a bag."""

from __future__ import annotations

from ddfd_ros.core.errors import DdfdError


class BagError(DdfdError):
    """A bag cannot be read, written or resumed; the message says why and what helps."""
