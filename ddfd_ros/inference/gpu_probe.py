"""What GPU and which TensorRT this machine has, found out in a process of its own.

TensorRT and a broken driver can end the process that asks (the lean runtime does so where there is
no GPU), so a node asks through ``probe_gpu``, which runs this module as a program.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict

from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.inference.base import DeviceError
from ddfd_ros.inference.engine_manifest import GpuMachine
from ddfd_ros.inference.tensorrt_api import (
    FULL_PACKAGES,
    LEAN_PACKAGES,
    load_tensorrt,
    no_pycuda,
)

_MARK = "ddfd-gpu "
_TIMEOUT_S = 60.0


def tensorrt_installed() -> bool:
    """Whether TensorRT, full or lean, and pycuda are installed; imports neither."""
    return importlib.util.find_spec("pycuda") is not None and any(
        importlib.util.find_spec(name) is not None for name in FULL_PACKAGES + LEAN_PACKAGES
    )


def probe_gpu(timeout_s: float = _TIMEOUT_S) -> GpuMachine:
    """GPU and TensorRT of this machine.

    Raises:
        ModelLoadError: TensorRT or pycuda is not installed or does not load.
        DeviceError: There is no usable GPU, or asking ended the process that asked.
    """
    if not tensorrt_installed():
        raise ModelLoadError(
            "TensorRT: expected tensorrt (or tensorrt_lean) and pycuda, got neither or one; see "
            "docs/tensorrt.md for how to install them"
        )
    command = [sys.executable, "-m", "ddfd_ros.inference.gpu_probe"]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"GPU: expected an answer within {timeout_s:g} s, got none; check nvidia-smi"
        ) from error
    line = next((text for text in run.stdout.splitlines() if text.startswith(_MARK)), None)
    if line is None:
        last = " ".join(run.stderr.split()[-30:])
        raise DeviceError(
            f"GPU: expected its name, got a process that ended with {run.returncode}: {last}; "
            "check nvidia-smi and the TensorRT installation"
        )
    values = json.loads(line[len(_MARK) :])
    if "error" in values:
        raise DeviceError(str(values["error"]))
    return GpuMachine(**values)


def main() -> int:
    """Print the machine, or why there is none, as one line."""
    try:
        # Here, since only this process may import them.
        from ddfd_ros.inference.cuda_session import CudaSession
        from ddfd_ros.inference.tensorrt_backend import machine_of

        api = load_tensorrt()
        with contextlib.closing(CudaSession()) as session:
            values = asdict(machine_of(api, session))
    except ImportError as error:
        values = {"error": str(no_pycuda(error))}
    except (DdfdError, OSError) as error:
        values = {"error": str(error)}
    print(_MARK + json.dumps(values), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
