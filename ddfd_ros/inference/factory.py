"""From a model file to a backend. A runtime is imported only when it is chosen."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from dataclasses import fields
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.core.sidecar import require_model_file
from ddfd_ros.inference.base import Backend, BackendOptions, one_line
from ddfd_ros.inference.tensorrt_api import driver_is_missing, no_pycuda

RUNTIMES: dict[str, str] = {
    "onnxruntime": "ddfd_ros.inference.onnx_backend:OnnxBackend",
    "openvino": "ddfd_ros.inference.openvino_backend:OpenvinoBackend",
    "tensorrt": "ddfd_ros.inference.tensorrt_backend:TensorrtBackend",
    "torch": "ddfd_ros.inference.torch_backend:TorchBackend",
}
"""Name of a runtime -> module and class of its backend. A new runtime is a new line here."""

_BY_SUFFIX: dict[str, tuple[str, ...]] = {
    ".onnx": ("openvino", "onnxruntime"),
    ".pt": ("torch",),
    ".ckpt": ("torch",),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
}
"""Runtimes that read a kind of file, fastest first; ``auto`` takes the first one installed.

OpenVINO (x86 only) needed 0.88 of ONNX Runtime's processor time for ddfd-lite at 640x480 in single
precision, and 0.46 with ``precision="auto"`` on a CPU with bfloat16 instructions.
"""


def open_backend(
    model_path: str | Path, runtime: str = "auto", **options: int | bool | str
) -> Backend:
    """Open a model file.

    Args:
        model_path: ``.onnx`` or ``.pt`` file.
        runtime: A name in ``RUNTIMES``, or ``auto``: the fastest installed runtime for the file.
        options: Fields of ``BackendOptions``.

    Raises:
        ModelLoadError: Missing or damaged file, unknown runtime or option, runtime not installed.
        ContractError: The model's contract is missing, malformed, or does not fit its graph.
    """
    path = Path(model_path)
    known = [item.name for item in fields(BackendOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelLoadError(f"backend options: expected a selection of {known}, got {unknown}")
    values: dict[str, Any] = dict(options)
    chosen = BackendOptions(**values)
    if runtime == "auto":
        runtime = _choose(path, chosen)
    elif runtime in RUNTIMES:
        _check_suffix(path, runtime)
    require_model_file(path)
    backend = _backend_class(runtime)
    try:
        return backend.from_file(path, chosen)
    except DdfdError:
        raise
    except Exception as error:  # runtimes raise types of their own without a common base
        raise ModelLoadError(
            f"{path}: expected a model {runtime} can load, got {one_line(error)}; export it "
            "again, or use a newer runtime"
        ) from error


def _choose(path: Path, options: BackendOptions) -> str:
    candidates = _BY_SUFFIX.get(path.suffix.lower())
    if candidates is None:
        raise ModelLoadError(
            f"model file: expected one of {sorted(_BY_SUFFIX)}, got {path.name!r}; name the "
            "runtime, or export the model with ddfd-export"
        )
    if options.device == "cuda" and "onnxruntime" in candidates:
        return "onnxruntime"  # the only one of the two that drives an NVIDIA GPU
    for name in candidates:
        if name == "openvino" and platform.machine().lower() not in ("x86_64", "amd64"):
            continue  # faster there; not measured elsewhere
        if name in RUNTIMES and importlib.util.find_spec(name) is not None:
            return name
    return candidates[-1]


def _check_suffix(path: Path, runtime: str) -> None:
    readable = sorted(suffix for suffix, names in _BY_SUFFIX.items() if runtime in names)
    if path.suffix.lower() not in readable:
        raise ModelLoadError(
            f"runtime {runtime}: expected a file that ends in {' or '.join(readable)}, got "
            f"{path.name!r}; use runtime auto"
        )


def _backend_class(runtime: str) -> type[Backend]:
    if runtime not in RUNTIMES:
        raise ModelLoadError(
            f"runtime: expected auto or one of {sorted(RUNTIMES)}, got {runtime!r}, which this "
            "version does not contain; use the .onnx file of the model"
        )
    module_name, class_name = RUNTIMES[runtime].split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if driver_is_missing(error):
            raise no_pycuda(error) from error
        raise ModelLoadError(
            f"runtime {runtime}: expected its Python package, got {error}; install it (see "
            "requirements/) or choose another of "
            f"{sorted(set(RUNTIMES) - {runtime})}"
        ) from error
    backend: type[Backend] = getattr(module, class_name)
    return backend
