"""Recipes: defaults, overrides, and refusals that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.calibration.report import write_record
from ddfd_training.config import TrainConfig, load_config, load_stages
from ddfd_training.losses import NAMED_LOSSES
from ddfd_training.paper_table import paper_data, paper_rows

CONFIGS = sorted((Path(__file__).parents[2] / "training/configs").glob("*.yaml"))


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    """Defaults live in the dataclasses alone."""
    assert load_config(_write(tmp_path, "")) == TrainConfig()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_papers_recipes_train_on_the_whole_split(path: Path) -> None:
    """As the papers did, whose rows theirs stand beside."""
    if path.stem.startswith(("d3net-", "smoothing-", "2hded-icip", "2hded-thesis", "2hded-nyu")):
        assert [stage.data.held_out for stage in load_stages(path)] == [0] * len(load_stages(path))


def test_overrides_reach_inside(tmp_path: Path) -> None:
    """``key.sub=value`` wins over the file; 1e-4 is a number."""
    path = _write(tmp_path, "lens: dslr\noptimizer: {learning_rate: 1.0e-3}\n")
    config = load_config(path, ["optimizer.learning_rate=1e-4", "data.sources=[{weight: 2}]"])
    assert config.lens == LENS_PRESETS["dslr"]
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.sources[0].weight == 2.0


def test_an_option_may_be_written_as_a_power_of_ten(tmp_path: Path) -> None:
    """PyYAML reads 1e-4 as text, of which a loss can make nothing."""
    path = _write(tmp_path, "loss: {name: thesis2023, options: {gradient_weight: 1e-4}}\n")
    assert load_config(path).loss.options == {"gradient_weight": 1e-4}
    options = load_config(path, ["loss.options.ssim_weight=2E0"]).loss.options
    assert options == {"gradient_weight": 1e-4, "ssim_weight": 2.0}


def test_an_override_reaches_one_source_by_its_number(tmp_path: Path) -> None:
    """And says what is wrong where there is no such part."""
    path = _write(tmp_path, "lens: nyu-8m\ndata: {sources: [{weight: 2}, {weight: 3}]}\n")
    sources = load_config(path, ["data.sources.1.limit=6"]).data.sources
    assert [(source.weight, source.limit) for source in sources] == [(2.0, 0), (3.0, 6)]
    for override, message in (
        ("data.sources.2.limit=6", "data.sources: expected the number of one of its 2 entries"),
        ("data.sources.limit=6", "from 0, got 'limit'"),
        ("lens.f_number=2", "lens: expected settings with parts.*'nyu-8m'; give the whole"),
    ):
        with pytest.raises(ValueError, match=message):
            load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown setting stepz"),
        ("data: {crop: 3}", r"unknown setting data\.crop; known: .*crop_px"),
        ("steps: many", "steps: expected int"),
        ("lens: pinhole", "lens: expected one of"),
        ("lens: {focal_length_m: 1}", "lens"),
        ("depth_range_m: [1]", "expected 2 values"),
        ("depth_range_m: [5, 1]", r"depth_range_m: expected metres, .* got \[5, 1\]"),
        ("optimizer: {learning_rate: fast}", "expected a number"),
        ("[1, 2]", "expected a mapping"),
        ("steps: 5\nsteps: 9", r"recipe\.yaml: expected YAML, got steps twice.*line 2"),
        ("evaluate: {input: shrap}", r"evaluate\.input: expected auto or sharp, got 'shrap'"),
        ("name: [", r"recipe\.yaml: expected YAML, got .*line 1"),
        ("name: ''", "name: expected that of the run"),
        ("steps: -3", "steps: expected 1 or more, got -3"),
        ("save_every: 0", "save_every: expected 1 or more"),
        ("validate_every: 0", "validate_every: expected 1 or more"),
        ("threads: -1", "threads: expected 0 or more"),
        ("data: {flip: 2}", r"data\.flip: expected 0 to 1, got 2"),
        ("data: {noise_std: -1}", r"data\.noise_std: expected 0 or more"),
        ("data: {near_and_far: 0}", r"data\.near_and_far: expected 1 or more"),
        ("data: {sources: []}", "expected one at least with a weight above 0, got 0"),
        ("data: {sources: [{weight: 0}]}", "expected one at least with a weight above 0, got 1"),
        ("data: {sources: [{weight: -1}]}", r"sources\.weight: expected 0 or more"),
        ("data: {sources: [{dataset: synthetic, count: 0}]}", r"sources\.count: expected 1"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str, message: str) -> None:
    """A typo is found by name, not ignored."""
    with pytest.raises((ValueError, TypeError), match=message):
        load_config(_write(tmp_path, text))


def test_a_calibration_says_for_which_images_its_lens_is(tmp_path: Path) -> None:
    """Of the four numbers of a lens or a preset, nobody knows."""
    file = tmp_path / "lens.yaml"
    write_record(LensCalibration(LENS_PRESETS["nyu-8m"], 640, 480), file)
    config = load_config(_write(tmp_path, f"lens: {file}"))
    assert config.lens == LENS_PRESETS["nyu-8m"]
    assert config.lens_px == (640, 480)
    assert load_config(_write(tmp_path, "lens: nyu-8m")).lens_px == ()
    assert load_config(_write(tmp_path, f"lens: {file}"), ["lens=nyu-2m"]).lens_px == ()


def test_an_override_names_a_run_to_start_from_as_a_recipe_does(tmp_path: Path) -> None:
    """``@`` begins nothing in YAML, where a recipe has it in quotes."""
    path = _write(tmp_path, 'init: "@first"\n')
    assert load_config(path, ["init=@second"]).init == "@second"
    with pytest.raises(ValueError, match="lens: expected YAML, got"):
        load_config(path, ["lens={"])


def test_stages_beside_the_recipe_are_refused(tmp_path: Path) -> None:
    """They would be ignored: what is given there changes each stage."""
    with pytest.raises(ValueError, match="stages: expected in the recipe's file"):
        load_config(_write(tmp_path, ""), ["stages=[{name: a}, {steps: 4}]"])


def test_override_needs_an_equals_sign(tmp_path: Path) -> None:
    """A forgotten value is said."""
    with pytest.raises(ValueError, match="key=value"):
        load_config(_write(tmp_path, ""), ["steps"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    """Every recipe in the repository is valid, and its run is called like its file."""
    assert load_config(path).name == path.stem


def test_stages_inherit_and_chain(tmp_path: Path) -> None:
    """Each stage changes what it names, starts from the one before, and obeys overrides."""
    path = _write(
        tmp_path,
        """
