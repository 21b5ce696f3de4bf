"""Evaluation over lenses, against models whose behaviour is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
import yaml

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.sharpness import missing_px, sigma_at_scale
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model import build_network
from ddfd_ros.model.checkpoint import save_checkpoint
from ddfd_training.datasets.rgbd_folder import RgbdFolder
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.datasets.synthetic_scenes import TEST_SEED
from ddfd_training.evaluate_arguments import build_parser
from ddfd_training.evaluate_cli import _blurred_by, _missing_sharpness
from ddfd_training.evaluate_cli import main as evaluate_main
from ddfd_training.evaluate_data import DataOptions, EvaluationSet, open_evaluation_set
from ddfd_training.evaluate_items import Item, Rendered
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.scores import by_blur, by_distance, overall, swapped
from ddfd_training.lens_scores.shots import STRESS, Pixels, texture
from ddfd_training.lens_scores_cli import main
from ddfd_training.resized_model import Resized, Softened
from ddfd_training.synthetic import SyntheticScene
from ddfd_trt.export_onnx import export_onnx

LENS = lens_of(12.0, 2.0)
RANDOM = np.random.default_rng(4)
TRUTH = RANDOM.uniform(0.7, 6.0, 20000).astype(np.float32)


@lru_cache
def rendered(seed, height, width):
    """A room's picture and depth: several tests show the same ones."""
    return SyntheticScene(seed).render(0.0, height, width)


def pixels(depth_m, sigma_m=None):
    if sigma_m is None:
        sigma_m = np.full_like(TRUTH, np.nan)
    return Pixels(depth_m.astype(np.float32), sigma_m, TRUTH, np.full_like(TRUTH, 20.0))


def test_half_a_pixel_of_blur_error_meets_the_physical_limit():
    blur = LENS.signed_coc_px(TRUTH.astype(np.float64))
    off = 0.5 * np.sign(RANDOM.standard_normal(TRUTH.shape))
    depth_m = LENS.depth_m(blur + off)
    near = [row for row in by_distance(pixels(depth_m), LENS) if row["to_m"] <= 2.5]
    assert [row["from_m"] for row in near] == [0.5, 1.0, 1.5, 2.0]
    for row in near:
        assert row["median_abs_m"] == pytest.approx(row["limit_m"], rel=0.12)
    assert sum(row["share"] for row in by_distance(pixels(depth_m), LENS)) > 0.99


def test_the_side_of_the_focus_is_counted_by_blur():
    # Everything answered as if it were beyond the focus.
    depth_m = LENS.depth_m(np.abs(LENS.signed_coc_px(TRUTH.astype(np.float64))) * 0.9)
    depth_m = np.where(np.isfinite(depth_m), depth_m, 50.0)
    for row in by_blur(pixels(depth_m), LENS):
        blur = LENS.signed_coc_px(TRUTH)
        here = (np.abs(blur) >= row["from_px"]) & (np.abs(blur) < row["to_px"])
        assert row["sign_right"] == pytest.approx(np.mean(blur[here] > 0))


def test_who_reads_blur_follows_another_lens_and_who_reads_the_picture_does_not():
    other = lens_of(12.0 / 1.25, 2.0)
    blur = other.signed_coc_px(TRUTH.astype(np.float64))
    by_optics = 1 / (1 / 2.0 - blur / 12.0)
    by_optics = np.where(by_optics > 0, by_optics, 10.0)
    own = pixels(TRUTH)
    follows = swapped(own, pixels(by_optics), LENS, other, (0.5, 10.0))
    assert follows["off_by"] == pytest.approx(0, abs=1e-3)
    near = TRUTH < 1.5
    some = [Pixels(p.depth_m[near], p.sigma_m[near], p.truth_m[near], p.texture[near])
            for p in (own, pixels(by_optics), own)]  # fmt: skip
    assert swapped(some[0], some[1], LENS, other, (0.5, 10.0))["followed"] == pytest.approx(1)
    assert swapped(some[0], some[2], LENS, other, (0.5, 10.0))["followed"] == pytest.approx(0)


def test_coverage_of_laplace_errors_is_what_is_said():
    sigma = np.full_like(TRUTH, 0.2)
    depth_m = TRUTH + RANDOM.laplace(0, 0.2 / np.sqrt(2), TRUTH.shape)
    found = overall(pixels(depth_m, sigma))
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.02)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.01)


