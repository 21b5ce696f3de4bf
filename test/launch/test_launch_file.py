"""The launch file: what it says without ROS's launch system, and what it does with it."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from lifecycle_msgs.srv import GetState

from ddfd_ros.ros.outputs import TOPICS
from ddfd_ros.ros.parameters import defaults

LAUNCH_FILE = "launch/ddfd.launch.py"


@pytest.fixture(scope="module")
def tree(repository):
    text = (repository / LAUNCH_FILE).read_text(encoding="utf-8")
    compile(text, LAUNCH_FILE, "exec")  # also what the parser alone lets pass
    return ast.parse(text)


def _declared_arguments(tree):
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    declared = [c for c in calls if getattr(c.func, "id", "") == "DeclareLaunchArgument"]
    assert all("description" in {keyword.arg for keyword in c.keywords} for c in declared)
    return {c.args[0].value for c in declared}


def test_the_arguments_used_are_the_arguments_declared(tree):
    used = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "value"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used | {"model_path", "runtime"} == _declared_arguments(tree)


def test_the_parameters_it_overrides_exist(tree):
    always = next(n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign))
    if_given = next(n for n in ast.walk(tree) if isinstance(n, ast.AugAssign))
    assert always.target.id == if_given.target.id == "overrides"
    names = {key.value for key in always.value.keys}
    names |= set(ast.literal_eval(if_given.value.generators[0].iter))
    assert len(names) == 3
    assert names <= set(defaults())


def test_its_topics_are_the_nodes(tree):
    values = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "OUTPUT_TOPICS"
    )
    assert set(values) == {topic for pair in TOPICS.values() for topic in pair}


def test_rviz_shows_topics_the_node_has(repository):
    config = yaml.safe_load((repository / "rviz/ddfd.rviz").read_text(encoding="utf-8"))
    shown = set()
    for display in config["Visualization Manager"]["Displays"]:
        shown.add(display.get("Topic", {}).get("Value"))
        shown |= {display.get("Depth Map Topic"), display.get("Color Image Topic")}
    known = {"/" + image for image, _ in TOPICS.values()}
    assert shown - {None} == known


def _installed_executable():
    """Where ``ros2 launch`` would look for the node; None when it is not installed there."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / "ddfd_ros" / "ddfd_node"
        if path.is_file():
            return path
    return None


@pytest.mark.parametrize("lifecycle", ["auto", "launch", "manual"])
def test_it_starts_the_node_and_ends_it_on_ctrl_c(repository, lifecycle):
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("needs launch_ros, which comes with a ROS 2 installation only")
    if _installed_executable() is None:
        pytest.skip("needs the package built with colcon and sourced")
    models = sorted((repository / "models").rglob("*.onnx"))
    if lifecycle != "manual" and not models:
        pytest.skip("needs a shipped model")
    command = [sys.executable, "-c", _PROGRAM, str(repository / LAUNCH_FILE)]
    command += [f"lifecycle:={lifecycle}", "namespace:=launched"]
    command += [f"model_path:={models[0]}"] if models else []
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wanted = "unconfigured" if lifecycle == "manual" else "active"
        assert _wait_for_state("/launched/ddfd", wanted) == wanted
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on ctrl-C
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


_PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [text.split(":=", 1) for text in sys.argv[2:]]
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


def _wait_for_state(node_name, wanted, timeout_s=40.0):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("observer", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = node.create_client(GetState, f"{node_name}/get_state")
    end, state = time.monotonic() + timeout_s, ""
    try:
        while state != wanted and time.monotonic() < end:
            if not client.wait_for_service(1.0):
                continue
            future = client.call_async(GetState.Request())
            executor.spin_until_future_complete(future, 5.0)
            state = future.result().current_state.label if future.done() else state
            time.sleep(0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    return state
