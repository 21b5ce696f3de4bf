"""Our rows beside the papers', from result files of ddfd-evaluate and of the claims' runner."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddfd_ros.core.errors import DdfdError
from ddfd_training.sources import PINHOLE_F_NUMBER

COLUMNS = {"rmse": "rms [m]", "rmse_log": "rmslog", "abs_rel": "rel", "log10": "log10",
           "delta1": "d1", "delta2": "d2", "delta3": "d3", "psnr": "PSNR"}  # fmt: skip
NARROW = ("rmse", "abs_rel", "delta1", "psnr")
"""Columns on a terminal of less than 120 characters."""
DEFAULT_FOLDERS = ("models", "benchmarks/results/tables", "benchmarks/results/claims")
CLAIM_TESTS = {"nyu-sharp": "nyuv2-sharp", "nyu-2m": "nyuv2-2m", "nyu-4m": "nyuv2-4m",
               "nyu-8m": "nyuv2-8m"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        test: Key of ``tests`` in ``paper_rows.yaml``.
        network: Whose numbers these are.
        how: The paper's table, or how long ours was trained and on what it was tested.
        values: Measures by name; what is missing is not known.
        ours: Not from a paper.
    """

    test: str
    network: str
    how: str
    values: Mapping[str, float] = field(default_factory=dict)
    ours: bool = False


@lru_cache(maxsize=1)
def paper_data() -> dict[str, Any]:
    """The file of the papers' rows: ``tests``, ``notes``, ``rows``."""
    path = Path(__file__).with_name("paper_rows.yaml")
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def paper_rows(names: Iterable[str] | None = None) -> list[Row]:
    """The papers' rows, all or those named.

    Raises:
        DdfdError: There is no row of that name.
    """
    known = paper_data()["rows"]
    rows = []
    for name in known if names is None else names:
        if name not in known:
            raise DdfdError(f"paper row: expected one of {', '.join(known)}, got {name!r}")
        item = dict(known[name])
        heads = {key: item.pop(key) for key in ("test", "network", "source")}
        rows.append(Row(heads["test"], heads["network"], heads["source"], item))
    return rows


def our_rows(folders: Sequence[str | Path]) -> list[Row]:
    """A row for every report in the folders; files that are none are passed over."""
    rows: list[Row] = []
    claims: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and {"model", "data", "result"} <= set(content):
                row = row_of_report(content, path)
                rows += [row] if row else []
            elif isinstance(content, dict) and {"arm", "tests"} <= set(content):
                claims.setdefault((str(folder), content["arm"]), []).append(content)
    return rows + [row for trained in claims.values() for row in _of_arm(trained)]


def row_of_report(report: Mapping[str, Any], path: Path) -> Row | None:
    """The row of one report of ddfd-evaluate, ``None`` where no paper has that test."""
    test = report.get("test") or test_of_data(report["data"])
    if test not in paper_data()["tests"] or "depth" not in report["result"]:
        return None
    model = report["model"]
    name = str(model["file"])
    training = model.get("training") or _training_beside(path.parent / name)
    return Row(
        test,
        f"{model['network']} ({name.rpartition('.')[0]})",
        f"{describe_training(training)}; {report['result']['images']} test images",
        _values(report["result"]),
        ours=True,
    )


def test_of_data(data: Mapping[str, Any]) -> str:
    """Which test of ``paper_rows.yaml`` a report's data are, or an empty string."""
    if data.get("name") == "dfd_dslr":
        return {"N2_8": "dslr-n2.8", "N8": "dslr-n8"}.get(str(data.get("aperture")), "")
    if data.get("name") == "idfd":
        return "idfd"
    lens = data.get("lens")
    if data.get("name") != "nyuv2" or not isinstance(lens, Mapping):
        return ""
    if lens["f_number"] >= PINHOLE_F_NUMBER:
        return "nyuv2-sharp"
    same = math.isclose(lens["focal_length_m"], 15e-3) and math.isclose(lens["f_number"], 2.8)
    focus = {2.0: "nyuv2-2m", 4.0: "nyuv2-4m", 8.0: "nyuv2-8m"}
    return focus.get(float(lens["focus_distance_m"]), "") if same else ""


def describe_training(training: Mapping[str, Any]) -> str:
    """How long a network was trained, in words."""
    if "crops" not in training:
        return "training unknown"
    start = str(training.get("start", "random"))
    text = f"{training['crops']:,} crops of {training.get('crop_px', '?')} px"
    return text if start == "random" else f"{text}, from {start}"


def _training_beside(model: Path) -> Mapping[str, Any]:
    """The training in the contract beside an exported model, empty where there is none."""
    contract = model.with_name(model.name + ".contract.json")
    if not contract.is_file():
        return {}
    training: Mapping[str, Any] = json.loads(contract.read_text(encoding="utf-8"))["training"]
    return training


def _of_arm(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of one arm of the claims' runner, means over its seeds; one for each test."""
    first, rows = results[0], []
    for test in first["tests"]:
        known = CLAIM_TESTS.get(test, test)
        found = [result["tests"][test] for result in results if test in result["tests"]]
        if known not in paper_data()["tests"] or "depth" not in found[0]:
            continue
        how = f"calibrated on training images; {found[0]['images']} test images, half size"
        if "steps" in first:
            how = (
                f"{first['parameters'] / 1e6:.2g} M parameters, {describe_training(first)}, "
                f"mean of {len(found)}; {found[0]['images']} test images; half size"
            )
        each = [_values(part) for part in found]
        keys = [key for key in COLUMNS if all(key in values for values in each)]
        means = {key: sum(values[key] for values in each) / len(each) for key in keys}
        name = f"{first.get('network', 'Zhuo and Sim')} ({first['arm']}, ours)"
        rows.append(Row(known, name, how, means, ours=True))
    return rows


def _values(result: Mapping[str, Any]) -> dict[str, float]:
    """Means over images, with the all-in-focus image's PSNR where it was judged."""
    values = {
        key: value
        for key, value in result["depth"]["mean_over_images"].items()
        if key in COLUMNS and value is not None
    }
    if "all_in_focus" in result:
        values["psnr"] = result["all_in_focus"]["output"]["psnr"]
    return values


def print_tables(rows: Sequence[Row], console: Console) -> None:
    """One table for each test that has one of our rows, the papers' rows first."""
    data = paper_data()
    columns = COLUMNS if console.width >= 120 else {key: COLUMNS[key] for key in NARROW}
    for test, title in data["tests"].items():
        ours = [row for row in rows if row.test == test and row.ours]
        if not ours:
            continue
        table = Table(title=title, title_justify="left", caption=data["notes"].get(test))
        table.add_column("network", overflow="fold")
        table.add_column("source, or training and test", overflow="fold")
        for label in columns.values():
            table.add_column(escape(label), justify="right", no_wrap=True)
        papers = [row for row in rows if row.test == test and not row.ours]
        for row in papers + sorted(ours, key=lambda item: item.values.get("rmse", math.inf)):
            cells = [_cell(key, row.values.get(key)) for key in columns]
            style = None if row.ours else "bold"
            table.add_row(escape(row.network), escape(row.how), *cells, style=style)
        console.print(table)
    console.print(
        "Ours: metres, nothing scaled to the truth, means over images; 323 of the 654 official "
        "NYUv2 test frames are at hand. Bold: as published.",
        highlight=False,
    )


def _cell(key: str, value: float | None) -> str:
    """A number for a cell."""
    if value is None:
        return "-"
    if key.startswith("delta"):
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if key == "psnr" else f"{value:.3f}"
