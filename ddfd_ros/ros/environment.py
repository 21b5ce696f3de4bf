"""What has to stand in the environment before rclpy starts.

Fast DDS reads its profile once, when the first participant is made, and rclpy finds its plugins
through ``AMENT_PREFIX_PATH``: both must be set before ``rclpy.init``. Standard library only, so
that launch files, the demo and tests can use it without rclpy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ddfd_ros.core.shipped import find_shipped, resolve_model, share_folders, shipped_models

__all__ = [
    "PROFILE_VARIABLES",
    "active_profile",
    "existing_file",
    "find_shipped",
    "end_with_parent",
    "launch_environment",
    "prepare_environment",
    "profile_variable",
    "resolve_model",
    "share_folders",
    "shipped_models",
    "suitable_profile",
]

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for its profile: the first up to Jazzy, the second from Kilted on."""

END_WITH_PARENT = "DDFD_END_WITH_PARENT"
"""Set by the launch files; see ``end_with_parent``."""

_PR_SET_PDEATHSIG = 1

LARGE_PROFILE = "fastdds_shm_64mb.xml"
SMALL_PROFILE = "fastdds_shm_16mb.xml"
_MIB = 1 << 20


def suitable_profile(shared_memory: str = "/dev/shm") -> Path | None:
    """The Fast DDS profile whose segments fit into the machine's shared memory.

    Every process in the network of nodes makes a segment of its own, and touching one that the
    file system cannot back ends the process: containers often have 64 MB in all.
    """
    try:
        status = os.statvfs(shared_memory)
    except OSError:
        return None
    free = status.f_bavail * status.f_frsize
    if free >= 256 * _MIB:
        return find_shipped(f"config/{LARGE_PROFILE}")
    if free >= 48 * _MIB:
        return find_shipped(f"config/{SMALL_PROFILE}")
    return None


def profile_variable(environ: Mapping[str, str] = os.environ) -> str:
    """The variable that this ROS 2 reads; Kilted still takes the old one, with a warning."""
    old = environ.get("ROS_DISTRO", "jazzy") in ("humble", "iron", "jazzy")
    return PROFILE_VARIABLES[0 if old else 1]


def active_profile(environ: Mapping[str, str] = os.environ) -> str:
    """The Fast DDS profile file in force, or an empty string."""
    return next((environ[name] for name in PROFILE_VARIABLES if environ.get(name)), "")


def prepare_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Complete ``environ`` for rclpy, touching nothing that is set already.

    A sourced ROS 2 installation has set ``AMENT_PREFIX_PATH``; with the wheels from PyPI it is
    ``sys.prefix``. The shipped Fast DDS profile is used unless either profile variable exists; set
    one to the empty string to run with Fast DDS's own defaults.
    """
    if not environ.get("AMENT_PREFIX_PATH") and (Path(sys.prefix) / "share/rclpy").is_dir():
        environ["AMENT_PREFIX_PATH"] = sys.prefix
    if any(name in environ for name in PROFILE_VARIABLES):
        return
    if (profile := suitable_profile()) is not None:
        environ[profile_variable(environ)] = str(profile)


def existing_file(text: str, argument: str) -> str:
    """The file that a launch argument names; a shell leaves ``argument:=~/file`` as it is.

    Raises:
        ValueError: There is none. ROS's launch system, and Fast DDS, would go on without it.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"{argument}: expected a file, got {text!r}; check the path")
    return str(path)


def launch_environment(wanted: str) -> dict[str, str]:
    """What a launch file adds to the environment of the processes it starts.

    Args:
        wanted: Fast DDS profile: a file; ``auto``: the shipped one that fits, unless the
            environment names one; ``none``: Fast DDS's own defaults.

    Raises:
        ValueError: No such file.
    """
    added = {END_WITH_PARENT: str(os.getpid())}
    if wanted == "none":
        return added | dict.fromkeys(PROFILE_VARIABLES, "")
    if wanted != "auto":
        return added | {profile_variable(): existing_file(wanted, "fastdds_profile")}
    profile = None if active_profile() else suitable_profile()
    return added if profile is None else added | {profile_variable(): str(profile)}


def end_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """Ask Linux for a SIGTERM when the launch process ends, if that is who started this one.

    ``ros2 launch`` forwards SIGINT to its nodes, but a SIGTERM or SIGKILL of it alone (systemd, a
    container's stop) would leave them running, with camera and GPU occupied.
    """
    if environ.get(END_WITH_PARENT) != str(os.getppid()) or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if environ[END_WITH_PARENT] != str(os.getppid()):  # it ended just before
        os.kill(os.getpid(), signal.SIGTERM)
