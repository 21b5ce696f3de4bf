"""From a calibration file to a model with the node's parameters."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.inference import open_backend
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_training import onboard_cli
from ddfd_training.config import stages_of
from ddfd_training.datasets.synthetic_scenes import TEST_SEED
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.shots import OPTIONS
from ddfd_training.onboard_cli import main
from ddfd_training.onboard_recipe import Job, OnboardError, Recording, recipe
from ddfd_training.reblur import reblur_with_map

MEASURED = LensCalibration(lens_of(20.0, 3.0), 1280, 960, shape="blend", gaussian_share=0.4)


def test_the_recipe_draws_lenses_around_the_calibrated_one_at_the_working_size():
    config = stages_of(recipe(Job(width=640), MEASURED))[-1]
    assert config.lens.px_per_dioptre == pytest.approx(10.0)
    drawn = config.data.sources[0].lenses
    assert drawn.px_per_dioptre == pytest.approx((9.5, 10.5))
    assert drawn.focus_distance_m[0] < 3.0 < drawn.focus_distance_m[1]
    assert drawn.gaussian_share == pytest.approx((0.3, 0.5))
    assert config.network.options["lens_input"]


def test_scenes_as_sharp_as_those_of_the_start_promise_the_same_to_the_node():
    job = Job(init="a.pt", sigma_0_px=0.7)
    assert stages_of(recipe(job, MEASURED))[-1].sigma_0_px == 0.7
    assert stages_of(recipe(replace(job, natural="mine"), MEASURED))[-1].sigma_0_px == 0.0
    assert stages_of(recipe(Job(), MEASURED))[-1].sigma_0_px == 0.0


@pytest.mark.parametrize(("focus_m", "side"), [(20.0, "near"), (2.0, "unknown"), (0.3, "far")])
def test_without_depth_the_side_follows_from_the_focus(focus_m, side):
    measured = replace(MEASURED, lens=lens_of(12.0, focus_m))
    config = stages_of(recipe(Job(pairs="somewhere"), measured))[-1]
    assert config.network.options["side"] == side
    with pytest.raises(OnboardError, match="--init"):
        recipe(Job(pairs="somewhere", init="a.pt"), measured)


def test_pairs_whose_small_aperture_blurs_too_are_both_made_from_the_network_s_own_image():
    job = Job(pairs="somewhere", sharp_ratio=0.35)
    options = stages_of(recipe(job, MEASURED))[-1].loss.options
    assert (options["sharp"], options["narrow_ratio"]) == ("network", 0.35)
    assert "sharp" not in stages_of(recipe(replace(job, sharp_ratio=0), MEASURED))[-1].loss.options
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(OnboardError, match="--sharp-ratio: expected 0 to below 1"):
            recipe(replace(job, sharp_ratio=wrong), MEASURED)
    with pytest.raises(OnboardError, match="--sharp-ratio: expected --pairs beside it"):
        recipe(replace(job, pairs="", natural="mine"), MEASURED)


@pytest.mark.parametrize("kind", ["natural", "pairs"])
def test_what_a_recording_keeps_for_testing_is_not_trained_on(kind, tmp_path):
    job = Job(**{kind: str(tmp_path)})
    assert recipe(job, MEASURED)["data"]["sources"][-1]["split"] == "all"
    (tmp_path / "test.txt").touch()
    with pytest.raises(DatasetError, match=r"expected train\.txt beside test\.txt"):
        recipe(job, MEASURED)
    (tmp_path / "train.txt").touch()
    assert recipe(job, MEASURED)["data"]["sources"][-1]["split"] == "train"


@pytest.mark.parametrize("kind", ["natural", "pairs"])
def test_recordings_of_the_camera_come_to_the_working_width_with_its_lens(kind):
    """Pictures of 1280 px at 640: half the strength, whatever their own lens.json says."""
    values = recipe(Job(**{kind: "somewhere"}, width=640), MEASURED)
    config = stages_of(values)[-1]
    source = config.data.sources[-1]
    assert (source.dataset, source.size) == ("folder", (480, 640))
    told = LensConfig(**source.options["lens"]).scaled(0.5)
    assert told.px_per_dioptre == pytest.approx(config.lens.px_per_dioptre)
    for width in (0, 1280):
        values = recipe(Job(**{kind: "somewhere"}, width=width), MEASURED)
        assert stages_of(values)[-1].data.sources[-1].size == ()


@pytest.mark.parametrize("kind", ["natural", "pairs"])
@pytest.mark.parametrize(
    ("image_px", "frame_px", "width", "size"),
    [
        ((800, 1000), (960, 1280), 640, (400, 500)),  # cut by ddfd-prepare, then made smaller
        ((800, 1000), (960, 1280), 0, ()),
        ((480, 640), (480, 640), 640, ()),  # recorded at half the calibration's size
        ((400, 500), (480, 640), 320, (200, 250)),
        ((400, 500), (480, 640), 0, (800, 1000)),
        ((800, 1000), (960, 1279), 0, ()),  # a rounded size is no reason to resample blur
    ],
)
def test_a_recording_keeps_its_own_pixels_blur(kind, image_px, frame_px, width, size):
    """Whatever its pictures were cut to, their pixels become those that are worked with."""
    job = Job(**{kind: "mine"}, recording=Recording(image_px, frame_px), width=width)
    config = stages_of(recipe(job, MEASURED))[-1]
    source = config.data.sources[-1]
    assert source.size == size
    scale = size[1] / image_px[1] if size else 1.0
    told = LensConfig(**source.options["lens"]).scaled(scale)
    assert told.px_per_dioptre == pytest.approx(config.lens.px_per_dioptre, rel=2e-3)


def test_a_recording_of_another_shape_is_refused():
    job = Job(natural="mine", recording=Recording((960, 960), (960, 960)))
    with pytest.raises(LensCalibrationError, match="shape 1280x960, got 960x960"):
        recipe(job, MEASURED)
    with pytest.raises(OnboardError, match="--natural: expected none with --pairs"):
        recipe(Job(natural="mine", pairs="mine"), MEASURED)


def test_recordings_without_companions_are_not_blurred_a_second_time(tmp_path, monkeypatch):
    """Elsewhere a folder without sharp/ counts as sharp; these are the camera's photographs."""
    monkeypatch.setattr(onboard_cli, "_call", lambda command, *words: None)
    monkeypatch.chdir(tmp_path)
    for name in ("rgb", "depth"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        cv2.imwrite(f"mine/{name}/a.png", np.full((960, 1280), 2000, np.uint16))
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(MEASURED.to_dict()))
    assert main(["lens.yaml", "--natural", "mine", "--scenes", "10"]) == 2  # nothing was trained
    data = yaml.safe_load((tmp_path / "onboard" / "mine.yaml").read_text())["data"]
    assert data["sources"][-1]["options"]["rgb_is"] == "defocused"
    assert data["held_out"] == 5  # of ten pictures the usual 16 would leave none to train on


