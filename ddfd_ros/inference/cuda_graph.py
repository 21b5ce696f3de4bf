"""What pycuda lacks, over the driver's C interface: CUDA graphs, and an orderly context stack.

A frame on the GPU is three copies and some fifty kernels. Launched one by one, each costs the CPU
microseconds; captured once into a graph, a frame is one launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

LIBRARY = "libcuda.so.1"
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on
_HANDLE = ctypes.c_void_p

FUNCTIONS: dict[str, tuple[object, ...]] = {
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, ctypes.POINTER(_HANDLE)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_HANDLE), _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
    "cuCtxGetCurrent": (ctypes.POINTER(_HANDLE),),
    "cuCtxPopCurrent_v2": (ctypes.POINTER(_HANDLE),),
}
"""The driver's functions (CUDA 11.4 and later) and the types of their arguments."""


class CudaGraphError(Exception):
    """The driver refused to capture or launch a graph."""


def load_driver() -> ctypes.CDLL:
    """The CUDA driver, with argument types set; CudaGraphError where it lacks graphs."""
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, kinds in FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = kinds, ctypes.c_int
    except (OSError, AttributeError) as error:
        raise CudaGraphError(f"{LIBRARY}: {error}") from error
    return library


def drop_current_context(handle: int) -> None:
    """Take a context off the calling thread's stack in the driver, if it lies on top there.

    For a primary context pycuda's ``detach`` leaves that out: it counts on the release of a
    context to do it, which holds for contexts of one's own only. Call it before that release.
    """
    driver, current = load_driver(), _HANDLE()
    driver.cuCtxGetCurrent(ctypes.byref(current))
    if current.value == handle:
        driver.cuCtxPopCurrent_v2(ctypes.byref(current))


class CudaGraph:
    """Work captured from a stream, to be launched again and again.

    Args:
        stream_handle: The stream's address. Work on it goes into the graph, nothing runs yet.
        work: Enqueues the work; it must not synchronise.

    Raises:
        CudaGraphError: The driver has no graphs, or the work cannot be captured. The stream is
            usable again afterwards, also when ``work`` itself raises.
    """

    def __init__(self, stream_handle: int, work: Callable[[], None]) -> None:
        self._driver = load_driver()
        self._executable = _HANDLE()
        graph = _HANDLE()
        self._call("cuStreamBeginCapture_v2", _HANDLE(stream_handle), _CAPTURE_THREAD_LOCAL)
        try:
            try:
                work()
            finally:  # a capture left open would make the stream useless
                code = self._driver.cuStreamEndCapture(_HANDLE(stream_handle), ctypes.byref(graph))
            if code or not graph.value:
                raise CudaGraphError(f"cuStreamEndCapture: CUDA error {code}")
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, 0)
        finally:
            if graph.value:
                self._driver.cuGraphDestroy(graph)

    def launch(self, stream_handle: int) -> None:
        """Enqueue the whole work."""
        self._call("cuGraphLaunch", self._executable, _HANDLE(stream_handle))

    def close(self) -> None:
        """Free the graph; twice does no harm."""
        if self._executable.value:
            executable, self._executable = self._executable, _HANDLE()
            self._driver.cuGraphExecDestroy(executable)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise CudaGraphError(f"{name}: CUDA error {code}")
