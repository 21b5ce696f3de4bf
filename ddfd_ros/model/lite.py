"""DdfdLite: our two-headed network for CPUs and small GPUs.

A separable-convolution encoder feeds two decoders. The depth decoder answers in the unit of the
cue, signed blur in pixels, with its standard deviation; the thin lens turns both into metres:

    1/d = 1/d_f - c / A,        sigma_m = d^2 / A * sigma_px   (first order; see core.thin_lens)

The all-in-focus decoder adds what the lens took away to the image it was given, and works at half
resolution with the image's own pixels beside the features, so that detail is kept.

Blur is local and fine: the stem sees every pixel, and no layer resamples the input. Everything is
convolution, batch norm (folded at export), ReLU and nearest upsampling, which any runtime runs
fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model.base import HEAD_CHOICES, ImageNetwork, check_choice

_BLUR_GAIN_PX = 4.0  # one unit of the last layer, in pixels of blur: near the spread of the data
_START_DEPTH_M = 2.5  # where the untrained network stands
_START_SIGMA_PX = 0.5
_LEAK = 0.1


def _conv_bn(cin: int, cout: int, size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


def _depthwise(channels: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)


class Separable(nn.Module):
    """Depthwise and pointwise convolution with a shortcut: the block of the fine scales."""

    def __init__(self, channels: int, size: int = 3) -> None:
        """Keep ``channels``; the depthwise kernel is ``size`` pixels wide."""
        super().__init__()
        self.spatial = _depthwise(channels, size)
        self.mix = _conv_bn(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N,C,H,W]`` to the same shape."""
        return F.relu(x + self.mix(self.spatial(x)))


