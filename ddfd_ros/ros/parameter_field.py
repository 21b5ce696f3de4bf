"""What a node parameter is: default, description, range, choices, and when it may change."""

from __future__ import annotations

import math
from dataclasses import Field, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ddfd_ros.core.errors import DdfdError

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor


class ParameterError(DdfdError):
    """A parameter's value is refused; the message names expected, got and remedy."""


class Change(Enum):
    """When a parameter may change."""

    LIVE = "may change at any time, from the next frame on"
    RELOAD = "fixed while a model is loaded: deactivate and clean up first"
    START = "fixed after the node has started"


def parameter(
    default: Any,
    description: str,
    change: Change,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is a node parameter; its metadata holds everything but the value.

    Args:
        default: Its type is the parameter's type.
        description: What ``ros2 param describe`` says.
        change: When it may change.
        low: Smallest number allowed; together with ``high``.
        high: Largest number allowed.
        choices: Texts allowed; empty: any.
    """
    metadata = {
        "description": description,
        "change": change,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


_KINDS = {
    str: "a text (in quotes, where YAML would read a number, true or false)",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a decimal point, such as 2.0",
}


def check_value(item: Field[Any], value: Any) -> None:
    """Refuse a value of another type, outside the range or not among the choices.

    Raises:
        ParameterError: The message names the parameter.
    """
    kind = type(item.default)
    if type(value) is not kind:
        raise ParameterError(f"{item.name}: expected {_KINDS[kind]}, got {value!r}")
    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise ParameterError(f"{item.name}: expected one of {list(choices)}, got {value!r}")
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None and not low <= value <= high:  # also refuses NaN
        raise ParameterError(f"{item.name}: expected {low} to {high}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParameterError(f"{item.name}: expected a finite number, got {value!r}")


def descriptor(item: Field[Any]) -> ParameterDescriptor:
    """What ``ros2 param describe`` shows for one field of ``NodeParameters``."""
    # Imported here: offline tools take the parameters, but have no ROS.
    from rcl_interfaces.msg import (
        FloatingPointRange,
        IntegerRange,
        ParameterDescriptor,
        ParameterType,
    )

    kinds = {
        str: ParameterType.PARAMETER_STRING,
        bool: ParameterType.PARAMETER_BOOL,
        int: ParameterType.PARAMETER_INTEGER,
        float: ParameterType.PARAMETER_DOUBLE,
    }
    kind, metadata = type(item.default), item.metadata
    result = ParameterDescriptor(
        name=item.name,
        type=kinds[kind],
        description=metadata["description"],
        additional_constraints=_constraints(metadata["choices"], metadata["change"]),
        read_only=metadata["change"] is Change.START,
    )
    if metadata["low"] is not None:
        limits = {"from_value": metadata["low"], "to_value": metadata["high"]}
        if kind is int:
            result.integer_range = [IntegerRange(**limits, step=1)]
        else:
            result.floating_point_range = [FloatingPointRange(**limits, step=0.0)]
    return result


def _constraints(choices: tuple[str, ...], change: Change) -> str:
    return (f"one of {', '.join(choices)}; " if choices else "") + change.value
