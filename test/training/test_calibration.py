"""Calibration against lenses whose truth is known, and its refusals."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy.stats import norm

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_training.calibration import cli, rgbd
from ddfd_training.calibration import measure as measuring
from ddfd_training.calibration.cli import main
from ddfd_training.calibration.detection import estimate_camera, find_circles, find_pose
from ddfd_training.calibration.edge_spread import Profile, linear_light
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.files import read_calibration
from ddfd_training.calibration.fit import own_spreads, straight_line
from ddfd_training.calibration.forward import Matrices, Spread
from ddfd_training.calibration.inputs import BagPictures, read_camera, read_folder
from ddfd_training.calibration.measure import Picture, measure
from ddfd_training.calibration.rendered import View, photograph_target, pinhole, pose_of
from ddfd_training.calibration.report import write_record
from ddfd_training.calibration.rgbd import calibrate_rgbd
from ddfd_training.calibration.solve import Nominal, solve, written_lens
from ddfd_training.calibration.target import Target, print_target
from ddfd_training.calibration.windows import SHAPES, Windows, windows
from ddfd_training.config import stages_of
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.lens_draws import lens_of
from ddfd_training.optics import render_defocus
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.sensor import Sensor
from ddfd_training.synthetic import SyntheticScene

SIZE, FOCAL_PX = (280, 380), 400.0
TARGET = Target.on_paper("a3", 3, 9)
CAMERA = pinhole(FOCAL_PX, *SIZE)
DISK = RenderOptions()
TILTS = ((0, 0), (10, -8), (-12, 4), (6, 12), (-5, -10))


def pictures(lens, nearest_m=0.6, farthest_m=1.5, options=DISK, count=5, sensor=None):
    random = np.random.default_rng(1)
    dioptres = np.linspace(1 / farthest_m, 1 / nearest_m, count)
    return [
        photograph_target(
            View(1 / x, tilt, 3.0), TARGET, CAMERA, SIZE, lens, options,
            sensor or Sensor(1.0, 1.5), random,
        )
        for x, tilt in zip(dioptres, TILTS, strict=False)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def known():
    """Pictures through 9 px per dioptre, focused at 1.1 m, between near and far."""
    return lens_of(9.0, 1.1), pictures(lens_of(9.0, 1.1))


def measured(images, **options):
    taken = [Picture(str(i), image) for i, image in enumerate(images)]
    return measure(taken, TARGET, CAMERA, response="linear", **options)


def test_a_known_lens_comes_back(known):
    lens, images = known
    data = measured(images)
    result = solve(data)
    strength, low, high = result.strength
    focus, near, far = result.focus_dioptre
    assert strength == pytest.approx(9.0, rel=0.02)
    assert focus == pytest.approx(1 / 1.1, abs=0.02)
    assert low <= 9.0 <= high
    assert near <= 1 / 1.1 <= far
    record = result.calibration
    assert record.shape == "disk"
    assert record.sigma_per_diameter == pytest.approx(0.25, abs=0.01)
    assert record.lens.px_per_dioptre == pytest.approx(strength, rel=1e-6)
    assert (record.width, record.height) == SIZE[::-1]
    assert data.distances_m == pytest.approx(np.sort(data.distances_m)[::-1])


def test_a_gaussian_says_k_a_only_and_the_lens_s_own_numbers_the_rest():
    lens = lens_of(8.0, 1.1)
    data = measured(pictures(lens, options=RenderOptions("gaussian", 0.37)))
    bare = solve(data, shape="gaussian")
    assert bare.calibration.source == "assumed"
    k_a = bare.calibration.sigma_per_diameter * bare.strength[0]
    assert k_a == pytest.approx(0.37 * 8.0, rel=0.03)
    nominal = Nominal(lens.focal_length_m, lens.f_number, lens.pixel_pitch_m)
    told = solve(data, shape="gaussian", nominal=nominal)
    assert told.calibration.source == "nominal"
    assert told.strength[0] == pytest.approx(8.0, rel=0.005)
    assert told.calibration.sigma_per_diameter == pytest.approx(0.37, rel=0.03)
    given = solve(data, shape="gaussian", sigma_per_diameter=0.37)
    assert given.strength[0] == pytest.approx(8.0, rel=0.03)


@pytest.mark.parametrize(
    ("strength", "nearest_m", "farthest_m", "words"),
    [
        (0.8, 0.6, 1.5, ["blur", "1 px", "open the aperture"]),
        (9.0, 0.80, 0.83, ["distances", "do not span enough"]),
    ],
)
def test_what_cannot_be_known_is_refused_with_the_reason(strength, nearest_m, farthest_m, words):
    data = measured(pictures(lens_of(strength, 1.1), nearest_m, farthest_m, count=4))
    with pytest.raises(CalibrationError) as caught:
        solve(data)
    for word in words:
        assert word in str(caught.value)


def test_pictures_without_the_target_are_refused():
    grey = np.full((*SIZE, 3), 128, np.uint8)
    with pytest.raises(CalibrationError, match="at least 4 that show the whole target"):
        measured([grey] * 5)


def test_sharp_companions_pin_the_spread_in_focus(known):
    lens, images = known
    sharp = pictures(lens_of(9.0 * 0.1, 1.1))
    taken = [Picture(str(i), a, b) for i, (a, b) in enumerate(zip(images, sharp, strict=True))]
    data = measure(taken, TARGET, CAMERA, response="linear", sharp_share=0.1)
    assert {p.blur_share for p in data.profiles} == {1.0, 0.1}
    result = solve(data)
    assert result.strength[0] == pytest.approx(9.0, rel=0.02)
    assert result.fit.sigma_0_px == pytest.approx(np.sqrt(1 / 12), abs=0.06)  # a pixel's own


def test_pose_and_order_of_the_circles_against_the_truth():
    view = View(0.9, (14.0, -18.0), 7.0)
    lens = lens_of(4.0, 0.9)
    random = np.random.default_rng(0)
    image = photograph_target(view, TARGET, CAMERA, SIZE, lens, RenderOptions(), Sensor(), random)
    turn, shift_m = pose_of(view, TARGET, CAMERA, SIZE[0])
    pose = find_pose(find_circles(image, TARGET), TARGET, CAMERA)
    np.testing.assert_allclose(pose.rotation, turn, atol=0.01)
    np.testing.assert_allclose(pose.translation_m, shift_m, atol=0.004)


@pytest.mark.parametrize("spread", [Spread(0.0), Spread(1.0, 0.3), Spread(0.5, 0.37)])
def test_the_profile_is_that_of_a_disk_blurred_in_two_dimensions(spread):
    # A slow convolution on a fine grid, with a second circle beside.
    step, radius, other, blur, sigma_0 = 0.1, 8.0, 26.0, 5.0, 0.4
    y, x = np.mgrid[-24:24:step, -24:44:step]
    scene = ((np.hypot(x, y) < radius) | (np.hypot(x - other, y) < radius)).astype(np.float64)
    reach = int(12 / step)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1] * step
    r = np.hypot(u, v)
    disk = (r < blur / 2).astype(float)
    gauss = np.exp(-0.5 * (r / (spread.gaussian_sigma * blur)) ** 2)
    kernel = (1 - spread.gaussian_share) * disk / disk.sum()
    kernel += spread.gaussian_share * gauss / gauss.sum()
    image = cv2.filter2D(scene, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    image = cv2.GaussianBlur(image, (0, 0), sigma_0 / step, borderType=cv2.BORDER_CONSTANT)
    away = np.hypot(x, y) - radius
    edges = np.arange(-7, 9, 0.5)
    number = np.digitize(away.ravel(), edges) - 1
    used = (number >= 0) & (number < len(edges) - 1)
    count = np.bincount(number[used], minlength=len(edges) - 1)
    light = np.bincount(number[used], image.ravel()[used]) / count
    edge_px = np.bincount(number[used], away.ravel()[used]) / count
    profile = Profile(0, 1.0, 0.0, radius, np.array([other]), edge_px, light, count)
    fine = Matrices([profile])
    right = fine.residuals(np.array([blur]), np.array([sigma_0]), spread)[0]
    wrong = fine.residuals(np.array([1.05 * blur]), np.array([sigma_0]), spread)[0]
    assert np.abs(right).max() < 0.004
    assert np.sum(wrong**2) > 4 * np.sum(right**2)


@pytest.mark.parametrize("response", ["srgb", "linear"])
def test_light_of_16_bits_is_that_of_8(response):
    image = np.arange(0, 256, dtype=np.uint8)[None]
    np.testing.assert_allclose(
        linear_light(image.astype(np.uint16) * 257, response),
        linear_light(image, response),
        atol=1e-6,
    )


def test_the_straight_line_through_exact_spreads():
    dioptre = np.linspace(0.3, 2.0, 12)
    sigma = np.sqrt(0.3**2 + (3.1 * (dioptre - 0.9)) ** 2)
    slope, focus, base = straight_line(dioptre, sigma, np.ones(12))
    assert (slope, focus, base) == pytest.approx((3.1, 0.9, 0.3), abs=0.05)


def test_the_command_prints_measures_and_writes_what_trainer_and_node_read(
    known, tmp_path, capsys
):
    assert main(["--print", str(tmp_path / "target.pdf"), "--paper", "a3"]) == 0
    assert (tmp_path / "target.pdf").read_bytes().startswith(b"%PDF")
    for number, image in enumerate(known[1]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "intrinsics.txt").write_text(f"{FOCAL_PX} {FOCAL_PX} 189.5 139.5")
    common = [str(tmp_path), "--paper", "a3", "--response", "linear", "--out", str(tmp_path / "o")]
    assert main(common) == 0
    assert "px of blur per dioptre" in capsys.readouterr().out
    assert (tmp_path / "o" / "lens.png").stat().st_size > 5000
    record = read_calibration(tmp_path / "o" / "lens.yaml")
    assert record.lens.px_per_dioptre == pytest.approx(9.0, rel=0.02)
    assert record.details["pictures"] == 5
    config = stages_of({"lens": str(tmp_path / "o" / "lens.yaml")})[-1]
    assert config.lens == record.lens
    values = yaml.safe_load((tmp_path / "o" / "lens.yaml").read_text())
    assert LensCalibration.from_dict(values) == record
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "expected a folder of pictures or a bag" in capsys.readouterr().err


def test_the_printed_sheet_holds_the_circles_where_it_says(tmp_path):
    target = Target()
    path = print_target(target, tmp_path / "t.png", dpi=100)
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    px_per_mm = 100 / 25.4
    assert sheet.shape == (round(210 * px_per_mm), round(297 * px_per_mm))
    found = find_circles(cv2.copyMakeBorder(sheet, 9, 9, 9, 9, cv2.BORDER_REPLICATE), target)
    np.testing.assert_allclose((found - 9 + 0.5) / px_per_mm, target.centres_mm(), atol=0.15)
    area = (sheet < 128).sum() / px_per_mm**2
    assert area == pytest.approx(27 * np.pi * (21.7 / 2) ** 2, rel=0.01)
    for wrong in ({"rows": 4}, {"diameter_mm": 40.0}):
        with pytest.raises(CalibrationError):
            Target(**wrong)


def test_a_print_that_came_out_too_large_is_measured_but_not_printed(tmp_path):
    slightly = Target.on_paper("a4", 3, 9, step_mm=31.1)
    assert np.ptp(slightly.centres_mm()[:, 0]) == pytest.approx(8 * 31.1)
    with pytest.raises(CalibrationError, match="white margin"):
        print_target(slightly, tmp_path / "t.pdf")
    assert not (tmp_path / "t.pdf").exists()


def seen_from(tilt_deg, count=10):
    """The circles' places in pictures from 0.5 to 1.9 m, with noise of 0.1 px."""
    random = np.random.default_rng(0)
    found = []
    for i, distance_m in enumerate(np.linspace(0.5, 1.9, count)):
        view = View(distance_m, (tilt_deg * (-1) ** i, tilt_deg * (-1) ** (i // 2)))
        turn, shift_m = pose_of(view, TARGET, CAMERA, SIZE[0])
        sheet_m = np.column_stack([TARGET.centres_mm(), np.zeros(27)]) / 1000
        places, _ = cv2.projectPoints(
            sheet_m, cv2.Rodrigues(turn)[0], shift_m, CAMERA.matrix, CAMERA.distortion
        )
        found.append(places.reshape(-1, 2) + random.normal(0, 0.1, (27, 2)))
    return found


def test_flat_views_do_not_tell_the_focal_length_and_tilted_ones_say_how_well():
    with pytest.raises(CalibrationError, match="tilted by more than 10 degrees .* --camera"):
        estimate_camera(seen_from(2.0), TARGET, SIZE)
    camera = estimate_camera(seen_from(25.0), TARGET, SIZE)
    assert camera.focal_px == pytest.approx(FOCAL_PX, rel=0.02)
    assert 1e-4 < camera.focal_uncertainty < 0.02
    with pytest.raises(CalibrationError, match="focal length known to 2 %"):
        estimate_camera(seen_from(9.0, 3), TARGET, SIZE)


def test_intrinsics_of_another_size_are_scaled_or_refused(known, tmp_path):
    path = tmp_path / "camera.yaml"
    k = [800, 0, 379.5, 0, 800, 279.5, 0, 0, 1]  # of 760x560: each pixel here is two there
    path.write_text(f"{{image_width: 760, image_height: 560, k: {k}, d: [0, 0, 0, 0, 0]}}")
    twice = read_camera(path)
    assert twice.size == (560, 760)
    taken = [Picture(str(i), image) for i, image in enumerate(known[1])]
    data = measure(taken, TARGET, twice, response="linear")
    np.testing.assert_allclose(data.camera.matrix, CAMERA.matrix)
    with pytest.raises(CalibrationError, match="pictures of 380x280, .* got those of 760x400"):
        measure(taken, TARGET, replace(twice, size=(400, 760)))


def camera_info(**others):
    nowhere = Namespace(x_offset=0, y_offset=0, width=0, height=0)
    values = {
        "k": CAMERA.matrix.ravel(), "d": np.zeros(5), "distortion_model": "plumb_bob",
        "height": 280, "width": 380, "roi": nowhere,
        "p": np.column_stack([CAMERA.matrix, np.zeros(3)]).ravel(),
    }  # fmt: skip
    return Namespace(**(values | others))


def test_a_bag_s_camera_info_says_its_size():
    bag = BagPictures.__new__(BagPictures)
    info = camera_info()
    bag.topic = "/camera/image_raw"
    bag.reader = Namespace(
        topics=lambda *kinds: {"/camera/camera_info": 1}, message=lambda topic: info
    )
    assert bag.camera().size == SIZE
    info.height = info.width = 0
    assert bag.camera().size is None


def test_rectified_images_of_a_bag_have_the_camera_of_p_without_distortion():
    bag = BagPictures.__new__(BagPictures)
    info = camera_info(k=np.diag([500, 500, 1.0]), d=[-0.3, 0.1, 0, 0, 0], distortion_model="odd")
    bag.reader = Namespace(
        topics=lambda *kinds: {"/camera/camera_info": 1}, message=lambda topic: info
    )
    bag.topic = "/camera/image_rect_color/compressed"
    camera = bag.camera()
    np.testing.assert_allclose(camera.matrix, CAMERA.matrix)
    assert not camera.distortion.any()
    info.distortion_model = "plumb_bob"
    bag.topic = "/camera/image_raw"
    assert bag.camera().focal_px == 500
    assert bag.camera().distortion[0] == -0.3


def test_a_region_of_interest_is_no_scaled_image():
    bag = BagPictures.__new__(BagPictures)
    matrix = CAMERA.matrix + np.array([[0, 0, 190], [0, 0, 140], [0, 0, 0]])
    region = Namespace(x_offset=190, y_offset=140, width=SIZE[1], height=SIZE[0])
    info = camera_info(k=matrix.ravel(), height=2 * SIZE[0], width=2 * SIZE[1], roi=region)
    bag.topic = "/camera/image_raw"
    bag.reader = Namespace(
        topics=lambda *kinds: {"/camera/camera_info": 1}, message=lambda topic: info
    )
    camera = bag.camera().for_size(SIZE)
    np.testing.assert_allclose(camera.matrix, CAMERA.matrix)


def test_companions_of_other_names_are_refused(tmp_path, known):
    (tmp_path / "sharp").mkdir()
    for name in ("1.png", "sharp/101.png"):
        cv2.imwrite(str(tmp_path / name), known[1][0])
    with pytest.raises(CalibrationError, match=r"named as the pictures, 1.png .* 101.png"):
        next(read_folder(tmp_path, None))


def test_over_exposed_pictures_are_left_out_or_refused(known):
    def brighter(image):
        return np.clip(image * 1.15, 0, 255).round().astype(np.uint8)

    _, images = known
    data = measured([*images[:2], brighter(images[2]), *images[3:]])
    assert list(data.skipped) == ["2"]
    assert "over-exposed" in data.skipped["2"]
    with pytest.raises(CalibrationError, match="over-exposed: .* % of the sheet is saturated"):
        measured([brighter(image) for image in images])


def test_a_calibration_is_replaced_in_one_step(tmp_path, monkeypatch):
    record = LensCalibration(lens_of(9.0, 1.1), 640, 480)
    path = write_record(record, tmp_path / "lens.yaml")
    monkeypatch.setattr(Path, "replace", lambda self, target: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        write_record(replace(record, width=320, height=240), path)
    assert read_calibration(path) == record


@pytest.mark.parametrize(("frames", "least"), [(2, 0.85), (3, 0.85)])
def test_few_frames_of_a_recording_widen_the_interval(frames, least, monkeypatch):
    monkeypatch.setattr(rgbd, "_DRAWS", 30)
    # The line itself is exact: each frame's windows have one strength, which varies by 2 %.
    monkeypatch.setattr(
        rgbd,
        "robust_line",
        lambda spreads, near=None: (float(spreads.sigma_px.mean()), float(spreads.dioptre.mean())),
    )
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        strengths = np.repeat(random.normal(3.4, 0.07, frames), 40)
        places = np.repeat(random.normal(0.6, 0.01, frames), 40)
        spreads = rgbd.Spreads(places, strengths, np.repeat(np.arange(frames), 40))
        _, low, high = rgbd._intervals(spreads, rgbd.robust_line(spreads))[0]
        inside += low <= 3.4 <= high
    assert inside / 200 >= least


@pytest.mark.parametrize(
    "text", ["k: 5", "cam0: {intrinsics: [1, 2, 3, 4]}", "[1, 2]", "camera_matrix: {rows: 3}"]
)
def test_other_camera_files_are_refused_with_what_was_expected(text, tmp_path):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=r"expected the YAML of a camera_info .* --camera"):
        read_camera(tmp_path / "camera.yaml")


def test_the_camera_info_of_ros_1_is_read(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text("{width: 4, height: 3, K: [2, 0, 1, 0, 2, 1, 0, 0, 1], D: [0, 0, 0, 0, 0]}")
    camera = read_camera(path)
    assert (camera.focal_px, camera.size) == (2.0, (3, 4))


def test_large_pictures_are_measured_smaller_and_all_pixels_are_of_that_size(known, monkeypatch):
    monkeypatch.setattr(measuring, "LARGEST_SIDE_PX", SIZE[1])
    large = [np.repeat(np.repeat(image, 3, axis=0), 3, axis=1) for image in known[1]]
    said = []
    data = measure(
        [Picture(str(i), image) for i, image in enumerate(large)],
        TARGET, CAMERA.for_size(SIZE).for_size((3 * SIZE[0], 3 * SIZE[1])),
        response="linear", say=said.append,
    )  # fmt: skip
    assert "1140x840 are measured at 380x280" in said[0]
    assert data.size == SIZE
    np.testing.assert_allclose(data.camera.matrix, CAMERA.matrix)
    same = measured(known[1])
    np.testing.assert_allclose(
        [p.radius_px for p in data.profiles], [p.radius_px for p in same.profiles], rtol=1e-6
    )
    record = solve(data, shape="disk", nominal=Nominal(pixel_pitch_m=2e-6)).calibration
    assert record.lens.pixel_pitch_m == pytest.approx(6e-6)
    assert record.lens.px_per_dioptre == pytest.approx(9.0, rel=0.02)
    large_lens = record.lens_for(3 * SIZE[1], 3 * SIZE[0])
    assert large_lens.px_per_dioptre == pytest.approx(27.0, rel=0.02)


def test_blur_of_a_circle_that_fills_a_large_picture_is_read():
    edge_px = np.arange(-70.0, 71.0, 3.0)
    light = norm.cdf(edge_px / 24.0)
    circle = Profile(0, 1.0, 0.0, 200.0, np.zeros(0), edge_px, light, np.full(len(edge_px), 900))
    assert own_spreads(Matrices([circle]))[0] == pytest.approx(24.0, rel=0.05)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--frames", "0"], "--frames: expected at least 1"),
        (["--focal", "3500"], "--focal: expected mm from 0 to 2000"),
        (["--pitch", "-1"], "--pitch: expected a number from 0"),
        (["--sharp-ratio", "1"], "--sharp-ratio: expected 0 to below 1"),
        (["--step", "-1"], "--step: expected a number from 0"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_read(option, words, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), *option]) == 2
    assert words in capsys.readouterr().err


def test_nominal_values_that_no_lens_has_at_the_focus_measured_are_refused():
    with pytest.raises(CalibrationError, match=r"--focal.* focused at 1.2 m, as measured"):
        written_lens(Nominal(1.5, 2.8, 5e-6), 1.2)


def test_the_companion_s_own_blur_is_added_to_what_lies_between(monkeypatch):
    """At 0.6 of the aperture 0.8 of the spread lies between the two."""
    dioptre = np.linspace(0.3, 2.0, 60)

    def between(sample, frame, response):
        sigma_px = np.tile(0.8 * 3.0 * np.abs(dioptre - 0.9)[:, None], 3)
        left = np.tile([0.03, 0.01, 0.02], (60, 1))
        return Windows(dioptre, sigma_px, left, np.full(60, frame))

    monkeypatch.setattr(rgbd, "windows", between)
    rgb = np.zeros((8, 8, 3), np.uint8)
    sample = RgbdSample("a", np.ones((8, 8), np.float32), sharp_rgb=rgb, defocused_rgb=rgb)
    result = calibrate_rgbd([sample] * 2, sharp_share=0.6, sigma_per_diameter=0.25)
    assert result.k_a[0] == pytest.approx(3.0, rel=0.01)
    assert result.calibration.lens.px_per_dioptre == pytest.approx(12.0, rel=0.01)
    assert result.calibration.sigma_0_px == 0.0  # not measured: the companion has the same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["PICTURES", "--topic", "/a", "--frames", "3"],
            "expected no --topic, --frames with a fol",
        ),
        (["PICTURES", "--sharp-ratio", "0.2"], "--sharp-ratio: expected companions"),
        (["a.mcap", "--sharp", "s"], "expected no --sharp with a bag"),
        (["--print", "a.pdf", "--focal", "35", "--out", "x"], "got also --out, --focal"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, message, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    assert main([str(tmp_path) if word == "PICTURES" else word for word in words]) == 2
    assert message in capsys.readouterr().err


def test_the_size_of_the_target_is_said_where_it_is_printed_and_where_it_is_measured(
    tmp_path, capsys
):
    """A print on A3 that is measured as one on A4 gives another lens without a complaint."""
    assert main(["--print", str(tmp_path / "t.pdf"), "--paper", "a3"]) == 0
    assert "measure with the same --paper a3" in " ".join(capsys.readouterr().out.split())
    assert main(["--print", str(tmp_path / "t.pdf")]) == 0
    assert "measure with" not in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    assert main([str(tmp_path)]) == 2
    assert "3x9 circles, 62 mm apart" in capsys.readouterr().out


def test_options_of_the_target_are_refused_with_an_rgbd_folder(tmp_path, capsys):
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    given = ["--camera", "a.txt", "--sharp", "s", "--shape", "disk", "--scale-error", "0.1"]
    assert main([str(tmp_path), *given]) == 2
    words = "expected no --scale-error, --camera, --sharp, --shape with an RGB-D folder"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("most", "wanted"), [(40, 40), (2, 2), (100, 79)])
def test_no_more_frames_of_a_folder_are_read_than_asked_for(tmp_path, monkeypatch, most, wanted):
    """Of 79 all were read: neither a half nor a third of them is 40."""
    for name in ("rgb", "depth", "sharp"):
        (tmp_path / name).mkdir()
        for number in range(79):
            picture = np.full((8, 8), 2000, np.uint16)
            cv2.imwrite(str(tmp_path / name / f"{number:02}.png"), picture)
    read = []

    def calibrate(frames, **_):
        read.extend(frame.name for frame in frames)
        raise CalibrationError("enough")

    monkeypatch.setattr(cli, "calibrate_rgbd", calibrate)
    assert main([str(tmp_path), "--frames", str(most)]) == 2
    assert len(read) == len(set(read)) == wanted
    assert (read[0], read[-1]) == ("00", "78")


@lru_cache
def rendered(index, finer):
    """A room and its depth: several tests photograph the same ones."""
    return SyntheticScene(index).render(0.0, 200 * finer, 280 * finer)


def room(index, lens=None, kernel="gaussian", sigma_per_diameter=0.37, finer=2):
    """A rendered room with a photograph through a lens, averaged over pixels as a sensor does."""
    rgb, depth_m = rendered(index, finer)
    middle = slice(finer // 2, None, finer)
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()

    def seen(image):
        levels = torch.nn.functional.avg_pool2d(image, finer)[0].permute(1, 2, 0)
        return levels.numpy().round().astype(np.uint8)

    sample = RgbdSample(f"{index}", depth_m[middle, middle], sharp_rgb=seen(image))
    if lens is None:
        return sample
    depth = torch.from_numpy(depth_m)[None, None]
    layers = Layering("blur", 0.25 * finer)
    options = RenderOptions(kernel, sigma_per_diameter, layering=layers)
    photo = render_defocus(image, depth, lens.scaled(finer), options=options)
    return replace(sample, defocused_rgb=seen(photo))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma_px", [0.3, 0.4, 0.5, 1.0])
def test_narrow_blur_is_as_wide_as_it_is_on_a_finer_grid(shape, sigma_px):
    """The truth is blurred 12 times finer, then averaged over pixels as a sensor does."""
    finer, side = 12, 100
    random = np.random.default_rng(5)
    scene = np.full((side * finer, side * finer), 0.5)
    for _ in range(250):
        top, left = random.integers(0, side * finer, 2)
        height, width = random.integers(3 * finer, 14 * finer, 2)
        scene[top : top + height, left : left + width] = random.uniform(0.05, 0.95)
    kernels = []
    wide = sigma_px * finer
    if shape != "disk":
        line = cv2.getGaussianKernel(2 * math.ceil(5 * wide) + 1, wide)
        kernels.append(line @ line.T)
    if shape != "gaussian":
        across = np.arange(-math.ceil(2 * wide), math.ceil(2 * wide) + 1)
        round_ = (across[:, None] ** 2 + across**2 <= (2 * wide) ** 2).astype(float)
        kernels.append(round_ / round_.sum())
    soft = cv2.GaussianBlur(scene, (0, 0), 0.4 * finer)  # the camera's own, in both
    photo = sum(cv2.filter2D(soft, -1, kernel) for kernel in kernels) / len(kernels)
    sharp_rgb, defocused_rgb = (
        cv2.cvtColor(
            (cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) * 65535)
            .round()
            .astype(np.uint16),
            cv2.COLOR_GRAY2RGB,
        )
        for image in (soft, photo)
    )
    depth_m = np.ones((side, side), np.float32)
    sample = RgbdSample("a", depth_m, sharp_rgb=sharp_rgb, defocused_rgb=defocused_rgb)
    found = windows(sample, 0, "linear").sigma_px[:, SHAPES.index(shape)]
    assert len(found) > 4
    assert np.nanmedian(found) == pytest.approx(sigma_px, rel=0.08)


@pytest.mark.parametrize(("kernel", "k", "a"), [("gaussian", 0.37, 20.0), ("disk", 0.25, 25.0)])
def test_rgbd_frames_with_sharp_companions_stand_for_the_target(kernel, k, a, monkeypatch):
    """Disks that are taken for Gaussians would read a tenth too wide, and the other way round."""
    monkeypatch.setattr(rgbd, "_DRAWS", 50)
    lens = lens_of(a, 6.0)
    result = calibrate_rgbd(
        [room(i, lens, kernel, k) for i in range(4)],
        response="linear",
        sigma_per_diameter=0.37,
        frame_size=(500, 700),  # of which these are parts
    )
    assert result.calibration.shape == kernel
    assert min(result.left_by_shape, key=result.left_by_shape.get) == kernel
    assert (result.calibration.height, result.calibration.width) == (500, 700)
    assert result.k_a[0] == pytest.approx(k * a, rel=0.07)
    assert result.focus_dioptre[0] == pytest.approx(1 / 6, abs=0.03)
    assert result.calibration.lens.px_per_dioptre == pytest.approx(a, rel=0.07)


def test_rgbd_frames_that_say_too_little_are_refused():
    with pytest.raises(CalibrationError, match="sharp companion"):
        calibrate_rgbd([room(0)])
    with pytest.raises(CalibrationError, match="1 px"):
        calibrate_rgbd([room(i, lens_of(0.5, 6.0)) for i in range(2)], response="linear")


def test_one_frame_does_not_tell_how_sure_it_is(monkeypatch):
    """Intervals come from how frames differ: of one, they would have no width."""
    dioptre = np.linspace(0.3, 2.0, 60)
    sigma_px = np.tile(3.0 * np.abs(dioptre - 0.9)[:, None], 3)
    seen = [Windows(dioptre, sigma_px, np.full((60, 3), 0.01), np.full(60, 0))]
    none = Windows.join([])
    monkeypatch.setattr(rgbd, "windows", lambda sample, n, response: (seen[n:] or [none])[0])
    rgb = np.zeros((8, 8, 3), np.uint8)
    sample = RgbdSample("a", np.ones((8, 8), np.float32), sharp_rgb=rgb, defocused_rgb=rgb)
    for count in (1, 2):  # the second frame shows nothing that can be used
        with pytest.raises(CalibrationError, match="at least 2 frames, got them in 1"):
            calibrate_rgbd([sample] * count)


def test_where_windows_cannot_tell_the_shape_it_is_between(monkeypatch):
    monkeypatch.setattr(rgbd, "_DRAWS", 50)
    dioptre = np.linspace(0.3, 2.0, 60)

    def one_shape_explains(sample, frame, response):
        sigma_px = np.tile(3.0 * np.abs(dioptre - 0.9)[:, None], 3)
        sigma_px[:, 1] = np.nan
        return Windows(dioptre, sigma_px, np.full((60, 3), 0.01), np.full(60, frame))

    monkeypatch.setattr(rgbd, "windows", one_shape_explains)
    rgb = np.zeros((8, 8, 3), np.uint8)
    sample = RgbdSample("a", np.ones((8, 8), np.float32), sharp_rgb=rgb, defocused_rgb=rgb)
    result = calibrate_rgbd([sample] * 2)
    assert result.left_by_shape == {}
    assert (result.calibration.shape, result.calibration.gaussian_share) == ("blend", 0.5)
    assert result.calibration.lens.px_per_dioptre == pytest.approx(12.0, rel=0.01)
    other = replace(sample, depth_m=np.ones((8, 9), np.float32))
    with pytest.raises(CalibrationError, match=r"frames of one size.* got \(8, 8\) and \(8, 9\)"):
        calibrate_rgbd([sample, other])
    with pytest.raises(CalibrationError, match=r"--focal: expected less than .* 1\.11 m"):
        calibrate_rgbd([sample] * 2, nominal=Nominal(focal_length_m=2.0))
