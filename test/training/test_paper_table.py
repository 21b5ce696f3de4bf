"""Our rows beside the papers': which report belongs where, and what the table shows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training import evaluate_cli
from ddfd_training.paper_table import (
    COLUMNS,
    our_rows,
    paper_data,
    paper_rows,
    print_tables,
    row_of_report,
    test_of_data,
)

test_of_data.__test__ = False  # a function of the table, not a test


DISKS = "simulated, disk kernel, rounded to 8 bits"


def nyuv2(lens: LensConfig = LENS_PRESETS["nyu-8m"], **changes) -> dict:
    """The data of a report on NYUv2's test, as ddfd-evaluate describes them."""
    return {"name": "nyuv2", "split": "test", "blur": DISKS, "lens": asdict(lens), **changes}


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
        (nyuv2(LENS_PRESETS["nyu-2m"]), "nyuv2-2m"),
        (nyuv2(), "nyuv2-8m"),
        (nyuv2(LENS_PRESETS["dslr"]), ""),
        (nyuv2(replace(LENS_PRESETS["nyu-8m"], f_number=1e6)), "nyuv2-sharp"),
        ({"name": "dfd_dslr", "split": "test", "aperture": "N2_8"}, "dslr-n2.8"),
        ({"name": "dfd_dslr", "split": "test", "aperture": "N8"}, "dslr-n8"),
        ({"name": "idfd", "split": "test"}, "idfd"),
        ({"name": "folder", "split": "test"}, ""),
    ],
)
def test_reports_find_their_test(data, expected) -> None:
    assert test_of_data(data) == expected


HALF = LENS_PRESETS["nyu-8m"].scaled(0.5)
SHARP = replace(LENS_PRESETS["nyu-8m"], f_number=1e6)
INFINITE = asdict(LENS_PRESETS["nyu-8m"]) | {"focus_distance_m": None}  # null, as in JSON


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (nyuv2(split="train"), ""),
        ({"name": "dfd_dslr", "split": "train", "aperture": "N8"}, ""),
        ({"name": "idfd"}, ""),  # all of it
        # Half the size is the same test where a pixel is twice as wide, else another blur.
        (nyuv2(HALF, size=[213, 280]), "nyuv2-8m"),
        (nyuv2(size=[213, 280]), ""),
        (nyuv2(HALF), ""),
        (nyuv2(SHARP, size=[213, 280]), ""),
        (nyuv2() | {"lens": INFINITE}, ""),
        (nyuv2(blur="simulated, gaussian kernel, sigma 0.3 of the diameter"), ""),
        (nyuv2(preset="d3net"), "nyuv2-8m"),
        (nyuv2(preset="quick"), ""),
        (nyuv2(options={"crop": False}), ""),
        ({"name": "dfd_dslr", "split": "test", "aperture": "N8", "options": {"pair": "time"}}, ""),
    ],
)
def test_another_split_size_or_blur_is_another_test(data, expected) -> None:
    assert test_of_data(data) == expected


def test_no_row_for_a_recipes_test_on_training_images() -> None:
    content = report(**nyuv2(split="train")) | {"test": "nyuv2-8m"}
    assert row_of_report(content, Path("a.json")) is None


def test_a_row_says_what_was_done_to_the_images() -> None:
    content = report(name="dfd_dslr", split="test", aperture="N2_8")
    changed = content | {"softened_px": 0.5814, "network_size": [256, 320]}
    hows = [row_of_report(each, Path("a.json")).how for each in (content, changed)]
    assert hows[0].endswith("; 7 test images")
    assert hows[1].endswith("; 7 test images, seen at 256x320 px, softened by 0.58 px")


def test_rows_carry_training_and_test(tmp_path: Path) -> None:
    content = report(**nyuv2(LENS_PRESETS["nyu-4m"]))
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "other.json").write_text("[1, 2]")
    (row,) = our_rows([tmp_path])
    assert (row.test, row.network, row.ours) == ("nyuv2-4m", "d3net (net)", True)
    assert row.how == "1,234 crops of 224 px, from torchvision; 7 test images"
    assert row.values == {"rmse": 0.5, "abs_rel": 0.2, "delta1": 0.75}


