"""The bundle's folder: Python, packages, stub libraries and the project's code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ddfd_trt.bundle.common import Tell, digest, run, stage
from ddfd_trt.bundle.debian import AptPackages, MirrorPackages, unpack_python
from ddfd_trt.bundle.elf import elf_files, newest_glibc, resolved_libraries
from ddfd_trt.bundle.parts import copy_scripts, folder_bytes
from ddfd_trt.bundle.plan import (
    BUILD_TOOLS,
    BUILDER_LIBRARY,
    CUDA_HEADERS,
    NOT_NEEDED,
    PROJECT_PARTS,
    PYCUDA,
    PYTHON,
    TENSORRT,
    BundleError,
    BundlePlan,
)
from ddfd_trt.bundle.pycuda_build import FLAGS, build_pycuda
from ddfd_trt.bundle.python_tree import (
    COMPILER_LIBRARIES,
    PythonSource,
    copy_libraries,
    copy_python,
    inspect_python,
    unpacked_source,
)
from ddfd_trt.bundle.stubs import write_stubs
from ddfd_trt.bundle.wheels import download, own_constraints, project_of, unpack

SCRIPTS = Path(__file__).parent / "scripts"
PLUGINS = "libnvinfer_plugin.so.8"
FACTS = "facts.txt"
_SIDECARS = (".contract.json",)
_MODEL_SUFFIXES = (".onnx", ".json")


def find_python(plan: BundlePlan, tell: Tell) -> PythonSource:
    """The Python that was named, or one out of Debian packages in the cache."""
    if plan.python is not None:
        return PythonSource(plan.python)
    version = f"{PYTHON[0]}.{PYTHON[1]}"
    packages = (
        AptPackages()
        if plan.debian_mirror is None
        else MirrorPackages(plan.debian_mirror, plan.suite)
    )
    name = f"python-{version}-{digest(plan.debian_mirror, plan.suite)}"
    root = stage(plan.cache / name, lambda folder: unpack_python(packages, version, folder, tell))
    return unpacked_source(root, version)


def make_tree(
    plan: BundlePlan, tree: Path, tell: Tell, on_bytes: Callable[[int], None]
) -> dict[str, str]:
    """Fill ``tree``, which is emptied first.

    Returns:
        What is in it, for the manifest.

    Raises:
        BundleError: Something cannot be had, compiled or found.
    """
    source = find_python(plan, tell)
    facts = {"kind": plan.kind, "python": inspect_python(source)["version"]}
    wheels, tensorrt, pycuda = _gather(plan, source, facts["python"], tell)
    if tree.exists():
        shutil.rmtree(tree)
    tell(f"Python {facts['python']} and its libraries")
    copy_python(source, tree / "python")
    tell("packages")
    packages = tree / "packages"
    wanted = [wheel for wheel in wheels if project_of(wheel) not in NOT_NEEDED]
    unpack(wanted, packages, on_bytes=on_bytes)
    needed = (lambda name: BUILDER_LIBRARY not in name) if plan.kind == "run" else (lambda _: True)
    unpack(tensorrt, packages, keep=needed, on_bytes=on_bytes)
    shutil.copytree(pycuda / "pycuda", packages / "pycuda")
    tell("stub libraries")
    plugins = packages / "tensorrt" / PLUGINS
    functions = write_stubs(plugins, tree / "lib")
    copy_compiler_libraries(plugins, tree / "lib")
    facts |= {"tensorrt": TENSORRT.partition("==")[2], "pycuda": PYCUDA.partition("==")[2]}
    facts["stub_functions"] = str(functions)
    copy_project(plan.project, tree / "project", plan.models)
    facts["revision"] = revision(plan.project)
    # The fallback is used where a machine has no C++ library; it must not keep the others out.
    used = (path for path in elf_files(tree) if "fallback" not in path.parts)
    facts["glibc"] = "{}.{}".format(*newest_glibc(used))
    copy_scripts(SCRIPTS, tree, ("run.sh",))
    facts["unpacked_bytes"] = str(folder_bytes(tree))
    lines = [f"{key} {value}\n" for key, value in facts.items()]
    (tree / FACTS).write_text("".join(lines), encoding="utf-8")
    return facts


def copy_compiler_libraries(library: Path, folder: Path) -> None:
    """Copy this machine's C++ library for machines without one.

    Raises:
        BundleError: ``library`` does not load it from anywhere.
    """
    found = resolved_libraries([library], [folder, library.parent])
    wanted = {name: found[name] for name in COMPILER_LIBRARIES if name in found}
    if len(wanted) < len(COMPILER_LIBRARIES):
        raise BundleError(
            f"{library.name}: expected to load {', '.join(COMPILER_LIBRARIES)}, got "
            f"{', '.join(wanted) or 'none'}; install libstdc++"
        )
    copy_libraries(wanted, folder)


def _gather(
    plan: BundlePlan, source: PythonSource, version: str, tell: Tell
) -> tuple[list[Path], list[Path], Path]:
    """Wheels, TensorRT's wheel and the folder with pycuda, all from the cache where they are."""

    def packages(folder: Path) -> None:
        pins = own_constraints(plan.project, folder)
        download(source, plan.packages, folder, constraints=pins)
        pins.unlink()

    pins_text = (plan.project / "requirements" / "constraints.txt").read_text(encoding="utf-8")
    tell(f"downloading {', '.join(plan.packages)}")
    kept = plan.cache / f"wheels-{digest(plan.packages, pins_text, version)}"
    wheels = stage(kept, packages)
    tell(f"downloading {TENSORRT}: 819 MB")
    kept = plan.cache / f"tensorrt-{digest(TENSORRT, version)}"
    tensorrt = stage(kept, lambda to: _one_wheel(source, TENSORRT, to))
    kept = plan.cache / f"pycuda-{digest(PYCUDA, CUDA_HEADERS, BUILD_TOOLS, FLAGS, version)}"
    pycuda = stage(kept, lambda to: build_pycuda(source, to, tell))
    return sorted(wheels.glob("*.whl")), sorted(tensorrt.glob("*.whl")), pycuda


def _one_wheel(source: PythonSource, requirement: str, folder: Path) -> None:
    files = download(source, [requirement], folder, dependencies=False)
    if len(files) != 1:
        raise BundleError(f"{requirement}: expected one wheel, got {[f.name for f in files]}")


def copy_project(project: Path, target: Path, models: tuple[Path, ...] = ()) -> None:
    """Copy the code that runs engines, and models with their contracts.

    Checkpoints stay behind: without torch nothing reads them.
    """
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "results")
    for pattern in PROJECT_PARTS:
        found = sorted(project.glob(pattern))
        if not found:
            raise BundleError(
                f"project: expected {pattern} in {project}, got none; name a whole checkout with "
                "--project"
            )
        for path in found:
            to = target / path.relative_to(project)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, to, ignore=ignore)
            else:
                shutil.copy2(path, to)
    folder = target / "models"
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in _MODEL_SUFFIXES:
            path.unlink()
    for model in models:
        shutil.copy2(model, folder / model.name)
        for suffix in _SIDECARS:
            beside = model.with_name(model.name + suffix)
            if beside.is_file():
                shutil.copy2(beside, folder / beside.name)


def revision(project: Path) -> str:
    """The checkout's revision, ``unknown`` where git does not know it."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        text = run(command, folder=project, advice="install git")
    except BundleError:
        return "unknown"
    return text.strip() or "unknown"
