"""The launch files: what they say without ROS's launch system, and what they do with it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import rclpy
import yaml
from lifecycle_msgs.srv import GetState

from ddfd_ros.ros.compare_options import CompareOptions
from ddfd_ros.ros.outputs import (
    CLOUD,
    COLOUR,
    COMPRESSED,
    COMPRESSED_DEPTH,
    LATENCY_TOPIC,
    TOPICS,
    ZONES,
)
from ddfd_ros.ros.parameters import defaults

FILES = ("ddfd", "bag_replay", "field_test", "compare_depth")
NODE_TOPICS = {topic for pair in TOPICS.values() for topic in pair} | {CLOUD, COLOUR}


def path_of(repository, name):
    return repository / "launch" / f"{name}.launch.py"


@pytest.fixture(params=FILES)
def tree(repository, request):
    path = path_of(repository, request.param)
    text = path.read_text(encoding="utf-8")
    compile(text, str(path), "exec")  # also what the parser alone lets pass
    return ast.parse(text)


@pytest.fixture
def node_tree(repository):
    return ast.parse(path_of(repository, "ddfd").read_text(encoding="utf-8"))


def calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name
    ]


def constant(tree, name):
    return next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == name
    )


def declared_arguments(tree):
    return {call.args[0].value for call in calls(tree, "DeclareLaunchArgument")}


def test_every_argument_is_described(tree):
    declared = calls(tree, "DeclareLaunchArgument")
    assert declared
    assert all("description" in {keyword.arg for keyword in call.keywords} for call in declared)


def test_the_arguments_used_are_the_arguments_declared(tree):
    used = {call.args[0].value for call in calls(tree, "value") if hasattr(call.args[0], "value")}
    names = {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
    used |= (
        set(constant(tree, "PASSED_ON"))
        if "PASSED_ON" in names
        else set(constant(tree, "FORWARDED"))
    )
    assert used == declared_arguments(tree)


def test_what_is_passed_on_exists(repository, node_tree):
    known = declared_arguments(node_tree)
    for name in FILES[1:]:
        tree = ast.parse(path_of(repository, name).read_text(encoding="utf-8"))
        assert set(constant(tree, "PASSED_ON")) <= known


def test_the_parameters_it_overrides_exist(node_tree):
    always = next(
        n
        for n in ast.walk(node_tree)
        if isinstance(n, ast.AnnAssign) and n.target.id == "overrides"
    )
    names = {key.value for key in always.value.keys} | set(constant(node_tree, "FORWARDED"))
    assert names == {"autostart", "use_sim_time", "model_path", "runtime", "lens_calibration"}
    assert names - {"use_sim_time"} <= set(defaults())


def test_the_comparison_gets_parameters_it_has(repository):
    tree = ast.parse(path_of(repository, "compare_depth").read_text(encoding="utf-8"))
    (node,) = calls(tree, "Node")
    (parameters,) = next(k.value for k in node.keywords if k.arg == "parameters").elts
    names = {key.value for key in parameters.keys}
    assert names - {"use_sim_time"} <= set(CompareOptions.__dataclass_fields__)


def test_its_topics_are_the_nodes(repository, node_tree):
    assert set(constant(node_tree, "OUTPUT_TOPICS")) == NODE_TOPICS
    tree = ast.parse(path_of(repository, "field_test").read_text(encoding="utf-8"))
    recorded = {topic for topics in constant(tree, "OUTPUTS").values() for topic in topics}
    assert recorded == NODE_TOPICS - {COLOUR}


def test_a_field_test_records_the_images_that_the_node_subscribes_to(
    repository, tmp_path, monkeypatch
):
    field_test = import_without_launch(path_of(repository, "field_test"), monkeypatch)
    parameters = tmp_path / "parameters.yaml"

    def recorded(text):
        parameters.write_text(text, encoding="utf-8")
        topics = field_test._image_topics("image_raw", str(parameters))
        return field_test._recorded("front", [*topics, "camera_info"], "", "")[: len(topics) + 1]

    raw, compressed = "/front/image_raw", "/front/image_raw/compressed"
    node = "{}: {{ros__parameters: {{image_transport: {}}}}}\n"
    assert recorded("") == [raw, "/front/camera_info"]
    assert recorded(node.format("/**", "raw")) == [raw, "/front/camera_info"]
    assert recorded(node.format("/**", "compressed")) == [compressed, "/front/camera_info"]
    both = node.format("/**", "raw") + node.format("/front/ddfd", "compressed")
    assert set(recorded(both)) == {raw, compressed, "/front/camera_info"}
    shipped = field_test._image_topics("image_raw", repository / "config/ddfd.yaml")
    assert shipped == ["image_raw"]


def test_files_that_are_named_are_found_or_refused(repository, tmp_path, monkeypatch):
    """ROS's launch system starts a node whose file of parameters is missing with its defaults."""
    node = import_without_launch(path_of(repository, "ddfd"), monkeypatch)
    field_test = import_without_launch(path_of(repository, "field_test"), monkeypatch)
    for kind in ("LifecycleNode", "Node"):
        monkeypatch.setattr(node, kind, lambda **options: options)
    values = {"fastdds_profile": "none", "camera": "v4l2"}
    monkeypatch.setattr(
        node,
        "LaunchConfiguration",
        lambda name: SimpleNamespace(perform=lambda _: values.get(name, "")),
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("robot.yaml", "camera.yaml"):
        (tmp_path / name).write_text("/**: {ros__parameters: {image_transport: compressed}}\n")
    values |= {"params_file": "~/robot.yaml", "camera_params_file": "~/camera.yaml"}
    started, driver = node._actions(None)
    assert started["parameters"][0] == str(tmp_path / "robot.yaml")
    assert driver["parameters"] == [str(tmp_path / "camera.yaml")]
    assert field_test._image_topics("a", "~/robot.yaml") == ["a/compressed"]
    for name in ("params_file", "camera_params_file"):
        before, values[name] = values[name], "~/misspelt.yaml"
        with pytest.raises(ValueError, match=f"{name}: expected a file, got '~/misspelt.yaml'"):
            node._actions(None)
        values[name] = before


def test_a_replay_plays_recorded_answers_beside_those_of_the_node(repository, monkeypatch):
    replay = import_without_launch(path_of(repository, "bag_replay"), monkeypatch)
    further = {ZONES, COMPRESSED, COMPRESSED_DEPTH, LATENCY_TOPIC}
    assert set(replay.ANSWERS) == NODE_TOPICS | further
    rules = replay._apart("")
    assert "/depth/image_rect:=/recorded/depth/image_rect" in rules
    assert "/diagnostics:=/recorded/diagnostics" in rules
    both = replay._apart("front, /rear")
    assert "/front/points:=/recorded/front/points" in both
    assert "/rear/latency:=/recorded/rear/latency" in both
    monkeypatch.setattr(replay, "ExecuteProcess", lambda **options: options)
    monkeypatch.setenv("HOME", "/home/rider")
    values = {"bag": "~/ride", "rate": "1.0", "start": "0.0", "loop": "true"}
    played = []
    monkeypatch.setattr(
        replay, "OnProcessExit", lambda target_action, **_: played.append(target_action)
    )
    monkeypatch.setattr(
        replay,
        "LaunchConfiguration",
        lambda name: SimpleNamespace(perform=lambda _: values.get(name, "")),
    )
    values["end"] = "true"
    replay._actions(None)
    command = played[0]["cmd"]
    assert command[:4] == ["ros2", "bag", "play", "/home/rider/ride"]
    assert command[command.index("--remap") + 1 :] == rules


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (("configuring", "inactive"), False),
        (("configuring", "unconfigured"), True),
        (("activating", "active"), False),
        (("activating", "inactive"), True),
        (("deactivating", "inactive"), False),
        (("cleaningup", "unconfigured"), False),
        (("activating", "errorprocessing"), False),  # where it ends is still to come
        (("errorprocessing", "unconfigured"), True),
        (("errorprocessing", "finalized"), True),
    ],
)
def test_a_replay_ends_when_the_node_cannot_be_brought_up(repository, monkeypatch, change, failed):
    replay = import_without_launch(path_of(repository, "bag_replay"), monkeypatch)
    monkeypatch.setattr(replay, "StateTransition", SimpleNamespace)
    start, goal = change
    assert replay._cannot_start(SimpleNamespace(start_state=start, goal_state=goal)) is failed
    assert replay._cannot_start(object()) is False


