"""Training DEDDNet (Zhai 2024): depth from the data set, and the depth network inside."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ddfd_ros.core.errors import ContractError
from ddfd_ros.model.checkpoint import read_checkpoint
from ddfd_ros.model.deddnet import Deddnet
from ddfd_training.config import TrainConfig

Tensors = dict[str, Tensor]


def given_depth_step(
    network: nn.Module, batch: Tensors, config: TrainConfig
) -> tuple[Tensors, Tensors]:
    """Shows the network the image and the data set's own depth: depth from a file."""
    del config
    image = batch["image"].contiguous(memory_format=torch.channels_last)
    answer = network(image, depth_m=batch["depth_m"])
    return {key: value.float() for key, value in answer.items()}, batch


def load_guide(network: nn.Module, path: str | Path) -> None:
    """Give a DEDDNet with ``depth: own`` the weights of its depth network.

    Args:
        network: Changed in place.
        path: A checkpoint of the network that the option ``guide`` names; heads that the guide
            lacks are passed over.

    Raises:
        ContractError: The network has no guide, or the checkpoint is of another network.
        ModelLoadError: There is no such checkpoint.
    """
    if not isinstance(network, Deddnet) or network.guide is None:
        raise ContractError(
            "network.guide: expected network deddnet with the option depth: own, got "
            f"{type(network).__name__} without a depth network; leave network.guide empty"
        )
    content = read_checkpoint(path)
    state, wanted = content["state_dict"], network.guide.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    if wrong:
        raise ContractError(
            f"{path}: expected weights of the depth network that option guide names, got those of "
            f"{content['network']!r}: {len(wrong)} tensors missing or of another shape (first: "
            f"{wrong[0]}); set guide and guide_options to what they were trained with"
        )
    network.guide.load_state_dict({key: state[key] for key in wanted})
