"""The node in a process of its own, with the kernel's figures about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process in MiB: in all, its own, and shared (DDS segments)."""

    total: float
    anonymous: float
    shared: float


class NodeProcess:
    """``ddfd_node``; ends with the block it is used in.

    Args:
        log: File for its output.
        namespace: ROS namespace, empty for none.
        parameters: The node's.
    """

    def __init__(self, log: Path, namespace: str, parameters: Mapping[str, str]) -> None:
        self.log = log
        command = [sys.executable, "-m", "ddfd_ros.ros.main", "--ros-args"]
        if namespace:
            command += ["-r", f"__ns:=/{namespace}"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def memory(self) -> Memory:
        """What it holds now.

        Raises:
            OSError: It has ended.
        """
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        kib = {
            line.split(":")[0]: line.split()[1] for line in lines if "Rss" in line or "RSS" in line
        }
        return Memory(*(float(kib[key]) / 1024 for key in ("VmRSS", "RssAnon", "RssShmem")))

    def cpu_s(self) -> float:
        """Processor seconds it has used.

        Raises:
            OSError: It has ended.
        """
        return process_cpu_s(self.process.pid)

    def stop(self, number: signal.Signals, timeout_s: float = 30.0) -> tuple[int, float]:
        """Send a signal; the exit status and the seconds until it had ended."""
        start = time.monotonic()
        self.process.send_signal(number)
        while self.process.poll() is None and time.monotonic() - start < timeout_s:
            time.sleep(0.005)
        return self.process.poll() if not self.running else -999, time.monotonic() - start

    def tail(self, lines: int = 12) -> str:
        """The last lines it wrote."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def process_cpu_s(process_id: int) -> float:
    """Processor seconds of a process."""
    text = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_busy_s() -> float:
    """Processor seconds that all processes of this machine have used, all cores together."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
