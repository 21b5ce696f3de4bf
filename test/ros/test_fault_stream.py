"""The camera's faults, with the real node over DDS: it stops, dies, loops, changes, bursts."""

from __future__ import annotations

import array
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

CAMERA = """
import array, sys
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera_process")
publisher = node.create_publisher(Image, "image_raw", 1)
message = Image(height=48, width=64, encoding="rgb8", step=192)
message.data = array.array("B", bytes([int(sys.argv[1])]) * 9216)
def send():
    stamp = node.get_clock().now()
    message.header.stamp = stamp.to_msg()
    publisher.publish(message)
    print(stamp.nanoseconds, flush=True)
node.create_timer(0.03, send)
rclpy.spin(node)
"""
"""A camera of one grey, which prints the stamps it has sent."""


def _stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def _depth(message):
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def _fresh(stage, *names):
    """Forget what was received so far."""
    for name in names or stage.peer.received:
        stage.peer.received[name].clear()


def _stream(peer, message, number, period_s=0.02):
    """Send ``number`` frames at a steady rate; their stamps."""
    stamps = []
    for _ in range(number):
        stamps.append(peer.send(message))
        peer.spin_for(period_s)
    return stamps


def _books(values):
    """Frames settled one way or the other, from a diagnostics report."""
    reasons = (v for k, v in values.items() if k.startswith(("dropped_", "failed_")))
    return int(values["answered"]) + sum(map(int, reasons))


def test_the_camera_stops_and_returns(shared_stage, tools):
    peer = shared_stage.peer
    message = tools.image_message(tools.picture())
    _stream(peer, message, 30)
    assert peer.report(in_flight="0", level=lambda level: level != "2")

    # The camera is silent; the last answer came a little later than the last frame.
    values = peer.report(
        message=lambda said: "no frames arrive" in said, rate_hz=lambda rate: float(rate) == 0
    )
    assert values["level"] == "1"
    assert float(values["input_hz"]) == 0.0
    for name in ("age_p95_ms", "infer_p95_ms", "valid_fraction", "median_sigma_m"):
        assert values[name] == "nan"  # those of the last answer say nothing about now

    _fresh(shared_stage)
    stamps = _stream(peer, message, 30)
    assert peer.answer("depth", stamps[-1]) is not None
    got = [_stamp_ns(m) for m in peer.received["depth"]]
    assert set(got) <= set(stamps)
    assert len(got) == len(set(got)) >= 10
    values = peer.report(in_flight="0", rate_hz=lambda rate: float(rate) > 0)
    assert "no frames arrive" not in values["message"]
    # The pause is one interruption, not two hundred frames that the transport lost.
    # A loaded machine loses some; the pause alone would make it 0.7.
    assert float(values["missing_fraction"]) < 0.4, values["message"]


def test_a_camera_of_changing_rate_loses_no_frames(shared_stage, tools):
    """In dim light every other exposure takes twice as long: nothing is lost by that."""
    peer = shared_stage.peer
    message = tools.image_message(tools.picture())
    for number in range(60):
        peer.send(message)
        peer.spin_for(0.02 if number % 2 else 0.05)
    values = peer.report(in_flight="0")
    assert "get lost" not in values["message"], values["missing_fraction"]


def test_a_camera_whose_clock_is_ahead_is_told(stage, tools):
    stage.start()
    stage.peer.wait_for_camera()
    stage.peer.listen("depth")
    message = tools.image_message(tools.picture())
    for _ in range(5):
        stamp = stage.peer.send(message, age_s=-60.0)
        assert stage.peer.answer("depth", stamp) is not None
    values = stage.peer.report(message=lambda text: "ahead of this node's clock" in text)
    assert values["level"] == "1"


