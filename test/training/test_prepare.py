"""ddfd-prepare on pairs whose displacement and scale are known, and on real ones."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.calibration.report import write_record
from ddfd_training.datasets import RgbdFolder, open_dataset
from ddfd_training.prepare_align import align, scaling
from ddfd_training.prepare_cli import main
from ddfd_training.prepare_crop import Box, common, cut, largest_box
from ddfd_training.prepare_depth import denoise_depth, inpaint_depth
from ddfd_training.prepare_files import find_views
from ddfd_training.registration import residual_px, smoothed_gray

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DDFD_DATA", ROOT.parent / "shared" / "data")) / "dfd_dslr"
HEIGHT, WIDTH = 300, 400


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A textured wall with boxes before it: uint8 RGB and depth in metres, larger than a view."""
    rng = np.random.default_rng(seed)
    height, width = HEIGHT + 120, WIDTH + 120
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        cells = rng.normal(size=(2 + 2**octave, 2 + 2**octave, 3)).astype(np.float32)
        image += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) / 1.4**octave
    image = 120 + 40 * image / image.std()
    depth = np.full((height, width), 4.0, np.float32)
    for _ in range(8):
        top, left = rng.integers(0, height - 60), rng.integers(0, width - 60)
        box = np.s_[top : top + 60, left : left + 60]
        depth[box] = rng.uniform(1, 3)
        image[box] += rng.uniform(-50, 50, 3)
    return np.clip(image, 5, 250).astype(np.uint8), depth


# What the other cameras see: (x, y) of the photograph to (x, y) of theirs.
ROLL = math.radians(0.8)
TO_COLOR = np.array(
    [[0.8 * math.cos(ROLL), -0.8 * math.sin(ROLL), 21.0],
     [0.8 * math.sin(ROLL), 0.8 * math.cos(ROLL), 13.0], [1e-5, -1e-5, 1]]
)  # fmt: skip
TO_SHARP = np.array([[1.002, 0, 4.3], [0, 1.002, -2.6], [0, 0, 1]])
MARGIN = np.array([[1, 0, 60], [0, 1, 60], [0, 0, 1.0]])


def seen(image: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What a camera sees of the scene, given the photograph's map to it."""
    how = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_LINEAR
    whole = MARGIN @ np.linalg.inv(camera)  # its pixel to the scene's
    return cv2.warpPerspective(image, whole, size[::-1], flags=how | cv2.WARP_INVERSE_MAP)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def record(root: Path, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One view as four cameras' files; returns the sharp picture and depth of the photograph."""
    image, depth = scene(seed)
    truth = seen(image, np.eye(3), (HEIGHT, WIDTH))
    write(root / "defocused" / f"{name}.png", cv2.GaussianBlur(truth, (0, 0), 1.5))
    sharp = seen(image, TO_SHARP, (HEIGHT, WIDTH)).astype(np.float32)
    write(root / "sharp" / f"{name}.png", np.clip(0.85 * sharp + 10, 0, 255).astype(np.uint8))
    color = cv2.GaussianBlur(seen(image, TO_COLOR, (290, 380)), (0, 0), 0.6)
    write(
        root / "color" / f"{name}.jpg",
        np.clip(1.1 * color.astype(float) - 8, 0, 255).astype(np.uint8),
    )
    millimetres = np.rint(seen(depth, TO_COLOR, (290, 380)) * 1000).astype(np.uint16)
    millimetres[100:108, 150:158] = 0
    write(root / "depth" / f"{name}.png", millimetres)
    return truth, seen(depth, np.eye(3), (HEIGHT, WIDTH))


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    kinds = ("defocused", "sharp", "depth", "color")
    return [a for kind in kinds for a in (f"--{kind}", str(root / kind))] + [
        "--out",
        str(out),
        *more,
    ]


def corner_error_px(found: np.ndarray, truth: np.ndarray) -> float:
    corners = np.array([[0, 0, 1], [WIDTH, 0, 1], [0, HEIGHT, 1], [WIDTH, HEIGHT, 1.0]]).T
    a, b = found @ corners, truth @ corners
    return float(np.abs(a[:2] / a[2] - b[:2] / b[2]).max())


@pytest.mark.parametrize("model", ["homography", "affine"])
def test_finds_the_other_cameras_picture(model: str):
    image, _ = scene(1)
    truth = TO_COLOR.copy()
    if model == "affine":
        truth[2] = [0, 0, 1]
    found = align(seen(image, truth, (290, 380)), seen(image, np.eye(3), (HEIGHT, WIDTH)), model)
    assert found.converged
    assert found.inliers > 25
    assert corner_error_px(found.matrix, truth) < 0.3
    assert found.residual_px < 0.2


@pytest.mark.parametrize("shift", [(0.4, 0.0), (1.0, 0.0), (2.5, 0.0), (-4.0, 6.0)])
def test_the_error_reported_is_the_displacement(shift: tuple[float, float]):
    image, _ = scene(2)
    fixed = seen(image, np.eye(3), (HEIGHT, WIDTH))
    moved = seen(image, np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]), (HEIGHT, WIDTH))
    error = residual_px(smoothed_gray(fixed), smoothed_gray(moved))
    assert error == pytest.approx(math.hypot(*shift), rel=0.05, abs=0.05)


