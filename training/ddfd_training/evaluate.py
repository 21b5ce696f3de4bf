"""Run a model over an evaluation set and gather every error; no files, no runtimes here."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ddfd_training.evaluate_items import Item
from ddfd_training.evaluate_truths import TruthTable
from ddfd_training.metrics import DepthBins, DepthTable, Lpips, edge_kld, sigma_metrics
from ddfd_training.metrics import ImageTable as QualityTable
from ddfd_training.metrics_defocus import DefocusTable
from ddfd_training.metrics_image import mean_of_finite
from ddfd_training.metrics_sigma import COVERAGE_LEVELS, laplace_half_width_m

BIN_EDGES_M = np.arange(0.0, 10.5, 0.5)
"""Borders of the bins by true depth."""


class Model(Protocol):
    """What can be evaluated: a backend of ``ddfd_ros.inference``, or anything of that shape."""

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Answer one uint8 image ``[H, W, 3]``."""
        ...


@dataclass(frozen=True)
class ConstantDepth:
    """The trivial model: one depth everywhere."""

    value_m: float

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The same depth for every pixel."""
        return {"depth_m": np.full(image.shape[:2], self.value_m, np.float32)}


@dataclass
class _Means:
    """Rows of numbers, averaged over images as :func:`mean_of_finite` does."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def result(self) -> dict[str, float]:
        """Mean of each key."""
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        means = {}
        for key in keys:
            means[key] = mean_of_finite([row[key] for row in self.rows if key in row])
        return means


class ImageTable:
    """Quality of the all-in-focus image and of the input, against the sharp truth."""

    def __init__(self, lpips: Lpips | None) -> None:
        self._lpips = lpips
        self._means = {"input": _Means(), "output": _Means()}
        self._quality = {"input": QualityTable(), "output": QualityTable()}

    def add(self, item: Item, sharp_rgb: np.ndarray) -> None:
        """Count one image; one without a sharp truth is left out."""
        if item.sharp_rgb is None:
            return
        truth = item.sharp_rgb[item.box]
        for key, image in (("input", item.image_rgb), ("output", sharp_rgb)):
            row = self._quality[key].add(image[item.box], truth, data_range=255.0)
            if self._lpips is not None:
                row[f"lpips_{self._lpips.net}"] = self._lpips.of_bytes(image[item.box], truth)
            self._means[key].rows.append(row)

    def result(self) -> dict[str, Any] | None:
        """Means over images, PSNR of the mean square over all of them, and the gain over input."""
        if not self._means["input"].rows:
            return None
        result: dict[str, Any] = {"images": len(self._means["input"].rows)}
        for key, means in self._means.items():
            pooled = self._quality[key].result()["over_pixels"]
            result[key] = means.result() | {f"{k}_over_pixels": v for k, v in pooled.items()}
        result["gain"] = {
            key: result["output"][key] - result["input"][key]
            for key in ("psnr", "ssim", "psnr_over_pixels")
        }
        return result


class SigmaTable:
    """Trust in the predicted standard deviation, over images and over pixels."""

    def __init__(self) -> None:
        self._means = _Means()
        self._inside = np.zeros(len(COVERAGE_LEVELS))
        self._pixels = 0

    def add(self, pred_m: np.ndarray, sigma_m: np.ndarray, target_m: np.ndarray) -> None:
        """Count one image."""
        known = np.isfinite(target_m)
        if not known.any():
            return
        self._means.rows.append(sigma_metrics(pred_m, sigma_m, target_m))
        error_m = np.abs(pred_m[known] - target_m[known])
        for index, level in enumerate(COVERAGE_LEVELS):
            width_m = laplace_half_width_m(sigma_m[known], level)
            self._inside[index] += np.count_nonzero(error_m <= width_m)
        self._pixels += error_m.size

    def result(self) -> dict[str, Any] | None:
        """Means over images, and coverage over pixels."""
        if not self._pixels:
            return None
        pooled = {
            f"coverage_{round(100 * level)}": float(inside / self._pixels)
            for level, inside in zip(COVERAGE_LEVELS, self._inside, strict=True)
        }
        return {"mean_over_images": self._means.result(), "over_pixels": pooled}


