"""The runner with a worker of its own and everything else made up."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from rclpy.logging import get_logger
from sensor_msgs.msg import Image

from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.answers import Answer
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.runner import Runner
from ddfd_ros.ros.statistics import Statistics

NODE = SimpleNamespace(
    get_logger=lambda: get_logger("runner_test"),
    get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0)),
)


@pytest.fixture
def slow():
    """A runner whose frames take until they are released, and what it published."""
    runner = Runner(NODE, NodeParameters(max_age_s=0.0), Statistics())
    begun, release, sent = threading.Event(), threading.Event(), []

    def answer(job, *_):
        begun.set()
        assert release.wait(20.0)
        return Answer({"depth": job.message}, Estimate(), {})

    runner._worker._create = lambda: SimpleNamespace(close=lambda: None)
    runner._answers.answer = answer
    runner._worker.start()
    runner.outputs = SimpleNamespace(
        send=lambda messages: sent.append(messages["depth"]),
        wants_latency=lambda: False,
        destroy=lambda: None,
    )
    yield runner, begun, release, sent
    release.set()
    assert runner.close(20.0)


def _wait(condition):
    end = time.monotonic() + 20.0
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_a_frame_from_before_a_deactivation_is_not_published_after_it(slow):
    runner, begun, release, sent = slow
    before, after = Image(), Image()
    runner.activate()
    runner.submit(before)
    assert begun.wait(20.0)
    runner.deactivate()  # waits for a second, and the frame takes longer
    runner.activate()
    runner.submit(after)
    release.set()
    _wait(lambda: runner.snapshot().in_flight == 0)
    assert [message is after for message in sent] == [True]
    snapshot = runner.snapshot()
    assert (snapshot.answered, snapshot.dropped) == (1, {"inactive": 1})


def test_a_frame_that_still_waited_when_the_node_was_deactivated_is_not_computed(slow):
    runner, begun, release, sent = slow
    runner.activate()
    runner.submit(Image())
    assert begun.wait(20.0)
    runner.submit(Image())  # waits behind it
    runner.deactivate()
    runner.activate()
    release.set()
    _wait(lambda: runner.snapshot().in_flight == 0)
    assert sent == []
    assert runner.snapshot().dropped == {"inactive": 2}