def write_arm(folder: Path, test: str, size: tuple[int, int]) -> None:
    """What the claims' runner writes for an arm with two seeds, rms errors 0.4 and 0.6 m."""
    for seed, rmse in ((1, 0.4), (2, 0.6)):
        depth = {"mean_over_images": {"rmse": rmse}, "pixels": 5 * size[0] * size[1]}
        content = {"arm": "focus-2m", "seed": seed, "steps": 3, "crops": 24, "crop_px": 96,
                   "parameters": 220000, "network": "ddfd-lite",
                   "tests": {test: {"images": 5, "depth": depth}}}  # fmt: skip
        (folder / f"{seed}.json").write_text(json.dumps(content))


def test_seeds_of_an_arm_become_one_row(tmp_path: Path) -> None:
    write_arm(tmp_path, "nyu-2m", (213, 280))
    (row,) = our_rows([tmp_path])
    assert row.test == "nyuv2-2m"
    assert row.values["rmse"] == pytest.approx(0.5)
    assert "mean of 2" in row.how


@pytest.mark.parametrize(
    ("test", "size", "words"),
    [
        ("nyu-2m", (213, 280), "f/1.4 at half size"),
        ("nyu-sharp", (213, 280), "half size"),
        ("dslr-n8", (216, 322), "half size"),
        ("nyu-8m", (426, 560), "full size"),  # those of claims_deblurring.yaml
    ],
)
def test_rows_of_claims_say_their_size_and_blur(tmp_path: Path, test, size, words) -> None:
    write_arm(tmp_path, test, size)
    (row,) = our_rows([tmp_path])
    assert row.how.endswith(f"; 5 test images; {words}")


def test_papers_rows_are_known_and_whole() -> None:
    """Every row has a test that exists and only measures with a column; D3-Net's as printed."""
    rows = paper_rows()
    assert {row.test for row in rows} <= set(paper_data()["tests"])
    assert all(set(row.values) <= {*COLUMNS, "ssim"} for row in rows)
    (two,) = paper_rows(["d3net/2m"])
    assert (two.values["rmse"], two.values["abs_rel"], two.values["delta1"]) == (
        0.274, 0.068, 0.961)  # fmt: skip
    deblurred = paper_rows(["2hded/nyu-to-idfd", "2hded/idfd-inpainted"])  # thesis, table 4.3
    assert [(row.values["psnr"], row.values["ssim"]) for row in deblurred] == [
        (30.09, 0.86), (36.25, 0.99)]  # fmt: skip
    with pytest.raises(DdfdError, match="expected one of d3net/sharp.*got 'd3net/3m'"):
        paper_rows(["d3net/3m"])


@pytest.mark.parametrize(("width", "there"), [(150, True), (80, False)])
def test_table_puts_ours_below_the_papers(tmp_path: Path, width: int, there: bool) -> None:
    content = report(name="dfd_dslr", split="test", aperture="N2_8")
    (tmp_path / "a.json").write_text(json.dumps(content))
    console = Console(width=width, record=True, file=(tmp_path / "out").open("w"))
    print_tables([*paper_rows(), *our_rows([tmp_path])], console)
    text = console.export_text()
    assert text.index("0.546") < text.index("0.500")
    assert "75.0 %" in text
    assert ("rmslog" in text) == there
    assert "NYUv2" not in text.split("Ours:")[0]  # no row of ours, no table


def test_command_line_prints_the_shipped_models(capsys, repository: Path) -> None:
    folder = str(repository / "models")
    assert evaluate_cli.main(["--table", folder, "--data", "nyuv2", "--json", "a.json"]) == 2
    assert "expected no other option, got also --data, --json" in capsys.readouterr().err
    assert evaluate_cli.main(["--table", folder]) == 0
    out = capsys.readouterr().out
    assert "Carvalho 2018" in out
    assert "0.324" in out


def test_every_shipped_report_has_its_row(repository: Path) -> None:
    rows = our_rows([repository / "models"])
    assert sorted(row.test for row in rows) == [
        "dslr-n2.8", "dslr-n2.8", "dslr-n2.8", "nyuv2-2m", "nyuv2-4m", "nyuv2-8m"
    ]  # fmt: skip
    assert len({(row.test, row.network, row.how) for row in rows}) == len(rows)


def test_recipe_without_weights_or_test_says_so(tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\n", encoding="utf-8")
    assert evaluate_cli.main(["--config", str(recipe)]) == 2
    assert "expected a part evaluate" in capsys.readouterr().err
    recipe.write_text("name: r\nevaluate: {data: nyuv2}\n", encoding="utf-8")
    assert evaluate_cli.main(["--config", str(recipe), "--runs", str(tmp_path)]) == 2
    assert "ddfd-train --config" in capsys.readouterr().err
