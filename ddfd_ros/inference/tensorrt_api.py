"""What differs between TensorRT 8.5, 8.6, 10 and 11, and between the full and the lean runtime.

The one place that knows: a feature is recognised by its name in the installed package, not by a
version number, so that a release in between is read rightly. What all of them share (named
tensors, ``execute_async_v3``, optimisation profiles, memory pools) is called directly elsewhere.

====================================  =======  =======  =======  =======
feature                               8.5      8.6      10       11
====================================  =======  =======  =======  =======
networks need EXPLICIT_BATCH          yes      yes      no       gone
precision by builder flags            yes      yes      yes      gone
INT8 calibrators                      yes      yes      yes      gone
strongly typed networks               no       no       yes      always
version-compatible engines            no       yes      yes      yes
progress while building               no       no       yes      yes
====================================  =======  =======  =======  =======
"""

from __future__ import annotations

import importlib
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.inference.base import DeviceError

FULL_PACKAGES = ("tensorrt", "tensorrt_bindings")
LEAN_PACKAGES = ("tensorrt_lean", "tensorrt_lean_bindings")
"""Names under which the runtime is installed, by preference (wheels bring the second ones)."""

LogFunction = Callable[[str, str], None]
"""Receives a severity (``ERROR``, ``WARNING``, ``INFO`` ...) and a message."""

_KEPT_MESSAGES = 5
_GPU_TROUBLE = re.compile(r"cuda (runtime|driver|error)|out ?of ?memory", re.IGNORECASE)
_LOGGERS: dict[type, Any] = {}
"""The one logger of each ``ILogger`` class; see ``TensorRt.make_logger``."""


class MessageLog:
    """The last complaints of TensorRT since this was made, for error messages."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._warnings: list[str] = []

    def __call__(self, severity: str, message: str) -> None:
        """Keep errors, internal errors and warnings; see ``LogFunction``."""
        text = " ".join(message.split())
        if severity.endswith("ERROR"):
            self._errors = [*self._errors[1 - _KEPT_MESSAGES :], text]
        elif severity == "WARNING":
            self._warnings = [*self._warnings[1 - _KEPT_MESSAGES :], text]

    @property
    def blames_the_gpu(self) -> bool:
        """Whether an error came from CUDA or for want of memory, not from what TensorRT was given.

        As in ``Error Code 1: Cuda Runtime (out of memory)``, ``Error Code 2: OutOfMemory``.
        """
        return any(_GPU_TROUBLE.search(text) for text in self._errors)

    def __str__(self) -> str:
        """The errors; the warnings where there are none; or that nothing was said."""
        return "; ".join(self._errors or self._warnings) or "no reason in TensorRT's log"


@dataclass(frozen=True)
class TensorRt:
    """An installed TensorRT and what it can do.

    Attributes:
        module: The Python module, full or lean.
        version: Its version, such as ``10.13.0.35``.
    """

    module: Any
    version: str

    @property
    def can_build(self) -> bool:
        """Whether it is the full package; the lean runtime only runs engines."""
        return hasattr(self.module, "Builder")

    @property
    def weakly_typed(self) -> bool:
        """Whether the builder chooses precisions by flags; otherwise the graph's types hold."""
        return self.can_build and hasattr(self.module.BuilderFlag, "FP16")

    @property
    def has_calibrators(self) -> bool:
        """Whether INT8 ranges can be found by a calibrator; otherwise only Q/DQ nodes count."""
        return hasattr(self.module, "IInt8EntropyCalibrator2")

    @property
    def has_progress(self) -> bool:
        """Whether a build reports its progress."""
        return hasattr(self.module, "IProgressMonitor")

    @property
    def has_version_compatible(self) -> bool:
        """Whether engines can be built that later versions and the lean runtime take."""
        return self.can_build and hasattr(self.module.BuilderFlag, "VERSION_COMPATIBLE")

    def network_flags(self) -> int:
        """Flags for ``Builder.create_network``."""
        flags = self.module.NetworkDefinitionCreationFlag
        if not self.weakly_typed:
            return 1 << int(flags.STRONGLY_TYPED)
        # Needed by 8; without a meaning in 10, gone in 11.
        return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0

    def set_precision(self, config: Any, precision: str, int8: bool) -> None:
        """Allow the builder the formats of ``precision`` (fp32, fp16, int8, best).

        Int8 needs known ranges (``int8``). TF32, on by default, keeps ten bits of the mantissa:
        it is allowed from fp16 on only.
        """
        flags = self.module.BuilderFlag
        if precision == "fp32":
            config.clear_flag(flags.TF32)
        if not self.weakly_typed:
            return
        if precision != "fp32":
            config.set_flag(flags.FP16)
        if int8:
            config.set_flag(flags.INT8)

    def dtype_name(self, dtype: Any) -> str:
        """NumPy's name of a tensor type, or TensorRT's where NumPy has none."""
        kinds = self.module.DataType
        names = {kinds.FLOAT: "float32", kinds.HALF: "float16", kinds.INT32: "int32"}
        names |= {kinds.INT8: "int8", kinds.UINT8: "uint8", kinds.BOOL: "bool"}
        return names.get(dtype, str(dtype))

    def device_memory_bytes(self, engine: Any) -> int:
        """Activation memory of one execution context."""
        if hasattr(engine, "device_memory_size_v2"):  # the older name counts 32 bits, and is gone
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def make_logger(self, log: LogFunction) -> Any:
        """The logger of this process, for builders and runtimes; ``log`` hears it from now on.

        There is one, and it is never freed: TensorRT keeps the first logger it is given as a
        global pointer, and uses it after the objects it came with are gone.

        Args:
            log: Held weakly: it hears as long as its owner keeps it. It must not raise, since the
                caller is C++.
        """
        base = self.module.ILogger
        if base not in _LOGGERS:
            _LOGGERS.setdefault(base, _new_logger(base))
        logger = _LOGGERS[base]
        logger.receivers.append(weakref.ref(log, logger.receivers.remove))
        return logger

    def start(self, kind: Callable[[Any], Any], logger: Any, log: MessageLog) -> Any:
        """A ``Builder`` or ``Runtime``, the objects that start CUDA.

        Args:
            kind: The class of ``module``.
            logger: Of ``make_logger``.
            log: What that tells, for the message.

        Raises:
            DeviceError: CUDA does not start, as where the driver is older than this TensorRT's
                CUDA. TensorRT only warns of it, and the bindings raise a TypeError about a null
                pointer.
        """
        try:
            return kind(logger)
        except TypeError as error:
            if "nullptr" not in str(error):
                raise
            raise DeviceError(
                f"TensorRT {self.version}: expected CUDA to start, got {log}; where nvidia-smi "
                "names an older CUDA than the one this TensorRT was built for, update the driver "
                "or install the package for that CUDA (such as tensorrt-cu12)"
            ) from error

    def deserialize(self, runtime: Any, data: bytes, version_compatible: bool) -> Any:
        """An engine from its bytes; None when TensorRT refuses them or lacks memory (it logs why).

        A version-compatible engine carries the runtime it was built with as host code, which must
        be allowed. Allow it for engines of known origin only: the manifest's digest tells.
        """
        if version_compatible and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True
        return runtime.deserialize_cuda_engine(data)


