"""Counters, percentiles and the guess at lost frames; and what the diagnostics make of them."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.logging import get_logger

from ddfd_ros.core.field_record import FieldRecord
from ddfd_ros.core.image_quality import ImageQuality
from ddfd_ros.core.platform_health import PlatformHealth
from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.diagnostics import NodeStatus, diagnostics
from ddfd_ros.ros.image_watch import ImageWatch
from ddfd_ros.ros.reporter import Reporter
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


def test_a_camera_that_stopped_loses_no_frames():
    clock = _Clock()
    statistics = Statistics(clock)
    for number in range(100):
        if number % 3:  # every third one is lost
            statistics.count_received(number * PERIOD_NS)
        clock.now += PERIOD_NS / 1e9
    assert statistics.snapshot().missing_fraction > 0.2
    clock.now += 60.0
    assert statistics.snapshot().missing_fraction == 0.0


def test_a_camera_of_changing_rate_loses_no_frames_by_its_numbers():
    """In dim light a camera's exposures differ; the sender's numbers tell that none is lost."""
    statistics, stamp_ns = Statistics(), 0
    for number in range(100):
        statistics.count_gap(0 if number else None)  # a sender that was started anew
        statistics.count_received(stamp_ns)
        stamp_ns += PERIOD_NS * (1 + number % 2)
    assert missing_fraction([0, *np.cumsum([PERIOD_NS, 2 * PERIOD_NS] * 20).tolist()]) > 0.2
    assert statistics.snapshot().missing_fraction == 0.0
    for _ in range(100):  # one in four is lost
        statistics.count_gap(1)
        for _ in range(2):
            statistics.count_gap(0)
        statistics.count_received(stamp_ns)
    snapshot = statistics.snapshot()
    assert snapshot.missing_fraction == pytest.approx(0.25)
    assert snapshot.events == {"frames_missed": 100}
    statistics.listen()
    assert statistics.snapshot().missing_fraction == 0.0


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
    clock.now += 10.0  # what the last answer was like is history
    snapshot = statistics.snapshot()
    assert snapshot.rate_hz == 0.0
    assert np.isnan([*snapshot.age_ms, *snapshot.stages_ms["infer"]]).all()
    assert np.isnan([snapshot.valid_fraction, snapshot.median_sigma_m]).all()


def test_ages_that_were_not_known_hide_none_of_those_that_are():
    statistics = Statistics(_Clock())
    for age_ms in (float("nan"), 10.0, float("nan"), 20.0):  # before the first /clock
        statistics.count_answered(Estimate(), age_ms, {})
    assert statistics.snapshot().age_ms == pytest.approx((15.0, 19.5))


def test_figures_of_a_field_test_are_those_of_answers_only():
    """Answered for 3 s, then every frame fails for 27 s: the summary's means are of the 3 s."""
    clock, record = _Clock(), FieldRecord()
    statistics = Statistics(clock)
    estimate = Estimate(depth_m=np.ones((16, 16), np.float32))
    for number in range(300):
        statistics.count_received(number * 10**8)
        if number < 30:
            statistics.count_answered(estimate, 50.0, {"infer": 40.0})
        else:
            statistics.count_failed("ImageFormatError")
        if number % 10 == 0:
            status = diagnostics("ddfd", ACTIVE, statistics.snapshot(), Time()).status[0]
            values = {item.key: item.value for item in status.values}
            record.add("ddfd", ord(status.level), status.message, values, clock.now)
        clock.now += 0.1
    numbers = record.to_dict(clock.now)["statuses"]["ddfd"]["numbers"]
    for key in ("age_p95_ms", "infer_p95_ms", "valid_fraction"):
        assert numbers[key]["reports"] <= 6  # 3 s, and as long until it is told
        assert np.isnan(numbers[key]["last"])
    assert numbers["rate_hz"]["last"] == 0.0


