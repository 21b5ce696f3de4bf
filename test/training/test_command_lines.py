"""``ddfd-defocus`` and ``ddfd-evaluate`` from the command line to the files they write."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import save_checkpoint
from ddfd_training import defocus_cli, evaluate_cli
from ddfd_training.calibration.report import write_record
from ddfd_training.datasets import RgbdFolder
from ddfd_training.lens_argument import parse_lens
from ddfd_training.synthetic import SyntheticScene

HEIGHT, WIDTH = 96, 128
# Not a preset: five pixels of blur at 1 m, sharp at 8 m.
LENS = "0.015,2.8,8,1.4e-5"


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two synthetic frames as an RGB-D folder; the first depth map has a gap."""
    root = tmp_path_factory.mktemp("recording")
    for kind in ("rgb", "depth"):
        (root / kind).mkdir()
    scene = SyntheticScene(4)
    for index in range(2):
        rgb, depth_m = scene.render(index, HEIGHT, WIDTH)
        millimetres = np.rint(depth_m * 1000).astype(np.uint16)
        if index == 0:
            millimetres[10:20, 30:50] = 0
        assert cv2.imwrite(str(root / "rgb" / f"{index:03d}.png"), rgb[..., ::-1])
        assert cv2.imwrite(str(root / "depth" / f"{index:03d}.png"), millimetres)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained network: its answers are poor, but they are answers."""
    torch.manual_seed(0)
    lens = LENS_PRESETS["nyu-8m"]
    network = build_network("ddfd-lite", lens=lens, depth_range_m=(0.5, 10.0))
    contract = ModelContract(
        format_version=FORMAT_VERSION,
        network="ddfd-lite",
        network_options={},
        parameter_count=sum(p.numel() for p in network.parameters()),
        input_height=None,
        input_width=None,
        size_multiple=32,
        outputs=("depth_m", "sigma_m", "sharp_rgb"),
        depth_min_m=0.5,
        depth_max_m=10.0,
        lens=lens,
        training={},
        metrics={},
        weights_sha256="",
    )
    path = tmp_path_factory.mktemp("model") / "lite.pt"
    options = {"lens": lens, "depth_range_m": [0.5, 10.0]}
    save_checkpoint(path, network, "ddfd-lite", options, contract)
    return path


def test_defocus_of_a_folder_can_be_evaluated(recording: Path, tmp_path: Path):
    out = tmp_path / "blurred"
    assert defocus_cli.main([str(recording), "--lens", LENS, "--out", str(out)]) == 0
    blurred = RgbdFolder(out)
    assert len(blurred) == 2
    assert blurred.rgb_is == "defocused"
    assert blurred.registered  # exact pairs, which a measured shift would only spoil
    original = RgbdFolder(recording)
    for before, after in zip(original, blurred, strict=True):
        assert np.array_equal(before.sharp_rgb, after.sharp_rgb)
        assert np.array_equal(np.isnan(before.depth_m), np.isnan(after.depth_m))
        assert np.nanmax(np.abs(before.depth_m - after.depth_m)) < 6e-4
        detail = [
            cv2.Laplacian(i, cv2.CV_64F).var() for i in (after.defocused_rgb, after.sharp_rgb)
        ]
        assert detail[0] < 0.75 * detail[1]
        assert np.mean(after.defocused_rgb) == pytest.approx(np.mean(after.sharp_rgb), rel=0.02)
    assert json.loads((out / "lens.json").read_text())["lens"]["focus_distance_m"] == 8.0


def test_defocus_of_a_folder_that_was_cut_keeps_the_size_of_its_frames(recording, tmp_path):
    """A calibration is for the camera's whole frames, also when the pictures are used again."""
    report = {"registered": True, "frame_px": [2 * HEIGHT, 2 * WIDTH]}
    part = shutil.copytree(recording, tmp_path / "part")
    (part / "registration.json").write_text(json.dumps(report))
    out = tmp_path / "blurred"
    assert defocus_cli.main([str(part), "--lens", LENS, "--out", str(out)]) == 0
    assert RgbdFolder(out).frame_size() == (2 * HEIGHT, 2 * WIDTH)
    assert RgbdFolder(out).registered


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ((), 0.25),
        (("--kernel", "gaussian", "--sigma-ratio", "0.5"), 0.5),
        (("--preset", "d3net-code"), 0.3),
    ],
)
def test_a_folder_tells_how_far_the_lens_that_made_it_spreads(recording, tmp_path, words, spread):
    """As evaluation tells it: a Gaussian of half the diameter looks like disks twice as wide."""
    command = [str(recording), "--lens", LENS, "--limit", "1", "--out", str(tmp_path / "out")]
    assert defocus_cli.main([*command, *words]) == 0
    told = RgbdFolder(tmp_path / "out")[0].lens
    assert told.px_per_dioptre == pytest.approx(parse_lens(LENS).px_per_dioptre * spread / 0.25)


