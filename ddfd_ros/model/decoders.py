"""The five-block decoder of D3-Net, which 2HDED:NET has twice.

Its weights start from a normal distribution of standard deviation 0.02, as in the public code; the
paper's section 3.1 says "zero-mean and 0.2 variance", which is a standard deviation of 0.45.
"""

from __future__ import annotations

import torch
from torch import nn

from ddfd_ros.model.base import in_full_precision
from ddfd_ros.model.encoders import DenseEncoder, scaled_channels

BLOCK_CHANNELS = (512, 256, 128, 64, 64)
"""Output channels of the blocks, from 1/16 of the size to the full size."""

DROPOUT_BLOCKS = 2
"""Dropout follows the first four convolutions of the decoder, two in each block."""

INITIAL_STD = 0.02


class DecoderBlock(nn.Module):
    """Twice the size: transposed conv 4x4, BN, ReLU, then conv 3x3 against aliasing, BN, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, 2 H, 2 W]``."""
        features = torch.relu(self.dropout(self.norm1(self.up(features))))
        return torch.relu(self.dropout(self.norm2(self.conv(features))))


class Decoder(nn.Module):
    """Five blocks over the encoder's levels and a last 3x3 convolution, linear.

    Args:
        encoder: Whose levels are decoded.
        channels_out: Channels of the answer: 1 for depth, 3 for an image.
        dropout: Probability in the first two blocks, 0 for none.
        width: Factor for the blocks' channels; 1 is the paper's.

    Raises:
        ValueError: ``dropout`` is not a probability below 1, or ``width`` is not in (0, 1].
    """

    def __init__(
        self, encoder: DenseEncoder, channels_out: int, dropout: float = 0.0, width: float = 1.0
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout!r}")
        # The coarsest block has no skip; the skips join the others from coarse to fine.
        skips = (0, *reversed(encoder.skip_channels))
        channels = [scaled_channels(count, width) for count in BLOCK_CHANNELS]
        before = (encoder.out_channels, *channels[:-1])
        self.blocks = nn.ModuleList(
            DecoderBlock(skip + below, count, dropout if number < DROPOUT_BLOCKS else 0.0)
            for number, (skip, below, count) in enumerate(
                zip(skips, before, channels, strict=True)
            )
        )
        self.last = nn.Conv2d(channels[-1], channels_out, 3, padding=1, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, 0.0, INITIAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Decode the encoder's levels (fine to coarse) to ``[N, channels_out, H, W]``, float32."""
        features = self.blocks[0](levels[-1])
        for block, skip in zip(list(self.blocks)[1:], reversed(levels[:-1]), strict=True):
            features = block(torch.cat((skip, features), dim=1))
        return in_full_precision(self.last, features)
