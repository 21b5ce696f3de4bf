"""Stands in for ``pycuda.driver``: device memory is host memory, streams run when waited for.

It is as strict as the real one: work without a current context fails, a context belongs to a
thread, a stream does nothing before it is synchronised, freed memory is gone. Names that do not
exist in pycuda begin with an underscore. Settings, from the environment:

``STANDIN_GPU``: name and compute capability, such as ``Stand-in;8.7``.
``STANDIN_FAIL``: a path; while that file exists, kernels fail with what it contains.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from pathlib import Path

import numpy as np


class Error(Exception):
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):  # noqa: A001 - the name is pycuda's
    pass


class MemoryError(Error):  # noqa: A001
    pass


_stacks = threading.local()
_initialised = False
_live: dict[int, object] = {}
"""What is allocated and not freed: device and page-locked memory, by address."""
_allocations = itertools.count()
_streams: dict[int, Stream] = {}


def _current() -> Context:
    stack = getattr(_stacks, "items", [])
    if not stack:
        raise LogicError("cuMemAlloc failed: invalid device context")
    return stack[-1]


def init(flags: int = 0) -> None:
    del flags
    global _initialised
    if os.environ.get("STANDIN_GPU") == "none":
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")
    _initialised = True


def get_driver_version() -> int:
    return 12060


def mem_get_info() -> tuple[int, int]:
    _current()
    used = sum(item._size for item in _live.values())
    return (8 << 30) - used, 8 << 30


class Device:
    def __init__(self, index: int) -> None:
        if not _initialised:
            raise LogicError("cuDeviceGet failed: initialization error")
        self._index = index
        name, capability = os.environ.get("STANDIN_GPU", "Stand-in;8.7").split(";")
        self._name = name
        self._capability = tuple(int(part) for part in capability.split("."))

    def name(self) -> str:
        return self._name

    def compute_capability(self) -> tuple[int, int]:
        return self._capability

    def total_memory(self) -> int:
        return 8 << 30

    def retain_primary_context(self) -> Context:
        return Context(_SECRET)


_SECRET = object()


class Context:
    _retained = 0

    def __init__(self, secret: object) -> None:
        if secret is not _SECRET:
            raise TypeError("Context: no constructor")
        Context._retained += 1
        self._thread = threading.get_ident()
        self._valid = True

    def push(self) -> None:
        if threading.get_ident() != self._thread:
            raise LogicError("context used in another thread")
        if not hasattr(_stacks, "items"):
            _stacks.items = []
        _stacks.items.append(self)

    @staticmethod
    def pop() -> None:
        _current()
        _stacks.items.pop()

    def detach(self) -> None:
        if not self._valid:
            raise LogicError("context::detach failed: cannot detach from invalid context")
        self._valid = False
        Context._retained -= 1


class Stream:
    def __init__(self, flags: int = 0) -> None:
        del flags
        _current()
        self._queue = []
        self._capture = None
        self._handle = id(self)
        _streams[self._handle] = self

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        _current()
        if self._capture is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when capturing")
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def _enqueue(self, work) -> None:
        (self._queue if self._capture is None else self._capture).append(work)


def _kernel_check() -> None:
    """Fail as a kernel does that reads memory it must not."""
    path = Path(os.environ.get("STANDIN_FAIL", "/nonexistent"))
    if path.exists():
        raise LaunchError(path.read_text() or "cuStreamSynchronize failed: illegal memory access")


class _Memory:
    def __init__(self, size: int) -> None:
        next(_allocations)
        self._size = size
        self._array = np.zeros(size, np.uint8)
        self._address = self._array.ctypes.data
        _live[self._address] = self

    def free(self) -> None:
        if self._address not in _live:
            raise LogicError("cuMemFree failed: invalid argument")
        del _live[self._address]


class DeviceAllocation(_Memory):
    def __int__(self) -> int:
        return self._address

    def __index__(self) -> int:
        return self._address


class PagelockedHostAllocation(_Memory):
    pass


class _PageLocked(np.ndarray):
    """An array whose ``base`` is its allocation, as pycuda's."""

    @property
    def base(self):
        return self._allocation


def mem_alloc(size: int) -> DeviceAllocation:
    _current()
    limit = int(os.environ.get("STANDIN_MEMORY", 8 << 30))
    if sum(item._size for item in _live.values()) + size > limit:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(size)


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    del order, mem_flags
    _current()
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    allocation = PagelockedHostAllocation(count * dtype.itemsize)
    array = allocation._array.view(dtype).reshape(shape).view(_PageLocked)
    array._allocation = allocation
    return array


def _check_page_locked(array: np.ndarray) -> None:
    address = array.ctypes.data
    inside = any(
        start <= address and address + array.nbytes <= start + item._size
        for start, item in _live.items()
        if isinstance(item, PagelockedHostAllocation)
    )
    if not inside:
        raise LogicError("stand-in: an asynchronous copy needs page-locked memory")


def memcpy_htod_async(dest, src, stream=None) -> None:
    _check_page_locked(src)
    target = int(dest)
    if target not in _live:
        raise LogicError("cuMemcpyHtoDAsync failed: invalid argument")
    stream._enqueue(lambda: ctypes.memmove(target, src.ctypes.data, src.nbytes))


def memcpy_dtoh_async(dest, src, stream=None) -> None:
    _check_page_locked(dest)
    source = int(src)
    if source not in _live:
        raise LogicError("cuMemcpyDtoHAsync failed: invalid argument")
    stream._enqueue(lambda: ctypes.memmove(dest.ctypes.data, source, dest.nbytes))


class _Driver:
    """The six functions of ``libcuda`` that capture and launch graphs."""

    def __init__(self) -> None:
        self.graphs = {}
        self.numbers = itertools.count(1)
        self.launches = 0

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert mode in (0, 1, 2)
        if os.environ.get("STANDIN_NO_GRAPH"):
            return 900
        _streams[stream.value]._capture = []
        return 0

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        item = _streams[stream.value]
        number = next(self.numbers)
        self.graphs[number], item._capture = item._capture, None
        graph._obj.value = number
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):  # noqa: N802
        assert flags == 0
        number = next(self.numbers)
        self.graphs[number] = list(self.graphs[graph.value])
        executable._obj.value = number
        return 0

    def cuGraphLaunch(self, executable, stream):  # noqa: N802
        self.launches += 1
        for work in self.graphs[executable.value]:
            _streams[stream.value]._enqueue(work)
        return 0

    def cuGraphExecDestroy(self, executable):  # noqa: N802
        del self.graphs[executable.value]
        return 0

    def cuGraphDestroy(self, graph):  # noqa: N802
        del self.graphs[graph.value]
        return 0


_driver = _Driver()


def _install_graphs() -> None:
    from ddfd_ros.inference import cuda_graph

    cuda_graph.load_driver = lambda: _driver


_install_graphs()
