"""The page of claims: verdicts follow from the numbers, fits from their data, the run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddfd_training import claims_measure, claims_report, claims_run
from ddfd_training.claims_2hded import natural_beats_synthetic, two_heads
from ddfd_training.claims_check import PSNR, Difference, Results, compare, growth
from ddfd_training.claims_findings import all_findings
from ddfd_training.claims_measure import _overlap, measure, measure_constant
from ddfd_training.claims_plan import load_plan
from ddfd_training.claims_tables import answers_cell, depth_rows
from ddfd_training.evaluate_items import Item
from ddfd_training.losses import NAMED_LOSSES

PLAN = Path(__file__).parents[2] / "training/claims.yaml"


def result(arm: str, seed: int, rmse: list[float], power: float = 1.0) -> dict:
    """A result file with these errors of its images, and errors that grow with depth."""
    bins = [
        {"from_m": d - 0.25, "to_m": d + 0.25, "pixels": 100, "rmse": 0.1 * d**power}
        for d in np.arange(0.75, 9.0, 0.5)
    ]
    errors = {"rmse": float(np.mean(rmse)), "abs_rel": 0.1, "delta1": 0.9}
    test = {
        "images": len(rmse),
        "depth": {"mean_over_images": errors},
        "depth_bins": bins,
        "by_image": [{"frame": str(i), "rmse": value} for i, value in enumerate(rmse)],
    }
    head = {"network": "ddfd-lite", "steps": 5, "crops": 40, "crop_px": 96, "parameters": 1000}
    return {"arm": arm, "seed": seed, "tests": {"one": test}, "machine": {"cpu": "a"},
            "training_seconds": 60.0, **head}  # fmt: skip


def write(folder: Path, *results: dict) -> Results:
    folder.mkdir(exist_ok=True)
    for item in results:
        target = folder / f"{item['arm']}-seed{item['seed']}.json"
        target.write_text(json.dumps(item), encoding="utf-8")
    return Results(folder)


@pytest.mark.parametrize(
    ("by_seed", "low", "high", "verdict"),
    [
        ((0.1, 0.2), 0.05, 0.3, "holds"),
        ((-0.1, -0.2), -0.3, -0.05, "fails"),
        ((0.1, -0.2), 0.05, 0.3, "undecided"),
        ((0.1, 0.2), -0.05, 0.3, "undecided"),
        ((0.1,), float("nan"), float("nan"), "undecided"),
        ((0.1, 0.2), float("nan"), float("nan"), "holds"),
        ((-0.1, -0.2), float("nan"), float("nan"), "fails"),
        ((0.1,), 0.05, 0.3, "holds"),
        ((0.1, float("nan")), float("nan"), float("nan"), "undecided"),
        ((0.1, 0.2), -0.3, -0.1, "undecided"),
    ],
)
def test_verdicts(by_seed, low, high, verdict) -> None:
    assert Difference(1.0, 1.2, by_seed, low, high).verdict == verdict


@pytest.mark.parametrize(
    ("by_seed", "low", "basis"),
    [
        ((0.1,), float("nan"), "one training a side, no interval"),
        ((0.1, 0.2), float("nan"), "seeds, no interval"),
        ((0.1,), 0.05, "one training a side and images"),
        ((0.1, 0.2), 0.05, "seeds and images"),
    ],
)
def test_a_verdict_says_what_it_is_judged_by(by_seed, low, basis) -> None:
    assert Difference(1.0, 1.2, by_seed, low, low + 0.1).basis == basis


def test_comparison_pairs_seeds_and_images(tmp_path: Path) -> None:
    """Only common seeds count; the interval over images is around the mean gain."""
    good = [0.2, 0.3, 0.4, 0.5] * 10
    results = write(
        tmp_path,
        result("focus-8m", 1, good),
        result("focus-8m", 2, good),
        result("focus-sharp", 1, [value + 0.1 for value in good]),
    )
    found = compare(results, "focus-8m", "focus-sharp")
    assert found is not None
    assert found.by_seed == pytest.approx((0.1,))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert compare(results, "focus-sharp", "focus-8m").verdict == "fails"
    assert compare(results, "focus-8m", "focus-2m") is None


def sharpened(arm: str, seed: int, psnr: list[float | None]) -> dict:
    """A result file with these PSNRs of its images; ``None``: equal to the truth."""
    item = result(arm, seed, [0.1] * len(psnr))
    test = item["tests"]["one"]
    mean = float(np.mean([value for value in psnr if value is not None]))
    quality = {"psnr": mean, "ssim": 0.9}
    test["all_in_focus"] = {"input": {"psnr": 28.0}, "output": quality}
    test["by_image"] = [{"frame": str(i), "psnr": value} for i, value in enumerate(psnr)]
    return item


def test_images_have_a_say_on_psnr_where_the_files_hold_it(tmp_path: Path) -> None:
    """The same means: undecided by images that disagree, judged by seeds where none are kept."""
    apart, alike = [24.0, 38.0] * 10, [30.8, 31.0] * 10
    files = [sharpened("heads-both", seed, apart) for seed in (1, 2)]
    files += [sharpened("heads-sharp", seed, alike) for seed in (1, 2)]
    found = compare(write(tmp_path, *files), "heads-both", "heads-sharp", PSNR, sign=1)
    assert found.by_seed == pytest.approx((0.1, 0.1))
    assert found.low < 0 < found.high
    assert found.verdict == "undecided"
    for item in files[2:]:
        item["tests"]["one"]["by_image"] = []  # as older files are
    results = write(tmp_path, *files)
    finding = two_heads(results)[1]
    assert (finding.verdict, finding.basis) == ("holds", "seeds, no interval")
    assert "no interval over images" in finding.text


def test_images_equal_to_their_truth_do_not_enter_the_interval(tmp_path: Path) -> None:
    results = write(
        tmp_path,
        sharpened("heads-both", 1, [31.0, 32.0, None]),
        sharpened("heads-sharp", 1, [30.0, 31.0, 32.0]),
    )
    found = compare(results, "heads-both", "heads-sharp", PSNR, sign=1)
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))


def constant(rmse: list[float]) -> dict:
    """The result file of always answering the mean depth."""
    item = result("constant", 0, rmse)
    item["tests"]["one"]["depth_m"] = 2.5
    return item


@pytest.mark.parametrize(
    ("mean_rmse", "verdict", "basis"),
    [
        (0.3, "undecided", "neither side beats answering the mean"),
        (0.55, "holds", "seeds and images"),
    ],
)
def test_a_claim_needs_a_side_that_beats_the_mean_depth(
    tmp_path: Path, mean_rmse: float, verdict: str, basis: str
) -> None:
    good, bad = [0.4, 0.5] * 10, [0.6, 0.7] * 10
    results = write(
        tmp_path,
        *(result("dslr-natural", seed, good) for seed in (1, 2)),
        *(result("dslr-rendered", seed, bad) for seed in (1, 2)),
        constant([mean_rmse] * 20),
    )
    finding = natural_beats_synthetic(results)[1]
    assert (finding.verdict, finding.basis) == (verdict, basis)
    assert finding.rows[-1][:3] == ("always the training's mean, 2.50 m (one)", "-",
                                    f"{mean_rmse:.3f}")  # fmt: skip


def test_each_test_has_one_row_of_the_mean_depth(tmp_path: Path) -> None:
    """Arms on tests with the same truth share a row; another truth gets its own."""
    mean = constant([0.5])
    (test,) = mean["tests"].values()
    other = json.loads(json.dumps(test))
    other["depth"]["mean_over_images"]["rmse"] = 0.7
    mean["tests"] = {"one": test, "two": test, "three": other}
    arms = {}
    for name in mean["tests"]:
        item = result(name, 1, [0.4])
        item["tests"] = {name: item["tests"]["one"]}
        arms[name] = item
    rows = depth_rows(write(tmp_path, mean, *arms.values()), {name: name for name in arms})
    assert [row[0] for row in rows[3:]] == [
        "always the training's mean, 2.50 m (one, two)",
        "always the training's mean, 2.50 m (three)",
    ]


@pytest.mark.parametrize(
    ("rise", "cell"), [(0.0, "2.50 to 2.50 (one depth)"), (1.0, "1.00 to 5.00")]
)
def test_a_network_that_answers_one_depth_is_marked(rise: float, cell: str) -> None:
    bins = [
        {"from_m": d - 0.25, "to_m": d + 0.25, "share": 0.1, "bias_m": (1 - rise) * (2.5 - d)}
        for d in (1.0, 3.0, 5.0)
    ]
    rare = {"from_m": 8.0, "to_m": 8.5, "share": 0.001, "bias_m": -4.0}
    assert answers_cell([{"tests": {"one": {"depth_bins": [*bins, rare]}}}]) == cell


class Fixed:
    """Always the same answers."""

    def __init__(self, **answers: np.ndarray) -> None:
        self._answers = answers

    def infer(self, image, heads=None):
        return self._answers


def test_result_files_keep_every_measure_image_by_image() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    depth_m = rng.uniform(1.0, 5.0, (32, 40)).astype(np.float32)
    items = [Item(str(i), sharp, depth_m, sharp_rgb=255 - sharp if i else None) for i in (0, 1)]
    result = measure(Fixed(depth_m=depth_m + 0.1, sharp_rgb=sharp), items, edges=True)
    first, second = result["by_image"]
    assert first.keys() == {"frame", "rmse", "abs_rel", "delta1", "edge_kld"}
    assert second.keys() == {*first, "psnr", "ssim"}
    assert second["psnr"] == pytest.approx(result["all_in_focus"]["output"]["psnr"])
    assert second["edge_kld"] == pytest.approx(result["depth"]["edge_kld"])
    plain = measure(Fixed(sharp_rgb=sharp), items[1:], edges=False)["by_image"]
    assert plain[0].keys() == {"frame", "psnr", "ssim"}  # of a network without depth


class Frames:
    """Two frames of depth, opened as a source is; the second is partly unknown."""

    frames = (0, 1)

    def item(self, frame):
        corners_m = np.array([[0.1, 2.0], [3.0, np.nan if frame else 12.0]], np.float32)
        depth_m = corners_m.repeat(16, axis=0).repeat(16, axis=1)
        image = np.zeros((32, 32, 3), np.uint8)
        known = np.zeros((32, 32), bool)
        return {"image": image, "depth_m": depth_m, "sharp_rgb": image, "sharp_known": known}


def test_the_mean_depth_is_of_clipped_training_depths(tmp_path: Path, monkeypatch) -> None:
    """It is computed once for tests of the same training, and each test is answered with it."""
    opened = []
    monkeypatch.setattr(
        claims_measure, "open_source", lambda source, *rest: opened.append(source) or Frames()
    )
    plan = load_plan(PLAN)
    tests = measure_constant(plan, tmp_path, "cache")
    assert tests.keys() == {test for arm in plan.arms.values() for test in arm.tests}
    expected = (2 * (0.5 + 2.0 + 3.0) + 10.0) / 7
    assert [test["depth_m"] for test in tests.values()] == pytest.approx([expected] * len(tests))
    errors = expected - np.array([0.5, 2.0, 3.0])
    second = tests["dslr-n8"]["by_image"][1]
    assert second["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert "edge_kld" in tests["nyu-8m"]["by_image"][0]
    assert len(opened) == len(tests) + 3  # NYUv2 once, the DSLR set at each aperture
    assert ("constant", 0) in claims_run.all_jobs(plan)
    assert claims_run.job_name("constant", 0) == "constant"


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_growth_finds_the_exponent(power: float) -> None:
    fit = growth([result("a", 1, [0.1], power)], 1.0, 7.0)
    assert fit.power == pytest.approx(power, abs=1e-6)
    explained = fit.r2_quadratic if power == 2.0 else fit.r2_linear
    assert explained == pytest.approx(1.0)
    assert min(fit.r2_quadratic, fit.r2_linear) < 0.999


def test_page_says_what_holds_fails_and_was_not_run(tmp_path: Path, capsys) -> None:
    good, bad = [0.2, 0.3, 0.4, 0.5], [0.5, 0.6, 0.7, 0.8]
    write(
        tmp_path / "results",
        *(result("focus-8m", seed, good, 2.0) for seed in (1, 2)),
        *(result("focus-sharp", seed, bad) for seed in (1, 2)),
        *(result("focus-2m", seed, bad) for seed in (1, 2)),
    )
    page = tmp_path / "docs/claims.md"
    arguments = ["--results", str(tmp_path / "results"), "--page", str(page)]
    assert claims_report.main(arguments) == 0
    text = page.read_text(encoding="utf-8")
    title = "Defocused images give better depth than sharp ones"
    assert f"| {title} | **holds** | seeds and images |" in text
    assert "better depth than a far one (8 m) | **fails** | seeds and images |" in text
    assert "Always answering the mean depth was not measured" in text
    assert "**not run**" in text
    assert "Of 12 claims: 2 hold, 1 fails, 9 were not run." in text
    assert "the fitted exponent of depth is 2.00" in text
    assert "gain by seed +0.300, +0.300" in text
    assert (page.parent / "images/claims_depth.png").stat().st_size > 1000
    assert claims_report.main(["--results", str(tmp_path / "none"), "--page", str(page)]) == 2
    assert "claims_run first" in capsys.readouterr().err


def test_plan_names_tests_and_losses_that_exist() -> None:
    """Every recipe can be built; both sides of a claim have the same steps and crops."""
    plan = load_plan(PLAN)
    recipes = [plan.recipe(arm, 1, Path("data"), 1.0) for arm in plan.arms]
    assert {config.loss.name for config in recipes} <= set(NAMED_LOSSES)
    assert len({(c.steps, c.data.batch_size, c.data.crop_px) for c in recipes}) == 1
    assert plan.baseline.test in plan.tests
    claimed = {finding.verdict for finding in all_findings(Results("nowhere"))}
    assert claimed == {"not run"}


def test_plan_of_the_tables_needs_no_baseline() -> None:
    """The papers' networks for the table: one seed, no classical method, tests of the table."""
    plan = load_plan(PLAN.with_name("tables.yaml"))
    jobs = claims_run.all_jobs(plan)
    assert (claims_run.BASELINE, 0) not in jobs
    networks = {plan.recipe(arm, seed, Path("d"), 1.0).network.name for arm, seed in jobs}
    assert networks == {"d3net", "2hded"}
    known = {"nyu-sharp", "nyu-2m", "nyu-4m", "nyu-8m", "dslr-n2.8", "dslr-n8"}
    assert {test for arm in plan.arms.values() for test in arm.tests} == known


