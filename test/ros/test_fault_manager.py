"""A lifecycle manager brings the node up, notices its death by kill -9, and brings it up again.

The manager here does what nav2's does: it asks for transitions with ``change_state``, checks them
with ``get_state``, and takes a node that no longer answers for dead. The process itself is
restarted by whoever started it (``respawn`` of a launch file), which here is the test.
"""

from __future__ import annotations

import time

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

UP = (
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
)
DOWN = (
    (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),
)


class Manager:
    """The client's side of a managed node's services."""

    def __init__(self, peer, name="ddfd"):
        self._peer = peer
        node = peer.node
        self._change_state = node.create_client(ChangeState, f"/{name}/change_state")
        self._get_state = node.create_client(GetState, f"/{name}/get_state")

    def wait_for_node(self, timeout_s=40.0):
        """Wait until it answers; requests to a dead predecessor's services get no answer."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.state(2.0) is not None:
                return
        raise AssertionError("no node answers")

    def state(self, timeout_s):
        """The state's number; None when no answer comes in time."""
        if not self._peer.spin_until(self._get_state.service_is_ready, timeout_s):
            return None
        answer = self._call(self._get_state, GetState.Request(), timeout_s)
        return None if answer is None else answer.current_state.id

    def go(self, *steps):
        """Request transitions, one after the other; False as soon as one fails."""
        for transition, state in steps:
            request = ChangeState.Request()
            request.transition.id = transition
            answer = self._call(self._change_state, request, 30.0)
            if answer is None or not answer.success or self.state(10.0) != state:
                return False
        return True

    def _call(self, client, request, timeout_s):
        future = client.call_async(request)
        if self._peer.spin_until(future.done, timeout_s):
            return future.result()
        client.remove_pending_request(future)
        return None


def _frame(peer, tools, seed):
    stamp = peer.send(tools.image_message(tools.picture(seed=seed)))
    return peer.answer("depth", stamp)


@pytest.mark.slow
def test_the_node_is_killed_in_mid_stream_and_brought_up_again(stage, tools):
    peer = stage.peer
    node = stage.start(autostart=False)
    manager = Manager(peer)
    manager.wait_for_node()
    assert manager.state(5.0) == State.PRIMARY_STATE_UNCONFIGURED
    assert manager.go(*UP)
    peer.wait_for_camera()
    peer.listen("depth")
    assert _frame(peer, tools, 1) is not None

    for _ in range(10):  # frames are on their way when it dies
        peer.send(tools.image_message(tools.picture()))
    node.kill()
    assert manager.state(1.0) is None  # as nav2's manager sees it: no heartbeat, no answer
    assert _frame_is_lost(peer, tools)

    again = stage.start(autostart=False)
    manager.wait_for_node()
    assert manager.state(10.0) == State.PRIMARY_STATE_UNCONFIGURED  # nothing is left of before
    assert manager.go(*UP)
    answered = peer.spin_until(lambda: _answers(peer, tools), 30.0)
    assert answered, again.log[-2000:]
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in peer.received["depth"]]
    assert len(stamps) == len(set(stamps))  # nothing of before is sent twice

    assert manager.go(*DOWN)
    assert again.stop()[0] == 0


def _frame_is_lost(peer, tools):
    stamp = peer.send(tools.image_message(tools.picture()))
    return peer.answer("depth", stamp, timeout_s=0.5) is None


def _answers(peer, tools):
    stamp = peer.send(tools.image_message(tools.picture()))
    return peer.answer("depth", stamp, timeout_s=1.0) is not None


def test_a_manager_that_asks_twice_or_out_of_order_is_refused_and_served_again(stage, tools):
    """What a manager does after its own restart: it does not know the node's state."""
    peer = stage.peer
    stage.start()  # has brought itself up already
    manager = Manager(peer)
    peer.wait_for_camera()
    manager.wait_for_node()
    assert manager.state(10.0) == State.PRIMARY_STATE_ACTIVE
    assert not manager.go(UP[0])  # configure an active node
    assert not manager.go(DOWN[1])  # clean up an active node
    assert manager.state(10.0) == State.PRIMARY_STATE_ACTIVE
    peer.listen("depth")
    assert _frame(peer, tools, 2) is not None
    for _ in range(3):  # a reset, as nav2 does it: down without the shutdown, and up again
        assert manager.go(*DOWN[:2])
        assert manager.go(*UP)
    assert peer.spin_until(lambda: _answers(peer, tools), 30.0)
