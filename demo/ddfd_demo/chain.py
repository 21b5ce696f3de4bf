"""The chain: starts node, recorder and player as processes of their own, and keeps the books."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddfd_demo.commands import (
    ChainOptions,
    node_command,
    player_command,
    recorder_command,
)
from ddfd_demo.errors import ChainError
from ddfd_demo.processes import Child, Children, ros_environment
from ddfd_demo.spool import read_lines

_ERROR = 2
"""diagnostic_msgs/DiagnosticStatus.ERROR."""

_AWAITED = 2 / 3
"""A frame's answer is awaited for this share of ``silence_s``; after it, the stream pauses."""


@dataclass(frozen=True)
class ChainRecord:
    """What was sent and what came back.

    Attributes:
        sent: Frame number by stamp in nanoseconds, in the order of sending.
        received: By topic name, the recorder's line by stamp.
        counters: The node's own last word: values of its diagnostics as text.
        cpu_s: Processor seconds by process, while frames were played.
        wall_s: How long frames were played, from the first to the last one sent.
        start_s: From starting the node until it was active and everybody connected.
    """

    sent: dict[int, int]
    received: dict[str, dict[int, dict[str, Any]]]
    counters: dict[str, str]
    cpu_s: dict[str, float]
    wall_s: float
    start_s: float


def run_chain(
    spool: Path,
    options: ChainOptions,
    logs: Path,
    progress: Callable[[int, int], None] = lambda sent, answered: None,
    started: Callable[[float], None] = lambda start_s: None,
) -> ChainRecord:
    """Play a spool through the node, and return when every frame has met its fate.

    Args:
        spool: Folder of a :class:`~ddfd_demo.spool.Spool`.
        options: What is played, and how.
        logs: Folder for one log file per process.
        progress: Called with the number of frames sent and answered so far.
        started: Called once, with the seconds that starting took.

    Raises:
        ChainError: A process ended, or nothing came for too long; with the tail of its log.
    """
    begin = time.monotonic()
    with ros_environment(logs) as environment, Children(environment) as children:
        node = children.start("node", node_command(options), logs / "node.log")
        recorder = children.start(
            "recorder", recorder_command(spool, options), logs / "recorder.log"
        )
        received = _Followed(spool / "received.jsonl")
        children.wait_until(
            "topics of the node", lambda: _is_ready(received, node), options.start_timeout_s
        )
        player = children.start("player", player_command(spool, options), logs / "player.log")
        sent = _Followed(spool / "sent.jsonl")
        children.wait_until(
            "the node's subscription to image_raw (it subscribes when active)",
            lambda: sent.saw_event("start"),
            options.start_timeout_s,
        )
        start_s = time.monotonic() - begin
        started(start_s)
        with _stopwatch([node, recorder, player]) as watch:
            _play(children, sent, received, options.silence_s, progress)
        _drain(children, received, options.drain_s)
        progress(sent.frames(), received.answered())
        return ChainRecord(
            sent={line["stamp_ns"]: line["index"] for line in sent.lines if "stamp_ns" in line},
            received=_by_topic(received.lines),
            counters=_last_counters(received.lines),
            cpu_s=watch["cpu_s"],
            wall_s=watch["wall_s"],
            start_s=start_s,
        )


class _Followed:
    """A file of JSON lines that another process is writing; each line is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._stamps: dict[str, set[int]] = {}
        self.lines: list[dict[str, Any]] = []

    def update(self) -> None:
        """Read what was added since the last time, complete lines only."""
        new, self._offset = read_lines(self._path, self._offset)
        self.lines += new
        for line in new:
            if "stamp_ns" in line:
                self._stamps.setdefault(line.get("topic", "sent"), set()).add(line["stamp_ns"])

    def saw_event(self, name: str) -> bool:
        """Whether the line of this event has come."""
        self.update()
        return any(line.get("event") == name for line in self.lines)

    def frames(self) -> int:
        """Frames sent."""
        return len(self._stamps.get("sent", ()))

    def answered(self) -> int:
        """Frames of which an image came back: depth or, without that head, another."""
        return max(len(self._stamps.get(name, ())) for name in ("depth", "sharp", "sigma"))


def _is_ready(received: _Followed, node: Child) -> bool:
    """Whether every topic is there; a node that says why it cannot start is not waited for."""
    ready = received.saw_event("ready")
    for line in received.lines:
        if _is_node_status(line) and line["level"] >= _ERROR and not ready:
            raise ChainError(
                f"the node: expected it to configure itself, got its error: {line['message']} "
                f"(log: {node.log})"
            )
    return ready


def _play(
    children: Children,
    sent: _Followed,
    received: _Followed,
    silence_s: float,
    progress: Callable[[int, int], None],
) -> None:
    """Follow the player until it has sent everything."""
    frames, answered, quiet_s = 0, 0, 0.0
    before = sent_at = time.monotonic()
    while not sent.saw_event("done"):
        if any(line.get("event") == "spool full" for line in sent.lines):
            return
        children.check("playing")
        received.update()
        progress(sent.frames(), received.answered())
        now = time.monotonic()
        if sent.frames() != frames:
            frames, sent_at = sent.frames(), now
        if received.answered() != answered:
            answered, quiet_s = received.answered(), 0.0
        elif now - sent_at < _AWAITED * silence_s:
            quiet_s += now - before
        if quiet_s > silence_s:
            raise _silence(children.first, sent, received, silence_s)
        before = now
        time.sleep(0.1)


def _silence(node: Child, sent: _Followed, received: _Followed, silence_s: float) -> ChainError:
    said = [line["message"] for line in received.lines if _is_node_status(line)]
    return ChainError(
        f"answers: expected one to each frame sent, got {received.answered()} to {sent.frames()} "
        f"frames and then {silence_s:g} s of silence; the node says: "
        f"{said[-1] if said else 'nothing'}; its log ({node.log}) ends with:\n{node.tail()}"
    )


def _drain(children: Children, received: _Followed, drain_s: float) -> None:
    """Wait until the node says, twice the same, that nothing is in flight and nothing changes."""
    deadline = time.monotonic() + drain_s
    seen: list[tuple[str, ...]] = []
    count = len([line for line in received.lines if _is_node_status(line)])
    while time.monotonic() < deadline:
        children.check("the last answers")
        received.update()
        states = [line for line in received.lines if _is_node_status(line)]
        if len(states) != count:
            count = len(states)
            values = states[-1]["values"]
            seen.append(tuple(values[key] for key in ("received", "answered", "in_flight")))
        if len(seen) >= 2 and seen[-1] == seen[-2] and seen[-1][2] == "0":
            return
        time.sleep(0.1)


def _is_node_status(line: dict[str, Any]) -> bool:
    return line.get("topic") == "diagnostics" and "received" in line.get("values", {})


def _last_counters(lines: list[dict[str, Any]]) -> dict[str, str]:
    return next((dict(line["values"]) for line in reversed(lines) if _is_node_status(line)), {})


def _by_topic(lines: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    topics: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        if "topic" in line and line["topic"] != "diagnostics":
            topics.setdefault(line["topic"], {})[line["stamp_ns"]] = line
    return topics


@contextmanager
def _stopwatch(children: list[Child]) -> Iterator[dict[str, Any]]:
    """Wall-clock and processor time of the block."""
    result: dict[str, Any] = {}
    start, before = time.monotonic(), {child.name: child.cpu_s() for child in children}
    yield result
    result["wall_s"] = time.monotonic() - start
    result["cpu_s"] = {child.name: child.cpu_s() - before[child.name] for child in children}
