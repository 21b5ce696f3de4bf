"""The node's parameters: each default once, with description, range, and when it may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.inference import RUNTIMES


class ParameterError(DdfdError):
    """A parameter's value is refused; the message names expected, got and remedy."""


class Change(Enum):
    """When a parameter may change."""

    LIVE = "may change at any time, from the next frame on"
    RELOAD = "fixed while a model is loaded: deactivate and clean up first"
    START = "fixed after the node has started"


def _parameter(
    default: Any,
    description: str,
    change: Change,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {
        "description": description,
        "change": change,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NodeParameters:
    """Values of all parameters at one moment; a field's metadata says the rest."""

    model_path: str = _parameter(
        "",
        "Model file (.onnx, .engine, .pt), or the name of a model that comes with the package",
        Change.RELOAD,
    )
    runtime: str = _parameter(
        "auto",
        "What runs the model; auto: by the file's suffix and what is installed",
        Change.RELOAD,
        choices=("auto", *RUNTIMES),
    )
    device: str = _parameter(
        "cpu", "Where the runtime computes", Change.RELOAD, choices=("cpu", "cuda")
    )
    precision: str = _parameter(
        "auto",
        "auto: fewer bits where runtime and processor are faster so and the self-test still "
        "holds; or float32",
        Change.RELOAD,
        choices=("auto", "float32"),
    )
    threads: int = _parameter(
        0,
        "CPU threads of the runtime; 0: the runtime's own choice",
        Change.RELOAD,
        low=0,
        high=256,
    )
    self_test: bool = _parameter(
        True, "Compare the model's answer to its golden sample at configure", Change.RELOAD
    )
    warm_up_height: int = _parameter(
        480,
        "Height in pixels of the warm-up image; 0: no warm-up",
        Change.RELOAD,
        low=0,
        high=8192,
    )
    warm_up_width: int = _parameter(
        640, "Width in pixels of the warm-up image; 0: no warm-up", Change.RELOAD, low=0, high=8192
    )
    image_transport: str = _parameter(
        "raw",
        "Input: raw (sensor_msgs/Image) or compressed (CompressedImage on image_raw/compressed)",
        Change.RELOAD,
        choices=("raw", "compressed"),
    )
    max_sigma_m: float = _parameter(
        0.0,
        "Depth whose standard deviation exceeds this many metres becomes invalid; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    min_depth_m: float = _parameter(
        0.0, "Depth nearer than this many metres is invalid", Change.LIVE, low=0.0, high=1000.0
    )
    max_depth_m: float = _parameter(
        0.0,
        "Depth farther than this many metres is invalid; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=1000.0,
    )
    out_of_range: str = _parameter(
        "invalid",
        "Depth beyond the limits: invalid (NaN), or rep117 (too close -Inf, too far +Inf)",
        Change.LIVE,
        choices=("invalid", "rep117"),
    )
    depth_encoding: str = _parameter(
        "32FC1",
        "Depth image: 32FC1 (metres, NaN invalid) or 16UC1 (millimetres, 0 invalid)",
        Change.LIVE,
        choices=("32FC1", "16UC1"),
    )
    max_age_s: float = _parameter(
        1.0,
        "Frames whose stamp is older than this many seconds are dropped; 0: no limit",
        Change.LIVE,
        low=0.0,
        high=3600.0,
    )
    diagnostics_period_s: float = _parameter(
        1.0, "Seconds between two messages on /diagnostics", Change.START, low=0.05, high=60.0
    )
    autostart: bool = _parameter(
        True, "Configure and activate without being asked; false: wait for requests", Change.START
    )

    def __post_init__(self) -> None:
        """Refuse values that make no sense, alone or together."""
        for item in fields(self):
            _check_value(item, getattr(self, item.name))
        if self.max_depth_m and self.min_depth_m >= self.max_depth_m:
            raise ParameterError(
                f"min_depth_m, max_depth_m: expected min < max in metres, got {self.min_depth_m} "
                f"and {self.max_depth_m}; set both in one request, or max_depth_m to 0 (no limit)"
            )

    def changed(self, values: Mapping[str, Any], model_loaded: bool) -> NodeParameters:
        """These parameters with ``values`` in place; names of other parameters are passed over.

        Raises:
            ParameterError: A value is refused, or must not change now.
        """
        known = {item.name: item for item in fields(self)}
        ours = {name: value for name, value in values.items() if name in known}
        for name, value in ours.items():
            change: Change = known[name].metadata["change"]
            frozen = change is Change.START or (change is Change.RELOAD and model_loaded)
            if frozen and value != getattr(self, name):
                raise ParameterError(
                    f"{name}: expected {getattr(self, name)!r} to stay, got {value!r}; "
                    f"{change.value}"
                )
        return replace(self, **ours)


def _check_value(item: Field[Any], value: Any) -> None:
    kind = type(item.default)
    if type(value) is not kind:
        raise ParameterError(
            f"{item.name}: expected a {kind.__name__}, got {value!r}; write it as {item.default!r}"
        )
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


def declare(node: Any) -> NodeParameters:
    """Declare all parameters on ``node`` and return the values it was started with.

    Raises:
        ParameterError: A start value is refused.
    """
    values = {}
    for item in fields(NodeParameters):
        value = node.declare_parameter(item.name, item.default, descriptor(item)).value
        values[item.name] = value
    return NodeParameters(**values)


def defaults() -> dict[str, Any]:
    """Name and default of every parameter."""
    return asdict(NodeParameters())
