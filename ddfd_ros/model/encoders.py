"""The DenseNet-121 encoder of D3-Net and 2HDED:NET.

Dense blocks as in Huang 2017 (6/12/24/16 layers, growth 32, bottleneck 4), changed as in Carvalho
2018: a strided 4x4 convolution in place of max pooling, leaky activations in the stem, and skips
taken from each transition before its pooling. Names of parameters are torchvision's where the
tensors are the same, so that its ImageNet weights load by key.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ddfd_ros.core.errors import ModelLoadError
from ddfd_ros.model.base import check_choice
from ddfd_ros.model.checkpoint import read_state_dict

BLOCK_LAYERS = (6, 12, 24, 16)
GROWTH = 32
BOTTLENECK = 4
STEM_CHANNELS = 64
LEAK = 0.2
CHANNELS_MULTIPLE = 8
IMAGENET_CHANNELS = 1024
"""At the end of torchvision's DenseNet-121, and of the paper's encoder."""
STEMS: dict[int, int] = {3: 1, 7: 3}
"""Kernel size of the stem's first convolution -> its padding (3: D3-Net; 7: an older variant)."""


def scaled_channels(channels: int, width: float) -> int:
    """The paper's ``channels`` times ``width``, in whole eights, which matrix units like best.

    Raises:
        ValueError: ``width`` is not in (0, 1].
    """
    if not 0.0 < width <= 1.0:
        raise ValueError(f"width: expected above 0 and at most 1, the paper's, got {width!r}")
    return max(1, round(channels * width / CHANNELS_MULTIPLE)) * CHANNELS_MULTIPLE


class DenseLayer(nn.Module):
    """BN-ReLU-conv 1x1-BN-ReLU-conv 3x3; the answer is appended to the input's channels."""

    def __init__(self, channels: int, growth: int = GROWTH) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` -> ``[N, C + growth, H, W]``."""
        new = self.conv1(torch.relu(self.norm1(features)))
        new = self.conv2(torch.relu(self.norm2(new)))
        return torch.cat((features, new), dim=1)


class Transition(nn.Module):
    """BN-ReLU-conv 1x1 to half the channels. Its 2x2 average pool is separate: see the encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` -> ``[N, C / 2, H, W]``."""
        return self.conv(torch.relu(self.norm(features)))


class DenseEncoder(nn.Module):
    """The shared encoder.

    Args:
        stem: Side of the first convolution's kernel, 3 or 7.
        bridge: What follows the last batch norm: ``linear`` nothing, ``leaky`` a leaky ReLU as in
            public code of this family.
        width: Factor for stem and growth; 1 is the paper's.

    Attributes:
        skip_channels: Channels of the skips at 1/2, 1/4, 1/8 and 1/16 of the input's size; 64,
            128, 256 and 512 at full width.
        out_channels: Channels at 1/32 of the size; 1024 at full width.
    """

    def __init__(self, stem: int = 3, bridge: str = "linear", width: float = 1.0) -> None:
        super().__init__()
        check_choice("stem", stem, tuple(STEMS))
        check_choice("bridge", bridge, ("linear", "leaky"))
        channels = scaled_channels(STEM_CHANNELS, width)
        growth = scaled_channels(GROWTH, width)
        skips = [channels]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, stem, stride=2, padding=STEMS[stem], bias=False),
            norm0=nn.BatchNorm2d(channels),
            down0=nn.Conv2d(channels, channels, 4, stride=2, padding=1, bias=False),
            downnorm0=nn.BatchNorm2d(channels),
        )
        for number, count in enumerate(BLOCK_LAYERS, start=1):
            block = nn.Sequential()
            for index in range(count):
                layer = DenseLayer(channels + index * growth, growth)
                block.add_module(f"denselayer{index + 1}", layer)
            layers[f"denseblock{number}"] = block
            channels += count * growth
            if number < len(BLOCK_LAYERS):
                layers[f"transition{number}"] = Transition(channels)
                channels //= 2
                skips.append(channels)
        self.skip_channels, self.out_channels = tuple(skips), channels
        layers["norm5"] = nn.BatchNorm2d(channels)
        # A dictionary, not a Sequential: the order of the calls, with the skips, is in forward.
        self.features = nn.ModuleDict(layers)
        self.stem_activation = nn.LeakyReLU(LEAK)
        self.bridge_activation = nn.LeakyReLU(LEAK) if bridge == "leaky" else nn.Identity()
        self.pool = nn.AvgPool2d(2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self,
        image: torch.Tensor,
        conditions: nn.ModuleList | None = None,
        lens: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Encode an image.

        Args:
            image: RGB ``[N, 3, H, W]`` in [-1, 1], sides multiples of 32.
            conditions: Tell the last three dense blocks, one each, of the lens
                (``blur_space.LensCondition``); their inputs have the channels of the skips from
                1/4 on.
            lens: What they tell, ``[N, 2]`` or ``[1, 2]``.

        Returns:
            Features from fine to coarse, ``skip_channels`` and ``out_channels``: at full width 64
            channels at 1/2 of the size, 128 at 1/4, 256 at 1/8, 512 at 1/16 and 1024 at 1/32.
        """
        layers = self.features
        features = self.stem_activation(layers["norm0"](layers["conv0"](image)))
        levels = [features]
        features = self.stem_activation(layers["downnorm0"](layers["down0"](features)))
        for number in range(1, len(BLOCK_LAYERS)):
            features = layers[f"denseblock{number}"](features)
            features = layers[f"transition{number}"](features)
            levels.append(features)
            features = self.pool(features)
            if conditions is not None and lens is not None:
                features = conditions[number - 1](features, lens)
        features = layers[f"denseblock{len(BLOCK_LAYERS)}"](features)
        levels.append(self.bridge_activation(layers["norm5"](features)))
        return levels


