"""The node's ``/diagnostics`` (REP 107) and its ``latency`` topic, as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ddfd_ros.ros.statistics import Snapshot

MISSING_LIMIT = 0.1
"""Estimated share of lost frames from which on diagnostics warn."""

STAGES = ("queue", "decode", "pad", "infer", "postprocess", "encode", "publish", "total")
"""Stages of a frame in milliseconds, in order; ``total`` from subscription to publication."""

PROFILE_HINT = (
    "large images need the shared-memory profile config/fastdds_shm_64mb.xml in "
    "FASTRTPS_DEFAULT_PROFILES_FILE (from Kilted on FASTDDS_DEFAULT_PROFILES_FILE), in the camera "
    "driver's process above all"
)


@dataclass(frozen=True)
class NodeStatus:
    """What the diagnostics say besides the statistics.

    Attributes:
        state: Lifecycle state (unconfigured, inactive, active, finalized).
        model: Path of the loaded model, empty when none is.
        model_sha256: Digest of its weights.
        runtime: Name of the runtime.
        device: Where and how it runs.
        profile: Fast DDS profile file in force.
        load_error: Why the last configure failed, empty when it did not.
        camera_problem: What is wrong with camera_info, empty when nothing is.
        last_failure: The last frame's error, empty when the last frame was answered.
    """

    state: str = "unconfigured"
    model: str = ""
    model_sha256: str = ""
    runtime: str = ""
    device: str = ""
    profile: str = ""
    load_error: str = ""
    camera_problem: str = ""
    last_failure: str = ""


def diagnostics(name: str, status: NodeStatus, snapshot: Snapshot, stamp: Any) -> DiagnosticArray:
    """The message for ``/diagnostics``: one status called ``name``, stamped ``stamp``."""
    level, message = _judge(status, snapshot)
    values = {
        "state": status.state,
        "model": status.model,
        "model_sha256": status.model_sha256,
        "runtime": status.runtime,
        "device": status.device,
        "fast_dds_profile": status.profile,
        "rate_hz": snapshot.rate_hz,
        "input_hz": snapshot.input_hz,
        "age_p50_ms": snapshot.age_ms[0],
        "age_p95_ms": snapshot.age_ms[1],
        "received": snapshot.received,
        "answered": snapshot.answered,
        "in_flight": snapshot.in_flight,
    }
    values |= {f"dropped_{k}": v for k, v in sorted(snapshot.dropped.items())}
    values |= {f"failed_{k}": v for k, v in sorted(snapshot.failed.items())}
    values |= {k: v for k, v in sorted(snapshot.events.items())}
    for stage in STAGES:
        if stage in snapshot.stages_ms:
            values[f"{stage}_p50_ms"], values[f"{stage}_p95_ms"] = snapshot.stages_ms[stage]
    values |= {
        "valid_fraction": snapshot.valid_fraction,
        "median_sigma_m": snapshot.median_sigma_m,
        "missing_fraction": snapshot.missing_fraction,
    }
    return _array(name, level, message, values, stamp, hardware_id=status.device or "none")


def latency(name: str, stages_ms: Mapping[str, float], stamp: Any) -> DiagnosticArray:
    """The message for ``latency``: the stages of one frame, stamped like its image."""
    values = {stage: float(stages_ms.get(stage, 0.0)) for stage in STAGES}
    return _array(f"{name}: latency", DiagnosticStatus.OK, "milliseconds", values, stamp)


def _judge(status: NodeStatus, snapshot: Snapshot) -> tuple[bytes, str]:
    """The level, and in words what is wrong and what helps."""
    if status.load_error:
        return DiagnosticStatus.ERROR, status.load_error
    if status.state != "active":
        return DiagnosticStatus.WARN, f"{status.state}: no frames are answered in this state"
    if status.last_failure:
        return DiagnosticStatus.ERROR, status.last_failure
    said = [
        text for text in (*_transport(snapshot), _flow(snapshot), status.camera_problem) if text
    ]
    if said:
        return DiagnosticStatus.WARN, "; ".join(said)
    if snapshot.rate_hz == 0.0:
        return DiagnosticStatus.OK, "active, nobody listens"
    return DiagnosticStatus.OK, f"active, {snapshot.rate_hz:.1f} Hz"


def _transport(snapshot: Snapshot) -> list[str]:
    """What the middleware does wrong."""
    said = []
    if snapshot.events.get("qos_incompatible"):
        said.append("a peer's QoS is incompatible, nothing passes between us: see qos_overrides")
    if snapshot.missing_fraction > MISSING_LIMIT or snapshot.events.get("message_lost"):
        said.append(f"{snapshot.missing_fraction:.0%} of the frames get lost: {PROFILE_HINT}")
    return said


def _flow(snapshot: Snapshot) -> str:
    """Why no frame comes in, or none goes out though somebody listens."""
    if snapshot.input_hz == 0.0:
        return "no frames arrive on image_raw"
    if snapshot.rate_hz == 0.0 and snapshot.dropped.get("stale", 0) > snapshot.dropped.get(
        "idle", 0
    ):
        return (
            "frames are older than max_age_s: synchronise the clocks, set use_sim_time for a bag, "
            "or raise max_age_s"
        )
    return ""


def _array(
    name: str,
    level: bytes,
    message: str,
    values: Mapping[str, Any],
    stamp: Any,
    hardware_id: str = "",
) -> DiagnosticArray:
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.4g}"
    return str(value)
