"""TensorRT engines on an NVIDIA GPU, driven through pycuda; torch is not needed."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import ContractError, DdfdError, InferenceError, ModelLoadError
from ddfd_ros.core.metadata import golden_mismatch
from ddfd_ros.core.preprocessing import padded_side
from ddfd_ros.inference.base import (
    Backend,
    BackendOptions,
    DeviceError,
    ParityError,
    one_line,
)
from ddfd_ros.inference.cuda_session import CudaError, CudaSession
from ddfd_ros.inference.engine_manifest import (
    EngineManifest,
    GpuMachine,
    manifest_path,
    read_manifest,
)
from ddfd_ros.inference.precision import tolerance_of
from ddfd_ros.inference.tensorrt_api import TensorRt, load_tensorrt
from ddfd_ros.inference.tensorrt_engine import LoadedEngine

_ENGINE_SUFFIXES = (".engine", ".plan")


class TensorrtBackend(Backend):
    """An engine and, where they lie beside it, engines of the same model with fewer heads.

    An engine computes all its heads whatever is asked for. ``ddfd-engine --heads`` builds smaller
    ones; a request goes to the smallest engine that has all its heads.

    Everything happens in the thread that opened it, in the device's primary context.
    """

    runtime = "tensorrt"

    def __init__(
        self, api: TensorRt, session: CudaSession, engines: list[LoadedEngine], name: str
    ) -> None:
        whole = max(engines, key=lambda engine: len(engine.heads))
        manifest = whole.manifest
        parts = len(engines) - 1
        super().__init__(
            manifest.contract,
            f"TensorRT {api.version}, {name}, {manifest.precision}, {manifest.shapes}"
            + (f", {parts} smaller for fewer heads" if parts else ""),
        )
        self.tolerance_scale = tolerance_of(manifest.precision, manifest.calibrated).scale
        self.manifest = manifest
        self._session = session
        self._engines = sorted(engines, key=lambda engine: len(engine.heads))
        # Also when it is forgotten: pycuda aborts a process that ends with a context on its stack.
        self._free = weakref.finalize(self, _abandon, self._engines, session)

    @classmethod
    def from_file(cls, path: Path, options: BackendOptions) -> TensorrtBackend:
        """Load an ``.engine`` file that was built for this machine, by its manifest.

        Raises:
            ModelLoadError: Missing, damaged or foreign engine, or TensorRT is not installed.
            ContractError: The manifest is malformed, or the engine's tensors do not fit it.
            DeviceError: There is no GPU, or too little memory on it.
        """
        del options  # an engine's precision and device were chosen when it was built
        manifest = read_manifest(path)
        api = load_tensorrt()
        session = CudaSession()
        engines: list[LoadedEngine] = []
        try:
            machine = machine_of(api, session)
            if mismatches := manifest.mismatches(machine):
                raise ModelLoadError(
                    f"{path}: expected an engine for this machine, got one that was "
                    f"{'; '.join(mismatches)}; build it here with ddfd-engine"
                )
            engines.append(LoadedEngine(api, session, path.read_bytes(), manifest))
            for file, record in _smaller_engines(path, manifest, machine):
                # Where its memory is not to be had, too, the whole engine answers.
                with contextlib.suppress(DdfdError, CudaError, OSError):
                    engines.append(LoadedEngine(api, session, file.read_bytes(), record))
            return cls(api, session, engines, session.gpu_name)
        except BaseException as error:
            _close(engines, session)
            if isinstance(error, CudaError):
                raise _device_error(error) from error
            raise

    @property
    def graph_problem(self) -> str:
        """Why CUDA graphs are not used; empty when they are."""
        return self._engines[-1].graph_problem

    @property
    def device_memory_bytes(self) -> int:
        """Activation memory of all execution contexts."""
        return sum(engine.device_memory_bytes for engine in self._engines)

    def free_memory_bytes(self) -> tuple[int, int]:
        """Free and total memory of the GPU, of all processes together."""
        return self._session.free_memory_bytes()

    def takes(self, height: int, width: int) -> bool:
        """Whether an image of this size fits the engine, after padding."""
        try:
            self._graph_size(height, width)
        except ContractError:
            return False
        return True

    def self_test(self) -> dict[str, Any]:
        """The golden sample through every engine; see ``Backend.self_test``."""
        report = super().self_test()
        golden = self.contract.golden
        if golden is None:
            return report
        for engine in self._engines[:-1]:
            answer = self._golden_answer(engine.heads)
            mismatch = golden_mismatch(golden, answer, self.tolerance_scale)
            if bad := {head: value for head, value in mismatch.items() if value > 1.0}:
                raise ParityError(
                    f"engine for {', '.join(engine.heads)}: expected the golden answers within "
                    f"their tolerance, got {bad} times it; build it again"
                )
        return report

    def _graph_size(self, height: int, width: int) -> tuple[int, int]:
        if self.manifest.shapes.is_fixed:
            return super()._graph_size(height, width)
        multiple, shapes = self.contract.size_multiple, self.manifest.shapes
        sides = tuple(
            max(low, padded_side(side, multiple))
            for side, low in zip((height, width), shapes.minimum, strict=True)
        )
        if not shapes.contains(*sides):
            raise ContractError(
                f"image: expected a size that fits the engine's range {shapes}, got {width}x"
                f"{height}; scale the image or build an engine for it"
            )
        return sides[0], sides[1]

    def _infer(self, image: np.ndarray, heads: tuple[str, ...]) -> dict[str, np.ndarray]:
        engine = next(item for item in self._engines if set(item.heads) >= set(heads))
        try:
            return engine.run(image, heads, self._beside())
        except CudaError as error:
            raise _device_error(error) from error

    def close(self) -> None:
        """Release the model; calling it twice does no harm.

        Raises:
            InferenceError: Called in another thread than the one that opened it, where nothing
                can be freed. It stays open.
        """
        if not self._closed:
            self._session.check_thread()
        super().close()

    def _close(self) -> None:
        self._free()


def machine_of(api: TensorRt, session: CudaSession) -> GpuMachine:
    """What the manifest of an engine is compared with."""
    return GpuMachine(
        gpu_name=session.gpu_name,
        compute_capability=session.compute_capability,
        driver=session.driver,
        tensorrt_version=api.version,
        can_build=api.can_build,
        memory_gb=session.memory_gb,
    )


def _device_error(error: Exception) -> DeviceError:
    """What CUDA said, and what it means for the user."""
    text = one_line(error)
    if "memory" in text.lower() and "illegal" not in text.lower():
        remedy = "free GPU memory, or build for a smaller size or with fewer heads"
    else:
        remedy = "the GPU or its driver failed: see dmesg; the model has to be opened again"
    return DeviceError(f"CUDA: expected the GPU to answer, got {text}; {remedy}")


def _smaller_engines(
    path: Path, whole: EngineManifest, machine: GpuMachine
) -> Iterable[tuple[Path, EngineManifest]]:
    """Engines beside ``path`` of the same model, sizes and precision, with some of its heads.

    One that is damaged, foreign or unreadable is passed over: the whole engine answers in its
    place.
    """
    for other in sorted(path.parent.iterdir()):
        if other == path or other.suffix not in _ENGINE_SUFFIXES:
            continue
        if not manifest_path(other).is_file():
            continue
        try:
            part = read_manifest(other, verify=False)
            same = dataclasses.replace(part, contract=whole.contract)
            fits = set(part.contract.outputs) < set(whole.contract.outputs)
            fits &= part.contract.weights_sha256 == whole.contract.weights_sha256
            if not fits or part.mismatches(machine, whole.onnx_sha256):
                continue
            if (same.shapes, same.precision) == (whole.shapes, whole.precision):
                yield other, read_manifest(other)
        except (DdfdError, OSError):
            continue


def _abandon(engines: list[LoadedEngine], session: CudaSession) -> None:
    """Free everything, if this is the thread it belongs to."""
    with contextlib.suppress(InferenceError):
        session.check_thread()
        _close(engines, session)


def _close(engines: list[LoadedEngine], session: CudaSession) -> None:
    """Free everything, also after a failure that makes freeing fail."""
    for engine in engines:
        try:
            engine.close()
        except (CudaError, InferenceError):
            continue
    session.close()
