"""Who may import whom: the table of docs/architecture.md, enforced.

Twice: every import statement is read, those inside functions too; and every module is imported in
a process of its own in which the packages that its layer must do without cannot be found.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ("ddfd_ros", "ddfd_training", "ddfd_trt", "ddfd_demo", "benchmarks")
MESSAGES = {"builtin_interfaces", "diagnostic_msgs", "lifecycle_msgs", "rcl_interfaces"}
MESSAGES |= {"sensor_msgs", "std_msgs", "std_srvs"}
ROS = {"rclpy", "ament_index_python", *MESSAGES}
GPU = {"tensorrt", "pycuda"}
CPU_RUNTIMES = {"onnxruntime", "openvino"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Layer:
    """One row of the table.

    Attributes:
        package: Dotted name.
        folder: Where its files lie.
        project: Project packages that it may import, besides itself.
        third_party: Foreign packages that it may import at any place; None: all but ``absent``.
        lazily: Foreign packages that it may import inside functions only.
        modules: What single modules may import on top of that: the one place for a heavy package.
        absent: Packages that importing a module must not need (except those of ``modules``).
        needs: Packages that importing a module does need.
    """

    package: str
    folder: str
    project: tuple[str, ...] = ()
    third_party: frozenset[str] | None = None
    lazily: frozenset[str] = frozenset()
    modules: dict[str, frozenset[str]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()


LAYERS = (
    Layer(
        "ddfd_ros.core",
        "ddfd_ros/core",
        third_party=frozenset({"numpy"}),
        lazily=frozenset({"cv2"}),  # compressed images and Bayer patterns
        absent=frozenset({"cv2", "yaml", "torch", *ROS, *GPU, *CPU_RUNTIMES}),
    ),
    Layer(
        "ddfd_ros.model",
        "ddfd_ros/model",
        project=("ddfd_ros.core",),
        third_party=frozenset({"numpy", "torch"}),
        absent=frozenset({"cv2", *ROS, *GPU, *CPU_RUNTIMES}),
        needs=("torch",),
    ),
    Layer(
        "ddfd_ros.inference",
        "ddfd_ros/inference",
        project=("ddfd_ros.core",),
        third_party=frozenset({"numpy"}),
        modules={
            "onnx_backend": frozenset({"onnxruntime"}),
            "openvino_backend": frozenset({"openvino"}),
            "cuda_session": frozenset({"pycuda"}),
            "deblur_stage": frozenset(CPU_RUNTIMES),
            "tensorrt_backend": frozenset(GPU),
            "torch_backend": frozenset({"torch", "ddfd_ros.model"}),
        },
        absent=frozenset({"torch", *ROS, *GPU, *CPU_RUNTIMES}),
    ),
    Layer(
        "ddfd_ros.ros",
        "ddfd_ros/ros",
        project=("ddfd_ros.core", "ddfd_ros.inference"),
        third_party=frozenset({"numpy", *ROS}),
        modules={  # used where they are installed
            "bond": frozenset({"bond"}),
            "cloud": frozenset({"sensor_msgs_py"}),
            "decoding": frozenset({"cv_bridge"}),
            "lens_file": frozenset({"yaml"}),
        },
        absent=frozenset({"torch", *GPU, *CPU_RUNTIMES}),
        needs=("rclpy",),
    ),
    Layer(
        "ddfd_ros.bag",
        "ddfd_ros/bag",
        project=(
            "ddfd_ros.core",
            "ddfd_ros.inference",
            # The node's parameters and what they mean, which need no ROS.
            "ddfd_ros.ros.lens",
            "ddfd_ros.ros.parameters",
        ),
        third_party=frozenset({"numpy", "rich", "rosbags", "yaml"}),
        absent=frozenset({"torch", *ROS, *GPU, *CPU_RUNTIMES}),
        needs=("rosbags", "rich", "yaml"),
    ),
    Layer(
        "ddfd_training",
        "training/ddfd_training",
        project=("ddfd_ros.core", "ddfd_ros.model"),
        modules={
            # To score exported models as the robot runs them.
            "evaluate_cli": frozenset({"ddfd_ros.inference"}),
            "evaluate_deblur": frozenset({"ddfd_ros.inference"}),
            "lens_scores_cli": frozenset({"ddfd_ros.inference"}),
        },
        absent=frozenset({*ROS, *GPU}),
        needs=("torch", "lightning"),
    ),
    Layer(
        "ddfd_trt",
        "trt/ddfd_trt",
        project=("ddfd_ros.core", "ddfd_ros.model", "ddfd_ros.inference"),
        absent=frozenset({*ROS, *GPU}),
        needs=("torch", "onnx", "onnxruntime"),
    ),
    Layer(
        "ddfd_demo",
        "demo/ddfd_demo",
        project=(
            "ddfd_ros.core",
            "ddfd_ros.inference",  # to read a model's contract
            "ddfd_ros.ros",
            "ddfd_training.datasets",
            "ddfd_training.depth_fill",
            "ddfd_training.metrics",
            "ddfd_training.optics",
            "ddfd_training.registration",
            "ddfd_training.synthetic",
        ),
        absent=frozenset(GPU),
        needs=("rclpy", "torch", "skimage"),
    ),
)
BY_NAME = [pytest.param(layer, id=layer.package) for layer in LAYERS]


@dataclass(frozen=True)
class Import:
    """One import: the dotted name, its line, and whether only a function call runs it."""

    name: str
    line: int
    in_function: bool


def sources(layer: Layer) -> dict[str, Path]:
    """The layer's files by dotted module name."""
    folder = ROOT / layer.folder
    result = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [layer.package, *path.relative_to(folder).with_suffix("").parts]
        result[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return result


def is_type_checking(node: ast.AST) -> bool:
    """Whether ``node`` is an ``if TYPE_CHECKING:``, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imported_names(node: ast.AST, package: str) -> list[str]:
    """The dotted names that ``node`` itself imports; relative ones resolved within ``package``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = importlib.util.resolve_name("." * node.level + base, package)
        # The imported thing may be a module: ``from ddfd_ros import ros`` imports ddfd_ros.ros.
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def imports(text: str, package: str) -> Iterator[Import]:
    """All imports of a module with source ``text`` whose package is ``package``."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for name in imported_names(node, package):
            yield Import(name, node.lineno, in_function)
        inside = in_function or isinstance(node, FUNCTIONS) or is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(text), False)


def within(name: str, packages: frozenset[str] | set[str] | tuple[str, ...]) -> bool:
    """Whether ``name`` is one of ``packages`` or lies inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def fault(layer: Layer, module: str, found: Import) -> str | None:
    """What is wrong with ``found`` in ``module`` of ``layer``; None when it is allowed."""
    extra = layer.modules.get(module.rpartition(".")[2], frozenset())
    top = found.name.partition(".")[0]
    if within(found.name, {layer.package, *layer.project}) or within(found.name, extra):
        return None
    if top in PROJECT:
        return f"may import of the project {[layer.package, *layer.project]} only"
    if top in sys.stdlib_module_names:
        return None
    if layer.third_party is None:
        return "must not import it" if top in layer.absent else None
    if top in layer.third_party or (found.in_function and top in layer.lazily):
        return None
    if top in layer.lazily:
        return "may import it inside functions only"
    return f"may import {sorted(layer.third_party | layer.lazily)} and the standard library only"


def faults(layer: Layer, module: str, text: str, package: str) -> list[str]:
    """The faults of one module, one line of text each."""
    return [
        f"{module}:{found.line}: imports {found.name}; {layer.package} {reason}"
        for found in imports(text, package)
        if (reason := fault(layer, module, found))
    ]


@pytest.mark.parametrize("layer", BY_NAME)
def test_imports_follow_the_table(layer):
    modules = sources(layer)
    assert modules, f"{layer.folder}: no modules"
    found = []
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found += faults(layer, module, path.read_text(encoding="utf-8"), package)
    assert not found, "\n" + "\n".join(found)


def test_every_module_belongs_to_a_layer():
    covered = {path for layer in LAYERS for path in sources(layer).values()}
    top = ROOT / "ddfd_ros" / "__init__.py"
    roots = [ROOT / "ddfd_ros", ROOT / "training", ROOT / "trt", ROOT / "demo"]
    assert {path for root in roots for path in root.rglob("*.py")} == {top, *covered}
    assert not list(imports(top.read_text(encoding="utf-8"), "ddfd_ros"))


@pytest.mark.parametrize(
    ("package", "module", "text"),
    [
        ("ddfd_ros.core", "x", "import torch"),
        ("ddfd_ros.core", "x", "import cv2"),
        ("ddfd_ros.core", "x", "def f():\n    import sensor_msgs.msg"),
        ("ddfd_ros.core", "x", "from .. import ros"),
        ("ddfd_ros.core", "x", "from ..inference.base import Backend"),
        ("ddfd_ros.core", "x", "import importlib\nimportlib.import_module('rclpy.node')"),
        ("ddfd_ros.inference", "base", "import onnxruntime"),
        ("ddfd_ros.inference", "onnx_backend", "import torch"),
        ("ddfd_ros.inference", "factory", "from ddfd_ros.model import build_network"),
        ("ddfd_ros.ros", "node", "class A:\n    def f(self):\n        import torch"),
        ("ddfd_training", "x", "try:\n    import rclpy\nexcept ImportError:\n    pass"),
        ("ddfd_training", "x", "from ddfd_ros.ros.node import DdfdNode"),
        ("ddfd_demo", "x", "from ddfd_training.losses import l1_depth"),
    ],
)
def test_the_reader_sees(package, module, text):
    layer = next(layer for layer in LAYERS if layer.package == package)
    assert faults(layer, f"{package}.{module}", text, package)


@pytest.mark.parametrize(
    ("package", "module", "text"),
    [
        ("ddfd_ros.core", "x", "import json\nimport numpy as np\nfrom .types import Frame"),
        ("ddfd_ros.core", "x", "def f():\n    import cv2"),
        ("ddfd_ros.inference", "onnx_backend", "import onnxruntime"),
        ("ddfd_ros.inference", "torch_backend", "import ddfd_ros.model, torch"),
        ("ddfd_training", "x", "from ddfd_ros.core import types\nimport h5py"),
    ],
)
def test_the_reader_lets_pass(package, module, text):
    layer = next(layer for layer in LAYERS if layer.package == package)
    assert not faults(layer, f"{package}.{module}", text, package)


BLOCKED_IMPORT = '''
import importlib, json, os, sys, tempfile, traceback

first, jobs = json.loads(sys.argv[1])


class Hiding:
    """A finder that does not see some packages, as if they were not installed."""

    def __init__(self, finder, absent):
        self.finder, self.absent = finder, absent

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in self.absent
        return None if hidden else self.finder.find_spec(name, path, target)


def run(absent, modules):
    present = {name.partition(".")[0] for name in sys.modules}.intersection(absent)
    assert not present, f"{present}: imported before they could be hidden"
    sys.meta_path[:] = [Hiding(finder, absent) for finder in sys.meta_path]
    for module in modules:
        importlib.import_module(module)


for name in first:
    importlib.import_module(name)
results = []
for job in jobs:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            try:
                run(*job)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        results.append([status, said.read().decode(errors="replace")])
print(json.dumps(results))
'''


# Found before any test puts a stand-in for a GPU's packages on the path.
INSTALLED = {
    name
    for layer in LAYERS
    for name in {*layer.needs, *layer.absent, *(n for ns in layer.modules.values() for n in ns)}
    if importlib.util.find_spec(name) is not None
}


Job = tuple[frozenset[str], tuple[str, ...]]
"""Packages that cannot be found, and the modules to import without them."""


def run_jobs(jobs: Sequence[Job], first: Sequence[str] = ()) -> dict[Job, tuple[int, str]]:
    """Does each job in a fork of a fresh process that has imported ``first``: status, stderr."""
    folders = [str(ROOT), str(ROOT / "training"), str(ROOT / "trt"), str(ROOT / "demo")]
    code = f"import sys; sys.path[:0] = {folders}\n{BLOCKED_IMPORT}"
    told = json.dumps([list(first), [[sorted(absent), modules] for absent, modules in jobs]])
    command = [sys.executable, "-c", code, told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])  # a package may print when it is imported
    return dict(zip(jobs, map(tuple, found), strict=True))