def import_without_launch(path, monkeypatch):
    """A launch file as a module; ROS's launch system may be missing."""
    for name in [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]:
        if name.partition(".")[0] in ("launch", "launch_ros"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
    spec = importlib.util.spec_from_file_location("field_test_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rviz_shows_topics_the_node_has(repository):
    config = yaml.safe_load((repository / "rviz/ddfd.rviz").read_text(encoding="utf-8"))
    shown = set()
    for display in config["Visualization Manager"]["Displays"]:
        shown.add(display.get("Topic", {}).get("Value"))
        shown |= {display.get("Depth Map Topic"), display.get("Color Image Topic")}
    shown -= {None}
    assert {topic.removeprefix("/") for topic in shown} <= NODE_TOPICS
    assert {"/depth/color", "/all_in_focus/image", "/uncertainty/image", "/points"} <= shown


def test_foxglove_shows_topics_the_node_has(repository):
    layout = json.loads((repository / "foxglove/ddfd.json").read_text(encoding="utf-8"))

    def topics(value):
        if isinstance(value, dict):
            for key, item in value.items():
                named = key in ("imageTopic", "calibrationTopic", "topicToRender")
                if named and isinstance(item, str):
                    yield item
                elif key == "topics":
                    yield from item
                else:
                    yield from topics(item)
        elif isinstance(value, list):
            for item in value:
                yield from topics(item)

    def panels(place):
        if isinstance(place, str):
            return {place}
        return panels(place["first"]) | panels(place["second"])

    shown = set(topics(layout["configById"]))
    assert len(shown) >= 6
    assert {topic.removeprefix("/") for topic in shown} <= NODE_TOPICS | {"diagnostics"}
    assert panels(layout["layout"]) == set(layout["configById"])


def installed_executable():
    """Where ``ros2 launch`` would look for the node; None when it is not installed there."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / "ddfd_ros" / "ddfd_node"
        if path.is_file():
            return path
    return None


@pytest.fixture
def launch_system():
    """Skips where ROS's launch system or the installed package is missing."""
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("needs launch_ros, which comes with a ROS 2 installation only")
    if installed_executable() is None:
        pytest.skip("needs the package built with colcon and sourced")


PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

source = PythonLaunchDescriptionSource(sys.argv[1])
if sys.argv[2:] == ["--show-args"]:
    from launch import LaunchContext
    for argument in source.get_launch_description(LaunchContext()).get_launch_arguments():
        print(argument.name)
    sys.exit(0)
arguments = [text.split(":=", 1) for text in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


@pytest.mark.usefixtures("launch_system")
@pytest.mark.parametrize("name", FILES)
def test_they_show_their_arguments(repository, name):
    path = path_of(repository, name)
    command = [sys.executable, "-c", PROGRAM, str(path), "--show-args"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    declared = declared_arguments(ast.parse(path.read_text(encoding="utf-8")))
    assert set(result.stdout.split()) == declared


class Launched:
    """A launch file in a process group of its own."""

    def __init__(self, repository, name, *arguments):
        command = [sys.executable, "-c", PROGRAM, str(path_of(repository, name)), *arguments]
        self.process = subprocess.Popen(command, start_new_session=True)

    def end(self, number, everyone):
        """Send a signal, to the whole group (as a terminal does) or the launch process alone."""
        (os.killpg if everyone else os.kill)(self.process.pid, number)
        return self.process.wait(20)

    def alive(self):
        """Whether any process of the group lives."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        if self.alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def model_argument(repository):
    return f"model_path:={sorted((repository / 'models').rglob('*.onnx'))[-1]}"


@pytest.mark.usefixtures("launch_system")
@pytest.mark.parametrize("lifecycle", ["auto", "launch", "manual"])
def test_it_starts_the_nodes_and_ends_them_on_ctrl_c(repository, lifecycle):
    launched = Launched(
        repository,
        "ddfd",
        f"lifecycle:={lifecycle}",
        "namespace:=front,rear",
        model_argument(repository),
    )
    try:
        wanted = "unconfigured" if lifecycle == "manual" else "active"
        assert wait_for_state("/front/ddfd", wanted) == wanted
        assert wait_for_state("/rear/ddfd", wanted) == wanted
        assert launched.end(signal.SIGINT, everyone=True) == 0
    finally:
        launched.kill()


@pytest.mark.usefixtures("launch_system")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_node_outlives_its_launch_process(repository, number):
    launched = Launched(repository, "ddfd", "namespace:=alone", model_argument(repository))
    try:
        assert wait_for_state("/alone/ddfd", "active") == "active"
        launched.end(number, everyone=False)
        end = time.monotonic() + 10
        while launched.alive() and time.monotonic() < end:
            time.sleep(0.1)
        assert not launched.alive()
    finally:
        launched.kill()


@pytest.mark.usefixtures("launch_system")
def test_a_replay_ends_when_the_node_cannot_be_configured(repository, tmp_path):
    """The player waits for the node to become active: it would wait forever."""
    missing = f"model_path:={tmp_path / 'missing.onnx'}"
    launched = Launched(repository, "bag_replay", f"bag:={tmp_path}", missing)
    try:
        launched.process.wait(60)
        assert not launched.alive()
    finally:
        launched.kill()


@pytest.mark.usefixtures("launch_system")
def test_a_field_test_leaves_a_summary(repository, tmp_path):
    launched = Launched(
        repository,
        "field_test",
        f"folder:={tmp_path}",
        "record:=false",
        "namespace:=field",
        model_argument(repository),
    )
    try:
        assert wait_for_state("/field/ddfd", "active") == "active"
        time.sleep(2.5)
        assert launched.end(signal.SIGINT, everyone=True) == 0
    finally:
        launched.kill()
    (path,) = tmp_path.glob("*/summary.json")
    summary = json.loads(path.read_text(encoding="utf-8"))
    said = summary["statuses"]["field/ddfd"]["said"]
    assert any("no frames arrive" in one["message"] for one in said)


@pytest.mark.usefixtures("launch_system")
def test_the_comparison_runs_beside_the_node(repository, tmp_path):
    launched = Launched(
        repository,
        "compare_depth",
        "namespace:=compared",
        "reference_image_topic:=/other/depth",
        "reference_camera_info_topic:=/other/camera_info",
        f"summary_file:={tmp_path / 'errors.json'}",
        model_argument(repository),
    )
    try:
        assert wait_for_state("/compared/ddfd", "active") == "active"
        assert launched.end(signal.SIGINT, everyone=True) == 0
    finally:
        launched.kill()
    errors = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))
    assert errors["frames"] == 0


def wait_for_state(node_name, wanted, timeout_s=60.0):
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
