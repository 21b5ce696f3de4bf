"""D3-Net: depth from one defocused image (Carvalho 2018)."""

from __future__ import annotations

import torch

from ddfd_ros.model.base import ImageNetwork, check_choice
from ddfd_ros.model.decoders import Decoder
from ddfd_ros.model.encoders import DenseEncoder


class D3Net(ImageNetwork):
    """The DenseNet-121 encoder and one decoder (Carvalho 2018, section 3.3, figure 3).

    24,212,544 parameters with the 3x3 stem.

    Args:
        heads: ``depth``, the only head there is.
        stem: Kernel side of the first convolution, 3 or 7.
        dropout: Probability after the decoder's first four convolutions.
        bridge: ``linear``, or ``leaky`` for a leaky ReLU after the encoder's last batch norm.

    Raises:
        ValueError: An option has a value that does not exist.
    """

    def __init__(
        self, heads: str = "depth", stem: int = 3, dropout: float = 0.5, bridge: str = "linear"
    ) -> None:
        super().__init__()
        check_choice("heads", heads, ("depth",))
        self.encoder = DenseEncoder(stem, bridge)
        self.depth_decoder = Decoder(self.encoder, 1, dropout)

    def forward_aligned(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """``[N, 3, H, W]`` -> ``depth_m [N, 1, H, W]``."""
        return {"depth_m": self.depth_decoder(self.encoder(image * 2.0 - 1.0))}
