"""What an evaluation found, short enough to travel in a model's contract."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import ContractError

_SIGMA = ("coverage_68", "coverage_95")


def contract_metrics(
    reports: Iterable[str | Path], weights_sha256: str
) -> dict[str, dict[str, float]]:
    """The main figures of ``ddfd-evaluate``'s JSON reports, by data set and split.

    Args:
        reports: Files that ``ddfd-evaluate --json`` wrote.
        weights_sha256: Digest of the weights that the figures must belong to.

    Returns:
        For ``nyuv2/test`` and the like: the depth errors (means over images), ``psnr``,
        ``psnr_gain``, ``ssim`` and the coverage of the standard deviation, as far as reported.

    Raises:
        ContractError: A file is no such report, or about other weights.
    """
    metrics = {}
    for path in reports:
        try:
            report = json.loads(Path(path).read_text(encoding="utf-8"))
            digest = report["model"]["weights_sha256"]
            name = f"{report['data']['name']}/{report['data']['split']}"
            values = _main_figures(report["result"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ContractError(
                f"{path}: expected a report of ddfd-evaluate --json, got a file without {error}; "
                "evaluate the model again"
            ) from error
        if digest != weights_sha256:
            raise ContractError(
                f"{path}: expected figures of the weights {weights_sha256[:12]}..., got those of "
                f"{digest[:12]}...; evaluate this model"
            )
        metrics[name] = values
    return metrics


def _main_figures(result: dict[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {"images": result["images"]}
    if depth := result.get("depth"):
        values.update(depth["mean_over_images"])
    if image := result.get("all_in_focus"):
        values["psnr"] = image["output"]["psnr"]
        values["psnr_gain"] = image["gain"]["psnr"]
        values["ssim"] = image["output"]["ssim"]
    if sigma := result.get("sigma"):
        values.update({key: sigma["mean_over_images"][key] for key in _SIGMA})
    return {key: round(float(value), 5) for key, value in values.items()}
