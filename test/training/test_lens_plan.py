"""The lens planner against blur counted by hand and against a search for what it states."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training import lens_cli
from ddfd_training.calibration.report import write_record
from ddfd_training.lens_advice import advice, best_focus, choices, focus_before, suggest
from ddfd_training.lens_plan import LARGEST_BLUR_PX, Plan, distances_m, sensor_size_mm

NYU = LENS_PRESETS["nyu-2m"]
TEAM = LensConfig(12e-3, 1.4, math.inf, 7.18e-3 / 640)
"""12 mm f/1.4 on a 1/1.8" sensor, 640 px wide."""


def blur_px(lens: LensConfig, depth_m: np.ndarray) -> np.ndarray:
    """Unsigned blur as D3-Net prints it: D s |1/f - 1/d - 1/s|, in pixels."""
    f = lens.focal_length_m
    s = 1 / (1 / f - 1 / lens.focus_distance_m)
    return f / lens.f_number * s * np.abs(1 / f - 1 / depth_m - 1 / s) / lens.pixel_pitch_m


@pytest.mark.parametrize(("depth_m", "expected"), [(0.7, 13.4), (1, 7.2), (3, 2.4), (10, 5.8)])
def test_rows_reproduce_the_published_blur_to_one_percent(depth_m: float, expected: float):
    rows = Plan(NYU, min(depth_m, 0.9), max(depth_m, 5.0)).rows()
    found = [row for row in rows if row["depth_m"] == depth_m]
    blur = found[0]["blur_px"] if found else float(NYU.coc_px(depth_m))
    assert blur == pytest.approx(expected, rel=0.01)


def test_the_step_is_the_distance_that_half_a_pixel_more_means():
    plan = Plan(LENS_PRESETS["nyu-8m"], 0.7, 6.0)
    for depth_m in (0.7, 1.0, 2.0):
        blur = float(plan.lens.signed_coc_px(depth_m))
        either_side = (plan.lens.depth_m(blur + 0.5) - plan.lens.depth_m(blur - 0.5)) / 2
        assert plan.step_m(depth_m) == pytest.approx(either_side, rel=0.01)
    # A = 14.4 px per dioptre, 0.5 px: 3.5 cm at 1 m, 14 cm at 2 m, 31 cm at 3 m, 87 cm at 5 m
    for depth_m, step_m in ((1, 0.035), (2, 0.14), (3, 0.31), (5, 0.87)):
        assert plan.step_m(depth_m) == pytest.approx(step_m, rel=0.02)
    assert plan.step_m(plan.reach_m(0.1)) == pytest.approx(0.1 * plan.reach_m(0.1))


@pytest.mark.parametrize("focus_m", [0.4, 1.0, 2.0, 4.9, 30.0, math.inf])
def test_dead_zone_and_ambiguity_are_where_a_search_finds_them(focus_m: float):
    plan = Plan(TEAM, 0.5, 5.0).focused(focus_m)
    depth_m = np.linspace(0.5, 5.0, 20001)
    blur = blur_px(plan.lens, depth_m)
    dead = depth_m[blur < 1.0]
    if dead.size == 0:
        assert plan.dead_zone_m is None
    else:
        assert plan.dead_zone_m == pytest.approx((dead.min(), dead.max()), abs=1e-3)
    inside = (depth_m > focus_m) if math.isfinite(focus_m) else np.zeros_like(depth_m, bool)
    near, far = blur[~inside], blur[inside]
    if not near.size or not far.size:
        assert plan.ambiguous_m is None
    else:
        shared = min(near.max(), far.max())
        twice = depth_m[blur <= shared + 1e-9]
        assert plan.ambiguous_m == pytest.approx((twice.min(), twice.max()), abs=1e-3)


def test_twins_have_the_same_blur():
    for row in Plan(NYU, 0.7, 10).rows():
        if row["twin_m"] is not None:
            both = blur_px(NYU, np.array([row["depth_m"], row["twin_m"]]))
            assert both[0] == pytest.approx(both[1])
        else:
            twin = Plan(NYU, 0.7, 10).twin_m(row["depth_m"])
            assert not 0.7 <= twin <= 10


