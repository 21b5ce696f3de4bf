"""What the middleware reports about topics, under the names of whichever rclpy is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import qos_policy_name_from_kind

from ddfd_ros.ros.statistics import Statistics

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

__all__ = [
    "PublisherEventCallbacks",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
    "report_incompatible_qos",
]


def report_incompatible_qos(
    node: Any, statistics: Statistics, topic: str
) -> Callable[[Any], None]:
    """A callback that counts and logs a peer with which nothing can be exchanged."""

    def report(event: Any) -> None:
        statistics.count_event("qos_incompatible", event.total_count_change)
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().warning(
            f"{topic}: expected a peer with compatible quality of service, got another {policy}; "
            "nothing passes between the two: set qos_overrides on one side"
        )

    return report