def test_resolution_and_encoding_change_in_mid_stream(shared_stage, tools):
    """Every frame is another picture, size and encoding; no answer mixes two of them."""
    peer = shared_stage.peer
    _fresh(shared_stage)
    sizes = [(48, 64), (96, 128), (50, 70), (33, 200), (240, 320)]
    layouts = {
        "rgb8": lambda rgb: rgb,
        "bgr8": lambda rgb: rgb[..., ::-1],
        "rgba8": lambda rgb: np.concatenate([rgb, rgb[..., :1]], axis=2),
        "rgb16": lambda rgb: rgb.astype("<u2") << 8,
        "mono8": lambda rgb: rgb[..., 0],
    }
    sent = {}
    cases = itertools.islice(zip(itertools.cycle(sizes), itertools.cycle(layouts)), 120)
    # Five of each would go round together: the layouts move on by one after every round.
    for index, (size, _) in enumerate(cases):
        encoding = list(layouts)[(index + index // 5) % 5]
        rgb = tools.picture(*size, seed=index)
        values = np.ascontiguousarray(layouts[encoding](rgb))
        message = tools.image_message(rgb)
        message.encoding, message.step = encoding, values.nbytes // size[0]
        message.data = array.array("B", values.tobytes())
        expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == "mono8" else rgb
        sent[peer.send(message)] = tools.reference(expected)["depth_m"]
        peer.spin_for(0.01)
    assert peer.answer("depth", max(sent)) is not None
    assert peer.answer("depth_info", max(sent)) is not None
    values = peer.report(in_flight="0")
    assert values["level"] != "2", values["message"]
    got = peer.received["depth"]
    assert len(got) > len(sent) / 3
    assert len({m.height for m in got}) == len(sizes)
    for message in got:
        np.testing.assert_allclose(_depth(message), sent[_stamp_ns(message)], rtol=1e-6)
    for message in peer.received["depth_info"]:
        assert (message.height, message.width) == sent[_stamp_ns(message)].shape


def _anonymous_mb(process_id):
    text = Path(f"/proc/{process_id}/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


def test_a_burst_of_500_frames(shared_stage, tools):
    """Most are replaced by newer ones, all are accounted for, and nothing is left behind."""
    peer, process = shared_stage.peer, shared_stage.nodes[0].process
    message = tools.image_message(tools.picture(480, 640))
    _stream(peer, message, 5, 0.1)  # buffers of this size exist from now on
    before = peer.report(in_flight="0")
    memory_mb = _anonymous_mb(process.pid)
    _fresh(shared_stage)
    sent = [peer.send(message) for _ in range(500)]
    # The last frames of a burst may be among those that a best-effort topic loses: it is the
    # camera's next ones that tell whether the node goes on, and how many were lost.
    for _ in range(3):
        sent.append(peer.send(message))
        if peer.answer("depth", sent[-1], timeout_s=10.0) is not None:
            break
    else:
        pytest.fail(f"no answer after the burst: {peer.report()}")
    values = peer.report(in_flight="0")
    received = int(values["received"]) - int(before["received"])
    assert 1 < received <= len(sent)
    assert received == _books(values) - _books(before)
    # Only the frames of a single camera can be missed: a killed one counts until its lease ends.
    missed = int(values.get("frames_missed", 0)) - int(before.get("frames_missed", 0))
    assert received + missed == len(sent)
    peer.spin_for(0.2)
    got = Counter(_stamp_ns(m) for m in peer.received["depth"])
    assert set(got) <= set(sent)
    assert set(got.values()) == {1}
    assert _anonymous_mb(process.pid) - memory_mb < 50


class CameraProcess:
    """A camera driver in a process of its own, to be killed."""

    def __init__(self, stage, grey):
        environ = os.environ | {"ROS_DOMAIN_ID": str(stage.domain_id)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CAMERA, str(grey)], env=environ, stdout=subprocess.PIPE
        )

    def kill(self, kill):
        """End it with SIGKILL; every stamp it has sent."""
        kill(self.process)
        lines = self.process.stdout.read().decode().split("\n")
        self.process.stdout.close()
        return {int(line) for line in lines if len(line) == 19}


def test_the_camera_process_is_killed_and_restarted(shared_stage, tools):
    stage, peer = shared_stage, shared_stage.peer
    _fresh(stage)
    sent = []
    for grey in (40, 200):
        camera = CameraProcess(stage, grey)
        try:
            start = len(peer.received["depth"])
            assert peer.spin_until(lambda start=start: len(peer.received["depth"]) >= start + 15)
        finally:
            sent.append(camera.kill(tools.kill))
    peer.report(in_flight="0")
    peer.spin_for(0.2)
    got = [_stamp_ns(m) for m in peer.received["depth"]]
    assert len(got) == len(set(got))
    assert set(got) <= sent[0] | sent[1]
    for message in peer.received["depth"]:
        grey = 40 if _stamp_ns(message) in sent[0] else 200
        assert float(_depth(message)[20, 30]) == pytest.approx(0.5 + grey / 32)


def test_time_jumps_back_when_a_bag_begins_again(stage, tools):
    stage.start(use_sim_time=True)
    peer = stage.peer
    clock = peer.node.create_publisher(Clock, "/clock", QoSProfile(depth=1))
    peer.wait_for_camera()
    peer.wait_for_match(clock)
    peer.listen("depth")
    message = tools.image_message(tools.picture())
    start_ns, step_ns, frames = 1000 * 10**9, 33_000_000, 12
    # Before the first /clock the node's time is zero: no frame is older than that.
    assert peer.answer("depth", peer.send(message)) is not None
    values = peer.report(answered="1", message=lambda text: "nothing came on /clock" in text)
    assert (values["level"], values["age_p50_ms"]) == ("1", "nan")
    _fresh(stage)

    def play(stamp_ns, now_ns):
        time_now = Clock()
        time_now.clock.sec, time_now.clock.nanosec = divmod(now_ns, 10**9)
        clock.publish(time_now)
        peer.spin_for(0.02)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        peer.camera.publish(message)

    stamps = [start_ns + i * step_ns for i in range(frames)]
    for loop in (1, 2, 3):
        for stamp in stamps:
            play(stamp, stamp + 5_000_000)
            found = peer.spin_until(
                lambda s=stamp, n=loop: sum(_stamp_ns(m) == s for m in peer.received["depth"]) == n
            )
            assert found, f"loop {loop}: no answer to {stamp}"
    got = Counter(_stamp_ns(m) for m in peer.received["depth"])
    assert got == dict.fromkeys(stamps, 3)
    values = peer.report(in_flight="0", answered=str(3 * frames + 1))
    assert values["level"] == "1" or "lost" not in values["message"]
    assert "/clock" not in values["message"]
    assert -100 < float(values["age_p50_ms"]) <= float(values["age_p95_ms"]) < 500
    # The bag's clock is the one that counts: a stamp two seconds behind it is too old.
    play(stamps[-1] - 2 * 10**9, stamps[-1])
    assert int(peer.report(dropped_stale="1")["dropped_stale"]) == 1
