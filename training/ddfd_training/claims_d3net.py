"""D3-Net's claims (Carvalho 2018) as questions to the result files."""

from __future__ import annotations

import numpy as np

from ddfd_training.claims_check import (
    FAILS,
    HOLDS,
    MISSING,
    Difference,
    Finding,
    Results,
    bootstrap,
    growth,
    test_of,
)
from ddfd_training.claims_tables import DEPTH_HEAD, depth_rows, gain_text, judge, two_sides

GROWTH_RANGE_M = (1.0, 7.0)


def defocus_beats_sharp(results: Results) -> Finding:
    """D3-Net table 1: .706 m on sharp images, .274 to .398 m on defocused ones."""
    arms = {
        "focus-8m": "defocused, focus 8 m",
        "focus-sharp": "sharp",
        "focus-4m": "defocused, focus 4 m",
        "focus-2m": "defocused, focus 2 m",
    }
    return two_sides(
        "Defocused images give better depth than sharp ones",
        "Carvalho 2018, table 1 (rms .706 m sharp; .274, .398, .324 m focused at 2, 4, 8 m)",
        results,
        arms,
        "Compared: focus at 8 m, and sharp.",
    )


def near_focus_beats_far(results: Results) -> Finding:
    """D3-Net section 3.3: the best setting is the focus plane at 2 m."""
    arms = {"focus-2m": "focus 2 m", "focus-8m": "focus 8 m", "focus-4m": "focus 4 m"}
    return two_sides(
        "A near focus plane (2 m) gives better depth than a far one (8 m)",
        "Carvalho 2018, table 1 and section 3.3 (rms .274 m at 2 m, .324 m at 8 m)",
        results,
        arms,
        "A focus inside the scene blurs near and far things alike; only context tells them apart, "
        "and small crops and a small network have little of it.",
    )


def network_beats_classical(results: Results) -> Finding:
    """D3-Net table 1: .324 m against .981 m for Zhuo and Sim, focus 8 m."""
    title = "The network beats a classical single-image method"
    source = "Carvalho 2018, table 1 (focus 8 m: rms .324 m, Zhuo and Sim .981 m)"
    classical, ours = results.of("zhuo-sim"), results.of("focus-8m")
    if not classical or not ours:
        return Finding(title, source, MISSING, "No result files of both sides.")
    theirs = {row["frame"]: row["rmse"] for row in test_of(classical[0])["by_image"]}
    means = []
    for result in ours:
        own = {row["frame"]: row["rmse"] for row in test_of(result)["by_image"]}
        means.append(np.array([own[frame] for frame in theirs]))
    gains = np.array(list(theirs.values())) - np.mean(means, axis=0)
    low, high = bootstrap(gains)
    found = Difference(
        float(np.mean(means)),
        float(np.mean(list(theirs.values()))),
        tuple(float(np.mean(list(theirs.values())) - m.mean()) for m in means),
        low,
        high,
    )
    fitted = test_of(classical[0])["calibration"]
    text = (
        f"On the {len(theirs)} test frames both have answered: rms error {gain_text(found)}. The "
        f"classical method was calibrated on {fitted['edge_pixels']} edge pixels of training "
        f"frames (standard deviation {fitted['ratio']:.2f} of the blur diameter, "
        f"{fitted['rest_px']:.1f} px at a sharp edge)."
    )
    rows = depth_rows(
        results, {"focus-8m": "network, all test frames", "zhuo-sim": "Zhuo and Sim"}
    )
    verdict, basis = judge(results, found, ("focus-8m", "zhuo-sim"))
    return Finding(title, source, verdict, text, DEPTH_HEAD, rows, basis)


def _mean_std(results: Results, arm: str) -> list[np.ndarray]:
    """Mean model deviation of each studied frame, for each seed."""
    return [
        np.array([row["model_std_m"] for row in test_of(r)["uncertainty"]["by_image"]])
        for r in results.of(arm)
        if "uncertainty" in test_of(r)
    ]


