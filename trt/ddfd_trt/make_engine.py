"""An engine file with its manifest: built, compared with the model, and only then put in place."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract, golden_image, make_golden
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import Backend, ParityError
from ddfd_ros.inference.engine_manifest import (
    EngineManifest,
    GpuMachine,
    ShapeRange,
    file_sha256,
    manifest_path,
    write_manifest,
)
from ddfd_ros.inference.lens_input import LENS_NAME, own_lens
from ddfd_ros.inference.onnx_file import keep_outputs, load_onnx
from ddfd_ros.inference.precision import tolerance_of
from ddfd_ros.inference.tensorrt_api import TensorRt, load_tensorrt, no_pycuda
from ddfd_trt.build_engine import BuildCancelled, BuildJob, Watch, build_plan
from ddfd_trt.calibrate import ImageBatches
from ddfd_trt.engine_options import EngineOptions, fitting_heads, fitting_shapes
from ddfd_trt.verify import NamedImage, VerifyReport, find_images, load_images, verify

GOLDEN_SEED = 1
_WORK_PREFIX = ".ddfd-engine-"


@dataclass(frozen=True)
class EngineJob:
    """One engine to make.

    Attributes:
        onnx_path: The model.
        output: The engine file to write.
        options: How to build it.
        images: Pictures to compare on besides the golden input: files and folders.
        image_limit: At most so many of them.
        timing_cache: File that keeps kernel timings; None: ``timing.cache`` beside the engine.
        keep_refused: Whether an engine whose answers are not the model's is kept in a folder of
            its own (``refused_path``), to look into and to measure; no node finds it there.
        watch: Told how far it is; stops it.
    """

    onnx_path: Path
    output: Path
    options: EngineOptions
    images: tuple[Path, ...] = ()
    image_limit: int = 20
    timing_cache: Path | None = None
    keep_refused: bool = False
    watch: Watch = field(default_factory=Watch)


def make_engine(job: EngineJob) -> EngineManifest:
    """Build, verify and put in place. An engine that was there stays until the new one passed.

    Raises:
        ModelLoadError: TensorRT is missing or refuses, or the engine's answers are not the
            model's; the message has the figures.
        ContractError: Options and model do not fit each other.
        BuildCancelled: It was stopped.
    """
    data, contract = load_onnx(job.onnx_path)
    options = job.options
    shapes = fitting_shapes(contract, options.shapes)
    heads = fitting_heads(contract, options.heads)
    api = load_tensorrt(build=True)
    machine = local_machine(api)
    graph = keep_outputs(data, heads)
    lens = own_lens(contract)
    batches = _batches(job, shapes, graph, {} if lens is None else {LENS_NAME: lens})
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with _work_folder(job.output) as folder:
        job.watch.on_phase(
            f"building {options.precision} for {shapes} with TensorRT {api.version} on "
            f"{machine.gpu_name}; this takes minutes"
        )
        start = time.monotonic()
        cache = job.timing_cache or job.output.with_name("timing.cache")
        draft = folder / job.output.name
        build_plan(BuildJob(graph, shapes, options, batches, cache), draft, job.watch)
        seconds = time.monotonic() - start
        job.watch.on_phase("comparing it with the model")
        with open_backend(job.onnx_path, "onnxruntime") as reference:
            promised = _engine_contract(contract, reference, shapes, heads)
            manifest = EngineManifest(
                engine_sha256=file_sha256(draft),
                engine_bytes=draft.stat().st_size,
                onnx_file=job.onnx_path.name,
                onnx_sha256=file_sha256(job.onnx_path),
                contract=promised,
                precision=options.precision,
                shapes=shapes,
                machine=machine,
                version_compatible=options.version_compatible,
                options=options.recorded(),
                build_seconds=round(seconds, 1),
                built_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
            write_manifest(manifest_path(draft), manifest)
            report, memory_bytes, wrong = _verify(draft, reference, job)
        manifest = dataclasses.replace(
            manifest, parity=report.to_dict(), device_memory_bytes=memory_bytes
        )
        write_manifest(manifest_path(draft), manifest)
        if job.watch.cancel.is_set():
            raise BuildCancelled
        if wrong is not None:
            if job.keep_refused:
                target = refused_path(job.output)
                target.parent.mkdir(exist_ok=True)
                install_engine(draft, target)
            raise wrong
        install_engine(draft, job.output)
    return manifest


def refused_path(output: Path) -> Path:
    """Where an engine that was not put in place at ``output`` is kept."""
    return output.parent / "refused" / output.name


def install_engine(draft: Path, target: Path) -> None:
    """Move an engine and its manifest to ``target``, over what is there.

    Two files cannot change at once. A reader that comes between finds the new engine with the old
    manifest, whose digest does not fit, and refuses it: late at worst, never wrong.
    """
    draft.replace(target)
    manifest_path(draft).replace(manifest_path(target))


def local_machine(api: TensorRt) -> GpuMachine:
    """The GPU of this machine; DeviceError without one, ModelLoadError without pycuda."""
    try:
        from ddfd_ros.inference.cuda_session import CudaSession
        from ddfd_ros.inference.tensorrt_backend import machine_of
    except ImportError as error:
        raise no_pycuda(error) from error
    session = CudaSession()
    try:
        return machine_of(api, session)
    finally:
        session.close()


def _batches(
    job: EngineJob, shapes: ShapeRange, graph: bytes, beside: dict[str, np.ndarray]
) -> ImageBatches | None:
    options = job.options
    if options.precision not in ("int8", "best"):
        return None
    if options.calibration_images is None:
        if options.precision == "best":
            return None
        raise ContractError(
            "int8: expected --calibrate FOLDER with pictures of the camera, got none; without "
            "them no ranges are known"
        )
    return ImageBatches.from_folder(
        options.calibration_images,
        options.calibration_limit,
        shapes.optimum,
        job.output.with_name(job.onnx_path.stem),
        graph,
        beside,
    )


def _engine_contract(
    contract: ModelContract, reference: Backend, shapes: ShapeRange, heads: tuple[str, ...]
) -> ModelContract:
    """The model's contract with the engine's sizes and heads, and a golden sample of its size.

    The model's own sample may have a size the engine does not take, and padding it would change
    what the network sees.
    """
    height, width = shapes.optimum
    answer = reference.infer(golden_image(height, width, GOLDEN_SEED), heads)
    return dataclasses.replace(
        contract,
        input_height=height if shapes.is_fixed else None,
        input_width=width if shapes.is_fixed else None,
        outputs=heads,
        golden=make_golden(answer, height, width, seed=GOLDEN_SEED),
    )


def _verify(
    draft: Path, reference: Backend, job: EngineJob
) -> tuple[VerifyReport, int, ParityError | None]:
    """Open the draft as the node will and compare.

    Returns:
        The report, the draft's device memory in bytes, and why it is refused.
    """
    precision = job.options.precision
    tolerance = tolerance_of(precision, job.options.calibration_images is not None)
    wrong: ParityError | None = None
    with open_backend(draft, "tensorrt") as candidate:
        try:
            candidate.self_test()
        except ParityError as error:  # the report has the figures of all heads
            wrong = error
        report = verify(
            reference,
            candidate,
            _images(candidate, job),
            tolerance_scale=tolerance.scale,
            allowed=tolerance.allowed,
        )
        memory_bytes = int(getattr(candidate, "device_memory_bytes", 0))
    if wrong is None and not report.passed:
        bad = "; ".join(str(item) for item in report.heads if not item.passed)
        wrong = ParityError(
            f"engine: expected the model's answers within the tolerance of {precision}, got "
            f"{bad}; it was not put in place: choose another precision, or another TensorRT"
        )
    return report, memory_bytes, wrong


def _images(candidate: Backend, job: EngineJob) -> Iterator[NamedImage]:
    contract = candidate.contract
    if contract.golden is not None:
        yield "golden", contract.golden.image()
    paths = [path for item in job.images for path in find_images(item)][: job.image_limit]
    for name, image in load_images(paths):
        if candidate.takes(*image.shape[:2]):
            yield name, image


@contextlib.contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside ``output``, so that moving files out of it is one step.

    What builds left that were killed goes: an engine can be large, and robots are switched off at
    any time. A lock tells a running build, since clocks may jump and process numbers come again.
    """
    for left in output.parent.glob(f"{_WORK_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            if any(left.iterdir()):  # an empty one may be a build's that is about to lock it
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=output.parent))
    try:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is removed
                lock.enter_context(_locked(folder))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with this process; OSError where another holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
