"""Recipes: defaults, overrides, and refusals that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.config import TrainConfig, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "training/configs").glob("*.yaml"))


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    """Defaults live in the dataclasses alone."""
    assert load_config(_write(tmp_path, "")) == TrainConfig()


def test_overrides_reach_inside(tmp_path: Path) -> None:
    """``key.sub=value`` wins over the file; 1e-4 is a number."""
    path = _write(tmp_path, "lens: dslr\noptimizer: {learning_rate: 1.0e-3}\n")
    config = load_config(path, ["optimizer.learning_rate=1e-4", "data.sources=[{weight: 2}]"])
    assert config.lens == LENS_PRESETS["dslr"]
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.sources[0].weight == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown setting stepz"),
        ("data: {crop: 3}", r"unknown setting data\.crop; known: .*crop_px"),
        ("steps: many", "steps: expected int"),
        ("lens: pinhole", "lens: expected one of"),
        ("lens: {focal_length_m: 1}", "lens"),
        ("depth_range_m: [1]", "expected 2 values"),
        ("optimizer: {learning_rate: fast}", "expected a number"),
        ("[1, 2]", "expected a mapping"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str, message: str) -> None:
    """A typo is found by name, not ignored."""
    with pytest.raises((ValueError, TypeError), match=message):
        load_config(_write(tmp_path, text))


def test_override_needs_an_equals_sign(tmp_path: Path) -> None:
    """A forgotten value is said."""
    with pytest.raises(ValueError, match="key=value"):
        load_config(_write(tmp_path, ""), ["steps"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    """Every recipe in the repository is valid, and its run is called like its file."""
    assert load_config(path).name == path.stem
