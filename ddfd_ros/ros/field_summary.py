"""The executable ``ddfd_summary``: writes down what the diagnostics said, until told to stop.

The file is renewed every few seconds, so that a machine that loses its power leaves one too. An
earlier summary is never written over: the new one gets a number.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddfd_ros.core.field_record import FieldRecord
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info
from ddfd_ros.ros.environment import end_with_parent, prepare_environment
from ddfd_ros.ros.main import StopFlag, start_ros
from ddfd_ros.ros.throttle import ThrottledLog

_POLL_S = 0.2
_WRITE_PERIOD_S = 5.0
_FINISH_S = 1.0
"""How long it listens on after the signal: the others' last words are still on their way."""


def main(args: Sequence[str] | None = None) -> int:
    """Run until a signal; returns 0, or 2 for wrong arguments or a file that cannot be written."""
    stop = StopFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end_with_parent()
    prepare_environment()
    import rclpy

    parser = argparse.ArgumentParser(
        prog="ddfd_summary",
        description="Write a summary of /diagnostics: levels, warnings with their times, figures.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("summary.json"),
        help="JSON file (default: summary.json); where there is one, it stays, and this one is "
        "numbered: summary_2.json",
    )
    parser.add_argument("--match", default="", help="only statuses whose name contains this")
    try:
        options = start_ros(parser, args)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return _run(stop, options.output.expanduser(), options.match)
    except OSError as error:
        print(f"ddfd_summary: {options.output}: cannot be written: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


def _run(stop: StopFlag, output: Path, match: str) -> int:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    record, start, log = FieldRecord(), time.monotonic(), ThrottledLog(60.0)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")

    def now_s() -> float:
        return time.monotonic() - start

    def add(message: Any) -> None:
        for status in message.status:
            if match in status.name:
                values = {item.key: item.value for item in status.values}
                level = ord(status.level) if isinstance(status.level, bytes) else status.level
                record.add(status.name, level, status.message, values, now_s())

    def write() -> None:
        content = {"started": started, "machine": machine_info(), **record.to_dict(now_s())}
        _write(output, content)

    output.parent.mkdir(parents=True, exist_ok=True)
    output = _unused(output)
    node = rclpy.create_node("ddfd_summary")
    node.create_subscription(DiagnosticArray, "/diagnostics", add, 100)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    written, end = time.monotonic(), float("inf")
    write()
    try:
        while rclpy.ok() and time.monotonic() < end:
            executor.spin_once(timeout_sec=_POLL_S)
            if stop.requested and end == float("inf"):
                end = time.monotonic() + _FINISH_S
            if time.monotonic() - written > _WRITE_PERIOD_S:
                _renew(write, lambda text: log(node.get_logger().warning, text))
                written = time.monotonic()
    except ExternalShutdownException:
        pass
    write()
    print("\n".join([*record.lines(now_s()), f"written to {output}"]), flush=True)
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    return 0


def _unused(output: Path) -> Path:
    """The file itself, or with the first number that is free, so that no summary is lost."""
    names = (f"{output.stem}_{number}{output.suffix}" for number in itertools.count(2))
    paths = itertools.chain([output], map(output.with_name, names))
    return next(path for path in paths if not path.is_file())


def _write(output: Path, content: dict[str, Any]) -> None:
    """Write the file so that it is always whole."""
    temporary = output.with_name(output.name + ".new")
    try:
        text = json.dumps(clean(content), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(output)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _renew(write: Callable[[], None], say: Callable[[str], None]) -> None:
    """Write, or say why not: the recording beside us fills the disk, which may be freed again."""
    try:
        write()
    except OSError as error:
        say(f"the summary cannot be renewed, the last one stays: {error}")


if __name__ == "__main__":
    sys.exit(main())
