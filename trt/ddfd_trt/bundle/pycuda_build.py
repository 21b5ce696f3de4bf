"""pycuda, which has no wheels, compiled for the bundle's Python."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from ddfd_trt.bundle.common import Tell, run
from ddfd_trt.bundle.plan import BUILD_TOOLS, CUDA_HEADERS, PYCUDA, BundleError
from ddfd_trt.bundle.python_tree import PythonSource
from ddfd_trt.bundle.stubs import write_stub
from ddfd_trt.bundle.wheels import download, unpack

DRIVER = "libcuda.so.1"
FLAGS = ("--cxxflags=-O2,-g0", "--ldflags=-s")
"""Not -static-libstdc++: what comes in that way needs the newest C library."""


def build_pycuda(source: PythonSource, folder: Path, tell: Tell) -> None:
    """Put the package ``pycuda`` into ``folder``.

    It is linked against an empty library with the driver's name: the real one is found where the
    bundle runs.

    Raises:
        BundleError: Something cannot be downloaded or does not compile.
    """
    work = folder / "work"
    tell("headers of CUDA, and what compiling needs")
    tools = work / "tools"
    unpack(download(source, BUILD_TOOLS, work / "tool-wheels"), tools)
    headers = work / "cuda" / "include"
    collect_headers(download(source, CUDA_HEADERS, work / "headers", dependencies=False), headers)
    write_stub(work / "cuda" / "lib64", DRIVER, ["cuInit"], versioned=False)
    (work / "cuda" / "lib64" / "libcuda.so").symlink_to(DRIVER)
    environ = {"PYTHONPATH": str(tools), "PYTHONNOUSERSITE": "1"}
    tell(f"source of {PYCUDA}")
    (archive,) = download(
        source, [PYCUDA], work / "source", dependencies=False, build=True, environ=environ
    )
    code = unpack_source(archive, work / "code")
    tell(f"compiling {PYCUDA}: some minutes")
    python = str(source.executable)
    configure = [python, "configure.py", f"--cuda-root={work / 'cuda'}", *FLAGS]
    advice = "install a C++ compiler (g++) that this Python's headers can be used with"
    run([*configure, "--no-cuda-enable-curand"], environ=environ, folder=code, advice=advice)
    run([python, "setup.py", "build"], environ=environ, folder=code, advice=advice)
    built = next((path for path in code.glob("build/lib*/pycuda")), None)
    if built is None or not list(built.glob("_driver*.so")):
        raise BundleError(f"{PYCUDA}: expected _driver*.so after the build, got none; {advice}")
    shutil.copytree(built, folder / "pycuda")
    shutil.copy2(code / "LICENSE", folder / "pycuda" / "LICENSE")
    shutil.rmtree(work)


def collect_headers(wheels: list[Path], folder: Path) -> None:
    """The headers of all wheels in one folder, as a CUDA toolkit has them."""
    folder.mkdir(parents=True)
    rest = folder.with_name("unpacked")
    unpack(wheels, rest, keep=lambda name: "/include/" in name)
    for path in rest.glob("nvidia/*/include/*"):
        shutil.move(path, folder / path.name)
    shutil.rmtree(rest)
    lacking = [name for name in ("cuda.h", "cudaProfiler.h") if not (folder / name).is_file()]
    if lacking:
        raise BundleError(
            f"CUDA headers: expected {lacking} in {', '.join(CUDA_HEADERS)}, got none; take other "
            "versions of them"
        )


def unpack_source(archive: Path, folder: Path) -> Path:
    """Unpack a source archive; returns the one folder in it."""
    with tarfile.open(archive) as file:
        for item in file.getmembers():
            if item.name.startswith(("/", "..")) or os.path.isabs(item.linkname):
                raise BundleError(f"{archive}: expected names inside it, got {item.name!r}")
        file.extractall(folder)  # noqa: S202
    (found,) = [path for path in folder.iterdir() if path.is_dir()]
    return found
