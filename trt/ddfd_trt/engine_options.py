"""What can be chosen when an engine is built."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.engine_manifest import PRECISIONS, ShapeRange


@dataclass(frozen=True)
class EngineOptions:
    """Options of a build.

    Attributes:
        precision: ``fp32``; ``fp16``; ``int8`` (with fp16 where that is faster); ``best``: int8
            where the model brings its own ranges, else fp16.
        shapes: Sizes the engine is to take; None: the model's own fixed size.
        heads: Outputs to keep; None: all of the model.
        workspace_mb: Scratch memory the builder's kernels may use, in MiB.
        optimization_level: 0 (fast build) to 5 (fast engine); None: TensorRT's own choice.
        version_compatible: Whether later TensorRT versions and the lean runtime are to take it.
        own_kernels_only: Leave cuBLAS, cuBLASLt and cuDNN out, where they are not installed.
        calibration_images: Image or folder whose pictures find the ranges of int8.
        calibration_limit: At most so many of them.
    """

    precision: str = "fp16"
    shapes: ShapeRange | None = None
    heads: tuple[str, ...] | None = None
    workspace_mb: int = 1024
    optimization_level: int | None = None
    version_compatible: bool = False
    own_kernels_only: bool = False
    calibration_images: Path | None = None
    calibration_limit: int = 200

    def __post_init__(self) -> None:
        """Refuse values TensorRT would misunderstand."""
        if self.precision not in PRECISIONS:
            raise ContractError(
                f"precision: expected one of {list(PRECISIONS)}, got {self.precision!r}"
            )
        if self.workspace_mb < 1 or self.calibration_limit < 1:
            raise ContractError(
                "workspace, calibration limit: expected 1 or more, got "
                f"{self.workspace_mb} MiB and {self.calibration_limit}"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ContractError(
                f"optimization level: expected 0 to 5, got {self.optimization_level}"
            )

    def recorded(self) -> dict[str, Any]:
        """What goes into the manifest."""
        images = self.calibration_images
        return {
            "workspace_mb": self.workspace_mb,
            "optimization_level": self.optimization_level,
            "own_kernels_only": self.own_kernels_only,
            "calibration_images": None if images is None else images.name,
        }


def fitting_shapes(contract: ModelContract, wanted: ShapeRange | None) -> ShapeRange:
    """The sizes to build for.

    Raises:
        ContractError: The model's size is fixed to another, the sizes are no multiples of what
            the network needs, or none is given for a model of any size.
    """
    height, width = contract.input_height, contract.input_width
    if height is not None and width is not None:
        fixed = ShapeRange.fixed(height, width)
        if wanted not in (None, fixed):
            raise ContractError(
                f"engine size: expected {fixed}, to which this model is fixed, got {wanted}; "
                "export the model without a size"
            )
        return fixed
    if wanted is None:
        raise ContractError(
            "engine size: expected --size WIDTHxHEIGHT, since this model takes any size, got "
            "none; give the camera's"
        )
    multiple = contract.size_multiple
    sides = (*wanted.minimum, *wanted.optimum, *wanted.maximum)
    if bad := [side for side in sides if side % multiple]:
        raise ContractError(
            f"engine size: expected multiples of {multiple}, got {sorted(set(bad))}; round up, "
            "the runtime pads the images"
        )
    return wanted


def fitting_heads(contract: ModelContract, wanted: Collection[str] | None) -> tuple[str, ...]:
    """The heads to build, in the contract's order; ContractError when the model has not all."""
    if wanted is None:
        return contract.outputs
    if not wanted or set(wanted) - set(contract.outputs):
        raise ContractError(
            f"heads: expected a selection of {list(contract.outputs)}, got {sorted(wanted)}; "
            "export the model with more heads"
        )
    return tuple(head for head in contract.outputs if head in wanted)
