"""A Python installation, looked at and copied so that it runs anywhere."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ddfd_trt.bundle.common import run
from ddfd_trt.bundle.elf import elf_files, resolved_libraries
from ddfd_trt.bundle.plan import PYTHON, BundleError

_ASK = """
import json, os, platform, sys, sysconfig
print(json.dumps({
    "version": sys.version_info[:3], "machine": platform.machine(), "system": sys.platform,
    "executable": os.path.realpath(sys.executable), "stdlib": sysconfig.get_path("stdlib"),
    "dynload": sysconfig.get_config_var("DESTSHARED"),
}))
"""
_ADVICE = "name a working Python 3.10 with --python, or leave it out to take Debian packages"
_LEFT_OUT = (
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter",
    "turtledemo", "turtle.py", "ensurepip", "lib2to3", "config-*", "*.a", "LICENSE.txt",
    # Modules for terminals, windows, databases and passwords, with libraries of their own.
    "_tkinter*", "_curses*", "readline*", "_dbm*", "_gdbm*", "nis.*", "_test*", "_xxtest*",
    "xxlimited*", "_crypt*", "sitecustomize.py",
)  # fmt: skip
COMPILER_LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1")
"""Most machines have them, and newer ones should be used: kept apart, for those that have not."""


@dataclass(frozen=True)
class PythonSource:
    """A Python that runs on this machine.

    Attributes:
        executable: Its program, or a script that starts it where it lies.
        library_folders: Where its libraries lie, besides the usual folders.
    """

    executable: Path
    library_folders: tuple[Path, ...] = ()


def unpacked_source(root: Path, version: str) -> PythonSource:
    """The Python of Debian packages that were unpacked into ``root``.

    It is started by a script, since its variables would mislead any other Python.
    """
    triplet = "x86_64-linux-gnu"
    libraries = (root / "usr" / "lib" / triplet, root / "lib" / triplet)
    script = root / "python.sh"
    lines = [
        "#!/bin/sh",
        f"export PYTHONHOME='{root / 'usr'}' PYTHONNOUSERSITE=1",
        f"export LD_LIBRARY_PATH='{os.pathsep.join(map(str, libraries))}'",
        f"export CPATH='{root / 'usr' / 'include'}'",  # pyconfig.h lies in a folder below
        f"exec '{root / 'usr' / 'bin' / f'python{version}'}' \"$@\"",
    ]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    script.chmod(0o755)
    return PythonSource(script, libraries)


def inspect_python(source: PythonSource, wanted: tuple[int, int] = PYTHON) -> dict[str, str]:
    """Where the parts of a Python lie, and its version.

    Raises:
        BundleError: It is another version, or not for this kind of machine.
    """
    text = run([source.executable, "-c", _ASK], advice=_ADVICE)
    facts = json.loads(text)
    version = tuple(facts["version"][:2])
    if version != wanted:
        raise BundleError(
            f"{source.executable}: expected Python {wanted[0]}.{wanted[1]} (this project needs at "
            f"least 3.10, TensorRT 8.6.0's wheels at most that), got {version[0]}.{version[1]}; "
            f"{_ADVICE}"
        )
    if (facts["system"], facts["machine"]) != ("linux", "x86_64"):
        raise BundleError(
            f"{source.executable}: expected Linux on x86_64, got {facts['system']} on "
            f"{facts['machine']}; make the bundle on such a machine"
        )
    facts["version"] = ".".join(map(str, facts["version"]))
    return {key: str(value) for key, value in facts.items()}


def copy_python(source: PythonSource, folder: Path, wanted: tuple[int, int] = PYTHON) -> str:
    """Copy program, standard library and the libraries they load.

    ``folder`` gets ``bin`` and ``lib``.

    Returns:
        The full version.
    """
    facts = inspect_python(source, wanted)
    name = f"python{wanted[0]}.{wanted[1]}"
    program, library = folder / "bin" / name, folder / "lib" / name
    program.parent.mkdir(parents=True)
    shutil.copy2(facts["executable"], program)
    shutil.copytree(facts["stdlib"], library, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    if not (library / "lib-dynload").is_dir():
        raise BundleError(
            f"{source.executable}: expected compiled modules in {facts['stdlib']}/lib-dynload, "
            f"got none; {_ADVICE}"
        )
    found = resolved_libraries([program, *elf_files(library)], source.library_folders)
    copy_libraries(found, folder / "lib")
    for path in [program, *elf_files(folder / "lib")]:
        run(["strip", "--strip-unneeded", path], advice="install binutils")
    return facts["version"]


def copy_libraries(found: dict[str, Path], folder: Path) -> None:
    """Copy libraries under the names they are loaded by, the compiler's into ``fallback``."""
    for name, path in sorted(found.items()):
        target = folder / "fallback" if name in COMPILER_LIBRARIES else folder
        target.mkdir(parents=True, exist_ok=True)
        if not (target / name).exists():
            shutil.copy2(path.resolve(), target / name)