name: two
init: models/start.pt
optimizer: {name: adam, learning_rate: 1e-3}
stages:
  - {name: first, steps: 10, data: {sources: [{dataset: synthetic}]}}
  - {steps: 20, optimizer: {learning_rate: 1e-4}}
""",
    )
    first, second = load_stages(path, ["data.crop_px=64"])
    assert (first.name, first.init, first.steps) == ("two-first", "models/start.pt", 10)
    assert (second.name, second.init, second.steps) == ("two", "@two-first", 20)
    assert first.data.sources[0].dataset == "synthetic"
    assert second.data.sources[0].dataset == "nyuv2"
    assert (second.optimizer.name, second.optimizer.learning_rate) == ("adam", 1e-4)
    assert first.data.crop_px == second.data.crop_px == 64
    assert load_config(path) == load_stages(path)[-1]
    with pytest.raises(ValueError, match=r"stages\[0\]: expected also name"):
        load_stages(_write(tmp_path, "stages: [{steps: 1}, {steps: 2}]"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_recipes_name_what_exists(path: Path) -> None:
    """Losses and rows of papers are there, and the rows belong to one test."""
    for config in load_stages(path):
        assert config.loss.name in NAMED_LOSSES
        assert len({row.test for row in paper_rows(config.evaluate.paper)}) <= 1


def test_each_row_of_the_papers_networks_has_a_recipe() -> None:
    """Every experiment of the papers' own networks is a file."""
    wanted = {row for path in CONFIGS for row in load_config(path).evaluate.paper}
    own = {name for name in paper_data()["rows"] if name.split("/")[0] in ("d3net", "smoothing")}
    own |= {"2hded/icip", "2hded/thesis", "2hded/nyu-to-idfd"}
    assert own <= wanted
