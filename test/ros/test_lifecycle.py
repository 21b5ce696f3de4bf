"""Transitions, failures to load, impossible requests, and the end of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from lifecycle_msgs.msg import TransitionEvent
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ddfd_ros.ros.node import DdfdNode


def _load() -> float:
    """By how much this machine is overloaded, 1 when it is not: durations stretch as much."""
    return max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def test_all_transitions_by_request(stage, tools):
    node = stage.start(autostart=False)
    peer = stage.peer
    assert peer.state() == "unconfigured"
    assert peer.report(state="unconfigured")["level"] == "1"
    assert not peer.transition("activate")  # impossible here: refused, and the node lives
    assert "['configure', 'shutdown']" in node.log or "Unable to start transition" in node.log

    assert peer.transition("configure")
    assert peer.state() == "inactive"
    assert peer.report(state="inactive")["runtime"] == "onnxruntime"
    assert peer.camera.get_subscription_count() == 0

    assert peer.transition("activate")
    peer.wait_for_camera()
    peer.listen("depth")
    message = tools.image_message(tools.picture())
    assert peer.answer("depth", peer.send(message)) is not None
    assert not peer.transition("cleanup")

    assert peer.transition("deactivate")
    assert peer.spin_until(lambda: peer.camera.get_subscription_count() == 0)
    assert peer.answer("depth", peer.send(message), timeout_s=0.3) is None

    assert peer.transition("activate")  # a second time: nothing was left behind
    peer.wait_for_camera()
    assert peer.answer("depth", peer.send(message)) is not None
    assert peer.transition("deactivate")
    assert peer.transition("cleanup")
    assert peer.state() == "unconfigured"
    assert peer.spin_until(lambda: peer.node.count_publishers("depth/image_rect") == 0)

    assert peer.set(threads=2, max_sigma_m=0.5) == ["", ""]  # no model is loaded: all may change
    assert peer.transition("configure")
    assert peer.transition("activate")
    peer.wait_for_camera()
    peer.spin_until(lambda: peer.node.count_publishers("depth/image_rect") == 1)
    peer.spin_for(0.3)
    assert peer.answer("depth", peer.send(message)) is not None

    assert peer.transition("active_shutdown")
    assert peer.state() == "finalized"
    assert peer.report(state="finalized")
    assert not peer.transition("configure")
    assert node.stop()[0] == 0


@pytest.mark.parametrize("state", ["unconfigured", "inactive"])
def test_shutdown_from_other_states(stage, state):
    node = stage.start(autostart=False)
    if state == "inactive":
        assert stage.peer.transition("configure")
    assert stage.peer.transition(f"{state}_shutdown")
    assert stage.peer.state() == "finalized"
    assert node.stop(signal.SIGTERM)[0] == 0


def test_a_model_that_cannot_be_loaded_refuses_and_can_be_corrected(stage, tools):
    good = tools.write_model(stage.folder / "good.onnx")
    truncated = stage.folder / "truncated.onnx"
    truncated.write_bytes(good.read_bytes()[:300])
    foreign = stage.folder / "foreign.txt"
    foreign.write_text("not a model")
    misfit = tools.write_model(stage.folder / "misfit.onnx", outputs=("depth_m", "defocus_px"))
    wrong = stage.folder / "wrong.onnx"
    golden = tools.make_golden(tools.reference(tools.golden_image(64, 96, 2)), 64, 96)
    tools.write_model(wrong, golden=golden)  # answers of another picture
    missing = stage.folder / "missing.onnx"
    node = stage.start(model_path=missing)
    peer = stage.peer
    values = peer.report(level="2")  # autostart has tried
    assert "missing.onnx" in values["message"]
    for path, said in (
        (missing, ["expected a model file", "missing.onnx", "check model_path"]),
        (truncated, ["truncated.onnx", "export"]),
        (foreign, ["foreign.txt", "expected"]),
        (misfit, ["expected", "defocus_px", "export"]),
        (wrong, ["self-test", "expected", "got", "export"]),
    ):
        assert peer.set(model_path=str(path)) == [""]
        log_before = len(node.log)
        assert not peer.transition("configure")
        assert peer.state() == "unconfigured"
        message = peer.report(level="2")["message"]
        for words in said:
            assert words in node.log[log_before:], (path.name, node.log[log_before:])
            assert words in message
    assert peer.set(model_path=str(good)) == [""]
    assert peer.transition("configure")
    assert peer.transition("activate")
    peer.wait_for_camera()
    peer.listen("depth")
    stamp = peer.send(tools.image_message(tools.picture()))
    assert peer.answer("depth", stamp) is not None
    assert peer.report(state="active")["level"] != "2"


def test_why_the_node_could_not_be_activated_is_said(stage):
    stage.start(
        autostart=False, **{"qos_overrides__/image_raw__subscription__reliability": "sometimes"}
    )
    peer, changes = stage.peer, []
    peer.node.create_subscription(
        TransitionEvent, "/ddfd/transition_event", changes.append, QoSProfile(depth=10)
    )
    assert peer.transition("configure")
    assert not peer.transition("activate")
    assert peer.state() == "unconfigured"
    message = peer.report(level="2")["message"]
    assert "activate failed" in message
    assert "sometimes" in message
    seen = [(change.start_state.label, change.goal_state.label) for change in changes]
    # By this bag_replay.launch.py knows that there will be no active node.
    assert seen[-2:] == [("activating", "errorprocessing"), ("errorprocessing", "unconfigured")]
    assert peer.transition("configure")  # a model that loads takes the reason back
    assert "sometimes" not in peer.report(state="inactive")["message"]


def test_a_threshold_the_model_cannot_apply_is_refused(stage, tools):
    model = tools.write_model(
        stage.folder / "no_sigma.onnx", heads=("depth_m", "sharp_rgb"), golden=None
    )
    stage.start(model_path=model, autostart=False, self_test=False)
    peer = stage.peer
    assert peer.transition("configure")
    reason = peer.set(max_sigma_m=0.5)[0]
    assert "sigma_m" in reason
    assert peer.transition("cleanup")
    assert peer.set(max_sigma_m=0.5) == [""]
    assert not peer.transition("configure")
    assert "sigma_m" in peer.report(level="2")["message"]
    assert peer.set(max_sigma_m=0.0) == [""]
    assert peer.transition("configure")
    assert peer.node.count_publishers("uncertainty/image") == 0  # the model has no such head


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly_in_mid_stream(stage, tools, number):
    node = stage.start(model_path=tools.write_model(stage.folder / "slow.onnx", slow=True))
    peer = stage.peer
    peer.wait_for_camera()
    peer.listen("depth")
    message = tools.image_message(tools.picture(240, 320))
    for _ in range(10):
        peer.send(message)
        peer.spin_for(0.02)
    node.process.send_signal(number)  # and once more, while it is going down
    status, duration_s = node.stop(number)
    assert status == 0
    assert duration_s < 2.0 * _load()
    assert "Traceback" not in node.log


def test_a_signal_during_the_start_ends_the_process(stage):
    node = stage.start()
    stage.peer.spin_for(0.3)  # imports, or loads the model
    status, duration_s = node.stop(signal.SIGINT)
    assert status in (0, -signal.SIGINT, 130, 1)  # before the handlers stand, Python's own answer
    assert duration_s < 2.0 * _load()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["model_path:=x.onnx"], 2, "unrecognized arguments"),
        (["--ros-args", "-p", "max_age_s:=-1.0"], 2, "max_age_s"),
        (["--ros-args", "-p", "max_age_s:=1"], 2, "max_age_s"),
        (["--ros-args", "-p", "runtime:=magic"], 2, "expected one of"),
        (["--ros-args", "--params-file", "/missing.yaml"], 2, "/missing.yaml"),
        (["--ros-args", "--params"], 2, "--params"),
        (["--help"], 0, "--ros-args"),
    ],
)
def test_wrong_arguments_end_with_one_clear_message(arguments, status, said):
    result = subprocess.run(
        [sys.executable, "-m", "ddfd_ros.ros.main", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == status
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def _made_here(stage, tools, **parameters):
    """A node within this process, as one of several may be."""
    values = {
        "model_path": str(tools.write_model(stage.folder / "tiny.onnx")),
        "runtime": "onnxruntime",
        "threads": 1,
        "warm_up_height": 0,
    }
    overrides = [Parameter(name, value=value) for name, value in (values | parameters).items()]
    return DdfdNode(context=stage.peer.context, parameter_overrides=overrides)


def test_a_node_that_somebody_else_configured_does_not_start_itself_again_and_again(stage, tools):
    node = _made_here(stage, tools)
    executor = SingleThreadedExecutor(context=stage.peer.context)
    executor.add_node(node)
    node.trigger_configure()
    time.sleep(0.01)  # the timer of autostart is due
    for _ in range(20):
        executor.spin_once(timeout_sec=0.01)
    assert node.state == "inactive"
    assert list(node.timers) == []
    executor.shutdown()
    node.destroy_node()


def test_a_destroyed_node_holds_no_model(stage, tools):
    node = _made_here(stage, tools, autostart=False)
    before = threading.active_count()  # the reporter's among them
    node.trigger_configure()
    node.trigger_activate()
    assert node.state == "active"
    assert threading.active_count() > before
    node.destroy_node()
    assert threading.active_count() < before


def test_a_signal_ends_a_cleanup_that_waits_for_a_frame(stage, tools):
    """A GPU may never come back; the process has to end nevertheless."""
    stop, begun, release = threading.Event(), threading.Event(), threading.Event()
    node = _made_here(stage, tools, autostart=False)
    node._stop_requested = stop.is_set
    node.trigger_configure()
    node.trigger_activate()

    def answer(*_):
        begun.set()
        release.wait(15.0)

    node._runner._answers.answer = answer
    stamp = node.get_clock().now().to_msg()
    node._runner.submit(Image(header=Header(stamp=stamp)))
    assert begun.wait(10.0)
    node.trigger_deactivate()
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    node.trigger_cleanup()
    assert time.monotonic() - start < 8.0
    assert node.state == "unconfigured"
    assert not node.close()
    release.set()
    node.destroy_node()
