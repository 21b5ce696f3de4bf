"""Stands in for ``pycuda.driver``: device memory is host memory, streams run when waited for.

It is as strict as the real one: work without a current context fails, a stream does nothing
before it is synchronised, freed memory is gone, and must not be in use by a stream any more.
Contexts behave as in pycuda's ``cuda.hpp``: there is a stack in pycuda and one in the driver,
``detach`` leaves a primary context on the latter, and a thread that ends with a context on the
former ends the process. Names that do not exist in pycuda begin with an underscore. Settings,
from the environment:

``STANDIN_GPU``: name and compute capability, such as ``Stand-in;8.7``.
``STANDIN_FAIL``: a path; while that file exists, kernels fail with what it contains, and from then
on everything does until nobody retains the context.
``STANDIN_NO_STREAM``: streams cannot be made. ``STANDIN_NO_GRAPH``: nothing can be captured.
``STANDIN_NO_CAPTURE``: the network does what a capture forbids.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
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


_faults: list[str] = []
"""What would have ended the process; only under pytest, whose tests look at it."""


_TESTED = "pytest" in sys.modules


def _fault(
    text: str,
    faults: list[str] | None = _faults if _TESTED else None,
    write=os.write,
    end=os.abort,
) -> None:
    """End the process; all it needs is held, for at the interpreter's end globals are gone."""
    if faults is not None:
        faults.append(text)
        return
    write(2, f"stand-in: {text}\n".encode())
    end()


class _Stack(list):
    """pycuda's stack of a thread, freed when the thread ends, that of the first at the exit."""

    def __del__(self, fault=_fault) -> None:
        if self:
            fault("the context stack was not empty when its thread ended")


class _Stacks(threading.local):
    def __init__(self) -> None:
        self.pycuda, self.driver = _Stack(), []


class _Primary:
    """The primary context in the driver."""

    handle = 0x600D
    retained = 0
    broken = ""

    def release(self) -> None:
        self.retained -= 1
        if not self.retained:
            self.broken = ""


_stacks = _Stacks()
_primary = _Primary()
_initialised = False
_live: dict[int, object] = {}
"""What is allocated and not freed: device and page-locked memory, by address."""
_allocations = itertools.count()
_streams: dict[int, Stream] = {}


def _driver_call(name: str) -> None:
    """What every function of the driver does that needs a context."""
    if not _stacks.driver:
        raise LogicError(f"{name} failed: invalid device context")
    if not _primary.retained:
        raise LogicError(f"{name} failed: context is destroyed")
    if _primary.broken:
        raise LogicError(f"{name} failed: {_primary.broken}")


def _check_idle(what: str) -> None:
    """Nothing that streams have still to do may lose its memory; a broken context does no more."""
    if not _primary.broken and any(stream._queue for stream in _streams.values()):
        _fault(f"{what} was freed while a stream had work to do")


def _current() -> Context:
    """The context that whatever is made now will belong to (``explicit_context_dependent``)."""
    context = Context.get_current()
    if context is None:
        raise LogicError("explicit_context_dependent failed: no currently active context?")
    return context


def init(flags: int = 0) -> None:
    del flags
    global _initialised
    if os.environ.get("STANDIN_GPU") == "none":
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")
    _initialised = True


def get_driver_version() -> int:
    return 12060


def mem_get_info() -> tuple[int, int]:
    _driver_call("cuMemGetInfo")
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
    def __init__(self, secret: object) -> None:
        if secret is not _SECRET:
            raise TypeError("Context: no constructor")
        _primary.retained += 1
        self._thread = threading.get_ident()
        self._valid = True

    def __del__(self) -> None:
        if getattr(self, "_valid", False):
            self.detach()

    @property
    def handle(self) -> int:
        return _primary.handle

    @staticmethod
    def get_current() -> Context | None:
        while _stacks.pycuda and not _stacks.pycuda[-1]._valid:
            _stacks.pycuda.pop()
        return _stacks.pycuda[-1] if _stacks.pycuda else None

    def push(self) -> None:
        if _stacks.pycuda:
            _stacks.driver.pop()
        _stacks.driver.append(_primary.handle)
        _stacks.pycuda.append(self)

    @staticmethod
    def pop() -> None:
        if _stacks.pycuda:
            _stacks.driver.pop()
        if Context.get_current() is None:
            raise LogicError("context::pop failed: cannot pop non-current context")
        _stacks.pycuda.pop()
        if Context.get_current() is not None:
            _stacks.driver.append(_primary.handle)

    def detach(self) -> None:
        if not self._valid:
            raise LogicError("context::detach failed: cannot detach from invalid context")
        active = Context.get_current() is self
        if active or self._thread == threading.get_ident():
            if not active:
                _stacks.driver.append(_primary.handle)
            _primary.release()
        self._valid = False
        if active and Context.get_current() is not None:
            _stacks.driver.append(_primary.handle)

    def _reached(self) -> bool:
        """Whether what belongs to the context can be freed here; pycuda is silent otherwise."""
        return self._valid and self._thread == threading.get_ident()