@pytest.mark.parametrize("option", ["--natural", "--pairs"])
def test_a_prepared_folder_is_taken_as_the_part_that_it_is(tmp_path, monkeypatch, capsys, option):
    monkeypatch.setattr(onboard_cli, "_call", lambda command, *words: None)
    for name in ("rgb", "sharp", "depth"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        image = np.full((80, 100), 2000, np.uint16)
        cv2.imwrite(str(tmp_path / "mine" / name / "a.png"), image)
    report = {"registered": True, "frame_px": [120, 160]}
    (tmp_path / "mine" / "registration.json").write_text(json.dumps(report))
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(MEASURED.to_dict()))
    words = [str(tmp_path / "lens.yaml"), "--out", str(tmp_path / "out"), "--width", "80"]
    ratio = ["--sharp-ratio", "0.35"] if option == "--pairs" else []
    assert main([*words, option, str(tmp_path / "mine"), *ratio]) == 2  # nothing was trained
    said = " ".join(capsys.readouterr().out.split())
    assert ("its sign, and no depth;" in said) == (option == "--pairs")
    source = yaml.safe_load((tmp_path / "out" / "mine.yaml").read_text())["data"]["sources"][-1]
    assert source["size"] == [40, 50]
    own = LensConfig(**source["options"]["lens"])
    assert own.px_per_dioptre == pytest.approx(20.0 / 8)


