"""The node's ``/diagnostics`` (REP 107) and its ``latency`` topic, as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ddfd_ros.core.image_quality import (
    CLIPPED_LIMIT,
    DARK_LIMIT,
    DETAIL_LIMIT,
    SMEAR_LIMIT,
    ImageQuality,
)
from ddfd_ros.core.platform_health import PlatformHealth
from ddfd_ros.ros.statistics import Snapshot

MISSING_LIMIT = 0.1
"""Estimated share of lost frames from which on diagnostics warn."""

AHEAD_LIMIT_S = 0.5
"""How far stamps may lie in the future: ``/clock`` may tick a few times a second only."""

BUSY_LIMIT_S = 5.0
"""How long a frame may take before it is told, unless frames that take so long are answered."""

STAGES = ("queue", "decode", "pad", "infer", "deblur", "postprocess", "encode", "publish", "total")
"""Stages of a frame in milliseconds, in order; ``total`` from subscription to publication."""
OPTIONAL_STAGES = ("deblur",)
"""Those that are there only where a second model runs."""

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
        engine_sha256: Digest of the engine file in force, empty where there is none.
        runtime: Name of the runtime.
        device: Where and how it runs.
        profile: Fast DDS profile file in force.
        image_topic: Full name of the topic that images are to come from.
        image_publishers: How many publish it; None: not known.
        clock_problem: Why the node has no time, empty when it has.
        load_error: Why the last configure or activate failed, empty when it did not.
        camera_problem: What is wrong with camera_info, empty when nothing is.
        lens_problem: How the camera's lens differs from the model's, empty when it does not.
        last_failure: The last frame's error, empty when the last frame was answered or nobody
            wanted it.
        degraded: What serves instead of what was asked for, and why; empty when nothing does.
        progress: What is being done while configuring, or beside serving.
        platform: Heat and throttling of the machine.
    """

    state: str = "unconfigured"
    model: str = ""
    model_sha256: str = ""
    engine_sha256: str = ""
    runtime: str = ""
    device: str = ""
    profile: str = ""
    image_topic: str = "image_raw"
    image_publishers: int | None = None
    clock_problem: str = ""
    load_error: str = ""
    camera_problem: str = ""
    lens_problem: str = ""
    last_failure: str = ""
    degraded: str = ""
    progress: str = ""
    platform: PlatformHealth = field(default_factory=PlatformHealth)


def diagnostics(name: str, status: NodeStatus, snapshot: Snapshot, stamp: Any) -> DiagnosticArray:
    """The message for ``/diagnostics``, stamped ``stamp``.

    Three statuses: ``name`` (the node and its frames), ``name: image`` (what the camera delivers)
    and ``name: machine`` (heat and throttling).
    """
    array = DiagnosticArray(
        status=[
            _node_status(name, status, snapshot),
            _image_status(name, snapshot.image),
            _machine_status(name, status.platform),
        ]
    )
    array.header.stamp = stamp
    return array


