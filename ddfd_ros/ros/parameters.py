"""The node's parameters, all together: declared, read, changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ddfd_ros.core.lens_calibration import LensCalibrationError
from ddfd_ros.inference import RUNTIMES
from ddfd_ros.inference.base import MIN_SIDE_PX
from ddfd_ros.ros.engine_parameters import EngineParameters
from ddfd_ros.ros.lens_file import lens_in_force, read_lens_file
from ddfd_ros.ros.parameter_field import (
    Change,
    ParameterError,
    check_value,
    descriptor,
    parameter,
)
from ddfd_ros.ros.parameter_groups import (
    CloudParameters,
    LensParameters,
    OutputParameters,
    TrustParameters,
    ViewParameters,
)

__all__ = [
    "Change",
    "ModelParameters",
    "NodeParameters",
    "ParameterError",
    "declare",
    "defaults",
    "descriptor",
    "unknown_overrides",
]

_LIMITS = (
    ("min_depth_m", "max_depth_m"),
    ("cloud_min_depth_m", "cloud_max_depth_m"),
    ("preview_near_m", "preview_far_m"),
)
"""Pairs of which the first must be below the second, unless the second is 0."""


@dataclass(frozen=True)
class ModelParameters:
    """The model, its runtime, and where the images come from."""

    model_path: str = parameter(
        "",
        "Model file (.onnx, .engine, .pt), or the name of a model that comes with the package",
        Change.RELOAD,
    )
    deblur_model_path: str = parameter(
        "",
        "Second model (.onnx) that makes the all-in-focus image from image and depth, in place of "
        "the first one's; empty: none",
        Change.RELOAD,
    )
    runtime: str = parameter(
        "auto",
        "What runs the model; auto: by the file's suffix and what is installed",
        Change.RELOAD,
        choices=("auto", *RUNTIMES),
    )
    device: str = parameter(
        "auto",
        "auto: a TensorRT engine where there is a GPU with TensorRT, else the CPU; cpu; or cuda "
        "(ONNX Runtime or torch on the GPU)",
        Change.RELOAD,
        choices=("auto", "cpu", "cuda"),
    )
    precision: str = parameter(
        "auto",
        "auto: fewer bits where runtime and processor are faster so and the self-test still "
        "holds; or float32",
        Change.RELOAD,
        choices=("auto", "float32"),
    )
    threads: int = parameter(
        0,
        "CPU threads of the runtime; 0: the runtime's own choice",
        Change.RELOAD,
        low=0,
        high=256,
    )
    self_test: bool = parameter(
        True, "Compare the model's answer to its golden sample at configure", Change.RELOAD
    )
    warm_up_height: int = parameter(
        480,
        "Height in pixels of the warm-up image; 0: no warm-up",
        Change.RELOAD,
        low=0,
        high=8192,
    )
    warm_up_width: int = parameter(
        640, "Width in pixels of the warm-up image; 0: no warm-up", Change.RELOAD, low=0, high=8192
    )
    image_transport: str = parameter(
        "raw",
        "Input: raw (sensor_msgs/Image) or compressed (CompressedImage on image_raw/compressed)",
        Change.RELOAD,
        choices=("raw", "compressed"),
    )


@dataclass(frozen=True)
class NodeParameters(
    CloudParameters,  # dataclasses list the fields of the last base first
    OutputParameters,
    TrustParameters,
    LensParameters,
    ViewParameters,
    EngineParameters,
    ModelParameters,
):
    """Values of all parameters at one moment; a field's metadata says the rest."""

    diagnostics_period_s: float = parameter(
        1.0, "Seconds between two messages on /diagnostics", Change.START, low=0.05, high=60.0
    )
    bond_heartbeat_period_s: float = parameter(
        0.1,
        "Seconds between heartbeats to a lifecycle manager (topic bond, while active, where the "
        "package bond is installed); 0: none",
        Change.START,
        low=0.0,
        high=60.0,
    )
    autostart: bool = parameter(
        True, "Configure and activate without being asked; false: wait for requests", Change.START
    )

    def __post_init__(self) -> None:
        """Refuse values that make no sense, alone or together."""
        for item in fields(self):
            check_value(item, getattr(self, item.name))
        for name in ("network_width", "network_height"):
            if 0 < (side := getattr(self, name)) < MIN_SIDE_PX:
                raise ParameterError(
                    f"{name}: expected 0 (no limit) or at least {MIN_SIDE_PX} pixels, the least "
                    f"that a model takes, got {side}"
                )
        for low_name, high_name in _LIMITS:
            low, high = getattr(self, low_name), getattr(self, high_name)
            if high and low >= high:
                raise ParameterError(
                    f"{low_name}, {high_name}: expected min < max in metres, got {low} and {high};"
                    f" set both in one request, or {high_name} to 0 (no limit)"
                )

        if self.lens_calibration:
            self._check_calibration()
        elif self.oversize == "letterbox" and not self.camera_pixel_pitch_um:
            raise ParameterError(
                "oversize: expected crop while camera_pixel_pitch_um is 0, got letterbox; scaling "
                "changes the blur that depth is read from: set the pixel pitch first"
            )

    def _check_calibration(self) -> None:
        """Refuse a file that could never be read, and a lens that is given twice."""
        names = ("camera_pixel_pitch_um", "camera_focal_length_mm", "camera_f_number")
        if given := [name for name in names if getattr(self, name)]:
            raise ParameterError(
                f"{', '.join(given)}: expected 0 while lens_calibration is set, got another "
                "value; the file says all of this"
            )
        try:
            lens_in_force(self.lens_calibration)
        except LensCalibrationError as error:
            raise ParameterError(str(error)) from error

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
        changed = replace(self, **ours)
        if ours.get("lens_calibration"):  # asked for now: what it held before does not count
            try:
                read_lens_file(changed.lens_calibration)
            except LensCalibrationError as error:
                raise ParameterError(str(error)) from error
        return changed


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


def unknown_overrides(node: Any) -> list[str]:
    """Names that a node was started with and that are none of its parameters.

    A file may hold other nodes' as well, so they are no error; but a misspelt limit would be
    missed without a word. Those of QoS are declared with their topics.
    """
    given = getattr(node, "_parameter_overrides", {})
    known = ("qos_overrides.",)
    return sorted(n for n in given if not (n.startswith(known) or node.has_parameter(n)))


def defaults() -> dict[str, Any]:
    """Name and default of every parameter."""
    return asdict(NodeParameters())
