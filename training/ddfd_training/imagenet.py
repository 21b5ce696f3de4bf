"""ImageNet weights for the encoders, from a file or by torchvision's own download."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.error import URLError

import torch
from torch import nn

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model.encoders import (
    DenseEncoder,
    EncoderWeightsReport,
    load_imagenet_state,
    load_imagenet_weights,
)

TORCHVISION = "torchvision"


def load_encoder(network: nn.Module, source: str) -> EncoderWeightsReport:
    """Start a network's DenseNet-121 encoder from ImageNet weights.

    Args:
        network: ``d3net``, ``2hded``, or another one with such an encoder; changed in place.
        source: ``torchvision``, or the path of a state dict such as ``densenet121-a639ec97.pth``.

    Returns:
        How many tensors matched, and which did not.

    Raises:
        ModelLoadError: The network has another encoder, or the weights cannot be had.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, DenseEncoder):
        raise ModelLoadError(
            f"imagenet: expected a network with a DenseNet-121 encoder (d3net, 2hded), got "
            f"{type(network).__name__}; leave network.imagenet empty"
        )
    if source != TORCHVISION:
        return load_imagenet_weights(encoder, source)
    return load_imagenet_state(encoder, _download(), "torchvision's DenseNet-121 weights")


def _download() -> Mapping[str, torch.Tensor]:
    """The weights as torchvision fetches and keeps them (in torch.hub's folder)."""
    try:
        from torchvision.models import DenseNet121_Weights
    except ImportError as error:
        raise ModelLoadError(
            "imagenet: expected the package torchvision for its download, got none "
            f"({error}); install it (its release must fit torch's), give the path of "
            "densenet121-a639ec97.pth as network.imagenet=PATH, or start at random with "
            "network.imagenet="
        ) from error
    try:
        state: Mapping[str, torch.Tensor] = DenseNet121_Weights.IMAGENET1K_V1.get_state_dict(
            progress=True, check_hash=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise ModelLoadError(
            f"imagenet: expected torchvision to download its weights, got {error}; "
            "give the path of densenet121-a639ec97.pth fetched on another machine"
        ) from error
    return state
