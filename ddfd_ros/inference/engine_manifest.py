"""The record beside a TensorRT engine: what it was built from, on what, how, and how well it fits.

An engine belongs to one GPU model, one TensorRT version and one ONNX file. Loaded elsewhere it
fails at best, so a reader compares this record with the machine before TensorRT sees a byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import ContractError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.inference.tensorrt_api import version_key

MANIFEST_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8", "best")


@dataclass(frozen=True)
class GpuMachine:
    """What an engine depends on besides its model.

    Attributes:
        gpu_name: As the driver gives it.
        compute_capability: Such as ``8.7``.
        driver: CUDA version the driver supports, such as ``12.6``.
        tensorrt_version: Of the installed TensorRT.
        can_build: Whether that is the full package, not the lean runtime.
        memory_gb: The GPU's memory, rounded up to 4 GB; 0: not known, as in older manifests. It
            tells boards apart whose GPUs have one name: every Jetson Orin's is ``Orin``.
    """

    gpu_name: str
    compute_capability: str
    driver: str
    tensorrt_version: str
    can_build: bool = True
    memory_gb: int = 0


@dataclass(frozen=True)
class ShapeRange:
    """Sizes an engine takes, each ``(height, width)`` in pixels; all equal when it is fixed."""

    minimum: tuple[int, int]
    optimum: tuple[int, int]
    maximum: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse ranges that are none."""
        for name in ("minimum", "optimum", "maximum"):
            object.__setattr__(self, name, tuple(int(side) for side in getattr(self, name)))
        sides = zip(self.minimum, self.optimum, self.maximum, strict=True)
        if not all(0 < low <= best <= high for low, best, high in sides):
            raise ContractError(
                f"engine sizes: expected min <= opt <= max, got {self.minimum}, {self.optimum} "
                f"and {self.maximum}; give them in this order"
            )

    @classmethod
    def fixed(cls, height: int, width: int) -> ShapeRange:
        """One size."""
        return cls((height, width), (height, width), (height, width))

    @property
    def is_fixed(self) -> bool:
        """Whether there is one size only."""
        return self.minimum == self.maximum

    def contains(self, height: int, width: int) -> bool:
        """Whether the engine runs at this (padded) size."""
        return all(
            low <= side <= high
            for low, side, high in zip(self.minimum, (height, width), self.maximum, strict=True)
        )

    def __str__(self) -> str:
        """As in ``640x480`` or ``320x240 to 1280x960``."""
        low, high = ("{1}x{0}".format(*size) for size in (self.minimum, self.maximum))
        return low if self.is_fixed else f"{low} to {high}"


