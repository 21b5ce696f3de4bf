"""Our rows beside the papers', from result files of ddfd-evaluate and of the claims' runner."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.sources import PINHOLE_F_NUMBER

COLUMNS = {"rmse": "rms [m]", "rmse_log": "rmslog", "abs_rel": "rel", "log10": "log10",
           "delta1": "d1", "delta2": "d2", "delta3": "d3", "psnr": "PSNR"}  # fmt: skip
NARROW = ("rmse", "abs_rel", "delta1", "psnr")
"""Columns on a terminal of less than 120 characters."""
DEFAULT_FOLDERS = ("models", "benchmarks/results/tables", "benchmarks/results/claims")
CLAIM_TESTS = {"nyu-sharp": "nyuv2-sharp", "nyu-2m": "nyuv2-2m", "nyu-4m": "nyuv2-4m",
               "nyu-8m": "nyuv2-8m"}  # fmt: skip
NYUV2_WIDTH_PX = 560
"""Of its images without their white frame."""
DISKS = ("", "ddfd", "d3net")
"""Presets that render as D3-Net's paper does, disks in layers of 10/255 m; none does, too."""
_HALF_SIZE_PX = 100_000
"""Between the pixels of an image in training/claims.yaml and those of a whole one."""


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
    data = report["data"]
    test = report.get("test") or test_of_data(data)
    if test not in paper_data()["tests"] or "depth" not in report["result"]:
        return None
    if data.get("split") != "test":  # whatever a recipe calls its test
        return None
    model = report["model"]
    name = str(model["file"])
    training = model.get("training") or _training_beside(path.parent / name)
    return Row(
        test,
        f"{model['network']} ({name.rpartition('.')[0]})",
        f"{describe_training(training)}; {_images(report)}",
        _values(report["result"]),
        ours=True,
    )


def _images(report: Mapping[str, Any]) -> str:
    """How many images a report is on, and what was done to them, in words."""
    text = f"{report['result']['images']} test images"
    if size := report.get("network_size") or report["data"].get("size"):
        text += f", seen at {size[0]}x{size[1]} px"
    if softened_px := report.get("softened_px"):
        text += f", softened by {softened_px:.2g} px"
    return text


def test_of_data(data: Mapping[str, Any]) -> str:
    """Which test of ``paper_rows.yaml`` a report's data are, or an empty string.

    It is on the test split, without options of the set, and sharp images are blurred as the paper
    does: by its lens (of resized images, with their pixels' pitch) and with disks.
    """
    if data.get("split") != "test" or data.get("options"):
        return ""
    if data.get("name") == "dfd_dslr":
        return {"N2_8": "dslr-n2.8", "N8": "dslr-n8"}.get(str(data.get("aperture")), "")
    if data.get("name") == "idfd":
        return "idfd"
    lens = data.get("lens")
    if data.get("name") != "nyuv2" or not isinstance(lens, Mapping):
        return ""
    if lens["f_number"] >= PINHOLE_F_NUMBER:
        return "" if "size" in data else "nyuv2-sharp"
    disks = str(data.get("blur", "")).startswith("simulated, disk kernel")
    if not disks or data.get("preset", "") not in DISKS:
        return ""
    scale = data["size"][1] / NYUV2_WIDTH_PX if "size" in data else 1.0
    for focus in ("2m", "4m", "8m"):
        paper = asdict(LENS_PRESETS[f"nyu-{focus}"].scaled(scale))
        # An infinite focus is null in a report.
        if all(math.isclose(lens[k] or math.inf, v, rel_tol=1e-3) for k, v in paper.items()):
            return f"nyuv2-{focus}"
    return ""


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
        shown = f"{found[0]['images']} test images; {_claims_size(test, found[0])}"
        how = f"calibrated on training images; {shown}"
        if "steps" in first:
            how = (
                f"{first['parameters'] / 1e6:.2g} M parameters, {describe_training(first)}, "
                f"mean of {len(found)}; {shown}"
            )
        each = [_values(part) for part in found]
        keys = [key for key in COLUMNS if all(key in values for values in each)]
        means = {key: sum(values[key] for values in each) / len(each) for key in keys}
        name = f"{first.get('network', 'Zhuo and Sim')} ({first['arm']}, ours)"
        rows.append(Row(known, name, how, means, ours=True))
    return rows


def _claims_size(test: str, result: Mapping[str, Any]) -> str:
    """How large the images of a claims' test are, and their lens where it is not the paper's.

    At half the size, training/claims.yaml blurs them by as many pixels as the paper does whole
    ones: there, this is the blur of a lens of half the f-number.
    """
    if result["depth"]["pixels"] > _HALF_SIZE_PX * result["images"]:
        return "full size"
    rendered = test in CLAIM_TESTS and test != "nyu-sharp"
    return "f/1.4 at half size" if rendered else "half size"


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
