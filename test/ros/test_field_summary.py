"""``ddfd_summary`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

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


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "ddfd_ros.ros.field_summary"]
    command += ["--output", str(tmp_path / "file" / "summary.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
