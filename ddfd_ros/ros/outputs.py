"""The node's output topics: who listens decides what is computed and sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ddfd_ros.ros.events import PublisherEventCallbacks, report_incompatible_qos
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.qos import OVERRIDES
from ddfd_ros.ros.statistics import Statistics

TOPICS: dict[str, tuple[str, str]] = {
    "depth_m": ("depth/image_rect", "depth/camera_info"),
    "sharp_rgb": ("all_in_focus/image", "all_in_focus/camera_info"),
    "sigma_m": ("uncertainty/image", "uncertainty/camera_info"),
    "defocus_px": ("defocus/image", "defocus/camera_info"),
}
"""Head -> its image topic and the camera_info beside it (the sibling rule of image_transport)."""

COLOUR, CLOUD, ZONES = "depth/color", "points", "depth/zones"
COMPRESSED, COMPRESSED_DEPTH = "all_in_focus/image/compressed", "depth/image_rect/compressedDepth"
"""What is made of the heads."""

_BESIDE = {COMPRESSED: "sharp_rgb", COMPRESSED_DEPTH: "depth_m"}
"""Topics that go beside a head's image, wherever that was remapped to."""

LATENCY_TOPIC = "latency"

Messages = dict[str, Any]
"""Messages ready to be sent, by topic."""


@dataclass(frozen=True)
class Demand:
    """The topics that somebody listens to at one moment."""

    topics: frozenset[str]

    def __bool__(self) -> bool:
        """Whether anybody listens to anything that a frame gives."""
        return bool(self.topics)

    def __contains__(self, topic: str) -> bool:
        """Whether somebody listens to this topic."""
        return topic in self.topics

    def without(self, topic: str) -> Demand:
        """The same, but for one topic."""
        return Demand(self.topics - {topic})

    def heads(self, available: tuple[str, ...], parameters: NodeParameters) -> frozenset[str]:
        """The heads that have to be computed.

        Args:
            available: Those the model has.
            parameters: The colour and the limit of the cloud may need heads of their own.
        """
        wanted = {head for head, (image, _) in TOPICS.items() if image in self.topics}
        if not self.topics.isdisjoint((COLOUR, ZONES, COMPRESSED_DEPTH)):
            wanted.add("depth_m")
        if COMPRESSED in self.topics:
            wanted.add("sharp_rgb")
        if CLOUD in self.topics:
            wanted.add("depth_m")
            if parameters.cloud_max_sigma_m > 0:
                wanted.add("sigma_m")
            if parameters.cloud_color == "all_in_focus":
                wanted.add("sharp_rgb")
        return frozenset(wanted.intersection(available))


class Outputs:
    """Publishers of one model's answers; made at configure, destroyed at cleanup.

    ``rclpy`` publishers may be used from any thread, and counting subscribers costs about a
    microsecond, so all of this runs in the worker's thread, frame by frame.

    Attributes:
        heads: Heads of the model that have a topic.
    """

    def __init__(
        self,
        node: Any,
        heads: tuple[str, ...],
        statistics: Statistics,
        compressed: bool = False,
        zones: bool = False,
    ) -> None:
        """Advertise what can be made of ``heads``.

        Args:
            node: The rclpy node.
            heads: What the model computes.
            statistics: Counts subscribers that ask for what a publisher cannot offer.
            compressed: Whether depth and all-in-focus image are offered compressed too.
            zones: Whether the mask of the depth is offered.
        """
        self._node = node
        self._statistics = statistics
        self.heads = tuple(head for head in TOPICS if head in heads)
        kinds: dict[str, Any] = {}
        for head in self.heads:
            image, info = TOPICS[head]
            kinds |= {image: Image, info: CameraInfo}
        if "depth_m" in heads:
            kinds |= {COLOUR: Image, CLOUD: PointCloud2}
        if "depth_m" in heads and zones:
            kinds[ZONES] = Image
        if compressed:
            kinds |= {topic: CompressedImage for topic, head in _BESIDE.items() if head in heads}
        self._made: list[Publisher] = []
        try:
            self._publishers = {name: self._advertise(kind, name) for name, kind in kinds.items()}
            self._latency = self._advertise(DiagnosticArray, LATENCY_TOPIC)
        except BaseException:  # an override that is refused; the next try must find none left
            self.destroy()
            raise

    def _advertise(self, kind: Any, topic: str) -> Publisher:
        if topic in _BESIDE:
            image = self._node.resolve_topic_name(TOPICS[_BESIDE[topic]][0])
            topic = f"{image}/{topic.rpartition('/')[2]}"
        incompatible = report_incompatible_qos(self._node, self._statistics, topic)
        publisher = self._node.create_publisher(
            kind,
            topic,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            event_callbacks=PublisherEventCallbacks(incompatible_qos=incompatible),
            qos_overriding_options=OVERRIDES,
        )
        self._made.append(publisher)
        return publisher

    def demand(self) -> Demand:
        """What somebody listens to now."""
        return Demand(
            frozenset(t for t, p in self._publishers.items() if p.get_subscription_count())
        )

    def send(self, messages: Mapping[str, Any]) -> None:
        """Publish messages by topic, in their order."""
        for topic, message in messages.items():
            self._publishers[topic].publish(message)

    def wants_latency(self) -> bool:
        """Whether somebody listens to the latency split."""
        return bool(self._latency.get_subscription_count())

    def send_latency(self, message: DiagnosticArray) -> None:
        """Publish one frame's latency split."""
        self._latency.publish(message)

    def destroy(self) -> None:
        """Withdraw all topics."""
        for publisher in self._made:
            self._node.destroy_publisher(publisher)
        self._made = []
