"""Figures of an evaluation on their way into the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddfd_ros.core.errors import ContractError
from ddfd_trt.report import contract_metrics

REPORT = {
    "model": {"weights_sha256": "ab" * 32},
    "data": {"name": "nyuv2", "split": "test"},
    "result": {
        "images": 3,
        "depth": {"mean_over_images": {"rmse": 0.123456789, "delta1": 0.9}},
        "all_in_focus": {"output": {"psnr": 34.0, "ssim": 0.95}, "gain": {"psnr": 1.5}},
        "sigma": {"mean_over_images": {"coverage_68": 0.6, "coverage_95": 0.9, "ence": 0.1}},
    },
}


def _write(folder: Path, report: object) -> Path:
    path = folder / "report.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_main_figures_by_set(tmp_path: Path) -> None:
    """Depth errors, image gain and coverage, rounded; the rest stays in the report."""
    assert contract_metrics([_write(tmp_path, REPORT)], "ab" * 32) == {
        "nyuv2/test": {
            "images": 3.0,
            "rmse": 0.12346,
            "delta1": 0.9,
            "psnr": 34.0,
            "psnr_gain": 1.5,
            "ssim": 0.95,
            "coverage_68": 0.6,
            "coverage_95": 0.9,
        }
    }


def test_figures_of_other_weights_are_refused(tmp_path: Path) -> None:
    """A stale report does not slip in."""
    with pytest.raises(ContractError, match="expected figures of the weights cdcdcd"):
        contract_metrics([_write(tmp_path, REPORT)], "cd" * 32)


@pytest.mark.parametrize("report", [{}, [], {"model": {}}, "text"])
def test_other_files_are_refused(tmp_path: Path, report: object) -> None:
    """The error names the file and the command."""
    with pytest.raises(ContractError, match=r"report\.json: expected a report of ddfd-evaluate"):
        contract_metrics([_write(tmp_path, report)], "ab" * 32)