def _run(period_s, frames, every=1, clock=None):
    """Frames that come at a steady rate, every so many answered, the others replaced."""
    clock = clock or _Clock()
    statistics = Statistics(clock)
    for number in range(frames):
        statistics.count_received(round(number * period_s * 1e9))
        if number % every == 0:
            statistics.count_answered(Estimate(), 1.0, {})
        clock.now += period_s
    return statistics, clock


@pytest.mark.parametrize(("period_s", "every"), [(3.5, 1), (0.1, 35), (20.0, 1)])
def test_less_than_a_frame_in_three_seconds_is_a_rate_too(period_s, every):
    statistics, clock = _run(period_s, 5 * every, every)
    for _ in range(10):  # at any moment until the next frame
        clock.now -= period_s / 10
        snapshot = statistics.snapshot()
        assert snapshot.rate_hz == pytest.approx(1 / (period_s * every))
        assert snapshot.input_hz == pytest.approx(1 / period_s)
        status = diagnostics("ddfd", ACTIVE, snapshot, Time()).status[0]
        assert status.level == OK
        assert status.message == f"active, {1 / (period_s * every):.2g} Hz"
    clock.now += 3 * period_s * every
    snapshot = statistics.snapshot()
    assert (snapshot.arriving, snapshot.answering) == (False, False)
    assert (snapshot.input_hz, snapshot.rate_hz) == (0.0, 0.0)


def test_after_a_pause_the_rate_begins_anew():
    statistics, clock = _run(0.1, 50)
    clock.now += 60.0
    for number in range(3):
        clock.now += 0.1
        statistics.count_received(number)
        snapshot = statistics.snapshot()
        assert snapshot.arriving
        assert snapshot.input_hz == (0.0 if number == 0 else pytest.approx(10.0))


def test_nobody_listens_only_while_frames_are_dropped_for_that():
    clock = _Clock()
    statistics = Statistics(clock)

    def said():
        return diagnostics("ddfd", ACTIVE, statistics.snapshot(), Time()).status[0].message

    statistics.count_received(1)
    statistics.count_dropped("idle")
    assert said() == "active, nobody listens"
    for number in range(40):  # somebody came, and the first answer takes its time
        clock.now += 0.1
        statistics.count_received(number)
    assert said() == "active, no frame answered lately"
    statistics.count_answered(Estimate(), 1.0, {})
    assert said() == "active, answering"  # one answer has no rate
    assert statistics.snapshot().dropped == {"idle": 1}


@pytest.mark.parametrize("end", ["answered", "failed", "stale"])
def test_a_frame_that_does_not_come_back_is_told_and_forgotten(end):
    clock = _Clock()
    statistics = Statistics(clock)
    clock.now += 60.0
    for number in range(300):  # 10 s; each but the first, which is computed, replaces one
        statistics.count_received(number * PERIOD_NS)
        if number > 1:
            statistics.count_dropped("replaced")
        clock.now += PERIOD_NS / 1e9
    assert statistics.snapshot().busy_s == pytest.approx(10.0, abs=0.1)
    if end == "answered":
        statistics.count_answered(Estimate(), 1.0, {})
    elif end == "failed":
        statistics.count_failed("DeviceError")
    else:
        statistics.count_dropped(end)
    clock.now += 0.5
    assert statistics.snapshot().busy_s == pytest.approx(0.5)  # the one that waited
    statistics.count_dropped("inactive")
    assert statistics.snapshot().busy_s == 0.0


def test_the_median_deviation_is_of_what_is_known():
    statistics = Statistics()
    sigma = np.full((48, 64), np.nan, np.float32)
    statistics.count_answered(Estimate(sigma_m=sigma), 1.0, {})
    assert np.isnan(statistics.snapshot().median_sigma_m)
    sigma[16:32, 16:48] = 0.2  # a view cropped around the centre
    statistics.count_answered(Estimate(sigma_m=sigma), 1.0, {})
    assert statistics.snapshot().median_sigma_m == pytest.approx(0.2)


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
    flowing = {"arriving": True, "answering": True}
    values = flowing | {"input_hz": 30.0, "rate_hz": 30.0} | snapshot
    message = diagnostics("ddfd", status, Snapshot(**values), Time()).status[0]
    return message.level, message.message


