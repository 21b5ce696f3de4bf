"""The two networks of this group through the product: trained, exported, evaluated, by command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ddfd_training.cli import main as train_main
from ddfd_training.config import load_config
from ddfd_training.evaluate_cli import main as evaluate_main
from ddfd_trt.cli import export_main

WIDTHS = {
    "widths": [8, 8, 8, 8, 8],
    "depths": [1, 1, 1, 1, 1],
    "sharp_width": 8,
    "sharp_blocks": 1,
}
DEDDNET = {"branches": [1], "channels": 8, "depth_channels": 4, "output": "residual"}


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory) -> Path:
    """Two frames in NYUv2's layout, for training and for the test."""
    root = tmp_path_factory.mktemp("nyuv2")
    random = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (root / name).mkdir()
    for frame in range(2):
        coarse = random.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{frame:04d}.jpg"), cv2.resize(coarse, (640, 480)))
        levels = np.full((480, 640), 60 + 20 * frame, np.uint8)
        cv2.imwrite(str(root / "depth" / f"{frame:04d}.png"), levels)
    for split in ("train", "test"):
        (root / f"{split}.txt").write_text("0000\n0001\n", encoding="ascii")
    return root


def run(folder: Path, root: Path, name: str, network: dict, loss: str, **settings) -> Path:
    """Train for two steps with ``ddfd-train``; the checkpoint."""
    recipe = {
        "name": name, "network": network, "loss": {"name": loss}, "steps": 2, "save_every": 2,
        "validate_every": 2, "precision": "32-true", "threads": 1, **settings,
        "data": {"sources": [{"dataset": "nyuv2", "root": str(root)}], "crop_px": 64,
                 "batch_size": 2, "held_out": 0, "cache": str(root / "cache")},
    }  # fmt: skip
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["--config", str(config), "--out", str(folder), "--accelerator", "cpu"]
    assert train_main([*arguments, "--devices", "1"]) == 0
    return folder / name / f"{name}.pt"


def evaluate(folder: Path, root: Path, model: Path, *more: str) -> dict:
    """The report of ``ddfd-evaluate`` on the test's first frame."""
    report = folder / f"{model.stem}.json"
    arguments = ["--onnx", str(model), "--data", "nyuv2", "--root", str(root), "--no-edges"]
    arguments += ["--limit", "1", "--threads", "1", "--cache", str(root / "cache")]
    assert evaluate_main([*arguments, "--json", str(report), *more]) == 0
    return json.loads(report.read_text(encoding="utf-8"))


CONFIGS = Path(__file__).parents[2] / "training/configs"


def test_the_papers_recipes_train_on_the_whole_split():
    for name in ("deddnet", "2hded-selfsup"):
        assert load_config(CONFIGS / f"{name}.yaml").data.held_out == 0


def test_the_self_supervised_network_is_trained_as_the_supervised_one():
    own, other = (load_config(CONFIGS / f"2hded-{name}.yaml") for name in ("selfsup", "thesis"))
    assert own.optimizer == other.optimizer
    assert own.network.imagenet == other.network.imagenet
    assert (own.steps, own.data.batch_size) == (other.steps, other.data.batch_size)
    assert (own.data.crop_px, own.data.held_out) == (other.data.crop_px, other.data.held_out)


def test_a_papers_recipe_starts_at_random_when_imagenet_is_left_empty():
    config = load_config(CONFIGS / "d3net-8m.yaml", ["network.imagenet=", "loss.options.vgg="])
    assert config.network.imagenet == config.loss.options["vgg"] == ""


def test_both_are_trained_exported_and_evaluated(root, tmp_path):
    options = {"backbone": "ddfd-lite", **WIDTHS}
    weights = run(tmp_path, root, "map", {"name": "2hded-selfsup", "options": options},
                  "thesis2023-selfsup")  # fmt: skip
    model = tmp_path / "map.onnx"
    assert export_main([str(weights), str(model)]) == 0
    result = evaluate(tmp_path, root, model)["result"]
    assert {"depth", "defocus", "all_in_focus"} <= set(result)
    assert 0 < result["defocus"]["over_pixels"]["mae_px"] < 25

    guide = run(tmp_path, root, "guide", {"name": "ddfd-lite", "options": WIDTHS}, "ddfd")
    network = {
        "name": "deddnet", "guide": str(guide),
        "options": {**DEDDNET, "depth": "own", "guide_options": WIDTHS},
    }  # fmt: skip
    own = run(tmp_path, root, "own", network, "zhai2024")
    assert export_main([str(own), str(tmp_path / "own.onnx")]) == 0
    whole = evaluate(tmp_path, root, tmp_path / "own.onnx")["result"]
    options = {**DEDDNET, "depth": "given", "output": "sigmoid"}
    network = {"name": "deddnet", "options": options}
    given = run(tmp_path, root, "given", network, "zhai2024", step="given-depth")
    assert export_main([str(given), str(tmp_path / "given.onnx")]) == 0
    first = tmp_path / "guide.onnx"
    assert export_main([str(guide), str(first)]) == 0
    second = ["--deblur", str(tmp_path / "given.onnx"), "--deblur-depth", "data"]
    told = evaluate(tmp_path, root, first, *second)
    assert told["deblurring"] == {"file": "given.onnx", "depth": "data"}
    # The same depth network, inside the one and before the other.
    assert told["result"]["depth"] == whole["depth"]
    assert told["result"]["all_in_focus"]["output"] != whole["all_in_focus"]["output"]
