"""The experiments behind the page of claims, read from ``training/claims.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.config import SourceConfig, TrainConfig, merged, stages_of
from ddfd_training.records import build_record


@dataclass(frozen=True)
class ProbeConfig:
    """What a network is asked about: test images, and the lens that blurs the sharp ones."""

    source: SourceConfig
    lens: LensConfig


@dataclass(frozen=True)
class ArmConfig:
    """One side of a claim.

    Attributes:
        tests: Names of the tests its networks are put to.
        recipe: Settings in which its training differs from the base.
        uncertainty_frames: Test frames of the study of model uncertainty; 0: none.
        edges: Also compute the edge divergence.
        seeds: With how many of the plan's seeds it is trained; 0: with all.
    """

    tests: tuple[str, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    uncertainty_frames: int = 0
    edges: bool = False
    seeds: int = 0


@dataclass(frozen=True)
class BaselineConfig:
    """The classical method.

    Attributes:
        test: Name of its test.
        calibrate: Frames whose edges its blur is calibrated on.
        calibration_frames: How many of them.
        every: It is asked about every so-manieth test frame, being slow.
    """

    test: str
    calibrate: SourceConfig
    calibration_frames: int = 40
    every: int = 4


@dataclass(frozen=True)
class Plan:
    """All experiments.

    Attributes:
        base: Recipe that all trainings share, as plain values.
        seeds: Each arm is trained once with each.
        tests: By name.
        arms: By name.
        baseline: The classical method, if it is to be asked.
        constant: By test, the frames whose mean depth is always answered there; a network that
            does not beat that has shown nothing.
    """

    base: Mapping[str, Any]
    seeds: tuple[int, ...]
    tests: Mapping[str, ProbeConfig]
    arms: Mapping[str, ArmConfig]
    baseline: BaselineConfig | None
    constant: Mapping[str, SourceConfig] = field(default_factory=dict)

    def recipe(self, arm: str, seed: int, data_root: Path, steps_factor: float) -> TrainConfig:
        """The training of one arm with one seed."""
        values = merged(self.base, self.arms[arm].recipe)
        config = stages_of({**values, "name": f"{arm}-seed{seed}", "seed": seed})[-1]
        sources = tuple(at(source, data_root) for source in config.data.sources)
        steps = max(round(config.steps * steps_factor), 1)
        return replace(config, data=replace(config.data, sources=sources), steps=steps)


def at(source: SourceConfig, data_root: Path) -> SourceConfig:
    """The source with its folder below ``data_root``."""
    return replace(source, root=str(data_root / source.root))


def load_plan(path: str | Path) -> Plan:
    """Read the plan.

    Raises:
        ValueError: An unknown key, a wrong value, or a test named that does not exist.
        FileNotFoundError: There is no such file.
    """
    values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    records = {
        "tests": {
            name: build_record(ProbeConfig, item, f"tests.{name}")
            for name, item in values.pop("tests").items()
        },
        "arms": {
            name: build_record(ArmConfig, item, f"arms.{name}")
            for name, item in values.pop("arms").items()
        },
        "baseline": (
            build_record(BaselineConfig, values.pop("baseline"), "baseline")
            if "baseline" in values
            else None
        ),
        "constant": {
            name: build_record(SourceConfig, item, f"constant.{name}")
            for name, item in values.pop("constant", {}).items()
        },
        "seeds": build_record(tuple[int, ...], values.pop("seeds"), "seeds"),
        "base": values.pop("base"),
    }
    if values:
        raise ValueError(f"{path}: unknown settings {', '.join(values)}")
    plan = Plan(**records)
    named = {f"arms.{name}.tests": arm.tests for name, arm in plan.arms.items()}
    for where, tests in {**named, "constant": plan.constant}.items():
        if unknown := [test for test in tests if test not in plan.tests]:
            raise ValueError(f"{where}: expected of {', '.join(plan.tests)}, got {unknown[0]}")
    return plan