def test_parallax_shows_in_the_error():
    """Bands that moved by different amounts, which no one map undoes."""
    image, _ = scene(2)
    reference = seen(image, np.eye(3), (HEIGHT, WIDTH))
    torn = reference.copy()
    for band, shift in enumerate((0, 14, -12, 9, -15, 6)):
        rows = np.s_[50 * band : 50 * band + 50]
        torn[rows] = np.roll(reference[rows], shift, axis=1)
    found = align(torn, reference, "affine")
    assert not found.converged or found.residual_p90_px > 3.0


def test_another_scene_is_not_found():
    found = align(scene(3)[0], scene(4)[0][:HEIGHT, :WIDTH])
    assert not found.converged
    assert math.isnan(found.residual_px)
    flat = np.full((50, 60, 3), 90, np.uint8)
    assert not align(flat, flat).converged


def test_scaling_maps_centres_of_pixels():
    matrix = scaling((10, 20), (5, 10))
    assert (matrix @ [0, 0, 1])[:2].tolist() == [0.5, 0.5]
    assert (matrix @ [9, 4, 1])[:2].tolist() == [18.5, 8.5]


def test_a_recording_becomes_a_folder_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture):
    truths = {name: record(tmp_path, name, seed) for name, seed in (("a", 5), ("b", 6))}
    out = tmp_path / "out"
    assert main(arguments(tmp_path, out, "--lens", "0.05,2,1.5,1e-5", "--inpaint", "smooth")) == 0
    report = json.loads((out / "registration.json").read_text())
    assert report["summary"]["written"] == 2
    for key in ("sharp_error_px", "depth_error_px"):
        assert report["summary"][key]["max"] < 0.5
    shift = report["views"][0]["sharp_shift_px"]
    assert shift == pytest.approx([4.3, -2.6], abs=0.3)
    text = capsys.readouterr().out
    assert "2 of 2 views" in text
    assert "median" in text
    dataset = open_dataset("folder", out)
    assert dataset.registered
    assert dataset.lens.pixel_pitch_m == 1e-5
    part = Box(**report["common_part_px"]).slices
    for sample in dataset:
        sharp, depth = (truth[part] for truth in truths[sample.name])
        blurred = cv2.imread(str(tmp_path / "defocused" / f"{sample.name}.png"))[..., ::-1]
        np.testing.assert_array_equal(sample.defocused_rgb, blurred[part])  # never resampled
        error = np.abs(sample.sharp_rgb.astype(float) - sharp).mean()
        assert error < 4  # registered, and the exposure undone
        right = np.abs(sample.depth_m - depth) < 0.02
        assert right.mean() > 0.97
        assert np.isfinite(sample.depth_m).mean() > 0.99


def test_size_crops_to_shape_and_scales_the_lens(tmp_path: Path):
    record(tmp_path, "a", 7)
    out = tmp_path / "out"
    assert main(arguments(tmp_path, out, "--size", "120x160", "--lens", "0.05,2,1.5,1e-5")) == 0
    sample = open_dataset("folder", out)[0]
    assert sample.depth_m.shape == (120, 160) == sample.sharp_rgb.shape[:2]
    box = Box(**json.loads((out / "registration.json").read_text())["common_part_px"])
    scale = 120 / box.shaped(120, 160).height
    assert sample.lens.pixel_pitch_m == pytest.approx(1e-5 / scale)
    whole = open_dataset("folder", out).frame_size()
    assert whole == pytest.approx((scale * HEIGHT, scale * WIDTH), abs=0.5)


