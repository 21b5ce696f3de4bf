"""What a field test's summary keeps of the diagnostics."""

from __future__ import annotations

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
    status = record.to_dict()["statuses"]["ddfd"]
    assert status["seconds"] == {"OK": 6.0, "WARN": 3.0}
    assert status["silent_s"] == 21.0
    lost, broken = status["said"]
    assert (lost["first_s"], lost["last_s"], lost["reports"]) == (3.0, 5.0, 3)
    assert (lost["level"], broken["level"]) == ("WARN", "ERROR")
    rate = status["numbers"]["rate_hz"]
    assert rate == {"least": 10.0, "mean": 14.5, "greatest": 19.0, "last": 19.0}
    assert status["texts"]["state"] == "active"
    assert "dropped_stale" not in status["numbers"]
    text = "\n".join(record.lines())
    assert "3 s WARN" in text
    assert "rate_hz: mean 14.5 (10 to 19)" in text
    assert "WARN from 3 s to 5 s" in text


def test_messages_do_not_grow_without_end():
    record = FieldRecord()
    for number in range(1000):
        record.add(
            "a", 1, f"text {chr(97 + number % 26)}{chr(97 + number // 26)}", {}, 0.1 * number
        )
    assert len(record.to_dict()["statuses"]["a"]["said"]) == 200


def test_nothing_came():
    assert FieldRecord().to_dict() == {"duration_s": 0.0, "statuses": {}}
    assert FieldRecord().lines() == ["0 s of diagnostics"]
