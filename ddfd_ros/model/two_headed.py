"""2HDED:NET: depth and the all-in-focus image from one defocused image (Nazir 2022).

The paper's network answers metres and has its lens built in. With ``answer: blur`` its depth
decoder answers signed blur and its deviation instead, as ``ddfd-lite`` does, and the thin lens
turns both into metres (``ddfd_ros.model.blur_space``).
"""

from __future__ import annotations

from functools import partial

import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model.base import HEAD_CHOICES, check_choice
from ddfd_ros.model.blur_space import LensNetwork
from ddfd_ros.model.decoders import Decoder
from ddfd_ros.model.encoders import DenseEncoder

ANSWERS = ("metres", "blur")


class TwoHeaded(LensNetwork):
    """One encoder and two unshared decoders (Nazir 2022, section 3, figure 1).

    41,414,400 parameters with the 3x3 stem, 41,422,080 with the 7x7 stem; 576 more for a second
    map with ``answer: blur``, and 60,768 more with ``lens_input``. Parameters and operations go
    with the square of ``width``.

    Args:
        heads: ``both``, ``depth`` or ``sharp``; the decoder of a head left out does not exist.
        stem: Kernel side of the first convolution, 3 or 7.
        input_join: How the input image joins the deblurring decoder's output, both scaled to
            [-1, 1]: ``residual`` adds them (the paper), ``tanh`` takes the hyperbolic tangent of
            the sum (a public variant).
        dropout: Probability in the first two blocks of each decoder.
        bridge: ``linear``, or ``leaky`` for a leaky ReLU after the encoder's last batch norm.
        answer: What the depth decoder answers: ``metres`` (the paper), or ``blur`` with its
            deviation, which the lens turns into metres.
        lens: ``blur``: the lens that takes the pictures; with ``lens_input`` the one that is
            meant when none is given.
        depth_range_m: ``blur``: nearest and farthest depth that is answered, in metres.
        lens_input: ``blur``: take the lens beside the image, so that one network serves any lens.
        width: Factor for all channels, above 0; 1 is the paper's, less is for small machines.

    Raises:
        ValueError: An option has a value that does not exist, the depth range is empty or not
            positive, or ``lens_input`` is asked of a network that answers metres.
    """

    def __init__(
        self,
        heads: str = "both",
        stem: int = 3,
        input_join: str = "residual",
        dropout: float = 0.0,
        bridge: str = "linear",
        answer: str = "metres",
        lens: LensConfig = LENS_PRESETS["nyu-8m"],
        depth_range_m: tuple[float, float] = (0.5, 10.0),
        lens_input: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__(lens, depth_range_m, lens_input)
        check_choice("heads", heads, HEAD_CHOICES)
        check_choice("input_join", input_join, ("residual", "tanh"))
        check_choice("answer", answer, ANSWERS)
        self.reads_blur = answer == "blur"
        if lens_input and not self.reads_blur:
            raise ValueError(
                f"lens_input: expected answer 'blur' with it, got {answer!r}; metres that were "
                "learnt belong to one lens"
            )
        self.encoder = DenseEncoder(stem, bridge, width)
        maps = self.maps if self.reads_blur else 1
        decoder = partial(Decoder, self.encoder, dropout=dropout, width=width)
        self.depth_decoder = decoder(maps) if heads != "sharp" else None
        self.sharp_decoder = decoder(3) if heads != "depth" else None
        self.tanh_join = input_join == "tanh"
        self.conditions = self._conditions(self.encoder.skip_channels[1:])

    def forward_aligned(
        self, image: torch.Tensor, lens: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Answer images ``[N, 3, H, W]`` in [0, 1], H and W multiples of 32.

        Args:
            image: The images.
            lens: As for ``forward``.

        Returns:
            ``depth_m [N, 1, H, W]``, with ``answer: blur`` also ``sigma_m`` and ``defocus_px`` of
            that shape, and ``sharp_rgb [N, 3, H, W]``, as far as the network has these heads.
        """
        lens = self._told(image, lens)
        scaled = image * 2.0 - 1.0
        levels = self.encoder(scaled, self.conditions, lens)
        outputs: dict[str, torch.Tensor] = {}
        if self.depth_decoder is not None:
            raw = self.depth_decoder(levels)
            outputs = self._through_lens(raw, lens) if self.reads_blur else {"depth_m": raw}
        if self.sharp_decoder is not None:
            joined = scaled + self.sharp_decoder(levels)
            joined = torch.tanh(joined) if self.tanh_join else joined
            outputs["sharp_rgb"] = (joined + 1.0) * 0.5
        return outputs