def test_views_beyond_the_limits_are_left_out_and_named(tmp_path: Path, capsys):
    record(tmp_path, "good", 8)
    record(tmp_path, "bad", 9)
    image, _ = scene(10)
    write(tmp_path / "sharp" / "bad.png", seen(image, np.eye(3), (HEIGHT, WIDTH)))
    write(tmp_path / "defocused" / "alone.png", image)
    out = tmp_path / "out"
    assert main(arguments(tmp_path, out)) == 0
    summary = json.loads((out / "registration.json").read_text())["summary"]
    assert (summary["written"], summary["beyond_limits"]) == (1, 1)
    assert list(summary["refused"]) == ["bad"]
    assert summary["without_partner"] == ["alone"]
    assert [path.stem for path in (out / "rgb").iterdir()] == ["good"]
    assert main(arguments(tmp_path, tmp_path / "all", "--keep-bad")) == 0
    assert len(list((tmp_path / "all" / "rgb").iterdir())) == 2
    capsys.readouterr()
    single = [
        "--defocused", str(tmp_path / "defocused" / "bad.png"),
        "--sharp", str(tmp_path / "sharp" / "bad.png"), "--out", str(tmp_path / "one"),
    ]  # fmt: skip
    assert main(single) == 2
    assert "expected a view within the limits" in capsys.readouterr().err
    # Of no view there is neither a part nor a scale, whatever the size asked for.
    assert main([*single, "--size", "120x160"]) == 2
    assert "expected a view within the limits" in capsys.readouterr().err
    report = json.loads((tmp_path / "one" / "registration.json").read_text())
    assert (report["summary"]["written"], report["frame_px"]) == (0, None)


def test_photographs_of_several_sizes_are_refused(tmp_path: Path, capsys):
    """One lens is written for all, whose blur is counted in pixels."""
    for name, shape in (("a", (200, 240)), ("b", (400, 480))):
        for kind in ("defocused", "sharp"):
            image = cv2.resize(scene(1)[0][:200, :240], shape[::-1])
            write(tmp_path / kind / f"{name}.png", image)
    words = pair_arguments(tmp_path, tmp_path / "out", "--lens", "0.05,2,1.5,1e-5")
    assert main(words) == 2
    message = "photographs of one size, got (200, 240) in a and (400, 480) in b"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    turned = cv2.rotate(scene(1)[0][:200, :240], cv2.ROTATE_90_CLOCKWISE)
    for kind in ("defocused", "sharp"):
        write(tmp_path / kind / "b.png", turned)
    assert main(words) == 0


def test_errors_of_use_exit_with_2(tmp_path: Path, capsys):
    record(tmp_path, "a", 11)
    assert main(["--defocused", str(tmp_path / "defocused"), "--out", str(tmp_path / "o")]) == 2
    assert "sharp images or depth maps" in capsys.readouterr().err
    same = arguments(tmp_path, tmp_path / "defocused")
    assert main(same) == 2
    assert "folder of its own" in capsys.readouterr().err
    write(tmp_path / "sharp" / "a.png", np.zeros((40, 50, 3), np.uint8))
    assert main(arguments(tmp_path, tmp_path / "out")) == 2
    assert "both photographs of one size" in capsys.readouterr().err


def photographs(root: Path, name: str, seed: int = 0) -> np.ndarray:
    """A view's two photographs, which lie over each other already; returns the sharp one."""
    image = scene(seed)[0][:200, :240]
    write(root / "defocused" / f"{name}.png", cv2.GaussianBlur(image, (0, 0), 1.5))
    write(root / "sharp" / f"{name}.png", image)
    return image


