"""One thread's share of a GPU: the primary context, one stream, and memory for copies."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycuda.driver as cuda

from ddfd_ros.core.errors import InferenceError
from ddfd_ros.inference import cuda_graph
from ddfd_ros.inference.base import DeviceError, one_line

CudaError = cuda.Error
"""Base of what pycuda raises."""


class _Here(threading.local):
    """The primary context in one thread, shared by the thread's sessions."""

    users = 0
    device: Any = None
    context: Any = None


_here = _Here()


class CudaSession:
    """The device's primary context, current in the thread that makes this, and a stream.

    The primary context is the one that TensorRT and torch use too; it is retained, not made, so
    that none of them pulls it away from another. ``pycuda.autoinit`` would make one of its own.

    Raises:
        DeviceError: There is no usable GPU.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._buffers: list[Any] = []
        self._closed = False
        try:
            _enter()
            try:
                self._device = _here.device
                self.stream = cuda.Stream()
            except BaseException:
                _leave()
                raise
        except CudaError as error:
            raise DeviceError(
                f"CUDA: expected a usable GPU, got {one_line(error)}; check nvidia-smi (on a "
                "Jetson: tegrastats) and that the container passes the GPU on"
            ) from error

    @property
    def gpu_name(self) -> str:
        """The device's name."""
        return str(self._device.name())

    @property
    def compute_capability(self) -> str:
        """Such as ``8.7``."""
        return "{}.{}".format(*self._device.compute_capability())

    @property
    def memory_gb(self) -> int:
        """The device's memory in gigabytes, rounded up to a multiple of 4."""
        return 4 * math.ceil(self._device.total_memory() / (4 << 30))

    @property
    def driver(self) -> str:
        """CUDA version the driver supports, such as ``12.6``."""
        number = int(cuda.get_driver_version())
        return f"{number // 1000}.{number % 1000 // 10}"

    def check_thread(self) -> None:
        """InferenceError in any thread but the one that made the session."""
        if threading.get_ident() != self._thread:
            raise InferenceError(
                "CUDA: expected the thread that opened the model, got another; a GPU backend "
                "belongs to one thread (see core.worker)"
            )

    def device_memory(self, size_bytes: int) -> Any:
        """Device memory, freed with the session; ``int(...)`` of it is its address."""
        memory = cuda.mem_alloc(max(1, size_bytes))
        self._buffers.append(memory)
        return memory

    def page_locked(self, size_bytes: int) -> np.ndarray:
        """Host memory of uint8 that the GPU copies from and to without the CPU's help."""
        array: np.ndarray = cuda.pagelocked_empty(max(1, size_bytes), np.uint8)
        self._buffers.append(array.base)
        return array

    def to_device(self, target: Any, source: np.ndarray) -> None:
        """Enqueue a copy to the device; ``source`` is page-locked and stays as it is till then."""
        cuda.memcpy_htod_async(target, source, self.stream)

    def to_host(self, target: np.ndarray, source: Any) -> None:
        """Enqueue a copy from the device to page-locked memory."""
        cuda.memcpy_dtoh_async(target, source, self.stream)

    def synchronize(self) -> None:
        """Wait until everything enqueued is done."""
        self.stream.synchronize()

    def settle(self) -> None:
        """Wait likewise, whatever becomes of it: before memory that a stream may use is freed."""
        if self.stream is not None:
            with contextlib.suppress(CudaError):
                self.synchronize()

    def free_memory_bytes(self) -> tuple[int, int]:
        """Free and total memory of the device, of all processes together."""
        free, total = cuda.mem_get_info()
        return int(free), int(total)

    def release(self, buffers: Sequence[Any]) -> None:
        """Free some buffers before the session ends; like ``close``, it tries all of them."""
        for item in buffers:
            kept: Any = item.base if isinstance(item, np.ndarray) else item
            self._buffers = [other for other in self._buffers if other is not kept]
            with contextlib.suppress(CudaError):
                kept.free()

    def close(self) -> None:
        """Free the buffers, leave the context and give it back; twice does no harm.

        After a failed kernel freeing fails too: each step is tried whatever became of the last.
        """
        if self._closed:
            return
        self.check_thread()
        self._closed = True
        steps = [item.free for item in self._buffers]
        self._buffers = []
        self.stream = None
        for step in (*steps, _leave):
            with contextlib.suppress(CudaError):
                step()


def _enter() -> None:
    """Make the primary context current in this thread, once for all its sessions.

    Once, because pycuda's ``pop`` takes what lies on top, be it another session's.
    """
    if not _here.users:
        cuda.init()
        device = cuda.Device(0)
        context = device.retain_primary_context()
        context.push()
        _here.device, _here.context = device, context
    _here.users += 1


def _leave() -> None:
    """Give the context back after this thread's last session.

    pycuda aborts the process when a thread ends with a context on its stack. After a failure that
    breaks the context for good, the next session begins with a new one, unless someone else in the
    process holds the old one.
    """
    _here.users -= 1
    if _here.users:
        return
    context, _here.device, _here.context = _here.context, None, None
    # First, for the driver may answer with error 709 about a context that has been given back. Not
    # by pycuda's pop: detach would push the context again.
    with contextlib.suppress(cuda_graph.CudaGraphError):  # no driver library: nothing to do
        cuda_graph.drop_current_context(context.handle)
    context.detach()
