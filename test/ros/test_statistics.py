"""Counters, percentiles and the guess at lost frames; and what the diagnostics make of them."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.logging import get_logger

from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.diagnostics import NodeStatus, diagnostics
from ddfd_ros.ros.statistics import Snapshot, Statistics, missing_fraction
from ddfd_ros.ros.throttle import ThrottledLog

PERIOD_NS = 33_333_333


class _Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("lost", [0.0, 0.1, 0.3, 0.55])
def test_lost_frames_are_estimated_from_the_gaps(lost):
    rng = np.random.default_rng(6)
    jitter = rng.normal(0, 0.05 * PERIOD_NS, 4000)
    stamps = np.arange(4000) * PERIOD_NS + jitter
    arrived = stamps[rng.random(4000) >= lost].astype(int).tolist()
    assert missing_fraction(arrived) == pytest.approx(lost, abs=0.04)


def test_few_stamps_prove_nothing():
    assert missing_fraction([0, 1, 100, 200]) == 0.0


def test_rates_and_percentiles():
    clock = _Clock()
    statistics = Statistics(clock)
    depth = np.full((64, 64), 2.0, np.float32)
    depth[:, :16] = np.nan
    estimate = Estimate(depth_m=depth, sigma_m=np.full((64, 64), 0.25, np.float32))
    for number in range(101):
        statistics.count_received(number * PERIOD_NS)
        statistics.count_answered(estimate, float(number), {"infer": 2.0 * number})
        clock.now += 0.1
    clock.now -= 0.1
    snapshot = statistics.snapshot()
    assert snapshot.rate_hz == pytest.approx(10.0)
    assert snapshot.age_ms == pytest.approx((50.0, 95.0))
    assert snapshot.stages_ms == {"infer": pytest.approx((100.0, 190.0))}
    assert snapshot.valid_fraction == pytest.approx(0.75)
    assert snapshot.median_sigma_m == 0.25
    clock.now += 10.0
    assert statistics.snapshot().rate_hz == 0.0


def test_every_frame_has_one_fate():
    statistics = Statistics()
    for number in range(10):
        statistics.count_received(number)
    statistics.count_answered(Estimate(), 1.0, {})
    statistics.count_dropped("stale", 2)
    statistics.count_dropped("idle")
    statistics.count_failed("ImageFormatError")
    assert statistics.snapshot().in_flight == 5


def _judge(status, **snapshot):
    values = {"input_hz": 30.0, "rate_hz": 30.0} | snapshot
    message = diagnostics("ddfd", status, Snapshot(**values), Time()).status[0]
    return message.level, message.message


ACTIVE = NodeStatus(state="active")
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("status", "snapshot", "level", "words"),
    [
        (ACTIVE, {}, OK, "30.0 Hz"),
        (ACTIVE, {"rate_hz": 0.0, "dropped": {"idle": 9}}, OK, "nobody listens"),
        (ACTIVE, {"input_hz": 0.0, "rate_hz": 0.0}, WARN, "no frames arrive"),
        (ACTIVE, {"rate_hz": 0.0, "dropped": {"stale": 9}}, WARN, "max_age_s"),
        (ACTIVE, {"missing_fraction": 0.4}, WARN, "FASTRTPS_DEFAULT_PROFILES_FILE"),
        (ACTIVE, {"events": {"qos_incompatible": 1}}, WARN, "qos_overrides"),
        (NodeStatus(state="active", last_failure="broken"), {}, ERROR, "broken"),
        (NodeStatus(state="active", camera_problem="no K"), {}, WARN, "no K"),
        (NodeStatus(load_error="configure failed: x"), {}, ERROR, "configure failed: x"),
        (NodeStatus(state="inactive"), {}, WARN, "inactive"),
    ],
)
def test_the_diagnostics_name_what_is_wrong(status, snapshot, level, words):
    got_level, message = _judge(status, **snapshot)
    assert got_level == level
    assert words in message


def test_a_repeated_complaint_is_said_now_and_then():
    clock, said = _Clock(), []
    log = ThrottledLog(10.0, clock)
    for _ in range(25):
        log(said.append, "a")
        log(said.append, "b")
        clock.now += 1.0
    assert said == ["a", "b", "a (and 9 times before)", "b (and 9 times before)"] + [
        "a (and 9 times before)",
        "b (and 9 times before)",
    ]


def test_an_error_and_a_warning_can_be_said_by_one_log():
    logger = get_logger("throttle_test")
    log = ThrottledLog()
    for say in (logger.error, logger.warning, logger.info, logger.warning, logger.error):
        log(say, f"a text for {say.__name__}")
