"""Claims of 2HDED:NET (Nazir 2022) and of Nazir's thesis as questions to the result files."""

from __future__ import annotations

import numpy as np

from ddfd_training.claims_check import (
    KLD,
    MISSING,
    PSNR,
    RMSE,
    Finding,
    Results,
    compare,
    pick,
)
from ddfd_training.claims_tables import (
    DEPTH_HEAD,
    depth_rows,
    gain_text,
    judge,
    two_sides,
)

SMOOTHINGS = ("none", "hu", "eigen", "ummenhofer", "xian", "godard")


def two_heads(results: Results) -> list[Finding]:
    """2HDED:NET: does each task gain by sharing the encoder with the other?"""
    source = (
        "Nazir 2022, section 3 (both branches benefit from each other; no ablation is printed)"
    )
    arms = {"heads-both": "both heads", "focus-8m": "depth head alone"}
    depth = two_sides(
        "Two heads: depth gains from the deblurring head",
        source,
        results,
        arms,
        "Same images, crops and steps; the loss of the other head is added.",
    )
    title = "Two heads: deblurring gains from the depth head"
    found = compare(results, "heads-both", "heads-sharp", PSNR, sign=1)
    if found is None:
        return [depth, Finding(title, source, MISSING, "No result files of both sides.")]
    rows = []
    for arm, label in (("heads-both", "both heads"), ("heads-sharp", "deblurring head alone")):
        of = results.of(arm)
        values = [float(np.mean([pick(r, f"all_in_focus.{part}") for r in of]))
                  for part in ("input.psnr", "output.psnr", "output.ssim")]  # fmt: skip
        rows.append(
            (label, str(len(of)), f"{values[0]:.2f}", f"{values[1]:.2f}", f"{values[2]:.4f}")
        )
    head = ("network", "trainings", "PSNR of the input [dB]", "PSNR [dB]", "SSIM")
    text = f"PSNR of the all-in-focus image {gain_text(found, 'dB')}."
    return [depth, Finding(title, source, found.verdict, text, head, tuple(rows), found.basis)]


def smoothing(results: Results) -> list[Finding]:
    """Thesis table 2.1: L1-gradient smoothing is best, and by far by the edge measure."""
    source = "Nazir's thesis, table 2.1 (rms .559 m and KLD 7101 of Xian, .619 m and 9009 of none)"
    arms = {f"smoothing-{name}": name for name in SMOOTHINGS}
    head = ("smoothing", *DEPTH_HEAD[1:-1], "edge divergence", DEPTH_HEAD[-1])
    sides = ("smoothing-xian", "smoothing-none")
    findings = []
    for title, path in (
        ("L1-gradient smoothing (Xian) gives better depth than none", RMSE),
        ("L1-gradient smoothing (Xian) gives better edges (divergence) than none", KLD),
    ):
        gain = compare(results, *sides, path)
        if gain is None:
            findings.append(Finding(title, source, MISSING, "No result files of both sides."))
            continue
        unit = "m" if path == RMSE else "bit"
        text = "Trained and tested on defocused images (focus 8 m); the thesis on sharp ones. "
        text += f"{'Rms error' if path == RMSE else 'Edge divergence'} {gain_text(gain, unit)}."
        table = depth_rows(results, arms, KLD) if path == RMSE else ()
        verdict, basis = judge(results, gain, sides, path)
        findings.append(Finding(title, source, verdict, text, head, table, basis))
    return findings


def natural_beats_synthetic(results: Results) -> list[Finding]:
    """Thesis section 4.2: a network trained on natural blur is better on natural blur."""
    source = (
        "Nazir's thesis, table 4.2 (tested on iDFD: rms .401 m trained on NYUv2, .312 on iDFD)"
    )
    arms = {
        "dslr-natural": "81 natural photographs, f/2.8",
        "dslr-nyu": "NYUv2 through the simulated DSLR lens",
        "dslr-rendered": "the same 81 views, f/8, through the simulated lens",
    }
    first = two_sides(
        "On natural blur, training on natural blur beats training on synthetic blur",
        source,
        results,
        arms,
        "Tested on the DSLR set's natural photographs at f/2.8. The synthetic images are NYUv2's.",
    )
    same = {"dslr-natural": arms["dslr-natural"], "dslr-rendered": arms["dslr-rendered"]}
    second = two_sides(
        "The same with the same scenes on both sides",
        "ours: only the blur differs, natural or rendered",
        results,
        same,
        "The paper's comparison changes scenes and camera along with the blur; this one does not.",
    )
    return [first, second]
