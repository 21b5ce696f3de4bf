"""The building blocks of ``DdfdLite``: separable convolutions, and how scales are joined."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(cin: int, cout: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm, from ``cin`` to ``cout`` channels."""
    conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


def depthwise(channels: int, size: int) -> nn.Conv2d:
    """One ``size`` by ``size`` kernel per channel."""
    return nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)


class Separable(nn.Module):
    """Depthwise and pointwise convolution with a shortcut: the block of the fine scales."""

    def __init__(self, channels: int, size: int = 3) -> None:
        """Keep ``channels``; the depthwise kernel is ``size`` pixels wide."""
        super().__init__()
        self.spatial = depthwise(channels, size)
        self.mix = conv_bn(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N,C,H,W]`` to the same shape."""
        return F.relu(x + self.mix(self.spatial(x)))


class Expanded(nn.Module):
    """A wide depthwise kernel and a two-layer mixer with a shortcut: the coarse scales' block."""

    def __init__(self, channels: int, size: int = 5, expansion: int = 2) -> None:
        """Keep ``channels``, with ``expansion`` times as many inside."""
        super().__init__()
        self.spatial = nn.Sequential(depthwise(channels, size), nn.BatchNorm2d(channels))
        self.widen = nn.Conv2d(channels, expansion * channels, 1)
        self.narrow = conv_bn(expansion * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N,C,H,W]`` to the same shape."""
        return F.relu(x + self.narrow(F.relu(self.widen(self.spatial(x)))))


class Down(nn.Sequential):
    """Half the size, another number of channels."""

    def __init__(self, cin: int, cout: int) -> None:
        """From ``cin`` to ``cout`` channels."""
        conv = nn.Conv2d(cin, cout, 2, stride=2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), nn.ReLU())


class Merge(nn.Module):
    """Bring the coarser scale up, add the encoder's features of this one."""

    def __init__(self, coarse: int, skip: int, cout: int) -> None:
        """Project both inputs to ``cout`` channels."""
        super().__init__()
        self.coarse = conv_bn(coarse, cout, 1)
        self.skip = conv_bn(skip, cout, 1)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``[N,C1,H/2,W/2]`` and ``[N,C2,H,W]`` to ``[N,C,H,W]``."""
        up = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return F.relu(up + self.skip(skip))


def stack(block: type[nn.Module], channels: int, count: int) -> nn.Sequential:
    """``count`` blocks of one kind, one after another."""
    return nn.Sequential(*(block(channels) for _ in range(count)))