def test_the_stress_set_does_what_its_names_say():
    rgb, depth_m = rendered(3, 96, 128)
    sample = RgbdSample("room", depth_m, sharp_rgb=rgb)
    found = {name: spoil(sample, LENS, 1).astype(float) for name, spoil in STRESS.items()}
    plain = found["none"]
    assert (found["saturation"] == 255).mean() > (plain == 255).mean()
    differ = np.std(found["noise"] - plain)
    assert 6 < differ < 16  # of 8 read and up to 8 shot
    step = {name: np.abs(np.diff(image, axis=1)).mean() for name, image in found.items()}
    assert step["motion blur"] < 0.8 * step["none"] < 0.8 * step["noise"]
    assert step["no texture"] < step["none"]


@pytest.fixture(scope="module")
def any_lens_model(tmp_path_factory):
    """An untrained network for any lens, exported."""
    folder = tmp_path_factory.mktemp("any")
    torch.manual_seed(0)
    options = {
        "lens": "nyu-8m", "lens_input": True, "heads": "depth",
        "widths": [8, 8, 8, 8, 8], "depths": [1, 1, 1, 1, 1],
    }  # fmt: skip
    network = build_network("ddfd-lite", **options)
    contract = ModelContract(
        FORMAT_VERSION, "ddfd-lite", {}, 0, None, None, 32, ("depth_m", "sigma_m"), 0.5, 10.0,
        LENS_PRESETS["nyu-8m"], {}, {}, "", inputs=("image", "lens"),
        lens_range={"px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)},
        sigma_0_px=0.7,
    )  # fmt: skip
    save_checkpoint(folder / "any.pt", network, "ddfd-lite", options, contract)
    export_onnx(folder / "any.pt", folder / "any.onnx")
    return folder / "any.onnx"


def test_evaluation_tells_the_model_the_lens_of_the_pictures(any_lens_model, tmp_path, capsys):
    sigmas = []
    for strength in (5.0, 20.0):
        words = ["--onnx", str(any_lens_model), "--runtime", "onnxruntime", "--threads", "1"]
        words += ["--data", "folder", "--root", str(tmp_path / "scene"), "--split", "all"]
        rgb, depth_m = rendered(0, 64, 96)
        for name, image in (("rgb", rgb[..., ::-1]), ("depth", (depth_m * 1000).astype("uint16"))):
            (tmp_path / "scene" / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "scene" / name / "a.png"), image)
        lens = lens_of(strength, 2.0)
        given = [lens.focal_length_m, lens.f_number, lens.focus_distance_m, lens.pixel_pitch_m]
        report = tmp_path / "report.json"
        words += ["--no-edges", "--json", str(report), "--lens", ",".join(map(str, given))]
        words += ["--rgb-is", "defocused"]
        assert evaluate_main(words) == 0, capsys.readouterr().err
        found = json.loads(report.read_text())
        assert found["model"]["told_lens"]["f_number"] == pytest.approx(lens.f_number)
        sigmas.append(found["result"]["sigma"]["mean_over_images"]["mean_sigma_m"])
    # The same doubt in pixels is more in metres through a lens a quarter as strong.
    assert sigmas[0] > 1.2 * sigmas[1]
    assert evaluate_main(words[: words.index("--lens")] + ["--rgb-is", "defocused"]) == 2
    assert "expected the lens of these photographs" in capsys.readouterr().err


def _told(model, tmp_path, capsys, *words):
    """Evaluate a sharp scene of 96 pixels' width; the report, after what the model was told."""
    rgb, depth_m = rendered(0, 64, 96)
    for name, image in (("rgb", rgb[..., ::-1]), ("depth", (depth_m * 1000).astype("uint16"))):
        (tmp_path / "scene" / name).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "scene" / name / "a.png"), image)
    report = tmp_path / "report.json"
    common = ["--onnx", str(model), "--runtime", "onnxruntime", "--threads", "1", "--no-edges"]
    common += ["--data", "folder", "--root", str(tmp_path / "scene"), "--split", "all"]
    common += ["--cache", str(tmp_path / "cache"), "--json", str(report)]
    assert evaluate_main([*common, *words]) == 0, capsys.readouterr().err
    found = json.loads(report.read_text())
    return LensConfig(**found["model"]["told_lens"]), found