class Evaluation:
    """All errors of one model on one set.

    Args:
        sensor_range_m: Report the depth errors up to this depth separately; ``None``: do not.
        edges: Also compute the edge divergence (0.1 s an image).
        lpips: Also compute this perceptual distance of the all-in-focus image.
    """

    def __init__(
        self,
        sensor_range_m: float | None = None,
        *,
        edges: bool = True,
        lpips: Lpips | None = None,
    ) -> None:
        self._sensor_range_m = sensor_range_m
        self._edges = edges
        self._depth, self._near = DepthTable(), DepthTable()
        self._bins = DepthBins(BIN_EDGES_M.tolist())
        self._images, self._sigma = ImageTable(lpips), SigmaTable()
        self._defocus, self._truths = DefocusTable(), TruthTable()
        self._edge_kld, self._notes = _Means(), _Means()
        self._infer_ms: list[float] = []
        self._count = 0

    def add(self, item: Item, outputs: dict[str, np.ndarray], infer_ms: float) -> None:
        """Count the answer to one image."""
        self._count += 1
        self._infer_ms.append(infer_ms)
        self._notes.rows.append(item.notes)
        if "depth_m" in outputs:
            self._add_depth(outputs["depth_m"], item.depth_m)
        if "depth_m" in outputs and "sigma_m" in outputs:
            self._sigma.add(outputs["depth_m"], outputs["sigma_m"], item.depth_m)
        if "sharp_rgb" in outputs:
            self._images.add(item, outputs["sharp_rgb"])
        if "defocus_px" in outputs and item.lens is not None:
            self._defocus.add(outputs["defocus_px"], item.depth_m, item.lens)
        if item.sample is not None:
            self._truths.add(item.sample, item.defocus_unit, outputs)

    def _add_depth(self, pred_m: np.ndarray, target_m: np.ndarray) -> None:
        self._depth.add(pred_m, target_m)
        self._bins.add(pred_m, target_m)
        if self._sensor_range_m is not None:
            self._near.add(pred_m, target_m, target_m <= self._sensor_range_m)
        if self._edges and np.isfinite(target_m).any():
            self._edge_kld.rows.append({"edge_kld": edge_kld(pred_m, target_m)})

    def result(self) -> dict[str, Any]:
        """Everything, as JSON values; a part without data is left out."""
        depth = self._depth.result()
        result: dict[str, Any] = {"images": self._count}
        if depth["images"]:
            result["depth"] = depth | self._edge_kld.result()
            bins = self._bins.result()
            result["depth_bins"] = [row for row in bins["bins"] if row["pixels"]]
            result["depth_growth"] = bins["growth"]
            if self._sensor_range_m is not None:
                near = {"up_to_m": self._sensor_range_m} | self._near.result()
                result["depth_within_sensor_range"] = near
        parts = {
            "all_in_focus": self._images.result(),
            "sigma": self._sigma.result(),
            "defocus": self._defocus.result(),
            "other_truths": self._truths.result(),
        }
        result |= {key: part for key, part in parts.items() if part is not None}
        if notes := self._notes.result():
            result["preparation"] = notes
        if self._infer_ms:
            low, high = np.percentile(self._infer_ms, (50, 95))
            result["infer_ms"] = {"p50": float(low), "p95": float(high)}
        return result


def evaluate(
    model: Model,
    items: Iterable[Item],
    sensor_range_m: float | None = None,
    *,
    edges: bool = True,
    lpips: Lpips | None = None,
) -> dict[str, Any]:
    """Run ``model`` over ``items``.

    Args:
        model: Answers uint8 images with a dict of heads.
        items: Images with truth.
        sensor_range_m: Report the depth errors up to this depth separately.
        edges: Also compute the edge divergence.
        lpips: Also compute this perceptual distance of the all-in-focus image.

    Returns:
        Nested dicts of numbers: ``depth`` (means over images and over pixels), ``depth_bins`` and
        how the error grows over them (``depth_growth``), ``all_in_focus`` (input, output, gain),
        ``sigma``, ``defocus`` (where the lens is known), ``preparation``, ``infer_ms``.
    """
    evaluation = Evaluation(sensor_range_m, edges=edges, lpips=lpips)
    for item in items:
        start = time.perf_counter()
        outputs = model.infer(item.image_rgb)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        evaluation.add(item, outputs, elapsed_ms)
    return evaluation.result()
