"""A ROS domain for programs that must hear nobody else: those of the demo and of the tests.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

LAST_DOMAIN = 101
"""From 102 on, the ports of a domain lie among those that Linux hands out to others."""

_turns = itertools.count(os.getpid())


class ReservedDomain:
    """A domain that nobody on this machine uses, kept from others until it is closed.

    A file per domain is locked, so that two programs that look at the same time do not find the
    same one; the lock ends with the process at the latest. Domains follow one another, so that a
    closed one rests: participants are still being forgotten there. What processes that were killed
    there left in shared memory is removed: a port of theirs would be used again as it was.

    Attributes:
        id: From 1 to ``LAST_DOMAIN``.

    Raises:
        RuntimeError: All are in use.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / f"ddfd_ros_domains_{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for self.id in _candidates():
            self._file = (folder / str(self.id)).open("w")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                continue
            if not _is_in_use(self.id):
                _remove_ports(self.id)
                return
            self._file.close()
        raise RuntimeError(
            f"ROS domain: expected one from 1 to {LAST_DOMAIN} that nobody uses on this machine, "
            "got none; stop other ROS 2 programs"
        )

    def close(self) -> None:
        """Give the domain back."""
        self._file.close()

    def __enter__(self) -> ReservedDomain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _candidates() -> Iterator[int]:
    """Every domain once, the next in turn first."""
    for _ in range(LAST_DOMAIN):
        yield 1 + next(_turns) % LAST_DOMAIN


def _remove_ports(domain_id: int, shared_memory: str = "/dev/shm") -> None:
    """Remove Fast DDS's ports in shared memory, which have the numbers of those of UDP."""
    first = 7400 + 250 * domain_id
    for number in range(first, first + 250):
        names = (f"fastrtps_port{number}", f"fastrtps_port{number}_el")
        for name in (*names, f"sem.fastrtps_port{number}_mutex"):
            with contextlib.suppress(OSError):  # another user's
                (Path(shared_memory) / name).unlink(missing_ok=True)


def _is_in_use(domain_id: int) -> bool:
    """Whether one of the first participants of a domain listens on this machine.

    Participant p of domain d receives unicast discovery on UDP port 7410 + 250 d + 2 p (DDSI-RTPS
    2.3, section 9.6.1.1).
    """
    for participant in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain_id + 2 * participant))
            except OSError:
                return True
    return False
