"""Where a recipe's data sets are: --data-root, the recipe's own roots, DDFD_DATA."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ddfd_training.cli import main
from ddfd_training.config import SourceConfig, TrainConfig, at_data_root, load_stages, root_of
from ddfd_training.datasets.registry import DATASETS
from ddfd_training.evaluate_arguments import build_parser, fill_from_recipe

CONFIGS = sorted((Path(__file__).parents[2] / "training/configs").glob("*.yaml"))


def _without_roots(config: TrainConfig) -> TrainConfig:
    sources = tuple(dataclasses.replace(each, root="") for each in config.data.sources)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, sources=sources),
        evaluate=dataclasses.replace(config.evaluate, root=""),
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_another_data_root_changes_the_roots_of_every_stage_and_nothing_else(path: Path) -> None:
    for config in load_stages(path):
        moved = at_data_root(config, "/data")
        assert _without_roots(moved) == _without_roots(config)
        for before, after in zip(config.data.sources, moved.data.sources, strict=True):
            folder = DATASETS[before.dataset].folder
            assert after.root == (f"/data/{folder}" if folder else before.root)
        if config.evaluate.data:
            assert moved.evaluate.root == f"/data/{DATASETS[config.evaluate.data].folder}"


def test_the_option_comes_before_the_recipes_root_and_that_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, missing = tmp_path / "there", str(tmp_path / "missing")
    there.mkdir()
    monkeypatch.delenv("DDFD_DATA", raising=False)
    assert root_of("nyuv2", missing) == missing
    monkeypatch.setenv("DDFD_DATA", "/env")
    assert root_of("nyuv2", str(there), "/option") == "/option/nyuv2"
    assert root_of("nyuv2", str(there)) == str(there)
    assert root_of("nyuv2", missing) == "/env/nyuv2"
    assert root_of("idfd", "") == "/env/idfd"
    # One's own recordings are in no folder of data sets, and rendered rooms in none at all.
    for own in ("folder", "bag", "synthetic"):
        assert root_of(own, missing, "/option") == missing
    unknown = TrainConfig(
        data=dataclasses.replace(TrainConfig().data, sources=(SourceConfig("kitti", missing),))
    )
    assert at_data_root(unknown, "/option") == unknown  # refused by name when it is opened


def test_ddfd_train_looks_below_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"data: {{sources: [{{root: {tmp_path}}}]}}\n", encoding="utf-8")
    run = ["--config", str(recipe), "--out", str(tmp_path), "--accelerator", "cpu"]
    assert main([*run, "--data-root", "/elsewhere"]) == 2
    assert "expected a folder /elsewhere/nyuv2" in capsys.readouterr().err
    recipe.write_text("data: {sources: [{root: /nonexistent}]}\n", encoding="utf-8")
    monkeypatch.setenv("DDFD_DATA", "/env")
    assert main(run) == 2
    assert "expected a folder /env/nyuv2" in capsys.readouterr().err


def test_the_test_of_a_recipe_is_found_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\nevaluate: {data: nyuv2, root: /nonexistent}\n", encoding="utf-8")
    (tmp_path / "r").mkdir()
    (tmp_path / "r/r.pt").touch()
    monkeypatch.setenv("DDFD_DATA", "/env")
    given = ["--config", str(recipe), "--runs", str(tmp_path)]
    for more, root in (([], "/env/nyuv2"), (["--root", "/mine"], "/mine")):
        arguments = build_parser(None).parse_args([*given, *more])
        fill_from_recipe(arguments)
        assert arguments.root == root
