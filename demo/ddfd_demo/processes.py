"""Child processes that never outlive their parent, and a ROS network of their own for them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ddfd_demo.errors import ChainError
from ddfd_ros.ros.domains import ReservedDomain
from ddfd_ros.ros.environment import prepare_environment

_PR_SET_PDEATHSIG = 1
_STOP_S = 5.0


@contextmanager
def ros_environment(log_folder: Path) -> Iterator[dict[str, str]]:
    """Environment of all processes of one run: this machine only, an own domain, big segments.

    Raises:
        ChainError: All domains are in use.
    """
    try:
        domain = ReservedDomain()
    except RuntimeError as error:
        raise ChainError(str(error)) from error
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(domain.id)
    if environment.get("ROS_DISTRO") == "humble":
        environment["ROS_LOCALHOST_ONLY"] = "1"
    else:  # from Iron on; the older variable would only bring warnings
        environment.pop("ROS_LOCALHOST_ONLY", None)
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["ROS_LOG_DIR"] = str(log_folder / "ros")
    environment["PYTHONUNBUFFERED"] = "1"
    # The children import the same packages as this process, however it found them.
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p and Path(p).is_dir())
    prepare_environment(environment)
    with domain:
        yield environment


class Child:
    """A process with a log file, stopped at the latest when its parent ends."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                list(command),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which stops in order
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def cpu_s(self) -> float:
        """Processor time used so far, user and system, in seconds; 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        except OSError:
            return 0.0
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.rstrip().splitlines()[-lines:]) or "(the log is empty)"

    def stop(self) -> None:
        """End it in order: interrupt, then terminate, then kill."""
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not self.alive:
                return
            self._process.send_signal(signal_number)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                continue


class Children:
    """All processes of a run; leaving the block stops every one, the last started first."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._children: list[Child] = []

    @property
    def first(self) -> Child:
        """The process started first, whose log tells most."""
        return self._children[0]

    def start(self, name: str, command: Sequence[str], log: Path) -> Child:
        """Start ``command`` with its output in ``log``."""
        child = Child(name, command, log, self.environment)
        self._children.append(child)
        return child

    def wait_until(
        self, what: str, ready: Callable[[], bool], timeout_s: float, poll_s: float = 0.05
    ) -> None:
        """Wait for ``ready()``, giving up when a process ends or time is out.

        Raises:
            ChainError: With the tail of the log of the process that ended, or of the first one.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check(what)
            if time.monotonic() > deadline:
                first = self.first
                raise ChainError(
                    f"{what}: expected within {timeout_s:g} s, got nothing; the "
                    f"{first.name}'s log ({first.log}) ends with:\n{first.tail()}"
                )
            time.sleep(poll_s)

    def check(self, what: str) -> None:
        """Raise ChainError when a process has ended while ``what`` was expected."""
        for child in self._children:
            if not child.alive:
                raise ChainError(
                    f"{what}: expected the {child.name} to run, but it ended with exit code "
                    f"{child.exit_code}; its log ({child.log}) ends with:\n{child.tail()}"
                )

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self._children):
            child.stop()


def _die_with_parent() -> None:
    """Runs in the child before its program: the kernel ends it when the parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
