"""Values as JSON takes them."""

from __future__ import annotations

import math
from typing import Any


def clean(value: Any) -> Any:
    """JSON values: NaN and infinity become null, everything else stays."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
