"""``ddfd_summary`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


def test_it_writes_what_was_said(stage, tmp_path):
    peer = stage.peer
    output = tmp_path / "test" / "summary.json"
    command = [sys.executable, "-m", "ddfd_ros.ros.field_summary", "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--match", "robot"],
        env=os.environ | {"ROS_DOMAIN_ID": str(stage.domain_id)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        publisher = peer.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # The peer itself listens, too.
        assert peer.spin_until(lambda: publisher.get_subscription_count() >= 2)
        peer.spin_for(0.5)
        for name in ("robot/ddfd", "somebody else"):
            status = DiagnosticStatus(
                level=DiagnosticStatus.WARN,
                name=name,
                message="hot",
                values=[
                    KeyValue(key="rate_hz", value="12.5"),
                    KeyValue(key="range", value="inf"),  # another driver's
                ],
            )
            publisher.publish(DiagnosticArray(status=[status]))
        peer.spin_for(0.5)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "WARN" in said
    text = output.read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(summary["statuses"]) == {"robot/ddfd"}
    status = summary["statuses"]["robot/ddfd"]
    assert status["said"][0]["message"] == "hot"
    assert status["numbers"]["rate_hz"]["mean"] == 12.5
    assert summary["machine"]["cores"]


def test_an_earlier_summary_stays(tmp_path):
    """Started twice where one lies: each leaves its own, by number."""
    (tmp_path / "summary.json").write_text("an earlier ride's")
    for count in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", "ddfd_ros.ros.field_summary"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("*.json"))) == count and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert "summary_3.json" in said
    assert (tmp_path / "summary.json").read_text() == "an earlier ride's"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["summary.json", "summary_2.json", "summary_3.json"]
    for name in names[1:]:
        assert "duration_s" in json.loads((tmp_path / name).read_text())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "ddfd_ros.ros.field_summary"]
    command += ["--output", str(tmp_path / "file" / "summary.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
