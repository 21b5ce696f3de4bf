"""Self-supervised 2HDED:NET: a defocus map, the all-in-focus image, and depth through the lens.

Nazir's thesis, chapter 5: the two-headed network, whose first decoder answers how much each pixel
is blurred instead of how far it is. That can be learnt without depth (``ddfd_training.selfsup``),
but it has no sign: the same blur lies before and behind the focus. Which side the scene is on must
be known, and with it the thin lens gives metres: 1/d = 1/d_f - c / A (``core.thin_lens``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model.base import HEAD_CHOICES, ImageNetwork, check_choice
from ddfd_ros.model.decoders import Decoder
from ddfd_ros.model.encoders import DenseEncoder
from ddfd_ros.model.lite import DepthDecoder, Encoder, SharpDecoder

SIDES = ("near", "far", "unknown")
BACKBONES = ("densenet", "ddfd-lite")
_LEAK = 0.1


class SelfSupervised(ImageNetwork):
    """Defocus map and all-in-focus image, trained without depth (thesis chapter 5, figure 5.1).

    Args:
        heads: ``both``, ``depth`` (the map and the depth that follows from it) or ``sharp``.
        backbone: ``densenet`` (the thesis: encoder and decoders of 2HDED:NET) or ``ddfd-lite``
            (this project's small ones; forty times fewer parameters).
        side: Where the scene lies: ``near`` (before the plane in focus), ``far`` (behind it), or
            ``unknown``: then there is no depth and the map has no sign.
        lens: Turns blur into metres.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        least_blur_px: Smallest blur diameter that is answered, in pixels. Near zero a re-blurred
            image hardly changes with the blur, so that a map that has got there stays there; the
            public variant of the thesis's code clamps at 1. What is blurred less is answered as
            this: with ``nyu-8m`` everything beyond 5.8 m.
        max_blur_px: Largest blur diameter that is answered, in pixels.
        start_px: Where the untrained map stands, in pixels.
        stem: ``densenet``: kernel side of the first convolution, 3 or 7.
        dropout: ``densenet``: probability in the first two blocks of each decoder.
        width: ``densenet``: factor for all channels, above 0 and at most 1, the thesis's; less is
            for small machines.
        widths: ``ddfd-lite``: channels at 1/2 to 1/32 of the input's size.
        depths: ``ddfd-lite``: encoder blocks at each of these scales.
        sharp_width: ``ddfd-lite``: channels of the all-in-focus decoder at half resolution.
        sharp_blocks: ``ddfd-lite``: its blocks there.

    Raises:
        ValueError: An option has a value that does not exist, or no depth of the range lies on the
            chosen side of the focus.
    """

    def __init__(
        self,
        heads: str = "both",
        backbone: str = "densenet",
        side: str = "near",
        lens: LensConfig = LENS_PRESETS["nyu-8m"],
        depth_range_m: tuple[float, float] = (0.5, 10.0),
        least_blur_px: float = 0.7,
        max_blur_px: float = 25.0,
        start_px: float = 4.0,
        stem: int = 3,
        dropout: float = 0.0,
        width: float = 1.0,
        widths: Sequence[int] = (32, 64, 96, 160, 224),
        depths: Sequence[int] = (1, 2, 3, 3, 2),
        sharp_width: int = 32,
        sharp_blocks: int = 3,
    ) -> None:
        super().__init__()
        check_choice("heads", heads, HEAD_CHOICES)
        check_choice("backbone", backbone, BACKBONES)
        check_choice("side", side, SIDES)
        if not 0 < least_blur_px < start_px < max_blur_px:
            raise ValueError(
                "least_blur_px, start_px, max_blur_px: expected 0 < least < start < max, in px, "
                f"got {least_blur_px}, {start_px} and {max_blur_px}"
            )
        self.lens, self.side = lens, side
        self.depth_range_m = _range_on_side(side, lens, depth_range_m)
        self.least_blur_px, self.max_blur_px = float(least_blur_px), float(max_blur_px)
        self.start_px = float(start_px)
        self.lite = backbone == "ddfd-lite"
        self.encoder: nn.Module
        self.map_decoder: nn.Module | None = None
        self.sharp_decoder: nn.Module | None = None
        if self.lite:
            self.encoder = Encoder(widths, depths)
            self.map_decoder = _map_decoder(widths) if heads != "sharp" else None
            self.sharp_decoder = (
                SharpDecoder(widths, sharp_width, sharp_blocks) if heads != "depth" else None
            )
        else:
            self.encoder = dense = DenseEncoder(stem, width=width)
            decoder = partial(Decoder, dense, dropout=dropout, width=width)
            self.map_decoder = decoder(1) if heads != "sharp" else None
            self.sharp_decoder = decoder(3) if heads != "depth" else None

    def forward_aligned(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answer images ``[N,3,H,W]`` in [0,1], H and W multiples of 32.

        Returns:
            ``defocus_px [N,1,H,W]``, blur diameter in pixels, negative before the focus (not
            negative where the side is unknown); ``depth_m [N,1,H,W]`` unless the side is unknown;
            ``sharp_rgb [N,3,H,W]``, not clipped.
        """
        scaled = (image - 0.5) * 4 if self.lite else image * 2.0 - 1.0
        levels = self.encoder(scaled)
        outputs: dict[str, torch.Tensor] = {}
        if self.map_decoder is not None:
            outputs.update(self._through_lens(self.map_decoder(levels).float()))
        if self.sharp_decoder is None:
            return outputs
        if self.lite:
            outputs["sharp_rgb"] = image + self.sharp_decoder(scaled, levels).float()
        else:
            outputs["sharp_rgb"] = image + self.sharp_decoder(levels) * 0.5
        return outputs

    def _through_lens(self, raw: torch.Tensor) -> dict[str, torch.Tensor]:
        """The map, and the depth on the chosen side of the focus.

        The last layer answers the logarithm of the blur: what a re-blurred image changes by is the
        ratio of two blurs, so that wide and narrow ones are learnt alike.
        """
        ends = (self.least_blur_px, self.max_blur_px)
        low, high = (math.log(px / self.start_px) for px in ends)
        inside = raw.clamp(low, high)
        if self.training:
            # The value is clamped, yet keeps a small slope, so that a pixel finds its way back.
            inside = inside + _LEAK * (raw - raw.detach())
        blur_px = self.start_px * torch.exp(inside)
        if self.side == "unknown":
            return {"defocus_px": blur_px}
        signed_px = -blur_px if self.side == "near" else blur_px
        nearest_m, farthest_m = self.depth_range_m
        dioptre = self.lens.focus_dioptre - signed_px / self.lens.px_per_dioptre
        depth_m = 1.0 / dioptre.clamp(1.0 / farthest_m, 1.0 / nearest_m)
        return {"defocus_px": signed_px, "depth_m": depth_m}


def _map_decoder(widths: Sequence[int]) -> DepthDecoder:
    """ddfd-lite's depth decoder with one map, without the deviation beside it."""
    decoder = DepthDecoder(widths)
    decoder.out = nn.Conv2d(decoder.out.in_channels, 4, 3, padding=1)
    return decoder


def _range_on_side(
    side: str, lens: LensConfig, depth_range_m: tuple[float, float]
) -> tuple[float, float]:
    """The part of the range on the chosen side of the focus.

    Raises:
        ValueError: There is none.
    """
    nearest_m, farthest_m = map(float, depth_range_m)
    if not 0 < nearest_m < farthest_m:
        raise ValueError(f"depth_range_m: expected 0 < near < far, got {depth_range_m}")
    if side == "near":
        farthest_m = min(farthest_m, lens.focus_distance_m)
    elif side == "far":
        nearest_m = max(nearest_m, lens.focus_distance_m)
    if nearest_m >= farthest_m:
        raise ValueError(
            f"side: expected some of {tuple(depth_range_m)} m on the {side} side of the focus at "
            f"{lens.focus_distance_m} m, got none; choose the other side"
        )
    return nearest_m, farthest_m
