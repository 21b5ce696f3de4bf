"""What can be shown of a bundle on the machine that makes it, which needs no GPU.

Every program is started with an empty environment; nothing but the C library may come from outside
the bundle. The driver's place is taken by a stub in a temporary folder, never in the bundle.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ddfd_trt.bundle.common import Tell
from ddfd_trt.bundle.elf import BASE_LIBRARIES, undefined_symbols
from ddfd_trt.bundle.plan import PYCUDA, TENSORRT, BundleError
from ddfd_trt.bundle.pycuda_build import DRIVER
from ddfd_trt.bundle.python_tree import COMPILER_LIBRARIES
from ddfd_trt.bundle.stubs import write_stub

_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE: what the stub of the driver answers to everything."""
_TEXT = "the stub has no device"
_OWN = {
    "cuGetErrorString": "int cuGetErrorString(int error, const char **text) "
    f'{{ *text = "{_TEXT}"; return 0; }}'
}
_PATH = "/usr/bin:/bin"
_LOADED = """
import json, sys
import numpy, onnxruntime, tensorrt, {more}
files = {{line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}}
print("ddfd " + json.dumps({{
    "python": sys.version.split()[0], "tensorrt": tensorrt.__version__,
    "files": sorted(name for name in files if ".so" in name),
}}))
"""
_DRIVER = """
import pycuda, pycuda.driver as cuda
import ddfd_ros.inference.cuda_session
try:
    cuda.init()
    answer = f"{cuda.Device.count()} devices"
except cuda.Error as error:
    answer = str(error)
print("ddfd " + answer)
"""
_BUILDER = """
import tensorrt
builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.INFO))
print("ddfd a Builder, so there is a GPU")
"""
_NO_DRIVER_TEXT = "error: 35"
"""What TensorRT's builder says where there is no driver."""


def start(
    tree: Path, command: Sequence[str], environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the bundle with an empty environment."""
    return subprocess.run(
        ["/bin/sh", str(tree / "run.sh"), *command], env={"PATH": _PATH, **(environ or {})},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip


def answer_of(tree: Path, code: str, environ: dict[str, str] | None = None) -> str:
    """What a program in the bundle prints after its mark.

    Raises:
        BundleError: It ends without.
    """
    done = start(tree, ["python", "-c", code], environ)
    for line in done.stdout.splitlines():
        if line.startswith("ddfd "):
            return line[5:]
    raise BundleError(
        f"bundle: expected an answer of its Python, got exit status {done.returncode}; a library "
        f"or package is missing:\n{done.stderr.strip()[-2000:]}"
    )


def foreign_files(files: Sequence[str], tree: Path) -> list[str]:
    """Libraries from outside the bundle that not every machine has."""
    names = (re.escape(name) for name in (*BASE_LIBRARIES, *COMPILER_LIBRARIES))
    # With more of the version behind, or as older C libraries call themselves: libm-2.31.so.
    usual = re.compile(rf"(?:{'|'.join(names)})(?:\.[\d.]+)?|(?:ld|lib[a-z]+)-2\.\d+\.so")
    outside = (name for name in files if not Path(name).is_relative_to(tree.resolve()))
    return [name for name in outside if not usual.fullmatch(Path(name).name)]


def check_tree(tree: Path, kind: str, tell: Tell) -> list[str]:
    """Start everything that can be started without a GPU.

    Returns:
        What was shown, one line each.

    Raises:
        BundleError: Something does not start, or needs what is not in the bundle.
    """
    shown = []

    def note(text: str) -> None:
        shown.append(text)
        tell(text)

    more = "rich, onnx" if kind == "build" else "rich"
    loaded = json.loads(answer_of(tree, _LOADED.format(more=more)))
    if loaded["tensorrt"] != TENSORRT.partition("==")[2]:
        raise BundleError(f"bundle: expected {TENSORRT}, got {loaded['tensorrt']}; make it anew")
    if foreign := foreign_files(loaded["files"], tree):
        raise BundleError(
            f"bundle: expected all libraries inside it, got {foreign}; report this, they should "
            "have been copied"
        )
    note(
        f"Python {loaded['python']} and TensorRT {loaded['tensorrt']} load; all libraries but the "
        "C and C++ ones are the bundle's"
    )
    note(f"{PYCUDA} loads over a stub of the driver and hands on its answer: {_driver(tree)}")
    note(_builder(tree))
    for words in (["ddfd-engine"], ["ddfd-verify"], ["ddfd-bench"], ["python", "-m", _GPU[kind]]):
        done = start(tree, [*words, "--help"])
        if done.returncode:
            raise BundleError(
                f"{' '.join(words)} --help: expected exit status 0, got {done.returncode}; a "
                f"package is missing:\n{done.stderr.strip()[-2000:]}"
            )
        note(f"{' '.join(words)} starts")
    note(f"ddfd-verify computes {_verify(tree)} with ONNX Runtime, twice alike")
    return shown


_GPU = {"build": "benchmarks.gpu", "run": "benchmarks.gpu_engine"}


def _verify(tree: Path) -> str:
    """Compare the smallest model with itself; returns its name."""
    models = sorted((tree / "project" / "models").glob("*.onnx"), key=lambda p: p.stat().st_size)
    if not models:
        raise BundleError("bundle: expected a model in its project, got none; use --model")
    done = start(tree, ["ddfd-verify", str(models[0]), str(models[0])])
    if done.returncode:
        raise BundleError(
            f"ddfd-verify: expected exit status 0, got {done.returncode}; a package is missing:\n"
            f"{done.stderr.strip()[-2000:]}"
        )
    return models[0].name


def _driver(tree: Path) -> str:
    """What pycuda answers over a stub of the driver."""
    (library,) = (tree / "packages" / "pycuda").glob("_driver*.so")
    names = sorted({name for name, _ in undefined_symbols(library) if name.startswith("cu")})
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), DRIVER, names, versioned=False, status=_NO_DEVICE, own=_OWN)
        answer = answer_of(tree, _DRIVER, {"LD_LIBRARY_PATH": folder})
    if _TEXT not in answer:
        raise BundleError(f"pycuda: expected the stub's error, got {answer}; make the bundle anew")
    return answer


def _builder(tree: Path) -> str:
    """How far TensorRT's builder comes."""
    done = start(tree, ["python", "-c", _BUILDER])
    text = done.stdout + done.stderr
    if "ddfd a Builder" in text:
        return "TensorRT's builder starts on this machine's GPU"
    if _NO_DRIVER_TEXT in text:
        return "TensorRT's builder stops at CUDA error 35, since there is no driver here"
    raise BundleError(
        "TensorRT: expected a builder or CUDA error 35 (no driver), got exit status "
        f"{done.returncode}; check the driver of this machine:\n{text.strip()[-2000:]}"
    )
