"""What goes into a bundle: the one place for versions, names, and what is left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ddfd_ros.core.errors import DdfdError

PYTHON = (3, 10)
"""The oldest that the project runs on, and the newest that TensorRT 8.6.0 has a wheel for."""

KINDS = ("build", "run")

COMPRESSIONS = {"gzip": "gz", "xz": "xz"}
"""How an archive may be compressed, and what its file's name ends in."""

TENSORRT = "tensorrt==8.6.0"
"""The last full wheel that a package registry holds itself; later ones fetch it elsewhere."""

PYCUDA = "pycuda==2026.1"

CUDA_HEADERS = ("nvidia-cuda-runtime-cu12==12.1.105", "nvidia-cuda-profiler-api-cu12==12.1.105")
"""To compile pycuda. Of the CUDA that TensorRT 8.6 was made for, so that old drivers will do."""

BUILD_TOOLS = ("numpy<2", "setuptools>=70.1,<80")

RUN_PACKAGES = ("numpy<2", "onnxruntime", "rich", "mako", "platformdirs", "pytools")
"""Besides TensorRT and pycuda. NumPy 1, since TensorRT 8.6's bindings are older than NumPy 2."""

BUILD_PACKAGES = (*RUN_PACKAGES, "onnx")
"""``benchmarks.gpu`` counts operations with onnx; TensorRT 8.6 has a parser of its own."""

NOT_NEEDED = ("coloredlogs", "humanfriendly", "mpmath", "pip", "setuptools", "sympy")
"""Required by the packages above for functions that an engine does not use."""

BUILDER_LIBRARY = "libnvinfer_builder_resource"
"""Needed to build engines, not to run them: 85 % of the whole."""

PROJECT_PARTS = ("package.xml", "LICENSE", "ddfd_ros", "trt", "benchmarks/*.py", "models")


class BundleError(DdfdError):
    """A bundle cannot be made, joined or checked."""


def default_cache() -> Path:
    """Where downloads and compiled packages are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ddfd_ros" / "bundle"


@dataclass(frozen=True)
class BundlePlan:
    """What to make.

    Attributes:
        out: Folder for the parts and the scripts.
        kind: ``build`` or ``run``.
        part_mb: Largest part in MB (10^6 bytes).
        compression: ``gzip``, or ``xz``: half as large, minutes to make.
        cache: What was downloaded and compiled, kept from run to run.
        project: The checkout whose code goes in.
        models: Models to put beside the shipped ones.
        add: Further packages, as pip takes them.
        python: A Python 3.10 to copy; None: from Debian packages.
        debian_mirror: Address of a mirror; None: what this machine's apt is configured with.
        suite: The mirror's suite, with ``debian_mirror``.
    """

    out: Path
    kind: str = "build"
    part_mb: int = 60
    compression: str = "gzip"
    cache: Path = field(default_factory=default_cache)
    project: Path = field(default_factory=lambda: Path(__file__).resolve().parents[3])
    models: tuple[Path, ...] = ()
    add: tuple[str, ...] = ()
    python: Path | None = None
    debian_mirror: str | None = None
    suite: str = "jammy"

    def __post_init__(self) -> None:
        """Refuse what no bundle can be made of."""
        if self.kind not in KINDS:
            raise BundleError(f"kind: expected one of {KINDS}, got {self.kind!r}; name one")
        if self.compression not in COMPRESSIONS:
            raise BundleError(
                f"compression: expected one of {tuple(COMPRESSIONS)}, got {self.compression!r}; "
                "name one"
            )
        if self.part_mb < 1:
            raise BundleError(f"part size: expected at least 1 MB, got {self.part_mb}; enlarge it")
        if not (self.project / "package.xml").is_file():
            raise BundleError(
                f"project: expected a checkout with package.xml at {self.project}, got none; "
                "name one with --project"
            )
        for path in self.models:
            if not path.is_file():
                raise BundleError(f"model: expected a file at {path}, got none; check the path")

    @property
    def packages(self) -> tuple[str, ...]:
        """What pip is asked for, TensorRT and pycuda apart."""
        return (*(BUILD_PACKAGES if self.kind == "build" else RUN_PACKAGES), *self.add)
