"""The printed table and ``demo.json``: the same figures, for people and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ddfd_demo.chain import ChainRecord
from ddfd_demo.commands import ChainOptions
from ddfd_demo.results import Answer, Books, latency_table
from ddfd_demo.scores import DEPTH_NAMES, FrameScore, gain, mean_over_frames
from ddfd_demo.sources.base import SourceInfo
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info

_STAGE_NAMES = {
    "queue": "waiting for the worker",
    "decode": "decode message",
    "pad": "pad",
    "infer": "network",
    "deblur": "second network (deblurring)",
    "postprocess": "postprocess",
    "encode": "encode messages",
    "publish": "publish",
    "total": "subscription to publication",
    "messages": "of it decode + encode + publish",
    "stamp_to_recorder": "camera stamp to last topic received",
}


@dataclass(frozen=True)
class Report:
    """Everything that is known about a run.

    Attributes:
        info: The input.
        notes: What was done to it, and whatever else the reader should know.
        options: How it was played.
        record: What the processes wrote down.
        books: Where the frames went.
        answers: One per frame sent.
        scores: One per answered frame.
        model: Description of the model, from its contract and the node.
    """

    info: SourceInfo
    notes: tuple[str, ...]
    options: ChainOptions
    record: ChainRecord
    books: Books
    answers: Sequence[Answer]
    scores: Sequence[FrameScore]
    model: dict[str, Any]

    @property
    def rate_hz(self) -> float:
        """Answered frames per second, from the first to the last frame sent."""
        return self.books.answered / self.record.wall_s if self.record.wall_s > 0 else 0.0

    @property
    def pacing(self) -> str:
        """How frames were timed, in words."""
        if self.options.pacing == "wait":
            return "photographs: the next one is sent when the last one is answered"
        return f"stream in real time at {self.options.rate_hz:.4g} frames/s, answered or not"

    def headline(self) -> str:
        """One line for the picture."""
        p50 = latency_table(list(self.answers))["total"][0]
        parts = [f"{self.books.answered} of {self.books.sent} frames answered"]
        if math.isfinite(p50):
            parts.append(f"{p50:.0f} ms each")
        depth = mean_over_frames(self.scores, "depth")
        if depth:
            parts.append(f"depth rms {depth['rmse']:.2f} m, delta1 {depth['delta1']:.3f}")
        if gained := gain(self.scores):
            parts.append(f"all-in-focus {gained['psnr']:+.1f} dB")
        return "  |  ".join([str(self.model.get("file", "ddfd")), *parts])

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; unknown numbers are null."""
        depth = {p: mean_over_frames(self.scores, p) for p in ("depth", "depth_near")}
        images = {p: mean_over_frames(self.scores, p) for p in ("image", "image_input")}
        return clean(
            {
                "input": {**asdict(self.info), "notes": [*self.info.notes, *self.notes]},
                "model": self.model,
                "pacing": self.pacing,
                "frames": asdict(self.books),
                "rate_hz": self.rate_hz,
                "play_s": self.record.wall_s,
                "start_s": self.record.start_s,
                "cpu_share": {k: v / self.record.wall_s for k, v in self.record.cpu_s.items()},
                "latency_ms": {
                    k: {"p50": a, "p95": b}
                    for k, (a, b) in latency_table(list(self.answers)).items()
                },
                "received": {topic: len(of) for topic, of in self.record.received.items()},
                "depth_mean_over_frames": depth,
                "image_mean_over_frames": {**images, "gain": gain(self.scores)},
                "scores": [asdict(item) for item in self.scores],
                "node": self.record.counters,
                "machine": machine_info(),
            }
        )

    def write_json(self, path: Path) -> None:
        """Write :meth:`to_dict`."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False, default=str)
        path.write_text(text + "\n", encoding="utf-8")

    def print(self, console: Console) -> None:
        """The tables, and the notes below them."""
        parts: list[Any] = [self._frames(), self._latency()]
        if any(s.depth or s.image for s in self.scores):
            parts.append(self._quality())
        console.print(Group(*parts))
        said = [self.pacing, *self.info.notes, *self.notes]
        notes = Text("\n".join(f"- {line}" for line in said))
        console.print(Panel(notes, title="notes", title_align="left", expand=False))

    def _frames(self) -> Table:
        books = self.books
        table = _table("frames", ("", "count"))
        table.add_row("sent", str(books.sent))
        table.add_row("answered (images received)", f"[green]{books.answered}")
        for reason, number in books.dropped.items():
            table.add_row(f"dropped by the node: {_DROPS.get(reason, reason)}", str(number))
        if not books.dropped:
            table.add_row("dropped by the node", "0")
        for reason, number in books.failed.items():
            table.add_row(f"failed in the node: {reason}", f"[red]{number}")
        table.add_row("lost on the way to the node", str(books.lost_to_node))
        table.add_row("lost on the way back", str(books.lost_from_node))
        if books.unaccounted:
            table.add_row("[red]unaccounted for", f"[red]{books.unaccounted}")
        table.add_section()
        table.add_row("answered per second", f"{self.rate_hz:.1f}")
        for name, used_s in self.record.cpu_s.items():
            table.add_row(f"CPU, {name}", f"{100 * used_s / max(self.record.wall_s, 1e-9):.0f} %")
        return table

    def _latency(self) -> Table:
        table = _table("latency (ms)", ("stage", "p50", "p95"))
        for stage, (p50, p95) in latency_table(list(self.answers)).items():
            if stage == "total":
                table.add_section()
            table.add_row(_STAGE_NAMES[stage], _number(p50, 1), _number(p95, 1))
        return table

    def _quality(self) -> Table:
        table = _table(
            "against the truth, means over frames", ("", "frames", *_QUALITY_NAMES.values())
        )
        limit = self.info.depth_limit_m
        rows = [("depth, all pixels", "depth")]
        if limit is not None:
            rows.append((f"depth up to {limit:g} m", "depth_near"))
        for title, part in rows:
            if figures := mean_over_frames(self.scores, part):
                count = sum(bool(getattr(s, part)) for s in self.scores)
                numbers = [_number(figures.get(name), 3) for name in DEPTH_NAMES]
                table.add_row(title, str(count), *numbers, "", "")
        for title, part in (("camera image", "image_input"), ("all-in-focus", "image")):
            if figures := mean_over_frames(self.scores, part):
                count = sum(bool(getattr(s, part)) for s in self.scores)
                psnr, ssim = _number(figures.get("psnr"), 2), _number(figures.get("ssim"), 4)
                table.add_row(title, str(count), "", "", "", psnr, ssim)
        if gained := gain(self.scores):
            psnr, ssim = f"{gained['psnr']:+.2f}", f"{gained['ssim']:+.4f}"
            table.add_row("gain of all-in-focus", "", "", "", "", psnr, ssim)
        return table


_DROPS = {
    "replaced": "a newer one came (replaced)",
    "stale": "too old (stale)",
    "idle": "nobody listened (idle)",
    "inactive": "node inactive",
}
_QUALITY_NAMES = {
    "rmse": "rms (m)",
    "abs_rel": "rel",
    "delta1": "delta1",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
}


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
