"""The stand-ins have no name that TensorRT and pycuda lack: so nothing tested with them has one.

Code under test that used a name which does not exist would work with a careless stand-in and fail
on a robot. Here every public name of the stand-ins, with its parameters, is compared with what the
real packages of TensorRT 8.6, 10.3, 10.13, 11.4 (full and lean) and pycuda's source declare, and
those records with the real packages themselves where they are installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).resolve().parents[1] / "standin"
ROOT = STANDIN.parents[1]
RECORDED = STANDIN / "recorded"
# What a version's stand-in is compared with. No bindings of 8.5 can be had: what its stand-in has
# must be in 8.6 (NVIDIA's notes name no interface that 8.6 dropped).
VERSIONS = {
    "8.5.2": "8.6.1",
    "8.6.1": "8.6.1",
    "10.3.0": "10.3.0",
    "10.13.0.35": "10.13.0.35",
    "11.4.0.106": "11.4.0.106",
}
RUN_TIME = ("ICudaEngine", "IExecutionContext", "ILogger", "Runtime", "TensorIOMode", "DataType")


def signatures(*arguments: str, version: str = "", path: str = "") -> dict:
    environ = os.environ | {"STANDIN_TENSORRT": version, "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, str(STANDIN / "signatures.py"), *arguments],
        capture_output=True, text=True, env=environ, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["classes"]


def recorded(name: str) -> dict:
    return json.loads((RECORDED / f"{name}.json").read_text())["classes"]


def fits(ours: list[str], theirs: list[str]) -> bool:
    """Whether a call that fits our parameters fits theirs: same names and order."""
    names = [item.rstrip("=") for item in theirs]
    if names == ["args", "kwargs"]:  # declared without names
        return True
    rest = theirs[len(ours) :]
    return [item.rstrip("=") for item in ours] == names[: len(ours)] and all(
        item.endswith("=") for item in rest
    )


def strangers(ours: dict, theirs: dict) -> list[str]:
    """Names and parameters of ``ours`` that ``theirs`` do not have."""
    found = []
    for owner, members in ours.items():
        if owner not in theirs:
            found.append(f"class {owner}")
            continue
        for name, calls in members.items():
            if name == "__init__" and owner not in ("Builder", "OnnxParser", "Runtime"):
                continue  # others are made by TensorRT alone
            if name not in theirs[owner]:
                found.append(f"{owner}.{name}")
            elif calls and theirs[owner][name]:
                call = calls[0]
                if not any(fits(call, overload) for overload in theirs[owner][name]):
                    found.append(f"{owner}.{name}({', '.join(call)}) {theirs[owner][name]}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_has_only_names_of_tensorrt(version):
    ours = signatures("standin", version=version, path=f"{STANDIN}{os.pathsep}{ROOT}")
    assert len(ours) > 15
    # Members that an enumeration of Python's has and one of pybind11's has not.
    python_enum = set(dir(int))
    kept = {
        owner: {name: call for name, call in members.items() if name not in python_enum}
        for owner, members in ours.items()
    }
    module = kept.pop("")
    theirs = recorded(f"tensorrt-{VERSIONS[version]}")
    assert not strangers(kept, theirs)
    assert set(module) - {"IntEnum"} <= set(theirs[""])


def test_the_lean_runtime_has_what_running_needs():
    ours = signatures("standin", version="11.4.0.106", path=f"{STANDIN}{os.pathsep}{ROOT}")
    theirs = recorded("tensorrt-11.4.0.106-lean")
    assert "Builder" not in theirs
    needed = {owner: ours[owner] for owner in RUN_TIME}
    needed = {
        owner: {name: call for name, call in members.items() if name in theirs[owner]}
        for owner, members in needed.items()
    }
    assert not strangers(needed, theirs)
    for name in ("deserialize_cuda_engine", "engine_host_code_allowed"):
        assert name in theirs["Runtime"]
    for name in ("set_input_shape", "set_tensor_address", "execute_async_v3"):
        assert name in theirs["IExecutionContext"]


def test_what_is_gone_in_11_is_gone_in_the_stand_in():
    ours = signatures("standin", version="11.4.0.106", path=f"{STANDIN}{os.pathsep}{ROOT}")
    for owner, name in (("BuilderFlag", "FP16"), ("NetworkDefinitionCreationFlag",
                        "EXPLICIT_BATCH"), ("IBuilderConfig", "int8_calibrator")):  # fmt: skip
        assert name in recorded("tensorrt-10.13.0.35")[owner]
        assert name not in ours[owner]
    assert "IInt8EntropyCalibrator2" not in ours


def test_a_name_that_does_not_exist_is_found():
    theirs = recorded("tensorrt-10.13.0.35")
    wrong = {"IExecutionContext": {"execute_v4": [["stream"]], "execute_async_v3": [["stream"]]},
             "Bilder": {}}  # fmt: skip
    assert strangers(wrong, theirs) == [
        "IExecutionContext.execute_v4",
        "IExecutionContext.execute_async_v3(stream) [['stream_handle']]",
        "class Bilder",
    ]


PYCUDA = """
import inspect, json
from pycuda import driver
out = {"": {}}
for name in dir(driver):
    item = getattr(driver, name)
    if name.startswith("_") or getattr(item, "__module__", "") != driver.__name__:
        continue
    out[""][name] = None
    if inspect.isclass(item):
        out[name] = {n: None for n in dir(item) if not n.startswith("_")}
        out[name] = {} if issubclass(item, Exception) else out[name]
    else:
        parameters = inspect.signature(item).parameters.values()
        out[""][name] = [[p.name + ("=" if p.default is not p.empty else "") for p in parameters]]
