"""One deserialised engine with its memory: an image in, its heads out, without allocating."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.inference.array_pool import ArrayPool
from ddfd_ros.inference.base import HEAD_DTYPES, DeviceError
from ddfd_ros.inference.cuda_graph import CudaGraph, CudaGraphError
from ddfd_ros.inference.engine_manifest import EngineManifest
from ddfd_ros.inference.graph import INPUT_NAME, Port, check_graph
from ddfd_ros.inference.lens_input import LENS_NAME
from ddfd_ros.inference.tensorrt_api import MessageLog, TensorRt, shape_of

if TYPE_CHECKING:
    from ddfd_ros.inference.cuda_session import CudaSession

_INPUT_DTYPES: dict[str, type[np.generic]] = {INPUT_NAME: np.uint8, LENS_NAME: np.float32}


class LoadedEngine:
    """An engine, its execution context, and page-locked and device memory for its largest size.

    Everything belongs to the thread of ``session``. The first image of a size and selection of
    heads runs kernel by kernel and is captured into a CUDA graph afterwards; later ones launch it.

    Args:
        api: The TensorRT to run it with.
        session: The device.
        data: The engine's bytes, verified against ``manifest`` before.
        manifest: The engine's manifest.
        use_graph: Whether to capture CUDA graphs.

    Raises:
        ModelLoadError: TensorRT refuses the bytes for another reason than the GPU's state.
        ContractError: The engine's tensors are not those of its contract.
        DeviceError: The GPU has too little memory, failed, or is not usable with its driver.
    """

    def __init__(
        self,
        api: TensorRt,
        session: CudaSession,
        data: bytes,
        manifest: EngineManifest,
        use_graph: bool = True,
    ) -> None:
        self.manifest = manifest
        self.graph_problem = "" if use_graph else "switched off"
        self.device_memory_bytes = 0
        self._api, self._session = api, session
        self._log = MessageLog()
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._batched = False
        self._beside: tuple[str, ...] = ()
        self._graphs: dict[tuple[str, ...], CudaGraph] = {}
        self._shape: tuple[int, ...] = ()
        self._views: dict[str, np.ndarray] = {}
        self._answers: dict[str, ArrayPool] = {}
        self._device: dict[str, Any] = {}
        self._host: dict[str, np.ndarray] = {}
        try:
            self._load(data)
            self._allocate()
        except BaseException:
            self.close()  # now: the traceback would keep all of it until the context is gone
            raise

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads the engine computes."""
        return self.manifest.contract.outputs

    def run(
        self, image: np.ndarray, heads: tuple[str, ...], beside: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Answer one contiguous uint8 ``[H, W, 3]`` image of a size within the manifest's range.

        Args:
            image: The image.
            heads: Heads wanted, a selection of the engine's.
            beside: What the engine takes besides, such as ``lens``; read anew for every image.

        Returns:
            Per head an array that is not written to again while anyone holds it or a view of it.

        Raises:
            DeviceError: TensorRT or CUDA failed.
        """
        self._session.check_thread()
        if image.shape != self._shape:
            self._set_shape(image.shape)
        np.copyto(self._views[INPUT_NAME], image)
        for name in self._beside:
            np.copyto(self._views[name], beside[name])
        graph = self._graphs.get(heads)
        if graph is None:
            self._enqueue(heads)
            self._session.synchronize()
            self._capture(heads)
        else:
            try:
                graph.launch(self._session.stream.handle)
            except CudaGraphError as error:
                raise DeviceError(f"CUDA graph: {error}; the GPU failed: open again") from error
            self._session.synchronize()
        return {name: self._answer(name) for name in heads}

    def close(self) -> None:
        """Free graphs, context, engine and memory, in this order, once the GPU is done with them.

        Work may still run where a frame was broken off, as by Ctrl-C. What becomes of it when its
        memory is freed is undefined (NvInferRuntime.h, ``enqueueV3``).
        """
        self._session.settle()
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        self._views.clear()
        self._answers.clear()
        self._context = self._engine = self._runtime = None
        buffers = [*self._host.values(), *self._device.values()]
        self._host, self._device = {}, {}
        self._session.release(buffers)

    def _load(self, data: bytes) -> None:
        """Deserialise the engine, compare it with its contract, make its execution context.

        No local names for TensorRT's objects: ``close`` must be able to free them.
        """
        api, manifest = self._api, self.manifest
        self._runtime = api.start(api.module.Runtime, api.make_logger(self._log), self._log)
        self._engine = api.deserialize(self._runtime, data, manifest.version_compatible)
        if self._engine is None and self._log.blames_the_gpu:
            raise DeviceError(
                f"TensorRT {api.version}: expected room for an engine of {len(data) / 1e6:.0f} MB "
                f"on a working GPU, got: {self._log}; free GPU memory, and see dmesg"
            )
        if self._engine is None:
            raise ModelLoadError(
                f"TensorRT {api.version}: expected an engine it can load, got: {self._log}; build "
                "it again with ddfd-engine on this machine"
            )
        inputs, outputs = self._ports()
        self._batched = check_graph(manifest.contract, inputs, outputs)
        self._beside = tuple(port.name for port in inputs if port.name != INPUT_NAME)
        self.device_memory_bytes = api.device_memory_bytes(self._engine)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(
                f"TensorRT: expected {self.device_memory_bytes / 1e6:.0f} MB for an execution "
                f"context, got: {self._log}; free GPU memory or build for a smaller size"
            )

    def _ports(self) -> tuple[list[Port], list[Port]]:
        modes = self._api.module.TensorIOMode
        ports: dict[bool, list[Port]] = {True: [], False: []}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape: tuple[int | None, ...] = tuple(
                None if side < 0 else side
                for side in shape_of(self._engine.get_tensor_shape(name))
            )
            if name == INPUT_NAME:
                shape = self._open_sides(shape)
            dtype = self._api.dtype_name(self._engine.get_tensor_dtype(name))
            port = Port(name, dtype, shape)
            ports[self._engine.get_tensor_mode(name) == modes.INPUT].append(port)
        return ports[True], ports[False]

    def _open_sides(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The image's shape with the sides open that the contract leaves open.

        A side with one size only in a range of sizes is none that changes to TensorRT
        (NvInferRuntime.h, ``getBindingDimensions``); the contract of such an engine fixes neither.
        """
        shapes = self.manifest.shapes
        if shapes.is_fixed or len(shape) < 3:
            return shape
        sides = tuple(
            None if side == low == high else side
            for side, low, high in zip(shape[-3:-1], shapes.minimum, shapes.maximum, strict=True)
        )
        return (*shape[:-3], *sides, shape[-1])

    def _allocate(self) -> None:
        """Memory for the largest size; addresses stay the same from here on."""
        height, width = self.manifest.shapes.maximum
        for name in (INPUT_NAME, *self._beside, *self.heads):
            size_bytes = int(np.prod(_plane(name, height, width))) * _dtype(name).itemsize
            self._device[name] = self._session.device_memory(size_bytes)
            self._host[name] = self._session.page_locked(size_bytes)
            if not self._context.set_tensor_address(name, int(self._device[name])):
                raise DeviceError(f"TensorRT refused the address of {name}: {self._log}")

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        """Prepare for images of another size; graphs of the last one do not hold for it."""
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        self._shape = ()
        wanted = (1, *shape) if self._batched else shape
        if not self._context.set_input_shape(INPUT_NAME, wanted):
            raise DeviceError(
                f"TensorRT: expected a size within {self.manifest.shapes}, got {shape[1]}x"
                f"{shape[0]}: {self._log}; build the engine for this size"
            )
        for name in (INPUT_NAME, *self._beside, *self.heads):
            plane = _plane(name, *shape[:2])
            size_bytes = int(np.prod(plane)) * _dtype(name).itemsize
            self._views[name] = self._host[name][:size_bytes].view(_dtype(name)).reshape(plane)
        self._answers = {
            name: ArrayPool(_plane(name, *shape[:2]), _dtype(name)) for name in self.heads
        }
        self._shape = shape

    def _answer(self, name: str) -> np.ndarray:
        array = self._answers[name].take()
        np.copyto(array, self._views[name])
        return array

    def _enqueue(self, heads: tuple[str, ...]) -> None:
        session, views = self._session, self._views
        for name in (INPUT_NAME, *self._beside):
            session.to_device(self._device[name], views[name])
        if not self._context.execute_async_v3(session.stream.handle):
            raise DeviceError(
                f"TensorRT: expected the engine to run, got: {self._log}; build it again"
            )
        for name in heads:
            session.to_host(views[name], self._device[name])

    def _capture(self, heads: tuple[str, ...]) -> None:
        if self.graph_problem:
            return
        from ddfd_ros.inference.cuda_session import CudaError  # here: builders have no pycuda

        try:
            handle = self._session.stream.handle
            self._graphs[heads] = CudaGraph(handle, lambda: self._enqueue(heads))
        except (CudaGraphError, DeviceError, CudaError) as error:
            self.graph_problem = str(error)  # runs kernel by kernel: slower, but the same


def _plane(name: str, height: int, width: int) -> tuple[int, ...]:
    if name == LENS_NAME:
        return (2,)
    return (height, width, 3) if name in (INPUT_NAME, "sharp_rgb") else (height, width)


def _dtype(name: str) -> np.dtype:
    return np.dtype(_INPUT_DTYPES.get(name) or HEAD_DTYPES[name])