ACTIVE = NodeStatus(state="active")
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("status", "snapshot", "level", "words"),
    [
        (ACTIVE, {}, OK, "30.0 Hz"),
        (ACTIVE, {"answering": False, "recent_drops": {"idle"}}, OK, "nobody listens"),
        (ACTIVE, {"arriving": False, "answering": False}, WARN, "no frames arrive"),
        (ACTIVE, {"answering": False, "recent_drops": {"stale"}}, WARN, "max_age_s"),
        (ACTIVE, {"answering": False, "recent_drops": {"idle", "stale"}}, OK, "nobody listens"),
        (
            NodeStatus(state="active", image_topic="/front/image", image_publishers=0),
            {"arriving": False, "answering": False},
            WARN,
            "no frames arrive on /front/image, nobody publishes it",
        ),
        (ACTIVE, {"answering": False, "busy_s": 7.2}, WARN, "a frame has been computed for 7 s"),
        (ACTIVE, {"answering": False, "busy_s": 4.9}, OK, "no frame answered lately"),
        (ACTIVE, {"busy_s": 7.2}, OK, "30.0 Hz"),  # each takes as long
        (ACTIVE, {"age_ms": (-2500.0, 5.0)}, WARN, "2.5 s ahead of this node's clock"),
        (ACTIVE, {"age_ms": (-100.0, 50.0)}, OK, "30.0 Hz"),
        (NodeStatus(state="active", clock_problem="no /clock"), {}, WARN, "no /clock"),
        (ACTIVE, {"missing_fraction": 0.4}, WARN, "FASTRTPS_DEFAULT_PROFILES_FILE"),
        (ACTIVE, {"recent_events": {"qos_incompatible"}}, WARN, "qos_overrides"),
        (ACTIVE, {"events": {"qos_incompatible": 1}}, OK, "30.0 Hz"),
        (NodeStatus(state="active", last_failure="broken"), {}, ERROR, "broken"),
        (
            NodeStatus(state="active", last_failure="broken"),
            {"arriving": False, "answering": False},
            WARN,
            "no frames arrive on image_raw; broken",
        ),
        (NodeStatus(state="active", camera_problem="no K"), {}, WARN, "no K"),
        (NodeStatus(state="active", lens_problem="f/4"), {}, WARN, "f/4"),
        (NodeStatus(state="active", degraded="CPU serves"), {}, WARN, "degraded: CPU serves"),
        (NodeStatus(state="configuring", progress="loading"), {}, WARN, "configuring (loading)"),
        (NodeStatus(load_error="configure failed: x"), {}, ERROR, "configure failed: x"),
        (NodeStatus(state="inactive"), {}, WARN, "inactive"),
    ],
)
def test_the_diagnostics_name_what_is_wrong(status, snapshot, level, words):
    got_level, message = _judge(status, **snapshot)
    assert got_level == level
    assert words in message


def test_lost_messages_and_missing_frames_are_told_apart():
    _, lost = _judge(ACTIVE, events={"message_lost": 3}, recent_events={"message_lost"})
    assert "the middleware lost messages" in lost
    assert "0%" not in lost
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in lost
    _, missing = _judge(ACTIVE, recent_events={"message_lost"}, missing_fraction=0.4)
    assert missing.startswith("40% of the frames get lost")


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


def test_few_complaints_that_differ_in_numbers_only_are_said():
    clock, said = _Clock(), []
    log = ThrottledLog(10.0, clock)
    for number in range(21):  # a camera that cuts each of its frames elsewhere
        log(said.append, f"frame not answered: expected 921600 bytes, got {0.5 * number}")
        clock.now += 0.5
    assert [text.partition("got ")[2] for text in said] == [
        "0.0",
        "0.5",
        "1.0",
        "10.0 (and 17 times before)",
    ]


def test_an_error_and_a_warning_can_be_said_by_one_log():
    logger = get_logger("throttle_test")
    log = ThrottledLog()
    for say in (logger.error, logger.warning, logger.info, logger.warning, logger.error):
        log(say, f"a text for {say.__name__}")


