"""What became of every frame: answers joined to frames by stamp, and books that must balance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_demo.chain import ChainRecord
from ddfd_demo.commands import HEAD_TOPICS
from ddfd_demo.spool import SpooledFrame

STAGES = ("queue", "decode", "pad", "infer", "deblur", "postprocess", "encode", "publish", "total")
OPTIONAL_STAGES = ("deblur",)
"""Those that are there only where a second model runs."""
MESSAGE_STAGES = ("decode", "encode", "publish")
"""Stages that exist only because images travel as messages."""


@dataclass(frozen=True)
class Answer:
    """One frame that was sent, and what came back for it.

    Attributes:
        frame: The frame.
        stamp_ns: Its stamp, which every answer carries.
        topics: Recorder's line by topic name.
    """

    frame: SpooledFrame
    stamp_ns: int
    topics: dict[str, dict[str, Any]]

    @property
    def answered(self) -> bool:
        """Whether any image came back."""
        return any(name in self.topics for name in HEAD_TOPICS.values())

    @property
    def stages_ms(self) -> dict[str, float]:
        """The node's own split of its latency; empty when it sent none."""
        return dict(self.topics.get("latency", {}).get("stages_ms", {}))

    @property
    def arrival_ms(self) -> float:
        """From the stamp to the arrival of the last image at the recorder; NaN unanswered."""
        times = [self.topics[n]["received_ns"] for n in HEAD_TOPICS.values() if n in self.topics]
        return (max(times) - self.stamp_ns) / 1e6 if times else float("nan")

    def depth_m(self) -> np.ndarray | None:
        """float32 ``[H, W]`` as received, NaN where invalid."""
        return self._load("depth")

    def sigma_m(self) -> np.ndarray | None:
        """float32 ``[H, W]`` as received."""
        return self._load("sigma")

    def sharp_rgb(self) -> np.ndarray | None:
        """uint8 ``[H, W, 3]`` as received."""
        return self._load("sharp")

    def _load(self, name: str) -> np.ndarray | None:
        path = Path(self.frame.folder) / f"{self.stamp_ns}.{name}.npy"
        return np.load(path) if name in self.topics and path.is_file() else None


@dataclass(frozen=True)
class Books:
    """Where every sent frame went. ``sent`` is the sum of everything else.

    Attributes:
        sent: Frames published by the player.
        answered: Frames of which images arrived at the recorder.
        dropped: Frames the node chose not to compute, by reason.
        failed: Frames the node could not compute, by reason.
        lost_to_node: Frames sent but not received by the node.
        lost_from_node: Frames the node answered, whose images did not arrive.
        unaccounted: What is left, and should be zero.
        received_by_node: Frames that reached the node.
    """

    sent: int
    answered: int
    dropped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    lost_to_node: int = 0
    lost_from_node: int = 0
    unaccounted: int = 0
    received_by_node: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every frame is explained: nothing left over, no count below zero."""
        return self.unaccounted == 0 and self.lost_to_node >= 0 and self.lost_from_node >= 0


def join(record: ChainRecord, frames: list[SpooledFrame]) -> list[Answer]:
    """One entry for every frame sent, in the order of sending."""
    by_index = {frame.index: frame for frame in frames}
    return [
        Answer(
            by_index[index],
            stamp_ns,
            {
                name: lines[stamp_ns]
                for name, lines in record.received.items()
                if stamp_ns in lines
            },
        )
        for stamp_ns, index in record.sent.items()
    ]


def keep_books(record: ChainRecord, answers: list[Answer]) -> Books:
    """Balance what was sent against what came back and the node's own counters."""
    counters = record.counters
    received, node_answered = _count(counters, "received"), _count(counters, "answered")
    dropped = _by_reason(counters, "dropped_")
    failed = _by_reason(counters, "failed_")
    sent, answered = len(record.sent), sum(answer.answered for answer in answers)
    settled = node_answered + sum(dropped.values()) + sum(failed.values())
    return Books(
        sent=sent,
        answered=answered,
        dropped=dropped,
        failed=failed,
        lost_to_node=sent - received,
        lost_from_node=node_answered - answered,
        unaccounted=received - settled,
        received_by_node=received,
    )


def percentiles(values: list[float]) -> tuple[float, float]:
    """p50 and p95, NaN for nothing."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return float("nan"), float("nan")
    p50, p95 = np.percentile(finite, (50, 95))
    return float(p50), float(p95)


def latency_table(answers: list[Answer]) -> dict[str, tuple[float, float]]:
    """p50 and p95 in milliseconds of each stage, the messages' share, and the way as a whole.

    ``messages`` is decode, encode and publish of one frame together; ``stamp_to_recorder`` runs
    from the camera's stamp to the last image's arrival in another process.
    """
    splits = [answer.stages_ms for answer in answers if answer.stages_ms]
    table = {
        stage: percentiles([split[stage] for split in splits if stage in split])
        for stage in STAGES
        if stage not in OPTIONAL_STAGES or any(stage in split for split in splits)
    }
    table["messages"] = percentiles(
        [sum(split.get(stage, 0.0) for stage in MESSAGE_STAGES) for split in splits]
    )
    table["stamp_to_recorder"] = percentiles([answer.arrival_ms for answer in answers])
    return table


def _count(counters: dict[str, str], name: str) -> int:
    return int(float(counters.get(name, "0")))


def _by_reason(counters: dict[str, str], prefix: str) -> dict[str, int]:
    found = {k.removeprefix(prefix): _count(counters, k) for k in counters if k.startswith(prefix)}
    return {reason: number for reason, number in found.items() if number}
