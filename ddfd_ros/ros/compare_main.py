"""The executable ``ddfd_compare``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from ddfd_ros.ros.environment import end_with_parent, prepare_environment
from ddfd_ros.ros.main import StopFlag, start_ros

_POLL_S = 0.2


def main(args: Sequence[str] | None = None) -> int:
    """Compare until told to stop; a last report follows then.

    Returns:
        The exit status: 0 after a signal or a shutdown, 2 for wrong arguments.
    """
    stop = StopFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end_with_parent()
    prepare_environment()
    import rclpy

    parser = argparse.ArgumentParser(
        prog="ddfd_compare",
        description="Compare the node's depth with a depth camera's, live. Remap reference/image "
        "and reference/camera_info to the camera's topics (after --ros-args).",
    )
    try:
        start_ros(parser, args)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return _run(stop)
    finally:
        rclpy.try_shutdown()


def _run(stop: StopFlag) -> int:
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.logging import get_logger

    from ddfd_ros.core.errors import DdfdError
    from ddfd_ros.ros.compare import CompareNode

    try:
        node = CompareNode()
    except (DdfdError, ParameterException) as error:
        get_logger("ddfd_compare").fatal(f"cannot start: {error}; correct the parameter")
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not stop.requested:
            executor.spin_once(timeout_sec=_POLL_S)
    except ExternalShutdownException:
        pass
    if rclpy.ok():
        node.report()
    total = node.errors.total()
    node.get_logger().info(
        f"{node.errors.frames} frames compared: rms {total.rms_m:.3g} m, bias {total.bias_m:.3g} "
        f"m, abs_rel {total.abs_rel:.3g}, delta1 {total.delta1:.1%}, within 1 sigma "
        f"{total.within_1_sigma:.1%}"
    )
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
