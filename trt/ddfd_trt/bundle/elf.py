"""What an ELF file says about itself, read with ``readelf`` and ``ldd``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddfd_trt.bundle.common import run

_TOOLS = "install binutils"
_MAGIC = b"\x7fELF"
_SYMBOL = re.compile(r"\sUND\s+(?P<name>[A-Za-z_]\w*)(?:@(?P<version>[\w.]+))?")
_FOUND = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/\S+)", re.MULTILINE)
_GLIBC = re.compile(r"\bGLIBC_(\d+)\.(\d+)")

BASE_LIBRARIES = frozenset(
    f"{name}.so.{number}"
    for name, number in (
        ("ld-linux-x86-64", 2), ("libc", 6), ("libdl", 2), ("libm", 6), ("libpthread", 0),
        ("libresolv", 2), ("librt", 1), ("libutil", 1),
    )
)  # fmt: skip
"""The C library, which every machine has and which must be the machine's own."""


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF program or library."""
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def elf_files(folder: Path) -> Iterator[Path]:
    """All ELF files in a folder, sorted."""
    return (path for path in sorted(folder.rglob("*")) if is_elf(path))


def undefined_symbols(path: Path) -> list[tuple[str, str]]:
    """Name and version (empty where it has none) of what a library takes from others."""
    text = run(["readelf", "--wide", "--dyn-syms", path], advice=_TOOLS)
    return [(found["name"], found["version"] or "") for found in _SYMBOL.finditer(text)]


def resolved_libraries(paths: Iterable[Path], folders: Iterable[Path] = ()) -> dict[str, Path]:
    """The libraries that ELF files load, by name, the C library's left out.

    Those in ``folders`` come before those of this machine.
    """
    environ = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}
    result: dict[str, Path] = {}
    for path in paths:
        text = run(["ldd", path], environ=environ, advice=f"check that {path} is for this machine")
        for found in _FOUND.finditer(text):
            if found["name"] not in BASE_LIBRARIES:
                result.setdefault(found["name"], Path(found["path"]))
    return result


def newest_glibc(paths: Iterable[Path]) -> tuple[int, int]:
    """The oldest C library that will do for all of the files."""
    newest = (2, 0)
    for path in paths:
        text = run(["readelf", "--wide", "--version-info", path], advice=_TOOLS)
        versions = {(int(major), int(minor)) for major, minor in _GLIBC.findall(text)}
        newest = max({newest, *versions})
    return newest