def test_evaluation_tells_the_lens_of_what_the_network_sees(any_lens_model, tmp_path, capsys):
    own = LENS_PRESETS["nyu-8m"]
    given = ("--lens", "nyu-8m", "--size", "32", "48")
    told, report = _told(any_lens_model, tmp_path, capsys, *given)
    # The images of 96 pixels went through the lens, and were made half as wide.
    assert told.px_per_dioptre == pytest.approx(own.px_per_dioptre / 2)
    assert report["result"]["depth"]["pixels"] == 64 * 96
    # The model's own lens is that of the images it knows: they are that small before the lens.
    told, report = _told(any_lens_model, tmp_path, capsys, "--size", "32", "48")
    assert told.px_per_dioptre == pytest.approx(own.px_per_dioptre)
    assert report["result"]["depth"]["pixels"] == 32 * 48
    assert report["data"]["size"] == [32, 48]


def test_evaluation_refuses_to_tell_a_lens_of_sharp_images(any_lens_model, tmp_path, capsys):
    for lens in ((), ("--lens", "nyu-8m")):
        with pytest.raises(AssertionError, match="--input: expected auto with a model that is"):
            _told(any_lens_model, tmp_path, capsys, "--input", "sharp", *lens)


def test_evaluation_opens_a_set_once_and_prepares_each_image_once(
    any_lens_model, tmp_path, capsys, monkeypatch
):
    """Also where a calibration needs the size of its frames, and ``--size`` that of its images."""
    opened, read = [], []
    listed, prepared = RgbdFolder._pair, Rendered.read

    def pair(self):
        opened.append(self.root)
        return listed(self)

    def prepare(self, index):
        read.append(index)
        return prepared(self, index)

    monkeypatch.setattr(RgbdFolder, "_pair", pair)
    monkeypatch.setattr(Rendered, "read", prepare)
    file = tmp_path / "lens.yaml"
    measured = LensCalibration(lens_of(10.0, 2.0), 96, 64, True, sigma_0_px=0.6)
    file.write_text(yaml.safe_dump(measured.to_dict()))
    words = ("--lens", str(file), "--soften", str(file), "--size", "32", "48")
    told, _ = _told(any_lens_model, tmp_path, capsys, *words)
    assert told.px_per_dioptre == pytest.approx(5.0)
    assert len(opened) == 1
    assert read == [0]


@pytest.mark.parametrize("lens", [(), ("--lens", "nyu-8m")])
def test_images_are_softened_for_the_size_at_which_the_network_sees_them(
    any_lens_model, tmp_path, capsys, lens
):
    """Made half as wide before the lens or after it, a camera's spread is half as wide."""
    file = tmp_path / "lens.yaml"
    measured = LensCalibration(lens_of(10.0, 2.0), 96, 64, True, sigma_0_px=0.6)
    file.write_text(yaml.safe_dump(measured.to_dict()))
    words = ("--size", "32", "48", "--soften", str(file))
    _, report = _told(any_lens_model, tmp_path, capsys, *words, *lens)
    expected_px = missing_px(0.7, sigma_at_scale(0.6, 0.5))
    assert report["softened_px"] == pytest.approx(expected_px)
    assert "not softened" not in capsys.readouterr().out
    file.write_text(yaml.safe_dump(replace(measured, sigma_0_px=0.0).to_dict()))
    _, report = _told(any_lens_model, tmp_path, capsys, *words, *lens)
    assert "softened_px" not in report
    assert "images are not softened" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "spread"),
    [((), 0.25), (("--kernel", "gaussian"), 0.3), (("--preset", "d3net-code"), 0.3)],
)
def test_evaluation_tells_how_far_the_renderer_spreads(
    any_lens_model, tmp_path, capsys, words, spread
):
    told, _ = _told(any_lens_model, tmp_path, capsys, "--lens", "nyu-8m", *words)
    own = LENS_PRESETS["nyu-8m"]
    assert told.px_per_dioptre == pytest.approx(own.px_per_dioptre * spread / 0.25)
    items = [Item("a", np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)), lens=own)]
    items += [replace(items[0], lens=None)]
    assert [item.lens for item in _blurred_by(items, told)] == [told, None]


def test_blur_of_a_smaller_image_is_answered_in_the_image_s_own_pixels():
    class Tells:
        """Answers the blur of the images it is shown, which are a third as wide."""

        def infer(self, image, heads=None):
            flat = np.full(image.shape[:2], 2.0, np.float32)
            return {"defocus_px": flat, "depth_m": flat}

    answer = Resized(Tells(), (10, 20)).infer(np.zeros((30, 60, 3), np.uint8))
    assert answer["defocus_px"].shape == (30, 60)
    np.testing.assert_allclose(answer["defocus_px"], 6.0)
    np.testing.assert_allclose(answer["depth_m"], 2.0)


