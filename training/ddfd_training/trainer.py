"""The training loop, on Lightning: network, loss, schedule, validation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.model import build_network
from ddfd_ros.model.networks import optics_options
from ddfd_training.config import LossConfig, TrainConfig
from ddfd_training.crops import CropDataset
from ddfd_training.image_set import Images, complete, hold_out, to_tensors, without
from ddfd_training.losses import NAMED_LOSSES
from ddfd_training.metrics import depth_metrics, image_metrics
from ddfd_training.optimizers import build_optimizer
from ddfd_training.sources import check_augment, open_source
from ddfd_training.steps import find_step
from ddfd_training.sync_norm import synchronise

Batch = dict[str, torch.Tensor]


def network_options(config: TrainConfig) -> dict[str, Any]:
    """The network's options, with lens and depth range where it uses them."""
    name, options = config.network.name, config.network.options
    return {**optics_options(name, options, config.lens, config.depth_range_m), **options}


def _check_options(loss: LossConfig) -> None:
    """Refuse options that the loss of that name does not have; ValueError names them."""
    arguments = inspect.signature(NAMED_LOSSES[loss.name]).parameters.values()
    known = [item.name for item in arguments if item.kind is item.KEYWORD_ONLY]
    if unknown := sorted(set(loss.options) - set(known)):
        raise ValueError(
            f"options of loss {loss.name!r}: expected only {', '.join(known) or 'none'}, got "
            f"{', '.join(unknown)}; remove or rename them"
        )


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one step of a training on one of its processes."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def check_weights(network: nn.Module, step: int) -> None:
    """Refuse weights that are NaN or infinite: nothing can be trained on from them.

    Raises:
        ValueError: Some are; the message names the step and how many tensors.
    """
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    lost = sum(not bool(value.isfinite().all()) for value in values)
    if lost:
        raise ValueError(
            f"training: expected finite weights after step {step}, got NaN or infinite ones in "
            f"{lost} of {len(values)} tensors, which are not saved; go on from the last "
            "checkpoint with precision=32-true, or begin anew with a smaller "
            "optimizer.learning_rate or an optimizer.clip_norm"
        )