def test_unknown_settings_are_named(tmp_path: Path) -> None:
    text = PLAN.read_text(encoding="utf-8")
    broken = tmp_path / "plan.yaml"
    broken.write_text(text.replace("tests: [nyu-4m]", "tests: [nyu-5m]"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"arms\.focus-4m\.tests: .*got nyu-5m"):
        load_plan(broken)
    broken.write_text(text.replace("nyu-4m: *nyu-frames", "nyu-5m: *nyu-frames"), "utf-8")
    with pytest.raises(ValueError, match=r"constant: .*got nyu-5m"):
        load_plan(broken)
    broken.write_text(text + "\nspeed: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unknown settings speed"):
        load_plan(broken)


def test_what_has_a_result_is_not_done_again(tmp_path: Path, monkeypatch, capsys) -> None:
    done = []

    def job(plan, arm, seed, arguments):
        done.append((arm, seed))
        return {"arm": arm, "value": float("nan"), "other": 1 / 3}

    monkeypatch.setattr(claims_run, "run_job", job)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "focus-2m-seed1.json").write_text("{}", encoding="utf-8")
    arguments = ["--plan", str(PLAN), "--results", str(folder), "--only", "focus-*"]
    assert claims_run.main([*arguments, "--list"]) == 0
    assert done == []
    assert claims_run.main(arguments) == 0
    assert ("focus-2m", 1) not in done
    assert ("focus-2m", 2) in done
    assert ("focus-4m", 2) not in done  # one seed, says the plan
    assert done.index(("focus-4m", 1)) < done.index(("focus-8m", 2))
    written = json.loads((folder / "focus-8m-seed2.json").read_text(encoding="utf-8"))
    assert written == {"arm": "focus-8m", "value": None, "other": 0.33333}
    assert "focus-2m-seed1: done" in capsys.readouterr().out
    assert claims_run.main(["--plan", str(tmp_path / "none.yaml")]) == 2


def test_only_what_the_sharp_companion_covers_is_compared():
    known = np.zeros((6, 8), bool)
    known[1:5, 2:7] = True
    view = {
        "sharp_known": known,
        "image": np.arange(6 * 8 * 3).reshape(6, 8, 3),
        "lens": np.array([1.0, 2.0]),
    }
    part = _overlap(view)
    assert part["sharp_known"].shape == (4, 5)
    assert part["sharp_known"].all()
    np.testing.assert_array_equal(part["image"], view["image"][1:5, 2:7])
    assert part["lens"] is view["lens"]
    nothing = _overlap({**view, "sharp_known": np.zeros((6, 8), bool)})
    assert nothing["image"].shape == (6, 8, 3)
