"""Names and signatures of TensorRT's and pycuda's Python interfaces, without a GPU.

    python test/standin/signatures.py tensorrt FOLDER   # holds tensorrt_bindings or the lean ones
    python test/standin/signatures.py standin           # the stand-in found first on the path
    python test/standin/signatures.py pycuda FOLDER     # an unpacked source archive

Each prints JSON: the version, and per class (``""``: the module) its public names with what they
take: a list of overloads, each a list of parameters (``=`` behind those with a default), or null
for what is no function. ``recorded`` holds what the wheels and the archive gave;
``test/trt/test_bindings.py`` compares the stand-ins with it.

The wheels of the bindings (1 MB) come without NVIDIA's libraries (gigabytes). Their Python module
loads all the same once a copy of its shared library is told that it needs none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path

CLASSES = (
    "", "Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext",
    "IHostMemory", "IInt8EntropyCalibrator2", "ILogger", "INetworkDefinition",
    "IOptimizationProfile", "IProgressMonitor", "ITensor", "ITimingCache", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "Runtime", "TacticSource",
    "TensorIOMode",
)  # fmt: skip
_NEEDED, _NULL, _STRINGS, _SYMBOLS = 1, 0, 5, 6
_DYNAMIC, _LOAD = 2, 1


def without_libraries(data: bytes) -> bytes:
    """A 64-bit ELF library that needs no library of NVIDIA's, its unknown symbols made weak.

    Weak symbols that nobody defines are zero: calling them would crash, looking around does not.
    """
    changed = bytearray(data)
    offset, size, count = (
        *struct.unpack_from("<Q", data, 32),
        *struct.unpack_from("<HH", data, 54),
    )
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)]

    def place(address: int) -> int:
        for kind, _, start, begin, _, length, _, _ in headers:
            if kind == _LOAD and begin <= address < begin + length:
                return address - begin + start
        raise ValueError(f"no segment at {address:#x}")

    entries = _dynamic_entries(data, next(item[2] for item in headers if item[0] == _DYNAMIC))
    strings = place(next(value for _, tag, value in entries if tag == _STRINGS))
    symbols = place(next(value for _, tag, value in entries if tag == _SYMBOLS))

    def text(at: int) -> str:
        return data[strings + at : data.index(b"\0", strings + at)].decode()

    libc = next(v for _, tag, v in entries if tag == _NEEDED and text(v).startswith("libc.so"))
    for where, tag, value in entries:
        if tag == _NEEDED and text(value).startswith("libnv"):
            struct.pack_into("<Q", changed, where + 8, libc)
    for where in range(symbols + 24, strings, 24):
        _, info, _, section = struct.unpack_from("<IBBH", data, where)
        if section == 0 and info >> 4 == 1:
            changed[where + 4] = 2 << 4 | info & 15
    return bytes(changed)


def _dynamic_entries(data: bytes, position: int) -> list[tuple[int, int, int]]:
    """Place, tag and value of each entry of the dynamic section."""
    entries = []
    while True:
        tag, value = struct.unpack_from("<qQ", data, position)
        if tag == _NULL:
            return entries
        entries.append((position, tag, value))
        position += 16


def of_tensorrt(folder: Path) -> dict:
    """Of the bindings below ``folder``."""
    package = next(folder.glob("tensorrt*_bindings"))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / package.name
        shutil.copytree(package, copy)
        for library in copy.glob("*.so"):
            library.write_bytes(without_libraries(library.read_bytes()))
        sys.path.insert(0, scratch)
        module = importlib.import_module(package.name)
        return {"version": module.__version__, "lean": "lean" in package.name, **_classes(module)}


def of_standin() -> dict:
    """Of the stand-in for TensorRT."""
    import tensorrt

    return {"version": tensorrt.__version__, **_classes(tensorrt)}


def _classes(module: object) -> dict:
    found = {}
    for name in CLASSES:
        owner = getattr(module, name, None) if name else module
        if owner is not None:
            found[name] = _members(owner, bool(name))
    return {"classes": found}


def _members(owner: object, is_class: bool) -> dict:
    if not is_class:  # the module: its classes only, for it re-exports much else
        return {n: None for n in dir(owner) if isinstance(getattr(owner, n), type) and n[0] != "_"}
    members = {}
    for name in dir(owner):
        if name.startswith("_") and name != "__init__":
            continue
        try:
            members[name] = _overloads(getattr(owner, name), name)
        except AttributeError:
            continue
    return members


def _overloads(member: object, name: str) -> list | None:
    if isinstance(member, property) or not callable(member) or isinstance(member, type):
        return None
    text = (member.__doc__ or "").strip()
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", text, re.MULTILINE)
    if found and not inspect.isfunction(member):
        found = [one for one in found if one != "*args, **kwargs"]
        return [[_parameter(part) for part in _split(one)] for one in found]
    try:
        parameters = inspect.signature(member).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        [
            p.name + ("=" if p.default is not p.empty else "")
            for p in parameters
            if p.name != "self"
        ]
    ]


def _split(text: str) -> list[str]:
    """Parameters of a signature, without ``self``; commas inside brackets do not part."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text + ","):
        depth += letter in "[(<{"
        depth -= letter in "])>}"
        if letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in parts if part and not part.startswith("self")]


def _parameter(text: str) -> str:
    name = text.partition(":")[0].strip()
    return name + ("=" if "=" in text.replace("<", "").partition(":")[2] else "")


def of_pycuda(folder: Path) -> dict:
    """Of pycuda's C++ source, where its driver module is declared."""
    source = (folder / "src" / "wrapper" / "wrap_cudadrv.cpp").read_text(encoding="utf-8")
    version = re.search(r"^Version: (.*)$", (folder / "PKG-INFO").read_text(), re.MULTILINE)
    classes: dict[str, dict] = {"": {}}
    for name in re.findall(r"DECLARE_EXC\((\w+),", source):
        classes.setdefault("", {})[name] = None
    blocks = re.split(r"py::class_<", source)
    for block in blocks[1:]:
        named = re.search(r'\(\s*"(\w+)"', block)
        if named is None:
            continue
        body = re.split(r"\n  }\n|\n    py::scope", block)[0]
        methods = re.findall(r'\.def\("(\w+)"|DEF_SIMPLE_METHOD\((\w+)\)', body)
        properties = re.findall(r'add_property\("(\w+)"', body)
        members = {a or b: None for a, b in methods} | dict.fromkeys(properties)
        classes[named.group(1)] = members
        classes[""][named.group(1)] = None
    functions = re.findall(r'py::def\("(\w+)",(.*?)\);', source, re.DOTALL)
    for name, rest in functions:
        classes[""][name] = [_boost_parameters(rest)]
    for name in re.findall(r"DEF_SIMPLE_FUNCTION\((\w+)\)", source):
        classes[""][name] = None
    return {"version": version.group(1) if version else "", "classes": classes}


def _boost_parameters(text: str) -> list[str]:
    found = []
    for group, single, default in re.findall(r'py::args\(([^)]*)\)|py::arg\("(\w+)"\)(=?)', text):
        if group:
            found += re.findall(r'"(\w+)"', group)
        else:
            found.append(single + default)
    return found


def main(arguments: list[str]) -> int:
    kind, *rest = arguments
    values = (
        of_standin()
        if kind == "standin"
        else {"tensorrt": of_tensorrt, "pycuda": of_pycuda}[kind](Path(rest[0]))
    )
    print(json.dumps(values, sort_keys=True, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