def test_without_depth_a_gaussian_blurs_as_far_as_its_lens_says():
    """The lens is that of disks of 4 sigma; so has to be the diameter that is blurred by."""
    measured = replace(MEASURED, shape="gaussian", gaussian_sigma_per_diameter=0.37)
    config = stages_of(recipe(Job(pairs="somewhere"), measured))[-1]
    options = config.loss.options
    assert options["kernel"] == "gaussian"
    sharp = torch.zeros(1, 1, 41, 41)
    sharp[..., 20, 20] = 1.0
    diameter_px = torch.full((1, 1, 41, 41), 8.0)
    spread = reblur_with_map(sharp, diameter_px, **options)[0, 0].sum(dim=0)
    offset = torch.arange(41) - 20
    assert float((spread * offset**2).sum()) ** 0.5 == pytest.approx(8.0 / 4, rel=0.02)


def test_one_command_leads_to_a_running_model(tmp_path, capsys):
    file = tmp_path / "lens.yaml"
    file.write_text(yaml.safe_dump(MEASURED.to_dict()))
    small = ["network.options.widths=[8, 8, 8, 8, 8]", "data.crop_px=64"]
    small += [f"data.cache={tmp_path / 'cache'}", "precision=32-true", "threads=1"]
    command = [
        str(file),
        "--out",
        str(tmp_path),
        "--scenes",
        "4",
        "--steps",
        "2",
        "--width",
        "320",
    ]
    command += ["--test-scenes", "1"]
    for setting in small:
        command += ["--set", setting]
    assert main(command) == 0
    report = json.loads((tmp_path / "mine.onboard.json").read_text())
    (scored,) = report["scores"]["lenses"].values()
    assert scored["overall"]["rmse"] > 0
    assert report["scores"]["data"]["first_seed"] == TEST_SEED
    # The lens's spread, with the point-spread function of the evaluation.
    spread = scored["px_per_dioptre"] * OPTIONS.spread_per_diameter
    assert spread == pytest.approx(5.0 * MEASURED.sigma_per_diameter)
    values = yaml.safe_load((tmp_path / "mine.params.yaml").read_text())["/**"]["ros__parameters"]
    parameters = NodeParameters(**values)
    assert (parameters.warm_up_width, parameters.warm_up_height) == (320, 240)
    with open_backend(parameters.model_path, "onnxruntime", threads=1) as backend:
        assert backend.self_test()["checked"]
        backend.set_lens(MEASURED.lens_for(320, 240))
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "ddfd-calibrate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data", "nyuv2", "--root", "nowhere"], "nowhere"),
        (["--data", "folder", "--root", "mine"], "expected all, or a list of frames test.txt"),
        (["--pairs", "nowhere"], "nowhere"),
        (["--pairs", "mine"], "--pairs: expected rgb/ and sharp/ in mine, got no sharp/"),
        (["--natural", "nowhere"], "nowhere"),
        (["--init", "no-such-model"], "--init: expected a model file or one of the shipped"),
        (["--pairs", "mine", "--scenes", "5"], "--scenes: expected none with --pairs"),
        (["--data", "nyuv2", "--scenes", "5"], "--scenes: expected none with --data nyuv2"),
        (["--root", "mine"], "--root: expected none with rendered rooms"),
        (["--steps", "0"], "--steps: expected 1 or more, got 0"),
        (["--scenes", "3"], "--scenes: expected 4 or more, got 3"),
        (["--width", "-640"], "--width: expected 0 or more"),
        (["--range", "5", "1"], "--range: expected metres"),
        (["--set", "stepz=3"], "unknown setting stepz"),
        (["--set", "data.crop_px=many"], "data.crop_px: expected int"),
    ],
)
def test_what_is_missing_is_said_before_the_training(tmp_path, capsys, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    for name in ("rgb", "depth"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        cv2.imwrite(f"mine/{name}/0.png", np.full((8, 8), 2000, np.uint16))
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(MEASURED.to_dict()))
    assert main(["lens.yaml", *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "onboard").exists()


def test_weights_to_start_from_go_by_the_name_of_a_shipped_model(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(onboard_cli, "_call", lambda command, *words: started.append(words))
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(MEASURED.to_dict()))
    words = [str(tmp_path / "lens.yaml"), "--out", str(tmp_path / "out")]
    assert main([*words, "--init", "ddfd-lite-any"]) == 2  # nothing was trained
    values = yaml.safe_load((tmp_path / "out" / "mine.yaml").read_text())
    assert values["init"].endswith("ddfd-lite-any.pt")
    assert values["sigma_0_px"] > 0