GOOD = ImageQuality(dark_fraction=0.1, clipped_fraction=0.01, detail=0.05, smear=1.5)


@pytest.mark.parametrize(
    ("image", "level", "words"),
    [
        (None, OK, "no image"),
        (GOOD, OK, "in order"),
        (replace(GOOD, detail=float("nan"), smear=float("nan")), OK, "in order"),
        (replace(GOOD, dark_fraction=0.9), WARN, "too dark: 90%"),
        (replace(GOOD, clipped_fraction=0.4), WARN, "over-exposed: 40%"),
        (replace(GOOD, smear=9.0), WARN, "motion"),
        (replace(GOOD, detail=0.001), WARN, "nothing is sharp"),
    ],
)
def test_the_diagnostics_judge_the_image(image, level, words):
    status = diagnostics("ddfd", ACTIVE, Snapshot(image=image), Time()).status[1]
    assert status.name == "ddfd: image"
    assert status.level == level
    assert words in status.message


def test_the_diagnostics_tell_of_heat():
    hot = PlatformHealth(91.0, "cpu", throttling=("cpu has 91 C",))
    for platform, level, words in (
        (hot, WARN, "cpu has 91 C"),
        (PlatformHealth(50.0, "cpu"), OK, "not throttled"),
        (PlatformHealth(), OK, "does not tell"),
    ):
        node = replace(ACTIVE, platform=platform)
        status = diagnostics("ddfd", node, Snapshot(), Time()).status[2]
        assert (status.name, status.level) == ("ddfd: machine", level)
        assert words in status.message


def test_an_image_is_measured_when_asked_and_medians_smooth():
    clock = _Clock()
    watch = ImageWatch(clock)
    assert watch.quality() is None
    for value in (0, 100, 0, 255, 0):  # dark, normal, dark, clipped, dark
        watch.look_at(np.full((48, 64, 3), 100, np.uint8))
        watch.look_at(np.full((48, 64, 3), value, np.uint8))
        clock.now += 1.0
        quality = watch.quality()
        assert watch.quality().dark_fraction == quality.dark_fraction
    assert quality.dark_fraction == 1.0
    assert quality.clipped_fraction == 0.0


def test_what_the_camera_saw_long_ago_is_not_told_for_ever():
    statistics, clock = _run(0.1, 50)
    dark = np.zeros((48, 64, 3), np.uint8)
    statistics.look_at(dark)
    assert statistics.snapshot().image.dark_fraction == 1.0
    clock.now += 2.0
    assert statistics.snapshot().image.dark_fraction == 1.0
    clock.now += 60.0  # the camera is off, or nobody listens
    assert statistics.snapshot().image is None
    statistics.look_at(dark + 100)
    assert statistics.snapshot().image.dark_fraction == 0.0


def test_what_a_slow_model_looks_at_is_told_until_its_next_frame():
    statistics, clock = _run(0.1, 200, every=50)  # 10 Hz, answered every 5 s
    clock.now -= 0.1
    statistics.look_at(np.zeros((48, 64, 3), np.uint8))
    for _ in range(50):
        clock.now += 0.1
        statistics.count_received(round(clock.now * 1e9))
        assert statistics.snapshot().image is not None


def test_reports_go_on_after_one_that_failed():
    done, errors = threading.Event(), []

    def report():
        if not errors:
            raise RuntimeError("once")
        done.set()

    reporter = Reporter(report, 0.01, errors.append)
    reporter.start()
    assert done.wait(10.0)
    reporter.close(10.0)
    assert [str(error) for error in errors] == ["once"]


def test_an_event_is_recent_for_a_minute_and_counted_for_ever():
    clock = _Clock()
    statistics = Statistics(clock)
    statistics.count_event("qos_incompatible")
    clock.now += 59.0
    assert statistics.snapshot().recent_events == {"qos_incompatible"}
    clock.now += 2.0
    snapshot = statistics.snapshot()
    assert snapshot.recent_events == frozenset()
    assert snapshot.events == {"qos_incompatible": 1}