class Expanded(nn.Module):
    """A wide depthwise kernel and a two-layer mixer with a shortcut: the coarse scales' block."""

    def __init__(self, channels: int, size: int = 5, expansion: int = 2) -> None:
        """Keep ``channels``, with ``expansion`` times as many inside."""
        super().__init__()
        self.spatial = nn.Sequential(_depthwise(channels, size), nn.BatchNorm2d(channels))
        self.widen = nn.Conv2d(channels, expansion * channels, 1)
        self.narrow = _conv_bn(expansion * channels, channels, 1)

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
        self.coarse = _conv_bn(coarse, cout, 1)
        self.skip = _conv_bn(skip, cout, 1)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``[N,C1,H/2,W/2]`` and ``[N,C2,H,W]`` to ``[N,C,H,W]``."""
        up = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return F.relu(up + self.skip(skip))


def _stage(block: type[nn.Module], channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(block(channels) for _ in range(count)))


class Encoder(nn.Module):
    """Five scales of features, at 1/2 to 1/32 of the input's size."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        """Channels and number of blocks per scale, finest first."""
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, widths[0], 5, stride=2), nn.ReLU())
        self.downs = nn.ModuleList(
            Down(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            _stage(Separable if i < 2 else Expanded, width, depth)
            for i, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """``[N,3,H,W]`` to one ``[N,C_i,H/2^i,W/2^i]`` per scale, finest first."""
        features = [self.stages[0](self.stem(x))]
        for down, stage in zip(self.downs, list(self.stages)[1:], strict=True):
            features.append(stage(down(features[-1])))
        return features


class DepthDecoder(nn.Module):
    """From all scales to signed blur and the logarithm of its deviation, at full resolution."""

    def __init__(self, widths: Sequence[int]) -> None:
        """``widths``: the encoder's channels, finest first."""
        super().__init__()
        inner = [w if i < 2 else w // 2 for i, w in enumerate(widths[:-1])]
        coarser = [*inner[1:], widths[-1]]
        self.merges = nn.ModuleList(
            Merge(c, w, o) for c, w, o in zip(coarser, widths[:-1], inner, strict=True)
        )
        self.blocks = nn.ModuleList(
            _stage(Separable, w, 2) if i < 2 else _stage(Expanded, w, 1)
            for i, w in enumerate(inner)
        )
        self.out = nn.Conv2d(inner[0], 8, 3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Encoder features to ``[N,2,H,W]``: blur and log deviation, both untransformed."""
        x = features[-1]
        for i in reversed(range(len(self.merges))):
            x = self.blocks[i](self.merges[i](x, features[i]))
        return F.pixel_shuffle(self.out(x), 2)


class SharpDecoder(nn.Module):
    """From the three finest scales and the image to what defocus took away, in [0,1] units."""

    def __init__(self, widths: Sequence[int], fine: int, blocks: int) -> None:
        """``widths``: the encoder's; ``fine`` channels in ``blocks`` blocks at half resolution."""
        super().__init__()
        middle = widths[1]
        self.merge_quarter = Merge(widths[2], widths[1], middle)
        self.coarse = _stage(Separable, middle, 2)
        self.merge_half = Merge(middle, widths[0] + 12, fine)
        self.fine = _stage(Separable, fine, blocks)
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


class DdfdLite(ImageNetwork):
    """Depth, its deviation, and the all-in-focus image from one defocused photograph.

    Args:
        heads: ``both``, ``depth`` (with its deviation) or ``sharp``. A head left out is not built.
        lens: The lens that takes the pictures; turns blur into metres.
        depth_range_m: Nearest and farthest depth that is answered, in metres.
        widths: Channels at 1/2, 1/4, 1/8, 1/16, 1/32 of the input's size.
        depths: Encoder blocks at each of these scales.
        sharp_width: Channels of the all-in-focus decoder at half resolution.
        sharp_blocks: Its blocks there.

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
    ) -> None:
        """Build the heads asked for, with random weights."""
        super().__init__()
        check_choice("heads", heads, HEAD_CHOICES)
        nearest_m, farthest_m = depth_range_m
        if not 0 < nearest_m < farthest_m:
            raise ValueError(f"depth_range_m: expected 0 < near < far, got {depth_range_m}")
        self.lens = lens
        self.depth_range_m = (float(nearest_m), float(farthest_m))
        self.encoder = Encoder(widths, depths)
        self.depth_decoder = DepthDecoder(widths) if heads != "sharp" else None
        self.sharp_decoder = (
            SharpDecoder(widths, sharp_width, sharp_blocks) if heads != "depth" else None
        )

    def forward_aligned(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answer images ``[N,3,H,W]`` in [0,1], H and W multiples of 32.

        Returns:
            ``depth_m``, ``sigma_m``, ``defocus_px`` as ``[N,1,H,W]`` and ``sharp_rgb`` as
            ``[N,3,H,W]``, as far as the network has these heads. ``sharp_rgb`` is not clipped.
        """
        centred = (image - 0.5) * 4
        features = self.encoder(centred)
        out: dict[str, torch.Tensor] = {}
        if self.depth_decoder is not None:
            out.update(self._metres(self.depth_decoder(features).float()))
        if self.sharp_decoder is not None:
            out["sharp_rgb"] = image + self.sharp_decoder(centred, features).float()
        return out

    def _metres(self, raw: torch.Tensor) -> dict[str, torch.Tensor]:
        """Signed blur and deviation in pixels, and through the lens in metres."""
        strength = self.lens.px_per_dioptre
        start_px = float(self.lens.signed_coc_px(_START_DEPTH_M))
        blur_px = raw[:, :1] * _BLUR_GAIN_PX + start_px
        nearest_m, farthest_m = self.depth_range_m
        low = float(self.lens.signed_coc_px(nearest_m))
        high = float(self.lens.signed_coc_px(farthest_m))
        inside = blur_px.clamp(low, high)
        if self.training:
            # The value is clamped, yet keeps a small slope, so that a pixel finds its way back.
            inside = inside + _LEAK * (blur_px - blur_px.detach())
        dioptre = self.lens.focus_dioptre - inside / strength
        depth_m = 1.0 / dioptre
        sigma_px = torch.exp(raw[:, 1:].clamp(-6.0, 4.0)) * _START_SIGMA_PX
        sigma_m = depth_m.detach() ** 2 * (sigma_px / strength)
        if not self.training:
            # First order goes too far where blur says nothing; depth lies in its range at least.
            sigma_m = sigma_m.clamp(max=farthest_m - nearest_m)
        return {
            "depth_m": depth_m,
            "sigma_m": sigma_m,
            "defocus_px": inside,
        }
