"""Wheels: downloaded by pip for the bundle's Python, unpacked without what is not needed."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ddfd_trt.bundle.common import run
from ddfd_trt.bundle.plan import BundleError
from ddfd_trt.bundle.python_tree import PythonSource

_ADVICE = "check that pip reaches a package registry and has version 22.3 or newer"
_CHUNK = 1 << 22
# Their tests, test data and build files; the typed stubs are for editors.
_LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing/data|backend/test/data|f2py|__pycache__)/|\.(pyi|pyx|pxd|a|lib)$"
)


def download(
    source: PythonSource,
    requirements: Sequence[str],
    folder: Path,
    *,
    constraints: Path | None = None,
    dependencies: bool = True,
    build: bool = False,
    environ: Mapping[str, str] | None = None,
) -> list[Path]:
    """Download wheels that fit ``source``.

    Args:
        source: The Python that will use them.
        requirements: What pip is asked for.
        folder: Where to put them.
        constraints: A file of pins.
        dependencies: Whether to take what they require too.
        build: Take sources, whose build tools are in ``environ`` already.
        environ: Further variables.

    Raises:
        BundleError: pip failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--python", str(source.executable), "download"]
    command += ["--no-input", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    command += [] if dependencies else ["--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation"] if build else []
    command += [] if build else ["--only-binary", ":all:"]
    command += [] if constraints is None else ["--constraint", str(constraints)]
    run([*command, *requirements], environ=environ, advice=_ADVICE)
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")


def project_of(wheel: Path) -> str:
    """The normalised name of a wheel's project."""
    return re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()


def unpack(
    wheels: Iterable[Path],
    folder: Path,
    *,
    keep: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
    on_bytes: Callable[[int], None] = lambda count: None,  # noqa: ARG005
) -> None:
    """Unpack wheels beside each other, as an installation without programs.

    Args:
        wheels: Their files.
        folder: Where to.
        keep: Which names in them to take.
        on_bytes: Told how many bytes were written.

    Raises:
        BundleError: A wheel is damaged or names a path outside ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for item in archive.infolist():
                    name = _installed_name(item.filename, wheel)
                    if item.is_dir() or name is None or _LEFT_OUT.search(name) or not keep(name):
                        continue
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(item) as source, target.open("wb") as file:
                        while chunk := source.read(_CHUNK):
                            file.write(chunk)
                            on_bytes(len(chunk))
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise BundleError(
                f"{wheel}: expected a wheel, got {error}; delete it and run this again"
            ) from error


def _installed_name(name: str, wheel: Path) -> str | None:
    """Where a wheel's file goes; None for programs and headers."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise BundleError(f"{wheel}: expected names inside it, got {name!r}; do not use it")
    if path.parts[0].endswith(".data"):
        if path.parts[1] not in ("purelib", "platlib"):
            return None
        path = PurePosixPath(*path.parts[2:])
    return path.as_posix()


def own_constraints(project: Path, folder: Path) -> Path:
    """The project's pins without those of NumPy 2, for which TensorRT 8.6 is too old."""
    text = (project / "requirements" / "constraints.txt").read_text(encoding="utf-8")
    newer = r"(numpy|onnx|ml-dtypes|opencv-python-headless)=="
    lines = [line for line in text.splitlines() if not re.match(newer, line)]
    path = folder / "constraints.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
