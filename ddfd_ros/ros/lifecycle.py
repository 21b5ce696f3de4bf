"""What rclpy's lifecycle leaves to be done: errors in transitions, and impossible requests."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from ddfd_ros.core.errors import DdfdError

Node = TypeVar("Node", bound=LifecycleNode)


def transition(method: Callable[[Node], None]) -> Callable[..., TransitionCallbackReturn]:
    """Turn errors into the state machine's answers, with the reason in the log.

    rclpy swallows what a transition callback raises, without a word.
    """

    @functools.wraps(method)
    def guarded(self: Node, state: Any) -> TransitionCallbackReturn:
        try:
            method(self)
        except DdfdError as error:
            self.get_logger().error(f"{method.__name__[3:]} failed: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"{method.__name__} raised:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    return guarded


def answer_impossible_transitions(node: LifecycleNode) -> None:
    """Let ``node`` answer an impossible transition request with a refusal.

    rclpy lets the error fly out of spin() and never answers the client.
    """
    service, machine = node._service_change_state, node._state_machine
    change_state = service.callback

    def answer(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError:
            possible = [item[1] for item in machine.available_transitions]
            wanted = request.transition.label or request.transition.id
            state = machine.current_state[1]
            node.get_logger().warning(
                f"transition: expected one of {possible} in state {state}, got {wanted}"
            )
            response.success = False
            return response

    service.callback = answer