@lru_cache(maxsize=1)
def results_with_torch() -> dict[Job, tuple[int, str]]:
    """Of all jobs that may import torch: that takes longer than all else, and is done once."""
    jobs = [plain_job(layer) for layer in LAYERS]
    jobs += [
        (layer.absent - allowed, tuple(modules))
        for layer in LAYERS
        for allowed, modules in alike(layer).items()
    ]
    return run_jobs([job for job in jobs if "torch" not in job[0]], ["torch"])


def run_blocked(job: Job) -> tuple[int, str]:
    """Exit status and stderr of a process in which a job is done."""
    return run_jobs([job])[job] if "torch" in job[0] else results_with_torch()[job]


def plain_job(layer: Layer) -> Job:
    """The layer's modules that may not import more than the others."""
    modules = [
        module
        for module in sources(layer)
        if module.rpartition(".")[2] not in {*layer.modules, "__main__"}
    ]
    return layer.absent, tuple(modules)


@pytest.mark.parametrize("layer", BY_NAME)
def test_modules_import_without_what_they_must_not_need(layer):
    for name in layer.needs:
        pytest.importorskip(name)
    status, said = run_blocked(plain_job(layer))
    assert status == 0, said


def alike(layer: Layer) -> dict[frozenset[str], list[str]]:
    """The layer's modules that may import more, by what they may: each such set is one import."""
    found: dict[frozenset[str], list[str]] = {}
    for module in sources(layer):
        if allowed := layer.modules.get(module.rpartition(".")[2]):
            found.setdefault(allowed, []).append(module)
    return found


@pytest.mark.parametrize(
    ("layer", "allowed", "modules"),
    [
        pytest.param(layer, allowed, modules, id="-".join(modules))
        for layer in LAYERS
        for allowed, modules in alike(layer).items()
    ],
)
def test_the_few_modules_need_only_what_they_are_for(layer, allowed, modules):
    for name in {*allowed, *layer.needs}:
        if name not in INSTALLED:
            pytest.skip(f"could not import '{name}'")
    status, said = run_blocked((layer.absent - allowed, tuple(modules)))
    assert status == 0, said


def test_blocking_blocks():
    (result,) = run_jobs([(frozenset({"numpy"}), ("ddfd_ros.core.types",))]).values()
    assert result[0] != 0
    assert "No module named 'numpy'" in result[1]
    # Likewise in a process that has imported something first.
    (result,) = run_jobs([(frozenset({"cv2"}), ("json", "cv2"))], ["numpy"]).values()
    assert "No module named 'cv2'" in result[1]
