"""Answers against the truth, where there is one: depth errors, and what the sharpening gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ddfd_demo.results import Answer
from ddfd_demo.sources.base import SourceInfo

DEPTH_NAMES = ("rmse", "abs_rel", "delta1")
"""What is shown of the depth metrics: metres, relative, share within a factor of 1.25."""


@dataclass(frozen=True)
class FrameScore:
    """One frame's figures; empty dictionaries where the truth is unknown.

    Attributes:
        name: The frame.
        depth: Depth metrics over all known pixels.
        depth_near: The same up to the input's trusted distance.
        image: ``psnr`` and ``ssim`` of the all-in-focus image against the sharp reference.
        image_input: The same of the input.
        valid: Share of pixels with a valid depth.
    """

    name: str
    depth: dict[str, float] = field(default_factory=dict)
    depth_near: dict[str, float] = field(default_factory=dict)
    image: dict[str, float] = field(default_factory=dict)
    image_input: dict[str, float] = field(default_factory=dict)
    valid: float = float("nan")


def score(
    answers: Sequence[Answer],
    info: SourceInfo,
    depth_range_m: tuple[float, float],
    progress: Callable[[int], None] = lambda done: None,
) -> list[FrameScore]:
    """Score every answered frame.

    Args:
        answers: From :func:`~ddfd_demo.results.join`; unanswered frames are passed over.
        info: Of the input: natural pairs are registered, a depth limit gives a second score.
        depth_range_m: Truth is clipped to what the model can answer (its contract's range).
        progress: Called with the number of frames done.
    """
    scores = []
    for done, answer in enumerate((a for a in answers if a.answered), start=1):
        depth_m = answer.depth_m()
        everything: dict[str, float] = {}
        near: dict[str, float] = {}
        if depth_m is not None:
            everything, near = _depth(
                depth_m, answer.frame.depth_m(), depth_range_m, info.depth_limit_m
            )
        image, image_input = _images(answer, info.natural_pairs)
        valid = float("nan") if depth_m is None else float(np.isfinite(depth_m).mean())
        scores.append(FrameScore(answer.frame.name, everything, near, image, image_input, valid))
        progress(done)
    return scores


def mean_over_frames(scores: Sequence[FrameScore], part: str) -> dict[str, float]:
    """Each metric's mean over the frames that have it; ``part`` names a field of FrameScore."""
    rows: list[dict[str, float]] = [getattr(item, part) for item in scores]
    names = {name for row in rows for name in row}
    result = {}
    for name in sorted(names):
        values = [row[name] for row in rows if np.isfinite(row.get(name, np.nan))]
        if values:
            result[name] = float(np.mean(values))
    return result


def gain(scores: Sequence[FrameScore]) -> dict[str, float]:
    """Mean over the frames of what the all-in-focus image has over its input, psnr and ssim."""
    rows = [s for s in scores if s.image and s.image_input]
    return {
        name: float(np.mean([s.image[name] - s.image_input[name] for s in rows]))
        for name in ("psnr", "ssim")
        if rows
    }


def _depth(
    depth_m: np.ndarray,
    truth_m: np.ndarray | None,
    range_m: tuple[float, float],
    limit_m: float | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics over all known pixels, and over those up to ``limit_m``."""
    if truth_m is None or truth_m.shape != depth_m.shape or not np.isfinite(truth_m).any():
        return {}, {}
    from ddfd_training.metrics import depth_metrics

    answered = np.isfinite(depth_m)
    if not answered.any():
        return {}, {}
    truth_m = np.clip(truth_m, *range_m)
    everything = depth_metrics(depth_m, truth_m, answered)
    if limit_m is None:
        return everything, {}
    return everything, depth_metrics(depth_m, truth_m, answered & (truth_m <= limit_m))


def _images(answer: Answer, natural: bool) -> tuple[dict[str, float], dict[str, float]]:
    """PSNR and SSIM of the all-in-focus image and of the input, against the sharp reference."""
    sharp, reference = answer.sharp_rgb(), answer.frame.sharp_rgb()
    image = answer.frame.image_rgb()
    if sharp is None or reference is None or sharp.shape != reference.shape:
        return {}, {}
    if natural:
        return _registered(sharp, image, reference)
    from ddfd_training.metrics import image_metrics

    return (
        image_metrics(sharp, reference, data_range=255.0),
        image_metrics(image, reference, data_range=255.0),
    )


def _registered(
    sharp: np.ndarray, image: np.ndarray, reference: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """The same where the reference is another photograph: laid over the input, exposure matched.

    Nothing is said about a pair that cannot be registered.
    """
    from ddfd_training.metrics import image_metrics
    from ddfd_training.registration import match_exposure, register

    found = register(reference, image)
    if not found.converged:
        return {}, {}
    reference = found.warp(reference)
    reference = match_exposure(reference, image).apply(reference)
    inner = found.overlap(*image.shape[:2])
    return (
        image_metrics(sharp[inner], reference[inner], data_range=255.0),
        image_metrics(image[inner], reference[inner], data_range=255.0),
    )
