"""The heartbeats to a lifecycle manager, step by step on a clock that the test moves."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from ddfd_ros.ros.bond import (
    CONNECT_TIMEOUT_S,
    HEARTBEAT_TIMEOUT_S,
    Bond,
    BondState,
    NodeBond,
    make_bond,
)


class Wire:
    """Two bonds, each of which hears what the other sends."""

    def __init__(self):
        self.now = 0.0
        self.broken = []
        self.sent = {"node": [], "manager": []}
        self.connected = True
        self.node = self._end("node", "manager")
        self.manager = self._end("manager", "node")

    def _end(self, own, other):
        def send(active):
            self.sent[own].append(active)
            if self.connected:
                getattr(self, other).hear(getattr(self, own).instance_id, active)

        return Bond(send, lambda reason: self.broken.append((own, reason)), lambda: self.now)

    def run(self, seconds, *ends):
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            for end in ends:
                end.tick()


def test_a_bond_forms_and_lives_while_both_are_heard():
    wire = Wire()
    wire.run(0.2, wire.node, wire.manager)
    assert wire.node.state is wire.manager.state is BondState.ALIVE
    wire.run(60, wire.node, wire.manager)
    assert wire.node.state is wire.manager.state is BondState.ALIVE
    assert wire.broken == []


def test_silence_breaks_it_after_the_timeout_and_not_before():
    wire = Wire()
    wire.run(0.2, wire.node, wire.manager)
    wire.connected = False
    wire.run(HEARTBEAT_TIMEOUT_S - 0.3, wire.node)
    assert wire.node.state is BondState.ALIVE
    wire.run(0.6, wire.node)
    assert wire.node.state is BondState.BROKEN
    assert [who for who, _ in wire.broken] == ["node"]
    count = len(wire.sent["node"])
    wire.run(5, wire.node)
    assert len(wire.sent["node"]) == count  # the dead do not send


def test_closing_tells_the_other_side_which_acknowledges():
    wire = Wire()
    wire.run(0.2, wire.node, wire.manager)
    wire.node.close()
    assert wire.manager.state is BondState.BROKEN
    assert wire.sent["node"][-1] is wire.sent["manager"][-1] is False
    assert [who for who, _ in wire.broken] == ["manager"]


def test_without_a_manager_it_gives_up_quietly():
    wire = Wire()
    wire.connected = False
    wire.run(CONNECT_TIMEOUT_S - 0.3, wire.node)
    assert wire.node.state is BondState.WAITING
    wire.run(0.6, wire.node)
    assert wire.node.state is BondState.BROKEN
    assert wire.broken == []


def test_a_third_party_is_not_heard():
    wire = Wire()
    wire.run(0.2, wire.node, wire.manager)
    wire.node.hear("somebody else", False)
    assert wire.node.state is BondState.ALIVE


def test_no_bond_where_none_is_wanted_or_installed():
    assert make_bond(None, 0.0) is None
    try:
        from bond.msg import Status  # noqa: F401
    except ImportError:
        assert make_bond(None, 0.1) is None
    else:
        pytest.skip("the package bond is installed")


@pytest.mark.parametrize("running", [True, False])
def test_a_bond_ends_after_a_shutdown_of_ros_too(running):
    """Publishing after it raises."""
    node, publish = MagicMock(), MagicMock(side_effect=None if running else RuntimeError)
    node.context.ok.return_value = running
    node.create_publisher.return_value.publish = publish
    bond = NodeBond(node, lambda: SimpleNamespace(header=SimpleNamespace()), 0.1)
    bond.close()
    assert publish.call_count == int(running)
    node.destroy_subscription.assert_called_once()
    node.destroy_publisher.assert_called_once()
    node.destroy_timer.assert_called_once()
