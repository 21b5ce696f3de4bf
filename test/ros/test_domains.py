"""Domains that are kept from other programs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from ddfd_ros.ros import domains
from ddfd_ros.ros.domains import LAST_DOMAIN, ReservedDomain

KEEP_ALL = """
import sys
from ddfd_ros.ros.domains import LAST_DOMAIN, ReservedDomain
kept = []
try:
    while True:
        kept.append(ReservedDomain())
except RuntimeError as error:
    print(*[domain.id for domain in kept], flush=True)
    print(error, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own_locks(tmp_path, monkeypatch):
    """Locks of these tests alone, which other tests do not wait for."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("own_locks")
def test_one_is_kept_from_other_processes_until_it_ends():
    with subprocess.Popen(
        [sys.executable, "-c", KEEP_ALL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as other:
        kept = [int(domain) for domain in other.stdout.readline().split()]
        assert kept
        assert len(set(kept)) == len(kept)
        assert all(1 <= domain <= LAST_DOMAIN for domain in kept)
        assert "stop other ROS 2 programs" in other.stdout.readline()
        with pytest.raises(RuntimeError, match=f"from 1 to {LAST_DOMAIN}"):
            ReservedDomain()
        other.kill()
    with ReservedDomain() as domain:
        assert domain.id in kept


@pytest.mark.usefixtures("own_locks")
def test_one_with_a_participant_is_left_out(monkeypatch):
    with ReservedDomain() as domain:
        rest = domain.id
    monkeypatch.setattr(domains, "_candidates", lambda: [rest])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7410 + 250 * rest + 2))
        with pytest.raises(RuntimeError):
            ReservedDomain()
    ReservedDomain().close()


@pytest.mark.usefixtures("own_locks")
def test_a_closed_one_rests_before_it_is_given_again():
    with ReservedDomain() as first:
        pass
    with ReservedDomain() as second:
        assert second.id != first.id


def test_what_killed_processes_left_in_a_domain_is_removed(tmp_path):
    left = ["fastrtps_port8650", "fastrtps_port8650_el", "sem.fastrtps_port8899_mutex"]
    kept = [
        "fastrtps_port8900",
        "fastrtps_port8649",
        "sem.fastrtps_port8900_mutex",
        "fastrtps_8650",
    ]
    for name in left + kept:
        (tmp_path / name).touch()
    domains._remove_ports(5, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
