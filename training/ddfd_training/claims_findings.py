"""Every claim of the papers, put to the result files."""

from __future__ import annotations

from collections.abc import Sequence

from ddfd_training.claims_2hded import natural_beats_synthetic, smoothing, two_heads
from ddfd_training.claims_check import FAILS, HOLDS, MISSING, OPEN, Finding, Results
from ddfd_training.claims_d3net import (
    defocus_beats_sharp,
    defocus_lowers_uncertainty,
    error_grows_quadratically,
    near_focus_beats_far,
    network_beats_classical,
    wide_aperture_beats_narrow,
)


def all_findings(results: Results) -> Sequence[Finding]:
    """Every claim, in the order of the page."""
    return [
        defocus_beats_sharp(results),
        near_focus_beats_far(results),
        network_beats_classical(results),
        defocus_lowers_uncertainty(results),
        error_grows_quadratically(results),
        *two_heads(results),
        *smoothing(results),
        *natural_beats_synthetic(results),
        wide_aperture_beats_narrow(results),
    ]


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """How many claims hold, fail, and so on."""
    return {
        verdict: sum(finding.verdict == verdict for finding in findings)
        for verdict in (HOLDS, FAILS, OPEN, MISSING)
    }
