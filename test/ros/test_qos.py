"""Overrides of a topic's quality of service: those that are meant, and those that are refused."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from ddfd_ros.ros.inputs import Inputs
from ddfd_ros.ros.outputs import Outputs
from ddfd_ros.ros.statistics import Statistics

LATCHED = QoSProfile(
    depth=1,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    reliability=ReliabilityPolicy.RELIABLE,
)


@pytest.fixture
def ros(ros_domain):
    """Makes nodes with overrides in a domain of its own, and spins them."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    executor = SingleThreadedExecutor(context=context)
    nodes = []

    def make(name, **overrides):
        values = [
            Parameter(f"qos_overrides./{topic}", value=value) for topic, value in overrides.items()
        ]
        nodes.append(rclpy.create_node(name, context=context, parameter_overrides=values))
        executor.add_node(nodes[-1])
        return nodes[-1]

    yield make, executor
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def _spin_until(executor, condition):
    for _ in range(400):
        if condition():
            return
        executor.spin_once(timeout_sec=0.1)
    assert condition()


def test_a_camera_info_that_was_sent_once_can_be_had(ros):
    make, executor = ros
    publisher = make("camera").create_publisher(CameraInfo, "camera_info", LATCHED)
    publisher.publish(CameraInfo(width=64, height=48))
    got = []
    overrides = {
        "camera_info.subscription.durability": "transient_local",
        "camera_info.subscription.reliability": "reliable",
    }
    inputs = Inputs(make("ddfd", **overrides), "raw", print, got.append, Statistics())
    _spin_until(executor, lambda: got)
    assert got[0].width == 64
    inputs.destroy()


def test_an_output_can_be_latched(ros):
    make, executor = ros
    node = make("ddfd", **{"depth/image_rect.publisher.durability": "transient_local"})
    outputs = Outputs(node, ("depth_m",), Statistics())
    outputs.send({"depth/image_rect": Image(width=64)})
    got = []
    make("late").create_subscription(Image, "depth/image_rect", got.append, LATCHED)
    _spin_until(executor, lambda: got)
    outputs.destroy()


def test_a_refused_override_leaves_nothing_behind(ros):
    make, _ = ros
    node = make(
        "ddfd",
        **{
            "image_raw.subscription.reliability": "nonsense",
            "depth/color.publisher.reliability": "nonsense",
        },
    )
    before = len(list(node.subscriptions)), len(list(node.publishers))
    for _ in range(3):
        with contextlib.suppress(RuntimeError):
            Inputs(node, "raw", print, print, Statistics())
            pytest.fail("expected the override to be refused")
        with contextlib.suppress(RuntimeError):
            Outputs(node, ("depth_m",), Statistics())
            pytest.fail("expected the override to be refused")
        assert (len(list(node.subscriptions)), len(list(node.publishers))) == before


def test_a_second_sender_that_leaves_is_no_gap(ros):
    """The middleware's numbers are each sender's own."""
    make, _ = ros
    statistics, count = Statistics(), 1
    inputs = Inputs(make("ddfd"), "raw", print, print, statistics)
    subscriptions = inputs._subscriptions
    inputs._subscriptions = [SimpleNamespace(get_publisher_count=lambda: count)]
    receive = inputs._noticing_gaps(lambda message: None)

    def missed(*numbers):
        for number in numbers:
            receive(None, {"publication_sequence_number": number})
        return statistics.snapshot().events.get("frames_missed", 0)

    assert missed(5000, 5001, 5004) == 2
    count = 2
    assert missed(1, 5005, 2, 5006, 3) == 2
    count = 1
    assert missed(5009, 5010) == 2
    assert missed(5013) == 4
    inputs._subscriptions = subscriptions
    inputs.destroy()
