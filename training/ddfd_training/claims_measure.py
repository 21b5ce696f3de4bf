"""Puts one network to one test, for the page of claims: every measure, and each image's own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.claims_plan import BaselineConfig, Plan, ProbeConfig, at
from ddfd_training.config import SourceConfig
from ddfd_training.evaluate import ConstantDepth, Evaluation, Model
from ddfd_training.evaluate_data import mean_known_m
from ddfd_training.evaluate_items import Item
from ddfd_training.metrics import depth_metrics, edge_kld, image_metrics
from ddfd_training.network_model import to_batch
from ddfd_training.sources import open_source
from ddfd_training.uncertainty import SAMPLES, Calibration, monte_carlo
from ddfd_training.zhuo_sim import ZhuoSim, calibrate, edge_blur_px

DEPTH_CLIP_M = (0.5, 10.0)


def open_items(probe: ProbeConfig, data_root: Path, cache: str) -> list[Item]:
    """The test's images with their truth, depth clipped to what the networks can answer."""
    images = open_source(at(probe.source, data_root), probe.lens, cache)
    items = []
    for frame in images.frames:
        view = _overlap(images.item(frame))
        sharp = bool(view["sharp_known"].all())
        items.append(
            Item(
                name=str(frame),
                image_rgb=np.ascontiguousarray(view["image"]),
                depth_m=np.clip(view["depth_m"], *DEPTH_CLIP_M),
                sharp_rgb=np.ascontiguousarray(view["sharp_rgb"]) if sharp else None,
                lens=None if probe.source.input == "sharp" else probe.lens,
            )
        )
    return items


def _overlap(view: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a view that its registered sharp companion covers; all of it without one."""
    known = view["sharp_known"]
    rows, columns = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return dict(view)
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return {
        key: value[inside] if value.shape[:2] == known.shape else value
        for key, value in view.items()
    }


def measure(model: Model, items: Sequence[Item], *, edges: bool) -> dict[str, Any]:
    """Every measure of :mod:`ddfd_training.evaluate`, and the errors image by image."""
    evaluation = Evaluation(edges=edges)
    rows: list[dict[str, float | str]] = []
    for item in items:
        start = time.perf_counter()
        answer = model.infer(item.image_rgb)
        evaluation.add(item, answer, (time.perf_counter() - start) * 1e3)
        rows.append({"frame": item.name, **image_errors(item, answer, edges=edges)})
    result = evaluation.result()
    result["by_image"] = rows
    return result


DEPTH_KEYS = ("rmse", "abs_rel", "delta1")
IMAGE_KEYS = ("psnr", "ssim")


def image_errors(item: Item, answer: dict[str, np.ndarray], *, edges: bool) -> dict[str, float]:
    """One image's errors, from which intervals over images are drawn: m, shares, bit, dB."""
    row: dict[str, float] = {}
    if "depth_m" in answer:
        errors = depth_metrics(answer["depth_m"], item.depth_m)
        row |= {key: errors[key] for key in DEPTH_KEYS}
        if edges and np.isfinite(item.depth_m).any():
            row["edge_kld"] = edge_kld(answer["depth_m"], item.depth_m)
    if "sharp_rgb" in answer and item.sharp_rgb is not None:
        inside = (answer["sharp_rgb"][item.box], item.sharp_rgb[item.box])
        quality = image_metrics(*inside, data_range=255.0)
        row |= {key: quality[key] for key in IMAGE_KEYS}
    return row


def measure_uncertainty(
    network: nn.Module, items: Sequence[Item], frames: int, seed: int
) -> dict[str, Any]:
    """Monte-Carlo dropout and the stated deviation on ``frames`` evenly spaced test frames."""
    chosen = np.unique(np.linspace(0, len(items) - 1, frames).round().astype(int))
    model_part, stated, total = Calibration("normal"), Calibration(), Calibration("normal")
    rows = []
    for index in chosen.tolist():
        item = items[index]
        found = monte_carlo(network, to_batch(item.image_rgb), seed=seed)
        model_part.add(found.mean_m, found.std_m, item.depth_m)
        row = {"frame": item.name, "model_std_m": float(found.std_m.mean())}
        if found.sigma_m is not None and found.total_m is not None:
            stated.add(found.mean_m, found.sigma_m, item.depth_m)
            total.add(found.mean_m, found.total_m, item.depth_m)
            row["stated_sigma_m"] = float(found.sigma_m.mean())
        rows.append(row)
    return {
        "samples": SAMPLES,
        "by_image": rows,
        "monte_carlo": model_part.result(),
        "stated": stated.result(),
        "total": total.result(),
    }


def measure_baseline(
    config: BaselineConfig, probe: ProbeConfig, data_root: Path, cache: str
) -> dict[str, Any]:
    """Zhuo and Sim's method on the test, calibrated on edges of training frames."""
    train = open_source(at(config.calibrate, data_root), probe.lens, cache)
    chosen = np.linspace(0, len(train.frames) - 1, config.calibration_frames).round().astype(int)
    blur, depth = [], []
    random = np.random.default_rng(0)
    for index in chosen.tolist():
        view = train.item(train.frames[index])
        sigma_px, known = edge_blur_px(np.ascontiguousarray(view["image"]))
        rows, columns = np.nonzero(known)
        some = random.permutation(len(rows))[:500]
        blur.append(sigma_px[rows[some], columns[some]])
        depth.append(np.clip(view["depth_m"][rows[some], columns[some]], *DEPTH_CLIP_M))
    found = calibrate(np.concatenate(blur), np.concatenate(depth), probe.lens)
    items = open_items(probe, data_root, cache)[:: config.every]
    result = measure(ZhuoSim(found), items, edges=False)
    result["calibration"] = {
        "ratio": found.ratio, "rest_px": found.rest_px, "edge_pixels": int(sum(map(len, blur)))
    }  # fmt: skip
    return result


def measure_constant(plan: Plan, data_root: Path, cache: str) -> dict[str, Any]:
    """Always answering the mean training depth, on each test of the plan's ``constant``."""
    means: dict[str, float] = {}
    tests = {}
    for name, source in plan.constant.items():
        probe, frames = plan.tests[name], repr(source)
        if frames not in means:
            means[frames] = mean_depth_m(at(source, data_root), probe.lens, cache)
        edges = any(arm.edges and name in arm.tests for arm in plan.arms.values())
        items = open_items(probe, data_root, cache)
        found = measure(ConstantDepth(means[frames]), items, edges=edges)
        tests[name] = {"depth_m": means[frames], **found}
    return tests


def mean_depth_m(source: SourceConfig, lens: LensConfig, cache: str) -> float:
    """Mean of the source's known depths, clipped as the tests' truth is, in metres.

    Raises:
        DatasetError: None of its depths is known.
    """
    images = open_source(source, lens, cache)
    maps = (images.item(frame)["depth_m"] for frame in images.frames)
    return mean_known_m(maps, DEPTH_CLIP_M, source.root)
