"""A run goes on with the recipe that it was begun with, and with no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.cli import train_stages
from ddfd_training.config import DataConfig, NetworkConfig, SourceConfig, TrainConfig
from ddfd_training.run_recipe import check_recipe

RECIPE = TrainConfig(
    data=DataConfig(sources=(SourceConfig(root="here"),)),
    network=NetworkConfig(options={"a": [1]}),
)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that has a checkpoint."""
    check_recipe(tmp_path, RECIPE)
    (tmp_path / "last.ckpt").touch()
    check_recipe(tmp_path, RECIPE)
    return tmp_path


def test_how_long_where_and_with_what_may_change(begun: Path) -> None:
    moved = replace(RECIPE.data, sources=(SourceConfig(root="there"),), cache="c", workers=2)
    check_recipe(begun, replace(RECIPE, data=moved, steps=7, threads=3, precision="32-true"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lens": LENS_PRESETS["nyu-2m"]}, "lens.focus_distance_m"),
        ({"network": NetworkConfig(options={"a": [2]})}, "network.options.a"),
        ({"data": replace(RECIPE.data, sources=(SourceConfig("synthetic"),))},
         "data.sources.dataset"),
        ({"data": replace(RECIPE.data, sources=RECIPE.data.sources * 2)}, "data.sources"),
        ({"init": "other.pt", "seed": 5}, "init, seed"),
    ],
)  # fmt: skip
def test_another_recipe_is_refused_by_name(begun: Path, changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=f"got another {named}; give it another name"):
        check_recipe(begun, replace(RECIPE, **changes))


def test_a_run_without_a_checkpoint_begins_anew(begun: Path) -> None:
    (begun / "last.ckpt").unlink()
    other = replace(RECIPE, seed=5)
    check_recipe(begun, other)
    (begun / f"{RECIPE.name}.pt").touch()  # a stage that is finished
    check_recipe(begun, other)
    with pytest.raises(ValueError, match="another seed"):
        check_recipe(begun, RECIPE)


def test_a_run_of_before_there_were_such_files_goes_on(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    check_recipe(tmp_path, RECIPE)
    with pytest.raises(ValueError, match="another seed"):
        check_recipe(tmp_path, replace(RECIPE, seed=5))


def test_no_finished_stage_is_taken_for_another(tmp_path: Path) -> None:
    first, last = replace(RECIPE, name="first"), replace(RECIPE, name="last")
    check_recipe(tmp_path / "first", first)
    (tmp_path / "first" / "first.pt").touch()
    with pytest.raises(ValueError, match="another seed"):
        train_stages([replace(first, seed=2), last], tmp_path)
