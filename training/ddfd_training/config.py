"""The recipe of a training: frozen dataclasses, read from YAML and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.calibration.files import CALIBRATION_SUFFIXES, read_calibration
from ddfd_training.datasets.registry import DATASETS
from ddfd_training.lens_draws import LensRanges
from ddfd_training.records import build_record, check_range, read_yaml


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
        input: What the network is shown: ``auto`` what the set has (rendered where it is sharp),
            ``sharp`` the sharp image itself, ``rendered`` the sharp image through the simulated
            lens also where the set has a defocused one.
        aperture: Of ``dfd_dslr``: ``N2_8`` or ``N8``.
        kernel: Point-spread function of the simulated lens: ``disk`` or ``gaussian``.
        preset: Way to render by name (``RENDER_PRESETS``), in place of ``kernel``; or empty.
        size: Height and width to resize images to before they are rendered, or empty. The lens is
            that of the resized image: half the size, twice the pixel pitch.
        centre_crop: Height and width to keep of that, or empty.
        limit: Use only so many frames, evenly spaced; 0 takes all.
        sharp: Register the sharp companions of natural photographs, which takes a while; a
            training of depth alone does not need them.
        options: Further options of the data set, see docs/datasets.md: ``{views: true}``.
        lenses: Photograph sharp images through many lenses in place of the recipe's, for a network
            with ``lens_input``.
    """

    dataset: str = "nyuv2"
    root: str = "../shared/data/nyuv2"
    split: str = "train"
    weight: float = 1.0
    count: int = 200
    input: str = "auto"
    aperture: str = "N2_8"
    kernel: str = "disk"
    preset: str = ""
    size: tuple[int, ...] = ()
    centre_crop: tuple[int, ...] = ()
    limit: int = 0
    sharp: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    lenses: LensRanges = LensRanges()

    def __post_init__(self) -> None:
        """Refuse numbers out of range, naming the key."""
        for name, low in (("weight", 0), ("count", 1), ("limit", 0)):
            check_range(f"data.sources.{name}", getattr(self, name), low)


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is cut.

    Attributes:
        sources: The sets of images.
        cache: Folder where rendered images are kept.
        crop_px: Side of the square crops.
        batch_size: Crops per step and process.
        flip: Share of crops that are mirrored.
        augment: ``none``, or ``colour``, which leaves the blur as it is: blur is the cue, and
            nothing may change it; or ``eigen`` for sharp images: scale, rotation and colour.
        held_out: Pictures of the first source kept out of training, for validation, or a few more:
            whole scenes, which are then not trained on in other sources, either.
        noise_std: Sensor noise added after the lens, standard deviation in grey levels of 255.
        workers: Processes that load crops; 0 loads them in the training process.
        moved_share: Of crops that are blurred by a movement of the camera, too: what looks like
            defocus and is none. Their sharp originals are not learnt from.
        moved_px: The longest such movement, in pixels.
        near_and_far: Of so many random crops, take the one whose median depth is closest to a
            distance drawn evenly from the logarithm of the range of depths: near and far things,
            rare in rooms, are then learnt like all others. 1: any crop.
    """

    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    cache: str = ".cache/defocus"
    crop_px: int = 192
    batch_size: int = 8
    held_out: int = 16
    noise_std: float = 0.0
    workers: int = 0
    flip: float = 0.5
    augment: str = "none"
    moved_share: float = 0.0
    moved_px: float = 15.0
    near_and_far: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range, naming the key."""
        if not any(source.weight for source in self.sources):
            raise ValueError(
                "data.sources: expected one at least with a weight above 0, got "
                f"{len(self.sources)} without"
            )
        least = {"crop_px": 1, "batch_size": 1, "near_and_far": 1, "workers": 0}
        for name in (*least, "held_out", "noise_std", "moved_px"):
            check_range(f"data.{name}", getattr(self, name), least.get(name, 0))
        for name in ("flip", "moved_share"):
            check_range(f"data.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True)
class NetworkConfig:
    """A network of the registry and its options (the lens and depth range are added).

    Attributes:
        name: Its name in the registry.
        options: Its keyword arguments.
        imagenet: Where an encoder of DenseNet-121 starts: ``torchvision`` takes its ImageNet
            weights as torchvision downloads them, a path reads them from that file, empty starts
            at random.
        guide: Checkpoint (``.pt``, or ``@NAME`` as in ``init``) of the depth network inside a
            ``deddnet`` with ``depth: own``.
    """

    name: str = "ddfd-lite"
    options: Mapping[str, Any] = field(default_factory=dict)
    imagenet: str = ""
    guide: str = ""


@dataclass(frozen=True)
class LossConfig:
    """A loss by name and its weights."""

    name: str = "ddfd"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow the gradient.

    Attributes:
        name: ``adamw`` (decoupled weight decay), ``adam`` (weight decay as an L2 penalty, as in
            the papers' code) or ``sgd`` (momentum ``betas[0]``).
        learning_rate: Rate after the warm-up.
        betas: Adam's two decay rates.
        weight_decay: Weight decay.
        warmup_steps: Steps of a linear rise to the full rate.
        schedule: What follows: ``cosine`` half a cosine down to ``final_share`` of the rate,
            ``constant``, ``steps`` times ``factor`` at each milestone, ``linear`` a line from the
            first milestone down to ``final_share``.
        milestones: Shares of the whole training, between 0 and 1.
        factor: Of ``steps``.
        final_share: Rate at the end over full rate.
        clip_norm: Largest norm of the gradient; 0 leaves it as it is.
    """

    name: str = "adamw"
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 300
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    factor: float = 0.1
    final_share: float = 0.005
    clip_norm: float = 1.0


@dataclass(frozen=True)
class EvaluateConfig:
    """What the trained network is tested on, and the papers' rows that its own stands beside.

    Attributes:
        data: Data set of ``ddfd-evaluate``; empty: the recipe names no test.
        root: Its folder.
        split: Its split.
        input: ``auto``, or ``sharp`` to show the network the sharp images.
        aperture: Of ``dfd_dslr``.
        preset: Way to render sharp images, by name, or empty.
        size: Height and width the images are resized to first, or empty.
        limit: Only so many images; 0 takes all.
        paper: Names of rows in ``paper_rows.yaml``.
    """

    data: str = ""
    root: str = ""
    split: str = "test"
    input: str = "auto"
    aperture: str = "N2_8"
    preset: str = ""
    size: tuple[int, ...] = ()
    limit: int = 0
    paper: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would be taken for ``auto``, naming the key."""
        if self.input not in ("auto", "sharp"):
            raise ValueError(f"evaluate.input: expected auto or sharp, got {self.input!r}")
        check_range("evaluate.limit", self.limit, 0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    Attributes:
        name: Name of the run and of its weights.
        lens: Preset of ``LENS_PRESETS``, its four fields, or the file of ``ddfd-calibrate``: the
            lens images are rendered with, and photographs are taken for.
        lens_px: Width and height of the images that ``lens`` is for, by the file of
            ``ddfd-calibrate``, so that photographs of another size are refused; empty: not known.
        depth_range_m: Nearest and farthest depth the network answers, in metres.
        steps: Optimisation steps in all.
        save_every: Steps between two checkpoints, from which a stopped training goes on.
        validate_every: Steps between two validations.
        seed: Seed of weights and crops.
        precision: ``auto``: bfloat16 where the hardware computes in it, else float32; or
            Lightning's name: ``32-true``, ``bf16-mixed``, ``16-mixed``.
        init: Checkpoint (``.pt``) whose weights to start from, ``@NAME`` for those of the run
            ``NAME`` in the same folder of runs, or empty.
        threads: CPU threads; 0 takes all cores.
        fit_sigma: Correct the deviations of a network with ``lens_input`` by the held-out scenes
            when it is trained (``sigma_fit.py``).
        sigma_0_px: How far the pictures spread a point in focus, standard deviation in pixels, as
            far as it is known, or 0: part of the contract, by which a sharper camera's images are
            softened.
        step: How outputs and targets of a batch come about, see ``steps.py``.
        sync_batch_norm: Batch norms take their statistics over all processes, so that training
            on several is what one process would do with the whole batch.
        stages: Parts of a training, one after the other: each has a ``name`` and the settings in
            which it differs. Each starts from the weights of the one before; the last one's run
            has the recipe's name.
        evaluate: The test that belongs to it.
    """

    name: str = "ddfd-lite-nyu-8m"
    lens: LensConfig = LENS_PRESETS["nyu-8m"]
    lens_px: tuple[int, ...] = ()
    depth_range_m: tuple[float, float] = (0.5, 10.0)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 20000
    save_every: int = 500
    validate_every: int = 2000
    seed: int = 1
    precision: str = "auto"
    init: str = ""
    threads: int = 0
    fit_sigma: bool = False
    sigma_0_px: float = 0.0
    step: str = "plain"
    sync_batch_norm: bool = False
    stages: tuple[Mapping[str, Any], ...] = ()
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        """Refuse what no training can have, naming the key."""
        if not self.name:
            raise ValueError("name: expected that of the run and its weights, got none")
        for name in ("steps", "save_every", "validate_every"):
            check_range(name, getattr(self, name), 1)
        check_range("threads", self.threads, 0)
        near_m, far_m = self.depth_range_m
        if not 0 < near_m < far_m:
            raise ValueError(
                "depth_range_m: expected metres, the nearest above 0 and below the farthest, got "
                f"[{near_m:g}, {far_m:g}]"
            )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML; none: empty text).

    Returns:
        The training, of one in stages the last one.

    Raises:
        ValueError: The file is no YAML, an unknown key (named, with the known ones), a value of
            the wrong kind or out of its range, or an override without ``=``.
        FileNotFoundError: There is no such file.
    """
    return load_stages(path, overrides)[-1]


def load_stages(path: str | Path, overrides: Sequence[str] = ()) -> list[TrainConfig]:
    """Read a YAML file: its stages in order, or the one training it describes.

    Overrides hold for every stage. Errors as of :func:`load_config`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: expected a recipe (YAML), got no such file; training/configs has some"
        )
    values = _plain(Path(path).read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    return stages_of(values, overrides)


def stages_of(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> list[TrainConfig]:
    """The stages that plain values describe; see :func:`load_stages`."""
    base = dict(values)
    stages = build_record(tuple[Mapping[str, Any], ...], base.pop("stages", []), "stages")
    configs: list[TrainConfig] = []
    for number, stage in enumerate(stages or ({},)):
        merged = deepcopy(base)
        own = dict(stage)
        suffix = own.pop("name", "")
        if number:
            merged.pop("init", None)  # the first stage's start
        _merge(merged, own)
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator:
                raise ValueError(f"override: expected key=value, got {override!r}")
            if key.partition(".")[0] == "stages":
                raise ValueError("stages: expected in the recipe's file only, got them beside it")
            _set(merged, key.split("."), _plain(text, key))
        config: TrainConfig = build_record(TrainConfig, merged)
        lens = merged.get("lens")
        if isinstance(lens, str) and Path(lens).suffix in CALIBRATION_SUFFIXES:
            measured = read_calibration(Path(lens))
            config = replace(config, lens_px=(measured.width, measured.height))
        if number < len(stages) - 1:
            if not suffix:
                raise ValueError(f"stages[{number}]: expected also name")
            config = replace(config, name=f"{config.name}-{suffix}")
        if configs and not config.init:
            config = replace(config, init=f"@{configs[-1].name}")
        configs.append(config)
    return configs


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of plain values with changes laid over them, mappings key by key."""
    result = deepcopy(dict(values))
    _merge(result, changes)
    return result


def at_data_root(config: TrainConfig, data_root: str = "") -> TrainConfig:
    """The recipe with its sources and its test where :func:`root_of` finds them."""
    sources = tuple(
        replace(source, root=root_of(source.dataset, source.root, data_root))
        for source in config.data.sources
    )
    test = config.evaluate
    test = replace(test, root=root_of(test.data, test.root, data_root))
    return replace(config, data=replace(config.data, sources=sources), evaluate=test)


def root_of(dataset: str, root: str, data_root: str = "") -> str:
    """A data set's folder: below ``data_root``, or where the recipe has it.

    If it is not there, it is below the folder that the environment variable DDFD_DATA names. What
    has no folder name of its own (``folder``, ``bag``, ``synthetic``) stays where it is.
    """
    entry = DATASETS.get(dataset)
    there = bool(root) and Path(root).exists()
    base = data_root or ("" if there else os.environ.get("DDFD_DATA", ""))
    if entry is None or not entry.folder or not base:
        return root
    return str(Path(base) / entry.folder)


def _plain(text: str, where: str) -> Any:
    """What YAML says; empty text, and ``@NAME``, which YAML does not allow, stay text.

    Raises:
        ValueError: It is no YAML; the message names the file or key ``where``.
    """
    if not text or text.startswith("@"):
        return text
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: expected YAML, got {' '.join(str(error).split())}") from error


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Change ``values`` in place, mappings key by key."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: Any, keys: Sequence[str], value: Any, where: str = "") -> None:
    """Put ``value`` in its place in ``values``; entries of a list are counted from 0.

    Raises:
        ValueError: The way there leads through what has no parts, or past the end of a list; the
            message names the key ``where``.
    """
    key: Any = keys[0]
    if isinstance(values, list):
        if not (key.isdecimal() and int(key) < len(values)):
            raise ValueError(
                f"{where}: expected the number of one of its {len(values)} entries, from 0, got "
                f"{key!r}"
            )
        key = int(key)
    elif not isinstance(values, dict):
        raise ValueError(
            f"{where}: expected settings with parts, of which {key} would be one, got {values!r}; "
            f"give the whole: {where}={{{key}: ...}}"
        )
    if len(keys) == 1:
        values[key] = value
        return
    inner = values[key] if isinstance(values, list) else values.setdefault(key, {})
    _set(inner, keys[1:], value, f"{where}.{keys[0]}".lstrip("."))