def test_16_bit_scenes_are_measured_on_as_8_bit_ones():
    rgb, depth_m = rendered(3, 48, 64)
    shallow = RgbdSample("room", depth_m, sharp_rgb=rgb)
    deep = replace(shallow, sharp_rgb=rgb.astype(np.uint16) * 257)
    for spoil in STRESS.values():
        np.testing.assert_array_equal(spoil(deep, LENS, 1), spoil(shallow, LENS, 1))
    np.testing.assert_allclose(texture(deep), texture(shallow))


def test_the_command_on_an_exported_model(any_lens_model, tmp_path, capsys):
    path = tmp_path / "report.json"
    command = [str(any_lens_model), "--limit", "2", "--size", "64", "96"]
    lenses = ["--lens", "6,3", "--lens", "12,2", "--runtime", "onnxruntime"]
    assert main([*command, *lenses, "--threads", "1", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert set(report["lenses"]) == {"A 6, 3 m", "A 12, 2 m"}
    assert set(report["stress"]) == set(STRESS)
    assert len(report["wrong"]) == 6
    assert len(report["swap"]) == 2
    assert report["data"]["first_seed"] == TEST_SEED  # no room that anything was trained on
    assert "limit" in capsys.readouterr().out
    assert main([*command, "--lens", "100,2"]) == 2
    assert "for which the model was trained" in capsys.readouterr().err


def test_a_softened_picture_keeps_its_detail_in_the_sharp_answer():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = []

    class Echo:
        """Answers what it is shown."""

        def infer(self, seen, heads=None):
            shown.append(seen)
            return {"sharp_rgb": seen, "depth_m": np.ones(seen.shape[:2], np.float32)}

    answer = Softened(Echo(), 0.6).infer(image)
    assert shown[0].astype(float).std() < 0.9 * image.astype(float).std()
    np.testing.assert_array_equal(answer["sharp_rgb"], image)
    assert answer["depth_m"].shape == (32, 32)


def test_images_are_softened_as_the_calibration_says(tmp_path):
    lens = lens_of(10.0, 2.0)
    file = tmp_path / "lens.yaml"
    file.write_text(
        yaml.safe_dump(LensCalibration(lens, 640, 480, True, sigma_0_px=0.4).to_dict())
    )
    parser = build_parser("")
    words = ["--onnx", "m.onnx", "--soften"]
    contract = ModelContract(
        1, "n", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, lens, {}, {}, "", sigma_0_px=0.7
    )

    recording = tmp_path / "rgbd"
    for folder in ("rgb", "depth"):
        (recording / folder).mkdir(parents=True)
    frame, depth_mm = np.zeros((240, 320, 3), np.uint8), np.full((240, 320), 1000, np.uint16)
    cv2.imwrite(str(recording / "rgb" / "a.png"), frame)
    cv2.imwrite(str(recording / "depth" / "a.png"), depth_mm)

    def items() -> EvaluationSet:
        cache = str(tmp_path / "cache")
        return open_evaluation_set(DataOptions("folder", str(recording), cache=cache))

    camera = parser.parse_args([*words, str(file)]).soften
    expected_px = missing_px(0.7, sigma_at_scale(0.4, 0.5))
    assert _missing_sharpness(camera, contract, items(), 1.0) == pytest.approx(expected_px)
    assert _missing_sharpness(camera, contract, items(), 2.0) == pytest.approx(
        missing_px(0.7, 0.4)
    )
    # Images that were cut have the whole frames' pixels.
    report = {"registered": True, "frame_px": [480, 640]}
    (recording / "registration.json").write_text(json.dumps(report))
    assert _missing_sharpness(camera, contract, items(), 1.0) == pytest.approx(
        missing_px(0.7, 0.4)
    )
    unknown = replace(contract, sigma_0_px=0.0)
    assert _missing_sharpness(camera, unknown, items(), 1.0) == 0.0
    assert _missing_sharpness(0.6, unknown, items(), 1.0) == 0.6
    (recording / "registration.json").write_text(json.dumps(report | {"frame_px": [480, 480]}))
    with pytest.raises(LensCalibrationError, match="shape 640x480, got 480x480"):
        _missing_sharpness(camera, contract, items(), 1.0)
    for wrong in ("soft", "-1", str(tmp_path / "none.yaml")):
        with pytest.raises(SystemExit):
            parser.parse_args([*words, wrong])
