"""From an ONNX graph to the bytes of a TensorRT engine, cancellable, with its progress told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfd_ros.core.errors import ContractError, DdfdError, ModelLoadError
from ddfd_ros.inference.engine_manifest import ShapeRange
from ddfd_ros.inference.graph import INPUT_NAME
from ddfd_ros.inference.tensorrt_api import TensorRt, shape_of
from ddfd_ros.inference.tensorrt_engine import MessageLog
from ddfd_trt.engine_options import EngineOptions
from ddfd_trt.files import write_atomically

if TYPE_CHECKING:
    from ddfd_trt.calibrate import ImageBatches

_POLL_S = 0.1
_CANCEL_S = 60.0

ProgressFunction = Callable[[str, int, int], None]
"""Receives the phase, steps done and all steps; called in TensorRT's threads, must not raise."""


class BuildCancelled(DdfdError):
    """The build was stopped; nothing was written.

    Attributes:
        running: Whether TensorRT could not be stopped and still works in a thread.
    """

    def __init__(self, running: bool) -> None:
        super().__init__("build: stopped before it was done; nothing was written")
        self.running = running


@dataclass(frozen=True)
class BuildJob:
    """What goes into one build.

    Attributes:
        graph: The ONNX model, with the wanted heads only.
        shapes: Sizes to build for.
        options: The rest.
        batches: Pictures to calibrate int8 with, None without.
        timing_cache: File that keeps kernel timings from build to build, None without.
        on_progress: Told how far it is.
        cancel: Set it to stop the build.
    """

    graph: bytes
    shapes: ShapeRange
    options: EngineOptions
    batches: ImageBatches | None = None
    timing_cache: Path | None = None
    on_progress: ProgressFunction = lambda phase, step, steps: None  # noqa: E731
    cancel: threading.Event = field(default_factory=threading.Event)


def build_plan(api: TensorRt, job: BuildJob) -> bytes:
    """Build an engine and return its bytes.

    TensorRT works in a thread of its own, so that this one stays open for signals: it holds the
    interpreter's lock for long, and an exception raised in its callbacks would end the process.

    Raises:
        ModelLoadError: TensorRT refuses the graph or finds no implementation.
        ContractError: The precision is not to be had with this TensorRT.
        BuildCancelled: ``job.cancel`` was set.
        KeyboardInterrupt: As usual, after the build was cancelled.
    """
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["plan"] = _build(api, job)
        except BaseException as error:  # raised to the caller below
            outcome["error"] = error

    thread = threading.Thread(target=work, name="ddfd-build", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and not job.cancel.is_set():
            thread.join(_POLL_S)
    finally:
        if thread.is_alive():  # cancelled, or a signal
            job.cancel.set()
            if api.has_progress:
                thread.join(_CANCEL_S)
    if job.cancel.is_set():
        raise BuildCancelled(thread.is_alive())
    if "error" in outcome:
        raise outcome["error"]
    plan: bytes = outcome["plan"]
    return plan


def _build(api: TensorRt, job: BuildJob) -> bytes:
    log = MessageLog()
    logger = api.make_logger(log)
    builder = api.module.Builder(logger)
    network = builder.create_network(api.network_flags())
    parser = api.module.OnnxParser(network, logger)
    if not parser.parse(job.graph):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ModelLoadError(
            f"TensorRT {api.version}: expected to parse the ONNX graph, got {'; '.join(errors)}; "
            "export the model again"
        )
    config = builder.create_builder_config()
    _configure(api, builder, network, config, job)
    calibrator = _calibrator(api, config, job)
    if api.has_progress:
        config.progress_monitor = _monitor(api, job)
    cache = _read_cache(config, job.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if calibrator is not None and calibrator.failure is not None:
        raise calibrator.failure
    if plan is None:
        if job.cancel.is_set():
            raise BuildCancelled(False)
        raise ModelLoadError(
            f"TensorRT {api.version}: expected an engine, got none: {log}; give it more "
            "workspace, or another precision"
        )
    if cache is not None and job.timing_cache is not None:
        write_atomically(job.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _configure(api: TensorRt, builder: Any, network: Any, config: Any, job: BuildJob) -> None:
    module, options = api.module, job.options
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    api.set_precision(config, options.precision, int8=job.batches is not None)
    if options.version_compatible:
        if not api.has_version_compatible:
            raise ContractError(
                f"version-compatible engine: expected TensorRT 8.6 or newer, got {api.version}; "
                "build without it"
            )
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.optimization_level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise ContractError(
                f"optimization level: expected TensorRT 8.6 or newer, got {api.version}; build "
                "without it"
            )
        config.builder_optimization_level = options.optimization_level
    if options.own_kernels_only:
        sources = module.TacticSource
        chosen = (sources.EDGE_MASK_CONVOLUTIONS, sources.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in chosen))
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    image = next(item for item in inputs if item.name == INPUT_NAME)
    batch = (1,) if len(shape_of(image.shape)) == 4 else ()
    sizes = (job.shapes.minimum, job.shapes.optimum, job.shapes.maximum)
    profile.set_shape(INPUT_NAME, *((*batch, *size, 3) for size in sizes))
    config.add_optimization_profile(profile)
    if job.batches is not None and api.has_calibrators:
        config.set_calibration_profile(profile)


def _calibrator(api: TensorRt, config: Any, job: BuildJob) -> Any:
    """Attach the calibrator where pictures are given and this TensorRT has calibrators."""
    if job.batches is None or not api.has_calibrators:
        return None
    from ddfd_trt.calibrate import make_calibrator

    config.int8_calibrator = make_calibrator(api, job.batches, job.cancel)
    return config.int8_calibrator


def _monitor(api: TensorRt, job: BuildJob) -> Any:
    """TensorRT's progress as calls of ``job.on_progress``; cancels the build when asked to."""
    base = api.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = int(num_steps)
            job.on_progress(phase_name, 0, int(num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            job.on_progress(phase_name, int(step) + 1, self._steps.get(phase_name, 0))
            return not job.cancel.is_set()

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            job.on_progress(phase_name, steps, steps)

    return Monitor()


def _read_cache(config: Any, path: Path | None) -> Any:
    """Load the timing cache; one of another GPU or TensorRT is replaced by an empty one."""
    if path is None:
        return None
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
