"""From an ONNX graph to a TensorRT engine, in a process of its own, with its progress told.

A process, because TensorRT before 10 cannot be stopped otherwise, none gives its kernel library's
memory back (8.5 and 8.6 never free a builder that a parser used), and a crash in it would be ours.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfd_ros.core.errors import ContractError, DdfdError, ModelLoadError
from ddfd_ros.inference.engine_manifest import ShapeRange
from ddfd_ros.inference.graph import INPUT_NAME
from ddfd_ros.inference.tensorrt_api import MessageLog, TensorRt, load_tensorrt, shape_of
from ddfd_trt.engine_options import EngineOptions
from ddfd_trt.files import write_atomically

if TYPE_CHECKING:
    from ddfd_trt.calibrate import ImageBatches

_POLL_S = 0.1

PhaseFunction = Callable[[str], None]
"""Receives in words what begins."""

ProgressFunction = Callable[[str, int, int], None]
"""Receives the phase of a build, steps done and all steps."""


class BuildCancelled(DdfdError):
    """The build was stopped; nothing was written."""

    def __init__(self) -> None:
        super().__init__("build: stopped before it was done; nothing was written")


@dataclass(frozen=True)
class BuildJob:
    """What goes into one build; it is sent to another process.

    Attributes:
        graph: The ONNX model, with the wanted heads only.
        shapes: Sizes to build for.
        options: The rest.
        batches: Pictures to calibrate int8 with, None without.
        timing_cache: File that keeps kernel timings from build to build, None without.
    """

    graph: bytes
    shapes: ShapeRange
    options: EngineOptions
    batches: ImageBatches | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Watch:
    """Who follows a build.

    Attributes:
        on_phase: Told in words what begins.
        on_progress: Told how far TensorRT is, where it says so (10 and later).
        cancel: Set it to stop.
    """

    on_phase: PhaseFunction = lambda text: None  # noqa: E731
    on_progress: ProgressFunction = lambda phase, step, steps: None  # noqa: E731
    cancel: threading.Event = field(default_factory=threading.Event)


def build_plan(job: BuildJob, output: Path, watch: Watch) -> None:
    """Build an engine and write its bytes to ``output``.

    Raises:
        ModelLoadError: TensorRT is missing, refuses the graph, finds no implementation or crashes.
        DeviceError: TensorRT cannot use the GPU with this driver.
        ContractError: The precision is not to be had with this TensorRT.
        BuildCancelled: ``watch.cancel`` was set; at once, whatever TensorRT is doing.
    """
    # A fresh interpreter: CUDA does not work in a fork of a process that used it.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(job, output, sender), name="ddfd-build", daemon=True
    )
    process.start()
    sender.close()  # here; so that its end is noticed
    try:
        _follow(process, receiver, watch)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _follow(process: BaseProcess, receiver: Connection, watch: Watch) -> None:
    """Hand on what the process tells until it is done; raise what it raised."""
    while not watch.cancel.is_set():
        if not receiver.poll(_POLL_S):
            continue
        try:
            kind, *values = receiver.recv()
        except EOFError:
            process.join()
            raise ModelLoadError(
                "TensorRT: expected an engine, got a build that ended with exit status "
                f"{process.exitcode}; see what it printed, and whether memory ran out"
            ) from None
        if kind == "phase":
            watch.on_phase(*values)
        elif kind == "progress":
            watch.on_progress(*values)
        elif kind == "error":
            raise values[0]
        else:
            return
    raise BuildCancelled


def _work(job: BuildJob, output: Path, sender: Connection) -> None:
    """What the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for our parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        output.write_bytes(_build(job, lambda *news: sender.send(news)))
        sender.send(("done",))
    except (DdfdError, OSError) as error:
        sender.send(("error", error))
    except Exception as error:
        traceback.print_exc()
        text = f"TensorRT: expected an engine, got {type(error).__name__}: {error}; report it"
        sender.send(("error", ModelLoadError(text)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _build(job: BuildJob, tell: Callable[..., None]) -> bytes:
    api = load_tensorrt(build=True)
    graph = job.graph if api.weakly_typed else _typed_graph(job, tell)
    log = MessageLog()
    logger = api.make_logger(log)
    builder = api.start(api.module.Builder, logger, log)
    network = builder.create_network(api.network_flags())
    parser = api.module.OnnxParser(network, logger)
    if not parser.parse(graph):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ModelLoadError(
            f"TensorRT {api.version}: expected to parse the ONNX graph, got {'; '.join(errors)}; "
            "export the model again"
        )
    config = builder.create_builder_config()
    _configure(api, config, job)
    _set_sizes(api, builder, network, config, job)
    if api.has_progress:
        config.progress_monitor = _monitor(api, tell)
    cache = _read_cache(config, job.timing_cache)
    calibrator = _calibrator(api, config, job)
    try:
        plan = builder.build_serialized_network(network, config)
    finally:
        if calibrator is not None:  # TensorRT asks to the end only where all goes well
            calibrator.close()
    if calibrator is not None and calibrator.failure is not None:
        raise calibrator.failure
    if plan is None:
        raise ModelLoadError(
            f"TensorRT {api.version}: expected an engine, got none: {log}; give it more "
            "workspace, or another precision"
        )
    if cache is not None and job.timing_cache is not None:
        _write_cache(config, job.timing_cache, tell)
    return bytes(plan)


def _typed_graph(job: BuildJob, tell: Callable[..., None]) -> bytes:
    """The graph with its types changed, for a TensorRT that takes types from the graph alone."""
    if job.options.precision == "fp32":
        return job.graph
    from ddfd_trt.typed_graph import half_precision, quantised

    if job.batches is None:
        return half_precision(job.graph)
    tell("phase", "calibrating int8 on the CPU: this TensorRT takes ranges from the graph alone")
    return half_precision(quantised(job.graph, job.batches))


def _configure(api: TensorRt, config: Any, job: BuildJob) -> None:
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


def _set_sizes(api: TensorRt, builder: Any, network: Any, config: Any, job: BuildJob) -> None:
    """Fix the network to its one size, or let it take a range of them."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    image = next(item for item in inputs if item.name == INPUT_NAME)
    batch = (1,) if len(shape_of(image.shape)) == 4 else ()
    if job.shapes.is_fixed:  # the builder then computes ahead whatever follows from the size
        image.shape = (*batch, *job.shapes.optimum, 3)
        return
    profile = builder.create_optimization_profile()
    sizes = (job.shapes.minimum, job.shapes.optimum, job.shapes.maximum)
    profile.set_shape(INPUT_NAME, *((*batch, *size, 3) for size in sizes))
    config.add_optimization_profile(profile)
    if job.batches is not None and api.has_calibrators:
        # One of its own: TensorRT sets smallest and largest of this one to the best size.
        calibration = builder.create_optimization_profile()
        calibration.set_shape(INPUT_NAME, *[(*batch, *job.shapes.optimum, 3)] * 3)
        config.set_calibration_profile(calibration)


def _calibrator(api: TensorRt, config: Any, job: BuildJob) -> Any:
    """Attach the calibrator where pictures are given and this TensorRT has calibrators."""
    if job.batches is None or not api.has_calibrators:
        return None
    from ddfd_trt.calibrate import make_calibrator

    calibrator = make_calibrator(api, job.batches)
    config.int8_calibrator = calibrator
    return calibrator  # not the property: what it gives back is for the bindings to choose


def _monitor(api: TensorRt, tell: Callable[..., None]) -> Any:
    """TensorRT's progress, told on; its methods are called from C++ and must not raise."""
    base = api.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = int(num_steps)
            tell("progress", phase_name, 0, int(num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell("progress", phase_name, int(step) + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            tell("progress", phase_name, steps, steps)

    return Monitor()


def _read_cache(config: Any, path: Path | None) -> Any:
    """Load the timing cache; one of another GPU or TensorRT is replaced by an empty one."""
    if path is None:
        return None
    known = b""
    with contextlib.suppress(OSError):  # none yet, or not for us: the build takes longer
        known = path.read_bytes()
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _write_cache(config: Any, path: Path, tell: Callable[..., None]) -> None:
    """Keep the timings; where that fails, the engine that took minutes is not lost with them."""
    try:
        write_atomically(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        tell("phase", f"timing cache: expected to write it, got {error}; the next build takes as "
             "long as this one, check the folder")  # fmt: skip
