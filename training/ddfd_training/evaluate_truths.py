"""Judging answers by truths other than metric depth: order of points, masks and maps of blur."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddfd_training.datasets.sample import DepthOrder, RgbdSample

SYNDOF_DIAMETER_PER_SIGMA = 4.0
"""SYNDOF's generator: a circle of confusion of c pixels is a Gaussian of (c - 1) / 4."""
STRIDE_PX = 4


def is_ordered_wrongly(pred_m: np.ndarray, order: DepthOrder) -> bool:
    """Whether a depth map contradicts a person's judgement of two points.

    Args:
        pred_m: ``[H, W]``, depth or anything that grows with it.
        order: The judgement; "equal" is contradicted by any difference.
    """
    difference = float(pred_m[order.a]) - float(pred_m[order.b])
    return bool(np.sign(difference) != order.farther)


def separation(score: np.ndarray, mask: np.ndarray) -> float:
    """Probability that a pixel inside the mask scores higher than one outside it (ROC area).

    Args:
        score: ``[H, W]``.
        mask: bool ``[H, W]``.

    Returns:
        0.5 for a score that knows nothing; NaN if one of the two parts is empty.
    """
    inside = int(mask.sum())
    outside = mask.size - inside
    if not inside or not outside:
        return float("nan")
    ranks = _ranks(score)
    total = float(ranks.reshape(mask.shape)[mask].sum())
    return (total - inside * (inside + 1) / 2) / (inside * outside)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two lists of numbers; NaN if one of them is constant."""
    a, b = _ranks(first), _ranks(second)
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Places from 1 on, flat; tied values share the mean of theirs."""
    from scipy.stats import rankdata  # takes as long to import as torch's half, for few data sets

    return rankdata(values, axis=None)


class TruthTable:
    """Whatever can be said of answers by truths other than depth and sharp images.

    Blur needs the head ``defocus_px``.
    """

    def __init__(self) -> None:
        self._wrong: list[bool] = []
        self._separation: list[float] = []
        self._correlation: list[float] = []
        self._error_px: list[float] = []

    def add(self, sample: RgbdSample, unit: str, outputs: dict[str, np.ndarray]) -> None:
        """Count one image.

        Args:
            sample: What is known of it.
            unit: What its defocus map counts, as ``RgbdDataset.defocus_unit``.
            outputs: The answer.
        """
        if sample.order is not None and "depth_m" in outputs:
            self._wrong.append(is_ordered_wrongly(outputs["depth_m"], sample.order))
        if "defocus_px" not in outputs:
            return
        blur_px = np.abs(outputs["defocus_px"])
        some = np.s_[::STRIDE_PX, ::STRIDE_PX]
        if sample.blurred is not None:
            self._separation.append(separation(blur_px[some], sample.blurred[some]))
        if sample.defocus is not None:
            known = np.isfinite(sample.defocus[some])
            truth, answer = sample.defocus[some][known], blur_px[some][known]
            self._correlation.append(rank_correlation(answer, truth))
            if unit == "sigma_px" and truth.size:
                diameter_px = SYNDOF_DIAMETER_PER_SIGMA * truth + 1
                self._error_px.append(float(np.abs(answer - diameter_px).mean()))

    def result(self) -> dict[str, Any] | None:
        """Means over images of what was counted; ``None`` if nothing was.

        ``whdr`` is the share of pairs in the wrong order (weighted human disagreement rate, all
        weights one), ``blur_mask_auc`` how well estimated blur tells marked blur from the rest,
        ``defocus_rank_correlation`` Spearman's, and ``defocus_mae_px`` the error of the diameter.
        """
        rows = {
            "whdr": self._wrong,
            "blur_mask_auc": self._separation,
            "defocus_rank_correlation": self._correlation,
            "defocus_mae_px": self._error_px,
        }
        result: dict[str, Any] = {}
        for key, values in rows.items():
            finite = np.array(values, dtype=float)
            finite = finite[np.isfinite(finite)]
            if finite.size:
                result[key] = float(finite.mean())
                result[f"{key}_images"] = int(finite.size)
        return result or None