class Stream:
    def __init__(self, flags: int = 0) -> None:
        del flags
        _current()
        _driver_call("cuStreamCreate")
        if os.environ.get("STANDIN_NO_STREAM"):
            raise MemoryError("cuStreamCreate failed: out of memory")
        self._queue = []
        self._capture = None
        self._capture_broken = False
        self._handle = id(self)
        _streams[self._handle] = self

    @property
    def handle(self) -> int:
        return self._handle

    def synchronize(self) -> None:
        if _primary.broken:
            self._queue = []
        _driver_call("cuStreamSynchronize")
        if self._capture is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when capturing")
        failure = self._run()
        if failure is not None:
            raise failure

    def _run(self) -> Error | None:
        """Do what is queued; the error without its frames, which the real one has not either."""
        queue, self._queue = self._queue, []
        try:
            for work in queue:
                work()
        except Error as error:
            return error.with_traceback(None)
        return None

    def _enqueue(self, work) -> None:
        if self._capture_broken:
            raise LogicError(
                "cuMemcpyAsync failed: operation failed due to a previous error during capture"
            )
        (self._queue if self._capture is None else self._capture).append(work)


def _kernel_check() -> None:
    """Fail as a kernel does that reads memory it must not: the context is lost with it."""
    path = Path(os.environ.get("STANDIN_FAIL", "/nonexistent"))
    if path.exists():
        _primary.broken = path.read_text() or "an illegal memory access was encountered"
        _driver_call("cuStreamSynchronize")


class _Memory:
    def __init__(self, size: int) -> None:
        self._context = _current()
        next(_allocations)
        self._size = size
        room = np.zeros(size + 255, np.uint8)
        start = -room.ctypes.data % 256  # as cuMemAlloc aligns it, and TensorRT demands
        self._array = room[start : start + size]
        self._address = self._array.ctypes.data
        _live[self._address] = self

    def free(self) -> None:
        if self._context is None:
            raise LogicError("device_allocation::free failed: invalid resource handle")
        _check_idle(type(self).__name__)
        if self._context._reached():
            del _live[self._address]
        self._context = None


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
    _driver_call("cuMemAlloc")
    limit = int(os.environ.get("STANDIN_MEMORY", 8 << 30))
    if sum(item._size for item in _live.values()) + size > limit:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(size)


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    del order, mem_flags
    _driver_call("cuMemHostAlloc")
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
    _driver_call("cuMemcpyHtoDAsync")
    _check_page_locked(src)
    target = int(dest)
    if target not in _live:
        raise LogicError("cuMemcpyHtoDAsync failed: invalid argument")
    stream._enqueue(lambda: ctypes.memmove(target, src.ctypes.data, src.nbytes))


def memcpy_dtoh_async(dest, src, stream=None) -> None:
    _driver_call("cuMemcpyDtoHAsync")
    _check_page_locked(dest)
    source = int(src)
    if source not in _live:
        raise LogicError("cuMemcpyDtoHAsync failed: invalid argument")
    stream._enqueue(lambda: ctypes.memmove(dest.ctypes.data, source, dest.nbytes))


class _Driver:
    """The functions of ``libcuda`` that graphs and a tidy context stack need."""

    def __init__(self) -> None:
        self.graphs = {}
        self.numbers = itertools.count(1)
        self.launches = 0

    def _refusal(self) -> int:
        """The code with which everything is answered without a context that works."""
        if not _stacks.driver:
            return 201
        return 709 if not _primary.retained else 700 if _primary.broken else 0

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert mode in (0, 1, 2)
        if code := self._refusal():
            return code
        if os.environ.get("STANDIN_NO_GRAPH"):
            return 900
        _streams[stream.value]._capture = []
        return 0

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        item = _streams[stream.value]
        if item._capture_broken:
            item._capture, item._capture_broken = None, False
            return 901
        number = next(self.numbers)
        self.graphs[number], item._capture = item._capture, None
        graph._obj.value = number
        return 0

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):  # noqa: N802
        assert flags == 0
        if code := self._refusal():
            return code
        number = next(self.numbers)
        self.graphs[number] = list(self.graphs[graph.value])
        executable._obj.value = number
        return 0

    def cuGraphLaunch(self, executable, stream):  # noqa: N802
        if code := self._refusal():
            return code
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

    def cuCtxGetCurrent(self, context):  # noqa: N802
        if _stacks.driver and not _primary.retained:
            return 709  # cuda.h: what is current is a primary context that is not initialised
        context._obj.value = _stacks.driver[-1] if _stacks.driver else None
        return 0

    def cuCtxPopCurrent_v2(self, context):  # noqa: N802
        if not _stacks.driver:
            return 201
        context._obj.value = _stacks.driver.pop()
        return 0


_driver = _Driver()


def _install_graphs() -> None:
    from ddfd_ros.inference import cuda_graph

    cuda_graph.load_driver = lambda: _driver


_install_graphs()