def _new_logger(base: Any) -> Any:
    class Logger(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self.receivers: list[weakref.ref[LogFunction]] = []

        def log(self, severity: Any, msg: str) -> None:
            for receiver in tuple(self.receivers):  # TensorRT logs from several threads
                log = receiver()
                if log is not None:
                    log(str(severity.name), msg)

    return Logger()


def load_tensorrt(*, build: bool = False) -> TensorRt:
    """Import TensorRT: the full package, or the lean runtime where only that is installed.

    Args:
        build: Whether an engine is to be built, which needs the full package.

    Raises:
        ModelLoadError: It is not installed, its libraries do not load, or it cannot build.
    """
    failures = []
    for name in FULL_PACKAGES if build else FULL_PACKAGES + LEAN_PACKAGES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            failures.append(f"{name}: {error}")
            continue
        found = TensorRt(module, str(module.__version__))
        if build and not found.can_build:
            failures.append(f"{name}: has no Builder")
            continue
        return found
    what = "the full TensorRT package (the lean runtime cannot build)" if build else "TensorRT"
    raise ModelLoadError(
        f"tensorrt: expected {what}, got {'; '.join(failures)}; on a Jetson it comes with JetPack "
        "(apt install python3-libnvinfer), on a desktop with pip install tensorrt"
    )


def driver_is_missing(error: ImportError) -> bool:
    """Whether pycuda is there, but not the driver that it is linked against."""
    return "libcuda.so" in str(error)


def no_pycuda(error: ImportError) -> DdfdError:
    """What it means that pycuda does not load, and what to do."""
    if driver_is_missing(error):
        return DeviceError(
            f"CUDA: expected NVIDIA's driver, got {error}; install it, or name its folder in "
            "LD_LIBRARY_PATH; a container has to be started with the NVIDIA runtime"
        )
    return ModelLoadError(
        f"pycuda: expected it beside TensorRT, got {error}; see docs/tensorrt.md for how to "
        "install it"
    )


def version_key(version: str) -> tuple[int, ...]:
    """``10.13.0.35`` as numbers, to compare; parts that are no numbers end it."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def shape_of(dims: Any) -> tuple[int, ...]:
    """TensorRT's ``Dims`` as integers; -1 where dynamic."""
    return tuple(int(side) for side in dims)