class DepthFromDefocus(pl.LightningModule):
    """A network of the registry with its loss and optimiser."""

    def __init__(self, config: TrainConfig) -> None:
        """Build network and loss as ``config`` says.

        Raises:
            ValueError: No loss or step of that name, or options that the loss does not have.
        """
        super().__init__()
        self.config = config
        self.network = build_network(config.network.name, **network_options(config))
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.sync_batch_norm:
            self.network = synchronise(self.network)
        if config.loss.name not in NAMED_LOSSES:
            raise ValueError(
                f"loss.name: expected one of {', '.join(NAMED_LOSSES)}, got {config.loss.name!r}"
            )
        self._loss = NAMED_LOSSES[config.loss.name]
        _check_options(config.loss)
        self._step = find_step(config.step)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images ``[N,3,H,W]`` in [0,1] to the network's heads."""
        return self.network(image.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """One batch of crops; returns the loss."""
        # What is random in the network, too, is decided by seed and step: so a training that was
        # stopped goes on as it would have.
        torch.manual_seed(step_seed(self.config.seed, self.global_step, self.global_rank))
        outputs, targets = self._step(self.network, batch, self.config)
        terms = self._loss(outputs, targets, **self.config.loss.options)
        several = self._world > 1  # then what is logged is the mean over all processes
        self.log_dict(
            {f"train/{name}": term.detach() for name, term in terms.items()}, sync_dist=several
        )
        self.log("loss", terms["total"].detach(), prog_bar=True, logger=False)
        return terms["total"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last good checkpoint; raises as :func:`check_weights`."""
        del checkpoint
        check_weights(self.network, self.global_step)

    def on_validation_start(self) -> None:
        """Say why there is nothing to validate; raises as :func:`check_weights`."""
        check_weights(self.network, self.global_step)

    def validation_step(self, batch: Batch, _: int) -> None:
        """One whole image, in full precision; metrics are averaged over images."""
        # Without autocast, as it is exported: rounded as in its training, a network does better.
        with torch.autocast(self.device.type, enabled=False):
            outputs = self._step(self.network, batch, self.config)[0]
        found: dict[str, float] = {}
        if "depth_m" in outputs:
            found |= depth_metrics(outputs["depth_m"], batch["depth_m"])
        if "sharp_rgb" in outputs and bool(batch["sharp_known"].all()):
            sharp = outputs["sharp_rgb"].clamp(0, 1)
            found["psnr"] = image_metrics(sharp, batch["sharp_rgb"])["psnr"]
            before = image_metrics(batch["image"], batch["sharp_rgb"])["psnr"]
            found["psnr_gain"] = found["psnr"] - before  # infinite where nothing was blurred
        # An image without known depth has no depth errors, and would make their mean unknown.
        for name, value in found.items():
            if not math.isfinite(value):
                continue
            self.log(f"val/{name}", value, prog_bar=name in ("rmse", "delta1", "psnr_gain"),
                     batch_size=1, sync_dist=self._world > 1)  # fmt: skip

    @property
    def _world(self) -> int:
        """Number of processes that train together."""
        return self.trainer.world_size

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """As the recipe says."""
        return build_optimizer(self.network.parameters(), self.config.optimizer, self.config.steps)


class WholeImages(Dataset[Batch]):
    """Whole frames of an image set, for validation.

    Args:
        images: The set.
        lens: Through which pictures were taken that do not say.
    """

    def __init__(self, images: Images, lens: LensConfig) -> None:
        self._images, self._lens = images, lens

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._images.frames)

    def __getitem__(self, index: int) -> Batch:
        """Frame ``index``, with the keys of a crop."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self._images.item(self._images.frames[index])
        return to_tensors(complete(item, ("lens",), self._lens))


class Onward(Sampler[int]):
    """One process's share of a training's crops, in order, from where the training goes on.

    The length counts also those that were seen before: Lightning compares it with the number of
    all steps, those before a restart among them.

    Args:
        length: Crops of one process in the whole training.
        start: How many of them it has seen.
        rank: Number of the process; each takes every ``world``-th crop.
        world: Number of processes.
    """

    def __init__(self, length: int, start: int, rank: int, world: int) -> None:
        self._length, self._start, self._rank, self._world = length, start, rank, world

    def __len__(self) -> int:
        """Number of crops, also those seen before."""
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Numbers of the crops still to come."""
        return (n * self._world + self._rank for n in range(self._start, self._length))


class DefocusData(pl.LightningDataModule):
    """The crops that the training still needs, and whole frames for validation.

    The training is one long epoch; where it goes on after a stop follows from the number of steps
    done, so no crop is seen twice or left out.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Remember the recipe; images are opened in ``setup``."""
        super().__init__()
        self.config = config
        self._train: list[Images] = []
        self._held_out: Images | None = None

    def prepare_data(self) -> None:
        """Render what is not in the cache; of several processes only the first one does this."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the sources."""
        del stage
        if self._train:
            return
        data = self.config.data
        # A network for any lens is told that of each photograph, where its set names it.
        told = bool(self.config.network.options.get("lens_input"))
        for source in data.sources:
            check_augment(source, data.augment)
        sets = [
            open_source(
                source, self.config.lens, data.cache, lens_px=self.config.lens_px, told=told
            )
            for source in data.sources
        ]
        if data.held_out:
            self._held_out = held_out = hold_out(sets[0], data.held_out)[1]
            # The same scenes at another size or through another lens are not trained on, either.
            scenes = {held_out.scene_of(frame) for frame in held_out.frames}
            sets = [without(images, scenes) for images in sets]
            for source, images in zip(data.sources, sets, strict=True):
                if not images.frames:
                    raise DatasetError(
                        f"data.held_out: expected scenes of {source.dataset} left to train on, "
                        f"got {data.held_out} pictures held out and none left; hold out fewer"
                    )
        self._train = sets

    def train_dataloader(self) -> DataLoader[Batch]:
        """The crops from the next step to the last; its length is that of the whole training."""
        done, rank, world = 0, 0, 1
        if self.trainer is not None:
            done, world = self.trainer.global_step, self.trainer.world_size
            rank = self.trainer.global_rank
        config = self.config
        size = config.data.batch_size
        crops = CropDataset(
            self._train,
            config.data,
            config.seed,
            0,
            config.steps * size * world,
            config.lens,
            config.depth_range_m,
        )
        return DataLoader(
            crops,
            batch_size=size,
            sampler=Onward(config.steps * size, done * size, rank, world),
            num_workers=config.data.workers,
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The frames held out, one by one."""
        if self._held_out is None:
            return []
        return DataLoader(self.held_out(), batch_size=1)

    def held_out(self) -> WholeImages:
        """The whole frames that are not trained on.

        Raises:
            ValueError: The recipe holds none out.
        """
        if self._held_out is None:
            raise ValueError("data.held_out: expected 1 or more pictures, got 0")
        return WholeImages(self._held_out, self.config.lens)
