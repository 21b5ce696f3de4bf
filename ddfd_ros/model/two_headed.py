"""2HDED:NET: depth and the all-in-focus image from one defocused image (Nazir 2022)."""

from __future__ import annotations

import torch

from ddfd_ros.model.base import HEAD_CHOICES, ImageNetwork, check_choice
from ddfd_ros.model.decoders import Decoder
from ddfd_ros.model.encoders import DenseEncoder


class TwoHeaded(ImageNetwork):
    """One encoder and two unshared decoders (Nazir 2022, section 3, figure 1).

    41,414,400 parameters with the 3x3 stem, 41,422,080 with the 7x7 stem.

    Args:
        heads: ``both``, ``depth`` or ``sharp``; the decoder of a head left out does not exist.
        stem: Kernel side of the first convolution, 3 or 7.
        input_join: How the input image joins the deblurring decoder's output, both scaled to
            [-1, 1]: ``residual`` adds them (the paper), ``tanh`` takes the hyperbolic tangent of
            the sum (a public variant).
        dropout: Probability in the first two blocks of each decoder.
        bridge: ``linear``, or ``leaky`` for a leaky ReLU after the encoder's last batch norm.

    Raises:
        ValueError: An option has a value that does not exist.
    """

    def __init__(
        self,
        heads: str = "both",
        stem: int = 3,
        input_join: str = "residual",
        dropout: float = 0.0,
        bridge: str = "linear",
    ) -> None:
        super().__init__()
        check_choice("heads", heads, HEAD_CHOICES)
        check_choice("input_join", input_join, ("residual", "tanh"))
        self.encoder = DenseEncoder(stem, bridge)
        self.depth_decoder = Decoder(1, dropout) if heads != "sharp" else None
        self.sharp_decoder = Decoder(3, dropout) if heads != "depth" else None
        self.tanh_join = input_join == "tanh"

    def forward_aligned(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """``[N, 3, H, W]`` -> ``depth_m [N, 1, H, W]``, ``sharp_rgb [N, 3, H, W]``."""
        scaled = image * 2.0 - 1.0
        levels = self.encoder(scaled)
        outputs: dict[str, torch.Tensor] = {}
        if self.depth_decoder is not None:
            outputs["depth_m"] = self.depth_decoder(levels)
        if self.sharp_decoder is not None:
            joined = scaled + self.sharp_decoder(levels)
            joined = torch.tanh(joined) if self.tanh_join else joined
            outputs["sharp_rgb"] = (joined + 1.0) * 0.5
        return outputs
