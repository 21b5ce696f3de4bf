"""Our rows beside the papers': which report belongs where, and what the table shows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training import evaluate_cli
from ddfd_training.paper_table import (
    COLUMNS,
    our_rows,
    paper_data,
    paper_rows,
    print_tables,
    test_of_data,
)

test_of_data.__test__ = False  # a function of the table, not a test


def report(test_images: int = 7, **data) -> dict:
    """What ddfd-evaluate writes, as far as the table reads it."""
    means = {"rmse": 0.5, "abs_rel": 0.2, "delta1": 0.75}
    return {
        "model": {"file": "net.onnx", "network": "d3net",
                  "training": {"crops": 1234, "crop_px": 224, "start": "torchvision"}},
        "data": data,
        "result": {"images": test_images, "depth": {"mean_over_images": means}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": "nyuv2", "lens": asdict(LENS_PRESETS["nyu-2m"])}, "nyuv2-2m"),
        ({"name": "nyuv2", "lens": asdict(LENS_PRESETS["nyu-8m"])}, "nyuv2-8m"),
        ({"name": "nyuv2", "lens": asdict(LENS_PRESETS["dslr"])}, ""),
        (
            {"name": "nyuv2", "lens": asdict(replace(LENS_PRESETS["nyu-8m"], f_number=1e6))},
            "nyuv2-sharp",
        ),
        ({"name": "dfd_dslr", "aperture": "N2_8"}, "dslr-n2.8"),
        ({"name": "dfd_dslr", "aperture": "N8"}, "dslr-n8"),
        ({"name": "folder"}, ""),
    ],
)
def test_reports_find_their_test(data, expected) -> None:
    assert test_of_data(data) == expected


def test_rows_carry_training_and_test(tmp_path: Path) -> None:
    lens = asdict(LENS_PRESETS["nyu-4m"])
    (tmp_path / "a.json").write_text(json.dumps(report(name="nyuv2", lens=lens)))
    (tmp_path / "other.json").write_text("[1, 2]")
    (row,) = our_rows([tmp_path])
    assert (row.test, row.network, row.ours) == ("nyuv2-4m", "d3net (net)", True)
    assert row.how == "1,234 crops of 224 px, from torchvision; 7 test images"
    assert row.values == {"rmse": 0.5, "abs_rel": 0.2, "delta1": 0.75}


def test_seeds_of_an_arm_become_one_row(tmp_path: Path) -> None:
    for seed, rmse in ((1, 0.4), (2, 0.6)):
        found = {"images": 5, "depth": {"mean_over_images": {"rmse": rmse}}}
        content = {"arm": "focus-2m", "seed": seed, "steps": 3, "crops": 24, "crop_px": 96,
                   "parameters": 220000, "network": "ddfd-lite",
                   "tests": {"nyu-2m": found}}  # fmt: skip
        (tmp_path / f"{seed}.json").write_text(json.dumps(content))
    (row,) = our_rows([tmp_path])
    assert row.test == "nyuv2-2m"
    assert row.values["rmse"] == pytest.approx(0.5)
    assert "mean of 2" in row.how


def test_papers_rows_are_known_and_whole() -> None:
    """Every row has a test that exists and only measures with a column; D3-Net's as printed."""
    rows = paper_rows()
    assert {row.test for row in rows} <= set(paper_data()["tests"])
    assert all(set(row.values) <= {*COLUMNS, "ssim"} for row in rows)
    (two,) = paper_rows(["d3net/2m"])
    assert (two.values["rmse"], two.values["abs_rel"], two.values["delta1"]) == (
        0.274, 0.068, 0.961)  # fmt: skip
    with pytest.raises(DdfdError, match="expected one of d3net/sharp.*got 'd3net/3m'"):
        paper_rows(["d3net/3m"])


@pytest.mark.parametrize(("width", "there"), [(150, True), (80, False)])
def test_table_puts_ours_below_the_papers(tmp_path: Path, width: int, there: bool) -> None:
    (tmp_path / "a.json").write_text(json.dumps(report(name="dfd_dslr", aperture="N2_8")))
    console = Console(width=width, record=True, file=(tmp_path / "out").open("w"))
    print_tables([*paper_rows(), *our_rows([tmp_path])], console)
    text = console.export_text()
    assert text.index("0.546") < text.index("0.500")
    assert "75.0 %" in text
    assert ("rmslog" in text) == there
    assert "NYUv2" not in text.split("Ours:")[0]  # no row of ours, no table


def test_command_line_prints_the_shipped_models(capsys, repository: Path) -> None:
    assert evaluate_cli.main(["--table", str(repository / "models")]) == 0
    out = capsys.readouterr().out
    assert "Carvalho 2018" in out
    assert "0.324" in out


def test_recipe_without_weights_or_test_says_so(tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\n", encoding="utf-8")
    assert evaluate_cli.main(["--config", str(recipe)]) == 2
    assert "expected a part evaluate" in capsys.readouterr().err
    recipe.write_text("name: r\nevaluate: {data: nyuv2}\n", encoding="utf-8")
    assert evaluate_cli.main(["--config", str(recipe), "--runs", str(tmp_path)]) == 2
    assert "ddfd-train --config" in capsys.readouterr().err