print(json.dumps({"classes": out}))
"""


def test_the_stand_in_has_only_names_of_pycuda():
    environ = os.environ | {"PYTHONPATH": f"{STANDIN}{os.pathsep}{ROOT}"}
    run = subprocess.run(
        [sys.executable, "-c", PYCUDA], capture_output=True, text=True, env=environ, check=True
    )
    ours = json.loads(run.stdout)["classes"]
    theirs = recorded("pycuda-2026.1")
    assert {"Device", "Context", "Stream", "LaunchError"} <= set(ours)
    found = []
    for owner, members in ours.items():
        if owner and not members:
            continue  # an exception
        for name, calls in members.items():
            if name not in theirs[owner]:
                found.append(f"{owner}.{name}")
                continue
            declared = theirs[owner][name]
            if calls and declared and declared[0] and not fits(calls[0], declared[0]):
                found.append(f"{owner}.{name}{calls} {declared}")
    assert not found


def real_bindings() -> list[Path]:
    """Folders with real bindings: installed ones, and unpacked wheels named by the environment."""
    roots = [Path(item) for item in sys.path if item.endswith("site-packages")]
    roots += [Path(item) for item in os.environ.get("DDFD_TENSORRT_WHEELS", "").split(":") if item]
    return [found.parent for root in roots for found in sorted(root.glob("tensorrt*_bindings"))]


@pytest.mark.parametrize("kind", ["tensorrt_bindings", "tensorrt_lean_bindings"])
def test_the_records_are_those_of_the_real_packages(kind, tmp_path):
    found = [folder / kind for folder in real_bindings() if (folder / kind).is_dir()]
    if not found:
        pytest.skip(f"{kind} is not installed (pip install -r requirements/dev.txt, x86-64 only)")
    compared = 0
    for index, package in enumerate(found):
        holder = tmp_path / str(index)
        holder.mkdir()
        (holder / kind).symlink_to(package)
        text = subprocess.run(
            [sys.executable, str(STANDIN / "signatures.py"), "tensorrt", str(holder)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        real = json.loads(text)
        name = f"tensorrt-{real['version']}{'-lean' if real['lean'] else ''}"
        if (RECORDED / f"{name}.json").is_file():
            assert real["classes"] == recorded(name)
            compared += 1
    if not compared:
        pytest.skip(f"{kind}: installed in a version without a record")
