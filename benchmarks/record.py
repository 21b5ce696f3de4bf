"""How every benchmark writes its results: JSON with figures, settings and machine."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info

RESULTS = Path(__file__).parent / "results"


def write_results(name: str, figures: dict[str, Any], folder: Path | None = None) -> Path:
    """Write ``<name>.json``; returns its path.

    Args:
        name: Of the benchmark.
        figures: JSON values; NaN becomes null.
        folder: Default: ``benchmarks/results``.
    """
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {
        "benchmark": name,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": revision(),
        "machine": machine_info(),
        **figures,
    }
    path.write_text(json.dumps(clean(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def revision() -> str:
    """The source's revision, empty outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return run.stdout.strip()