@pytest.mark.parametrize("lens", [TEAM, NYU, LENS_PRESETS["idfd"]])
def test_the_advised_focus_leaves_just_the_dead_zone_behind_the_range(lens: LensConfig):
    best = best_focus(Plan(lens, 0.6, 3.0))
    assert best.one_sided
    assert best.usable == 1.0
    assert best.plan.dead_zone_m is None
    assert blur_px(best.plan.lens, np.array([3.0]))[0] == pytest.approx(1.0, rel=1e-3)
    before = Plan(lens, 0.6, 3.0).focused(focus_before(Plan(lens, 0.6, 3.0)))
    assert before.lens.focus_distance_m < 0.6
    assert blur_px(before.lens, np.array([0.6]))[0] == pytest.approx(1.0, rel=1e-3)


def test_a_weak_lens_is_focused_at_infinity_and_its_dead_zone_is_told():
    weak = LensConfig(4e-3, 2.8, 2.0, 7.18e-3 / 640)
    best = best_focus(Plan(weak, 0.5, 5.0))
    assert best.name == "infinity"
    assert best.plan.dead_zone_m is not None
    assert best.usable < 1
    assert any("less than 1 px" in line for line in advice(best.plan))


def test_advice_says_what_is_wrong():
    inside = " ".join(advice(Plan(TEAM, 0.5, 5.0).focused(2.0)))
    assert "two distances" in inside
    assert "behind everything" in inside
    fine = " ".join(advice(best_focus(Plan(TEAM, 0.5, 1.5)).plan))
    assert "10 % everywhere" in fine
    strong = Plan(LensConfig(50e-3, 1.4, math.inf, 7.18e-3 / 640), 0.5, 5.0)
    assert "largest blur" in " ".join(advice(strong))


def test_advice_on_large_blur_names_the_end_where_it_is():
    plan = Plan(LensConfig(50e-3, 1.4, math.inf, 7.18e-3 / 640), 0.5, 5.0)
    before = plan.focused(0.3)
    text = " ".join(advice(before))
    assert f"nearer than {before.lens.far_limit_m(LARGEST_BLUR_PX):.2f} m" in text
    assert "farther than" not in text
    assert "nearer than" not in " ".join(advice(plan))
    both = " ".join(advice(plan.focused(1.0)))
    assert "farther than" in both
    assert "and nearer than" in both


def test_choices_do_not_repeat_themselves():
    plan = best_focus(Plan(TEAM, 0.5, 5.0)).plan
    names = [choice.name for choice in choices(plan, "advised")]
    assert names == ["advised", "infinity", "before"]


def test_suggestions_keep_within_the_blur_and_are_in_order():
    rows = suggest((7.18, 5.32), 640, 0.5, 5.0, largest_blur_px=25)
    assert [row["step_far_m"] for row in rows] == sorted(row["step_far_m"] for row in rows)
    for row in rows:
        focus_m = row["focus_distance_m"] or math.inf
        lens = LensConfig(row["focal_length_mm"] / 1000, row["f_number"], focus_m, 7.18e-3 / 640)
        assert blur_px(lens, np.linspace(0.5, 5, 50)).max() <= 25.0
    wide = next(row for row in rows if row["focal_length_mm"] == 4)
    assert wide["view_deg"] == pytest.approx(2 * math.degrees(math.atan(3.59 / 4)))


def test_sensors_by_name_and_by_size():
    assert sensor_size_mm('1/1.8"') == sensor_size_mm("1/1.8") == (7.18, 5.32)
    assert sensor_size_mm("7.2x5.4") == sensor_size_mm("7.2 x 5.4 mm") == (7.2, 5.4)
    for wrong in ("huge", "3x", "0x4"):
        with pytest.raises(ValueError, match="width x height"):
            sensor_size_mm(wrong)


def test_distances_are_round_and_hold_both_ends():
    found = distances_m(0.5, 5.0, 10)
    assert found[0] == 0.5
    assert found[-1] == 5.0
    assert found == sorted(set(found))
    assert all(float(f"{value:.2g}") == value for value in found)