def _node_status(name: str, status: NodeStatus, snapshot: Snapshot) -> DiagnosticStatus:
    level, message = _judge(status, snapshot)
    values = {
        "state": status.state,
        "model": status.model,
        "model_sha256": status.model_sha256,
        "engine_sha256": status.engine_sha256,
        "runtime": status.runtime,
        "device": status.device,
        "degraded": status.degraded,
        "progress": status.progress,
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
    return _status(name, level, message, values, hardware_id=status.device or "none")


def _image_status(name: str, image: ImageQuality | None) -> DiagnosticStatus:
    """Exposure and blur of the camera's images."""
    name = f"{name}: image"
    if image is None:
        return _status(name, DiagnosticStatus.OK, "no image measured lately", {})
    said = []
    if image.dark_fraction > DARK_LIMIT:
        said.append(
            f"too dark: {image.dark_fraction:.0%} of the pixels are black; more light or exposure"
        )
    if image.clipped_fraction > CLIPPED_LIMIT:
        said.append(
            f"over-exposed: {image.clipped_fraction:.0%} of the pixels are clipped, their blur "
            "cannot be measured; expose less"
        )
    if image.smear > SMEAR_LIMIT:
        said.append(
            "blurred in one direction, by motion it seems, which is taken for defocus; expose "
            "shorter or move slower"
        )
    if image.detail < DETAIL_LIMIT:
        said.append(
            "nothing is sharp anywhere: a dirty or fogged lens, another focus, or everything is "
            "far from the focus"
        )
    values = {
        "dark_fraction": image.dark_fraction,
        "clipped_fraction": image.clipped_fraction,
        "detail": image.detail,
        "smear": image.smear,
    }
    level = DiagnosticStatus.WARN if said else DiagnosticStatus.OK
    return _status(name, level, "; ".join(said) or "exposure and blur are in order", values)


def _machine_status(name: str, platform: PlatformHealth) -> DiagnosticStatus:
    """Heat and throttling."""
    known = not math.isnan(platform.temperature_c) or not math.isnan(platform.cpu_clock_fraction)
    message = "; ".join(platform.throttling)
    if not message:
        message = "not throttled" if known else "this machine does not tell heat or throttling"
    values = {
        "temperature_c": platform.temperature_c,
        "hottest_zone": platform.hottest_zone,
        "cpu_clock_fraction": platform.cpu_clock_fraction,
        "cpu_limit_fraction": platform.cpu_limit_fraction,
    }
    level = DiagnosticStatus.WARN if platform.throttling else DiagnosticStatus.OK
    return _status(f"{name}: machine", level, message, values)


def latency(name: str, stages_ms: Mapping[str, float], stamp: Any) -> DiagnosticArray:
    """The message for ``latency``: the stages of one frame, stamped like its image."""
    present = [s for s in STAGES if s not in OPTIONAL_STAGES or s in stages_ms]
    values = {stage: float(stages_ms.get(stage, 0.0)) for stage in present}
    status = _status(f"{name}: latency", DiagnosticStatus.OK, "milliseconds", values)
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _judge(status: NodeStatus, snapshot: Snapshot) -> tuple[bytes, str]:
    """The level, and in words what is wrong and what helps."""
    if status.load_error:
        return DiagnosticStatus.ERROR, status.load_error
    if status.state != "active":
        doing = f" ({status.progress})" if status.progress else ""
        return (
            DiagnosticStatus.WARN,
            f"{status.state}{doing}: no frames are answered in this state",
        )
    if status.last_failure and snapshot.arriving:
        return DiagnosticStatus.ERROR, status.last_failure
    degraded = f"degraded: {status.degraded}" if status.degraded else ""
    # Where no frames come any more, that is the trouble now, and the last failure is history.
    problems = (status.last_failure, status.camera_problem, status.lens_problem, degraded)
    flow = (_flow(status, snapshot), _clock(status, snapshot))
    said = [text for text in (*_transport(snapshot), *flow, *problems) if text]
    if said:
        return DiagnosticStatus.WARN, "; ".join(said)
    return DiagnosticStatus.OK, f"active, {_rate(snapshot)}"


def _rate(snapshot: Snapshot) -> str:
    """How often is answered, or why not at all."""
    if snapshot.answering:
        hz = snapshot.rate_hz
        return (f"{hz:.1f} Hz" if hz >= 1 else f"{hz:.2g} Hz") if hz else "answering"
    return "nobody listens" if "idle" in snapshot.recent_drops else "no frame answered lately"


def _transport(snapshot: Snapshot) -> list[str]:
    """What the middleware does wrong."""
    said = []
    if "qos_incompatible" in snapshot.recent_events:
        said.append("a peer's QoS is incompatible, nothing passes between us: see qos_overrides")
    if snapshot.missing_fraction > MISSING_LIMIT:
        said.append(f"{snapshot.missing_fraction:.0%} of the frames get lost: {PROFILE_HINT}")
    elif "message_lost" in snapshot.recent_events:
        said.append(f"the middleware lost messages within the last minute: {PROFILE_HINT}")
    return said


def _flow(status: NodeStatus, snapshot: Snapshot) -> str:
    """Why no frame comes in, or none goes out though somebody listens."""
    if not snapshot.arriving:
        nobody = ", nobody publishes it" if status.image_publishers == 0 else ""
        return f"no frames arrive on {status.image_topic}{nobody}"
    drops = snapshot.recent_drops
    if not snapshot.answering and "stale" in drops and "idle" not in drops:
        return (
            "frames are older than max_age_s: synchronise the clocks, set use_sim_time for a bag, "
            "let the driver stamp its images, or raise max_age_s"
        )
    if not snapshot.answering and snapshot.busy_s > BUSY_LIMIT_S:
        return (
            f"a frame has been computed for {snapshot.busy_s:.0f} s: the model is too slow for "
            "this machine, is being prepared for another size of images, or does not return"
        )
    return ""


def _clock(status: NodeStatus, snapshot: Snapshot) -> str:
    """How the node's clock differs from the camera's."""
    ahead_s = -snapshot.age_ms[0] / 1e3
    if not status.clock_problem and ahead_s > AHEAD_LIMIT_S:
        return (
            f"stamps are {ahead_s:.3g} s ahead of this node's clock: synchronise the clocks of "
            "camera and robot, or set use_sim_time alike in all nodes"
        )
    return status.clock_problem


def _status(
    name: str, level: bytes, message: str, values: Mapping[str, Any], hardware_id: str = ""
) -> DiagnosticStatus:
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return status


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.4g}"
    return str(value)