@dataclass(frozen=True)
class EngineManifest:
    """Everything known about an engine file.

    Attributes:
        engine_sha256: Digest of the engine file.
        engine_bytes: Its size.
        onnx_file: Name of the model it was built from.
        onnx_sha256: Digest of that file, whole, before heads were cut away.
        contract: What the engine promises; its heads, sizes and golden sample are the engine's.
        precision: One of ``PRECISIONS``.
        shapes: Sizes it takes.
        machine: GPU, driver and TensorRT it was built with.
        version_compatible: Whether later TensorRT versions and the lean runtime take it.
        options: The build's other options.
        build_seconds: How long the build took.
        built_utc: When it ended, ISO 8601.
        parity: Per head the figures of the comparison with the reference runtime.
        device_memory_bytes: Activation memory of one execution context.
    """

    engine_sha256: str
    engine_bytes: int
    onnx_file: str
    onnx_sha256: str
    contract: ModelContract
    precision: str
    shapes: ShapeRange
    machine: GpuMachine
    version_compatible: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    build_seconds: float = 0.0
    built_utc: str = ""
    parity: dict[str, Any] = field(default_factory=dict)
    device_memory_bytes: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether the builder was given ranges for int8."""
        return bool(self.options.get("calibration_images"))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["contract"] = self.contract.to_dict()
        values["shapes"] = asdict(self.shapes)
        values["machine"] = asdict(self.machine)
        return {"manifest_version": MANIFEST_VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineManifest:
        """Read JSON values; every problem is a ContractError."""
        arguments = dict(values)
        version = arguments.pop("manifest_version", None)
        names = {item.name for item in fields(cls)}
        if version != MANIFEST_VERSION or set(arguments) != names:
            raise ContractError(
                f"engine manifest: expected version {MANIFEST_VERSION} with the keys "
                f"{sorted(names)}, got version {version!r} with {sorted(arguments)}; build the "
                "engine again"
            )
        try:
            arguments["contract"] = ModelContract.from_dict(arguments["contract"])
            arguments["shapes"] = ShapeRange(**arguments["shapes"])
            arguments["machine"] = GpuMachine(**arguments["machine"])
        except (TypeError, ValueError, AttributeError) as error:
            raise ContractError(f"engine manifest: malformed ({error}); build it again") from error
        return cls(**arguments)

    def mismatches(self, machine: GpuMachine, onnx_sha256: str | None = None) -> list[str]:
        """Why the engine cannot be used here, in words; nothing when it can.

        Args:
            machine: What it is to run on. Another driver alone is no reason.
            onnx_sha256: Digest of the model that is wanted; None: whichever it was built from.
        """
        said = []
        if onnx_sha256 is not None and onnx_sha256 != self.onnx_sha256:
            said.append(f"built from ONNX {self.onnx_sha256[:12]}, not {onnx_sha256[:12]}")
        for name, what in (("gpu_name", "GPU"), ("compute_capability", "compute capability")):
            ours, theirs = getattr(self.machine, name), getattr(machine, name)
            if ours != theirs:
                said.append(f"built for {what} {ours}, this is {theirs}")
        ours, theirs = self.machine.memory_gb, machine.memory_gb
        if ours != theirs and ours and theirs:
            said.append(f"built for a GPU with {ours} GB, this one has {theirs} GB")
        if not self._fits_version(machine.tensorrt_version):
            built = self.machine.tensorrt_version
            said.append(f"built with TensorRT {built}, this is {machine.tensorrt_version}")
        if not (machine.can_build or self.version_compatible):
            said.append("built without --version-compatible, which the lean runtime needs")
        return said

    def _fits_version(self, installed: str) -> bool:
        built = self.machine.tensorrt_version
        if installed == built:
            return True
        ours, theirs = version_key(built), version_key(installed)
        return self.version_compatible and ours[:1] == theirs[:1] and theirs >= ours


def manifest_path(engine_path: str | Path) -> Path:
    """Where the manifest of an engine lies: ``ddfd.engine`` has ``ddfd.engine.manifest.json``."""
    path = Path(engine_path)
    return path.with_name(path.name + ".manifest.json")


def write_manifest(path: Path, manifest: EngineManifest) -> None:
    """Write the JSON text to ``path`` itself (not beside it)."""
    text = json.dumps(manifest.to_dict(), indent=2, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_manifest(engine_path: str | Path, *, verify: bool = True) -> EngineManifest:
    """The manifest of an engine, after comparing the engine's bytes with it.

    Args:
        engine_path: The engine file.
        verify: Whether to read the engine and compare size and digest.

    Raises:
        ModelLoadError: Engine or manifest is missing, or the engine is empty, truncated, altered
            or another one.
        ContractError: The manifest is malformed.
    """
    path, beside = Path(engine_path), manifest_path(engine_path)
    for item, what in ((path, "an engine"), (beside, "the engine's manifest")):
        if not item.is_file():
            raise ModelLoadError(
                f"{item}: expected {what}, got no file; build the engine with ddfd-engine"
            )
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(
            f"{beside}: expected JSON ({error}); build the engine again"
        ) from error
    if not isinstance(values, dict):
        raise ContractError(f"{beside}: expected a JSON object; build the engine again")
    manifest = EngineManifest.from_dict(values)
    if verify:
        _check_bytes(path, manifest)
    return manifest


def _check_bytes(path: Path, manifest: EngineManifest) -> None:
    size = path.stat().st_size
    if size != manifest.engine_bytes:
        raise ModelLoadError(
            f"{path}: expected {manifest.engine_bytes} bytes, got {size}; the engine is "
            "incomplete or another one: build it again with ddfd-engine"
        )
    digest = file_sha256(path)
    if digest != manifest.engine_sha256:
        raise ModelLoadError(
            f"{path}: expected sha256 {manifest.engine_sha256[:16]}..., got {digest[:16]}...; the "
            "engine was altered or belongs to another manifest: build it again with ddfd-engine"
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
