"""The recipe of a training: frozen dataclasses, read from YAML and the command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig


@dataclass(frozen=True)
class SourceConfig:
    """One set of training images.

    Attributes:
        dataset: ``nyuv2`` or ``synthetic`` (sharp, photographed through the simulated lens), or
            ``dfd_dslr`` (defocused as it is).
        root: The dataset's top folder; ``synthetic`` needs none.
        split: The split to train on.
        weight: How often it is drawn, relative to the other sources.
        count: Number of pictures of ``synthetic``.
    """

    dataset: str = "nyuv2"
    root: str = "../shared/data/nyuv2"
    split: str = "train"
    weight: float = 1.0
    count: int = 200


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is cut.

    Attributes:
        sources: The sets of images.
        cache: Folder where rendered images are kept.
        crop_px: Side of the square crops. Crops and mirror images are the only augmentation: any
            other would change the blur, which is the cue.
        batch_size: Crops per step and process.
        held_out: Frames of the first source kept out of training, for validation.
        noise_std: Sensor noise added after the lens, standard deviation in grey levels of 255.
        workers: Processes that load crops; 0 loads them in the training process.
    """

    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    cache: str = ".cache/defocus"
    crop_px: int = 192
    batch_size: int = 8
    held_out: int = 16
    noise_std: float = 0.0
    workers: int = 0


@dataclass(frozen=True)
class NetworkConfig:
    """A network of the registry and its options (the lens and depth range are added)."""

    name: str = "ddfd-lite"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossConfig:
    """A loss by name and its weights."""

    name: str = "ddfd"
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a half cosine down to ``final_share`` of the rate.

    Attributes:
        learning_rate: Rate after the warm-up.
        betas: Adam's two decay rates.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps until the full rate is reached.
        final_share: Rate at the end over full rate.
        clip_norm: Largest norm of the gradient; 0 leaves it as it is.
    """

    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 300
    final_share: float = 0.005
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    Attributes:
        name: Name of the run and of its weights.
        lens: Preset of ``LENS_PRESETS`` or its four fields: the lens images are rendered with.
        depth_range_m: Nearest and farthest depth the network answers, in metres.
        steps: Optimisation steps in all.
        save_every: Steps between two checkpoints, from which a stopped training goes on.
        validate_every: Steps between two validations.
        seed: Seed of weights and crops.
        precision: Lightning's name: ``32-true``, ``bf16-mixed``, ``16-mixed``.
        init: Checkpoint (``.pt``) whose weights to start from, or empty.
        threads: CPU threads; 0 takes all cores.
    """

    name: str = "ddfd-lite-nyu-8m"
    lens: LensConfig = LENS_PRESETS["nyu-8m"]
    depth_range_m: tuple[float, float] = (0.5, 10.0)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 20000
    save_every: int = 500
    validate_every: int = 2000
    seed: int = 1
    precision: str = "bf16-mixed"
    init: str = ""
    threads: int = 0


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML).

    Raises:
        ValueError: An unknown key (named, with the known ones), a value of the wrong kind, or an
            override without ``=``.
        FileNotFoundError: There is no such file.
    """
    values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"override: expected key=value, got {override!r}")
        _set(values, key.split("."), yaml.safe_load(text))
    return _build(TrainConfig, values, "")


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make ``value`` (plain YAML) the type ``kind``, naming ``where`` it does not fit."""
    origin = typing.get_origin(kind)
    if kind is LensConfig and isinstance(value, str):
        if value not in LENS_PRESETS:
            raise ValueError(f"{where}: expected one of {', '.join(LENS_PRESETS)}, got {value!r}")
        return LENS_PRESETS[value]
    if is_dataclass(kind):
        return _build_record(kind, value, where)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where)
    if origin is not None and origin is not types.UnionType:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        return _number(value, where)  # YAML reads 1e-4 as text
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _build_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'settings'}: expected a mapping, got {value!r}")
    known = typing.get_type_hints(kind)
    names = [item.name for item in fields(kind)]
    for key in value:
        if key not in names:
            raise ValueError(
                f"unknown setting {where}{'.' if where else ''}{key}; known: {', '.join(names)}"
            )
    required = [
        f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING
    ]
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"{where}: expected also {', '.join(missing)}")
    inner = {
        key: _build(known[key], item, f"{where}.{key}".lstrip(".")) for key, item in value.items()
    }
    return kind(**inner)


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: expected a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        return tuple(_build(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise ValueError(f"{where}: expected {len(kinds)} values, got {len(value)}")
    return tuple(
        _build(kind, item, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: expected a number, got {text!r}") from error
