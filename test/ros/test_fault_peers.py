"""What others on the network do to the node: wrong QoS, sleeping and countless subscribers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

SUBSCRIBER = """
import sys, time
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("slow_subscriber")
def work(message):
    print("got", flush=True)
    time.sleep(float(sys.argv[1]))
node.create_subscription(Image, "depth/image_rect", work, QoSProfile(depth=10))
rclpy.spin(node)
"""
"""A reliable subscriber in a process of its own that takes its time over every image."""


def _stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_a_mismatch_of_qos_is_reported_and_harms_nobody_else(shared_stage, tools):
    """A subscriber that wants old frames too. At an input: see test_stream.py."""
    peer, node = shared_stage.peer, shared_stage.nodes[0]
    log_before = len(node.log)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    other = peer.node.create_subscription(Image, "depth/image_rect", print, latched)
    try:
        values = peer.report(qos_incompatible="1")
        assert "qos_overrides" in values["message"]
        assert values["level"] == "1"
        said = node.log[log_before:]
        assert "depth/image_rect" in said
        assert "DURABILITY" in said
        stamp = peer.send(tools.image_message(tools.picture()))
        assert peer.answer("depth", stamp) is not None
    finally:
        peer.node.destroy_subscription(other)


class Subscriber:
    """A subscriber process; waits until it receives something."""

    def __init__(self, stage, tools, work_s):
        self._kill = tools.kill
        environ = os.environ | {"ROS_DOMAIN_ID": str(stage.domain_id)}
        self.log = stage.folder / "subscriber.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUBSCRIBER, str(work_s)], env=environ, stdout=log
            )
        message = tools.image_message(tools.picture())

        def hears():
            stage.peer.send(message)
            stage.peer.spin_for(0.05)
            return self.count > 0

        assert stage.peer.spin_until(hears)

    @property
    def count(self):
        return self.log.read_text().count("got")

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self._kill(self.process)


def _stream(peer, message, number, period_s=0.033):
    """Send frames; how many of them were answered, each once and with its own stamp."""
    peer.received["depth"].clear()
    sent = set()
    for _ in range(number):
        sent.add(peer.send(message))
        peer.spin_for(period_s)
    # Best effort: on a busy machine one frame may be lost on its way, and is not sent again.
    for _ in range(5):
        last = peer.send(message)
        sent.add(last)
        if peer.answer("depth", last, timeout_s=4.0) is not None:
            break
    else:
        raise AssertionError("expected an answer to one of five frames, got none")
    got = [_stamp_ns(m) for m in peer.received["depth"]]
    assert len(got) == len(set(got))
    assert set(got) <= sent
    return len(got) - 1


def test_a_slow_subscriber_holds_up_nobody(shared_stage, tools):
    peer = shared_stage.peer
    message = tools.image_message(tools.picture(480, 640))
    alone = _stream(peer, message, 40)
    slow = Subscriber(shared_stage, tools, work_s=0.5)
    try:
        beside = _stream(peer, message, 40)
        assert slow.count < beside
    finally:
        slow.close()
    assert beside > 0.6 * alone


def test_a_subscriber_that_stopped_holds_up_nobody(shared_stage, tools):
    """Stopped in a debugger or by a container's freezer, it still counts as a subscriber."""
    peer = shared_stage.peer
    message = tools.image_message(tools.picture(480, 640))
    alone = _stream(peer, message, 40)
    stopped = Subscriber(shared_stage, tools, work_s=0.0)
    try:
        stopped.process.send_signal(signal.SIGSTOP)
        beside = _stream(peer, message, 80)
        heard = stopped.count
        stopped.process.send_signal(signal.SIGCONT)
        assert peer.spin_until(lambda: _stream(peer, message, 5) and stopped.count > heard + 10)
    finally:
        stopped.close()  # by kill -9, with images on their way to it
    assert _stream(peer, message, 10) > 0.6 * alone / 4
    assert beside / 80 > 0.6 * alone / 40


def test_a_storm_of_subscribers(shared_stage, tools):
    """Two hundred come and go while frames stream; the steady one misses nothing by it."""
    peer = shared_stage.peer
    peer.received["depth"].clear()
    message = tools.image_message(tools.picture())
    topics = [topic for topic, kind in peer.OUTPUTS.values() if kind is Image]
    answered = 0
    for _ in range(5):
        storm = [
            peer.node.create_subscription(Image, topics[i % 3], lambda message: None, 1)
            for i in range(40)
        ]
        stamp = peer.send(message)
        answered += peer.answer("depth", stamp) is not None
        for subscription in storm:
            peer.node.destroy_subscription(subscription)
    assert answered == 5
    values = peer.report(in_flight="0")
    assert values["level"] != "2", values["message"]
    stamp = peer.send(message)
    assert peer.answer("depth", stamp) is not None
    assert shared_stage.nodes[0].process.poll() is None
