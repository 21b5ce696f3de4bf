"""How every benchmark writes its results: JSON with figures, settings and machine."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ddfd_demo.report import clean, machine

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "opencv-python-headless", "ros-rclpy")


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
        "machine": machine(),
        "load_average": Path("/proc/loadavg").read_text(encoding="ascii").split()[:3],
        "packages": versions(),
        **figures,
    }
    path.write_text(json.dumps(clean(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def versions() -> dict[str, str]:
    """Versions of the packages that decide the figures, as far as installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


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
