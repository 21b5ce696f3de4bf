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
    resolve_topic_name=lambda topic: f"/{topic}",
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


def test_the_counters_never_fall_while_the_model_is_closed(slow):
    runner, begun, release, _ = slow
    statistics, closing, go = runner._statistics, threading.Event(), threading.Event()

    def close():
        closing.set()
        assert go.wait(20.0)

    runner._worker.call(lambda model: setattr(model, "close", close))
    runner.activate()
    runner.submit(Image())
    assert begun.wait(20.0)
    for _ in range(3):
        runner.submit(Image())  # each replaces the one before
    release.set()
    _wait(lambda: runner.snapshot().in_flight == 0)
    before = runner.snapshot().dropped
    assert before == {"replaced": 2}
    ending = threading.Thread(target=runner.close, args=(20.0,))
    ending.start()
    assert closing.wait(20.0)
    # The node has let go of the runner by now: a report reads the statistics alone.
    assert statistics.snapshot().dropped == before
    go.set()
    ending.join(20.0)
    assert statistics.snapshot().dropped == runner.snapshot().dropped == before


def test_a_failure_is_history_when_nobody_wants_frames_any_more(slow):
    runner, _, release, _ = slow
    release.set()
    answers = iter([RuntimeError("broken"), None])

    def answer(*_):
        one = next(answers)
        if one is not None:
            raise one

    runner._answers.answer = answer
    runner.activate()
    runner.submit(Image())
    _wait(lambda: runner.snapshot().in_flight == 0)
    assert "broken" in runner.last_failure
    runner.submit(Image())
    _wait(lambda: runner.snapshot().dropped == {"idle": 1})
    _wait(lambda: not runner.last_failure)


def test_a_failure_is_history_when_frames_are_too_old(slow):
    runner, _, release, _ = slow
    release.set()

    def fail(*_):
        raise RuntimeError("broken")

    runner._answers.answer = fail
    runner.activate()
    runner.submit(Image())
    _wait(lambda: runner.snapshot().in_flight == 0)
    assert "broken" in runner.last_failure
    runner.parameters = NodeParameters(max_age_s=1.0)
    runner._age_s = lambda stamp: 2.0  # a clock was set
    runner.submit(Image())
    _wait(lambda: runner.snapshot().dropped == {"stale": 1})
    _wait(lambda: not runner.last_failure)


def test_what_the_camera_sent_while_the_node_was_inactive_was_not_lost(slow):
    runner, _, release, _ = slow
    release.set()
    for first in (0, 55):  # with 25 frames between the two
        runner.activate()
        for number in range(first, first + 30):
            runner._statistics.count_received(number * 33_333_333)
        runner.deactivate()
    assert runner.snapshot().missing_fraction == 0.0
