"""Values as JSON takes them."""

from __future__ import annotations

import math
from typing import Any


def clean(value: Any, digits: int | None = None) -> Any:
    """JSON values: NaN and infinity become null, the rest stays.

    Args:
        value: Dictionaries, lists and tuples are gone through to any depth.
        digits: Significant digits that floating-point numbers are rounded to; None leaves them.
    """
    if isinstance(value, dict):
        return {str(key): clean(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item, digits) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    return value
