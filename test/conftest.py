"""The environment of all tests: set before anything imports rclpy, and inherited by children."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddfd_ros.ros.domains import ReservedDomain
from ddfd_ros.ros.environment import prepare_environment

REPOSITORY = Path(__file__).resolve().parents[1]

# A domain of its own for each process of tests, the workers of one run too: those inherit the
# domain of the process that started them.
if "PYTEST_XDIST_WORKER" in os.environ or "ROS_DOMAIN_ID" not in os.environ:
    _domain = ReservedDomain()
    os.environ["ROS_DOMAIN_ID"] = str(_domain.id)
# The tests talk to this machine alone: the first variable is Humble's, the second its successor.
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# Workers share the processor: threads that wait for one by spinning would cost the other its time.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
# A shell's script that runs the tests in the background has SIGINT ignored, and every process that
# they start would have, until it sets a handler of its own.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Messages check the type of what is assigned to their fields.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="ddfd_ros_log_"))
# Plots are written, never shown.
os.environ.setdefault("MPLBACKEND", "Agg")
prepare_environment()

# On a robot, `colcon test` has neither torch nor the tools of export: the folders that need them
# are left out there, and the report says so. `make test` installs everything.
NEEDS = {
    "bag": ("onnxruntime", "rich", "rosbags"),
    "demo": ("rclpy", "skimage", "torch"),
    "inference": ("onnx", "onnxruntime"),
    "launch": ("rclpy",),
    "model": ("torch",),
    "ros": ("rclpy", "onnx", "onnxruntime"),
    "training": ("lightning", "scipy", "skimage", "torch"),
    "trt": ("onnx", "onnxruntime", "torch"),
}
LEFT_OUT = {
    folder: missing
    for folder, needs in NEEDS.items()
    if (missing := [name for name in needs if importlib.util.find_spec(name) is None])
}
collect_ignore = sorted(LEFT_OUT)


# Of several processes that share the files, none is to be left with one of these at the end.
LONGEST = (
    "trt/test_export_parity.py",
    "ros/test_engine_node.py",
    "ros/test_fuzz_messages.py",
    "trt/test_engine_build.py",
    "demo/test_chain.py",
    "trt/test_gpu_benchmark.py",
    "training/test_calibration.py",
    "training/test_trainer.py",
    "training/test_processes.py",
    "trt/test_lens_input.py",
    "ros/test_lifecycle.py",
    "training/test_onboard.py",
    "training/test_any_lens.py",
    "trt/test_export_onnx.py",
)


# Importing makes a million objects that stay. Searching them for garbage again and again is a
# fifth of the time of collecting, and some of that of the tests.
gc.disable()


def pytest_collection_finish() -> None:
    """Search what the tests make only, not what was imported before."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; then mix those that compute with those that wait."""
    first = {REPOSITORY / "test" / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in first), "LONGEST: expected files of test/"
    rest = [path for path in dict.fromkeys(item.path for item in items) if path not in first]
    waiting = [path for path in rest if path.parent.name == "ros"]
    computing = [path for path in rest if path.parent.name != "ros"]
    places: dict[Path, float] = dict(first)
    for paths in (waiting, computing):
        places |= {path: len(first) + place / len(paths) for place, path in enumerate(paths)}
    items.sort(key=lambda item: places[item.path])


def pytest_report_header() -> list[str]:
    """Names the folders that are left out, and why."""
    return [
        f"left out: test/{name}: {', '.join(LEFT_OUT[name])} not installed" for name in LEFT_OUT
    ]


@pytest.fixture
def ros_domain() -> Iterator[int]:
    """A ROS domain in which nobody else is heard."""
    with ReservedDomain() as domain:
        yield domain.id


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the research data sets; a test that asks for it is skipped without it."""
    root = Path(os.environ.get("DDFD_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data sets at {root}; set DDFD_DATA to their folder")
    return root
