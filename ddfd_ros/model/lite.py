"""DdfdLite: our two-headed network for CPUs and small GPUs.

A separable-convolution encoder feeds two decoders. The depth decoder answers in the unit of the
cue, signed blur in pixels, with its standard deviation; the thin lens turns both into metres
(``ddfd_ros.model.blur_space``). The lens is fixed, or with ``lens_input`` given beside each image;
then the side of the focus is looked at a second time (``ddfd_ros.model.second_look``).

The all-in-focus decoder adds what the lens took away to the image it was given, and works at half
resolution with the image's own pixels beside the features, so that detail is kept.

Blur is local and fine: the stem sees every pixel, and no layer resamples the input. Everything is
convolution, batch norm (folded at export), ReLU and nearest upsampling, which any runtime runs
fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model.base import HEAD_CHOICES, check_choice, in_full_precision
from ddfd_ros.model.blur_space import Evidence, LensNetwork
from ddfd_ros.model.lite_blocks import Down, Expanded, Merge, Separable, conv_bn, stack
from ddfd_ros.model.second_look import SecondLook, two_distances

_DROPOUT_FROM = 2  # scales from 1/8 on: where D3-Net's decoder has its own, for the same study


class Encoder(nn.Module):
    """Five scales of features, at 1/2 to 1/32 of the input's size."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        """Channels and number of blocks per scale, finest first."""
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, widths[0], 5, stride=2), nn.ReLU())
        self.downs = nn.ModuleList(
            Down(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            stack(Separable if i < 2 else Expanded, width, depth)
            for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )

    def forward(
        self,
        x: torch.Tensor,
        conditions: nn.ModuleList | None = None,
        lens: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """``[N,3,H,W]`` to one ``[N,C_i,H/2^i,W/2^i]`` per scale, finest first.

        ``conditions`` tell the coarsest scales, one each, of the ``lens``.
        """
        features = [self.stages[0](self.stem(x))]
        first = len(self.stages) - len(conditions or ())
        for i, (down, stage) in enumerate(
            zip(self.downs, list(self.stages)[1:], strict=True), start=1
        ):
            coarser = down(features[-1])
            if conditions is not None and lens is not None and i >= first:
                coarser = conditions[i - first](coarser, lens)
            features.append(stage(coarser))
        return features


class DepthDecoder(nn.Module):
    """From all scales to what ``blur_space`` turns into metres, at full resolution."""

    def __init__(self, widths: Sequence[int], dropout: float = 0.0, maps: int = 2) -> None:
        """``widths``: the encoder's channels, finest first; ``dropout`` at the coarse scales."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        inner = [w if i < 2 else w // 2 for i, w in enumerate(widths[:-1])]
        coarser = [*inner[1:], widths[-1]]
        self.merges = nn.ModuleList(
            Merge(c, w, o) for c, w, o in zip(coarser, widths[:-1], inner, strict=True)
        )
        self.blocks = nn.ModuleList(
            stack(Separable, w, 2) if i < 2 else stack(Expanded, w, 1) for i, w in enumerate(inner)
        )
        self.out = nn.Conv2d(inner[0], 4 * maps, 3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Encoder features to ``[N,maps,H,W]``, untransformed: see ``blur_space``."""
        x = features[-1]
        for i in reversed(range(len(self.merges))):
            x = self.blocks[i](self.merges[i](x, features[i]))
            x = self.dropout(x) if i >= _DROPOUT_FROM else x
        return F.pixel_shuffle(in_full_precision(self.out, x), 2)


class SharpDecoder(nn.Module):
    """From the three finest scales and the image to what defocus took away, in [0,1] units."""

    def __init__(self, widths: Sequence[int], fine: int, blocks: int) -> None:
        """``widths``: the encoder's; ``fine`` channels in ``blocks`` blocks at half resolution."""
        super().__init__()
        middle = widths[1]
        self.merge_quarter = Merge(widths[2], widths[1], middle)
        self.coarse = stack(Separable, middle, 2)
        self.merge_half = Merge(middle, widths[0] + 12, fine)
        self.fine = stack(Separable, fine, blocks)
        self.out = nn.Conv2d(fine, 12, 3, padding=1)
        # Untrained, the answer is the image itself.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        """Centred image ``[N,3,H,W]`` and encoder features to a correction ``[N,3,H,W]``."""
        x = self.coarse(self.merge_quarter(features[2], features[1]))
        beside = torch.cat([features[0], F.pixel_unshuffle(image, 2)], dim=1)
        x = self.fine(self.merge_half(x, beside))
        return F.pixel_shuffle(self.out(x), 2)


class DdfdLite(LensNetwork):
    """Depth, its deviation, and the all-in-focus image from one defocused photograph.

    Args:
        heads: ``both``, ``depth`` (with its deviation) or ``sharp``. A head left out is not built.
        lens: The lens that takes the pictures; turns blur into metres. With ``lens_input`` the one
            that is meant when none is given.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        widths: Channels at 1/2, 1/4, 1/8, 1/16, 1/32 of the input's size.
        depths: Encoder blocks at each of these scales.
        sharp_width: Channels of the all-in-focus decoder at half resolution.
        sharp_blocks: Its blocks there.
        dropout: Probability in the depth decoder at 1/8 and 1/16 of the size, for the study of
            model uncertainty.
        lens_input: Take the lens beside the image, so that one network serves any lens.
        second_look: With ``lens_input``: look at both sides of the focus (``SecondLook``).

    Raises:
        ValueError: Unknown ``heads``, or a depth range that is empty or not positive.
    """

    def __init__(
        self,
        heads: str = "both",
        lens: LensConfig = LENS_PRESETS["nyu-8m"],
        depth_range_m: tuple[float, float] = (0.5, 10.0),
        widths: Sequence[int] = (32, 64, 96, 160, 224),
        depths: Sequence[int] = (1, 2, 3, 3, 2),
        sharp_width: int = 32,
        sharp_blocks: int = 3,
        dropout: float = 0.0,
        lens_input: bool = False,
        second_look: bool = True,
    ) -> None:
        """Build the heads asked for, with random weights."""
        super().__init__(lens, depth_range_m, lens_input)
        check_choice("heads", heads, HEAD_CHOICES)
        self.encoder = Encoder(widths, depths)
        self.depth_decoder = DepthDecoder(widths, dropout, self.maps) if heads != "sharp" else None
        self.sharp_decoder = (
            SharpDecoder(widths, sharp_width, sharp_blocks) if heads != "depth" else None
        )
        self.conditions = self._conditions(widths[2:])
        looks = second_look and lens_input and self.depth_decoder is not None
        self.second_look = SecondLook(widths[2:]) if looks else None

    def forward_aligned(
        self, image: torch.Tensor, lens: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Answer images ``[N,3,H,W]`` in [0,1], H and W multiples of 32.

        Args:
            image: The images.
            lens: As for ``forward``.

        Returns:
            ``depth_m``, ``sigma_m``, ``defocus_px`` as ``[N,1,H,W]`` and ``sharp_rgb`` as
            ``[N,3,H,W]``, as far as the network has these heads. ``sharp_rgb`` is not clipped.
        """
        lens = self._told(image, lens)
        centred = (image - 0.5) * 4
        features = self.encoder(centred, self.conditions, lens)
        out: dict[str, torch.Tensor] = {}
        if self.depth_decoder is not None:
            again = None if self.second_look is None else partial(self._again, features)
            out.update(self._through_lens(self.depth_decoder(features), lens, again))
        if self.sharp_decoder is not None:
            out["sharp_rgb"] = image + self.sharp_decoder(centred, features).float()
        return out

    def _again(self, features: list[torch.Tensor], evidence: Evidence) -> torch.Tensor:
        """What a second look at both sides of the focus says."""
        assert self.second_look is not None
        # Detached: what is read at first has its own truth to learn from.
        seen = {name: part.detach() for name, part in evidence.read().items()}
        shown = two_distances(**seen, strength=evidence.strength, focus=evidence.focus)
        return self.second_look(shown, features[2:])
