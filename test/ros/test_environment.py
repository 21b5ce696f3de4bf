"""The environment that the node prepares, and the Fast DDS profiles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.ros import environment

NAMESPACE = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"


class _FileSystem:
    def __init__(self, free):
        self.f_bavail, self.f_frsize = free // 4096, 4096


@pytest.mark.parametrize(
    ("free_mib", "name"),
    [
        (8000, "fastdds_shm_64mb.xml"),
        (64, "fastdds_shm_16mb.xml"),
        (20, None),
    ],
)
def test_the_profile_fits_the_shared_memory(monkeypatch, free_mib, name):
    monkeypatch.setattr("os.statvfs", lambda path: _FileSystem(free_mib << 20))
    profile = environment.suitable_profile()
    assert (profile and profile.name) == name


def test_nothing_that_is_set_is_touched():
    for name in environment.PROFILE_VARIABLES:
        environ = {name: "/mine.xml", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
        before = dict(environ)
        environment.prepare_environment(environ)
        assert environ == before
    environ = {environment.PROFILE_VARIABLES[0]: ""}  # deliberately none
    environment.prepare_environment(environ)
    assert environment.active_profile(environ) == ""


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        (None, "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("rolling", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_an_empty_environment_is_completed(monkeypatch, distribution, variable):
    monkeypatch.setattr("os.statvfs", lambda path: _FileSystem(1 << 30))
    environ = {} if distribution is None else {"ROS_DISTRO": distribution}
    environment.prepare_environment(environ)
    assert Path(environ[variable]).name == "fastdds_shm_64mb.xml"
    assert Path(environ[variable]).is_file()
    assert set(environ) <= {variable, "AMENT_PREFIX_PATH", "ROS_DISTRO"}
    assert environment.active_profile(environ) == environ[variable]
    if (Path(sys.prefix) / "share/rclpy").is_dir():
        assert environ["AMENT_PREFIX_PATH"] == sys.prefix


@pytest.mark.parametrize("megabytes", [16, 64])
def test_the_profiles_say_what_their_names_say(repository, megabytes):
    root = ElementTree.parse(repository / f"config/fastdds_shm_{megabytes}mb.xml").getroot()
    assert int(root.findtext(f".//{NAMESPACE}segment_size")) == megabytes << 20
    participant = root.find(f".//{NAMESPACE}participant")
    assert participant.get("is_default_profile") == "true"
    defined = {item.text for item in root.iterfind(f".//{NAMESPACE}transport_descriptor/*")}
    used = {item.text for item in participant.iterfind(f".//{NAMESPACE}transport_id")}
    assert len(used) == 2
    assert used <= defined


def test_fast_dds_takes_the_profile(tmp_path):
    """A node's shared-memory segment has the profile's size, and the profile no complaint."""
    if not Path("/dev/shm").is_dir() or environment.suitable_profile() is None:
        pytest.skip("no shared memory to speak of on this machine")
    program = (
        "import pathlib; from ddfd_ros.ros.environment import prepare_environment\n"
        "prepare_environment()\n"
        "import rclpy\n"
        "before = set(pathlib.Path('/dev/shm').glob('fast*'))\n"
        "rclpy.init(); node = rclpy.create_node('probe')\n"
        "new = set(pathlib.Path('/dev/shm').glob('fast*')) - before\n"
        "print(max(path.stat().st_size for path in new))\n"
        "node.destroy_node(); rclpy.shutdown()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    megabytes = 64 if "64" in environment.suitable_profile().name else 16
    assert int(result.stdout.split()[-1]) >= megabytes << 20
    assert "XMLPARSER" not in result.stdout + result.stderr


def test_a_profile_that_is_asked_for_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.xml").touch()
    named = environment.launch_environment("~/mine.xml")
    assert named[environment.profile_variable()] == str(tmp_path / "mine.xml")
    with pytest.raises(ValueError, match="fastdds_profile: expected a file"):
        environment.launch_environment("~/other.xml")


def test_models_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    share = tmp_path / "share" / "ddfd_ros"
    model = share / "models" / "some" / "our-model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert environment.resolve_model("our-model") == model
    assert environment.resolve_model(str(model)) == model
    weights = model.with_suffix(".pt")
    weights.write_bytes(b"x")
    assert environment.resolve_model("our-model") == model
    assert environment.resolve_model("our-model", ".pt") == weights
    with pytest.raises(ModelLoadError, match="--engine: expected"):
        environment.resolve_model("our-model", ".engine", parameter="--engine")
    for wrong in ("", "another", str(tmp_path / "missing.onnx")):
        with pytest.raises(ModelLoadError, match=r"expected a model file.*our-model.*got"):
            environment.resolve_model(wrong)


PARENT = """
import os, subprocess, sys
from ddfd_ros.ros.environment import launch_environment
child = "import time; from ddfd_ros.ros.environment import end_with_parent; end_with_parent()"
child += "; print('ready', flush=True); time.sleep(60)"
environ = os.environ | (launch_environment("none") if sys.argv[1] == "launched" else {})
process = subprocess.Popen([sys.executable, "-c", child], env=environ, stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a request to Linux")
@pytest.mark.parametrize("how", ["launched", "by hand"])
def test_a_launched_process_ends_with_its_parent_and_another_does_not(how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + (10.0 if how == "launched" else 0.5)
    while running(child) and time.monotonic() < end:
        time.sleep(0.02)
    alive = running(child)
    if alive:
        os.kill(child, signal.SIGKILL)
    assert alive == (how == "by hand")


def running(pid):
    """Whether a process runs; one that ended and waits for its new parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
