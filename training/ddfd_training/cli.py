"""``ddfd-train``: train a network from a YAML recipe, resume it, and write its weights."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
from ddfd_ros.core.types import HEADS
from ddfd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ddfd_training.config import TrainConfig, at_data_root, load_stages
from ddfd_training.deblurring import load_guide
from ddfd_training.imagenet import load_encoder
from ddfd_training.precision import chosen_precision
from ddfd_training.records import check_range
from ddfd_training.run_recipe import check_recipe
from ddfd_training.sigma_fit import fit_sigma
from ddfd_training.trainer import (
    DefocusData,
    DepthFromDefocus,
    check_weights,
    network_options,
)

_DECODERS = ("depth_decoder", "sharp_decoder")
_LAST_LAYERS = ("depth_decoder.out.", "depth_decoder.last.")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace the one before only when they are whole.

    Lightning's own are written to the system's folder for temporary files and moved from there,
    which is a copy where that is another file system: a training that is killed then, or a full
    disk, leaves half a file in place of the only checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` beside ``path`` and give it that name when it is whole."""
        del storage_options
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        torch.save(checkpoint, partial)
        partial.replace(target)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        stages = load_stages(arguments.config, arguments.overrides)
        path = train_stages(
            [at_data_root(config, arguments.data_root) for config in stages],
            Path(arguments.out),
            _lightning_options(arguments),
            arguments.steps_now,
        )
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-train: {error}", file=sys.stderr)
        return 2
    print(f"weights: {path}" if path else "stopped before the last step; run again to go on")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ddfd-train", description=__doc__)
    parser.add_argument("--config", required=True, help="recipe (YAML), see training/configs")
    parser.add_argument(
        "--data-root",
        default="",
        metavar="FOLDER",
        help="folder that holds the data sets by their names (nyuv2, dfd_dslr, ...), in place of "
        "the recipe's roots; default: those roots, or $DDFD_DATA for what is not there",
    )
    parser.add_argument("--out", default="runs", help="folder for checkpoints, logs and weights")
    parser.add_argument("--accelerator", default="auto", help="Lightning's: auto, cpu, gpu, ...")
    parser.add_argument("--devices", default="auto", help="Lightning's: auto, a number, a list")
    parser.add_argument("--strategy", default="auto", help="Lightning's: auto, ddp, fsdp, ...")
    parser.add_argument("--num-nodes", type=int, default=1, help="machines")
    parser.add_argument(
        "--steps-now", type=int, default=0, help="stop at this step; default: train to the end"
    )
    parser.add_argument("overrides", nargs="*", help="settings as key.sub=value")
    return parser


def _lightning_options(arguments: argparse.Namespace) -> dict[str, Any]:
    devices = arguments.devices
    return {
        "accelerator": arguments.accelerator,
        "devices": int(devices) if devices.isdigit() else devices,
        "strategy": arguments.strategy,
        "num_nodes": arguments.num_nodes,
    }


def train_stages(
    configs: Sequence[TrainConfig],
    out: Path,
    lightning: dict[str, Any] | None = None,
    steps_now: int = 0,
) -> Path | None:
    """Train one stage after the other; one whose weights are there is not trained again.

    Arguments and result as of :func:`train`, the result being the last stage's.
    """
    path: Path | None = None
    for number, config in enumerate(configs):
        path = out / config.name / f"{config.name}.pt"
        if number < len(configs) - 1 and path.is_file():
            check_recipe(path.parent, config)
            continue
        path = train(config, out, lightning, steps_now)
        if path is None:
            return None
    return path


def train(
    config: TrainConfig, out: Path, lightning: dict[str, Any] | None = None, steps_now: int = 0
) -> Path | None:
    """Train as ``config`` says, going on from the last checkpoint in ``out/<name>`` if any.

    Args:
        config: The recipe.
        out: Folder of runs.
        lightning: Options for Lightning's ``Trainer`` (accelerator, devices, strategy, ...).
        steps_now: Stop at this step although the recipe has more; 0 trains to the end.

    Returns:
        The weights written (``out/<name>/<name>.pt``), or ``None`` if stopped before the end.

    Raises:
        ValueError: ``out/<name>`` holds a run that was begun with another recipe, Lightning
            cannot train as asked for, or the weights have become NaN or infinite.
    """
    check_range("--steps-now", steps_now, 0)
    folder = out / config.name
    _check_fit(config)
    check_recipe(folder, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = DepthFromDefocus(config)
    last = folder / "last.ckpt"
    if not last.is_file():  # a resumed run has its own weights
        _start(module, config, out)
    keep = ModelCheckpoint(
        folder,
        filename="last",
        save_top_k=1,
        monitor=None,
        enable_version_counter=False,
        every_n_train_steps=config.save_every,
        save_on_train_epoch_end=False,
    )
    options = lightning or {}
    precision, remark = chosen_precision(config.precision, options.get("accelerator", "auto"))
    if remark:
        print(remark, file=sys.stderr)
    # One CSV file per start: Lightning's logger cannot append to one.
    try:
        trainer = pl.Trainer(
            max_epochs=1,
            max_steps=min(steps_now, config.steps) if steps_now else config.steps,
            precision=precision,  # type: ignore[arg-type]
            gradient_clip_val=config.optimizer.clip_norm or None,
            val_check_interval=config.validate_every,
            check_val_every_n_epoch=None,
            log_every_n_steps=min(50, config.save_every),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module shares the crops out
            plugins=[WholeCheckpoints()],
            callbacks=[keep, TQDMProgressBar(refresh_rate=10 if sys.stderr.isatty() else 250)],
            logger=[TensorBoardLogger(folder, name="", version=""), CSVLogger(folder, name="csv")],
            **options,
        )
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"Lightning: {error} (asked for: {lightning})") from error
    data = DefocusData(config)
    trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=False)
    if trainer.global_step < config.steps:
        return None
    target = folder / f"{config.name}.pt"
    check_weights(module.network, trainer.global_step)
    if trainer.is_global_zero:
        contract = contract_of(module, trainer.global_step, trainer.world_size)
        # Before the fit, too: should that fail, the training is not lost.
        _save(target, module, contract)
        if config.fit_sigma:
            module.eval()
            held_out = data.held_out()
            fit = fit_sigma(module.network, (held_out[i] for i in range(len(held_out))))
            print(f"deviations: {fit}")
            _save(target, module, contract)
    return target


