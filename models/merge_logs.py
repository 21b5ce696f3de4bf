"""Join the CSV logs of a training's starts into one: ``python models/merge_logs.py runs/NAME``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def merge(run: Path) -> list[dict[str, str]]:
    """The rows of all starts in the order of their steps; a step done twice counts the last time.

    Raises:
        FileNotFoundError: The run has no log.
    """
    starts = sorted(run.glob("csv/version_*/metrics.csv"), key=lambda p: int(p.parent.name[8:]))
    if not starts:
        raise FileNotFoundError(f"expected csv/version_*/metrics.csv in {run}, found none")
    rows: dict[int, dict[str, str]] = {}
    for start in starts:
        with start.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found = {key: value for key, value in row.items() if value}
                rows.setdefault(int(row["step"]), {}).update(found)
    return [rows[step] for step in sorted(rows)]


def main() -> None:
    """Print the joined log of the run named on the command line."""
    rows = merge(Path(sys.argv[1]))
    names = sorted({key for row in rows for key in row} - {"step", "epoch"})
    writer = csv.DictWriter(sys.stdout, ["step", *names], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        short = {key: f"{float(value):.5g}" for key, value in row.items() if key in names}
        writer.writerow({"step": row["step"], **short})


if __name__ == "__main__":
    main()