def defocus_lowers_uncertainty(results: Results) -> Finding:
    """D3-Net section 3.4: the model with blur has less, and less diffuse, uncertainty."""
    title = "Defocus lowers the model's uncertainty"
    source = "Carvalho 2018, section 3.4 and figure 9 (shown in pictures, no figures given)"
    sharp, blurred = _mean_std(results, "focus-sharp"), _mean_std(results, "focus-8m")
    pairs = list(zip(sharp, blurred, strict=False))
    if not pairs:
        return Finding(title, source, MISSING, "No result files of both sides.")
    low, high = bootstrap(np.mean([a - b for a, b in pairs], axis=0))
    found = Difference(
        float(np.mean([b for _, b in pairs])),
        float(np.mean([a for a, _ in pairs])),
        tuple(float((a - b).mean()) for a, b in pairs),
        low,
        high,
    )
    text = (
        f"Monte-Carlo dropout, 50 samples, {pairs[0][0].size} test frames: mean standard "
        f"deviation of the predictions, focus 8 m against sharp, {gain_text(found)}. Below: how "
        "far each deviation can be believed on the same frames (coverage of the 68 and 95 % "
        "intervals; ENCE, 0 is perfect; AUSE and AURG in metres; AURG / (AUSE + AURG), 1 is "
        "perfect)."
    )
    return Finding(
        title,
        source,
        found.verdict,
        text,
        ("images, deviation", "68 %", "95 %", "ENCE", "AUSE", "AURG", "fraction", "mean [m]"),
        tuple(_trust_rows(results)),
        found.basis,
    )


def _trust_rows(results: Results) -> list[tuple[str, ...]]:
    """Calibration of every deviation of every arm in the study, means over seeds."""
    rows = []
    for arm in ("focus-sharp", "focus-2m", "focus-8m"):
        found = [test_of(r)["uncertainty"] for r in results.of(arm)]
        for kind, label in (
            ("monte_carlo", "Monte-Carlo dropout"),
            ("stated", "sigma_m, one pass"),
            ("total", "both together"),
        ):
            parts = [item[kind]["mean_over_images"] for item in found if item.get(kind)]
            if parts:
                keys = ("coverage_68", "coverage_95", "ence", "ause_m", "aurg_m", "aurg_fraction")
                means = {k: float(np.mean([p[k] for p in parts])) for k in (*keys, "mean_sigma_m")}
                cells = [f"{means[k]:.1%}" for k in keys[:2]]
                cells += [f"{means[k]:.3f}" for k in (*keys[2:], "mean_sigma_m")]
                rows.append((f"{arm.removeprefix('focus-')}, {label}", *cells))
    return rows


def error_grows_quadratically(results: Results) -> Finding:
    """D3-Net section 3.3, figure 7: with defocus, errors grow about quadratically with depth."""
    title = "With defocus the error grows quadratically with depth"
    source = "Carvalho 2018, section 3.3 and figure 7"
    arms = [arm for arm in ("focus-8m", "focus-2m", "focus-sharp") if results.of(arm)]
    if "focus-8m" not in arms:
        return Finding(title, source, MISSING, "No result files.")
    fits = {arm: growth(results.of(arm), *GROWTH_RANGE_M) for arm in arms}
    power = fits["focus-8m"].power
    better = fits["focus-8m"].r2_quadratic > fits["focus-8m"].r2_linear
    verdict = HOLDS if 1.5 <= power <= 2.5 and better else FAILS
    text = (
        f"Rms error in bins of half a metre from {GROWTH_RANGE_M[0]:g} to "
        f"{GROWTH_RANGE_M[1]:g} m. With focus at 8 m the fitted exponent of depth is "
        f"{power:.2f}; the claim is taken to hold from 1.5 to 2.5, if a parabola also explains "
        "more than a line."
    )
    rows = tuple(
        (arm, f"{fit.power:.2f}", f"{fit.r2_quadratic:.3f}", f"{fit.r2_linear:.3f}")
        for arm, fit in fits.items()
    )
    head = ("images", "exponent", "R2 of a + b d^2", "R2 of a + b d")
    return Finding(title, source, verdict, text, head, rows, "thresholds, no interval")


def wide_aperture_beats_narrow(results: Results) -> Finding:
    """D3-Net table 2: .546 m at N 2.8, .730 m at N 8."""
    arms = {"dslr-natural": "f/2.8, defocused", "dslr-n8": "f/8, nearly sharp"}
    return two_sides(
        "Defocused photographs (f/2.8) give better depth than nearly sharp ones (f/8)",
        "Carvalho 2018, table 2 (rms .546 m at f/2.8, .730 m at f/8)",
        results,
        arms,
        "Each trained and tested at its own aperture.",
    )
