"""The page of claims: verdicts follow from the numbers, fits from their data, the run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddfd_training import claims_report, claims_run
from ddfd_training.claims_check import Difference, Results, compare, growth
from ddfd_training.claims_findings import all_findings
from ddfd_training.claims_measure import _overlap
from ddfd_training.claims_plan import load_plan
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
        ((0.1,), float("nan"), float("nan"), "holds"),
        ((0.1, 0.2), -0.3, -0.1, "undecided"),
    ],
)
def test_verdicts(by_seed, low, high, verdict) -> None:
    assert Difference(1.0, 1.2, by_seed, low, high).verdict == verdict


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
    assert "| Defocused images give better depth than sharp ones | **holds** |" in text
    assert "better depth than a far one (8 m) | **fails** |" in text
    assert "**not run**" in text
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
