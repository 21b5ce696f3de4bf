"""What a field test's summary keeps of the diagnostics."""

from __future__ import annotations

import math

import pytest

from ddfd_ros.core.field_record import FieldRecord


def test_levels_by_time_and_warnings_once():
    record = FieldRecord()
    for second in range(10):
        bad = 3 <= second < 6
        record.add(
            "ddfd",
            1 if bad else 0,
            f"{40 + second}% of the frames get lost" if bad else "active",
            {"rate_hz": str(10 + second), "state": "active", "dropped_stale": "nan"},
            float(second),
        )
    record.add("ddfd", 2, "broken", {}, 30.0)  # after 21 s of silence
    status = record.to_dict(30.0)["statuses"]["ddfd"]
    assert status["seconds"] == {"OK": 6.0, "WARN": 3.0}
    assert status["silent_s"] == 21.0
    lost, broken = status["said"]
    assert (lost["first_s"], lost["last_s"], lost["reports"]) == (3.0, 5.0, 3)
    assert (lost["level"], broken["level"]) == ("WARN", "ERROR")
    rate = status["numbers"]["rate_hz"]
    assert rate == {"least": 10.0, "mean": 14.5, "greatest": 19.0, "last": 19.0, "reports": 10}
    assert status["texts"]["state"] == "active"
    assert "dropped_stale" not in status["numbers"]
    text = "\n".join(record.lines(30.0))
    assert "3 s WARN" in text
    assert "rate_hz: mean 14.5 (10 to 19)" in text
    assert "WARN from 3 s to 5 s" in text


def test_what_is_not_known_any_more_is_neither_counted_nor_the_last():
    record = FieldRecord()
    for second in range(10):
        age = "50" if second < 3 else "nan"
        record.add("ddfd", 0, "active", {"age_p95_ms": age, "rate_hz": "0"}, float(second))
    numbers = record.to_dict(10.0)["statuses"]["ddfd"]["numbers"]
    assert math.isnan(numbers["age_p95_ms"]["last"])
    assert (numbers["age_p95_ms"]["mean"], numbers["age_p95_ms"]["reports"]) == (50.0, 3)
    assert numbers["rate_hz"] == {
        "least": 0.0,
        "mean": 0.0,
        "greatest": 0.0,
        "last": 0.0,
        "reports": 10,
    }
    assert "  age_p95_ms: mean 50 (50 to 50), in 3 of 10 reports" in record.lines(10.0)
    assert "  rate_hz: mean 0 (0 to 0)" in record.lines(10.0)
    record.add("ddfd", 0, "active", {"age_p95_ms": "60"}, 10.0)
    assert record.to_dict(10.0)["statuses"]["ddfd"]["numbers"]["age_p95_ms"]["last"] == 60.0


def test_messages_do_not_grow_without_end():
    record = FieldRecord()
    for number in range(1000):
        record.add(
            "a", 1, f"text {chr(97 + number % 26)}{chr(97 + number // 26)}", {}, 0.1 * number
        )
    assert len(record.to_dict(100.0)["statuses"]["a"]["said"]) == 200


def test_nothing_came():
    assert FieldRecord().to_dict(7.0) == {"duration_s": 7.0, "statuses": {}}
    assert FieldRecord().lines(7.0) == ["7 s of diagnostics"]


def report(record, name, times_s, **values):
    for time_s in times_s:
        record.add(name, 0, "active", {key: str(one) for key, one in values.items()}, time_s)


def test_a_node_that_died_is_silent_to_the_end():
    record = FieldRecord()
    report(record, "dead", range(61))
    report(record, "alive", range(3601))
    found = record.to_dict(3601.0)
    assert found["duration_s"] == 3601.0
    dead, alive = (found["statuses"][name] for name in ("dead", "alive"))
    assert (dead["seconds"], dead["silent_s"], dead["last_report_s"]) == ({"OK": 60.0}, 3541.0, 60)
    assert (alive["seconds"], alive["silent_s"]) == ({"OK": 3600.0}, 0.0)
    lines = record.lines(3601.0)
    assert "dead: 60 s OK, 3541 s silent, last report at 60 s" in lines
    assert "alive: 3600 s OK" in lines
    # Asked again, it is the same: to be asked for now adds nothing.
    assert record.to_dict(3601.0) == found


def test_counts_go_on_over_a_restart_of_the_node():
    record = FieldRecord()
    report(record, "ddfd", [0.0], received=100, answered=90, dropped_stale=10)
    report(record, "ddfd", [1.0], received=110, answered=98, dropped_stale=12)
    report(record, "ddfd", [4.0], received=0, answered=0)  # a reason comes with its first frame
    report(record, "ddfd", [5.0], received=50, answered=30, dropped_stale=20, failed_x=1)
    report(record, "ddfd", [8.0], received=5, answered=5)
    status = record.to_dict(8.0)["statuses"]["ddfd"]
    assert status["restarts"] == 2
    assert status["totals"] == {
        "received": 165,
        "answered": 133,
        "dropped_stale": 32,
        "failed_x": 1,
    }
    lines = record.lines(8.0)
    assert any("restarts: 2" in line for line in lines)
    assert "  received: 165" in lines
    assert "  dropped_stale: 32" in lines


def test_without_a_restart_none_is_told():
    record = FieldRecord()
    for second in range(3):  # a rate and a queue may fall
        report(record, "ddfd", [second], received=second, rate_hz=9 - second, in_flight=2 - second)
    assert record.to_dict(2.0)["statuses"]["ddfd"]["restarts"] == 0
    assert not any("restarts" in line for line in record.lines(2.0))


@pytest.mark.parametrize("period_s", [0.2, 1.0, 6.0, 60.0])
def test_silence_is_measured_by_the_usual_gap(period_s):
    record = FieldRecord()
    report(record, "ddfd", [period_s * number for number in range(20)])
    last_s = 19 * period_s
    status = record.to_dict(last_s + period_s)["statuses"]["ddfd"]
    assert (status["seconds"], status["silent_s"]) == ({"OK": pytest.approx(last_s)}, 0.0)
    gap_s = max(5.0, 3 * period_s) + 1.0
    assert record.to_dict(last_s + gap_s)["statuses"]["ddfd"]["silent_s"] == pytest.approx(gap_s)
    report(record, "ddfd", [last_s + gap_s])
    status = record.to_dict(last_s + gap_s)["statuses"]["ddfd"]
    assert status["silent_s"] == pytest.approx(gap_s)


def test_one_report_is_said_of_one_alone():
    record = FieldRecord()
    report(record, "one", [0.0])
    report(record, "two", [0.0, 0.0])
    assert record.lines(1.0)[1:] == ["one: one report", "two: 2 reports"]
