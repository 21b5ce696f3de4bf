"""How a batch becomes outputs and targets of the loss: by name, so that a recipe can choose.

A step is a function ``(network, batch, config) -> (outputs, targets)``: two dicts of tensors that
the recipe's loss is given. The plain step shows the network ``batch["image"]`` and compares with
the batch itself. Training without depth, for example, renders more outputs from those of the
network, and has a step of its own, which is a line in :data:`STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn

from ddfd_training.config import TrainConfig

Tensors = dict[str, torch.Tensor]
Step = Callable[[nn.Module, Tensors, TrainConfig], tuple[Tensors, Tensors]]

STEPS: dict[str, str] = {
    "plain": "ddfd_training.steps:plain_step",
    "given-depth": "ddfd_training.deblurring:given_depth_step",
}
"""Name of a step -> ``module:function``, imported when a recipe asks for it."""


def find_step(name: str) -> Step:
    """The step of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in STEPS:
        raise ValueError(f"step: expected one of {', '.join(STEPS)}, got {name!r}")
    module, _, function = STEPS[name].partition(":")
    step: Step = getattr(import_module(module), function)
    return step


def plain_step(network: nn.Module, batch: Tensors, config: TrainConfig) -> tuple[Tensors, Tensors]:
    """The network's answer to the image, against the batch."""
    del config
    return answer(network, batch), batch


def answer(network: nn.Module, batch: Tensors) -> Tensors:
    """The network's heads for ``batch["image"]``, in float32.

    A network that takes the lens beside the image gets ``batch["lens"]`` where the batch has it.
    """
    image = batch["image"].contiguous(memory_format=torch.channels_last)
    beside = {}
    if "lens" in batch and "lens" in getattr(network, "side_inputs", ()):
        beside["lens"] = batch["lens"]
    return {key: value.float() for key, value in network(image, **beside).items()}
