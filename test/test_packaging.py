"""What is declared fits what is imported, and what is installed is complete."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ddfd_ros
from ddfd_ros.core.commands import LateCommand

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12")
FILES = ("build", "runtime", "ros", "training", "demo", "dev")
PACKAGES = {
    "ddfd_ros": ROOT / "ddfd_ros",
    "ddfd_training": ROOT / "training" / "ddfd_training",
    "ddfd_trt": ROOT / "trt" / "ddfd_trt",
    "ddfd_demo": ROOT / "demo" / "ddfd_demo",
}
SHARED = [
    name for name in ("launch", "config", "rviz", "foxglove", "models") if (ROOT / name).is_dir()
]
# Installed by NVIDIA's own means where there is a GPU; parts of a ROS 2 installation that are used
# where they are there; and the stand-in that tests put on their path.
NOT_FROM_REQUIREMENTS = {
    "tensorrt",
    "pycuda",
    "cv_bridge",
    "sensor_msgs_py",
    "bond",
    "torchvision",  # only for a download of ImageNet weights
    "standin_gpu",
}
MESSAGES = {"builtin_interfaces", "diagnostic_msgs", "lifecycle_msgs", "rcl_interfaces"}
MESSAGES |= {"rosgraph_msgs", "sensor_msgs", "std_msgs", "std_srvs"}
# The wheels have no launch; files that use it run where ROS 2 is installed.
ROS_MODULES = MESSAGES | {"rclpy", "ament_index_python", "launch", "launch_ros"}


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def names(*files: str) -> set[str]:
    return {canonicalize_name(one.name) for file in files for one in requirements(file)}


def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def foreign_imports(*folders: Path) -> dict[str, str]:
    """Top-level names imported anywhere in ``folders``, standard library and project left out."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            found.update({name.partition(".")[0]: f"{path}:{node.lineno}" for name in modules})
    own = {*PACKAGES, "benchmarks", *sys.stdlib_module_names, *NOT_FROM_REQUIREMENTS}
    return {name: where for name, where in found.items() if name not in own}


def test_version_is_one():
    assert manifest().findtext("version") == ddfd_ros.__version__


def test_manifest_is_an_ament_python_package_of_format_3():
    root = manifest()
    assert root.get("format") == "3"
    assert root.findtext("export/build_type") == "ament_python"
    assert root.findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (ROOT / "resource" / str(root.findtext("name"))).is_file()


def test_manifest_names_the_ros_packages_that_are_imported():
    declared = {tag.text for tag in manifest().iter("exec_depend")}
    used = {
        name for name in foreign_imports(ROOT / "ddfd_ros", ROOT / "launch") if name in ROS_MODULES
    }
    assert used <= declared


def test_each_requirement_is_declared_once():
    seen: dict[str, str] = {}
    for file in FILES:
        for name in names(file):
            assert name not in seen, f"{name}: in {file}.txt and {seen[name]}.txt"
            seen[name] = file


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_exact_pin_that_fits(python):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    pins: dict[str, str] = {}
    for pin in requirements("constraints"):
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", f"{pin}: expected =="
            assert name not in pins, f"{name}: two pins for Python {python}"
            pins[name] = specifier.version
    for file in FILES:
        for one in requirements(file):
            assert one.specifier.contains(pins[canonicalize_name(one.name)]), f"{file}.txt: {one}"


def test_ros_wheels_are_pinned_where_they_are_asked_for():
    # Their newest releases belong to other distributions of ROS.
    assert all(str(one.specifier).startswith("==") for one in requirements("ros"))


def test_a_robot_installs_no_torch():
    heavy = {"torch", "lightning", "torchvision", "onnx", "tensorboard", "matplotlib", "scipy"}
    assert not names("runtime", "ros") & heavy


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="importlib.metadata knows too few packages' import names"
)
@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (
            ("ddfd_ros/bag", "ddfd_ros/core", "ddfd_ros/inference", "ddfd_ros/ros"),
            ("runtime", "ros"),
        ),
        (("ddfd_ros/model", "training", "trt"), ("runtime", "training")),
        (("demo", "benchmarks"), ("runtime", "ros", "training", "demo")),
        (("test",), FILES),
    ],
)
def test_what_is_imported_is_declared(folders, files):
    providers = importlib.metadata.packages_distributions()
    installed = {canonicalize_name(one) for many in providers.values() for one in many}
    declared = names(*files)
    if missing := {one for one in declared - installed if not one.startswith(("ros-", "types-"))}:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")
    if "ddfd_ros/inference" in folders:
        declared.add("torch")  # torch_backend.py alone, where the user has it
    for name, where in foreign_imports(*(ROOT / folder for folder in folders)).items():
        known = {canonicalize_name(one) for one in providers.get(name, [name])}
        if name in ROS_MODULES:
            known = {canonicalize_name(f"ros-{name if name in MESSAGES else 'rclpy'}")}
        assert known & declared, f"{where}: {name} is in none of {files}"