def test_what_is_defocused_already_is_not_blurred_again(recording: Path, tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    for source, out in ((recording, first), (first, second)):
        command = [str(source), "--lens", LENS, "--limit", "1", "--out", str(out)]
        assert defocus_cli.main(command) == 0
    once, twice = RgbdFolder(first)[0], RgbdFolder(second)[0]
    assert np.array_equal(once.sharp_rgb, twice.sharp_rgb)
    assert np.abs(once.defocused_rgb.astype(int) - twice.defocused_rgb).mean() < 0.5


def test_frames_of_another_run_do_not_get_this_ones_lens(recording: Path, tmp_path: Path, capsys):
    command = [str(recording), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the same command again is no other run
        assert defocus_cli.main([*command, "--lens", LENS]) == 0
    before = (tmp_path / "out" / "lens.json").read_text()
    capsys.readouterr()
    assert defocus_cli.main([*command, "--lens", "nyu-2m", "--limit", "1"]) == 2
    assert "001.png; give another folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "lens.json").read_text() == before


def test_depth_too_far_for_the_file_is_written_as_unknown(tmp_path: Path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    for kind in ("rgb", "depth"):
        (root / kind).mkdir(parents=True)
    assert cv2.imwrite(str(root / "rgb" / "a.png"), np.full((40, 50, 3), 90, np.uint8))
    depth_m = np.full((40, 50), 3.0, np.float32)
    depth_m[:5] = 65.536
    np.save(root / "depth" / "a.npy", depth_m)
    assert defocus_cli.main([str(root), "--lens", LENS, "--out", str(out)]) == 0
    written_m = RgbdFolder(out)[0].depth_m
    assert np.isnan(written_m[:5]).all()
    assert written_m[5:] == pytest.approx(3.0)
    assert "250 pixels are farther than 65.535 m" in capsys.readouterr().out


def test_defocus_does_not_overwrite_its_input(recording: Path, tmp_path: Path, capsys):
    for name in ("rgb", "depth"):
        original = (recording / name / "000.png").read_bytes()
        (tmp_path / f"{name}.png").write_bytes(original)
    command = [str(tmp_path / "rgb.png"), "--depth", str(tmp_path / "depth.png"), "--lens", LENS]
    for out in (tmp_path, tmp_path / "rgb.png", tmp_path / "depth.png"):
        assert defocus_cli.main([*command, "--out", str(out)]) == 2
        assert "another file than the input" in capsys.readouterr().err


def test_defocus_of_one_image_leaves_what_is_in_focus(recording: Path, tmp_path: Path, capsys):
    depth = np.full((HEIGHT, WIDTH), 8.0)
    depth[:, : WIDTH // 2] = 1.0
    np.save(tmp_path / "depth.npy", depth)
    image, out = recording / "rgb" / "000.png", tmp_path / "out.png"
    arguments = [str(image), "--depth", str(tmp_path / "depth.npy"), "--lens", LENS]
    assert defocus_cli.main([*arguments, "--out", str(out)]) == 0
    before, after = cv2.imread(str(image)), cv2.imread(str(out))
    far = np.s_[:, WIDTH // 2 + 16 :]
    assert np.array_equal(before[far], after[far])
    assert np.abs(before[:, :48].astype(int) - after[:, :48]).mean() > 2
    assert "1.00 to 8.00 m" in capsys.readouterr().out.replace("\n", " ")


def test_defocus_explains_what_is_missing(recording: Path, tmp_path: Path, capsys):
    image, lens = str(recording / "rgb" / "000.png"), ["--lens", "nyu-8m"]
    for arguments, message in (
        ([image, *lens, "--out", "x.png"], "--depth FILE"),
        (["nothing.png", "--depth", "d.png", *lens, "--out", "x.png"], "nothing.png"),
        ([str(recording), *lens, "--out", str(recording)], "another folder"),
        ([str(tmp_path), *lens, "--out", "x"], "colour images"),
    ):
        assert defocus_cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    np.save(tmp_path / "small.npy", np.ones((4, 5)))
    wrong = [image, "--depth", str(tmp_path / "small.npy"), *lens, "--out", "x.png"]
    assert defocus_cli.main(wrong) == 2
    assert "one size" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        defocus_cli.main([str(recording), *lens, "--limit", "-1", "--out", "x"])
    assert "a number of frames" in capsys.readouterr().err


def test_defocus_refuses_what_it_would_ignore(recording: Path, tmp_path: Path, capsys):
    folder = [str(recording), "--lens", LENS, "--out", str(tmp_path / "out")]
    image = [str(recording / "rgb" / "000.png"), *folder[1:], "--depth", "d.png"]
    for arguments, message in (
        ([*folder, "--depth", "d.png"], "--depth: expected none with a folder"),
        ([*image, "--limit", "3"], "--limit: expected none with one image, got 3"),
        ([*folder, "--preset", "quick", "--kernel", "disk"], "--kernel: expected none with --pre"),
        ([*folder, "--preset", "quick", "--sigma-ratio", "0.4"], "--sigma-ratio: expected none"),
        ([*folder, "--sigma-ratio", "0.4"], "--kernel disk, which has no Gaussian, got 0.4"),
        ([*folder, "--kernel", "gaussian", "--gaussian-share", "0.4"], "which is no blend"),
    ):
        assert defocus_cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_calibration_blurs_a_smaller_picture_by_less(tmp_path: Path, capsys):
    measured = LensCalibration(LENS_PRESETS["nyu-8m"], 128, 96)
    lens = ["--lens", str(write_record(measured, tmp_path / "lens.yaml"))]
    picture, depth = tmp_path / "a.png", tmp_path / "a.npy"
    for height, width in ((96, 128), (48, 64), (48, 48)):
        cv2.imwrite(str(picture), np.full((height, width, 3), 128, np.uint8))
        np.save(depth, np.ones((height, width)))
        given = [str(picture), "--depth", str(depth), "--out", str(tmp_path / "b.png")]
        assert defocus_cli.main([*given, *lens]) == (2 if width == 48 else 0)
    said = capsys.readouterr()
    full_px = float(measured.lens.coc_px(1.0))
    for blur_px in (full_px, full_px / 2):
        assert f"blur of {blur_px:.1f} px" in said.out
    assert "images of the shape 128x96, got 48x48" in said.err
    # A part of a frame has the frame's pixels.
    (tmp_path / "rgb").mkdir()
    picture.rename(tmp_path / "rgb" / "a.png")
    report = {"registered": True, "frame_px": [96, 128]}
    (tmp_path / "registration.json").write_text(json.dumps(report))
    given[0] = str(tmp_path / "rgb" / "a.png")
    assert defocus_cli.main([*given, *lens]) == 0
    assert f"blur of {full_px:.1f} px" in capsys.readouterr().out


def test_lenses_by_name_and_by_numbers():
    assert parse_lens("nyu-8m") == LENS_PRESETS["nyu-8m"]
    assert parse_lens("0.015,2.8,8,5.6e-6") == LENS_PRESETS["nyu-8m"]
    for text in ("canon", "1,2,3", "0.015,2.8,0.001,5.6e-6", "a,b,c,d"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_lens(text)


def finite_everywhere(value) -> bool:
    if isinstance(value, dict):
        return all(finite_everywhere(entry) for entry in value.values())
    if isinstance(value, list):
        return all(finite_everywhere(entry) for entry in value)
    return not isinstance(value, float) or math.isfinite(value)


def test_evaluate_a_checkpoint_on_a_folder(recording, checkpoint, tmp_path, capsys):
    target = tmp_path / "report.json"
    status = evaluate_cli.main(
        ["--checkpoint", str(checkpoint), "--data", "folder", "--root", str(recording)]
        + ["--lens", LENS, "--cache", str(tmp_path / "cache"), "--json", str(target)]
    )
    printed = capsys.readouterr().out
    assert status == 0
    report = json.loads(target.read_text())
    assert report["model"]["runtime"] == "torch"
    assert report["model"]["sha256"]
    assert report["machine"]["cores"] >= 1
    assert report["data"]["lens"]["pixel_pitch_m"] == 1.4e-5
    result = report["result"]
    assert result["images"] == 2
    assert result["depth"]["pixels"] == 2 * HEIGHT * WIDTH - 200
    assert 0 < result["depth"]["mean_over_images"]["rmse"] < 10
    assert result["all_in_focus"]["input"]["psnr"] > 10
    assert 0 <= result["sigma"]["over_pixels"]["coverage_68"] <= 1
    assert finite_everywhere(report)
    for word in ("rmse", "gain", "coverage_68", "trained for"):
        assert word in printed


def test_evaluate_takes_a_calibration_at_the_size_of_the_frames(
    recording, checkpoint, tmp_path, capsys
):
    target, file = tmp_path / "report.json", tmp_path / "lens.yaml"
    words = ["--checkpoint", str(checkpoint), "--data", "folder", "--root", str(recording)]
    words += ["--lens", str(file), "--cache", str(tmp_path / "cache"), "--json", str(target)]
    measured = LensCalibration(LENS_PRESETS["nyu-8m"], 2 * WIDTH, 2 * HEIGHT)
    write_record(measured, file)
    assert evaluate_cli.main([*words, "--no-edges", "--limit", "1"]) == 0
    report = json.loads(target.read_text())
    assert report["data"]["lens"]["pixel_pitch_m"] == 2 * measured.lens.pixel_pitch_m
    write_record(LensCalibration(measured.lens, WIDTH, WIDTH), file)
    assert evaluate_cli.main(words) == 2
    assert f"shape {WIDTH}x{WIDTH}, got {WIDTH}x{HEIGHT}" in capsys.readouterr().err


@lru_cache
def rendered(seed: int, height: int, width: int):
    """A room's picture and depth: furnishing one takes longer than most of what is tested."""
    return SyntheticScene(seed).render(0.0, height, width)


def write_dslr(root: Path) -> None:
    """Two views in the authors' layout: N 8 sharp and two pixels aside, N 2.8 blurred."""
    for split, first in (("train", 0), ("test", 5)):
        for index in range(2):
            rgb, depth_m = rendered(first + index, 160, 224)
            images = {"N2_8": cv2.GaussianBlur(rgb, (0, 0), 1.2), "N8": np.roll(rgb, 2, axis=1)}
            millimetres = np.rint(depth_m * 1000).astype(np.uint16)
            for aperture, image in images.items():
                base = root / f"dfd_dataset_indoor_{aperture}"
                for kind, suffix, pixels in (
                    ("rgb", "JPG", image[..., ::-1]),
                    ("depth", "png", millimetres),
                ):
                    folder = base / kind / split
                    folder.mkdir(parents=True, exist_ok=True)
                    ok, data = cv2.imencode(f".{suffix.lower()}", pixels)
                    assert ok
                    name = f"2018-04-26T10:0{index}:00.{'1' if kind == 'rgb' else '4'}00000"
                    (folder / f"{name}.{suffix}").write_bytes(data)


def test_evaluate_on_natural_pairs_with_the_baseline(checkpoint, tmp_path, capsys):
    write_dslr(tmp_path / "dfd_dslr")
    target = tmp_path / "report.json"
    status = evaluate_cli.main(
        ["--checkpoint", str(checkpoint), "--data", "dfd_dslr", "--baseline", "--no-edges"]
        + ["--root", str(tmp_path / "dfd_dslr"), "--json", str(target)]
    )
    assert status == 0
    report = json.loads(target.read_text())
    assert report["data"]["aperture"] == "N2_8"
    assert report["data"]["pair"] == "order"
    assert report["data"]["exposure_match"] == "global"
    result = report["result"]
    assert result["depth"]["pixels"] == 2 * 160 * 224
    assert result["depth_within_sensor_range"]["up_to_m"] == 3.5
    assert result["preparation"]["registered"] == 1.0
    assert result["preparation"]["residual_px"] < 0.3
    # The pair is laid over each other: two pixels aside, such a texture gives less than 20 dB.
    assert result["all_in_focus"]["input"]["psnr"] > 22
    scenes = [rendered(seed, 160, 224)[1] for seed in (0, 1)]
    baseline = report["baseline"]
    assert baseline["depth_m"] == pytest.approx(np.mean(scenes), abs=1e-3)
    truth = np.stack([rendered(seed, 160, 224)[1] for seed in (5, 6)])
    rms = np.sqrt(np.mean((truth - baseline["depth_m"]) ** 2))
    assert baseline["depth"]["over_pixels"]["rmse"] == pytest.approx(rms, rel=1e-3)
    assert "always answering" in capsys.readouterr().out


def write_recipe(folder: Path, checkpoint: Path) -> list[str]:
    """A recipe with its weights and its test, on NYUv2's layout; the arguments that name it."""
    root = folder / "nyuv2"
    for kind in ("rgb", "depth"):
        (root / kind).mkdir(parents=True)
    rgb, depth_m = rendered(3, 480, 640)
    assert cv2.imwrite(str(root / "rgb/0000.jpg"), rgb[..., ::-1])
    assert cv2.imwrite(str(root / "depth/0000.png"), (depth_m * 25).astype(np.uint8))
    (root / "test.txt").write_text("0000")
    (folder / "runs/r").mkdir(parents=True)
    (folder / "runs/r/r.pt").write_bytes(checkpoint.read_bytes())
    recipe = folder / "r.yaml"
    recipe.write_text(
        f"name: r\nevaluate: {{data: nyuv2, root: {root}, size: [96, 128], preset: d3net, "
        "paper: [d3net/8m]}\n"
    )
    return ["--config", str(recipe), "--runs", str(folder / "runs"), "--no-edges"]


def test_a_recipes_test_is_reported_as_it_was(checkpoint, tmp_path):
    recipe = write_recipe(tmp_path, checkpoint)
    target = tmp_path / "report.json"
    recipe += ["--cache", str(tmp_path / "cache"), "--json", str(target)]
    assert evaluate_cli.main(recipe) == 0
    report = json.loads(target.read_text())
    assert report["test"] == "nyuv2-8m"
    assert report["network_size"] == report["data"]["size"] == [96, 128]
    assert (report["data"]["split"], report["data"]["preset"]) == ("test", "d3net")
    # The frame's white border is no part of the paper's test.
    assert evaluate_cli.main([*recipe, "--option", "crop=false"]) == 0
    report = json.loads(target.read_text())
    assert "test" not in report
    assert report["data"]["options"] == {"crop": False}


def test_no_other_test_is_filed_as_a_recipes(checkpoint, tmp_path, capsys):
    recipe = write_recipe(tmp_path, checkpoint)
    for more in (
        ["--data", "nyuv2"],
        ["--split", "train"],
        ["--lens", "nyu-2m"],
        ["--kernel", "gaussian"],
        ["--preset", "syndof"],
        ["--size", "96", "128"],
        ["--input", "sharp"],
        ["--aperture", "N8"],
    ):
        assert evaluate_cli.main([*recipe, *more]) == 2
        message = capsys.readouterr().err
        assert f"expected the test of the recipe alone, got also {more[0]};" in message


def test_evaluate_refuses_what_it_would_ignore_or_could_not_write(
    recording, checkpoint, tmp_path, capsys
):
    """Before anything is measured, but a plot of an unknown format, which costs no report."""
    text = ["--data", "folder", "--root", str(recording), "--split", "all"]
    usual = ["--checkpoint", str(checkpoint), *text, "--cache", str(tmp_path)]
    (tmp_path / "file").touch()
    for more, message in (
        (["--runs", "runs"], "--runs: expected --config beside it"),
        (["--lpips-weights", "x.pth"], "--lpips-weights: expected --lpips"),
        (["--deblur-depth", "data"], "--deblur-depth: expected --deblur"),
        (["--preset", "quick", "--kernel", "gaussian"], "--kernel: expected none beside"),
        (["--aperture", "N8"], "--aperture: expected with dfd_dslr, dfd_outdoor only, got N8"),
        (["--exposure", "none"], "--exposure: expected with photographs and their sharp comp"),
        (["--rgb-is", "defocused", "--kernel", "gaussian"], "--kernel: expected with sharp im"),
        (["--rgb-is", "defocused", "--lens", LENS], "--lens: expected with sharp images, which"),
        (["--json", str(tmp_path)], "--json: expected a file"),
        (["--json", str(tmp_path / "file/x.json")], "file"),
        (["--size", "0", "8"], "size: expected"),
        (["--json", str(tmp_path / "kept.json"), "--plot", "x.foo"], "foo"),
    ):
        assert evaluate_cli.main([*usual, *more]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "kept.json").is_file()
    with pytest.raises(SystemExit):  # it took all but the last two
        evaluate_cli.main([*usual, "--limit", "-2"])
    assert "expected a number of frames" in capsys.readouterr().err


def test_evaluate_reports_errors_without_a_traceback(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DDFD_DATA", raising=False)
    model = ["--checkpoint", str(checkpoint)]
    for arguments, message in (
        ([*model, "--data", "nyuv2"], "--root FOLDER"),
        ([*model, "--data", "nyuv2", "--root", str(tmp_path)], "nyuv2"),
        (["--onnx", str(tmp_path / "no.onnx"), "--data", "nyuv2", "--root", "x"], "no.onnx"),
        ([*model, "--data", "nyuv2", "--rgb-is", "sharp"], "--rgb-is: expected with folder, bag"),
    ):
        assert evaluate_cli.main(arguments) == 2
        assert message in capsys.readouterr().err