def pair_arguments(root: Path, out: Path, *more: str) -> list[str]:
    kinds = ("defocused", "sharp")
    return [a for kind in kinds for a in (f"--{kind}", str(root / kind))] + [
        "--out", str(out), *more
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["rgb", "rgb/wide", "."])
def test_originals_in_the_folders_that_are_written_are_kept(tmp_path: Path, source: str, capsys):
    photographs(tmp_path, "a")
    (tmp_path / "out" / source).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "defocused").replace(tmp_path / "out" / source)
    original = (tmp_path / "out" / source / "a.png").read_bytes()
    command = ["--defocused", str(tmp_path / "out" / source), "--sharp", str(tmp_path / "sharp"),
               "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 2
    assert "folder of its own" in capsys.readouterr().err
    assert (tmp_path / "out" / source / "a.png").read_bytes() == original


def test_frames_of_another_run_are_not_mixed_in(tmp_path: Path, capsys):
    photographs(tmp_path, "good", 8)
    photographs(tmp_path, "bad", 9)
    write(tmp_path / "sharp" / "bad.png", scene(10)[0][:200, :240])
    out = tmp_path / "out"
    for _ in range(2):  # the same command again is no other run
        assert main(pair_arguments(tmp_path, out, "--keep-bad")) == 0
    assert not RgbdFolder(out).registered  # not all are
    capsys.readouterr()
    assert main(pair_arguments(tmp_path, out)) == 2
    assert "bad.png; give another folder" in capsys.readouterr().err
    assert main(pair_arguments(tmp_path, tmp_path / "new")) == 0
    assert RgbdFolder(tmp_path / "new").registered


def test_a_recording_of_the_same_names_is_not_overwritten(tmp_path: Path, capsys):
    photographs(tmp_path, "a")
    write(tmp_path / "other" / "rgb" / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert main(pair_arguments(tmp_path, tmp_path / "other")) == 2
    assert "a new folder" in capsys.readouterr().err
    assert cv2.imread(str(tmp_path / "other" / "rgb" / "a.png")).shape == (4, 4, 3)


def test_depth_too_far_for_the_file_is_unknown(tmp_path: Path, capsys):
    image = photographs(tmp_path, "a")
    depth_m = np.full(image.shape[:2], 2.0, np.float32)
    depth_m[:, 120:] = 80.0
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "a.npy", depth_m)
    command = pair_arguments(tmp_path, tmp_path / "out", "--depth", str(tmp_path / "depth"))
    assert main(command) == 0
    written_m = open_dataset("folder", tmp_path / "out")[0].depth_m
    assert np.nanmax(written_m) == pytest.approx(2.0)
    count = np.isnan(written_m).sum()
    assert count > 1000
    assert f"{count} pixels are farther" in " ".join(capsys.readouterr().out.split())


def test_depth_of_another_shape_is_not_stretched_over_the_photograph(tmp_path: Path, capsys):
    photographs(tmp_path, "a")
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "a.npy", np.full((120, 120), 2.0, np.float32))
    command = pair_arguments(tmp_path, tmp_path / "out", "--depth", str(tmp_path / "depth"))
    assert main(command) == 2
    assert "depth of the photograph's shape, or --color" in capsys.readouterr().err


def test_a_lens_focused_at_infinity_is_read_back(tmp_path: Path):
    photographs(tmp_path, "a")
    out = tmp_path / "out"
    assert main(pair_arguments(tmp_path, out, "--lens", "0.05,2,inf,1e-5")) == 0
    lens = RgbdFolder(out).lens
    assert lens is not None
    assert lens.focus_distance_m == math.inf


def test_a_calibration_is_taken_at_the_photographs_size(tmp_path: Path, capsys):
    height, width = photographs(tmp_path, "a").shape[:2]
    out, file = tmp_path / "out", tmp_path / "lens.yaml"
    lens = LensConfig(0.05, 2.0, 1.5, 1e-5)
    write_record(LensCalibration(lens, 2 * width, 2 * height), file)
    assert main(pair_arguments(tmp_path, out, "--lens", str(file))) == 0
    assert RgbdFolder(out).lens.pixel_pitch_m == pytest.approx(2e-5)
    write_record(LensCalibration(lens, width, width), file)
    assert main(pair_arguments(tmp_path, tmp_path / "none", "--lens", str(file))) == 2
    assert f"shape {width}x{width}, got {width}x{height}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_was_cut_before_keeps_its_frames_size_when_prepared_again(tmp_path: Path):
    height, width = photographs(tmp_path, "a").shape[:2]
    first, again, file = tmp_path / "first", tmp_path / "again", tmp_path / "lens.yaml"
    assert main(pair_arguments(tmp_path, first)) == 0
    assert RgbdFolder(first).frame_size() == (height, width)
    lens = LensConfig(0.05, 2.0, 1.5, 1e-5)
    write_record(LensCalibration(lens, width, height), file)
    words = ["--defocused", str(first / "rgb"), "--sharp", str(first / "sharp")]
    words += ["--out", str(again), "--lens", str(file)]
    assert main(words) == 0
    assert RgbdFolder(again)[0].depth_m.shape < (height, width)
    assert RgbdFolder(again).lens.pixel_pitch_m == pytest.approx(1e-5)
    assert RgbdFolder(again).frame_size() == (height, width)


