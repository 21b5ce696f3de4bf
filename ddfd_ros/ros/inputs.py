"""The node's subscriptions: the camera's image and camera_info, made anew at each activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ddfd_ros.ros.events import (
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
    report_incompatible_qos,
)
from ddfd_ros.ros.qos import OVERRIDES
from ddfd_ros.ros.statistics import Statistics

IMAGE_TOPIC = "image_raw"
INFO_TOPIC = "camera_info"


class Inputs:
    """Subscriptions with sensor-data quality of service: best effort, only the newest image.

    Attributes:
        image_topic: Full name of the image's topic.

    Args:
        node: The rclpy node.
        transport: ``raw`` or ``compressed``.
        on_image: Receives ``Image`` or ``CompressedImage`` messages.
        on_info: Receives ``CameraInfo`` messages.
        statistics: Counts what the middleware reports.
    """

    def __init__(
        self,
        node: Any,
        transport: str,
        on_image: Callable[[Any], None],
        on_info: Callable[[Any], None],
        statistics: Statistics,
    ) -> None:
        self._node = node
        self._statistics = statistics
        self._subscriptions: list[Any] = []
        receive: Callable[..., None] = on_image
        if hasattr(Subscription, "CallbackType"):  # rclpy hands out message infos
            receive = self._noticing_gaps(on_image)
        kind, topic = Image, IMAGE_TOPIC
        self.image_topic = node.resolve_topic_name(IMAGE_TOPIC)
        if transport == "compressed":
            # As image_transport does it: beside the image's topic, wherever that was remapped to.
            self.image_topic += "/compressed"
            kind, topic = CompressedImage, self.image_topic
        try:
            # camera_info is small, and looked up by stamp: none is to be missed.
            self._subscribe(CameraInfo, INFO_TOPIC, on_info, depth=16)
            self._subscribe(kind, topic, receive)
        except BaseException:  # an override that is refused; the next try must find none left
            self.destroy()
            raise

    def destroy(self) -> None:
        """Leave the camera's topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _noticing_gaps(self, on_image: Callable[[Any], None]) -> Callable[[Any, Any], None]:
        """``on_image``, but counting what the camera sent and was never received.

        The middleware keeps one frame: when this thread is late, the next one takes its place
        without a word. The sender's numbers tell; with two senders on the topic they tell nothing.
        """
        last, alone = 0, True

        def receive(message: Any, info: Any) -> None:
            nonlocal last, alone
            number = info.get("publication_sequence_number") or 0
            missed = number - last - 1 if last else 0
            last = number
            known = number > 0
            if missed:
                # The first gap after two senders lies between their numbers, though one has left.
                before, alone = alone, self._subscriptions[-1].get_publisher_count() == 1
                known = missed > 0 and alone and before
            self._statistics.count_gap(missed if known else None)
            on_image(message)

        return receive

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[..., None], depth: int = 1
    ) -> None:
        incompatible = report_incompatible_qos(self._node, self._statistics, topic)

        def create(**events: Callable[[Any], None]) -> Any:
            return self._node.create_subscription(
                kind,
                topic,
                callback,
                QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=incompatible, **events
                ),
                qos_overriding_options=OVERRIDES,
            )

        def lost(event: Any) -> None:
            self._statistics.count_event("message_lost", event.total_count_change)

        try:
            subscription = create(message_lost=lost)
        except UnsupportedEventTypeError:  # not every middleware reports losses
            subscription = create()
        self._subscriptions.append(subscription)
