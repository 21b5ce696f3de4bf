"""Stub libraries: the functions that a library takes from others, each answering with an error.

TensorRT's plugin library is linked against cuBLAS, cuBLASLt and cuDNN, a gigabyte of libraries of
which an engine built without their tactic sources calls nothing. It loads as soon as libraries of
these names define the functions, each with the library's name as symbol version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddfd_trt.bundle.common import run
from ddfd_trt.bundle.elf import undefined_symbols
from ddfd_trt.bundle.plan import BundleError

NEEDED = ("libcublas.so.12", "libcublasLt.so.12", "libcudnn.so.8")
_COMPILER = "install a C compiler (gcc)"


def wanted_functions(library: Path, soname: str) -> list[str]:
    """What ``library`` takes from the library ``soname``, by the version of its symbols.

    Raises:
        BundleError: Nothing.
    """
    names = sorted(name for name, version in undefined_symbols(library) if version == soname)
    if not names:
        raise BundleError(
            f"{library.name}: expected functions of {soname}, got none; this version is linked "
            "otherwise and may need no stub"
        )
    return names


def stub_source(names: Sequence[str], status: int, own: Mapping[str, str]) -> str:
    """C code that defines ``names``.

    Should one be called after all, its caller gets an error (``status``) rather than a silent
    success; functions that explain an error return a text. ``own`` has code of its own by name.
    """
    lines = []
    for name in names:
        if name in own:
            lines.append(own[name])
        elif name.endswith("String"):
            lines.append(f'const char *{name}(void) {{ return "a stub, not the library"; }}')
        else:
            lines.append(f"int {name}(void) {{ return {status}; }}")
    return "\n".join(lines) + "\n"


def write_stub(
    folder: Path,
    soname: str,
    names: Sequence[str],
    *,
    versioned: bool = True,
    status: int = 1,
    own: Mapping[str, str] | None = None,
) -> Path:
    """Compile a stub library.

    Args:
        folder: Where to put it.
        soname: Its file name, and with ``versioned`` the version of its symbols.
        names: Functions that it defines.
        versioned: Whether the symbols have a version.
        status: What the functions return; 1 is "not initialised" in cuBLAS and cuDNN.
        own: Code of functions that have to do something, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source, script = folder / f"{soname}.c", folder / f"{soname}.map"
    source.write_text(stub_source(names, status, own or {}), encoding="ascii")
    exported = " ".join(f"{name};" for name in names)
    head = soname if versioned else ""
    script.write_text(f"{head} {{ global: {exported} local: *; }};\n", encoding="ascii")
    target = folder / soname
    command = [
        "gcc", "-shared", "-fPIC", "-nostdlib", "-s", "-o", str(target), str(source),
        f"-Wl,-soname,{soname}", f"-Wl,--version-script={script}",
    ]  # fmt: skip
    run(command, advice=_COMPILER)
    source.unlink()
    script.unlink()
    return target


def write_stubs(library: Path, folder: Path, sonames: Sequence[str] = NEEDED) -> int:
    """Compile a stub for each of ``sonames`` that ``library`` is linked against.

    Returns:
        The number of functions in all of them.
    """
    count = 0
    for soname in sonames:
        names = wanted_functions(library, soname)
        write_stub(folder, soname, names)
        count += len(names)
    return count
