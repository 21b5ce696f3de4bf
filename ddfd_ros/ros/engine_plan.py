"""What serves a model on this machine: a runtime for CPUs, and a TensorRT engine where it can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.preprocessing import padded_side
from ddfd_ros.inference.engine_manifest import GpuMachine, read_manifest
from ddfd_ros.inference.engine_store import EngineWish, default_folder, find_engine
from ddfd_ros.inference.gpu_probe import probe_gpu, tensorrt_installed
from ddfd_ros.inference.onnx_file import load_onnx
from ddfd_ros.ros.parameters import NodeParameters

ENGINE_SUFFIXES = (".engine", ".plan")
_DEFAULT_SIZE = (480, 640)


@dataclass(frozen=True)
class EnginePlan:
    """What is to serve.

    Attributes:
        model_path: The model for the CPU, or the engine where there is no such model.
        runtime: Runtime of ``model_path``.
        wish: What an engine is wanted for; None when none is wanted or possible.
        engine_path: An engine that fits and is to be loaded at once; None when there is none.
        reason: Why there is no engine, or not yet; empty when all is as it should be.
        folders: Where engines of this model are looked for; the last is where they are built.
        build: Whether one may be built.
        calibration: Folder of pictures for int8, None without.
        retry_s: Until a failed GPU is tried again, at first.
    """

    model_path: Path
    runtime: str
    wish: EngineWish | None = None
    engine_path: Path | None = None
    reason: str = ""
    folders: tuple[Path, ...] = ()
    build: bool = False
    calibration: Path | None = None
    retry_s: float = 10.0


def plan_engine(path: Path, parameters: NodeParameters) -> EnginePlan:
    """Decide what serves ``path``.

    An engine is wanted where ``runtime`` is ``tensorrt``, or ``runtime`` and ``device`` are both
    ``auto``. With ``auto``, a machine without TensorRT or without a GPU is served by its CPU.

    Raises:
        ModelLoadError: An engine file that does not fit this machine, or is not wanted, comes
            without its model, or ``runtime: tensorrt`` cannot be had.
    """
    wanted = parameters.runtime == "tensorrt" or (
        parameters.runtime == "auto" and parameters.device == "auto"
    )
    if path.suffix.lower() in ENGINE_SUFFIXES:
        return _plan_for_engine(path, parameters, wanted)
    if not wanted or path.suffix.lower() != ".onnx":
        return EnginePlan(path, parameters.runtime)
    forced = parameters.runtime == "tensorrt"
    if not forced and not tensorrt_installed():
        return EnginePlan(path, "auto")
    try:
        machine = probe_gpu()
    except DdfdError as error:
        if forced:
            raise
        return EnginePlan(path, "auto", reason=f"TensorRT is installed, but: {error}")
    return _plan_for_model(path, machine, parameters)


def _plan_for_engine(path: Path, parameters: NodeParameters, wanted: bool) -> EnginePlan:
    """An engine file was named: use it, or build anew from the model it was made from."""
    manifest = read_manifest(path, verify=False)
    model = path.with_name(manifest.onnx_file)
    if not wanted:
        if not model.is_file():
            raise ModelLoadError(
                f"{path.name}: expected runtime tensorrt, or runtime and device auto, for an "
                f"engine, got runtime {parameters.runtime} and device {parameters.device}, and "
                f"its model {model.name} is not beside it; name the model, or set both to auto"
            )
        return EnginePlan(model, parameters.runtime)
    if not model.is_file():
        return EnginePlan(path, "tensorrt")  # nothing to fall back to: opening it tells the rest
    try:
        machine = probe_gpu()
    except DdfdError as error:
        if parameters.runtime == "tensorrt":
            raise
        return EnginePlan(model, "auto", reason=str(error))
    built = replace(
        parameters,
        engine_precision=manifest.precision,
        warm_up_height=manifest.shapes.optimum[0],
        warm_up_width=manifest.shapes.optimum[1],
    )
    try:
        found = read_manifest(path)
        mismatches = found.mismatches(machine)
    except DdfdError as error:
        mismatches = [str(error)]
    if not mismatches:
        plan = _plan_for_model(model, machine, built)
        return replace(plan, engine_path=path, reason="")
    plan = _plan_for_model(model, machine, built)
    return plan if plan.engine_path else replace(plan, reason="; ".join(mismatches))


def _plan_for_model(path: Path, machine: GpuMachine, parameters: NodeParameters) -> EnginePlan:
    _, contract = load_onnx(path)
    size = (parameters.warm_up_height, parameters.warm_up_width)
    height, width = size if all(size) else _DEFAULT_SIZE
    wish = EngineWish(
        path,
        machine,
        parameters.engine_precision,
        contract.input_height or padded_side(height, contract.size_multiple),
        contract.input_width or padded_side(width, contract.size_multiple),
        contract.outputs,
    )
    chosen = parameters.engine_folder
    folders = (path.parent, Path(chosen).expanduser() if chosen else default_folder())
    engine, reasons = find_engine(wish, folders)
    build = parameters.engine_build and machine.can_build
    reason = ""
    if engine is None:
        reason = "; ".join(reasons) or "no engine has been built yet"
        if not build:
            blocked = "engine_build is false" if machine.can_build else "only the lean runtime"
            reason += f"; none will be built here ({blocked})"
    calibration = parameters.engine_calibration
    return EnginePlan(
        path, "auto", wish, engine, reason, folders, build,
        Path(calibration).expanduser() if calibration else None,
        parameters.engine_retry_s,
    )  # fmt: skip


def sized(wish: EngineWish, size: tuple[int, int], contract: ModelContract) -> EngineWish:
    """The same wish for images of another size (height, width) in pixels."""
    multiple = contract.size_multiple
    return replace(
        wish,
        height=contract.input_height or padded_side(size[0], multiple),
        width=contract.input_width or padded_side(size[1], multiple),
    )


def check_calibration(plan: EnginePlan) -> None:
    """ModelLoadError where int8 is wanted without pictures to calibrate it with."""
    wanted = plan.build and plan.wish is not None and plan.wish.precision == "int8"
    if wanted and plan.engine_path is None and plan.calibration is None:
        raise ModelLoadError(
            "engine_precision int8: expected engine_calibration to name a folder with pictures "
            "of the camera, got none; set it, or choose fp16"
        )