def test_sources_are_python_3_10():
    folders = [*PACKAGES.values(), ROOT / "benchmarks", ROOT / "launch", ROOT / "test"]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(paths) > 50
    for path in [*paths, ROOT / "setup.py", ROOT / "requirements" / "lock.py"]:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))


def copy_sources(target: Path, *left_out: str) -> Path:
    """Copies what a build needs to ``target``."""
    target.mkdir(parents=True)
    folders = [
        name
        for name in ("ddfd_ros", "training", "trt", "demo", "resource", "requirements", *SHARED)
        if name not in left_out
    ]
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in folders:
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for pattern in ("setup.*", "pyproject.toml", "package.xml", "MANIFEST.in", "LICENSE"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, target)
    return target


def build_wheel(source: Path, target: Path) -> zipfile.ZipFile:
    code = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    target.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=source, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (wheel,) = target.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    base = tmp_path_factory.mktemp("wheel")
    with build_wheel(copy_sources(base / "source"), base / "wheel") as archive:
        yield archive


def test_wheel_has_every_module(wheel):
    files = set(wheel.namelist())
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert len(expected) > 30
    assert not expected - files


def test_wheel_has_every_shared_file(wheel):
    data = f"ddfd_ros-{ddfd_ros.__version__}.data/data/share/"
    shared = {name.removeprefix(data) for name in wheel.namelist() if name.startswith(data)}
    expected = {"ament_index/resource_index/packages/ddfd_ros", "ddfd_ros/package.xml"}
    for folder in SHARED:
        expected |= {
            f"ddfd_ros/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
    assert shared == expected


def test_wheel_asks_a_robot_for_the_runtime_only(wheel):
    text = wheel.read(f"ddfd_ros-{ddfd_ros.__version__}.dist-info/METADATA").decode()
    lines = re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
    plain = {canonicalize_name(Requirement(one).name) for one in lines if "extra ==" not in one}
    assert plain == names("runtime")
    extras = set(re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE))
    assert extras == {"ros", "training", "demo", "test"}


def test_wheel_builds_without_the_shared_folders(tmp_path):
    source = copy_sources(tmp_path / "source", *SHARED, "demo")
    with build_wheel(source, tmp_path / "wheel") as archive:
        assert "ddfd_ros/core/thin_lens.py" in archive.namelist()


def test_commands_exist(wheel):
    text = wheel.read(f"ddfd_ros-{ddfd_ros.__version__}.dist-info/entry_points.txt").decode()
    commands = dict(re.findall(r"^(\S+) = (\S+)$", text, re.MULTILINE))
    assert set(commands) >= {
        "ddfd_node", "ddfd-train", "ddfd-evaluate", "ddfd-defocus", "ddfd-export", "ddfd-verify",
        "ddfd-bench",
    }  # fmt: skip
    pytest.importorskip("torch")
    for name, value in commands.items():
        loaded = importlib.metadata.EntryPoint(name, value, "console_scripts").load()
        command = loaded.load() if isinstance(loaded, LateCommand) else loaded
        assert callable(command), f"{name} = {value}"


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--symlink-install"]], ids=["copied", "linked"])
def test_colcon_builds_the_package(tmp_path, how):
    pytest.importorskip("colcon_ros", reason="colcon is not installed")
    copy_sources(tmp_path / "src" / "ddfd_ros")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-m", "colcon", "--log-base", "log", "build", *how],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr

    prefix = tmp_path / "install" / "ddfd_ros"
    assert os.access(prefix / "lib" / "ddfd_ros" / "ddfd_node", os.X_OK)
    share = prefix / "share"
    assert (share / "ament_index/resource_index/packages/ddfd_ros").is_file()
    for folder in SHARED:
        for path in (ROOT / folder).rglob("*.*"):
            if path.is_file() and path.suffix != ".pyc":
                assert (share / "ddfd_ros" / path.relative_to(ROOT)).is_file()
    # As a user would: the workspace sourced, from another folder.
    code = "import ddfd_ros.core.types as a, ddfd_training as b, ddfd_trt as c; print(a.__file__)"
    shell = f'. install/setup.bash && cd / && exec "{sys.executable}" -P -c "{code}"'
    if sys.version_info < (3, 11):
        shell = shell.replace(" -P ", " ")
    result = subprocess.run(
        ["bash", "-c", shell],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path)