def test_sizes_that_leave_no_pixel_are_refused(tmp_path: Path, capsys):
    photographs(tmp_path, "a")
    with pytest.raises(SystemExit):
        main(pair_arguments(tmp_path, tmp_path / "out", "--max-side", "0"))
    assert "at least 32 pixels" in capsys.readouterr().err
    assert main(pair_arguments(tmp_path, tmp_path / "out", "--size", "4000x1")) == 2
    assert "4000x1; give one closer" in capsys.readouterr().err


def test_pairing_by_name_time_and_order(tmp_path: Path):
    image = np.zeros((4, 4, 3), np.uint8)
    for kind, stamps in (("defocused", ("01.0", "07.5", "20.0")), ("sharp", ("01.6", "08.0"))):
        for stamp in stamps:
            write(tmp_path / kind / f"2026-01-01T10:00:{stamp}.png", image)
    places = (tmp_path / "defocused", tmp_path / "sharp")
    views, alone = find_views(*places, pair="time")
    assert [(v.name[-4:], v.sharp.stem[-4:]) for v in views] == [
        ("01.0", "01.6"),
        ("07.5", "08.0"),
    ]
    assert alone == ["2026-01-01T10:00:20.0"]
    with pytest.raises(DatasetError, match="none with all"):
        find_views(*places)
    with pytest.raises(DatasetError, match="as many files"):
        find_views(*places, pair="order")


def test_pairing_in_order_counts(tmp_path: Path):
    """DSC_9 is taken before DSC_10, and two files of one name would be written as one."""
    image = np.zeros((4, 4, 3), np.uint8)
    for number in range(3):
        write(tmp_path / "defocused" / f"DSC_{8 + number}.png", image)
        write(tmp_path / "sharp" / f"{1 + number}.png", image)
    places = (tmp_path / "defocused", tmp_path / "sharp")
    views, _ = find_views(*places, pair="order")
    assert {v.name: v.sharp.stem for v in views} == {"DSC_8": "1", "DSC_9": "2", "DSC_10": "3"}
    write(tmp_path / "defocused" / "DSC_9.tif", image)
    write(tmp_path / "sharp" / "4.png", image)
    with pytest.raises(DatasetError, match="one file of each name"):
        find_views(*places, pair="order")


def test_a_lone_value_in_a_gap_is_not_its_own_neighbour():
    """It would be in-painted with, for 20 pixels around."""
    rows, columns = np.mgrid[:60, :80]
    depth = np.full((60, 80), 2.0, np.float32)
    depth[:, 60:] = 3.0
    gap = (rows - 30) ** 2 + (columns - 40) ** 2 < 100
    depth[gap] = np.nan
    depth[30, 40] = 6.0
    clean = denoise_depth(depth)
    assert np.isnan(clean[gap]).all()
    np.testing.assert_array_equal(clean[~gap], depth[~gap])
    assert np.nanmax(inpaint_depth(clean, "nearest")[0]) == 3.0


def test_where_most_values_are_lone_they_are_kept():
    """A laser's map has hardly a value with a neighbour: that tells nothing of any of them."""
    depth = np.full((40, 40), np.nan, np.float32)
    depth[::4, ::4] = 2.0
    np.testing.assert_array_equal(denoise_depth(depth), depth)


def test_denoising_removes_lone_values_and_keeps_edges():
    depth = np.full((40, 40), 2.0, np.float32)
    depth[:, 20:] = 3.0
    noisy = depth.copy()
    noisy[10, 10], noisy[30, 30] = 0.5, 9.0
    noisy[5, 5] = np.nan
    clean = denoise_depth(noisy)
    assert np.isnan(clean[[10, 30, 5], [10, 30, 5]]).all()
    assert np.isnan(clean).sum() == 3
    np.testing.assert_array_equal(clean[np.isfinite(clean)], depth[np.isfinite(clean)])


