"""A camera and a consumer of the node's topics in this process, over real DDS.

What comes back is kept as it arrives from the network (rclpy's ``raw`` subscriptions): a stamp is
read from the first bytes, and the megabytes behind it are not turned into Python objects, so that
the measurement costs little of the processors it measures.
"""

from __future__ import annotations

import array
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

IMAGES = ("depth/image_rect", "all_in_focus/image", "uncertainty/image")
"""Output images that are listened to, where the model has them; each with its camera_info."""

FURTHER = {
    "points": PointCloud2,
    "depth/color": Image,
    "all_in_focus/image/compressed": CompressedImage,
}
"""Outputs that cost more, listened to on demand."""

_STAMP = struct.Struct("<iI")
_SETTLE_S = 10.0


@dataclass
class Record:
    """What went out and what came back.

    Attributes:
        sent: Stamps in nanoseconds, in the order of sending.
        answers: By topic, (stamp, publication time) in nanoseconds of the system's clock.
        stages_ms: The node's latency split, by stamp.
        reports: The node's diagnostics as they came: (monotonic seconds, values).
    """

    sent: list[int] = field(default_factory=list)
    answers: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    stages_ms: dict[int, dict[str, float]] = field(default_factory=dict)
    reports: list[tuple[float, dict[str, str]]] = field(default_factory=list)


class Stream:
    """One camera and the consumers of one node.

    Args:
        network: Shared by the streams of a process.
        namespace: Of the node, empty for none.
        pictures: uint8 ``[H, W, 3]`` RGB, sent in turn.
        everything: Whether to listen to the topics of ``FURTHER``, too.
    """

    def __init__(
        self,
        network: Network,
        namespace: str,
        pictures: Sequence[np.ndarray],
        everything: bool = False,
    ) -> None:
        self.record = Record()
        self._node = network.node
        prefix = f"/{namespace}/" if namespace else "/"
        self._prefix, self._name = prefix, f"{prefix}ddfd".lstrip("/")
        self._camera = self._node.create_publisher(Image, f"{prefix}image_raw", 1)
        self._info_publisher = self._node.create_publisher(CameraInfo, f"{prefix}camera_info", 1)
        self._messages = [_message(rgb) for rgb in pictures]
        height, width = pictures[0].shape[:2]
        self._info = _camera_info(height, width)
        kinds: dict[str, Any] = dict.fromkeys(IMAGES, Image)
        kinds |= {topic.rpartition("/")[0] + "/camera_info": CameraInfo for topic in IMAGES}
        for topic, kind in (kinds | (FURTHER if everything else {})).items():
            kept = self.record.answers.setdefault(topic, [])
            self._node.create_subscription(
                kind, f"{prefix}{topic}", _keeper(kept), QoSProfile(depth=10), raw=True
            )
        self._node.create_subscription(DiagnosticArray, f"{prefix}latency", self._on_latency, 50)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    def send(self) -> None:
        """Publish the next picture, stamped now, and its camera_info."""
        message = self._messages[len(self.record.sent) % len(self._messages)]
        stamp_ns = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self._info.header = message.header
        self.record.sent.append(stamp_ns)
        self._info_publisher.publish(self._info)
        self._camera.publish(message)

    def connected(self) -> bool:
        """Whether the node is active and listens."""
        return bool(self._camera.get_subscription_count())

    def answered(self) -> int:
        """Images that came back on the topic with the most."""
        return max(map(len, self.record.answers.values()))

    def published_topics(self) -> list[str]:
        """Those of ``IMAGES`` that the node offers."""
        return [t for t in IMAGES if self._node.count_publishers(f"{self._prefix}{t}")]

    def settled(self, timeout_s: float = _SETTLE_S) -> dict[str, str]:
        """The node's diagnostics once nothing is in flight and nothing changes any more."""
        end, before = time.monotonic() + timeout_s, {"received": "?"}
        seen = len(self.record.reports)
        while time.monotonic() < end:
            time.sleep(0.1)
            new = self.record.reports[seen:]
            for _, values in new:
                if values["in_flight"] == "0" and values["received"] == before["received"]:
                    return values
                before = values
            seen += len(new)
        return before

    def _on_latency(self, message: Any) -> None:
        stamp = message.header.stamp
        values = {item.key: float(item.value) for item in message.status[0].values}
        self.record.stages_ms[stamp.sec * 10**9 + stamp.nanosec] = values

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if status.name == self._name and "received" in values:
                self.record.reports.append(
                    (time.monotonic(), values | {"message": status.message})
                )


class Network:
    """This process's place on the network, and the thread that receives.

    The environment names the domain: see ``ddfd_demo.processes.ros_environment``.
    """

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        name = f"benchmark_{os.getpid()}"
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self) -> None:
        """Receive from now on; everything has to be subscribed before."""
        self._thread.start()

    def close(self) -> None:
        """Leave the network."""
        self._executor.shutdown()
        rclpy.try_shutdown(context=self._context)
        self._thread.join(5.0)

    def _spin(self) -> None:
        try:
            while self._context.ok():
                self._executor.spin_once(0.1)
        except ExternalShutdownException:
            return


def play(
    streams: Sequence[Stream], rate_hz: float, seconds: float, each: Callable[[float], bool]
) -> None:
    """Send at a steady rate, the streams in turn within a period.

    A tick that comes more than a period late is left out, not made up for.

    Args:
        streams: The cameras.
        rate_hz: Frames per second of each.
        seconds: How long.
        each: Called after every tick with the seconds since the start; False ends the play.
    """
    period_s = 1.0 / (rate_hz * len(streams))
    start = time.monotonic()
    tick = 0
    while (now := time.monotonic() - start) < seconds:
        due = tick * period_s
        if now < due:
            time.sleep(due - now)
        elif now - due > period_s * len(streams):
            tick += len(streams)
            continue
        streams[tick % len(streams)].send()
        tick += 1
        if not each(time.monotonic() - start):
            return


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition; whether it came to hold in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _keeper(kept: list[tuple[int, int]]) -> Callable[[Any, Any], None]:
    def keep(serialized: Any, info: Any) -> None:
        # CDR: 4 bytes of encapsulation, then header.stamp.sec and .nanosec.
        sec, nanosec = _STAMP.unpack_from(serialized, 4)
        kept.append((sec * 10**9 + nanosec, info["source_timestamp"]))

    return keep


def _message(rgb: np.ndarray) -> Image:
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8")
    message.step = rgb.shape[1] * 3
    message.header.frame_id = "camera_optical"
    message.data = array.array("B", rgb.tobytes())
    return message


def _camera_info(height: int, width: int) -> CameraInfo:
    f, cx, cy = float(width), width / 2 - 0.5, height / 2 - 0.5
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info
