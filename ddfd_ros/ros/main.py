"""The executable ``ddfd_node``: one node, one executor, a clean end on SIGINT and SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ddfd_ros.ros.environment import end_with_parent, prepare_environment

_POLL_S = 0.2
"""How often the executor wakes to see whether a signal came."""


class StopFlag:
    """Set by the signal handler, read by everything that waits.

    A plain attribute: an Event's lock could be held by the very code the handler interrupts.
    """

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; a second signal changes nothing."""
        self.requested = True


def start_ros(
    parser: argparse.ArgumentParser, args: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the command line and start rclpy, which leaves the signals alone.

    Args:
        parser: Of what comes before ``--ros-args``.
        args: Command line with the program's name; None: the process's own.

    Raises:
        SystemExit: argparse has printed its help (status 0), or what is wrong (status 2).
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    command_line = list(sys.argv if args is None else args)
    try:
        options = parser.parse_args(remove_ros_args(command_line)[1:])
        rclpy.init(args=command_line, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # what rclpy raises of its arguments
        said = str(error).partition(", at /")[0]  # without the places in its sources
        parser.error(f"after --ros-args: {said}")
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop.

    Args:
        args: Command line with the program's name; None: the process's own.

    Returns:
        The exit status: 0 after a signal or a shutdown of the context, 2 for wrong arguments.
    """
    # rclpy's own handlers raise KeyboardInterrupt at an arbitrary place, a second one even while
    # the node is being destroyed. These only set a flag, and stand before the slow imports.
    stop = StopFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end_with_parent()
    prepare_environment()
    import rclpy

    try:
        start_ros(_parser(), args)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return _run(stop)
    finally:
        rclpy.try_shutdown()


def _run(stop: StopFlag) -> int:
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger

    from ddfd_ros.core.errors import DdfdError
    from ddfd_ros.ros.node import DdfdNode

    try:
        node = DdfdNode(lambda: stop.requested)
    except (DdfdError, ParameterException) as error:
        get_logger("ddfd").fatal(f"cannot start: {error}; correct the parameter and start again")
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _spin(executor, node, stop)
    stopped = node.close()
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    if not stopped:
        # The worker is inside the runtime's native code, which cannot be interrupted. Tearing the
        # interpreter down around it may crash; nothing is left to be saved.
        get_logger("ddfd").warning("the model did not return in time; leaving without it")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _spin(executor: Any, node: Any, stop: StopFlag) -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.impl.implementation_singleton import rclpy_implementation

    while rclpy.ok() and not stop.requested:
        try:
            executor.spin_once(timeout_sec=_POLL_S)
        except ExternalShutdownException:
            return
        except rclpy_implementation.RCLError as error:
            # A failed rcl call in one callback (a client that left before its answer, a request
            # for an impossible transition) must not take the camera's depth away.
            node.get_logger().error(f"ROS call failed, the node goes on: {error}")


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="ddfd_node",
        description="Depth and an all-in-focus image from one defocused camera image.",
        epilog="Parameters, names and remappings follow --ros-args, for example: ddfd_node "
        "--ros-args -p model_path:=/path/model.onnx -r image_raw:=/camera/image_raw",
    )


if __name__ == "__main__":
    sys.exit(main())