@dataclass(frozen=True)
class EncoderWeightsReport:
    """What became of a file of ImageNet weights.

    Attributes:
        matched: Names taken over.
        other_shape: Names on both sides whose shapes differ (the 3x3 stem against 7x7).
        only_network: Names that keep their initial values because the file lacks them.
        only_file: Names of the file that this encoder does not have (the classifier).
    """

    matched: tuple[str, ...]
    other_shape: tuple[str, ...]
    only_network: tuple[str, ...]
    only_file: tuple[str, ...]

    def __str__(self) -> str:
        """One line for a log."""
        kept = (*self.other_shape, *self.only_network)
        return (
            f"encoder: {len(self.matched)} of {len(self.matched) + len(kept)} tensors matched, "
            f"{len(kept)} keep their initial values ({', '.join(kept) or 'none'})"
        )


def load_imagenet_weights(encoder: DenseEncoder, path: str | Path) -> EncoderWeightsReport:
    """Load torchvision's DenseNet-121 weights (a state dict file) into the encoder by key.

    Both spellings of torchvision's files are understood: ``denselayer1.norm1.weight`` and the
    older ``denselayer1.norm.1.weight``.

    Args:
        encoder: ``network.encoder`` of ``2hded`` or ``d3net``; changed in place.
        path: The state dict, for example ``densenet121-a639ec97.pth``.

    Raises:
        ModelLoadError: The file is missing, damaged, or not weights of a DenseNet-121.
    """
    return load_imagenet_state(encoder, read_imagenet_file(path), str(path))


def read_imagenet_file(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict of torchvision's DenseNet-121.

    Raises:
        ModelLoadError: The file is missing, damaged, or no state dict.
    """
    source = Path(path)
    if not source.is_file():
        raise ModelLoadError(f"{source}: expected ImageNet weights, got no file; check the path")
    return read_state_dict(source, "torchvision's DenseNet-121", "download it again")


def load_imagenet_state(
    encoder: DenseEncoder, found: Mapping[str, torch.Tensor], source: str
) -> EncoderWeightsReport:
    """Copy what fits of a DenseNet-121's state dict into the encoder, by key.

    Args:
        encoder: Changed in place.
        found: Names in either of torchvision's spellings.
        source: Where it comes from, for the message.

    Raises:
        ModelLoadError: The encoder is thinner than the paper's, or less than half of the tensors
            match.
    """
    if encoder.out_channels != IMAGENET_CHANNELS:
        raise ModelLoadError(
            f"{source}: expected a network of full width to start from ImageNet weights, got one "
            f"with {encoder.out_channels} of {IMAGENET_CHANNELS} channels at its end; leave out "
            "the network's option width, or network.imagenet"
        )
    found = {_current_name(key): value for key, value in found.items()}
    wanted = encoder.state_dict()
    shared = [key for key in wanted if key in found]
    matched = [key for key in shared if wanted[key].shape == found[key].shape]
    if len(matched) < len(wanted) // 2:
        raise ModelLoadError(
            f"{source}: expected torchvision's DenseNet-121, but only {len(matched)} of "
            f"{len(wanted)} tensors match; choose the file densenet121-*.pth"
        )
    encoder.load_state_dict({key: found[key] for key in matched}, strict=False)
    return EncoderWeightsReport(
        matched=tuple(matched),
        other_shape=tuple(key for key in shared if key not in set(matched)),
        only_network=tuple(key for key in wanted if key not in found),
        only_file=tuple(key for key in found if key not in wanted),
    )


def _current_name(key: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