@pytest.mark.parametrize("wrong", [(2.0, 1.0), (0.0, 3.0), (1.0, math.inf)])
def test_an_empty_range_is_refused(wrong: tuple[float, float]):
    with pytest.raises(ValueError, match="nearest < farthest"):
        Plan(NYU, *wrong)


CAMERA = ["--focal", "12", "--f-number", "1.4", "--sensor", "1/1.8", "--width", "640"]


def test_the_command_writes_table_plot_and_json(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "plan"
    assert lens_cli.main([*CAMERA, "--range", "0.5", "5", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "9.18 px per dioptre" in text
    assert "lens: {focal_length_m: 0.012" in text
    result = json.loads((out / "lens.json").read_text())
    lens = LensConfig(**result["lens"])
    assert lens.focus_distance_m == pytest.approx(10.98, abs=0.01)
    for row in result["rows"]:
        assert row["blur_px"] == pytest.approx(blur_px(lens, np.array([row["depth_m"]]))[0])
    assert result["plan"]["ambiguous_m"] is None
    assert result["choices"]["infinity"]["focus_distance_m"] is None
    assert cv2.imread(str(out / "lens.png")).shape[1] > 1000


def test_the_command_takes_a_focus_and_presets(capsys: pytest.CaptureFixture):
    assert lens_cli.main([*CAMERA, "--range", "0.5", "5", "--focus", "inf"]) == 0
    assert "focus infinity" in capsys.readouterr().out
    assert lens_cli.main(["--lens", "nyu-2m", "--range", "0.7", "10"]) == 0
    assert "-13.43" in capsys.readouterr().out
    assert (
        lens_cli.main(["--suggest", "--sensor", "2/3", "--width", "640", "--range", "1", "4"]) == 0
    )
    assert "most exact first" in capsys.readouterr().out


def test_a_calibration_is_scaled_to_the_width(tmp_path: Path):
    path = write_record(LensCalibration(NYU, 640, 480), tmp_path / "measured.yaml")
    for width, scale in ((None, 1.0), ("320", 0.5)):
        size = [] if width is None else ["--width", width]
        asked = ["--lens", str(path), *size, "--range", "0.7", "10", "--out", str(tmp_path)]
        assert lens_cli.main(asked) == 0
        lens = LensConfig(**json.loads((tmp_path / "lens.json").read_text())["lens"])
        assert lens.px_per_dioptre == pytest.approx(scale * NYU.px_per_dioptre)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lens", "nyu-2m", *CAMERA, "--range", "1", "4"], "no --focal, --f-number, --sensor"),
        (["--lens", "nyu-2m", "--pitch", "5", "--range", "1", "4"], "no --pitch beside it"),
        (["--range", "1", "4"], "expected a lens"),
        ([*CAMERA[:4], "--range", "1", "4"], "pixels' size"),
        ([*CAMERA[:6], "--range", "1", "4"], "expected also --width"),
        ([*CAMERA, "--range", "4", "1"], "nearest < farthest"),
        ([*CAMERA, "--range", "1", "4", "--focus", "0.001"], "more than the focal length"),
        ([*CAMERA[:4], "--pitch", "5", *CAMERA[4:], "--range", "1", "4"], "got both"),
        (
            [*CAMERA[:4], "--pitch", "5", "--width", "640", "--range", "1", "4"],
            "none with --pitch",
        ),
        (["--lens", "nyu-2m", "--width", "320", "--range", "1", "4"], "none with a preset"),
        ([*CAMERA, "--range", "1", "4", "--rows", "0"], "--rows: expected 1 or more"),
        (["--suggest", *CAMERA, "--range", "1", "4"], "no --focal, --f-number beside it"),
        (["--suggest", *CAMERA[4:], "--focus", "3", "--range", "1", "4"], "no --focus beside it"),
        (["--suggest", "--range", "1", "4"], "expected --sensor and --width"),
        (["--suggest", *CAMERA[4:], "--range", "1", "4", "--largest-blur", "0.1"], "found none"),
    ],
)
def test_wrong_questions_end_with_code_2_and_a_hint(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
):
    assert lens_cli.main(arguments) == 2
    assert message in capsys.readouterr().err
