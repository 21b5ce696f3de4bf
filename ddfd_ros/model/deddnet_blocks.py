"""The parts of DEDDNet: channel-attention residual groups, the convolutional GRU, fusion."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

REDUCTION = 16
"""Channels over those of the attention's bottleneck."""


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution with bias that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ChannelAttention(nn.Module):
    """Every channel is weighed by what the means of all channels say (Zhai 2024, section 2.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // REDUCTION, 1)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.excite = nn.Conv2d(inner, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to the same shape."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class AttentionBlock(nn.Module):
    """RCAB: conv, ReLU, conv, channel attention, and the input added; no batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv3(channels, channels)
        self.second = conv3(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to the same shape."""
        new = self.second(torch.relu(self.first(features)))
        return features + self.attention(new)


class PlainBlock(nn.Module):
    """Two convolutions, each with ReLU: the block of a plain U-Net (the base of table 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv3(channels, channels)
        self.second = conv3(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to the same shape."""
        return torch.relu(self.second(torch.relu(self.first(features))))


class Group(nn.Module):
    """Blocks in a row and a convolution; with attention blocks, the input is added again."""

    def __init__(self, channels: int, count: int, blocks: str = "rcab") -> None:
        super().__init__()
        kind = AttentionBlock if blocks == "rcab" else PlainBlock
        self.blocks = nn.Sequential(*(kind(channels) for _ in range(count)))
        self.last = conv3(channels, channels)
        self.residual = blocks == "rcab"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to the same shape."""
        new = self.last(self.blocks(features))
        return features + new if self.residual else torch.relu(new)


class ConvGru(nn.Module):
    """One step of a gated recurrent unit whose matrices are 3x3 convolutions.

    z = sigma(conv([h, x])), r = sigma(conv([h, x])), q = tanh(conv([r h, x])),
    h' = (1 - z) h + z q.
    """

    def __init__(self, state: int, incoming: int) -> None:
        """``state`` and ``incoming``: channels of h and x."""
        super().__init__()
        self.update = conv3(state + incoming, state)
        self.reset = conv3(state + incoming, state)
        self.candidate = conv3(state + incoming, state)

    def forward(self, state: torch.Tensor, incoming: torch.Tensor) -> torch.Tensor:
        """``[N, state, H, W]`` and ``[N, incoming, H, W]`` to ``[N, state, H, W]``."""
        both = torch.cat((state, incoming), dim=1)
        update = torch.sigmoid(self.update(both))
        reset = torch.sigmoid(self.reset(both))
        candidate = torch.tanh(self.candidate(torch.cat((reset * state, incoming), dim=1)))
        return state + update * (candidate - state)


class GruFusion(nn.Module):
    """Blur features and depth features through one GRU step, in one of two orders.

    ``blur``: the blur features are the state, depth comes in (public code; only so does the
    network have the paper's number of parameters). ``depth``: the depth features are the state,
    widened to the blur features' channels, which come in (the paper's text).
    """

    def __init__(self, channels: int, depth_channels: int, state: str) -> None:
        super().__init__()
        self.depth_is_state = state == "depth"
        if self.depth_is_state:
            self.widen = nn.Conv2d(depth_channels, channels, 1)
            self.gru = ConvGru(channels, channels)
        else:
            self.gru = ConvGru(channels, depth_channels)

    def forward(self, blur: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` and ``[N, D, H, W]`` to ``[N, C, H, W]``."""
        if self.depth_is_state:
            return self.gru(self.widen(depth), blur)
        return self.gru(blur, depth)


class ConvFusion(nn.Module):
    """Both concatenated, a convolution, ReLU: the alternative of table 4."""

    def __init__(self, channels: int, depth_channels: int) -> None:
        super().__init__()
        self.mix = conv3(channels + depth_channels, channels)

    def forward(self, blur: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` and ``[N, D, H, W]`` to ``[N, C, H, W]``."""
        return torch.relu(self.mix(torch.cat((blur, depth), dim=1)))


class Branch(nn.Module):
    """One U of the network: four groups down, four up, depth joined at each scale on the way up.

    Args:
        channels: Width, the same at all scales.
        count: Blocks in every group.
        blocks: ``rcab`` or ``plain``.
        fusions: The modules that join depth features, one for each scale; empty for none.
    """

    def __init__(self, channels: int, count: int, blocks: str, fusions: nn.ModuleList) -> None:
        super().__init__()
        self.down = nn.ModuleList(Group(channels, count, blocks) for _ in range(4))
        self.up = nn.ModuleList(Group(channels, count, blocks) for _ in range(4))
        self.fusions = fusions

    def forward(self, features: torch.Tensor, depths: list[torch.Tensor]) -> torch.Tensor:
        """``[N, C, H, W]`` to the same shape.

        Args:
            features: Of the shared first convolution.
            depths: Depth features ``[N, D, H/s, W/s]`` at s = 1, 2, 4, 8; empty without fusion.
        """
        skips = []
        for group in self.down:
            features = group(features)
            skips.append(features)
            features = functional.max_pool2d(features, 2)
        for number in reversed(range(4)):
            features = self.up[number](features)
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = features + skips[number]
            if len(self.fusions):
                features = self.fusions[number](features, depths[number])
        return features
