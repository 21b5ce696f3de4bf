"""Heartbeats between the node and the lifecycle manager that activated it.

Managers such as Nav2's expect a bond from every node they activate, under the node's name on the
topic ``bond``: both sides send a heartbeat, and each learns when the other is gone. Needs the
message package ``bond``; without it there are none, and the manager is to be told so
(``bond_timeout: 0.0``).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any

from rclpy.clock import Clock, ClockType

CONNECT_TIMEOUT_S = 10.0
HEARTBEAT_TIMEOUT_S = 4.0
"""The protocol's own: how long the other side may stay silent before and after it was heard."""

BOND_TOPIC = "bond"


class BondState(Enum):
    """Where a bond stands."""

    WAITING = "nobody was heard yet"
    ALIVE = "both sides are heard"
    BROKEN = "ended, by either side or by silence"


class Bond:
    """One side of a bond; without ROS, so that it can be followed step by step.

    Args:
        send: Sends a status: whether this side is alive.
        on_broken: Told when the other side ends or falls silent.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        send: Callable[[bool], None],
        on_broken: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance_id = str(uuid.uuid4())
        self.state = BondState.WAITING
        self._send, self._on_broken, self._clock = send, on_broken, clock
        self._sister = ""
        self._heard = clock()

    def tick(self) -> None:
        """Send a heartbeat, or notice the other side's silence; to be called every period."""
        if self.state is BondState.BROKEN:
            return
        silent_s = self._clock() - self._heard
        if self.state is BondState.WAITING and silent_s > CONNECT_TIMEOUT_S:
            self.state = BondState.BROKEN  # nobody wants a bond: nothing is lost
        elif self.state is BondState.ALIVE and silent_s > HEARTBEAT_TIMEOUT_S:
            self.state = BondState.BROKEN
            self._on_broken(f"the lifecycle manager was not heard for {silent_s:.1f} s")
        else:
            self._send(True)

    def hear(self, instance_id: str, active: bool) -> None:
        """A status arrived under this bond's name."""
        if instance_id == self.instance_id or self.state is BondState.BROKEN:
            return
        self._sister = self._sister or instance_id
        if instance_id != self._sister:
            return  # a third party: a bond has two ends
        if active:
            self.state = BondState.ALIVE
            self._heard = self._clock()
            return
        formed = self.state is BondState.ALIVE
        self.state = BondState.BROKEN
        self._send(False)  # the other side waits for it
        if formed:
            self._on_broken("the lifecycle manager ended the bond")

    def close(self) -> None:
        """End the bond from this side."""
        if self.state is not BondState.BROKEN:
            self.state = BondState.BROKEN
            self._send(False)


class NodeBond:
    """A bond of an rclpy node, over its topic and with its executor."""

    def __init__(self, node: Any, kind: Any, period_s: float) -> None:
        """Begin to send heartbeats.

        Args:
            node: The rclpy node; its name is the bond's.
            kind: The message type ``bond.msg.Status``.
            period_s: Seconds between two heartbeats.
        """
        self._node, self._kind, self._period_s = node, kind, period_s
        self._bond = Bond(self._send, self._broken)
        self._publisher = node.create_publisher(kind, BOND_TOPIC, 5)
        self._subscription = node.create_subscription(kind, BOND_TOPIC, self._hear, 100)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period_s, self._bond.tick, clock=steady)

    def close(self) -> None:
        """End the bond and leave its topic."""
        if self._node.context.ok():  # after a shutdown nothing can be sent, and sending raises
            self._bond.close()
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def _send(self, active: bool) -> None:
        message = self._kind()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.id = self._node.get_name()
        message.instance_id = self._bond.instance_id
        message.active = active
        message.heartbeat_timeout = HEARTBEAT_TIMEOUT_S
        message.heartbeat_period = self._period_s
        self._publisher.publish(message)

    def _hear(self, message: Any) -> None:
        if message.id == self._node.get_name():
            self._bond.hear(message.instance_id, message.active)

    def _broken(self, reason: str) -> None:
        self._node.get_logger().warning(f"bond broken: {reason}; the node goes on")


def make_bond(node: Any, period_s: float) -> NodeBond | None:
    """A bond of ``node``; None when none is wanted, or the package ``bond`` is not installed."""
    if not period_s > 0:
        return None
    try:
        from bond.msg import Status
    except ImportError:
        return None
    return NodeBond(node, Status, period_s)
