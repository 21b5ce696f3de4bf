"""Parameters about TensorRT engines."""

from __future__ import annotations

from dataclasses import dataclass

from ddfd_ros.inference.engine_manifest import PRECISIONS
from ddfd_ros.ros.parameter_field import Change, parameter


@dataclass(frozen=True)
class EngineParameters:
    """Which engine is wanted, where it lies, and whether the node may build one."""

    engine_precision: str = parameter(
        "fp16",
        "Precision of the TensorRT engine; int8 needs engine_calibration",
        Change.RELOAD,
        choices=PRECISIONS,
    )
    engine_build: bool = parameter(
        True,
        "Build an engine beside the node where none fits; false: serve on the CPU instead",
        Change.RELOAD,
    )
    engine_retry_s: float = parameter(
        10.0,
        "Seconds until a GPU that failed is tried again; doubled after each failure, up to 600",
        Change.RELOAD,
        low=0.1,
        high=600.0,
    )
    engine_folder: str = parameter(
        "",
        "Where engines are built and looked for besides the model's own folder; empty: "
        "$DDFD_ENGINES or ~/.cache/ddfd_ros/engines",
        Change.RELOAD,
    )
    engine_calibration: str = parameter(
        "", "Folder with pictures of the camera to calibrate int8 with", Change.RELOAD
    )