def _check_fit(config: TrainConfig) -> None:
    """Refuse before the training what its last step would refuse; ValueError says what."""
    told = config.network.options.get("lens_input")
    if config.fit_sigma and not (told and config.data.held_out):
        raise ValueError(
            "fit_sigma: expected network.options.lens_input: true and data.held_out of 1 or more, "
            f"whose pictures tell the deviations, got {told} and {config.data.held_out}; leave "
            "fit_sigma out, or give both"
        )


def _save(target: Path, module: DepthFromDefocus, contract: ModelContract) -> None:
    """Write the network's weights with what they promise."""
    config = module.config
    save_checkpoint(target, module.network, config.network.name, network_options(config), contract)


def _start(module: DepthFromDefocus, config: TrainConfig, out: Path) -> None:
    """Give the network the weights it is to start from, if the recipe names any."""
    if config.network.imagenet:
        report = load_encoder(module.network, config.network.imagenet)
        print(f"{config.network.imagenet}: {report}")
    if config.network.guide:
        load_guide(module.network, _weights(config.network.guide, out))
    if config.init:
        # The lens and the depth range of those weights may differ.
        network, _ = load_checkpoint(_weights(config.init, out))
        _take_over(module.network, network.state_dict(), config.init)


def _take_over(network: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Start from weights of this network, or of the same one before it took a lens as input.

    The weights of a head that was taken out of the network are left where they are, and so is the
    last layer of a depth decoder that answers other maps than a network for any lens does. A head
    that was added starts anew.

    Raises:
        ValueError: Other tensors are missing or too many, or of another shape.
    """
    absent = [name for name in _DECODERS if getattr(network, name, network) is None]
    kept = {key: value for key, value in state.items() if key.split(".")[0] not in absent}
    had = {key.split(".")[0] for key in state}
    added = [f"{name}." for name in _DECODERS if had & set(_DECODERS) and name not in had]
    renewed = ["conditions.", "second_look.", "sigma_correction", *added]
    for key, own in network.state_dict().items():
        if key not in kept or kept[key].shape == own.shape:
            continue
        if key.startswith(_LAST_LAYERS) and getattr(network, "lens_input", False):
            renewed.append(key)
            del kept[key]
        else:
            raise ValueError(
                f"init: expected {key} to be {list(own.shape)} in {origin}, got "
                f"{list(kept[key].shape)}; network and options must be the same"
            )
    result = network.load_state_dict(kept, strict=False)
    missing = [key for key in result.missing_keys if not key.startswith(tuple(renewed))]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"init: expected weights for this network in {origin}, got {len(missing)} tensors "
            f"missing and {len(result.unexpected_keys)} too many (first: "
            f"{[*missing, *result.unexpected_keys][0]}); network and options must be the same"
        )


def _weights(name: str, out: Path) -> Path:
    """The checkpoint that a recipe names: a path, or ``@NAME`` of a run in the same folder."""
    run = name.removeprefix("@")
    return out / run / f"{run}.pt" if name.startswith("@") else Path(name)


def contract_of(module: DepthFromDefocus, steps: int, processes: int = 1) -> ModelContract:
    """What the trained weights promise; a batch is that of one of the ``processes``."""
    config = module.config
    with torch.no_grad():
        outputs = module.network.eval()(torch.zeros(1, 3, 64, 64))
    sources = [f"{item.dataset}/{item.split}" for item in config.data.sources]
    drawn = [item.lenses for item in config.data.sources if item.lenses.draws]
    return ModelContract(
        format_version=FORMAT_VERSION,
        network=config.network.name,
        network_options={},
        parameter_count=1,
        input_height=None,
        input_width=None,
        size_multiple=32,
        outputs=tuple(head for head in HEADS if head in outputs),
        depth_min_m=config.depth_range_m[0],
        depth_max_m=config.depth_range_m[1],
        lens=config.lens,
        training={
            "name": config.name,
            "data": ", ".join(sources),
            "command": "ddfd-train " + shlex.join(sys.argv[1:]),
            "seed": config.seed,
            "steps": steps,
            "crops": steps * config.data.batch_size * processes,
            "crop_px": config.data.crop_px,
            "start": Path(config.init).name or config.network.imagenet or "random",
            "revision": _revision(),
        },
        metrics={},
        weights_sha256="",
        inputs=("image", *getattr(module.network, "side_inputs", ())),
        lens_range={
            name: (
                min(getattr(item, name)[0] for item in drawn),
                max(getattr(item, name)[1] for item in drawn),
            )
            for name in (("px_per_dioptre", "focus_distance_m") if drawn else ())
        },
        sigma_0_px=config.sigma_0_px,
    )


def _revision() -> str:
    """Source revision, or ``unknown`` outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