def test_what_lies_beyond_reach_is_no_neighbour_of_what_is_filled():
    depth = np.tile(np.linspace(2, 3, 80, dtype=np.float32), (60, 1))
    depth += 0.2 * np.sin(np.arange(60, dtype=np.float32) / 5)[:, None]
    depth[:, 50:] = np.nan
    near, far = (inpaint_depth(depth, "smooth", reach_px=reach)[0] for reach in (4, 20))
    both = np.isfinite(near)
    assert both[:, 50:53].all()
    np.testing.assert_array_equal(near[both], far[both])


def test_a_cut_map_lies_as_its_image_does():
    """A pixel of a map that is a quarter as large shows what the image shows there."""
    columns = np.arange(64, dtype=np.float32)
    depth, image = np.tile(columns, (64, 1)), np.tile(columns[None, :, None], (64, 1, 3))
    box = Box(0, 0, 64, 64)
    small, seen = (cut(each, box, (16, 16)) for each in (depth, image.astype(np.uint8)))
    assert np.abs(small - seen[..., 0]).max() <= 0.5 + 1e-6


def test_inpainting_reaches_only_so_far():
    depth = np.tile(np.linspace(2, 3, 80, dtype=np.float32), (60, 1))
    holed = depth.copy()
    holed[20:24, 20:24] = np.nan
    holed[:, 50:] = np.nan
    for how in ("nearest", "smooth"):
        filled, share = inpaint_depth(holed, how, reach_px=10)
        assert np.abs(filled[20:24, 20:24] - depth[20:24, 20:24]).max() < 0.03
        assert np.isfinite(filled[:, 50:58]).all()
        assert np.isnan(filled[:, 62:]).all()
        known = np.isfinite(holed)
        np.testing.assert_array_equal(filled[known], holed[known])
        assert share == pytest.approx((np.isfinite(filled).sum() - known.sum()) / filled.size)
    assert np.isnan(inpaint_depth(holed, "none")[0][22, 22])


def test_largest_box_is_the_largest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        valid = rng.random((9, 11)) < 0.7
        best = 0
        for top in range(9):
            for left in range(11):
                for bottom in range(top + 1, 10):
                    for right in range(left + 1, 12):
                        if valid[top:bottom, left:right].all():
                            best = max(best, (bottom - top) * (right - left))
        box = largest_box(valid)
        assert box.height * box.width == best
        assert valid[box.slices].all()
    big = np.zeros((500, 700), bool)
    big[33:480, 51:699] = True
    box = largest_box(big)
    assert big[box.slices].all()
    assert box.height * box.width > 0.98 * big.sum()
    assert common([Box(0, 0, 10, 10), Box(4, 6, 10, 10)]) == Box(4, 6, 6, 4)
    assert common([Box(0, 0, 3, 3), Box(5, 5, 3, 3)]).height == 0


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data set at {DATA}")
def test_real_pairs_of_two_apertures(tmp_path: Path):
    """Three of the DSLR set's test pairs: found by time, registered to a fraction of a pixel."""
    pick = ("17:26:34", "17:42:03", "17:48:27")
    for aperture, kind in (("N2_8", "defocused"), ("N8", "sharp")):
        folder = DATA / f"dfd_dataset_indoor_{aperture}" / "rgb" / "test"
        (tmp_path / kind).mkdir()
        for path in folder.iterdir():
            if any(stamp in path.name for stamp in pick):
                (tmp_path / kind / path.name).symlink_to(path)
    command = ["--defocused", str(tmp_path / "defocused"), "--sharp", str(tmp_path / "sharp"),
               "--depth", str(DATA / "dfd_dataset_indoor_N2_8" / "depth" / "test"),
               "--pair", "time", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    summary = json.loads((tmp_path / "out" / "registration.json").read_text())["summary"]
    assert summary["written"] == 3
    assert summary["sharp_error_px"]["max"] < 0.5
    sample = open_dataset("folder", tmp_path / "out")[0]
    assert sample.depth_m.shape == sample.sharp_rgb.shape[:2]
    assert min(sample.depth_m.shape) > 400
