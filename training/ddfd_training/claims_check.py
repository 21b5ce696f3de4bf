"""The papers' claims, each put to the result files: what must be true, and whether it is.

A difference between two sides is looked at in two ways: whether every pair of trainings with the
same seed agrees on its sign, and whether the test images do: each counts once in a paired
bootstrap over images, where the result files hold the measure image by image. A side that does not
beat always answering the training's mean depth has shown nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_training.metrics import growth as depth_growth

Result = dict[str, Any]
HOLDS, FAILS, OPEN, MISSING = "holds", "fails", "undecided", "not run"
CONSTANT = "constant"
"""Arm of the result that always answers the mean depth."""
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Difference:
    """How much better one side is than the other, in the measure's unit.

    Attributes:
        better: Mean of the side that should win, over seeds.
        worse: Mean of the side that should lose.
        by_seed: The gain (positive: the claim's way) for each pair of seeds.
        low: 2.5th percentile of the gain, images drawn anew; NaN: no interval is known.
        high: 97.5th percentile.
    """

    better: float
    worse: float
    by_seed: tuple[float, ...]
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether the test images have a say."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def verdict(self) -> str:
        """``holds`` or ``fails`` where all seeds and the interval agree, else ``undecided``.

        Without an interval at least two seeds must agree: one number has no spread.
        """
        gains = self.by_seed
        if self.has_interval:
            gains = (*gains, self.low, self.high)
        elif len(gains) < 2:
            return OPEN
        if all(gain > 0 for gain in gains):
            return HOLDS
        return FAILS if all(gain < 0 for gain in gains) else OPEN

    @property
    def basis(self) -> str:
        """What the verdict is judged by."""
        trainings = "one training a side" if len(self.by_seed) == 1 else "seeds"
        return f"{trainings} and images" if self.has_interval else f"{trainings}, no interval"


@dataclass(frozen=True)
class Finding:
    """A claim, what was found, and the table it is read from.

    Attributes:
        title: The claim in one line.
        source: Paper and place.
        verdict: ``holds``, ``fails``, ``undecided`` or ``not run``.
        text: What was compared, with the figures that decide.
        head: Head of the table.
        rows: Its cells.
        basis: What the verdict is judged by.
    """

    title: str
    source: str
    verdict: str
    text: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())
    basis: str = "-"


class Results:
    """The result files of a folder, by arm and seed."""

    def __init__(self, folder: str | Path) -> None:
        self.all: list[Result] = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(Path(folder).glob("*.json"))
        ]

    def of(self, arm: str) -> list[Result]:
        """Results of one arm, by rising seed."""
        return sorted((r for r in self.all if r["arm"] == arm), key=lambda r: r["seed"])

    def seeds(self, *arms: str) -> list[int]:
        """Seeds with which all the arms have been run."""
        sets = [{result["seed"] for result in self.of(arm)} for arm in arms]
        return sorted(set.intersection(*sets)) if sets else []


def test_of(result: Result) -> Result:
    """The result's (first) test."""
    return next(iter(result["tests"].values()))


def pick(result: Result, path: str) -> float:
    """A number of the result's test, by dotted path; NaN where it is missing."""
    value: Any = test_of(result)
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return math.nan
        value = value[key]
    return math.nan if value is None else float(value)


RMSE = "depth.mean_over_images.rmse"
REL = "depth.mean_over_images.abs_rel"
DELTA = "depth.mean_over_images.delta1"
KLD = "depth.edge_kld"
PSNR = "all_in_focus.output.psnr"


def compare(
    results: Results, better: str, worse: str, path: str = RMSE, *, sign: int = -1
) -> Difference | None:
    """The difference of two arms, or ``None`` where they have no seed in common.

    Args:
        results: All results.
        better: Arm that should win.
        worse: Arm that should lose.
        path: The measure. By the last part of its name, each image has its own.
        sign: -1 where less is better, +1 where more is.
    """
    seeds = results.seeds(better, worse)
    if not seeds:
        return None
    first, second = ([r for r in results.of(arm) if r["seed"] in seeds] for arm in (better, worse))
    return _difference(first, second, path, sign)


def against_constant(results: Results, arm: str, path: str = RMSE) -> Difference | None:
    """What an arm gains over always answering the mean depth, of a measure that should be small.

    ``None`` where one of them was not measured.
    """
    found, mean = results.of(arm), constant_on(results, arm)
    if mean is None or math.isnan(pick(mean, path)):
        return None
    return _difference(found, [mean] * len(found), path, -1)


def constant_on(results: Results, arm: str) -> Result | None:
    """The result of always answering the mean depth on the arm's (first) test, if there is one."""
    found, mean = results.of(arm), results.of(CONSTANT)
    name = next(iter(found[0]["tests"])) if found else ""
    if not mean or name not in mean[0]["tests"]:
        return None
    return {**mean[0], "tests": {name: mean[0]["tests"][name]}}


def _difference(
    first: Sequence[Result], second: Sequence[Result], path: str, sign: int
) -> Difference:
    """The gain of each result over its partner, and its interval over images where they say."""
    ours = [pick(result, path) for result in first]
    theirs = [pick(result, path) for result in second]
    gains = tuple(sign * (a - b) for a, b in zip(ours, theirs, strict=True))
    low, high = math.nan, math.nan
    images = [_by_image(side, path.rpartition(".")[2]) for side in (first, second)]
    if images[0].size == images[1].size:
        each = sign * (images[0] - images[1])
        each = each[np.isfinite(each)]  # the PSNR of equal images is infinite
        if each.size:
            low, high = bootstrap(each)
    return Difference(float(np.mean(ours)), float(np.mean(theirs)), gains, low, high)


def _by_image(results: Sequence[Result], key: str) -> np.ndarray:
    """A measure of each test image, mean over seeds; empty where a file does not hold it."""
    files = [test_of(result).get("by_image", []) for result in results]
    if len({len(rows) for rows in files}) != 1 or any(key not in row for row in sum(files, [])):
        return np.empty(0)
    values = [[row[key] for row in rows] for rows in files]
    return np.array(values, dtype=np.float64).mean(axis=0)  # null becomes NaN


def bootstrap(gains: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean gain, images drawn with replacement."""
    random = np.random.default_rng(0)
    draws = random.integers(0, gains.size, (BOOTSTRAPS, gains.size))
    low, high = np.percentile(gains[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Growth:
    """How the error grows with depth.

    Attributes:
        power: Exponent p of rmse ~ depth^p, fitted in logarithms, weighted by pixels.
        r2_quadratic: Share of the variance over depth that a + b depth^2 explains.
        r2_linear: The same of a + b depth.
        depths_m: Middles of the bins.
        rmse_m: Errors there.
    """

    power: float
    r2_quadratic: float
    r2_linear: float
    depths_m: tuple[float, ...]
    rmse_m: tuple[float, ...]


def growth(results: Sequence[Result], from_m: float, to_m: float) -> Growth:
    """Fit the error over depth between two depths, pooled over seeds."""
    squares: dict[tuple[float, float], float] = {}
    pixels: dict[tuple[float, float], float] = {}
    for result in results:
        for row in test_of(result)["depth_bins"]:
            edges = (row["from_m"], row["to_m"])
            if from_m <= sum(edges) / 2 <= to_m:
                squares[edges] = squares.get(edges, 0.0) + row["rmse"] ** 2 * row["pixels"]
                pixels[edges] = pixels.get(edges, 0.0) + row["pixels"]
    rows = [
        {"from_m": edges[0], "to_m": edges[1], "pixels": count,
         "rmse": math.sqrt(squares[edges] / count)}
        for edges, count in sorted(pixels.items())
    ]  # fmt: skip
    fit = depth_growth(rows)
    return Growth(
        fit["exponent"],
        fit["r2_quadratic"],
        fit["r2_linear"],
        tuple((row["from_m"] + row["to_m"]) / 2 for row in rows),
        tuple(row["rmse"] for row in rows),
    )
