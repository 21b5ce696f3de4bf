"""The node's image topics: who listens decides what is computed and sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image

from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.events import PublisherEventCallbacks, report_incompatible_qos
from ddfd_ros.ros.messages import ImageEncoder
from ddfd_ros.ros.statistics import Statistics

TOPICS: dict[str, tuple[str, str]] = {
    "depth_m": ("depth/image_rect", "depth/camera_info"),
    "sharp_rgb": ("all_in_focus/image", "all_in_focus/camera_info"),
    "sigma_m": ("uncertainty/image", "uncertainty/camera_info"),
}
"""Head -> its image topic and the camera_info beside it (the sibling rule of image_transport)."""

LATENCY_TOPIC = "latency"

Prepared = list[tuple[Publisher, Any]]
"""Messages ready to be sent, with their publishers."""


class Outputs:
    """Publishers of one model's heads; made at configure, destroyed at cleanup.

    ``rclpy`` publishers may be used from any thread, and counting subscribers costs about a
    microsecond, so all of this runs in the worker's thread, frame by frame.
    """

    def __init__(self, node: Any, heads: tuple[str, ...], statistics: Statistics) -> None:
        """Advertise the topics of those of ``heads`` that have one.

        Args:
            node: The rclpy node.
            heads: What the model computes.
            statistics: Counts subscribers that ask for what a publisher cannot offer.
        """
        self._node = node

        def advertise(kind: Any, topic: str) -> Publisher:
            incompatible = report_incompatible_qos(node, statistics, topic)
            return node.create_publisher(
                kind,
                topic,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
                event_callbacks=PublisherEventCallbacks(incompatible_qos=incompatible),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

        topics = {head: names for head, names in TOPICS.items() if head in heads}
        self._images = {head: advertise(Image, image) for head, (image, _) in topics.items()}
        self._infos = {head: advertise(CameraInfo, info) for head, (_, info) in topics.items()}
        self._encoders = {head: ImageEncoder() for head in topics}
        self._latency = advertise(DiagnosticArray, LATENCY_TOPIC)

    def wanted_heads(self) -> frozenset[str]:
        """Heads whose image somebody listens to."""
        return frozenset(h for h, p in self._images.items() if p.get_subscription_count())

    def wants_info(self) -> bool:
        """Whether somebody listens to any camera_info."""
        return any(p.get_subscription_count() for p in self._infos.values())

    def prepare_images(
        self, estimate: Estimate, heads: frozenset[str], header: Any, depth_encoding: str
    ) -> Prepared:
        """Encode the heads of ``estimate`` that are wanted, all with the input's header.

        To be sent before the next call, which writes into the same messages.
        """
        result: Prepared = []
        for head in heads & self._images.keys():
            values: np.ndarray | None = getattr(estimate, head)
            if values is None:
                continue
            encoding = {"depth_m": depth_encoding, "sharp_rgb": "rgb8"}.get(head, "32FC1")
            message = self._encoders[head].encode(values, header, encoding)
            result.append((self._images[head], message))
        return result

    def prepare_infos(self, info: CameraInfo, header: Any) -> Prepared:
        """``info`` for every camera_info topic that somebody listens to."""
        info.header = header
        return [(p, info) for p in self._infos.values() if p.get_subscription_count()]

    @staticmethod
    def send(messages: Prepared) -> None:
        """Publish what was prepared."""
        for publisher, message in messages:
            publisher.publish(message)

    def wants_latency(self) -> bool:
        """Whether somebody listens to the latency split."""
        return bool(self._latency.get_subscription_count())

    def send_latency(self, message: DiagnosticArray) -> None:
        """Publish one frame's latency split."""
        self._latency.publish(message)

    def destroy(self) -> None:
        """Withdraw all topics."""
        for publisher in (*self._images.values(), *self._infos.values(), self._latency):
            self._node.destroy_publisher(publisher)
